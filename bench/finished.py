"""A complete run, read from its folder: what tables, comparisons, the gate and the report look at. Loads no model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import Field

from bench.config import RunConfig, build
from bench.errors import MEND, BenchError, ConfigError, DamagedError, DataError, StoreError
from bench.files import content_hash
from bench.places import found, places_of
from bench.progress import say
from bench.registry import create, load, near_match
from bench.results import SCHEMA, Prediction, Row, RunRecord, ScoreRow, Stored, Summary, rows_of, validated
from bench.shards import FOLDER, shards_in

if TYPE_CHECKING:
    from bench.protocols import Array, Column, Metric

PAPER_SCORES = ("rouge1", "meteor", "bleu", "bertscore")
"""The scores of the paper's Table 1: those by which methods are told apart on reviews."""

MOST_NAMED = 5
"""Runs that a message names."""


@dataclass(frozen=True)
class FinishedRun:
    """A run's record (run.json), summary (summary.json) and rows; `bench.results` has their types."""

    folder: Path
    record: RunRecord
    summary: Summary

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @cached_property
    def config(self) -> RunConfig:
        """The configuration of the run's first time. Raises `ConfigError` if this version of bench refuses it."""
        return config_of(self.record)

    @property
    def older(self) -> str:
        """A sentence about a run that an older version of bench wrote; empty for any other."""
        schema = self.record.schema_version
        if schema == SCHEMA:
            return ""
        return f"{self.name} is of an older schema ({schema}; this version writes {SCHEMA})."

    @cached_property
    def predictions(self) -> list[Prediction]:
        """The rows of predictions.jsonl, in the order of the data set."""
        return list(self._read(Prediction, "predictions.jsonl"))

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """The metrics the run is scored with, for their `aggregate`: no text is scored with them here."""
        return {name: self.metric(name) for name in self.summary.signatures}

    def metric(self, name: str) -> Metric:
        """A metric as the run was last scored with it. Raises `ConfigError` and `PluginError`."""
        metric: Metric = create("metrics", name, self.metric_options.get(name, {}), self.fidelity)
        return metric

    # Summaries did not always hold the following three; the configuration of the first time has them as well.

    @property
    def metric_options(self) -> Mapping[str, Mapping[str, Any]]:
        """The options that the metrics were given when the run was last scored, by metric."""
        options = found(self.summary.metric_options, places_of(self.folder))
        return self.config.options if options is None else options

    @property
    def fidelity(self) -> str:
        """The fidelity that the run was last scored with."""
        return self.summary.fidelity or self.config.fidelity

    @property
    def resamples(self) -> int:
        """The bootstrap resamples behind the intervals of its scores."""
        return self.summary.resamples or self.config.resamples

    @cached_property
    def columns(self) -> dict[str, tuple[str, Column]]:
        """By the name of each score the metric that gives it, and how it is shown."""
        return {column.name: (name, column) for name, metric in self.metrics.items() for column in metric.columns}

    @cached_property
    def deciding(self) -> list[str]:
        """The scores by which methods are told apart: those of the metrics that are the task's default, as far as they
        are better one way, and of reviews the paper's four. Where the run has none of them, all that are better one
        way, or all."""
        # Before there were tasks, all runs were of the one that is the default now.
        reviews = RunConfig.model_fields["task"].default
        task = self.record.identity["settings"].get("task", reviews)
        directed = [name for name, (_, column) in self.columns.items() if column.better]
        if task == reviews:
            wanted = [name for name in PAPER_SCORES if name in self.columns]
        else:
            metrics = load("tasks", task).metrics
            wanted = [name for name in directed if self.columns[name][0] in metrics]
        return wanted or directed or list(self.columns)

    @cached_property
    def _rows(self) -> dict[str, Array]:
        # Listing runs needs no numpy.
        import numpy as np

        signatures = self.summary.signatures
        statistics = {
            (row.metric, row.instance): row.statistics
            for row in self._read(ScoreRow, "scores.jsonl")
            if row.signature == signatures.get(row.metric)
        }
        rows = {}
        for name in signatures:
            try:
                chosen = [statistics[name, prediction.instance] for prediction in self.predictions]
            except KeyError as error:
                problem = f"it has no row of {name} for {error.args[0][1]}"
                raise DamagedError(self.folder / "scores.jsonl", problem, mend_of(self.record)) from None
            if len(set(map(len, chosen))) > 1:
                problem = f"its rows of {name} are of different lengths"
                raise DamagedError(self.folder / "scores.jsonl", problem, mend_of(self.record))
            rows[name] = np.asarray(chosen, dtype=np.float64)
        return rows

    def _read(self, kind: type[Row], name: str) -> Iterator[Row]:
        try:
            yield from rows_of(kind, self.folder / name, self.record.owner)
        except DamagedError as error:
            raise DamagedError(error.where, error.problem, mend_of(self.record)) from None

    def rows(self, metric: str) -> Array:
        """A metric's statistics, a row for each of `predictions`, shape (n, s). Raises `StoreError` if one is
        missing."""
        return self._rows[metric]

    def instance_scores(self, index: int, metric: str | None = None) -> dict[str, float]:
        """The scores of one text alone, by column: of `predictions[index]`, under all metrics or one of them. Scores
        that one instance does not have are left out, e.g. the judge's where its answer is not a score."""
        scores: dict[str, float] = {}
        for name in self.metrics if metric is None else (metric,):
            try:
                values = self.metrics[name].aggregate(self.rows(name)[[index]])
            except DataError:
                continue
            scores |= {column: float(value) for column, value in values.items() if math.isfinite(value)}
        return scores


class _Settings(Stored):
    method: str
    seed: int | None
    split: str | None
    limit: int | None


class _Identity(Stored):
    settings: _Settings
    data: dict[str, str]
    method_options: dict[str, Any]
    retriever_options: dict[str, Any] = Field(default_factory=dict)


class _Config(Stored):
    method: str
    dataset: str
    model: str
    train: dict[str, Any] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


class _Described(Stored):
    """What those who look at runs rely on, whatever schema wrote it and whether this version takes its settings."""

    identity: _Identity
    config: _Config


def read_record(folder: Path) -> RunRecord:
    """The run.json of a run, complete or not, with the paths that are known here. Raises `StoreError` for a schema that
    cannot be read, and where identity or configuration lack what every run has."""
    # As long as there is nothing but shards a run has no record of its own.
    paths = [place / "run.json" for place in (folder, *(shard.folder(folder) for shard in shards_in(folder)))]
    path = next((path for path in paths if path.exists()), paths[0])
    record = RunRecord.read(path)
    try:
        validated(_Described, {"identity": record.identity, "config": record.config}, path)
    except DamagedError as error:
        raise DamagedError(path, error.problem, mend_of(record)) from None
    return record.model_copy(update={"config": found(record.config, places_of(path.parent))})


def config_of(record: RunRecord) -> RunConfig:
    """The configuration in a run.json. Raises `ConfigError` if this version of bench refuses it."""
    settings = dict(record.config)
    return build(settings, settings.pop("options", {}))


def finished(folder: Path, whole: bool = True) -> FinishedRun:
    """The complete run in a folder. Raises `StoreError` for a schema that cannot be read and for a run that is not
    complete, `DamagedError` for one whose files are not those that it was completed with or, of an older schema and
    unless it need not be `whole`, whose predictions are not as many as its summary counts."""
    record = read_record(folder)
    if not (folder / "summary.json").exists():
        raise StoreError(f"{folder} is not complete; run its command again to go on where it stopped")
    try:
        summary = Summary.read(folder / "summary.json")
    except DamagedError as error:
        raise DamagedError(error.where, error.problem, mend_of(record)) from None
    run = FinishedRun(folder, record, summary)
    for name, digest in run.summary.files.items():
        if (now := content_hash(folder / name)) != digest:
            problem = "it is not as it was when the run was completed" if now else "it is missing"
            raise DamagedError(folder / name, problem, mend_of(record))
    if whole and record.schema_version < SCHEMA:
        there = Counter(row.category for row in run.predictions)
        counted = Counter(run.summary.instances)
        if there != counted:
            problem = f"it holds {there.total()} instances, summary.json counts {counted.total()}"
            raise DamagedError(folder / "predictions.jsonl", problem, mend_of(record))
    return run


def mend_of(record: RunRecord) -> str:
    """What to do about a damaged file of a run."""
    if record.schema_version == SCHEMA:
        return MEND
    return f"The run is of an older schema ({record.schema_version}): move its folder away, then run its command again"


def checked(folder: Path) -> FinishedRun:
    """`finished`, with all of its rows and scores looked at: what follows can rely on them. Raises `StoreError` as
    `finished` does and for rows or scores that are not the metrics', `PluginError` for a metric that is not
    installed."""
    run = finished(folder)
    for name, metric in run.metrics.items():
        rows = run.rows(name)
        if rows.shape[1:] != (len(metric.statistics),):
            raise StoreError(
                f"{folder}/scores.jsonl has rows of {name} with {rows.shape[-1]} statistics, the metric makes "
                f"{len(metric.statistics)}. Delete the file and run the command again, which scores the texts"
            )
    given = dict.fromkeys(name for cells in run.summary.scores.values() for name in cells)
    if unknown := [name for name in given if name not in run.columns]:
        raise StoreError(
            f"{folder}/summary.json has a score {', '.join(unknown)}, which none of its metrics gives. Delete the file "
            "and run the command again, which scores the texts"
        )
    return run


Read = TypeVar("Read")


@dataclass(frozen=True)
class Readable(Generic[Read]):
    """What was made of some runs, and, by the names of the others, what is wrong with them."""

    found: list[Read]
    left_out: dict[str, str]


def read_each(read: Callable[[Path], Read], folders: Iterable[Path]) -> Readable[Read]:
    """What `read` makes of each run's folder: one that it cannot read costs no other."""
    result: Readable[Read] = Readable([], {})
    for folder in folders:
        try:
            result.found.append(read(folder))
        except BenchError as error:
            # The name stands in front.
            reason = str(error).replace(f"{folder}/", "")
            reason = f"it{reason.removeprefix(str(folder))}" if reason.startswith(f"{folder} ") else reason
            result.left_out[folder.name] = " ".join(reason.split())
    return result


def said(readable: Readable[Read]) -> list[Read]:
    """What was made of the runs that can be read; a line on standard error for each of the others."""
    for name, reason in readable.left_out.items():
        say(f"left out: {name}: {reason}")
    return readable.found


def run_folders(results: Path) -> list[Path]:
    """The folders of all runs, complete or not, by name. Raises `ConfigError` for a file in the place of `results`."""
    if results.exists() and not results.is_dir():
        raise ConfigError(f"--results {results} is a file; give the folder that has the results")
    names = ("run.json", "summary.json", "generations.jsonl", FOLDER)
    return sorted({path.parent for name in names for path in (results / "runs").glob(f"*/{name}")})


def find_run(results: Path, part: str) -> Path:
    """The folder of the one run whose name contains `part`, or the folder `part` itself. Raises `ConfigError`."""
    found = find_runs(results, part)
    if len(found) == 1:
        return found[0]
    some = ", ".join(folder.name for folder in found[:MOST_NAMED])
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    raise ConfigError(
        f"'{part}' names {len(found)} runs, say more of the name, or its last ten letters alone: {some}{more}"
    )


def find_runs(results: Path, part: str) -> list[Path]:
    """The folders of all runs whose name contains `part`, or the one of that name, or the folder `part` itself. Raises
    `ConfigError` if there is none."""
    if not part.strip():
        raise ConfigError("a run's name, or a part of it, must not be empty. See: bench list runs")
    if (Path(part) / "run.json").is_file():
        return [Path(part)]
    folders = run_folders(results)
    found = [folder for folder in folders if folder.name == part] or [
        folder for folder in folders if part in folder.name
    ]
    if not found:
        known = [folder.name for folder in folders]
        raise ConfigError(
            f"no run in {results / 'runs'} is called '{part}'{near_match(part, known)} See: bench list runs"
        )
    return found
