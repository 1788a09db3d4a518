"""The report's leaderboards: runs on the same instances, their scores side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.finished import FinishedRun
from bench.protocols import Column
from bench.report.labels import labels, model_of, settings_of
from bench.report.markup import escape_html, html_notes
from bench.report.names import category_name
from bench.report.table import INTERVAL_LEGEND, MISSING, Key, head
from bench.results import SCHEMA


def data_of(run: FinishedRun) -> str:
    """What two runs share if they predict the same texts: the data's content and the split."""
    return json.dumps([run.record.identity["data"], settings_of(run)["split"]], sort_keys=True)


def comparable(runs: Sequence[FinishedRun]) -> list[list[FinishedRun]]:
    """Runs on the same instances together, the largest group first."""
    groups: dict[tuple[str, Any], list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault((data_of(run), settings_of(run)["limit"]), []).append(run)
    return sorted(groups.values(), key=len, reverse=True)


def _seed(run: FinishedRun) -> str:
    return str(settings_of(run)["seed"])


FACTS = {"model": model_of, "seed": _seed}
"""What a leaderboard says of each run beside its label: in a column where it differs, else in the caption."""


def leaderboard(runs: Sequence[FinishedRun]) -> str:
    """A table of runs on the same instances. Which values are best is marked by report.js among the rows it shows."""
    keys = list(dict.fromkeys((c, name) for run in runs for c, cells in run.summary.scores.items() for name in cells))
    categories = list(dict.fromkeys(category for category, _ in keys))
    columns = {name: column for run in runs for name, (_, column) in run.columns.items()}
    values = {name: list(dict.fromkeys(map(of, runs))) for name, of in FACTS.items()}
    differing = [name for name, found in values.items() if len(set(found) - {MISSING}) > 1]
    lines = [_filters(categories, {name: values[name] for name in differing})]
    lines += ["<div class='scroll' tabindex='0' role='region' aria-label='Leaderboard'>"]
    lines += ["<table class='leaderboard'>", f"<caption>{_caption(runs, differing)}</caption>", "<thead>", "<tr>"]
    lines.append(f"<th colspan='{1 + len(differing)}'></th>")
    for category in categories:
        span = sum(1 for key in keys if key[0] == category)
        name = escape_html(category_name(category))
        lines.append(f"<th scope='colgroup' colspan='{span}' data-category='{escape_html(category)}'>{name}</th>")
    lines += ["</tr>", "<tr>", *(_sortable(name) for name in ("run", *differing))]
    lines += [_score_head(category, columns[name]) for category, name in keys]
    lines += ["</tr>", "</thead>", "<tbody>"]
    for run, label in zip(runs, labels(runs), strict=True):
        of_run = {name: FACTS[name](run) for name in differing}
        data = "".join(f" data-{name}='{escape_html(value)}'" for name, value in of_run.items())
        cells = [f"<th scope='row' title='{escape_html(run.name)}'><bdi>{escape_html(label)}</bdi></th>"]
        cells += [f"<td class='fact'><bdi>{escape_html(value)}</bdi></td>" for value in of_run.values()]
        cells += [_score(run, key, columns[key[1]]) for key in keys]
        lines.append(f"<tr{data}>{''.join(cells)}</tr>")
    lines += ["</tbody>", "</table>", "</div>", html_notes([escape_html(note) for note in _notes(runs)])]
    return "\n".join(lines)


def _caption(runs: Sequence[FinishedRun], differing: Sequence[str]) -> str:
    run = runs[0]
    counts = ", ".join(f"{category_name(name)} {count}" for name, count in run.summary.instances.items())
    parts = [f"Data {run.record.config['dataset']}, {settings_of(run)['split']} instances: {counts}"]
    parts += [f"{name} {found[0]}" for name in FACTS if name not in differing and (found := _known(runs, name))]
    return escape_html("; ".join(parts) + ".")


def _known(runs: Sequence[FinishedRun], name: str) -> list[str]:
    return [value for value in map(FACTS[name], runs) if value != MISSING]


def _filters(categories: Sequence[str], values: Mapping[str, Sequence[str]]) -> str:
    """Choices that narrow a leaderboard, where there is something to choose from."""
    choices = (
        {"category": {category: category_name(category) for category in categories}} if len(categories) > 1 else {}
    )
    choices |= {name: {value: value for value in found} for name, found in values.items()}
    parts = []
    for name, options in choices.items():
        shown = "".join(f"<option value='{escape_html(v)}'>{escape_html(text)}</option>" for v, text in options.items())
        choice = f"<select data-filter='{name}'><option value=''>all</option>{shown}</select>"
        parts.append(f"<label>{name.capitalize()} {choice}</label>")
    parts.append("<label>Run contains <input type='search' data-filter='run' autocomplete='off'></label>")
    return f"<div class='controls'>{''.join(parts)}</div>"


def _sortable(name: str) -> str:
    return f"<th scope='col'><button type='button'>{escape_html(name.capitalize())}</button></th>"


def _score_head(category: str, column: Column) -> str:
    return (
        f"<th scope='col' data-category='{escape_html(category)}' data-better='{column.better or ''}'>"
        f"<button type='button'>{escape_html(head(column))}</button></th>"
    )


def _score(run: FinishedRun, key: Key, column: Column) -> str:
    category, name = key
    score = run.summary.scores.get(category, {}).get(name)
    start = f"<td data-category='{escape_html(category)}'"
    if score is None:
        return f"{start}>{MISSING}</td>"
    ends = MISSING.join(f"{end:.{column.interval_decimals}f}" for end in (score.low, score.high))
    return (
        f"{start} data-value='{score.value!r}'><span>{score.value:.{column.decimals}f}</span>"
        f"<small class='interval'>{ends}</small></td>"
    )


def _notes(runs: Sequence[FinishedRun]) -> list[str]:
    """What stands in for what, as the runs themselves record it."""
    notes = [f"Bold: best of the rows shown. Small figures: {INTERVAL_LEGEND}. A head sorts its column."]
    if older := sorted({run.record.schema_version for run in runs} - {SCHEMA}):
        count = sum(run.record.schema_version != SCHEMA for run in runs)
        notes.append(
            f"{count} of these {len(runs)} runs are of an older schema ({', '.join(map(str, older))}; this version "
            f"writes {SCHEMA})."
        )
    notes += [note for run in runs for note in run.summary.metric_notes.values()]
    notes += [note for run in runs for found in run.record.data_notes.values() for note in found]
    notes += [note for run in runs for note in run.record.config.get("notes", ())]
    return list(dict.fromkeys(notes))
