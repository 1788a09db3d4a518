"""Experiments to files: compute the runs that are missing, then write every table and figure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.config import RunConfig, build, merge
from bench.errors import BenchError, ConfigError, MisfitError
from bench.execute import execute
from bench.experiments.data import statistics_of
from bench.experiments.properties import properties_table
from bench.experiments.scores import RowRuns, assemble, assemble_tasks, check_columns, check_paper
from bench.experiments.spec import Experiment, RowSpec, read_experiment
from bench.experiments.texts import texts_of
from bench.files import check_results
from bench.finished import finished
from bench.job import Job
from bench.report import figures, side_by_side
from bench.report.files import write_table
from bench.report.names import named_score
from bench.report.table import Group
from bench.report.text import plain
from bench.resolved import Inputs

Settings = Mapping[str, Any]

MOST_SEEDS = 1000
LONGEST_ID = 200
"""Letters of a file's name without its ending."""


@dataclass(frozen=True)
class Options:
    """What a table shows beside scores: the spread over so many seeds, the paper's figures everywhere, and which
    differences are significant. `suffix` ends the names of its files."""

    seeds: int = 1
    paper: bool = False
    significance: bool = False
    suffix: str = ""


def produce(names: Sequence[str], configs: Mapping[str, Settings], options: Options) -> list[str]:
    """Compute what the experiments miss, all runs together, write their files and return what to print.

    With several `configs` (settings by name) each experiment's rows are repeated for each. Raises `BenchError`; what
    was computed is kept.
    """
    experiments = _read(names)
    for settings in configs.values():
        check_results(_common(settings).results)
    table_ids = {name: _table_id(name, options.suffix) for name in experiments}
    jobs = _Jobs(Inputs())
    planned = _planned(experiments, configs, options.seeds, jobs)
    execute(jobs.by_folder())
    printed: list[str] = []
    for name, parts in planned.items():
        # Of one that names no tasks what it says of its rows: names of scores in the place of heads.
        experiment = parts[""][0] if "" in parts else experiments[name]
        printed += _write(table_ids[name], experiment, parts, list(configs.values()), options, jobs.inputs)
    return printed


def jobs_of_rows(
    names: Sequence[str], configs: Mapping[str, Settings], seeds: int, inputs: Inputs
) -> list[tuple[str, tuple[Job, ...]]]:
    """The rows that `produce` would see to, by their labels, each with its jobs, one a seed; a job that several rows
    share comes with each of them. Nothing is computed. Raises `BenchError` as `produce` does."""
    experiments = _read(names)
    jobs = _Jobs(inputs)
    labelled = []
    for name, parts in _planned(experiments, configs, seeds, jobs).items():
        several = Counter(
            label for label, _ in {(row.spec.label, row.group.name) for _, rows in parts.values() for row in rows}
        )
        for task, row in ((task, row) for task, (_, rows) in parts.items() for row in rows):
            label = f"{task} {row.spec.label}".strip()
            if experiments[name].figure is not None and row.spec.is_number:
                # A number on its axis.
                label = f"{name} {label}"
            elif several[row.spec.label] > 1 and row.group.name:
                label = f"{row.group.name}, {label}"
            labelled.append((label, row.jobs))
    jobs.by_folder()
    return [(label, made) for label, made in labelled if made]


def _table_id(name: str, suffix: str) -> str:
    """What names a file on every system, and what LaTeX takes in \\input. Raises `ConfigError`."""
    table_id = re.sub(r"[^A-Za-z0-9_-]", "_", f"{name}{suffix}")
    if len(table_id) > LONGEST_ID:
        raise ConfigError(
            f"the files of {name[:60]} would be called {table_id[:60]}..., {len(table_id)} letters, of which "
            f"{LONGEST_ID} can be: give shorter names to configurations and data, or fewer configurations"
        )
    return table_id


def _read(names: Sequence[str]) -> dict[str, Experiment]:
    """The experiments by their ids. Raises `ConfigError` for two files that would write the same tables."""
    experiments: dict[str, Experiment] = {}
    for name in dict.fromkeys(names):
        key, experiment = read_experiment(name)
        if key in experiments:
            raise ConfigError(f"two experiments are called '{key}' and would write the same files; rename {name}")
        check_paper(key, experiment)
        experiments[key] = experiment
    return experiments


# ---- the plan


Parts = Mapping[str, tuple[Experiment, list[RowRuns]]]
"""An experiment's rows with what it says of them, by task; of one that names no tasks under ""."""


class _Jobs:
    """Jobs by configuration: tables share rows, and rows share their inputs and what was read of their results."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.read = cache(finished)
        self._jobs: dict[str, Job] = {}

    def get(self, settings: Settings, label: str) -> Job:
        """The job of a row's settings. Raises `ConfigError` with the row's `label`."""
        try:
            config = build(settings)
        except BenchError as error:
            raise ConfigError(f"row '{label}': {error}") from None
        key = config.model_dump_json()
        if key not in self._jobs:
            self._jobs[key] = Job.of(config, self.inputs)
        return self._jobs[key]

    def by_folder(self) -> list[Job]:
        """One job for each folder: configurations may differ in what does not change a text. Raises `ConfigError` if
        they score it in two ways, of which a folder holds one."""
        unique: dict[Path, Job] = {}
        for job in self._jobs.values():
            first = unique.setdefault(job.folder, job)
            if (first.run.signatures, first.config.resamples) != (job.run.signatures, job.config.resamples):
                raise ConfigError(
                    f"two rows are the same run ({job.folder.name}) scored in two ways, of which it keeps one; give "
                    "them the same metrics, metric options and resamples, or make two tables, one after the other"
                )
        return list(unique.values())


def _planned(
    experiments: Mapping[str, Experiment], configs: Mapping[str, Settings], seeds: int, jobs: _Jobs
) -> dict[str, Parts]:
    """The rows of experiments, by their ids. Raises `ConfigError`."""
    if seeds < 1:
        raise ConfigError(f"{seeds} seeds were asked for; ask for at least 1")
    if seeds > MOST_SEEDS:
        made = sum(row.set is not None for one in experiments.values() for group in one.groups for row in group.rows)
        made *= len(configs)
        raise ConfigError(
            f"{seeds:,} seeds of {made} rows are {seeds * made:,} runs with adapters of their own, which is months of "
            f"work; ask for at most {MOST_SEEDS:,} seeds"
        )
    planned: dict[str, dict[str, tuple[Experiment, list[RowRuns]]]] = {}
    for name, experiment in experiments.items():
        whole = experiment.with_other_methods()
        parts = {task: whole.of_task(task) for task in experiment.tasks} or {"": whole}
        planned[name] = {}
        for task, part in parts.items():
            rows = _plan(part, configs, seeds, jobs, bool(task))
            planned[name][task] = (_with_names(part, rows), rows)
    for name, planned_parts in planned.items():
        for part, rows in planned_parts.values():
            for row in (row for row in rows if row.jobs):
                check_columns(name, part, row.jobs[0])
    return {**planned}


def _with_names(experiment: Experiment, rows: Sequence[RowRuns]) -> Experiment:
    """The experiment with the names of its scores where it says what tables call them. Raises `ConfigError` for a score
    that it names in both ways."""
    metrics = [metric for row in rows if row.jobs for metric in row.jobs[0].run.metrics.values()]
    heads = {column.name: column.head for metric in metrics for column in metric.columns}
    columns = tuple(named_score(one, heads) for one in experiment.columns)
    if twice := [one for one, name in zip(experiment.columns, columns, strict=True) if columns.count(name) > 1]:
        raise ConfigError(f"'{twice[0]}' and '{twice[1]}' are the same column; name it once")
    return experiment.model_copy(update={"columns": columns})


def _plan(
    experiment: Experiment, configs: Mapping[str, Settings], seeds: int, jobs: _Jobs, some_misfit: bool
) -> list[RowRuns]:
    """The rows of an experiment under each configuration, with the jobs that they need; `some_misfit`: a method that
    the task's data cannot serve has none, and is no error."""
    if experiment.content in ("data", "properties"):
        return []
    models = [_common(base).model for base in configs.values()]
    names = [_model_name(model) for model in models]
    planned = []
    for number, (config, base) in enumerate(configs.items()):
        heading = names[number] if names.count(names[number]) == 1 else f"{names[number]} ({Path(config).stem})"
        for group in experiment.for_model(models[number]).groups:
            # Sizes are ranked apart, as in the paper's Table 1.
            name = group.name if len(configs) == 1 else " / ".join(filter(None, [heading, group.name]))
            shown = Group(name, group.ranked, str(number) if experiment.rank_together else None)
            for row in group.rows:
                made: list[Job] = []
                misfit = ""
                try:
                    if row.set is not None:
                        made = [jobs.get(_seeded(base, row, n), row.label) for n in range(seeds)]
                except MisfitError as error:
                    if not some_misfit:
                        raise
                    misfit = str(error).partition(";")[0]
                planned.append(RowRuns(row, shown, number, tuple(made), misfit, jobs.read))
    return planned


def _common(settings: Settings) -> RunConfig:
    """What a configuration says whatever the method."""
    return build({"method": "copy"}, settings)


def _model_name(model: str) -> str:
    return Path(model.partition("@")[0]).name


def _seeded(base: Settings, row: RowSpec, number: int) -> dict[str, Any]:
    """The settings of a row for the n-th seed: of sampling, and of training."""
    settings = merge(base, row.set or {})
    if number == 0:
        return settings
    config = build(settings)
    return merge(settings, {"seed": config.seed + number, "train": {"seed": config.train.seed + number}})


# ---- the files


def _write(
    table_id: str,
    experiment: Experiment,
    parts: Parts,
    settings: Sequence[Settings],
    options: Options,
    inputs: Inputs,
) -> list[str]:
    """Write the files of an experiment whose runs are there; what to print."""
    config = _common(settings[0])
    rows = [row for _, of_task in parts.values() for row in of_task]
    folder = config.results / "tables"
    if experiment.content == "data":
        if any(_common(other).dataset != config.dataset for other in settings):
            raise ConfigError("sizes of several data sets: give them to `bench data stats` together")
        suffix = table_id.removeprefix("table4")
        corpora = inputs.corpora(config)
        return statistics_of([config.dataset], corpora, settings[0], config.results, suffix, config.task)
    if experiment.content == "properties":
        return properties_table(table_id, experiment, folder)
    if experiment.content == "texts":
        several = len({row.model for row in rows}) > 1
        labels = [f"{row.spec.label} ({_model_name(row.config.model)})" if several else row.spec.label for row in rows]
        texts = texts_of(table_id, experiment, dict(zip(labels, rows, strict=True)))
        return [side_by_side.plain(texts), *_wrote(side_by_side.write(texts, folder))]
    shown = options.paper, options.significance
    if experiment.tasks:
        table = assemble_tasks(table_id, experiment, parts, *shown)
    else:
        table = assemble(table_id, experiment, rows, *shown)
    if experiment.figure is None:
        return [plain(table), *_wrote(write_table(table, folder))]
    drawing = experiment.figure
    return [plain(table), *_wrote(figures.draw(table, drawing.kind, drawing.x, config.results / "figures"))]


def _wrote(paths: Sequence[Path]) -> list[str]:
    return [f"wrote {path}" for path in paths]
