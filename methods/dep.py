"""DEP: soft tokens for the user's reviews and for how they differ from other users' reviews of the same items."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from bench.context import Context
from bench.errors import ConfigError
from bench.protocols import Properties, Steps, Whose
from bench.records import Instance, Prompt, Review

Vectors = NDArray[np.float32]
_TEMPLATES = {"HIS": "dep_his", "DIFF": "dep_diff"}


@dataclass(frozen=True)
class DEP:
    """K history blocks, each with a soft token for the review (his) and one for its difference from what the item's
    other reviewers wrote (diff); a block whose item nobody else reviewed has no diff (DEP paper, section 3.2).

    A sparse autoencoder, trained through the frozen language model, compresses both embeddings before two projectors
    bring them to its input space. `recon_weight`, `sparsity_weight` and `sparsity_target` are lambda, gamma and rho of
    Eq. 10 and 11; `text`, `embeddings`, `refinement` and `guidance` are the paper's ablations (Tables 2, 3 and 9).
    With `slot_alignment=with_peers` the vectors are those of the best ranked reviews that have a peer, while block i
    shows the i-th best of all: a block's vectors may then be another review's.
    """

    encoder: str = "BAAI/bge-m3"
    latent: Annotated[int, Field(ge=1)] = 512
    embeddings: Literal["his", "diff", "both"] = "both"
    text: bool = True
    guidance: bool = True
    refinement: Literal["none", "ae", "sae"] = "sae"
    decoder_activation: Literal["gelu", "none"] = "gelu"
    recon_weight: Annotated[float, Field(ge=0)] = 100.0
    sparsity_weight: Annotated[float, Field(ge=0)] = 1e-3
    sparsity_target: Annotated[float, Field(gt=0, lt=1)] = 0.05
    peer_weights: Literal["mean", "distance"] = "mean"
    slot_alignment: Literal["block", "with_peers"] = "block"
    losses: Literal["apart", "joint"] = "apart"
    init: Literal["xavier", "normal"] = "xavier"
    aux_reduction: Literal["mean", "sum"] = "mean"
    vectors: Whose = "own"

    properties: ClassVar[Properties] = Properties(retrieval_augmented=True, embedded=True, inter_user=True)
    official: ClassVar[Mapping[str, object]] = {
        "peer_weights": "distance",
        "slot_alignment": "with_peers",
        "losses": "joint",
        "init": "normal",
        "aux_reduction": "sum",
    }
    learning_rate: ClassVar[float] = 1e-5

    def steps(self, instance: Instance, context: Context) -> Steps:
        (review,) = yield [self._prompt(instance, context)]
        return review

    def adapter(self, dimension: int, hidden_size: int) -> nn.Module:
        """The autoencoder, unless `refinement=none`, and a projector for each kind of embedding."""
        return _Adapter(self, dimension, hidden_size)

    def _prompt(self, instance: Instance, context: Context) -> Prompt:
        """Figure 6, with features for the blocks that are shown."""
        history = context.retrieve(instance)
        peers = [context.peers(review, instance) for review in history]
        sources = list(zip(history, peers, strict=True))
        if self.slot_alignment == "with_peers":
            ranked = ((review, context.peers(review, instance)) for review in context.ranked(instance))
            sources = [source for source in ranked if source[1]]
        kinds = [self._kinds(others) for _, others in sources] + [()] * (len(history) - len(sources))
        block = "block" if self.text else "dep_block_without_text"
        prompt = context.prompt(
            "dep_review",
            instance,
            history,
            blocks=lambda index: (block, *(_TEMPLATES[kind] for kind in kinds[index])),
            soft=True,
            guidance="\n" + context.templates.block({}, "dep_guidance") if self.guidance else "",
        )
        shown = prompt.blocks_shown
        wanted = tuple(f"[{kind}_TOKEN_{index}]" for index in range(shown) for kind in kinds[index])
        if prompt.slots != wanted:
            raise ConfigError(
                f"the templates of dep give the slots {' '.join(prompt.slots) or 'none'}, wanted are "
                f"{' '.join(wanted) or 'none'}: dep_his must hold [HIS_TOKEN_{{{{index}}}}] and dep_diff "
                "[DIFF_TOKEN_{{index}}], once each"
            )
        moved = [own != source for own, (source, _) in zip(history[:shown], sources, strict=False)]
        counts = {
            "slots": len(wanted),
            "misaligned_slots": sum(len(kinds[index]) for index, other in enumerate(moved) if other),
            "blocks_without_peers": sum(not others for others in peers[:shown]),
        }
        features = self._features(sources[:shown], instance, context) if wanted else {}
        return dataclasses.replace(prompt, features=features, counts=counts)

    def _kinds(self, peers: Sequence[Review]) -> tuple[str, ...]:
        """The soft tokens of a review with these peers, in their order in the block."""
        his = ("HIS",) if self.embeddings != "diff" else ()
        diff = ("DIFF",) if self.embeddings != "his" and peers else ()
        return his + diff

    def _features(
        self, sources: Iterable[tuple[Review, Sequence[Review]]], instance: Instance, context: Context
    ) -> dict[str, Vectors]:
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

    def _weights(self, peers: Sequence[Review], instance: Instance, context: Context) -> Vectors:
        """How much each peer counts in the difference, shape (m,), summing to 1. By distance, as in the released code:
        the softmax over the peers' shares of the summed distances between their mean vectors and the user's."""
        if self.peer_weights == "mean":
            return np.full(len(peers), 1 / len(peers), np.float32)
        own = context.user_vector(instance.user_id, self.encoder, otherwise=instance.profile)
        theirs = np.stack([context.user_vector(peer.user_id, self.encoder) for peer in peers])
        distances = np.linalg.norm(theirs - own, axis=1)
        shares = np.exp(distances / (distances.sum() or 1.0))
        return np.asarray(shares / shares.sum(), np.float32)


class _Adapter(nn.Module):
    """Eq. 5, 6 and 8 to 11 but for the language model's loss. Parameters are named as in the released checkpoint."""

    def __init__(self, method: DEP, dimension: int, hidden_size: int) -> None:
        super().__init__()
        self.method = method
        width = dimension
        if method.refinement != "none":
            width = method.latent
            decoder: list[nn.Module] = [nn.Linear(width, dimension)]
            if method.decoder_activation == "gelu":
                decoder.append(nn.GELU())
            self.sae = nn.ModuleDict(
                {
                    "encoder": nn.Sequential(nn.Linear(dimension, width), nn.GELU()),
                    "decoder": nn.Sequential(*decoder),
                }
            )
        if method.embeddings != "diff":
            self.align_mlp_his = _projector(width, hidden_size)
        if method.embeddings != "his":
            self.align_mlp_diff = _projector(width, hidden_size)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                if method.init == "xavier":
                    nn.init.xavier_uniform_(layer.weight)
                else:
                    nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Mapping[str, Tensor]]) -> tuple[list[Tensor], Tensor | None]:
        """Vectors, shape (n, hidden_size) for each prompt's n slots, and each prompt's own losses, shape (prompts,)."""
        dtype = next(self.parameters()).dtype
        embeddings = torch.cat([one["embeddings"] for one in features]).to(dtype)
        is_diff = torch.cat([one["is_diff"] for one in features]) > 0.5
        lengths = [len(one["is_diff"]) for one in features]
        if self.method.refinement == "none":
            return list(torch.split(self._project(embeddings, is_diff), lengths)), None
        latent = self.sae["encoder"](embeddings)
        errors = functional.smooth_l1_loss(
            self.sae["decoder"](latent).float(), embeddings.float(), reduction="none"
        ).mean(dim=1)
        own = [
            self._own_loss(*rows)
            for rows in zip(*(torch.split(rows, lengths) for rows in (errors, latent, is_diff)), strict=True)
        ]
        return list(torch.split(self._project(latent, is_diff), lengths)), torch.stack(own)

    def _project(self, rows: Tensor, is_diff: Tensor) -> Tensor:
        """Eq. 6, each row by the projector of its kind."""
        if self.method.embeddings != "both":
            only: Tensor = (self.align_mlp_his if self.method.embeddings == "his" else self.align_mlp_diff)(rows)
            return only
        his, diff = torch.nonzero(~is_diff)[:, 0], torch.nonzero(is_diff)[:, 0]
        projected = torch.cat([self.align_mlp_his(rows[his]), self.align_mlp_diff(rows[diff])])
        return projected[torch.argsort(torch.cat([his, diff]))]

    def _own_loss(self, errors: Tensor, latent: Tensor, is_diff: Tensor) -> Tensor:
        """lambda (L_recon + gamma L_sparse) of one prompt, in float32; `errors` is the mean SmoothL1 of each row."""
        method = self.method
        gamma = method.sparsity_weight if method.refinement == "sae" else 0.0
        kinds = [torch.ones_like(is_diff)] if method.losses == "joint" else [~is_diff, is_diff]
        total = errors.new_zeros(())
        for rows in kinds:
            # Without a row of the kind a mean would not be a number.
            if rows.any():
                total = total + errors[rows].mean() + gamma * _sparsity(latent[rows], method.sparsity_target)
        return method.recon_weight * total


def _projector(width: int, hidden_size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size))


def _sparsity(latent: Tensor, target: float) -> Tensor:
    """Eq. 9 and 10: the mean over units of KL(target || the unit's mean activation over the rows)."""
    # GELU's outputs are no probabilities, and bfloat16 has no number between 1 - 1/256 and 1.
    activation = latent.float().mean(dim=0).clamp(1e-6, 1 - 1e-6)
    divergence = target * (target / activation).log() + (1 - target) * ((1 - target) / (1 - activation)).log()
    return divergence.mean()
