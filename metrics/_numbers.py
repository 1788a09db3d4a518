"""Answers that are numbers on a scale."""

from __future__ import annotations

import math

import numpy as np

from bench.batch import Batch
from bench.errors import DataError
from bench.protocols import Array


def errors(batch: Batch, low: float, high: float, metric: str) -> Array:
    """How far each prediction is from its reference, without sign, and whether it is no number, 0 or 1: shape (n, 2).

    A prediction is a number if nothing else stands in it; one beyond the scale counts as it is. What is no number
    counts as the end of the scale, `low` or `high`, that is farther from the reference (LaMP's rule; it has 1 and 5).
    Raises `DataError` for a reference that is no number.
    """
    rows = []
    for said, reference in zip(batch.predictions, batch.references, strict=True):
        wanted, answer = _number(reference), _number(said)
        if wanted is None:
            raise DataError(
                f"{metric}: the real answer '{reference[:60]}' is no number; this metric is for tasks whose answers are"
            )
        away = max(abs(wanted - low), abs(wanted - high)) if answer is None else abs(answer - wanted)
        rows.append([away, answer is None])
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    # A square of more is no number that a mean can be taken of.
    return number if math.isfinite(number) and abs(number) < 1e100 else None
