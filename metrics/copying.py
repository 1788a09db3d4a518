"""How much of a prediction was copied, word by word, from the user's own earlier reviews."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from bench.protocols import Array
from bench.records import Background
from metrics._ngrams import WORDS, ngrams, words
from metrics._ratios import ratio, sums


@dataclass(frozen=True)
class Copying:
    """Copy rate and longest copied run, both in [0, 1]; they look at the profile, all of it, and not at references.

    `copy_rate`: the share of the word n-grams of all predictions that stand in a review text of the user's profile.
    `copied_run`: the longest run of a prediction's words that stands in one such text, over the prediction's words,
    averaged over predictions; an empty prediction copies nothing. Users repeat themselves: the real reviews are not
    at 0 either.
    """

    columns: ClassVar[tuple[str, ...]] = ("copy_rate", "copied_run")
    statistics: ClassVar[tuple[str, ...]] = ("copied", "ngrams", "copied_run")
    background: ClassVar[bool] = True

    n: Annotated[int, Field(ge=1)] = 5

    def check(self) -> None:
        """Nothing is needed beyond this repository."""

    def signature(self) -> str:
        """What counts as an n-gram, and where it is looked for."""
        return f"copying|n:{self.n}|from:profile|rate:corpus|run:mean|words:{WORDS}"

    def rows(self, predictions: Sequence[str], references: Sequence[str], background: Background) -> Array:
        """Copied n-grams, all n-grams, and the longest copied run's share of the words: shape (n, 3)."""
        texts = [words(prediction) for prediction, _ in zip(predictions, references, strict=True)]
        rows = []
        for text, instance in zip(texts, background.instances, strict=True):
            history = [words(review.text) for review in instance.profile]
            known = set(chain.from_iterable(ngrams(review, self.n) for review in history))
            grams = ngrams(text, self.n)
            run = longest_run(text, history) / len(text) if text else 0.0
            rows.append([sum(gram in known for gram in grams), len(grams), run])
        return np.array(rows, dtype=np.float64).reshape(-1, 3)

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """See `Metric.aggregate`; texts too short to have an n-gram have copied none. Raises `DataError` without
        rows."""
        copied, grams, runs = np.moveaxis(sums(rows, weights, "copying"), -1, 0)
        count = len(rows) if weights is None else weights.sum(axis=1)
        return {"copy_rate": ratio(copied, grams), "copied_run": runs / count}


def longest_run(text: Sequence[str], history: Sequence[Sequence[str]]) -> int:
    """Length in words of the longest run of `text` that stands in one of the texts of `history`."""
    # Searching strings is fast; a new line, which no word holds, keeps runs from crossing into the next text.
    haystack = "\n".join(f" {' '.join(review)} " for review in history)
    longest = 0
    for start in range(len(text)):
        while start + longest < len(text) and f" {' '.join(text[start : start + longest + 1])} " in haystack:
            longest += 1
    return longest
