"""Two complete runs on the same instances: how far apart their scores are, how sure that is, and in which texts.

Everything is B minus A. Instances are paired by id; those that only one run has take no part and are counted. The
verdict is on all of them as one sample; the categories show where a difference lies.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from tabulate import tabulate

from bench import registry
from bench.config import TRAINING, RunConfig, TrainConfig, settings_of
from bench.errors import ConfigError, DataError
from bench.finished import FinishedRun
from bench.naming import recorded_differences
from bench.places import shown_name
from bench.protocols import Array, Column, Metric
from bench.report.names import category_name, counted, named_score, score_name
from bench.statistics import TIE, Difference, holm, paired
from bench.terminal import visible
from bench.verdict import POWER, Finding, Sides, Verdict, decide

WIDTH = 120

ALL_SCORES = "all"

ALIKE = 1e-6
"""Statistics of an instance closer than this share are equal: the last digits of an encoder's numbers depend on which
texts stood beside it in a batch. The gate takes them for equal, too."""


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
    """`adjusted` is Holm's p over all lines of a comparison, by itself: the verdict has tests of its own."""

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
    """What `compare` finds. The verdict is over all instances, `lines` are by category; `others` are the scores that
    both runs have and that were not asked for; `changes` are by the column `by`, the largest first."""

    name_a: str
    name_b: str
    settings: Sequence[str]
    instances: Mapping[str, int]
    same_texts: int
    """Instances for which both wrote the same."""
    verdict: Verdict
    lines: Sequence[Line]
    others: Sequence[str]
    notes: Sequence[str]
    by: Column
    changes: Sequence[Change]

    def __str__(self) -> str:
        return render(self)

    @property
    def data(self) -> dict[str, Any]:
        """All of it as what JSON can hold: `bench compare --json`, described in docs/comparing.md."""
        return _data(self)


def differences(run_a: FinishedRun, run_b: FinishedRun, flips: int = 10_000) -> list[Pair]:
    """B minus A in each category, on the instances that both runs have, under the metrics that both are scored with by
    the same signature; see `paired`. A metric that gives no score for these instances of a category is left out."""
    return _Pairing(run_a, run_b).differences(flips)


def compare(
    run_a: FinishedRun, run_b: FinishedRun, changed: int = 5, by: str | None = None, scores: str | None = None
) -> Comparison:
    """Two runs on their common instances: a verdict, each score by category, and the `changed` instances that changed
    most.

    `scores` are names or heads of columns with commas between them, or "all"; by default those of
    `FinishedRun.deciding`. The change is that of the column `by` on one instance alone; by default the first that is a
    mean over instances. Raises `ConfigError` for runs that cannot be compared: of other data or another split, scored
    with another signature, or without an instance or a metric in common, or without a score that was asked for; also
    for a negative `changed`.
    """
    if changed < 0:
        raise ConfigError(f"{changed} changed instances were asked for; ask for 0 or more")
    _check_alike(run_a, run_b)
    pairing = _Pairing(run_a, run_b)
    pairing.check()
    names = _asked(pairing, scores)
    verdict = pairing.verdict(names)
    places = list(pairing.categories)
    found = sorted(
        pairing.differences(names=names),
        key=lambda pair: (places.index(pair.category), names.index(pair.column.name)),
    )
    # What no text can change is no test: p is 1 whatever the methods are.
    adjusted = iter(holm([pair.difference.p for pair in found if pair.difference.tested]))
    lines = [Line(**vars(pair), adjusted=next(adjusted) if pair.difference.tested else 1.0) for pair in found]
    chosen = _changed_by(pairing, by, names)
    return Comparison(
        name_a=run_a.name,
        name_b=run_b.name,
        settings=_settings(run_a, run_b),
        instances={category: len(at_a) for category, (at_a, _) in pairing.categories.items()},
        same_texts=pairing.same_texts,
        verdict=verdict,
        lines=lines,
        others=[name for name in pairing.columns if name not in names],
        notes=pairing.notes(names),
        by=chosen,
        changes=_changes(pairing, chosen.name, changed),
    )


def _asked(pairing: _Pairing, scores: str | None) -> list[str]:
    """The names of the columns to compare. Raises `ConfigError`."""
    columns = pairing.columns
    if scores == ALL_SCORES:
        return list(columns)
    if scores is not None:
        return list(dict.fromkeys(pairing.column_named(name.strip()) for name in scores.split(",")))
    directed = [name for name, (_, column) in columns.items() if column.better]
    return [name for name in pairing.run_a.deciding if name in columns] or directed or list(columns)


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

    def rows(self, metric: str, at_a: Sequence[int], at_b: Sequence[int]) -> tuple[Array, Array]:
        """A metric's statistics in both runs, each of shape (n, s)."""
        rows_a, rows_b = self.run_a.rows(metric)[at_a], self.run_b.rows(metric)[at_b]
        return rows_a, np.where(np.isclose(rows_a, rows_b, rtol=ALIKE, atol=0), rows_a, rows_b)

    def column_named(self, text: str) -> str:
        """The name of the column that a text names by its name or its head. Raises `ConfigError` for one that is not
        compared."""
        heads = {name: column.head for name, (_, column) in self.columns.items()}
        name = named_score(text, heads)
        if name not in heads:
            near = registry.near_match(text, [*heads, *heads.values()])
            known = ", ".join(score_name(name, head) for name, head in heads.items())
            raise ConfigError(f"'{text}' is not a score that both runs have{near} They have: {known}")
        return name

    @property
    def same_texts(self) -> int:
        """How many instances both wrote the same for."""
        sides = [pair for at_a, at_b in self.categories.values() for pair in zip(at_a, at_b, strict=True)]
        return sum(self.run_a.predictions[a].prediction == self.run_b.predictions[b].prediction for a, b in sides)

    def verdict(self, names: Collection[str]) -> Verdict:
        """On the instances of all categories as one sample; a user of several categories is one user. Raises
        `ConfigError` where no metric of these columns gives a score."""
        all_a, all_b = ([index for pair in self.categories.values() for index in pair[side]] for side in (0, 1))
        sides = []
        for name, metric in self.metrics.items():
            columns = [column for column in metric.columns if column.name in names]
            rows_a, rows_b = self.rows(name, all_a, all_b)
            if columns and _has_scores(metric, rows_a) and _has_scores(metric, rows_b):
                sides.append(Sides(columns, metric.aggregate, rows_a, rows_b))
        if not sides:
            raise ConfigError(f"{', '.join(names)}: no score of these instances; ask for others, e.g. --scores all")
        verdict = decide(sides, [self.run_a.predictions[index].user for index in all_a])
        order = list(names)
        return replace(verdict, findings=sorted(verdict.findings, key=lambda one: order.index(one.column.name)))

    def differences(self, flips: int = 10_000, names: Collection[str] | None = None) -> list[Pair]:
        """See the function of this name; `names`: of these columns alone."""
        found = []
        for category, (at_a, at_b) in self.categories.items():
            users = [self.run_a.predictions[index].user for index in at_a]
            for name, metric in self.metrics.items():
                columns = [column for column in metric.columns if names is None or column.name in names]
                if not columns or not self._gives_scores(name, category):
                    continue
                rows_a, rows_b = self.rows(name, at_a, at_b)
                changes = paired(metric.aggregate, rows_a, rows_b, users, flips=flips)
                for column in columns:
                    a, b = (_score(metric, column.name, rows) for rows in (rows_a, rows_b))
                    found.append(Pair(category, column, a, b, changes[column.name]))
        return found

    def _gives_scores(self, metric: str, category: str) -> bool:
        sides = zip((self.run_a, self.run_b), self.categories[category], strict=True)
        return all(_has_scores(run.metrics[metric], run.rows(metric)[at]) for run, at in sides)

    def notes(self, names: Collection[str]) -> list[str]:
        """What takes no part in the comparison, and which scores of `names` are not those of the tables."""
        notes = [older for older in dict.fromkeys((self.run_a.older, self.run_b.older)) if older]
        for run, only in zip((self.run_a, self.run_b), self.only, strict=True):
            if only:
                counts = ", ".join(f"{category_name(category)} {count}" for category, count in only.items())
                notes.append(f"Left out: {only.total()} instances that only {run.name} has ({counts}).")
        for run in (self.run_a, self.run_b):
            lone = [name for name in run.columns if name not in self.columns]
            if lone:
                notes.append(f"Left out: {', '.join(lone)}, which only {run.name} is scored with.")
        for metric_name in dict.fromkeys(self.columns[name][0] for name in names):
            without = [category for category in self.categories if not self._gives_scores(metric_name, category)]
            if without:
                where = ", ".join(map(category_name, without))
                notes.append(f"Left out: {metric_name} in {where}, where it gives no score.")
        for name in names:
            metric_name, column = self.columns[name]
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
        # With weights a metric does not resample by itself.
        metric.aggregate(rows, np.ones((1, len(rows))))
    except DataError:
        # E.g. texts that the judge gave no score.
        return False
    return True


def _score(metric: Metric, name: str, rows: Array) -> float:
    return float(metric.aggregate(rows, np.ones((1, len(rows))))[name][0])


def _changed_by(pairing: _Pairing, by: str | None, names: Sequence[str]) -> Column:
    if by is None:
        # Statistics that carry a score's name are that score of one instance.
        means = [name for name in names if name in pairing.metrics[pairing.columns[name][0]].statistics]
        by = (means or names)[0]
    return pairing.columns[pairing.column_named(by)][1]


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

VERSION = "version of "


def _settings(run_a: FinishedRun, run_b: FinishedRun) -> list[str]:
    """What differs between two runs, e.g. "k 3 -> 8", "only B has temperature 0.8", "other prompts"."""
    a, b = _named(run_a, run_b), _named(run_b, run_a)
    changed = [name for name in a if name in b and a[name] != b[name]]
    told = [f"{name} {_value(a[name])} -> {_value(b[name])}" for name in changed]
    for which, run, named, other in (("A", run_a, a, b), ("B", run_b, b, a)):
        # The rest follows from the method, which asks a model or does not, and from the shipped configuration.
        telling = {"retriever", "k", "model", *recorded_differences(run.record).settings}
        only = [name for name in named if name not in other and (name in telling or name.startswith(VERSION))]
        if only:
            told.append(f"only {which} has {', '.join(f'{name} {_value(named[name])}' for name in only)}")
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
    if "adapter" in identity:
        named |= _trained(run, other)
    named["device"] = run.record.device
    return named | {f"{VERSION}{package}": version for package, version in run.record.versions.items()}


def _trained(run: FinishedRun, other: FinishedRun) -> dict[str, Any]:
    """What a run's adapter was trained with: what is not the default, or not as with the other run's."""
    usual = TrainConfig().model_dump(mode="json")
    own, others = (
        settings_of(one.config, [TRAINING]) if "adapter" in one.record.identity else {} for one in (run, other)
    )
    return {
        name: value
        for name, value in own.items()
        if value != usual[name.removeprefix("train.")] or value != others.get(name, value)
    }


def _value(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# ---- text


def render(comparison: Comparison) -> str:
    """Text for a terminal: the verdict first."""
    settings = "; ".join(comparison.settings) or "nothing"
    verdict = comparison.verdict
    blocks = [
        f"A: {comparison.name_a}\nB: {comparison.name_b}",
        "\n".join(map(_wrapped, _verdict(comparison))),
        _wrapped(f"From A to B: {settings}."),
        f"{_sample(comparison)}:\n{_table([*map(_finding_cells, verdict.findings)], ['shows from', 'verdict'])}",
    ]
    if len(comparison.instances) > 1:
        tests = counted(sum(line.difference.tested for line in comparison.lines), "test")
        heading = f"By category, no part of the verdict (p (Holm): adjusted for the {tests} of this table alone):"
        lines = [[category_name(line.category), *_cells(line, line.adjusted)] for line in comparison.lines]
        blocks.append(f"{_wrapped(heading)}\n{_table(lines, [], 'category')}")
    blocks.append("\n".join(map(_wrapped, _notes(comparison))))
    blocks += [_texts(comparison, change) for change in comparison.changes]
    # A notebook prints it as it is.
    return visible("\n\n".join(blocks))


def _verdict(comparison: Comparison) -> list[str]:
    count = sum(comparison.instances.values())
    if comparison.same_texts == count:
        return [f"A and B have the same texts for all {count} instances."]
    return [comparison.verdict.words(), *comparison.verdict.meaning]


def _sample(comparison: Comparison) -> str:
    """What the verdict is of."""
    if len(comparison.instances) == 1:
        return category_name(*comparison.instances)
    return f"All {len(comparison.instances)} categories as one sample"


def _table(lines: Sequence[Sequence[str]], more: Sequence[str], *first: str) -> str:
    heads = [*first, "score", "A", "B", "B - A", "95% interval", "p", "p (Holm)", *more]
    align = [*["left"] * (len(first) + 1), *["right"] * 6, *["left"] * len(more)]
    return tabulate(lines, headers=heads, disable_numparse=True, colalign=align)


def _finding_cells(finding: Finding) -> list[str]:
    return [*_cells(finding, finding.adjusted), finding.shows_from, finding.outcome]


def _cells(line: Pair | Finding, adjusted: float) -> list[str]:
    shown, difference = line.column, line.difference
    return [
        f"{shown.head} {shown.arrow}" if shown.better == "lower" else shown.head,
        *(f"{score:.{shown.decimals}f}" for score in (line.a, line.b)),
        f"{difference.value:+.{shown.decimals}f}",
        f"[{difference.low:+.{shown.decimals}f}, {difference.high:+.{shown.decimals}f}]",
        f"{difference.p:.4f}",
        f"{adjusted:.4f}",
    ]


def _notes(comparison: Comparison) -> list[str]:
    counts = ", ".join(f"{category_name(category)} {count}" for category, count in comparison.instances.items())
    same = f", for {comparison.same_texts} of which both wrote the same" if comparison.same_texts else ""
    notes = [
        f"Paired on {sum(comparison.instances.values())} instances ({counts}) of {comparison.verdict.users} users"
        f"{same}. Intervals: bootstrap over users, each score by itself; p: sign-flip test over users.",
        *comparison.notes,
    ]
    if comparison.others:
        notes.append(f"Not compared: {', '.join(comparison.others)} (--scores all, or their names).")
    if any(finding.column.better == "lower" for finding in comparison.verdict.findings):
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


# ---- data


def _data(comparison: Comparison) -> dict[str, Any]:
    verdict = comparison.verdict
    return {
        "a": comparison.name_a,
        "b": comparison.name_b,
        "verdict": {
            "outcome": verdict.outcome,
            "text": _verdict(comparison)[0],
            "meaning": _verdict(comparison)[1:],
            "level": verdict.level,
            "power": POWER,
            "tests": verdict.tests,
            "users": verdict.users,
        },
        "settings": list(comparison.settings),
        "instances": dict(comparison.instances),
        "same_texts": comparison.same_texts,
        "pooled": [
            {**_numbers(finding, finding.adjusted), "detectable": finding.detectable, "outcome": finding.outcome}
            for finding in verdict.findings
        ],
        "categories": [{"category": line.category, **_numbers(line, line.adjusted)} for line in comparison.lines],
        "not_compared": list(comparison.others),
        "notes": list(comparison.notes),
        "changed_by": comparison.by.name,
        "changed": [asdict(change) for change in comparison.changes],
    }


def _numbers(line: Pair | Finding, adjusted: float) -> dict[str, Any]:
    return {
        "score": line.column.name,
        "better": line.column.better,
        "a": line.a,
        "b": line.b,
        "difference": line.difference.value,
        "low": line.difference.low,
        "high": line.difference.high,
        "error": line.difference.error,
        "p": line.difference.p,
        "p_holm": adjusted,
    }
