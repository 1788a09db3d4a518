"""How much of a prediction was copied, word by word, from the user's own earlier texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from bench.batch import Batch
from bench.metrics._ngrams import WORDS, ngrams, words
from bench.metrics._ratios import ratio, sums
from bench.protocols import Array, Column


@dataclass(frozen=True)
class Copying:
    """Copy rate and longest copied run, both in [0, 1]; they look at the profile, all of it, and not at references.

    `copy_rate`: the share of the word n-grams of all predictions that stand in a text of the user's profile.
    `copied_run`: the longest run of a prediction's words that stands in one such text, over the prediction's words,
    averaged over predictions; an empty prediction copies nothing. Users repeat themselves: what they really wrote is
    not at 0 either.
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column("copy_rate", "Copy rate", 3, better=None),
        Column("copied_run", "Longest copy", 3, better=None),
    )
    statistics: ClassVar[tuple[str, ...]] = ("copied", "ngrams", "copied_run")
    reads_data: ClassVar[bool] = True

    n: Annotated[int, Field(ge=1)] = 5

    def check(self) -> None:
        """Nothing is needed beyond this repository."""

    def signature(self) -> str:
        """What counts as an n-gram, and where it is looked for."""
        return f"copying|n:{self.n}|from:profile|rate:corpus|run:mean|words:{WORDS}"

    def rows(self, batch: Batch) -> Array:
        """Copied n-grams, all n-grams, and the longest copied run's share of the words: shape (n, 3)."""
        texts = [words(prediction) for prediction, _ in zip(batch.predictions, batch.references, strict=True)]
        rows = []
        for text, instance in zip(texts, batch.instances, strict=True):
            history = [words(record.text) for record in instance.profile]
            known = set(chain.from_iterable(ngrams(earlier, self.n) for earlier in history))
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
    haystack = "\n".join(f" {' '.join(earlier)} " for earlier in history)
    longest = 0
    for start in range(len(text)):
        while start + longest < len(text) and f" {' '.join(text[start : start + longest + 1])} " in haystack:
            longest += 1
    return longest
