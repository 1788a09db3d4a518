"""DEP: soft tokens for the user's reviews and for how they differ from other users' reviews of the same items."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.context import Context
from bench.errors import ConfigError
from bench.problems import at_most
from bench.protocols import Properties, Steps, Whose
from bench.records import Features, Instance, Prompt, Record

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class DEP:
    """K history blocks, each with a soft token for the review (his) and one for its difference from what the item's
    other reviewers wrote (diff); a block whose item nobody else reviewed has no diff (DEP paper, section 3.2).

    A sparse autoencoder, trained through the frozen language model, compresses both embeddings before two projectors
    bring them to its input space. `recon_weight`, `sparsity_weight` and `sparsity_target` are lambda, gamma and rho of
    Eq. 10 and 11; `text`, `embeddings`, `refinement` and `guidance` are the paper's ablations (Tables 2, 3 and 9).

    The further options are switches between the paper and the released code (docs/fidelity.md). `layout=released` lays
    the prompt out as that code does. With `slot_alignment=with_peers` the vectors are those of the best ranked reviews
    that have a peer, while block i shows the i-th best of all; with `tied_vectors=mirrored` those of reviews with one
    timestamp are exchanged among them, the first's with the last's: a block's vectors may then be another review's.
    With `lone_peer=beside_own` a review whose item has a single peer is without peers unless it is in the pool itself;
    with `user_mean=with_target` a user's mean vector takes in the review that an adapter is trained to write.
    `aux_rows` says whether the vectors of blocks that the budget leaves no room for count in the method's own losses.
    """

    encoder: str = "BAAI/bge-m3"
    latent: Annotated[int, Field(ge=1), at_most(65_536, "weights take as many rows")] = 512
    embeddings: Literal["his", "diff", "both"] = "both"
    text: bool = True
    guidance: bool = True
    refinement: Literal["none", "ae", "sae"] = "sae"
    decoder_activation: Literal["gelu", "none"] = "gelu"
    recon_weight: Annotated[float, Field(ge=0)] = 100.0
    sparsity_weight: Annotated[float, Field(ge=0)] = 1e-3
    sparsity_target: Annotated[float, Field(gt=0, lt=1)] = 0.05
    layout: Literal["figure6", "released"] = "figure6"
    peer_weights: Literal["mean", "distance"] = "mean"
    user_mean: Literal["peers", "with_target"] = "peers"
    lone_peer: Literal["counts", "beside_own"] = "counts"
    slot_alignment: Literal["block", "with_peers"] = "block"
    tied_vectors: Literal["own", "mirrored"] = "own"
    losses: Literal["apart", "joint"] = "apart"
    aux_rows: Literal["shown", "all"] = "shown"
    init: Literal["xavier", "normal"] = "xavier"
    aux_reduction: Literal["mean", "sum"] = "mean"
    vectors: Whose = "own"

    properties: ClassVar[Properties] = Properties(retrieval_augmented=True, embedded=True, inter_user=True)
    official: ClassVar[Mapping[str, object]] = {
        "layout": "released",
        "peer_weights": "distance",
        "user_mean": "with_target",
        "lone_peer": "beside_own",
        "slot_alignment": "with_peers",
        "tied_vectors": "mirrored",
        "losses": "joint",
        "aux_rows": "all",
        "init": "normal",
        "aux_reduction": "sum",
    }
    learning_rate: ClassVar[float] = 1e-5
    marks: ClassVar[tuple[str, ...]] = (
        *(f"[HIS_TOKEN_{index}]" for index in range(8)),
        *(f"[DIFF_TOKEN_{index}]" for index in range(8)),
        *("<his_token_start>", "<his_token_end>", "<diff_token_start>", "<diff_token_end>"),
    )
    """What the released DEP adds to its tokenizer, in this order: eight placeholders each, and the marks around."""

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates that these options render."""
        names = [self._write, self._block]
        names += [self._kind_templates[kind] for kind in ("HIS", "DIFF") if self.embeddings in ("both", kind.lower())]
        return (*names, *(("guidance",) if self.guidance else ()))

    @property
    def _write(self) -> str:
        return "write" if self.layout == "figure6" else "released"

    @property
    def _block(self) -> str:
        block = "block" if self.text else "block_without_text"
        return block if self.layout == "figure6" else f"released_{block}"

    @property
    def _kind_templates(self) -> Mapping[str, str]:
        prefix = "" if self.layout == "figure6" else "released_"
        return {"HIS": f"{prefix}his", "DIFF": f"{prefix}diff"}

    def steps(self, instance: Instance, context: Context) -> Steps:
        (text,) = yield [self._prompt(instance, context)]
        return text

    def adapter(self, dimension: int, hidden_size: int) -> nn.Module:
        """The autoencoder, unless `refinement=none`, and a projector for each kind of embedding."""
        from bench.methods._dep_adapter import DEPAdapter

        return DEPAdapter(self, dimension, hidden_size)

    def _prompt(self, instance: Instance, context: Context) -> Prompt:
        """Figure 6, with features for the blocks that are shown and, for the losses, perhaps for the others."""
        history = context.retrieve(instance)
        peers = [self._peers(review, instance, context) for review in history]
        sources = list(zip(history, peers, strict=True))
        if self.slot_alignment == "with_peers":
            ranked = ((review, self._peers(review, instance, context)) for review in context.ranked(instance))
            sources = [source for source in ranked if source[1]][: len(history)]
        kinds = [self._kinds(others) for _, others in sources] + [()] * (len(history) - len(sources))
        prompt = context.prompt(
            self._write,
            instance,
            history,
            blocks=lambda index: (self._block, *(self._kind_templates[kind] for kind in kinds[index])),
            texts={"guidance": "\n" + context.templates.part("guidance", {}) if self.guidance else ""},
            soft=True,
            stage="write",
        )
        shown = prompt.blocks_shown
        wanted = tuple(f"[{kind}_TOKEN_{index}]" for index in range(shown) for kind in kinds[index])
        if prompt.slots != wanted:
            raise ConfigError(
                f"the templates of dep give the slots {' '.join(prompt.slots) or 'none'}, wanted are "
                f"{' '.join(wanted) or 'none'}: {self._kind_templates['HIS']} must hold [HIS_TOKEN_{{{{index}}}}] and "
                f"{self._kind_templates['DIFF']} [DIFF_TOKEN_{{{{index}}}}], once each"
            )
        owners = self._owners([review for review, _ in sources], instance)
        moved = [own != owner for own, owner in zip(history[:shown], owners, strict=False)]
        counts = {
            "slots": len(wanted),
            "misaligned_slots": sum(len(kinds[index]) for index, other in enumerate(moved) if other),
            "blocks_without_peers": sum(not others for others in peers[:shown]),
        }
        if not wanted:
            return dataclasses.replace(prompt, counts=counts)
        vectors_of = [(owner, others) for owner, (_, others) in zip(owners, sources, strict=True)]

        def features() -> dict[str, NDArray[np.float32]]:
            made = self._features(vectors_of[:shown], instance, context)
            if self.aux_rows == "all" and len(vectors_of) > shown:
                rest = self._features(vectors_of[shown:], instance, context)
                made |= {f"unshown_{name}": rows for name, rows in rest.items()}
            return made

        return dataclasses.replace(prompt, features=Features(features), counts=counts)

    def _peers(self, review: Record, instance: Instance, context: Context) -> list[Record]:
        """What other users wrote of the review's item, as far as they count."""
        peers = context.peers(review, instance)
        if self.lone_peer == "counts" or context.pool is None:
            return peers
        return peers if len(context.pool.of_group(review.group)) > 1 else []

    def _owners(self, reviews: Sequence[Record], instance: Instance) -> list[Record]:
        """Whose vector stands for each review: its own or, with `tied_vectors=mirrored`, that of the review at the
        other end of those of its timestamp in the profile, as the released code reverses texts, where equal ones keep
        their order, and vectors, which it reverses as a whole."""
        if self.tied_vectors == "own":
            return list(reviews)
        places: dict[int | None, list[Record]] = {}
        for record in instance.profile:
            places.setdefault(record.timestamp, []).append(record)
        owners = {
            id(record): tied[-1 - place]
            for time, tied in places.items()
            for place, record in enumerate(tied)
            if time is not None
        }
        return [owners.get(id(review), review) for review in reviews]

    def _kinds(self, peers: Sequence[Record]) -> tuple[str, ...]:
        """The soft tokens of a review with these peers, in their order in the block."""
        his = ("HIS",) if self.embeddings != "diff" else ()
        diff = ("DIFF",) if self.embeddings != "his" and peers else ()
        return his + diff

    def _features(
        self, sources: Iterable[tuple[Record, Sequence[Record]]], instance: Instance, context: Context
    ) -> dict[str, NDArray[np.float32]]:
        """A row for each slot, in the order of the slots: "embeddings", shape (n, d), e_his (Eq. 2) or e_diff (Eq. 4);
        "is_diff", shape (n,), which of the two: 0 or 1."""
        chosen = [(review, peers, kinds) for review, peers in sources if (kinds := self._kinds(peers))]
        texts = [one.text for review, peers, kinds in chosen for one in (review, *(peers if "DIFF" in kinds else ()))]
        vectors = iter(context.embed(texts, self.encoder))
        rows, is_diff = [], []
        for _, peers, kinds in chosen:
            his = next(vectors)
            if "HIS" in kinds:
                rows.append(his)
                is_diff.append(0.0)
            if "DIFF" in kinds:
                theirs = np.stack([next(vectors) for _ in peers])
                rows.append(self._weights(peers, instance, context) @ (his - theirs))
                is_diff.append(1.0)
        return {"embeddings": np.stack(rows).astype(np.float32), "is_diff": np.array(is_diff, np.float32)}

    def _weights(self, peers: Sequence[Record], instance: Instance, context: Context) -> NDArray[np.float32]:
        """How much each peer counts in the difference, shape (m,), summing to 1. By distance, as in the released code:
        the softmax over the peers' shares of the summed distances between their mean vectors and the user's."""
        if self.peer_weights == "mean":
            return np.full(len(peers), 1 / len(peers), np.float32)
        one_more = self.user_mean == "with_target"
        own = context.user_vector(instance.user_id, self.encoder, instance.profile, one_more)
        theirs = np.stack([context.user_vector(peer.user_id, self.encoder, with_target=one_more) for peer in peers])
        distances = np.linalg.norm(theirs - own, axis=1)
        shares = np.exp(distances / (distances.sum() or 1.0))
        return np.asarray(shares / shares.sum(), np.float32)
