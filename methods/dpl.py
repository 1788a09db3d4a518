"""DPL: the model first says how the user's reviews differ from other users' of the same items (Qiu et al., 2025)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated, ClassVar

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
    end, the retriever's last choices.
    """

    encoder: str = "BAAI/bge-m3"
    clusters: Annotated[int, Field(ge=2)] = 5
    min_peers: Annotated[int, Field(ge=1)] = 4

    properties: ClassVar[Properties] = Properties(retrieval_augmented=True, embedded=False, inter_user=True)

    def steps(self, instance: Instance, context: Context) -> Steps:
        compared = self._comparisons(instance, context)
        answers: list[str] = []
        if compared:
            answers = yield [_difference_prompt(record, peers, instance, context) for record, peers in compared]
        differences = [
            context.templates.part("item", {**_fields(record), "own_text": record.text, "difference": answer})
            for (record, _), answer in zip(compared, answers, strict=True)
        ]
        history = context.retrieve(instance)
        (summary,) = yield [
            context.prompt("profile", instance, history=history, texts={"differences": "\n".join(differences)})
        ]
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
            if chosen := representatives(vectors, self.clusters):
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


def _fields(record: Record) -> dict[str, str]:
    return {name: str(value) for name, value in record.fields.items()}


def representatives(vectors: NDArray[np.float32], clusters: int) -> list[int]:
    """Rows of `vectors`, shape (n, d), one for each cluster but that of row 0, in the order of the clusters' labels:
    the member nearest to the centroid by Euclidean distance, the first of equals."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    # Both members of a cluster of two are as near: in double precision, rounded, no noise decides between them.
    points = vectors.astype(np.float64)
    with warnings.catch_warnings():
        # Texts that occur twice leave clusters empty, which is no trouble here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(n_clusters=min(clusters, len(points)), random_state=42).fit(points)
    distances = np.linalg.norm(points - fitted.cluster_centers_[fitted.labels_], axis=1).round(9)
    members = [np.flatnonzero(fitted.labels_ == label) for label in range(fitted.n_clusters)]
    return [int(rows[distances[rows].argmin()]) for rows in members if len(rows) and rows[0] != 0]
