"""From finished runs to a table of scores: cells, what the paper reports there, significance, notes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import uniqueness
from bench.config import RunConfig
from bench.data.load import DEMO, REVIEWS
from bench.errors import ConfigError, DataError
from bench.experiments.answers import answers_of
from bench.experiments.spec import SIZE, Experiment, RowSpec
from bench.finished import FinishedRun, finished
from bench.job import Job
from bench.paper import paper_value, read_numbers
from bench.places import data_print, shown_name, told_apart
from bench.protocols import Array, Metric
from bench.registry import near_match
from bench.report.names import average_name, average_note, category_name, counted, plural, unlike_measures
from bench.report.table import MISSING, Cell, Group, Key, Row, Table, rankings
from bench.statistics import Difference, holm, interval, paired


@dataclass(frozen=True)
class RowRuns:
    """A row and the jobs of its runs, one a seed; none for a difference of two rows and for a method that the task's
    data cannot serve. Rows of the same `model` number
    are of the same configuration file."""

    spec: RowSpec
    group: Group
    model: int
    jobs: tuple[Job, ...]
    misfit: str = ""
    """Why there are none: what the task's data do not have."""
    read: Callable[[Path], FinishedRun] = finished
    """Reads a run's folder; rows of several tables may share what was read."""

    @property
    def config(self) -> RunConfig:
        """The configuration of the first seed."""
        return self.jobs[0].config

    @property
    def finished(self) -> tuple[FinishedRun, ...]:
        """The runs' results, which have to be there."""
        return tuple(self.read(job.folder) for job in self.jobs)

    @cached_property
    def users(self) -> dict[str, str]:
        """The user of each instance, in the order of the statistics."""
        return {row.instance: row.user for row in self.finished[0].predictions}

    @cached_property
    def _position(self) -> dict[str, int]:
        return {instance: index for index, instance in enumerate(self.users)}

    def scored(self, name: str, panel: Sequence[str], pooled: bool = False) -> tuple[Array, _MeanOverSeeds]:
        """The statistics behind a column for the instances of a panel, those of all seeds side by side, shape
        (n, seeds * s), and the aggregate that makes the mean score over the seeds of them; of instances of several
        categories the mean over these, or, `pooled`, that of all as one sample."""
        first = self.finished[0]
        metric_name, _ = first.columns[name]
        chosen = [self._position[instance] for instance in panel]
        rows = np.hstack([run.rows(metric_name)[chosen] for run in self.finished])
        found = [] if pooled else [first.predictions[position].category for position in chosen]
        parts = tuple(np.flatnonzero([one == category for one in found]) for category in dict.fromkeys(found))
        return rows, _MeanOverSeeds(first.metrics[metric_name], name, len(self.jobs), parts)


@dataclass(frozen=True)
class _MeanOverSeeds:
    """A metric's aggregate for one column, over rows that hold the statistics of several seeds side by side; of rows of
    several `parts`, the places of each category's rows, the mean over these."""

    metric: Metric
    column: str
    seeds: int
    parts: tuple[NDArray[np.intp], ...]

    def __call__(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        return {self.column: self.each(rows, weights).mean(axis=0)}

    def each(self, rows: Array, weights: Array | None = None) -> Array:
        """The score of each seed, shape (seeds,), or (seeds, b) with `weights` (b, n)."""
        if len(self.parts) < 2:
            return self._each(rows, weights)
        of_each = [
            self._each(rows[part], None if weights is None else _with_users(weights[:, part])) for part in self.parts
        ]
        return np.asarray(np.mean(of_each, axis=0))

    def _each(self, rows: Array, weights: Array | None) -> Array:
        parts = np.split(rows, self.seeds, axis=1)
        return np.array([self.metric.aggregate(part, weights)[self.column] for part in parts])


def _with_users(weights: Array) -> Array:
    """The weights of a category's rows; a resample that has none of its users, as happens where there are few, takes
    the category as it is."""
    return np.where(weights.any(axis=1, keepdims=True), weights, 1.0)


Panels = Mapping[str, Sequence[str]]
"""Ids of instances by what heads their columns: those of a category, or of some of its users."""


def assemble(
    table_id: str, experiment: Experiment, rows: Sequence[RowRuns], paper: bool = False, significance: bool = False
) -> Table:
    """The table of an experiment's finished rows, in their order.

    The paper's figures stand in it where data and model are the paper's, with `paper` everywhere. With `significance`
    each ranked row is tested against the best of its column. Raises `ConfigError` for rows with other instances than
    the first row's.
    """
    return _adjusted(_assembled(table_id, experiment, rows, paper, significance))


def assemble_tasks(
    table_id: str,
    experiment: Experiment,
    parts: Mapping[str, tuple[Experiment, Sequence[RowRuns]]],
    paper: bool = False,
    significance: bool = False,
) -> Table:
    """One table of an experiment's parts by task, side by side; else as `assemble`. Raises `ConfigError`."""
    tables = {
        task: _assembled(table_id, part, rows, paper, significance)
        for task, (part, rows) in parts.items()
        if any(row.jobs for row in rows)
    }
    if not tables:
        raise ConfigError(f"{table_id}: none of its methods can be run on one of its tasks")
    heads = {
        (task, category): task if len(table.categories) == 1 else f"{task}: {category}"
        for task, table in tables.items()
        for category in table.categories
    }
    first = next(iter(tables.values()))
    rows = []
    for place, row in enumerate(first.rows):
        cells = {
            (heads[task, category], column): cell
            for task, table in tables.items()
            for (category, column), cell in table.rows[place].cells.items()
        }
        rows.append(replace(row, cells=cells))
    notes = []
    for task, table in tables.items():
        notes += [
            note if all(note in other.notes for other in tables.values()) else f"{task}: {note}" for note in table.notes
        ]
    joined = replace(
        first,
        categories=tuple(heads.values()),
        columns=(),
        columns_of={head: tables[task].columns for (task, _), head in heads.items()},
        rows=rows,
        notes=[*_misfits(parts), *dict.fromkeys(notes)],
        answers=[f"{task}: {answer}" for task, table in tables.items() for answer in table.answers],
    )
    return _adjusted(joined)


def _misfits(parts: Mapping[str, tuple[Experiment, Sequence[RowRuns]]]) -> list[str]:
    """Why rows have a dash, a sentence a row and reason."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for task, (_, rows) in parts.items():
        for row in rows:
            if row.misfit:
                tasks.setdefault((row.spec.label, row.misfit.replace(f"task {task}", "the task")), []).append(task)
    return [f"{MISSING} {label} cannot be run on {', '.join(names)}: {why}." for (label, why), names in tasks.items()]


def _assembled(
    table_id: str, experiment: Experiment, rows: Sequence[RowRuns], paper: bool, significance: bool
) -> Table:
    """A table whose cells have p as they are, not yet adjusted for how many there are."""
    scored = [row for row in rows if row.jobs]
    for row in scored:
        if row.users != scored[0].users:
            raise ConfigError(
                f"{table_id}: row '{row.spec.label}' has other instances than row '{scored[0].spec.label}'; give all "
                "rows of a table the same data, split and limit"
            )
    panels, panel_notes = _panels(experiment, scored)
    beside = _average(experiment, panels)
    panel_notes += [average_note(len(panels))] if beside else []
    columned = panels | beside
    cells = [_cells(row, columned, experiment) if row.jobs else {} for row in rows]
    for index, row in enumerate(rows):
        if row.spec.minus:
            first, second = (rows.index(term) for term in _terms(row, rows))
            cells[index] = _minus(rows[first], rows[second], cells[first], cells[second], columned)
    forced = False
    for row, own in zip(rows, cells, strict=True):
        forced |= _add_paper(table_id, experiment, row, rows, own, paper)
    columns = scored[0].finished[0].columns
    table = Table(
        id=table_id,
        title=experiment.title,
        categories=tuple(columned),
        columns=[columns[name][1] for name in experiment.columns],
        rows=[Row(row.spec.label, row.group.name, own) for row, own in zip(rows, cells, strict=True)],
        notes=[
            *_notes(scored, panels, experiment),
            *panel_notes,
            *([_OTHER_DATA] if forced else []),
            *experiment.notes,
        ],
        groups=list({row.group.name: row.group for row in rows}.values()),
        answers=answers_of(experiment, scored, [instance for chosen in panels.values() for instance in chosen]),
    )
    return _with_ps(table, _ps(table, rows, columned) if significance else {})


_OTHER_DATA = "Paper: of the paper's data and models, not of these; figures of other data and models have to differ."


def check_columns(name: str, experiment: Experiment, job: Job) -> None:
    """Raise `ConfigError` for a column that no metric of a run gives: a cell must not be empty without a reason."""
    metrics = job.run.metrics
    given = [column.name for metric in metrics.values() for column in metric.columns]
    for wanted in experiment.columns:
        if wanted not in given:
            raise ConfigError(
                f"experiment {name} has a column '{wanted}', which none of the metrics {', '.join(metrics)} "
                f"gives{near_match(wanted, given)} They give: {', '.join(given)}"
            )


def check_paper(name: str, experiment: Experiment) -> None:
    """Raise `ConfigError` for a row, or its table, of which the paper reports nothing: its cells would stay empty."""
    named = [row.paper for group in experiment.groups for row in group.rows if row.paper is not None]
    table = experiment.paper_table or name.partition("-")[0]
    places = read_numbers() if named else {}
    rows = list(dict.fromkeys(place[1] for place in places if place[0] == table))
    if not rows:
        # An experiment with the rows of another one has no table in the paper.
        if named and experiment.paper_table:
            tables = list(dict.fromkeys(place[0] for place in places))
            raise ConfigError(
                f"experiment {name}: paper_table: the paper has no table '{table}'{near_match(table, tables)} It has: "
                f"{', '.join(tables)}"
            )
        return
    for row in named:
        sizes = (experiment.paper_size,) if experiment.paper_size else ("7B", "32B")
        known = [row.replace(SIZE, size) for size in sizes]
        if not {*known} & {*rows}:
            raise ConfigError(
                f"experiment {name}: the paper's {table} has no row '{row}'{near_match(known[0], rows)} It has: "
                f"{', '.join(rows)}"
            )


# ---- cells


def _panels(experiment: Experiment, rows: Sequence[RowRuns]) -> tuple[dict[str, list[str]], list[str]]:
    """The panels of a table, and notes on how they came about."""
    run, predictions = rows[0].jobs[0].run, rows[0].finished[0].predictions
    wanted = [category for category in run.corpora if category in (experiment.categories or run.corpora)]
    by_category = {
        category: [row.instance for row in predictions if row.category == category]
        for category in wanted or run.corpora
    }
    notes = []
    if experiment.categories:
        names = ", ".join(map(category_name, by_category))
        missing = ", ".join(category for category in experiment.categories if category not in run.corpora)
        notes.append(
            f"Instances of {names}; the data have no {missing}." if missing else f"Instances of {names} alone."
        )
    if experiment.users == "all":
        return by_category, notes
    encoder = next((found for row in rows if (found := getattr(row.jobs[0].run.method, "encoder", None))), None)
    if encoder is None:
        raise ConfigError("users by uniqueness need a row with a method that has an encoder, e.g. dep")

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        return run.embeddings.embed(texts, encoder)

    panels: dict[str, list[str]] = {}
    for category, instances in by_category.items():
        corpus = run.corpora[category]
        grouped = uniqueness.groups(uniqueness.uniqueness(corpus, run.config.split, embed))
        notes.append(uniqueness.grouping_note(corpus, run.config.split, grouped, encoder))
        for name, users in grouped.items():
            chosen = [instance for instance in instances if rows[0].users[instance] in users]
            if not chosen:
                raise DataError(f"none of the {len(instances)} instances of {category} is of a {name} user; take more")
            panels[name if len(by_category) == 1 else f"{category}: {name}"] = chosen
    return panels, notes


def _average(experiment: Experiment, panels: Panels) -> dict[str, list[str]]:
    """The panel of all instances, which gives the means over categories, if an experiment asks for it and there are
    several."""
    if not experiment.average or len(panels) < 2:
        return {}
    return {average_name(len(panels)): [instance for chosen in panels.values() for instance in chosen]}


def _cells(row: RowRuns, panels: Panels, experiment: Experiment) -> dict[Key, Cell]:
    """The cells of a row, but for scores that no instance of a panel has, e.g. without a peer to be told from."""
    cells = {}
    for panel, instances in panels.items():
        users = [row.users[instance] for instance in instances]
        for name in experiment.columns:
            rows, aggregate = row.scored(name, instances)
            try:
                each = aggregate.each(rows)
            except DataError:
                continue
            low, high = interval(aggregate, rows, users, resamples=row.config.resamples)[name]
            cells[panel, name] = Cell(float(each.mean()), low, high, sd=_sd(each))
    return cells


def _sd(each: Array) -> float | None:
    """The standard deviation over seeds (divided by n - 1); None for one seed."""
    return float(each.std(ddof=1)) if len(each) > 1 else None


def _named(label: str, row: RowRuns, rows: Sequence[RowRuns]) -> RowRuns:
    """The row of a label among those of the same configuration."""
    return next(other for other in rows if other.model == row.model and other.spec.label == label)


def _terms(row: RowRuns, rows: Sequence[RowRuns]) -> tuple[RowRuns, RowRuns]:
    """The two rows that a row is the difference of."""
    assert row.spec.minus is not None
    return _named(row.spec.minus[0], row, rows), _named(row.spec.minus[1], row, rows)


def _minus(
    first: RowRuns, second: RowRuns, minuend: Mapping[Key, Cell], subtrahend: Mapping[Key, Cell], panels: Panels
) -> dict[Key, Cell]:
    """The first row's cells minus the second's, with the interval and p of the paired difference."""
    cells = {}
    for key in (key for key in minuend if key in subtrahend):
        panel, name = key
        found = _difference(second, first, panel, name, panels)
        (rows, aggregate), (other, _) = first.scored(name, panels[panel]), second.scored(name, panels[panel])
        sd = _sd(aggregate.each(rows) - aggregate.each(other))
        value = minuend[key].value - subtrahend[key].value
        cells[key] = Cell(value, found.low, found.high, sd=sd, p=found.p, signed=True)
    return cells


def _difference(a: RowRuns, b: RowRuns, panel: str, name: str, panels: Panels) -> Difference:
    """Score of row b minus that of row a, paired by instance."""
    rows_a, aggregate = a.scored(name, panels[panel])
    rows_b, _ = b.scored(name, panels[panel])
    users = [a.users[instance] for instance in panels[panel]]
    return paired(aggregate, rows_a, rows_b, users, resamples=a.config.resamples)[name]


def _ps(table: Table, rows: Sequence[RowRuns], panels: Panels) -> dict[tuple[int, Key], float]:
    """The p of each comparison with the best of a column, and of each difference, by row and key."""
    ps = {(i, key): cell.p for i, row in enumerate(table.rows) for key, cell in row.cells.items() if cell.p is not None}
    for indices in rankings(table):
        for place in (place for place in table.places if place.column.better):
            key = place.key
            values = {i: table.rows[i].cells[key].value for i in indices if key in table.rows[i].cells}
            if not values:
                continue
            best = (max if place.column.better == "higher" else min)(values, key=lambda index: values[index])
            for index in values.keys() - {best}:
                ps[index, key] = _difference(rows[best], rows[index], *key, panels).p
    return ps


def _adjusted(table: Table) -> Table:
    """The table with its p adjusted for how many there are."""
    ps = {(i, key): cell.p for i, row in enumerate(table.rows) for key, cell in row.cells.items() if cell.p is not None}
    return _with_ps(table, dict(zip(ps, holm(list(ps.values())), strict=True)))


def _with_ps(table: Table, ps: Mapping[tuple[int, Key], float]) -> Table:
    rows = []
    for index, row in enumerate(table.rows):
        cells = {key: replace(cell, p=ps.get((index, key))) for key, cell in row.cells.items()}
        rows.append(replace(row, cells=cells))
    return replace(table, rows=rows)


# ---- what the paper reports


def _add_paper(
    table_id: str,
    experiment: Experiment,
    row: RowRuns,
    rows: Sequence[RowRuns],
    cells: dict[Key, Cell],
    everywhere: bool,
) -> bool:
    """Put the paper's figures into the cells of a row. Whether any of them is of other data or another model."""
    if row.misfit:
        return False
    config = row.config if row.jobs else _terms(row, rows)[0].config
    model = re.fullmatch(r"Qwen2\.5-(7B|32B)-Instruct", Path(config.model.partition("@")[0]).name)
    size = model[1] if model else None
    data = Path(config.dataset).name == "DPL-main" and config.split == "test" and config.limit is None
    same = data and size is not None and experiment.paper_size in (None, size)
    if row.spec.paper is None or not (same or everywhere):
        return False
    name = row.spec.paper.replace(SIZE, size or experiment.paper_size or "7B")
    found = False
    for key, cell in cells.items():
        value = paper_value(experiment.paper_table or table_id.partition("-")[0], name, *key)
        if value is not None:
            cells[key] = replace(cell, paper=value)
            found = True
    return found and not same


# ---- notes


def _notes(rows: Sequence[RowRuns], panels: Panels, experiment: Experiment) -> list[str]:
    """What a reader has to know: sentences that rows share stand once."""
    runs = [job.run for row in rows for job in row.jobs]
    shown = {instance for instances in panels.values() for instance in instances}
    texts = [text for row in rows for run in row.finished for text in run.predictions if text.instance in shown]
    labels = _labels(rows, experiment)
    settings = [_setting(row, shown, *names) for row, names in zip(rows, _names(rows), strict=True)]
    notes = [*settings, *_shown(rows, labels), *_training(rows, labels)]
    empty, cut = sum(not text.prediction for text in texts), sum(text.cut_off for text in texts)
    limits = " or ".join(dict.fromkeys(str(run.config.max_new_tokens) for run in runs))
    columns = rows[0].finished[0].columns
    lower = any(columns[name][1].better == "lower" for name in experiment.columns)
    scored = "are answers that cannot be read" if lower else "score 0"
    notes.append(
        f"Empty predictions {scored} ({empty} in this table); {counted(cut, 'text')} cut off at {limits} new tokens."
    )
    metrics = {columns[name][0] for name in experiment.columns}
    notes += [note for row in rows for run in row.finished for note in run.summary.answer_notes]
    measures = [
        {name: way for name, way in run.summary.signatures.items() if name in metrics}
        for row in rows
        for run in row.finished
    ]
    notes += unlike_measures([row.group.name or row.spec.label for row in rows for _ in row.finished], measures)
    told = [run.summary.metric_notes for row in rows for run in row.finished]
    notes += [note for of_run in told for name, note in of_run.items() if name in metrics]
    notes += [note for run in runs for corpus in run.corpora.values() for note in corpus.notes]
    cold = sum(not runs[0].by_id[name].profile for name in shown)
    if cold:
        notes.append(f"{cold:,} of {len(shown):,} instances are of users without a history.")
    if any(run.config.dataset == DEMO and run.config.task == REVIEWS for run in runs):
        from bench.data.stats import demo_floors

        notes.append(demo_floors())
    notes += [note for run in runs for note in run.config.notes]
    return list(dict.fromkeys(notes))


def _labels(rows: Sequence[RowRuns], experiment: Experiment) -> list[str]:
    """What notes call the rows: their labels, with what they count in a figure, with their group where it takes that to
    tell them apart."""
    labels = [row.spec.label for row in rows]
    if experiment.figure is not None and experiment.figure.kind == "lines":
        return [f"{experiment.figure.x} {label}" for label in labels]
    return [
        f"{label} ({row.group.name})" if labels.count(label) > 1 and row.group.name else label
        for label, row in zip(labels, rows, strict=True)
    ]


def _names(rows: Sequence[RowRuns]) -> list[tuple[str, str]]:
    """What the model and the data of each row are called."""
    identities = [row.finished[0].record.identity for row in rows]
    models = told_apart(
        [shown_name(row.config.model) for row in rows], [str(identity.get("model", "")) for identity in identities]
    )
    data = told_apart([shown_name(row.config.dataset) for row in rows], [data_print(it["data"]) for it in identities])
    return list(zip(models, data, strict=True))


def _setting(row: RowRuns, shown: Collection[str], model: str, data: str) -> str:
    """The setting of a row's runs."""
    config = row.config
    instances = Counter(text.category for text in row.finished[0].predictions if text.instance in shown)
    counts = ", ".join(f"{category_name(category)} {count}" for category, count in instances.items())
    seeds = ", ".join(str(job.config.seed) for job in row.jobs)
    repeats = f"seed {seeds}" if len(row.jobs) == 1 else f"seeds {seeds}"
    repeats += ", each with adapters of its own" if len(row.jobs) > 1 and row.jobs[0].adapter is not None else ""
    return (
        f"Model {model}, data {data}, {config.split} instances: {counts}. Fidelity {config.fidelity}, "
        f"{repeats}, temperature {config.temperature:g}, top-p {config.top_p:g}"
        f"{'; one run, no repeats' if len(row.jobs) == 1 else ''}."
    )


def _shown(rows: Sequence[RowRuns], labels: Sequence[str]) -> list[str]:
    """How many history blocks fit the budget, by what the retriever gives."""
    shown: dict[str, dict[str, None]] = {}
    for row, label in zip(rows, labels, strict=True):
        config = row.config
        run = row.jobs[0].run
        if run.retriever is None:
            continue
        setting = (
            f"History: the {config.retriever} retriever gives K={config.k} {plural(run.task.target)}; blocks that fit "
            f"the input budget of {config.budget} tokens, on average"
        )
        average = np.mean([result.summary.blocks_shown for result in row.finished])
        shown.setdefault(setting, {})[f"{label} {average:.2f}"] = None
    return [f"{setting}: {', '.join(averages)}." for setting, averages in shown.items()]


def _training(rows: Sequence[RowRuns], labels: Sequence[str]) -> list[str]:
    """What the adapters cost (the paper's E.2), and whose text a slot holds where that is not the block's."""
    notes: dict[str, str] = {}
    for row, label in zip(rows, labels, strict=True):
        for job, result in zip(row.jobs, row.finished, strict=True):
            adapter, counts = result.summary.adapter, result.summary.counts
            if adapter is not None and adapter.share is not None:
                kept = (
                    f"of {adapter.epochs} epochs the one with the best validation {job.config.train.select_by} is kept "
                    f"({adapter.epoch})"
                )
                notes.setdefault(
                    adapter.name,
                    f"{label}: {adapter.parameters:,} trained parameters ({100 * adapter.share:.2f}% of all), "
                    f"{adapter.instances} instances; {'one epoch' if adapter.epochs == 1 else kept}.",
                )
            elif adapter is not None:
                notes.setdefault(adapter.name, f"{label}: imported adapter {adapter.name}.")
            if counts.get("misaligned_slots"):
                share = counts["misaligned_slots"] / counts["slots"]
                notes.setdefault(
                    f"{label} slots",
                    f"{label}: {100 * share:.1f}% of the slots hold another {job.run.task.target} than their block's.",
                )
    return list(notes.values())
