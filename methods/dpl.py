"""DPL: the model first says how the user's reviews differ from other users' of the same items (Qiu et al., 2025)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.context import Context
from bench.protocols import Properties, Steps
from bench.records import Instance, Prompt, Record


@dataclass(frozen=True)
class DPL:
    """K calls, side by side, each compare one review with representative peers; a further call summarises the answers
    and K history blocks into a profile, and the last one writes from the profile and the same blocks (DEP paper,
    appendix B).

    A review can be compared if at least `min_peers` others reviewed its item; the retriever chooses K of these, apart
    from the K blocks. The own review and its peers' are put into `clusters` clusters by the vectors of `encoder`. With
    nothing to compare the list of differences is empty; a list that takes more than half of the budget is cut at its
    end, the retriever's last choices. Where the profile's prompt has nothing to ask about, as for a user without a
    history, it is not asked.

    Two options are switches between the paper and the released code (docs/fidelity.md): with `item_descriptions` the
    profile's prompt repeats each item's description beside its difference, and with `ties=float32` the nearest of a
    cluster's members is that which single precision gives, not the first of equals.
    """

    encoder: str = "BAAI/bge-m3"
    clusters: Annotated[int, Field(ge=2)] = 5
    min_peers: Annotated[int, Field(ge=1)] = 4
    item_descriptions: bool = False
    ties: Literal["first", "float32"] = "first"

    properties: ClassVar[Properties] = Properties(retrieval_augmented=True, embedded=False, inter_user=True)
    official: ClassVar[Mapping[str, object]] = {"item_descriptions": True, "ties": "float32"}
    official_settings: ClassVar[Mapping[str, object]] = {"peers.all_targets": True, "input_budget": "model"}

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates that these options render."""
        return ("difference", "peer", self._item, "profile", "write", "block")

    @property
    def _item(self) -> str:
        return "described_item" if self.item_descriptions else "item"

    def steps(self, instance: Instance, context: Context) -> Steps:
        compared = self._comparisons(instance, context)
        answers: list[str] = []
        if compared:
            answers = yield [_difference_prompt(record, peers, instance, context) for record, peers in compared]
        differences = [
            context.templates.part(self._item, {**_fields(record), "own_text": record.text, "difference": answer})
            for (record, _), answer in zip(compared, answers, strict=True)
        ]
        history = context.retrieve(instance)
        profile = context.prompt("profile", instance, history=history, texts={"differences": "\n".join(differences)})
        (summary,) = (yield [profile]) if profile.user else [""]
        (text,) = yield [context.prompt("write", instance, history=history, texts={"summary": summary})]
        return text

    def _comparisons(self, instance: Instance, context: Context) -> list[tuple[Record, list[Record]]]:
        """The reviews to compare, in the retriever's order, each with its representative peers. A review that all its
        peers repeat word for word has none, and is left out."""
        candidates = [record for record in instance.profile if len(context.peers(record, instance)) >= self.min_peers]
        compared = []
        for record in context.retrieve(instance, candidates):
            peers = context.peers(record, instance)
            vectors = context.embed([record.text, *(peer.text for peer in peers)], self.encoder)
            if chosen := representatives(vectors, self.clusters, self.ties):
                compared.append((record, [peers[row - 1] for row in chosen]))
        return compared


def _difference_prompt(record: Record, peers: list[Record], instance: Instance, context: Context) -> Prompt:
    """The record stands in the place of the target, with its fields and its text."""
    return context.prompt(
        "difference",
        instance,
        history=peers,
        blocks=lambda _: ("peer",),
        given=record.fields,
        texts={"own_text": record.text},
    )


_FEW = 256
"""Points that scikit-learn works on in one piece, whatever the number of threads."""


@cache
def _threads() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def _fields(record: Record) -> dict[str, str]:
    return {name: str(value) for name, value in record.fields.items()}


def representatives(
    vectors: NDArray[np.float32], clusters: int, ties: Literal["first", "float32"] = "first"
) -> list[int]:
    """Rows of `vectors`, shape (n, d), one for each cluster but that of row 0, in the order of the clusters' labels:
    the member nearest to the centroid by Euclidean distance, of equals the first or that which `ties` says."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    # Threads wait for one another longer than such few points take; more of them would add up in another order.
    threads = _threads().limit(limits=1, user_api="openmp") if len(vectors) <= _FEW else nullcontext()
    # Both members of a cluster of two are as near: in double precision, rounded, no noise decides between them.
    points = vectors.astype(np.float64) if ties == "first" else vectors
    with warnings.catch_warnings(), threads:
        # Texts that occur twice leave clusters empty, which is no trouble here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(n_clusters=min(clusters, len(points)), random_state=42).fit(points)
    offsets = points - fitted.cluster_centers_[fitted.labels_]
    if ties == "first":
        distances = np.linalg.norm(offsets, axis=1).round(9)
    else:
        # One by one, as in the released code: along an axis numpy adds in another order.
        distances = np.array([np.linalg.norm(offset) for offset in offsets])
    members = [np.flatnonzero(fitted.labels_ == label) for label in range(fitted.n_clusters)]
    return [int(rows[distances[rows].argmin()]) for rows in members if len(rows) and rows[0] != 0]
