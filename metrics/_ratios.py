"""Ratios of sums over rows, plain and resampled: corpus-level scores that a resample only has to add up."""

from __future__ import annotations

import numpy as np

from bench.metrics._aggregate import check_rows
from bench.protocols import Array


def sums(rows: Array, weights: Array | None, metric: str) -> Array:
    """Sums of each column of `rows` (n, s): shape (s,), or (b, s) with `weights` (b, n). Raises `DataError`."""
    check_rows(rows, weights, metric)
    total: Array = rows.sum(axis=0) if weights is None else weights @ rows
    return total


def ratio(numerator: Array, denominator: Array, otherwise: Array | float = 0.0) -> Array:
    """numerator / denominator, and `otherwise` where the denominator is 0."""
    quotient: Array = np.where(denominator == 0, otherwise, numerator / np.where(denominator == 0, 1.0, denominator))
    return quotient
