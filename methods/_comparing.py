"""What DPL and DRP share: which reviews of a user are compared, and with whom."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.context import Context
from bench.records import Instance, Prompt, Record

Ties = Literal["first", "float32"]


@dataclass(frozen=True)
class Comparing:
    """A method that compares reviews of the user with representative peers'.

    A review can be compared if at least `min_peers` others reviewed its item; the retriever chooses K of these. The own
    review and its peers' are put into `clusters` clusters by the vectors of `encoder`.
    """

    encoder: str = "BAAI/bge-m3"
    clusters: Annotated[int, Field(ge=2)] = 5
    min_peers: Annotated[int, Field(ge=1)] = 4

    def comparisons(
        self, instance: Instance, context: Context, ties: Ties = "first"
    ) -> list[tuple[Record, list[Record]]]:
        """The reviews to compare, in the retriever's order, each with its representative peers. A review that all its
        peers repeat word for word has none, and is left out."""
        candidates = [record for record in instance.profile if len(context.peers(record, instance)) >= self.min_peers]
        compared = []
        for record in context.retrieve(instance, candidates):
            peers = context.peers(record, instance)
            vectors = context.embed([record.text, *(peer.text for peer in peers)], self.encoder)
            if chosen := representatives(vectors, self.clusters, ties):
                compared.append((record, [peers[row - 1] for row in chosen]))
        return compared


def comparison(
    name: str, record: Record, peers: list[Record], instance: Instance, context: Context, **texts: str
) -> Prompt:
    """Template `name` about a review and its peers', which are blocks of the template `peer`. The review stands in the
    place of the target, with its fields and, as `own_text` unless `texts` has one, its text."""
    return context.prompt(
        name,
        instance,
        history=peers,
        blocks=lambda _: ("peer",),
        given=record.fields,
        texts={"own_text": record.text, **texts},
    )


def item_part(name: str, record: Record, difference: str, context: Context) -> str:
    """Template `name`, a part of a prompt: a review's fields, its text as `own_text`, and its difference."""
    fields = {key: str(value) for key, value in record.fields.items()}
    return context.templates.part(name, {**fields, "own_text": record.text, "difference": difference})


_FEW = 256
"""Points that scikit-learn works on in one piece, whatever the number of threads."""


@cache
def _threads() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def representatives(vectors: NDArray[np.float32], clusters: int, ties: Ties = "first") -> list[int]:
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
