"""The picture that is kept with an adapter: losses by step and validation scores by epoch."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.files import write_held
from bench.results import TrainingStep


def draw(path: Path, title: str, log: Sequence[TrainingStep], column: str, scores: Mapping[int, float]) -> None:
    """Write a PNG of the steps in `log`; `scores` are the validation score `column` by epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    left = figure.subplots()
    steps = [row.step for row in log]
    left.plot(steps, [row.generation for row in log], color="tab:blue", linewidth=0.6, alpha=0.4)
    left.plot(steps, smooth([row.generation for row in log]), color="tab:blue", label="cross-entropy")
    if any(row.own for row in log):
        left.plot(steps, [row.own for row in log], color="tab:gray", linewidth=1, label="the method's own losses")
    left.set(xlabel="optimiser step", ylabel="loss (nats a target token)", title=title)
    lines = list(left.get_lines()[1:])
    if scores:
        right = left.twinx()
        last = {row.epoch: row.step for row in log}
        points = sorted((last[epoch], score) for epoch, score in scores.items() if epoch in last)
        at, values = [point[0] for point in points], [point[1] for point in points]
        lines += right.plot(at, values, "o-", color="tab:orange", label=f"validation {column}")
        right.set_ylabel(f"validation {column}")
    figure.legend(handles=lines, loc="outside lower center", ncols=3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_held(path, buffer.getvalue())


def smooth(values: Sequence[float], keep: float = 0.9) -> list[float]:
    """An exponential moving average without the start's bias."""
    smoothed, average = [], 0.0
    for number, value in enumerate(values, 1):
        average = keep * average + (1 - keep) * value
        smoothed.append(average / (1 - keep**number))
    return smoothed
