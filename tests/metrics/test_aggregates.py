"""What must hold of every metric's aggregate: a weight counts a row as often as it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bench.batch import Batch
from bench.errors import DataError
from bench.metrics.accuracy import Accuracy
from bench.metrics.copying import Copying
from bench.metrics.distinct import Distinct
from bench.metrics.identification import Identification
from bench.metrics.judge import Judge
from bench.metrics.length import Length
from bench.metrics.macro_f1 import MacroF1
from bench.metrics.mae import MAE
from bench.metrics.rmse import RMSE
from bench.protocols import Array

METRICS = [Length(), Distinct(), Copying(), Identification(), Judge(), Accuracy(), MacroF1(), MAE(), RMSE()]
ids = [type(metric).__module__.rpartition(".")[2] for metric in METRICS]


def drawn(metric: Any, count: int = 20) -> Array:
    """Rows as the metric might give them: whole numbers where it counts, flags where it flags."""
    generator = np.random.default_rng(3)
    rows = generator.random((count, len(metric.statistics)))
    for column, name in enumerate(metric.statistics):
        if name in ("counted", "parsed"):
            rows[:, column] = generator.integers(2, size=count)
        elif name in ("sys_len", "ref_len", "ngrams"):
            rows[:, column] = generator.integers(90, size=count)
        elif name == "copied":
            rows[:, column] = generator.integers(9, size=count)
        elif name in ("reference", "prediction"):
            rows[:, column] = generator.integers(3, size=count)
        elif name == "labels":
            rows[:, column] = 4
    return rows


@pytest.mark.parametrize("metric", METRICS, ids=ids)
def test_weights_count_rows(metric: Any) -> None:
    rows = drawn(metric)
    weights = np.random.default_rng(4).integers(4, size=(6, len(rows))).astype(float)
    weights[0] = 1.0
    resampled = metric.aggregate(rows, weights)
    names = [column.name for column in metric.columns]
    assert list(resampled) == names
    for number, times in enumerate(weights):
        plain = metric.aggregate(np.repeat(rows, times.astype(int), axis=0))
        for column in names:
            assert np.shape(plain[column]) == ()
            assert resampled[column].shape == (6,)
            assert resampled[column][number] == pytest.approx(float(plain[column]), abs=1e-12)
    spread = {column for column in names if len(set(resampled[column].round(9))) > 1}
    assert spread >= set(names) - {"brevity_penalty"}


@pytest.mark.parametrize("metric", METRICS, ids=ids)
def test_nothing_to_aggregate_is_an_error(metric: Any) -> None:
    name = type(metric).__module__.rpartition(".")[2]
    with pytest.raises(DataError, match=f"{name}: there are no rows to aggregate"):
        metric.aggregate(np.zeros((0, len(metric.statistics))))
    with pytest.raises(DataError, match=f"{name}: a resample gives every row the weight 0"):
        metric.aggregate(drawn(metric, 2), np.array([[1.0, 1.0], [0.0, 0.0]]))


@pytest.mark.parametrize("metric", METRICS, ids=ids)
def test_no_predictions_give_no_rows_and_no_reference_is_refused(
    metric: Any, background_with: Callable[..., Any]
) -> None:
    assert metric.rows(Batch([], [], lambda: background_with([]))).shape == (0, len(metric.statistics))
    with pytest.raises(ValueError, match="argument"):
        metric.rows(Batch(["1", "2"], ["1"], lambda: background_with([["past"], ["gone"]])))
