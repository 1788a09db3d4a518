"""Dense retrieval: inner products of embedded documents (for reviews: title and item description)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.errors import PluginError
from bench.records import Instance, Record

if TYPE_CHECKING:
    from bench.context import Context


@dataclass(frozen=True)
class Contriever:
    """Ranks records by the inner product of embeddings, searched with faiss.

    `model` is an encoder specification of `bench.encoders`. The default pools the mean over the mask and does not
    normalise; any other encoder can stand in its place.
    """

    model: str = "facebook/contriever"

    def rank(self, instance: Instance, candidates: Sequence[Record], context: Context) -> list[int]:
        """Indices into `candidates`, highest inner product first, lower index first among equal ones."""
        if not candidates:
            return []
        documents = [context.task.document(record) for record in candidates]
        # Equal documents share one index entry: faiss may add up equal rows in another order, and a tie is a tie.
        entries = list(dict.fromkeys(documents))
        vectors = context.embed([context.task.query(instance), *entries], self.model)
        score = dict(zip(entries, inner_products(vectors[0], vectors[1:]).tolist(), strict=True))
        return sorted(range(len(documents)), key=lambda i: (-score[documents[i]], i))


def inner_products(query: NDArray[np.float32], documents: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inner product of `query`, shape (d,), with each row of `documents`, shape (n, d): shape (n,).

    Raises `PluginError` if one of them is not a number.
    """
    import faiss

    index = faiss.IndexFlatIP(documents.shape[1])
    index.add(np.ascontiguousarray(documents, dtype=np.float32))
    found, ids = index.search(np.ascontiguousarray(query[None, :], dtype=np.float32), len(documents))
    if (ids < 0).any() or not np.isfinite(found).all():
        raise PluginError(
            "retriever contriever: an inner product is not a finite number; the encoder's vectors are broken, "
            "check the model named by contriever.model"
        )
    scores = np.empty(len(documents), dtype=np.float32)
    scores[ids[0]] = found[0]
    return scores
