"""Means over rows, plain and resampled."""

from __future__ import annotations

from bench.errors import DataError
from bench.protocols import Array


def check_rows(rows: Array, weights: Array | None, metric: str) -> None:
    """Raise `DataError` where a score would be undefined: no rows, or a resample in which no row counts."""
    if rows.shape[0] == 0:
        raise DataError(f"{metric}: there are no rows to aggregate; the selection of instances is empty")
    if weights is not None and not weights.sum(axis=1).all():
        raise DataError(f"{metric}: a resample gives every row the weight 0; draw each resample from the rows at hand")


def means(rows: Array, weights: Array | None, metric: str) -> Array:
    """Means of each column of `rows` (n, s): shape (s,), or (b, s) with `weights` (b, n). Raises `DataError`."""
    check_rows(rows, weights, metric)
    if weights is None:
        mean: Array = rows.mean(axis=0)
    else:
        mean = weights @ rows / weights.sum(axis=1, keepdims=True)
    return mean
