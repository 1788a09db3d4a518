"""Mean absolute error of answers that are numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bench.batch import Batch
from bench.metrics._aggregate import means
from bench.metrics._numbers import errors
from bench.protocols import Array, Column


@dataclass(frozen=True)
class MAE:
    """How far answers are from the user's on average, and `no_number`, the share of answers that are no number: these
    count as the end of the scale, `low` or `high`, that is farther from the user's answer."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column("mae", "MAE", 3, better="lower"),
        Column("no_number", "No number", 3, better=None),
    )
    statistics: ClassVar[tuple[str, ...]] = ("absolute_error", "no_number")

    low: float = 1.0
    high: float = 5.0

    def check(self) -> None:
        """Nothing is needed beyond this repository."""

    def signature(self) -> str:
        """The scale decides what counts for an answer that is no number."""
        return f"mae|scale:{self.low:g},{self.high:g}|no_number:farther_end"

    def rows(self, batch: Batch) -> Array:
        """The absolute error of each prediction and whether it is no number, shape (n, 2)."""
        return errors(batch, self.low, self.high, "mae")

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """See `Metric.aggregate`. Raises `DataError` without rows."""
        scores = means(rows, weights, "mae")
        return {column.name: scores[..., index] for index, column in enumerate(self.columns)}
