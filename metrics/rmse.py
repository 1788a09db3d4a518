"""Root mean squared error of answers that are numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bench.batch import Batch
from bench.metrics._aggregate import means
from bench.metrics._numbers import errors
from bench.protocols import Array, Column


@dataclass(frozen=True)
class RMSE:
    """The root of the mean squared error; an answer that is no number counts as in `mae`."""

    columns: ClassVar[tuple[Column, ...]] = (Column("rmse", "RMSE", 3, better="lower"),)
    statistics: ClassVar[tuple[str, ...]] = ("squared_error",)

    low: float = 1.0
    high: float = 5.0

    def check(self) -> None:
        """Nothing is needed beyond this repository."""

    def signature(self) -> str:
        """The scale decides what counts for an answer that is no number."""
        return f"rmse|scale:{self.low:g},{self.high:g}|no_number:farther_end"

    def rows(self, batch: Batch) -> Array:
        """The squared error of each prediction, shape (n, 1)."""
        return errors(batch, self.low, self.high, "rmse")[:, :1] ** 2

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """See `Metric.aggregate`. Raises `DataError` without rows."""
        return {"rmse": np.sqrt(means(rows, weights, "rmse")[..., 0])}
