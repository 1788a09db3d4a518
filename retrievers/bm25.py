"""BM25 over the task's documents (for reviews: title and item description), as the package rank_bm25 computes it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.records import Instance, Record

if TYPE_CHECKING:
    from bench.context import Context

K1, B, EPSILON = 1.5, 0.75, 0.25
"""rank_bm25's defaults."""


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
    documents a match can score below no match. That is how rank_bm25 has it, and the scores are its own to the last
    bit: nothing here adds up in another order.
    """
    counts = [Counter(document.split()) for document in documents]
    holding = Counter(chain.from_iterable(counts))
    asked = [word for word in query.split() if word in holding]
    if not asked:
        return np.zeros(len(documents))
    places = {word: place for place, word in enumerate(dict.fromkeys(asked))}
    frequencies = np.zeros((len(places), len(documents)))
    for number, count in enumerate(counts):
        for word in places.keys() & count.keys():
            frequencies[places[word], number] = count[word]
    lengths = np.array([count.total() for count in counts])
    norms = K1 * (1 - B + B * lengths / (int(lengths.sum()) / len(documents)))
    weights = _idf(holding, places, len(documents))
    parts = weights[:, None] * (frequencies * (K1 + 1) / (frequencies + norms))
    # A sum along the axis would add in an order of its own; 0.0 makes of -0.0 what rank_bm25 begins with.
    scores: NDArray[np.float64] = np.cumsum(parts[[places[word] for word in asked]], axis=0)[-1] + 0.0
    return scores


def _idf(holding: Mapping[str, int], words: Mapping[str, int], documents: int) -> NDArray[np.float64]:
    """The weight of each of `words`, shape (words,); `holding` is the number of documents with a word, for all words in
    the order in which they come."""
    by_number = np.array([math.log(documents - n + 0.5) - math.log(n + 0.5) for n in range(documents + 1)])
    weights: NDArray[np.float64] = by_number[[holding[word] for word in words]]
    if (weights < 0).any():
        numbers = np.fromiter(holding.values(), np.intp, len(holding))
        mean = np.cumsum(by_number[numbers])[-1] / len(holding)
        weights[weights < 0] = EPSILON * mean
    return weights
