"""ROUGE-1 and ROUGE-L (Lin 2004) as `rouge_score` defines them: lower case, runs of a-z and 0-9 as tokens, no stemming,
F-measure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.batch import Batch
from bench.metrics._aggregate import check_rows, means
from bench.protocols import Array, Column

_TOKENS = re.compile("[a-z0-9]+")
_BOOTSTRAP_SAMPLES = 1000


@dataclass(frozen=True)
class Rouge:
    """ROUGE-1 and ROUGE-L, both in [0, 1]; the statistics of a pair are its two F-measures.

    `average="bootstrap_median"` reports, like the `evaluate` package, the median of the means of 1000 resamples of the
    pairs, drawn with `seed`. That package also draws for ROUGE-2, between the two: `rouge2_draws` says whether these
    numbers are passed over, so that ROUGE-L's are the package's. Both hold for the plain aggregate only: with weights,
    which already are a resample, the aggregate is the weighted mean.
    """

    columns: ClassVar[tuple[Column, ...]] = (Column("rouge1", "R-1"), Column("rougeL", "R-L"))
    statistics: ClassVar[tuple[str, ...]] = ("rouge1", "rougeL")
    official: ClassVar[dict[str, object]] = {"average": "bootstrap_median", "seed": 42, "rouge2_draws": True}
    """The seed is that of the released evaluation script."""

    average: Literal["mean", "bootstrap_median"] = "mean"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    rouge2_draws: bool = False

    def check(self) -> None:
        """Nothing is needed beyond this repository."""

    def signature(self) -> str:
        """The semantics are those of rouge_score 0.1.2; its code is not used."""
        average: str = self.average
        if average != "mean":
            draws = ",draws:rouge2" if self.rouge2_draws else ""
            average += f"[{_BOOTSTRAP_SAMPLES},seed:{self.seed}{draws}]"
        return f"rouge|types:rouge1,rougeL|score:f|stem:no|avg:{average}|like:rouge_score-0.1.2"

    def note(self, references: Sequence[str]) -> str:
        """How many references are in a script that the tokenizer passes over; empty if none is."""
        read = [_share_read(reference) for reference in references]
        if not (odd := sum(share < 0.5 for share in read)):
            return ""
        return (
            f"rouge: {odd:,} of {len(read):,} references are mostly not in the letters a-z and the digits 0-9, all "
            f"that ROUGE's tokenizer reads; {read.count(0):,} hold none of these: their ROUGE is 0 by definition."
        )

    def rows(self, batch: Batch) -> Array:
        """F-measures of ROUGE-1 and ROUGE-L, shape (n, 2); 0 where a side has no token."""
        pairs = zip(batch.predictions, batch.references, strict=True)
        scores = [_score(_tokens(prediction.strip()), _tokens(reference)) for prediction, reference in pairs]
        return np.array(scores, dtype=np.float64).reshape(-1, 2)

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """See `Metric.aggregate`. Raises `DataError` without rows."""
        if self.average == "bootstrap_median" and weights is None:
            check_rows(rows, weights, "rouge")
            # The generator and the order of its draws are those of rouge_score's BootstrapAggregator.
            generator = np.random.RandomState(self.seed)
            medians = {}
            for index, column in enumerate(self.columns):
                if index and self.rouge2_draws:
                    _drawn(len(rows), generator)
                medians[column.name] = np.asarray(_bootstrap_median(rows[:, index], generator))
            return medians
        scores = means(rows, weights, "rouge")
        return {column.name: scores[..., index] for index, column in enumerate(self.columns)}


def _drawn(count: int, generator: np.random.RandomState) -> NDArray[np.int64]:
    """The indices of all resamples, shape (1000, count)."""
    return generator.randint(0, count, size=(_BOOTSTRAP_SAMPLES, count))


def _bootstrap_median(scores: Array, generator: np.random.RandomState) -> float:
    """To the last digit what rouge_score gives: its matrices have three columns (precision, recall, F-measure), whose
    means numpy adds up row by row, and its median is a percentile."""
    alike = np.repeat(scores[:, None], 3, axis=1)
    resampled = [alike[indices].mean(axis=0)[0] for indices in _drawn(len(scores), generator)]
    return float(np.percentile(resampled, 50))


def _tokens(text: str) -> list[str]:
    return _TOKENS.findall(text.lower())


def _share_read(text: str) -> float:
    """The share of the letters and digits of a text that are in its tokens; 0 without a token."""
    read = sum(map(len, _tokens(text)))
    return read / max(read, 1) if text.isascii() else read / max(sum(map(str.isalnum, text)), read, 1)


def _score(prediction: list[str], reference: list[str]) -> tuple[float, float]:
    if not prediction or not reference:
        return 0.0, 0.0
    counts = Counter(reference)
    common = sum(min(count, counts[token]) for token, count in Counter(prediction).items() if token in counts)
    subsequence = lcs_length(prediction, reference) if common else 0
    return (
        _f_measure(common, len(prediction), len(reference)),
        _f_measure(subsequence, len(prediction), len(reference)),
    )


def _f_measure(hits: int, predicted: int, wanted: int) -> float:
    precision, recall = hits / predicted, hits / wanted
    return 2 * precision * recall / (precision + recall) if hits else 0.0


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of a longest common subsequence, bit-parallel (Hyyrö 2004): one machine word, here one Python integer,
    holds a row of the dynamic-programming table, a 0 bit where the row's value steps up."""
    # Tokens that only one side has cannot be part of it; without them the integers and the loop are shorter.
    shared = set(first).intersection(second)
    positions: dict[str, int] = {}
    bit = 1
    for token in second:
        if token in shared:
            positions[token] = positions.get(token, 0) | bit
            bit <<= 1
    full = bit - 1
    row = full
    for token in first:
        if token in shared:
            matches = row & positions[token]
            row = (row + matches | row - matches) & full
    return (bit - 1).bit_length() - row.bit_count()
