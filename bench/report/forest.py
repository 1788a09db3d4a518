"""Each score with its 95% interval as a picture: a panel for each category and metric, a row for each run.

The rows are those of the leaderboard above, in its order, controls below the others; report.js keeps them so when rows
are sorted or filtered. A dashed line stands at the best run's score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.protocols import Column
from bench.report.markup import escape_html
from bench.report.names import category_name
from bench.report.table import Key, head
from bench.results import Score

MARGIN = 0.06
"""Share of a panel's width that stays free at either end."""


@dataclass(frozen=True)
class Entry:
    """A run in the pictures: its label, whether it is a control, and its scores."""

    label: str
    control: bool
    scores: Mapping[Key, Score]


def forest(entries: Sequence[Entry], keys: Sequence[Key], columns: Mapping[str, Column]) -> str:
    """The panels of a leaderboard's runs, if there are two or more: a part that folds for each category. Scores that
    are neither good nor bad have none. Row `n` is of the leaderboard's n-th run (`data-run`)."""
    if len(entries) < 2:
        return ""
    parts: list[str] = []
    for category in dict.fromkeys(category for category, _ in keys):
        drawn = [_panel(entries, key, columns[key[1]]) for key in keys if key[0] == category and columns[key[1]].better]
        if panels := list(filter(None, drawn)):
            opened = "" if parts else " open"
            parts.append(
                f"<details class='forest'{opened} data-category='{escape_html(category)}'>"
                f"<summary>{escape_html(category_name(category))}: scores and intervals</summary>"
                f"<div class='panels'>{''.join(panels)}</div></details>"
            )
    return "\n".join(parts)


def _panel(entries: Sequence[Entry], key: Key, column: Column) -> str:
    """One metric in one category; empty where no run has the score."""
    shown = {number: entry.scores[key] for number, entry in enumerate(entries) if key in entry.scores}
    if not shown:
        return ""
    scale = _Scale.of(list(shown.values()))
    best = _best({n: score.value for n, score in shown.items() if not entries[n].control}, column)
    line = ""
    if best:
        place = scale.at(shown[best[0]].value)
        line = f"<line class='reference' x1='{place}' x2='{place}' y2='100%'/>"
    lines = []
    for number in sorted(shown, key=lambda number: entries[number].control):
        entry, score = entries[number], shown[number]
        value = f"{score.value:.{column.decimals}f}"
        ends = " to ".join(f"{end:.{column.interval_decimals}f}" for end in (score.low, score.high))
        label = escape_html(entry.label)
        first = entry.control and not any(entries[n].control for n in shown if n < number)
        kinds = ["control" if entry.control else "", "first" if first else "", "best" if number in best else ""]
        classes = " ".join(filter(None, kinds))
        picture = (
            f"<svg role='img' aria-label='{value}, 95% interval {ends}'>{line}"
            f"<line class='interval' x1='{scale.at(score.low)}' x2='{scale.at(score.high)}' y1='50%' y2='50%'/>"
            f"<circle cx='{scale.at(score.value)}' cy='50%' r='4'/></svg>"
        )
        lines.append(
            f"<li class='{classes}' data-run='{number}' data-value='{score.value!r}'>"
            f"<bdi title='{label}'>{label}</bdi>{picture}<span aria-hidden='true'>{value}</span></li>"
        )
    name = escape_html(head(column))
    return (
        f"<figure data-better='{column.better}'><figcaption>{name}</figcaption>"
        f"<ul>{''.join(lines)}</ul>{scale.axis(column.interval_decimals)}</figure>"
    )


def _best(values: Mapping[int, float], column: Column) -> list[int]:
    """The best of all, and those whose values look like its."""
    if not values:
        return []
    best = (min if column.better == "lower" else max)(values.values())
    alike = [n for n, value in values.items() if f"{value:.{column.decimals}f}" == f"{best:.{column.decimals}f}"]
    return sorted(alike, key=lambda number: values[number] != best)


@dataclass(frozen=True)
class _Scale:
    """From scores to places in a panel."""

    low: float
    high: float

    @classmethod
    def of(cls, scores: Sequence[Score]) -> _Scale:
        low = min(min(score.low, score.value) for score in scores)
        high = max(max(score.high, score.value) for score in scores)
        # A panel of equal scores has a width, too.
        room = (high - low) * MARGIN / (1 - 2 * MARGIN) or abs(high) / 2 or 1.0
        return cls(low - room, high + room)

    def at(self, value: float) -> str:
        """Where a value stands, in percent of the width."""
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}%"

    def axis(self, decimals: int) -> str:
        """The numbers below a panel."""
        step, ticks = self._ticks()
        places = max(0, min(decimals, -math.floor(math.log10(step))))
        marks = "".join(
            f"<line x1='{self.at(tick)}' x2='{self.at(tick)}' y2='4'/>"
            f"<text x='{self.at(tick)}' y='16' text-anchor='middle'>{tick:.{places}f}</text>"
            for tick in ticks
        )
        return f"<div class='axis' aria-hidden='true'><svg>{marks}</svg></div>"

    def _ticks(self) -> tuple[float, list[float]]:
        """Round numbers of the scale with the step between them, the largest that gives two or more: a phone has no
        room for many."""
        power = 10.0 ** math.floor(math.log10(self.high - self.low))
        for step in (5 * power, 2 * power, power, power / 2, power / 5):
            first, last = math.ceil(self.low / step), math.floor(self.high / step)
            if last > first:
                return step, [step * number for number in range(first, last + 1)]
        return power / 10, [self.low, self.high]
