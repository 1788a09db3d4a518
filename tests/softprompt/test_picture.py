"""The picture of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from bench.results import TrainingStep
from bench.softprompt.picture import draw, smooth

LOG = [
    TrainingStep(
        step=step,
        epoch=1 + (step - 1) // 5,
        instances=16,
        tokens=4000,
        loss=4.0 / step + 2.0 - step / 10,
        generation=4.0 / step,
        own=2.0 - step / 10,
        gradient_norm=1.0,
        learning_rate=1e-5,
        seconds=0.5,
    )
    for step in range(1, 16)
]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def watched(self: Figure, *arguments: Any, **options: Any) -> None:
        saved.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", watched)
    return saved


def labels(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_smoothing_is_a_weighted_mean_of_what_came_before() -> None:
    values = np.random.default_rng(0).random(30)
    wanted = []
    for last in range(1, 31):
        weights = 0.9 ** np.arange(last)[::-1]
        wanted.append((weights * values[:last]).sum() / weights.sum())
    np.testing.assert_allclose(smooth(values.tolist()), wanted)
    assert smooth([]) == []


def test_losses_and_scores(tmp_path: Path, figures: list[Figure]) -> None:
    draw(tmp_path / "loss.png", "dep", LOG, "meteor", {2: 0.3, 1: 0.2, 3: 0.25})
    assert image.imread(tmp_path / "loss.png").shape[:2] == (480, 840)
    (figure,) = figures
    left, right = figure.axes
    raw, mean, own = (np.asarray(line.get_xydata()) for line in left.get_lines())
    np.testing.assert_allclose(raw, [(row.step, row.generation) for row in LOG])
    np.testing.assert_allclose(mean[:, 1], smooth([row.generation for row in LOG]))
    np.testing.assert_allclose(own, [(row.step, row.own) for row in LOG])
    (scores,) = right.get_lines()
    np.testing.assert_allclose(np.asarray(scores.get_xydata()), [(5, 0.2), (10, 0.3), (15, 0.25)])
    assert labels(figure) == ["cross-entropy", "the method's own losses", "validation meteor"]


def test_before_the_validation_and_without_own_losses(tmp_path: Path, figures: list[Figure]) -> None:
    draw(tmp_path / "loss.png", "pplug", [row.model_copy(update={"own": 0.0}) for row in LOG], "meteor", {})
    (figure,) = figures
    assert len(figure.axes) == 1
    assert labels(figure) == ["cross-entropy"]


def test_a_picture_takes_the_place_of_the_last(tmp_path: Path) -> None:
    draw(tmp_path / "loss.png", "dep", LOG[:5], "meteor", {})
    first = (tmp_path / "loss.png").read_bytes()
    draw(tmp_path / "loss.png", "dep", LOG, "meteor", {1: 0.2, 9: 0.9})
    assert (tmp_path / "loss.png").read_bytes() != first
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]
