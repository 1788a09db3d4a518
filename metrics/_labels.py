"""Answers that are one of a list of labels, as numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from bench.batch import Batch
from bench.errors import DataError
from bench.protocols import Array

UNLISTED = -1
"""The number of an answer that is not in the list."""


def numbered(batch: Batch, labels: Sequence[str], metric: str) -> Array:
    """The place of each reference and of each prediction in `labels`, and how many there are: shape (n, 3).

    Without `labels` those of the references count, in the order of the alphabet. Only white space around a prediction
    is passed over: case and punctuation count, as in LaMP's evaluation. Raises `DataError` for a reference that is not
    in the list.
    """
    references = [reference.strip() for reference in batch.references]
    known = list(labels) or sorted(set(references))
    places = {label: place for place, label in enumerate(known)}
    if unknown := [reference for reference in references if reference not in places]:
        raise DataError(
            f"{metric}: the real answer '{unknown[0][:60]}' is none of the {len(known)} labels of the list; give all "
            f"of them: {metric}.labels"
        )
    pairs = zip(references, batch.predictions, strict=True)
    rows = [[places[wanted], places.get(said.strip(), UNLISTED), len(known)] for wanted, said in pairs]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def label_print(labels: Sequence[str]) -> str:
    """What stands for a list of labels in a signature."""
    if not labels:
        return "references"
    digest = hashlib.sha256("\x1f".join(labels).encode()).hexdigest()[:8]
    return f"{len(labels)}[{digest}]"
