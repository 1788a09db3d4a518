"""Diversity of words: distinct-1 and distinct-2 (Li et al. 2016), different n-grams over all n-grams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bench.protocols import Array
from metrics._aggregate import means
from metrics._ngrams import WORDS, ngrams, words


@dataclass(frozen=True)
class Distinct:
    """Distinct-1 and distinct-2 within each prediction, averaged over predictions; both in [0, 1].

    Li et al. count over all texts together. That number falls with the number of texts, so categories of different
    size could not be compared, and it is no function of rows. Within a text it says how much the text repeats itself,
    and it falls with the text's length: read it beside `length`. A text without an n-gram (empty, or one word for
    distinct-2) scores 0. References are not looked at.
    """

    columns: ClassVar[tuple[str, ...]] = ("distinct1", "distinct2")
    statistics: ClassVar[tuple[str, ...]] = ("distinct1", "distinct2")

    def check(self) -> None:
        """Nothing is needed beyond this repository."""

    def signature(self) -> str:
        """Within texts, not over the corpus."""
        return f"distinct|n:1,2|within:text|avg:mean|words:{WORDS}"

    def rows(self, predictions: Sequence[str], references: Sequence[str]) -> Array:
        """Distinct-1 and distinct-2 of each prediction, shape (n, 2)."""
        texts = [words(prediction) for prediction, _ in zip(predictions, references, strict=True)]
        return np.array([[_distinct(text, n) for n in (1, 2)] for text in texts], dtype=np.float64).reshape(-1, 2)

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """See `Metric.aggregate`. Raises `DataError` without rows."""
        scores = means(rows, weights, "distinct")
        return {name: scores[..., column] for column, name in enumerate(self.columns)}


def _distinct(text: Sequence[str], n: int) -> float:
    grams = ngrams(text, n)
    return len(set(grams)) / len(grams) if grams else 0.0
