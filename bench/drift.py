"""The gate on drift: `bench check` compares with goldens, `bench bless` is the only way a golden moves.

A golden is a complete run that is kept in git, `results/golden/NAME/`, in the form of a run's folder (`bench.store`)
but without its generations. Two questions are asked of it:

    check_goldens   do this code and these packages still give its texts the rows, scores and signatures they had?
    check_run       does another run of the same method still score as it did, as far as chance allows?

Both answer with findings, a line each; none means no drift.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.compare import differences
from bench.config import RUNTIME, RunConfig, build, fields_of
from bench.data.load import load
from bench.embedding import EmbeddingCache
from bench.errors import ConfigError, StoreError
from bench.finished import FinishedRun, finished
from bench.protocols import Array
from bench.records import Background
from bench.scoring import AnyMetric, background_of, category_scores, metric_rows, needs_background, text_hash
from bench.statistics import Difference
from bench.store import dump, read_rows, write_atomically

TOLERANCE = 1e-6
"""How far a statistic or a score may lie from its stored value, in its own unit. A count that differs differs by 1 or
more; a neural metric's float32 sums come in another order on another machine and move by less than this."""

FAMILY_LEVEL = 0.9999
"""Chance that a run which differs from its golden by chance alone gives no finding, over all its comparisons, as
Student's t has it. Scores of few users have heavier tails: of the 210 pairs of runs of the demo under 21 seeds (48
scores of 96 instances), 2 would fail at 0.999 and none does at this level."""

MINIMUM = 0.0025
"""Share of a golden's score below which a change is no drift, however certain it is."""

NAMED = 5
"""Instances that a finding names before it only counts them."""

Say = Callable[[str], None]


# -- goldens -----------------------------------------------------------------------------------------------------------


def golden_folders(folder: Path) -> list[Path]:
    """The goldens' folders, by name. Raises `StoreError` if there is none: a gate without goldens holds nothing."""
    found = _listed(folder)
    if not found:
        raise StoreError(f"there is no golden in {folder}; make one of a finished run with: bench bless RUN")
    return found


def _listed(folder: Path) -> list[Path]:
    """The goldens' folders, by name. The old one is put back where `bless` was killed before the new one stood."""
    for left in folder.glob(".*.old"):
        target = left.with_name(left.name.removeprefix(".").removesuffix(".old"))
        if not target.exists():
            try:
                left.rename(target)
            except OSError as error:
                raise StoreError(
                    f"golden {target.name} cannot be put back: {error.strerror}; rename {left} to {target}"
                ) from error
    return sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith("."))


def read_golden(folder: Path) -> FinishedRun:
    """A golden, all of whose rows are there. Raises `StoreError` for one that is torn, cut or of another schema."""
    try:
        golden = finished(folder, whole=False)
        for name in golden.summary["signatures"]:
            golden.rows(name)
        problem = _lacking(golden)
    except (StoreError, KeyError) as error:
        # What these errors advise is for runs, which can be made again.
        problem = re.split(r"[.;] ", str(error), maxsplit=1)[0]
    if problem:
        raise StoreError(
            f"golden {folder.name} is damaged: {problem}. Take it from git again (git checkout -- {folder}) or bless a "
            f"run in its place (bench bless RUN --name {folder.name})"
        )
    return golden


def _lacking(golden: FinishedRun) -> str:
    """What predictions.jsonl lacks of what the other files tell of, if anything."""
    held = {row["instance"] for row in golden.predictions}
    scored = dict.fromkeys(row["instance"] for row in read_rows(golden.folder / "scores.jsonl"))
    if lacking := [instance for instance in scored if instance not in held]:
        return f"its predictions.jsonl lacks {', '.join(lacking[:NAMED])}"
    counted = Counter(row["category"] for row in golden.predictions)
    if counted != Counter(golden.summary["instances"]):
        return f"its predictions.jsonl holds {len(held)} instances, its summary.json tells of others"
    return ""


def find_golden(run: FinishedRun, folder: Path, name: str | None = None) -> Path:
    """The golden called `name`, or else the one of the run's method, retriever and data set. Raises `ConfigError` if
    there is no such golden, or more than one, and `StoreError` if there is none at all."""
    folders = golden_folders(folder)
    known = ", ".join(path.name for path in folders)
    if name is not None:
        if folder / name not in folders:
            raise ConfigError(f"there is no golden '{name}' in {folder}; there are: {known}")
        return folder / name
    fitting = _fitting(run, folders)
    if len(fitting) == 1:
        return fitting[0]
    wanted = " ".join(_kind(run))
    if fitting:
        named = ", ".join(path.name for path in fitting)
        raise ConfigError(f"several goldens are of {wanted}: {named}; say which with --against NAME")
    raise ConfigError(
        f"no golden in {folder} is of {wanted} (there are: {known}); bless a run of it, or say --against NAME"
    )


def _fitting(run: FinishedRun, folders: Iterable[Path]) -> list[Path]:
    return [folder for folder in folders if _kind(read_golden(folder)) == _kind(run)]


def _kind(run: FinishedRun) -> tuple[str, ...]:
    """Data set, method and, if it changes texts, the retriever: what a golden is called by."""
    config, settings = run.record["config"], run.record["identity"]["settings"]
    retriever = (settings["retriever"],) if "retriever" in settings else ()
    return (Path(config["dataset"]).name, config["method"], *retriever)


# -- (1) this code and these packages ----------------------------------------------------------------------------------


def check_goldens(folder: Path, say: Say) -> list[str]:
    """Score the texts of every golden in `folder` again: a finding for each signature, each metric's rows and each
    score that is not what is stored, within `TOLERANCE`.

    Raises `StoreError` without a golden and for a damaged one, `ResourceError` if a metric cannot be computed here.
    """
    findings = []
    for path in golden_folders(folder):
        golden = read_golden(path)
        found = [f"golden {golden.name}: {finding}" for finding in _drift(golden)]
        state = f"{len(found)} findings" if found else "no drift"
        say(f"golden {golden.name}: {len(golden.predictions)} texts scored with {', '.join(golden.metrics)}: {state}")
        findings += found
    return findings


def _drift(golden: FinishedRun) -> Iterator[str]:
    for metric in golden.metrics.values():
        metric.check()
    now = {name: metric.signature() for name, metric in golden.metrics.items()}
    yield from _changed_signatures(golden.summary["signatures"], now)
    yield from _foreign_rows(golden, golden.metrics)
    for category, scores in golden.summary["scores"].items():
        for column in scores:
            if column not in golden.columns:
                yield f"{category} has a stored {column}, which no metric gives now"
    # Vectors on disk would hide that an encoder changed, and what a metric keeps is not the golden's.
    with tempfile.TemporaryDirectory() as scratch:

        @cache
        def background() -> Background:
            corpora = load(golden.config.dataset, golden.config.categories, golden.config.revision)
            return background_of(golden.predictions, corpora, EmbeddingCache(Path(scratch)).embed, Path(scratch))

        for name, metric in golden.metrics.items():
            stored, rows = golden.rows(name), metric_rows(name, metric, golden.predictions, background)
            if rows.shape != stored.shape:
                yield f"{name}: a row has {rows.shape[1]} statistics, {stored.shape[1]} are stored"
                continue
            yield from _changed_rows(golden, name, stored, rows)
            # Over the stored rows: what the rows themselves changed has been told.
            yield from _changed_scores(golden, name, stored)


def _changed_rows(golden: FinishedRun, name: str, stored: Array, rows: Array) -> Iterator[str]:
    distance = np.abs(rows - stored)
    differing = int((~(distance <= TOLERANCE)).any(axis=1).sum())
    if differing:
        row, entry = np.unravel_index(distance.argmax(), distance.shape)
        instance = golden.predictions[int(row)]["instance"]
        statistic = golden.metrics[name].statistics[int(entry)]
        yield (
            f"{name}: {differing} of {len(rows)} rows differ, most that of {instance}: "
            f"{statistic} was {stored[row, entry]:.8g}, is {rows[row, entry]:.8g}"
        )


def _changed_scores(golden: FinishedRun, name: str, rows: Array) -> Iterator[str]:
    metric = golden.metrics[name]
    for category, stored in golden.summary["scores"].items():
        now = category_scores(category, golden.predictions, {name: metric}, {name: rows}, golden.summary["resamples"])
        for column in metric.columns:
            cell, was = now.get(column), stored.get(column)
            if cell is None or was is None:
                if was is not None:
                    yield f"{name}: {category} has a stored {column}, which the metric does not give now"
                elif cell is not None:
                    yield f"{name}: {category} has no stored {column}, which the metric gives now"
            elif not all(abs(cell[part] - was[part]) <= TOLERANCE for part in cell):
                yield (
                    f"{name}: the score of the same rows changed: {category} {column} was {_with_interval(was)}, "
                    f"is {_with_interval(cell)}"
                )


def _with_interval(cell: Mapping[str, float]) -> str:
    return f"{cell['value']:.8g} [{cell['low']:.8g}, {cell['high']:.8g}]"


def _changed_signatures(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name, old in was.items():
        new = now.get(name)
        if new is None:
            yield f"{name}: there are no scores of it, only {', '.join(now) or 'none at all'}"
        elif new != old:
            yield f"{name}: the signature changed: {_difference(old, new)} (was {old}, is {new})"


def _difference(old: str, new: str) -> str:
    """The parts of two signatures that differ: "nltk:3.9 -> nltk:3.10"."""
    before, after = old.split("|"), new.split("|")
    gone = [part for part in before if part not in after]
    come = [part for part in after if part not in before]
    return f"{', '.join(gone) or 'nothing'} -> {', '.join(come) or 'nothing'}"


# -- (2) a run against its golden --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Comparison:
    """One score of a golden and its change in a run, over the instances that both have."""

    category: str
    column: str
    score: float
    change: Difference

    @property
    def relative(self) -> float:
        """The change as a share of the golden's score."""
        if self.score == 0:
            return math.copysign(math.inf, self.change.value) if self.change.value else 0.0
        return self.change.value / abs(self.score)

    @property
    def errors(self) -> float:
        """The change in standard errors."""
        if self.change.error == 0:
            return math.copysign(math.inf, self.change.value) if self.change.value else 0.0
        return self.change.value / self.change.error

    def __str__(self) -> str:
        new = self.score + self.change.value
        return (
            f"{self.category} {self.column} {self.score:.4f} -> {new:.4f} ({self.relative:+.2%}, "
            f"{self.errors:+.1f} standard errors)"
        )


def check_run(run: Path, golden: Path, say: Say, minimum: float = MINIMUM) -> list[str]:
    """Compare a complete run with a golden, both folders. Findings: instances that are missing, references
    and signatures that differ, scores stored for other texts than the run's, and each score whose change is larger
    than chance explains and than `minimum`, a share of the golden's score.

    What chance explains is an interval around the change, `errors_allowed` standard errors to each side; the standard
    error is that of a paired bootstrap over users. Metrics that the golden lacks are not compared. Raises `StoreError`
    if the run is not complete or the golden damaged, `ConfigError` for a minimum that is no share.
    """
    if not 0 <= minimum < 1:
        raise ConfigError(f"--minimum {minimum}: give a share of the score from 0 to 1, e.g. {MINIMUM} for a quarter %")
    new, old = finished(run, whole=False), read_golden(golden)
    texts = {row["instance"]: row["reference"] for row in new.predictions}
    wanted = {row["instance"]: row["reference"] for row in old.predictions}
    shared = [instance for instance in wanted if instance in texts]
    if more := len(texts) - len(shared):
        say(f"golden {old.name}: {more} instances of the run are not in it and take no part")
    findings = [
        *_named("missing in the run", [name for name in wanted if name not in texts]),
        *_named("with another reference than the golden's", [name for name in shared if texts[name] != wanted[name]]),
        *_changed_signatures(old.summary["signatures"], new.summary["signatures"]),
        *_foreign_rows(new, old.metrics),
        *_lost_scores(old.summary["scores"], new),
    ]
    comparisons = [
        _Comparison(score.category, score.column, score.a, score.difference)
        # No p is asked for, so one flip is enough.
        for score in differences(old, new, flips=1)
    ]
    if comparisons:
        allowed = errors_allowed(len(comparisons), _fewest_users(old, shared))
        say(
            f"golden {old.name}: {len(comparisons)} scores of {len(shared)} instances compared. One score alone passes "
            f"2 standard errors by chance 1 time in 20; a change counts beyond {allowed:.1f}, which all together "
            f"should pass by chance 1 time in {1 / (1 - FAMILY_LEVEL):,.0f}, and beyond {minimum:.2%} of the score"
        )
        say(f"farthest from chance: {max(comparisons, key=lambda comparison: abs(comparison.errors))}")
        findings += [
            f"{comparison}: more than chance explains ({allowed:.1f} standard errors)"
            for comparison in comparisons
            if abs(comparison.errors) > allowed and abs(comparison.relative) > minimum
        ]
    return [f"against golden {old.name}: {finding}" for finding in findings]


def errors_allowed(comparisons: int, users: int) -> float:
    """How many standard errors a change may be large. A run is compared in every score of every category, and one
    beyond its interval is enough to fail; so the interval of each holds at 1 - (1 - FAMILY_LEVEL) / comparisons
    (Bonferroni). Student's t with users - 1 degrees of freedom, since the standard error comes from so few users; not
    a percentile interval, as 1000 resamples do not reach so far out. Infinite for a single user."""
    from scipy.special import stdtrit

    if users < 2:
        return math.inf
    return float(stdtrit(users - 1, 1 - (1 - FAMILY_LEVEL) / comparisons / 2))


def _lost_scores(stored: Mapping[str, Mapping[str, Any]], run: FinishedRun) -> Iterator[str]:
    """Scores that a run lacks though it is scored with their metrics: they give none for its texts."""
    for category, scores in run.summary["scores"].items():
        for column in stored.get(category, {}):
            if column in run.columns and column not in scores:
                yield f"{run.columns[column]}: {category} has no {column}, which the golden has"


def _fewest_users(golden: FinishedRun, shared: Sequence[str]) -> int:
    """The users of the category that has the fewest."""
    chosen = set(shared)
    users: dict[str, set[str]] = {}
    for row in golden.predictions:
        if row["instance"] in chosen:
            users.setdefault(row["category"], set()).add(row["user"])
    return min(map(len, users.values()))


def _foreign_rows(run: FinishedRun, metrics: Mapping[str, AnyMetric]) -> Iterator[str]:
    """Whether scores.jsonl was made from the run's texts, as each row's hash of them tells. The hash of a metric with a
    background is of more than texts; those rows are left out."""
    plain = {
        name: run.summary["signatures"].get(name) for name, metric in metrics.items() if not needs_background(metric)
    }
    texts = {row["instance"]: text_hash(row) for row in run.predictions}
    foreign = {
        row["instance"]: None
        for row in read_rows(run.folder / "scores.jsonl")
        if row["signature"] == plain.get(row["metric"], "") and row["texts"] != texts.get(row["instance"], row["texts"])
    }
    yield from _named("whose stored scores were not made from the texts in predictions.jsonl", list(foreign))


def _named(what: str, instances: Sequence[str]) -> Iterator[str]:
    if instances:
        more = f" and {len(instances) - NAMED} more" if len(instances) > NAMED else ""
        yield f"instances {what}: {', '.join(instances[:NAMED])}{more}"


# -- moving a golden ---------------------------------------------------------------------------------------------------


def bless(run: Path, folder: Path, name: str | None = None) -> list[str]:
    """Make a complete run, a folder, the golden `folder`/`name` in the place of the one that may be there, and say in
    lines what that changes.

    Without a name it takes the place of the golden of its data set, method and retriever, or is called by them. What
    tells of the machine is left out. Raises `StoreError` for a run that is not complete, whose scores are not of its
    texts or of other versions than are installed, and `ConfigError` for a name that cannot be used, for one that is
    wanted, and for a metric that needs a file at a place where other machines do not have it.
    """
    new = finished(run)
    known = _listed(folder)
    _check_portable(new)
    _check_scores(new)
    target = folder / (name if name is not None else _usual_name(new, known))
    if not re.fullmatch(r"\w[\w.-]*", target.name) or target.parent != folder:
        raise ConfigError(f"--name {name}: use letters, digits, '.', '_' and '-' alone, e.g. demo-rag")
    with suppress(StoreError):
        # A damaged golden tells no kind: any run may take its place.
        if target in known and (old := _kind(read_golden(target))) != (own := _kind(new)):
            raise ConfigError(
                f"golden {target.name} is of {' '.join(old)}, the run of {' '.join(own)}; give another --name, or "
                "delete it first"
            )
    lines = _moved(new, target)
    wanted = {row["instance"] for row in new.predictions}
    scores = [
        row
        for row in read_rows(run / "scores.jsonl")
        if row["signature"] == new.summary["signatures"].get(row["metric"]) and row["instance"] in wanted
    ]
    _replace(
        target,
        {
            "run.json": dump(_without_machine(new)),
            "predictions.jsonl": _as_lines(new.predictions),
            "scores.jsonl": _as_lines(scores),
            "summary.json": dump(_cleaned_options(new.summary)),
        },
    )
    return lines


def _usual_name(run: FinishedRun, known: Sequence[Path]) -> str:
    fitting = _fitting(run, known)
    if len(fitting) > 1:
        named = ", ".join(path.name for path in fitting)
        raise ConfigError(f"several goldens are of {' '.join(_kind(run))}: {named}; say which with --name NAME")
    return fitting[0].name if fitting else re.sub(r"[^\w.-]", "_", "-".join(_kind(run)))


def _check_scores(run: FinishedRun) -> None:
    if not run.metrics:
        raise StoreError(f"{run.folder} cannot be blessed: it is not scored. Run its command again with some metrics")
    for name in run.summary["signatures"]:
        run.rows(name)
    if foreign := next(_foreign_rows(run, run.metrics), None):
        raise StoreError(f"{run.folder} cannot be blessed: {foreign}. Run its command again to score it")
    now = {name: metric.signature() for name, metric in run.metrics.items()}
    if changed := next(_changed_signatures(run.summary["signatures"], now), None):
        raise StoreError(f"{run.folder} cannot be blessed: {changed}. Run its command again to score it")


def _check_portable(run: FinishedRun) -> None:
    dataset = run.config.dataset
    reading = [name for name, metric in run.metrics.items() if needs_background(metric)]
    if reading and _is_path(dataset):
        raise ConfigError(
            f"{run.folder} cannot be blessed: {', '.join(reading)} must read the data again to be checked, and the "
            f"data set {dataset} is on this machine alone; take the demo or a hub id, or leave {', '.join(reading)} "
            "out of the metrics and run again"
        )
    for name in run.metrics:
        for option, value in run.metric_options.get(name, {}).items():
            if isinstance(value, str) and _is_path(value):
                raise ConfigError(
                    f"{run.folder} cannot be blessed: {name}.{option} is {value}, a place on this machine alone; give "
                    "a hub id, python:PACKAGE/folder or a path from the repository's root and run again"
                )


def _moved(new: FinishedRun, target: Path) -> list[str]:
    """What changes when a run takes a golden's place."""
    about = f"{len(new.predictions)} instances, {', '.join(new.metrics)}; {new.name}"
    if not target.exists():
        return [f"golden {target.name} is new: {about}"]
    try:
        old = read_golden(target)
    except StoreError as error:
        return [f"golden {target.name} is replaced: {about}", f"the old one could not be compared: {error}"]
    lines = list(_changed_signatures(old.summary["signatures"], new.summary["signatures"]))
    lines += [f"{name}: new, {new.summary['signatures'][name]}" for name in new.metrics if name not in old.metrics]
    was = {row["instance"]: row["prediction"] for row in old.predictions}
    texts = {row["instance"]: row["prediction"] for row in new.predictions}
    lines += _named("that leave", [name for name in was if name not in texts])
    lines += _named("that are new", [name for name in texts if name not in was])
    lines += _named("with another text", [name for name in texts if was.get(name, texts[name]) != texts[name]])
    for category, scores in new.summary["scores"].items():
        before = old.summary["scores"].get(category, {})
        for column, cell in scores.items():
            value = before.get(column, {}).get("value")
            if value is None:
                lines.append(f"{category} {column}: new, {cell['value']:.4f}")
            elif abs(cell["value"] - value) > TOLERANCE:
                lines.append(f"{category} {column}: {value:.4f} -> {cell['value']:.4f}")
    return [f"golden {target.name} is replaced: {about}", *(lines or ["nothing in it changes"])]


def _without_machine(run: FinishedRun) -> dict[str, Any]:
    """A run's record without what tells of the machine: settings that change no text are the default's, a path is
    its last part, an address is left out."""
    config = run.config.model_dump(mode="json")
    default = build({"method": run.config.method}).model_dump(mode="json")
    for field, _, kind in fields_of(RunConfig):
        if kind is RUNTIME:
            *sections, leaf = field.split(".")
            to, of = config, default
            for section in sections:
                to, of = to[section], of[section]
            to[leaf] = of[leaf]
    cleaned: dict[str, Any] = _cleaned({**run.record, "config": config})
    return cleaned


def _cleaned_options(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _cleaned(value) if name == "metric_options" else value for name, value in summary.items()}


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return Path(value).name if _is_path(value) else value
    if isinstance(value, Mapping):
        return {
            key: _cleaned(entry)
            for key, entry in value.items()
            if not (isinstance(entry, str) and re.match("https?://", entry))
        }
    if isinstance(value, list):
        return [_cleaned(entry) for entry in value]
    return value


def _is_path(value: str) -> bool:
    return value.startswith(("/", "~/"))


def _as_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)


def _replace(target: Path, files: Mapping[str, str]) -> None:
    """Put a folder of these files where `target` is. It never holds a part of them; if this is killed between the two
    renames it is not there, and `_listed` puts the old one back."""
    fresh, old = (target.with_name(f".{target.name}.{state}") for state in ("new", "old"))
    try:
        for left in (fresh, old):
            if left.exists():
                shutil.rmtree(left)
        for name, content in files.items():
            write_atomically(fresh / name, content)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
        if old.exists():
            shutil.rmtree(old)
    except OSError as error:
        raise StoreError(f"golden {target} cannot be written: {error.strerror}; make room and bless again") from error
