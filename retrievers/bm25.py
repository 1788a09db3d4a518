"""BM25 over the task's documents (for reviews: title and item description), as the package rank_bm25 computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.records import Instance, Record

if TYPE_CHECKING:
    from bench.context import Context


@dataclass(frozen=True)
class BM25:
    """Ranks records by BM25Okapi with the defaults of rank_bm25; words are split at whitespace and keep their case."""

    def rank(self, instance: Instance, candidates: Sequence[Record], context: Context) -> list[int]:
        """Indices into `candidates`, highest score first, lower index first among equal scores."""
        documents = [context.task.document(record) for record in candidates]
        scores = bm25_scores(context.task.query(instance), documents)
        return [int(i) for i in np.argsort(-scores, kind="stable")]


def bm25_scores(query: str, documents: Sequence[str]) -> NDArray[np.float64]:
    """BM25Okapi score of each document, shape (n,); 0 throughout if no document has a word.

    A word in more than half of the documents gets a quarter of the mean idf, which can be negative: with few
    documents a match can score below no match. That is how rank_bm25 has it.
    """
    words = [document.split() for document in documents]
    if not any(words):
        # rank_bm25 divides by the number of distinct words.
        return np.zeros(len(documents))
    from rank_bm25 import BM25Okapi

    return np.asarray(BM25Okapi(words).get_scores(query.split()), dtype=np.float64)
