"""Accuracy of answers that are one of a list of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bench.batch import Batch
from bench.metrics._aggregate import means
from bench.metrics._labels import UNLISTED, label_print, numbered
from bench.protocols import Array, Column


@dataclass(frozen=True)
class Accuracy:
    """The share of answers that are the user's, and `off_list`, the share that are no label at all.

    `labels` are the answers that there can be; a task that has such a list gives it. Without them the labels of the
    references count. An answer that is not in the list is wrong (in LaMP's evaluation: label -1).
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column("accuracy", "Accuracy", 3),
        Column("off_list", "Off list", 3, better=None),
    )
    statistics: ClassVar[tuple[str, ...]] = ("right", "off_list")

    labels: tuple[str, ...] = ()

    def check(self) -> None:
        """Nothing is needed beyond this repository."""

    def signature(self) -> str:
        """The list decides what is off it."""
        return f"accuracy|labels:{label_print(self.labels)}|match:exact,stripped"

    def rows(self, batch: Batch) -> Array:
        """Whether each prediction is right, and whether it is no label, 0 or 1: shape (n, 2)."""
        numbers = numbered(batch, self.labels, "accuracy")
        return np.stack([numbers[:, 0] == numbers[:, 1], numbers[:, 1] == UNLISTED], axis=1).astype(np.float64)

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """See `Metric.aggregate`. Raises `DataError` without rows."""
        scores = means(rows, weights, "accuracy")
        return {column.name: scores[..., index] for index, column in enumerate(self.columns)}
