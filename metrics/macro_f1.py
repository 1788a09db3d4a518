"""Macro-F1 of answers that are one of a list of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bench.batch import Batch
from bench.metrics._labels import label_print, numbered
from bench.metrics._ratios import ratio, sums
from bench.protocols import Array, Column


@dataclass(frozen=True)
class MacroF1:
    """The mean over all labels of a list of each label's F1: what scikit-learn's `f1_score` gives with
    `labels=all of the list, average="macro", zero_division=0`, which LaMP's evaluation calls.

    A label that occurs neither among references nor among predictions has F1 0 and counts in the mean: on few
    instances and a long list the best score there can be is below 1. An answer that is not in the list is a miss for
    its real label, and a false alarm for none. Without `labels` those of the references count.
    """

    columns: ClassVar[tuple[Column, ...]] = (Column("macro_f1", "Macro-F1", 3),)
    statistics: ClassVar[tuple[str, ...]] = ("reference", "prediction", "labels")

    labels: tuple[str, ...] = ()

    def check(self) -> None:
        """Nothing is needed beyond this repository."""

    def signature(self) -> str:
        """The semantics are scikit-learn's; its code is not used."""
        return f"macro_f1|labels:{label_print(self.labels)}|match:exact,stripped|zero_division:0"

    def rows(self, batch: Batch) -> Array:
        """The numbers of the real label and of the predicted one, -1 for an answer off the list, and how many labels
        there are: shape (n, 3)."""
        return numbered(batch, self.labels, "macro_f1")

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """See `Metric.aggregate`. Raises `DataError` without rows."""
        count = int(rows[0, 2]) if len(rows) else 0
        labels = np.arange(count)
        real, said = rows[:, :1] == labels, rows[:, 1:2] == labels
        # For each label right answers, then times that it is real, then that it is said.
        totals = sums(np.hstack([real & said, real, said]).astype(np.float64), weights, "macro_f1")
        right, wanted, given = (totals[..., start : start + count] for start in (0, count, 2 * count))
        return {"macro_f1": ratio(2 * right, wanted + given).mean(axis=-1)}
