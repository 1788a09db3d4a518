"""The report's leaderboards: runs on the same instances, their scores side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from bench.finished import FinishedRun
from bench.protocols import Column
from bench.report.forest import Entry, forest
from bench.report.labels import is_control, labels, models_of, settings_of
from bench.report.markup import escape_html, html_notes
from bench.report.names import average_name, average_note, category_name, unlike_measures
from bench.report.table import INTERVAL_LEGEND, MISSING, Key, head
from bench.results import SCHEMA, Score


def data_of(run: FinishedRun) -> str:
    """What two runs share if they predict the same texts: the data's content and the split."""
    return json.dumps([run.record.identity["data"], settings_of(run)["split"]], sort_keys=True)


def comparable(runs: Sequence[FinishedRun]) -> list[list[FinishedRun]]:
    """Runs on the same instances together, the largest group first."""
    groups: dict[tuple[str, str], list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault((data_of(run), str(settings_of(run)["limit"])), []).append(run)
    return sorted(groups.values(), key=len, reverse=True)


def _seeds(runs: Sequence[FinishedRun]) -> list[str]:
    return [str(settings_of(run)["seed"]) for run in runs]


FACTS = {"model": models_of, "seed": _seeds}
"""What a leaderboard says of each run beside its label: in a column where it differs, else in the caption."""


def leaderboard(runs: Sequence[FinishedRun], data: str) -> str:
    """A table of runs on the same instances of `data`, the means over categories and the scores that decide first, and
    its scores as pictures. Which values are best is marked by report.js among the rows it shows."""
    given_by = {name: column for run in runs for name, (_, column) in run.columns.items()}
    # First those by which methods are told apart.
    deciding = max(runs, key=lambda run: len(run.columns)).deciding
    columns = {name: given_by[name] for name in [*deciding, *given_by]}
    runs = _ranked(runs, columns)
    scores = [_scores(run) for run in runs]
    given = {key for own in scores for key in own}
    categories = list(dict.fromkeys(category for own in scores for category, _ in own))
    # One category's columns stand together and in every category in the same order, whatever a single run lacks.
    keys = [(category, name) for category in categories for name in columns if (category, name) in given]
    averaged = _averaged(scores, categories, columns)
    facts = {name: of(runs) for name, of in FACTS.items()}
    values = {name: list(dict.fromkeys(found)) for name, found in facts.items()}
    differing = [name for name, found in values.items() if len(set(found) - {MISSING}) > 1]
    names, controls = labels(runs), [is_control(run) for run in runs]
    lines = [_filters(categories, bool(averaged), {name: values[name] for name in differing})]
    lines += ["<div class='scroll' tabindex='0' role='region' aria-label='Leaderboard'>"]
    lines += ["<table class='leaderboard'>", f"<caption>{_caption(runs, data, values, differing)}</caption>"]
    lines += ["<thead>", "<tr>", f"<th colspan='{1 + len(differing)}'></th>"]
    if averaged:
        place = f"class='average' colspan='{len(averaged)}' data-category='{AVERAGE}'"
        lines.append(f"<th scope='colgroup' {place}>{escape_html(average_name(len(categories)))}</th>")
    for category in categories:
        span = sum(1 for key in keys if key[0] == category)
        name = escape_html(category_name(category))
        lines.append(f"<th scope='colgroup' colspan='{span}' data-category='{escape_html(category)}'>{name}</th>")
    lines += ["</tr>", "<tr>", *(_sortable(name) for name in ("run", *differing))]
    lines += [_score_head(AVERAGE, columns[name]) for name in averaged]
    lines += [_score_head(category, columns[name]) for category, name in keys]
    lines += ["</tr>", "</thead>", "<tbody>"]
    for number, run in enumerate(runs):
        of_run = {name: facts[name][number] for name in differing}
        attributes = "".join(f" data-{name}='{escape_html(value)}'" for name, value in of_run.items())
        attributes += " class='control'" if controls[number] else ""
        cells = [f"<th scope='row' title='{escape_html(run.name)}'><bdi>{escape_html(names[number])}</bdi></th>"]
        cells += [f"<td class='fact'><bdi>{escape_html(value)}</bdi></td>" for value in of_run.values()]
        cells += [_average(means.get(number), columns[name]) for name, means in averaged.items()]
        cells += [_score(scores[number].get(key), key[0], columns[key[1]]) for key in keys]
        lines.append(f"<tr data-run='{number}'{attributes}>{''.join(cells)}</tr>")
    entries = [Entry(*of) for of in zip(names, controls, scores, strict=True)]
    lines += ["</tbody>", "</table>", "</div>", forest(entries, keys, columns)]
    notes = _notes(runs, names, any(controls))
    notes += [f"{average_note(len(categories))} It has no interval."] if averaged else []
    lines.append(html_notes([escape_html(note) for note in notes]))
    return "\n".join(["<div class='board'>", *lines, "</div>"])


def _ranked(runs: Sequence[FinishedRun], columns: Mapping[str, Column]) -> list[FinishedRun]:
    """The runs by the first column, the best first; those that lack it are behind them, and controls are the last."""
    column = next(iter(columns.values()))

    def key(run: FinishedRun) -> tuple[bool, bool, float]:
        values = [score.value for (_, name), score in _scores(run).items() if name == column.name]
        mean = sum(values) / len(values) if values else 0.0
        return is_control(run), not values, mean if column.better == "lower" else -mean

    return sorted(runs, key=key)


AVERAGE = "average/"
"""Stands for the means over categories among these: no category, which is a folder, is called so."""


def _averaged(
    scores: Sequence[Mapping[Key, Score]], categories: Sequence[str], columns: Mapping[str, Column]
) -> dict[str, dict[int, float]]:
    """By score the mean over the categories of each run that has it in all of them; none where there are not
    several."""
    means = {
        name: {
            number: sum(own[category, name].value for category in categories) / len(categories)
            for number, own in enumerate(scores)
            if all((category, name) in own for category in categories)
        }
        for name in columns
        if len(categories) > 1
    }
    return {name: values for name, values in means.items() if values}


def _average(value: float | None, column: Column) -> str:
    start = f"<td class='average' data-category='{AVERAGE}'"
    if value is None:
        return f"{start}>{MISSING}</td>"
    return f"{start} data-value='{value!r}'><span>{value:.{column.decimals}f}</span></td>"


def _scores(run: FinishedRun) -> dict[Key, Score]:
    """A run's scores, without those that are no numbers."""
    return {
        (category, name): score
        for category, cells in run.summary.scores.items()
        for name, score in cells.items()
        if all(map(math.isfinite, (score.value, score.low, score.high)))
    }


def _caption(
    runs: Sequence[FinishedRun], data: str, values: Mapping[str, Sequence[str]], differing: Sequence[str]
) -> str:
    counts = ", ".join(f"{category_name(name)} {count}" for name, count in runs[0].summary.instances.items())
    parts = [f"Data {data}, {settings_of(runs[0])['split']} instances: {counts}"]
    known = {name: [value for value in found if value != MISSING] for name, found in values.items()}
    parts += [f"{name} {found[0]}" for name, found in known.items() if name not in differing and found]
    return escape_html("; ".join(parts) + ".")


def _filters(categories: Sequence[str], averaged: bool, values: Mapping[str, Sequence[str]]) -> str:
    """Choices that narrow a leaderboard, where there is something to choose from."""
    choices: dict[str, dict[str, str]] = {}
    if len(categories) > 1:
        choices["category"] = {AVERAGE: average_name(len(categories))} if averaged else {}
        choices["category"] |= {category: category_name(category) for category in categories}
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
        f"<th scope='col' title='{escape_html(column.name)}' data-category='{escape_html(category)}' "
        f"data-better='{column.better or ''}'>"
        f"<button type='button'>{escape_html(head(column))}</button></th>"
    )


def _score(score: Score | None, category: str, column: Column) -> str:
    start = f"<td data-category='{escape_html(category)}'"
    if score is None:
        return f"{start}>{MISSING}</td>"
    ends = MISSING.join(f"{end:.{column.interval_decimals}f}" for end in (score.low, score.high))
    return (
        f"{start} data-value='{score.value!r}'><span>{score.value:.{column.decimals}f}</span>"
        f"<small class='interval'>{ends}</small></td>"
    )


def _notes(runs: Sequence[FinishedRun], names: Sequence[str], controls: bool) -> list[str]:
    """What stands in for what, as the runs themselves record it."""
    ranked = "best of the rows shown, controls (in italics) apart" if controls else "best of the rows shown"
    notes = [
        f"Bold: {ranked}. Small figures: {INTERVAL_LEGEND}. A head sorts its column.",
    ]
    if len(runs) > 1:
        notes.append(
            "Pictures: each score and its interval; the dashed line is at the best score. An interval is of one run "
            "alone: where two overlap, the runs may differ all the same; bench compare tests it, instance by instance."
        )
    if older := sorted({run.record.schema_version for run in runs} - {SCHEMA}):
        count = sum(run.record.schema_version != SCHEMA for run in runs)
        notes.append(
            f"{count} of these {len(runs)} runs are of an older schema ({', '.join(map(str, older))}; this version "
            f"writes {SCHEMA})."
        )
    notes += unlike_measures(names, [run.summary.signatures for run in runs])
    notes += [note for run in runs for note in (*run.summary.answer_notes, *run.summary.metric_notes.values())]
    notes += [note for run in runs for found in run.record.data_notes.values() for note in found]
    notes += [note for run in runs for note in run.record.config.get("notes", ())]
    return list(dict.fromkeys(notes))
