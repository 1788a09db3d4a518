"""Accuracy, macro-F1, MAE and RMSE: rows by hand, and scikit-learn's figures on random data, weights too."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from bench.batch import Batch
from bench.errors import DataError
from bench.metrics.accuracy import Accuracy
from bench.metrics.macro_f1 import MacroF1
from bench.metrics.mae import MAE
from bench.metrics.rmse import RMSE
from bench.scoring import metric_rows

LABELS = ("comedy", "war", "true story", "dystopia")


def test_rows_of_labels_by_hand() -> None:
    batch = Batch(["war", " comedy\n", "Comedy", "comedy.", ""], ["war", "comedy", "comedy", "war", "dystopia"])
    assert Accuracy(LABELS).rows(batch).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]]
    assert MacroF1(LABELS).rows(batch).tolist() == [[1, 1, 4], [0, 0, 4], [0, -1, 4], [1, -1, 4], [3, -1, 4]]
    scores = Accuracy(LABELS).aggregate(Accuracy(LABELS).rows(batch))
    assert {name: float(value) for name, value in scores.items()} == pytest.approx({"accuracy": 0.4, "off_list": 0.6})
    # comedy 2*1/(2+1), war the same, "true story" and dystopia 0: over all four.
    assert float(MacroF1(LABELS).aggregate(MacroF1(LABELS).rows(batch))["macro_f1"]) == pytest.approx(1 / 3)
    # Without a list, over the three labels that are real.
    assert float(MacroF1().aggregate(MacroF1().rows(batch))["macro_f1"]) == pytest.approx(4 / 9)


def test_a_reference_off_the_list_is_an_error() -> None:
    for metric, name in ((Accuracy(("a",)), "accuracy"), (MacroF1(("a",)), "macro_f1")):
        with pytest.raises(DataError, match=f"{name}: the real answer 'b' is none of the 1 labels"):
            metric.rows(Batch(["a"], ["b"]))


def test_rows_of_numbers_by_hand() -> None:
    said = ["4", " 2.5\n", "7", "five", "", "4 stars", "nan", "inf", "1e300"]
    real = ["5", "2", "5", "4", "2", "3", "1", "5", "5"]
    # What is no number is 1 or 5, whichever is farther; of 3 both are as far.
    away = [1, 0.5, 2, 3, 3, 2, 4, 4, 4]
    unread = [0, 0, 0, 1, 1, 1, 1, 1, 1]
    rows = MAE().rows(Batch(said, real))
    assert rows.tolist() == [list(pair) for pair in zip(away, unread, strict=True)]
    assert RMSE().rows(Batch(said, real)).tolist() == [[error**2] for error in away]
    assert float(MAE().aggregate(rows)["no_number"]) == pytest.approx(6 / 9)
    assert MAE(low=0, high=10).rows(Batch(["x"], ["4"])).tolist() == [[6, 1]]
    for metric in (MAE(), RMSE()):
        with pytest.raises(DataError, match="the real answer 'good' is no number"):
            metric.rows(Batch(["4"], ["good"]))


def test_less_is_better_only_for_errors() -> None:
    better = {column.name: column.better for kind in (Accuracy, MacroF1, MAE, RMSE) for column in kind.columns}
    assert better == {
        "accuracy": "higher",
        "off_list": None,
        "macro_f1": "higher",
        "mae": "lower",
        "no_number": None,
        "rmse": "lower",
    }


def test_signatures_name_what_moves_the_number() -> None:
    kinds = [Accuracy(), Accuracy(LABELS), Accuracy(LABELS[::-1]), MacroF1(), MacroF1(LABELS), MAE(), MAE(low=0)]
    assert len({metric.signature() for metric in [*kinds, RMSE(), RMSE(high=10)]}) == len(kinds) + 2


@pytest.mark.parametrize("seed", range(5))
def test_labels_as_scikit_learn(seed: int) -> None:
    dice = random.Random(seed)
    real = dice.choices(LABELS[: 2 + seed % 3], k=60)
    said = [dice.choice([label, label, *LABELS, "nonsense"]) for label in real]
    number = {label: place for place, label in enumerate(LABELS)}
    y_true, y_pred = [number[one] for one in real], [number.get(one, -1) for one in said]
    batch = Batch(said, real)
    weights = np.random.default_rng(seed).integers(4, size=(7, 60)).astype(float)
    for metric, column in ((Accuracy(LABELS), "accuracy"), (MacroF1(LABELS), "macro_f1")):
        rows = metric_rows(column, metric, batch)
        resampled = metric.aggregate(rows, weights)[column]
        assert float(metric.aggregate(rows)[column]) == pytest.approx(_theirs(column, y_true, y_pred, None), abs=1e-12)
        for score, weight in zip(resampled, weights, strict=True):
            assert score == pytest.approx(_theirs(column, y_true, y_pred, weight), abs=1e-12)


def _theirs(column: str, y_true: list[int], y_pred: list[int], weight: np.ndarray | None) -> float:
    if column == "accuracy":
        return float(sklearn_metrics.accuracy_score(y_true, y_pred, sample_weight=weight))
    options = {"labels": range(len(LABELS)), "average": "macro", "zero_division": 0}
    return float(sklearn_metrics.f1_score(y_true, y_pred, sample_weight=weight, **options))


@pytest.mark.parametrize("seed", range(3))
def test_numbers_as_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    real, said = generator.integers(1, 6, size=50).astype(float), generator.normal(3, 2, size=50).round(2)
    batch = Batch([str(one) for one in said], [str(one) for one in real])
    weights = generator.integers(4, size=(7, 50)).astype(float)
    theirs = {"mae": sklearn_metrics.mean_absolute_error, "rmse": sklearn_metrics.root_mean_squared_error}
    for metric, column in ((MAE(), "mae"), (RMSE(), "rmse")):
        rows = metric_rows(column, metric, batch)
        resampled = metric.aggregate(rows, weights)[column]
        assert float(metric.aggregate(rows)[column]) == pytest.approx(theirs[column](real, said), abs=1e-12)
        for score, weight in zip(resampled, weights, strict=True):
            assert score == pytest.approx(theirs[column](real, said, sample_weight=weight), abs=1e-12)
