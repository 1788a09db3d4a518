"""Diversity of words: distinct-1 and distinct-2 (Li et al. 2016), different n-grams over all n-grams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bench.batch import Batch
from bench.metrics._aggregate import means
from bench.metrics._ngrams import WORDS, ngrams, words
from bench.protocols import Array, Column


@dataclass(frozen=True)
class Distinct:
    """Distinct-1 and distinct-2 within each prediction, averaged over predictions; both in [0, 1].

    Li et al. count over all texts together. That number falls with the number of texts, so categories of different
    size could not be compared, and it is no function of rows. Within a text it says how much the text repeats itself,
    and it falls with the text's length: read it beside `length`. A text without an n-gram (empty, or one word for
    distinct-2) scores 0. References are not looked at.
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column("distinct1", "Distinct-1", 3, better=None),
        Column("distinct2", "Distinct-2", 3, better=None),
    )
    statistics: ClassVar[tuple[str, ...]] = ("distinct1", "distinct2")

    def check(self) -> None:
        """Nothing is needed beyond this repository."""

    def signature(self) -> str:
        """Within texts, not over the corpus."""
        return f"distinct|n:1,2|within:text|avg:mean|words:{WORDS}"

    def rows(self, batch: Batch) -> Array:
        """Distinct-1 and distinct-2 of each prediction, shape (n, 2)."""
        texts = [words(prediction) for prediction, _ in zip(batch.predictions, batch.references, strict=True)]
        return np.array([[_distinct(text, n) for n in (1, 2)] for text in texts], dtype=np.float64).reshape(-1, 2)

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """See `Metric.aggregate`. Raises `DataError` without rows."""
        scores = means(rows, weights, "distinct")
        return {column.name: scores[..., index] for index, column in enumerate(self.columns)}


def _distinct(text: Sequence[str], n: int) -> float:
    grams = ngrams(text, n)
    return len(set(grams)) / len(grams) if grams else 0.0
