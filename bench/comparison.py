"""Two complete runs on the same instances: how far apart their scores are, how sure that is, and in which texts.

Everything is B minus A. Instances are paired by id; those that only one run has take no part and are counted.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from bench.config import RunConfig
from bench.errors import ConfigError, DataError
from bench.finished import FinishedRun
from bench.places import shown_name
from bench.protocols import Array, Column, Metric
from bench.registry import near_match
from bench.report.names import category_name
from bench.statistics import TIE, Difference, holm, paired
from bench.terminal import visible

WIDTH = 120


@dataclass(frozen=True)
class Pair:
    """One score of both runs on the instances of a category, of the aggregate with weights of one, as `paired` takes
    it."""

    category: str
    column: Column
    a: float
    b: float
    difference: Difference


@dataclass(frozen=True)
class Line(Pair):
    """`adjusted` is Holm's p over all lines of a comparison."""

    adjusted: float


@dataclass(frozen=True)
class Change:
    """An instance's texts in both runs and the score of each by itself."""

    instance: str
    reference: str
    text_a: str
    text_b: str
    a: float
    b: float


@dataclass(frozen=True)
class Comparison:
    """What `compare` finds; `changes` are by the column `by`, the largest first."""

    name_a: str
    name_b: str
    settings: Sequence[str]
    instances: Mapping[str, int]
    lines: Sequence[Line]
    notes: Sequence[str]
    by: Column
    changes: Sequence[Change]

    def __str__(self) -> str:
        return render(self)


def differences(run_a: FinishedRun, run_b: FinishedRun, flips: int = 10_000) -> list[Pair]:
    """B minus A in each category, on the instances that both runs have, under the metrics that both are scored with by
    the same signature; see `paired`. A metric that gives no score for these instances of a category is left out."""
    return _Pairing(run_a, run_b).differences(flips)


def compare(run_a: FinishedRun, run_b: FinishedRun, changed: int = 5, by: str | None = None) -> Comparison:
    """Every score of two runs on their common instances, and the `changed` instances that changed most.

    The change is that of the column `by` on one instance alone; by default the first that is a mean over instances.
    Raises `ConfigError` for runs that cannot be compared: of other data or another split, scored with another
    signature, or without an instance or a metric in common; also for a column that is not compared and for a negative
    `changed`.
    """
    if changed < 0:
        raise ConfigError(f"{changed} changed instances were asked for; ask for 0 or more")
    _check_alike(run_a, run_b)
    pairing = _Pairing(run_a, run_b)
    pairing.check()
    found = pairing.differences()
    # Scores that no text can change, e.g. those by chance, are no tests: p is 1 whatever the methods are.
    adjusted = iter(holm([pair.difference.p for pair in found if pair.difference.error]))
    lines = [Line(**vars(pair), adjusted=next(adjusted) if pair.difference.error else 1.0) for pair in found]
    chosen = _changed_by(pairing, by)
    return Comparison(
        name_a=run_a.name,
        name_b=run_b.name,
        settings=_settings(run_a, run_b),
        instances={category: len(at_a) for category, (at_a, _) in pairing.categories.items()},
        lines=lines,
        notes=pairing.notes(),
        by=chosen,
        changes=_changes(pairing, chosen.name, changed),
    )


def _check_alike(run_a: FinishedRun, run_b: FinishedRun) -> None:
    name_a, name_b = run_a.name, run_b.name
    identity_a, identity_b = run_a.record.identity, run_b.record.identity
    if run_a.record.schema_version == run_b.record.schema_version:
        data_b = identity_b["data"]
        other = [name for name, data in identity_a["data"].items() if data_b.get(name, data) != data]
    else:
        # Schemas fingerprint the same data in two ways: what was to be written tells.
        references = {row.instance: row.reference for row in run_b.predictions}
        changed = (row for row in run_a.predictions if references.get(row.instance, row.reference) != row.reference)
        other = list(dict.fromkeys(row.category for row in changed))
    if other:
        raise ConfigError(
            f"{name_a} and {name_b} are of different data in {', '.join(other)}; compare runs of the same data"
        )
    split_a, split_b = identity_a["settings"]["split"], identity_b["settings"]["split"]
    if split_a != split_b:
        raise ConfigError(
            f"{name_a} is of the {split_a} split and {name_b} of the {split_b} split; compare runs of one split"
        )
    signatures = run_b.summary.signatures
    for metric, signature in run_a.summary.signatures.items():
        if signatures.get(metric, signature) != signature:
            raise ConfigError(
                f"{metric} is not the same measure in both runs: '{signature}' in {name_a}, '{signatures[metric]}' "
                f"in {name_b}; run both commands again with this version and the same options to score them alike"
            )


class _Pairing:
    """The instances and metrics that two runs have in common."""

    def __init__(self, run_a: FinishedRun, run_b: FinishedRun) -> None:
        self.run_a, self.run_b = run_a, run_b
        index_a, index_b = _by_instance(run_a), _by_instance(run_b)
        common = [instance for instance in index_a if instance in index_b]
        self.only = (
            Counter(run_a.predictions[index].category for name, index in index_a.items() if name not in index_b),
            Counter(run_b.predictions[index].category for name, index in index_b.items() if name not in index_a),
        )
        self.categories: dict[str, tuple[list[int], list[int]]] = {}
        """Where the common instances stand in A and in B, by category."""
        for instance in common:
            category = run_a.predictions[index_a[instance]].category
            at_a, at_b = self.categories.setdefault(category, ([], []))
            at_a.append(index_a[instance])
            at_b.append(index_b[instance])
        signatures = run_b.summary.signatures
        self.metrics = {
            name: run_a.metrics[name]
            for name, known in run_a.summary.signatures.items()
            if signatures.get(name) == known
        }
        self.columns = {name: of for name, of in run_a.columns.items() if of[0] in self.metrics}
        """As in `FinishedRun.columns`, of the metrics that both are scored with."""

    def check(self) -> None:
        """Raise `ConfigError` if there is nothing to compare."""
        names = f"{self.run_a.name} and {self.run_b.name}"
        if not self.categories:
            raise ConfigError(f"{names} have no instance in common; compare runs of the same data")
        if not self.metrics:
            raise ConfigError(f"{names} have no metric in common; run one of them again with both")

    def differences(self, flips: int = 10_000) -> list[Pair]:
        """See the function of this name."""
        found = []
        for category, (at_a, at_b) in self.categories.items():
            users = [self.run_a.predictions[index].user for index in at_a]
            for name, metric in self.metrics.items():
                if not self._gives_scores(name, category):
                    continue
                rows_a, rows_b = self.run_a.rows(name)[at_a], self.run_b.rows(name)[at_b]
                changes = paired(metric.aggregate, rows_a, rows_b, users, flips=flips)
                for column in metric.columns:
                    a, b = (_score(metric, column.name, rows) for rows in (rows_a, rows_b))
                    found.append(Pair(category, column, a, b, changes[column.name]))
        return found

    def _gives_scores(self, metric: str, category: str) -> bool:
        sides = zip((self.run_a, self.run_b), self.categories[category], strict=True)
        return all(_has_scores(run.metrics[metric], run.rows(metric)[at]) for run, at in sides)

    def notes(self) -> list[str]:
        """What takes no part in the comparison, and which scores are not those of the tables."""
        notes = [older for older in dict.fromkeys((self.run_a.older, self.run_b.older)) if older]
        for run, only in zip((self.run_a, self.run_b), self.only, strict=True):
            if only:
                counts = ", ".join(f"{category_name(category)} {count}" for category, count in only.items())
                notes.append(f"Left out: {only.total()} instances that only {run.name} has ({counts}).")
        for run in (self.run_a, self.run_b):
            lone = [name for name in run.columns if name not in self.columns]
            if lone:
                notes.append(f"Left out: {', '.join(lone)}, which only {run.name} is scored with.")
        for metric_name in self.metrics:
            without = [category for category in self.categories if not self._gives_scores(metric_name, category)]
            if without:
                where = ", ".join(map(category_name, without))
                notes.append(f"Left out: {metric_name} in {where}, where it gives no score.")
        for name, (metric_name, column) in self.columns.items():
            metric = self.metrics[metric_name]
            rows = np.concatenate([run.rows(metric_name) for run in (self.run_a, self.run_b)])
            if _has_scores(metric, rows) and not np.isclose(
                float(metric.aggregate(rows)[name]), _score(metric, name, rows), rtol=TIE, atol=0
            ):
                notes.append(
                    f"{column.head} is compared without the metric's own resampling: tables show another number."
                )
        return notes


def _by_instance(run: FinishedRun) -> dict[str, int]:
    return {prediction.instance: index for index, prediction in enumerate(run.predictions)}


def _has_scores(metric: Metric, rows: Array) -> bool:
    try:
        metric.aggregate(rows)
    except DataError:
        # E.g. texts that the judge gave no score.
        return False
    return True


def _score(metric: Metric, name: str, rows: Array) -> float:
    return float(metric.aggregate(rows, np.ones((1, len(rows))))[name][0])


def _changed_by(pairing: _Pairing, by: str | None) -> Column:
    columns = pairing.columns
    if by is None:
        # Statistics that carry a score's name are that score of one instance.
        means = [name for name, (metric, _) in columns.items() if name in pairing.metrics[metric].statistics]
        by = (means or list(columns))[0]
    if by not in columns:
        raise ConfigError(
            f"'{by}' is not a column that both runs have{near_match(by, list(columns))} They have: {', '.join(columns)}"
        )
    return columns[by][1]


def _changes(pairing: _Pairing, by: str, count: int) -> list[Change]:
    """The instances whose own score changed most, without those whose score did not change or that have none."""
    run_a, run_b = pairing.run_a, pairing.run_b
    metric, _ = pairing.columns[by]
    changes = []
    for at_a, at_b in pairing.categories.values():
        for a, b in zip(at_a, at_b, strict=True):
            own_a, own_b = run_a.instance_scores(a, metric), run_b.instance_scores(b, metric)
            if by not in own_a or by not in own_b:
                continue
            prediction = run_a.predictions[a]
            changes.append(
                Change(
                    prediction.instance,
                    prediction.reference,
                    prediction.prediction,
                    run_b.predictions[b].prediction,
                    own_a[by],
                    own_b[by],
                )
            )
    changes.sort(key=lambda change: -abs(change.b - change.a))
    return [change for change in changes[:count] if change.b != change.a]


# ---- what differs between the configurations

HASHES = {
    "task_code": "task",
    "method_code": "method",
    "marks": "method",
    "adapter": "method",
    "retriever_code": "retriever",
    "model": "model",
    "tokenizer": "model",
    "prompts": "prompts",
}
"""Parts of a run's identity that say only that something differs, and the setting that explains it, if that differs."""


def _settings(run_a: FinishedRun, run_b: FinishedRun) -> list[str]:
    """What differs between two runs, e.g. "k 3 -> 8", "only B has temperature 0.8", "other prompts"."""
    a, b = _named(run_a, run_b), _named(run_b, run_a)
    changed = [name for name in a if name in b and a[name] != b[name]]
    told = [f"{name} {_value(a[name])} -> {_value(b[name])}" for name in changed]
    for which, named, other in (("A", a, b), ("B", b, a)):
        if only := [f"{name} {_value(value)}" for name, value in named.items() if name not in other]:
            told.append(f"only {which} has {', '.join(only)}")
    identity_a, identity_b = run_a.record.identity, run_b.record.identity
    for part, setting in HASHES.items():
        both = part in identity_a and part in identity_b
        if both and identity_a[part] != identity_b[part] and setting not in changed:
            told.append(f"other {part.replace('_', ' ')}")
    return told


def _named(run: FinishedRun, other: FinishedRun) -> dict[str, Any]:
    """A run's settings by name. Of the options of its task, method and retriever, those that it or `other` sets: the
    rest follows from method, retriever and fidelity."""
    identity = run.record.identity
    # Before there were tasks, all runs were of the one that is the default now.
    named = {"task": RunConfig.model_fields["task"].default, **identity["settings"]}
    if "model" in identity:
        named["model"] = shown_name(run.config.model)
    for group in ("task", "method", "retriever"):
        plugin = str(named.get(group, ""))
        chosen = {**run.config.options.get(plugin, {}), **other.config.options.get(plugin, {})}
        options = identity.get(f"{group}_options", {})
        named |= {f"{plugin}.{option}": value for option, value in options.items() if option in chosen}
    named["device"] = run.record.device
    return named | {f"version of {package}": version for package, version in run.record.versions.items()}


def _value(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# ---- text


def render(comparison: Comparison) -> str:
    """Text for a terminal."""
    counts = ", ".join(f"{category_name(category)} {count}" for category, count in comparison.instances.items())
    settings = "; ".join(comparison.settings) or "nothing"
    blocks = [
        f"A: {comparison.name_a}\nB: {comparison.name_b}",
        _wrapped(f"From A to B: {settings}."),
        tabulate(
            [_cells(line) for line in comparison.lines],
            headers=["category", "score", "A", "B", "B - A", "95% interval", "p", "p (Holm)"],
            disable_numparse=True,
            colalign=("left", "left", *["right"] * 6),
        ),
        "\n".join(map(_wrapped, _notes(comparison, counts))),
        *(_texts(comparison, change) for change in comparison.changes),
    ]
    # A notebook prints it as it is.
    return visible("\n\n".join(blocks))


def _cells(line: Line) -> list[str]:
    shown, difference = line.column, line.difference
    return [
        category_name(line.category),
        f"{shown.head} {shown.arrow}" if shown.better == "lower" else shown.head,
        *(f"{score:.{shown.decimals}f}" for score in (line.a, line.b)),
        f"{difference.value:+.{shown.decimals}f}",
        f"[{difference.low:+.{shown.decimals}f}, {difference.high:+.{shown.decimals}f}]",
        f"{difference.p:.4f}",
        f"{line.adjusted:.4f}",
    ]


def _notes(comparison: Comparison, counts: str) -> list[str]:
    tests = sum(line.difference.error > 0 for line in comparison.lines)
    notes = [
        f"Paired on {sum(comparison.instances.values())} instances ({counts}). Intervals: bootstrap over users; p: "
        f"sign-flip test over users; p (Holm): adjusted for the {tests} tests of this table.",
        *comparison.notes,
    ]
    if any(line.column.better == "lower" for line in comparison.lines):
        notes.append("↓: lower is better, so a B - A below 0 says that B is better.")
    if comparison.changes:
        notes.append(f"Instances whose own {comparison.by.head} changed most:")
    return notes


def _texts(comparison: Comparison, change: Change) -> str:
    shown = comparison.by
    a, b = (f"{score:.{shown.decimals}f}" for score in (change.a, change.b))
    texts = (("A", change.text_a), ("B", change.text_b), ("reference", change.reference))
    return "\n".join(
        [
            _wrapped(f"{change.instance}: {shown.head} {a} -> {b} ({change.b - change.a:+.{shown.decimals}f})"),
            *(_wrapped(f"{name}: {text}") for name, text in texts),
        ]
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(visible(text).split()), WIDTH, subsequent_indent="  ", break_on_hyphens=False)
