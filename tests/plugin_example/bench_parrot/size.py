"""size: a metric of which less is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from bench.batch import Batch
from bench.protocols import Array, Column


@dataclass(frozen=True)
class Size:
    """Mean size of the predictions: the shorter the better."""

    columns: ClassVar[tuple[Column, ...]] = (Column("size", "Size", 1, better="lower"),)
    statistics: ClassVar[tuple[str, ...]] = ("size",)

    unit: Literal["words", "characters"] = "words"

    def check(self) -> None:
        """It needs nothing."""

    def signature(self) -> str:
        """The unit is all that can move the number."""
        return f"size|unit:{self.unit}"

    def rows(self, batch: Batch) -> Array:
        """Length of each prediction, shape (n, 1)."""
        return np.asarray([[len(p.split() if self.unit == "words" else p)] for p in batch.predictions], np.float64)

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """The mean of `rows`, shape (n, 1); see `bench.protocols.Metric`."""
        if weights is None:
            return {"size": rows.mean(axis=0)[0]}
        return {"size": (weights @ rows)[:, 0] / weights.sum(axis=1)}
