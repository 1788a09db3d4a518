"""An experiment file (rows as configuration overrides, columns, notes) to a rendered table.

title: Methods compared on review generation
columns: [rouge1, meteor]
groups:
  - name: ""
    ranked: true
    rows:
      - {label: RAG, paper: "RAG-7B", set: {method: rag}}
notes: []
other_methods: Other methods
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from bench import registry
from bench.config import RunConfig, Section, build
from bench.data.corpus import Corpus
from bench.data.load import load
from bench.errors import ConfigError
from bench.execute import execute
from bench.report.names import category_name, paper_value
from bench.report.tables import Cell, Group, Row, Table, plain, write
from bench.runner import Run

FOLDER = Path(__file__).parents[1] / "experiments"


class RowSpec(Section):
    """One row: its label, the paper's name of it and what it overrides."""

    label: str
    paper: str | None = None
    set: dict[str, Any]
    except_models: str | None = None
    """Part of a model's name with which the row is left out."""


class GroupSpec(Section):
    """Rows that are ranked among each other, or not ranked."""

    name: str
    ranked: bool
    rows: Annotated[tuple[RowSpec, ...], Field(min_length=1)]


class Experiment(Section):
    """The content of an experiment file."""

    title: str
    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    groups: Annotated[tuple[GroupSpec, ...], Field(min_length=1)]
    notes: tuple[str, ...] = ()
    other_methods: str | None = None
    """Name of the group of registered methods that no row names."""

    def for_model(self, model: str) -> Experiment:
        """The experiment without the rows that it leaves out for a model."""
        groups = []
        for group in self.groups:
            rows = tuple(row for row in group.rows if row.except_models is None or row.except_models not in model)
            if rows:
                groups.append(group.model_copy(update={"rows": rows}))
        return self.model_copy(update={"groups": tuple(groups)})

    def with_other_methods(self) -> Experiment:
        """The experiment with a row for each registered method that it does not name, if it asks for them."""
        named = {row.set.get("method") for group in self.groups for row in group.rows}
        others = [name for name in registry.names("methods") if name not in named]
        if not self.other_methods or not others:
            return self
        rows = tuple(RowSpec(label=name, set={"method": name}) for name in others)
        group = GroupSpec(name=self.other_methods, ranked=False, rows=rows)
        return self.model_copy(update={"groups": (*self.groups, group)})


def read_experiment(name: str) -> tuple[str, Experiment]:
    """Id and content of a shipped experiment or a YAML file. Raises `ConfigError`."""
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        known = sorted(path.stem for path in FOLDER.glob("*.yaml"))
        near = registry.near_match(name, known)
        raise ConfigError(f"there is no experiment '{name}'{near} Shipped: {', '.join(known)}; or give a YAML file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return path.stem, Experiment.model_validate(content)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{path}: {where}: {first['msg']}") from None


def run_experiment(name: str, settings: Mapping[str, Any], suffix: str = "") -> list[str]:
    """Compute what is missing, write the table's files and return what to print."""
    table_id, experiment = read_experiment(name)
    model = build(settings, experiment.groups[0].rows[0].set).model
    experiment = experiment.with_other_methods().for_model(model)
    corpora: dict[tuple[Any, ...], dict[str, Corpus]] = {}
    runs: list[Run] = []
    for group in experiment.groups:
        for row in group.rows:
            config = build(settings, row.set)
            source = (config.dataset, config.categories, config.revision)
            if source not in corpora:
                corpora[source] = load(*source)
            runs.append(Run(config, corpora[source]))
    for run in runs:
        _check_columns(name, experiment, run)
    summaries = execute(runs)
    table = assemble(f"{table_id}{suffix}", experiment, runs, summaries)
    files = write(table, runs[0].config.results / "tables")
    return [plain(table), *(f"wrote {path}" for path in files)]


def _check_columns(name: str, experiment: Experiment, run: Run) -> None:
    """Raise `ConfigError` for a column that no metric of a run gives: a cell must not be empty without a reason."""
    given = [column for metric in run.metrics.values() for column in metric.columns]
    for column in experiment.columns:
        if column not in given:
            raise ConfigError(
                f"experiment {name} has a column '{column}', which none of the metrics {', '.join(run.metrics)} "
                f"gives{registry.near_match(column, given)} They give: {', '.join(given)}"
            )


def assemble(table_id: str, experiment: Experiment, runs: list[Run], summaries: list[dict[str, Any]]) -> Table:
    """The table of finished runs, in the order of the experiment's rows."""
    rows: list[Row] = []
    results = iter(zip(runs, summaries, strict=True))
    categories: dict[str, None] = {}
    for group in experiment.groups:
        for spec in group.rows:
            run, summary = next(results)
            cells: dict[tuple[str, str], Cell] = {}
            for category, scores in summary["scores"].items():
                categories[category] = None
                for column in experiment.columns:
                    paper = _paper_value(table_id, spec, run.config, category, column)
                    cells[category, column] = Cell(**scores[column], paper=paper)
            rows.append(Row(spec.label, group.name, cells))
    return Table(
        id=table_id,
        title=experiment.title,
        categories=tuple(categories),
        columns=experiment.columns,
        rows=rows,
        notes=_notes(experiment, runs, summaries),
        groups=[Group(group.name, group.ranked) for group in experiment.groups],
    )


def _paper_value(table_id: str, spec: RowSpec, config: RunConfig, category: str, column: str) -> float | None:
    """What the paper reports in the cell, where the run is of the paper's data and of a model it used."""
    size = re.search(r"Qwen2\.5-(7B|32B)-Instruct", config.model)
    if spec.paper is None or size is None or not config.dataset.endswith("DPL-main"):
        return None
    return paper_value(table_id.partition("-")[0], spec.paper.format(size=size[1]), category, column)


def _training_notes(runs: list[Run], summaries: list[dict[str, Any]]) -> list[str]:
    """What the trained methods cost (the paper's E.2), and whose review a slot holds where that is not the block's."""
    notes: dict[str, str] = {}
    for run, summary in zip(runs, summaries, strict=True):
        method, adapter, counts = run.config.method, summary.get("adapter", {}), summary.get("counts", {})
        if "parameters" in adapter:
            notes[adapter["name"]] = (
                f"{method}: {adapter['parameters']:,} trained parameters ({100 * adapter['share']:.2f}% of all), "
                f"{adapter['instances']} instances; of {adapter['epochs']} epochs the one with the best validation "
                f"{run.config.train.select_by} is kept ({adapter['epoch']})."
            )
        elif adapter:
            notes[adapter["name"]] = f"{method}: imported adapter {adapter['name']}."
        if counts.get("misaligned_slots"):
            share = counts["misaligned_slots"] / counts["slots"]
            notes[f"{method} slots"] = (
                f"{method}: {100 * share:.1f}% of the slots hold another review than their block's."
            )
    return list(notes.values())


def _notes(experiment: Experiment, runs: list[Run], summaries: list[dict[str, Any]]) -> list[str]:
    """What a reader has to know: sentences that rows share stand once."""
    notes = []
    shown: dict[str, list[str]] = {}
    labels = [row.label for group in experiment.groups for row in group.rows]
    for label, run, summary in zip(labels, runs, summaries, strict=True):
        config = run.config
        counts = ", ".join(f"{category_name(category)} {count}" for category, count in summary["instances"].items())
        notes.append(
            f"Model {config.model}, data {config.dataset}, {config.split} instances: {counts}. Fidelity "
            f"{config.fidelity}, seed {config.seed}, temperature {config.temperature:g}, top-p {config.top_p:g}; "
            "one run, no repeats."
        )
        if run.retriever is not None:
            setting = (
                f"History: the {config.retriever} retriever gives K={config.k} reviews; blocks that fit the input "
                f"budget of {config.budget} tokens, on average"
            )
            shown.setdefault(setting, []).append(f"{label} {summary['blocks_shown']:.2f}")
    notes += [f"{setting}: {', '.join(averages)}." for setting, averages in shown.items()]
    notes += _training_notes(runs, summaries)
    empty = sum(summary["empty_predictions"] for summary in summaries)
    cut = sum(summary["cut_off"] for summary in summaries)
    limits = " or ".join(dict.fromkeys(str(run.config.max_new_tokens) for run in runs))
    notes.append(f"Empty predictions score 0 ({empty} in this table); {cut} texts were cut off at {limits} new tokens.")
    notes += [note for run in runs for corpus in run.corpora.values() for note in corpus.notes]
    if any(run.config.dataset == "demo" for run in runs):
        from bench.data.stats import demo_floors

        notes.append(demo_floors())
    notes += [*(note for run in runs for note in run.config.notes), *experiment.notes]
    return list(dict.fromkeys(notes))
