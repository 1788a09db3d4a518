"""Goldens: complete runs that are kept in git, `results/golden/NAME/`, in the form of a run's folder (`bench.store`)
but without its generations.

`check_goldens` asks whether this code and these packages still give a golden's texts the rows, scores and signatures
that they had. It answers with findings, a line each; none means no drift. `bless` is the only way a golden moves.
Whether another run still scores as its golden did is `bench.drift`'s question.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from bench import registry
from bench.batch import Background
from bench.config import RUNTIME, RunConfig, build, fields_of
from bench.data.load import load
from bench.encoders import EmbeddingCache
from bench.errors import ConfigError, StoreError
from bench.files import as_lines, sealed_lines, write_atomically
from bench.finished import FinishedRun, finished, read_each, said
from bench.places import is_place, without_places
from bench.protocols import Array, Metric
from bench.results import RunRecord, Score, ScoreRow, Summary, rows_of
from bench.scoring import background_of, batch_of, category_scores, metric_rows, reads_data, text_hash

TOLERANCE = 1e-6
"""How far a statistic or a score may lie from its stored value, in its own unit. A count that differs differs by 1 or
more; a neural metric's float32 sums come in another order on another machine and move by less than this."""

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
        for name in golden.summary.signatures:
            golden.rows(name)
        problem = _missing(golden)
    except StoreError as error:
        # What these errors advise is for runs, which can be made again.
        problem = re.split(r"[.;] ", str(error), maxsplit=1)[0]
    if problem:
        raise StoreError(
            f"golden {folder.name} is damaged: {problem}. Take it from git again (git checkout -- {folder}) or bless a "
            f"run in its place (bench bless RUN --name {folder.name})"
        )
    return golden


def _missing(golden: FinishedRun) -> str:
    """What of the other files' instances predictions.jsonl does not hold, if anything."""
    held = {row.instance for row in golden.predictions}
    scored = dict.fromkeys(
        row.instance for row in rows_of(ScoreRow, golden.folder / "scores.jsonl", golden.record.owner)
    )
    if missing := [instance for instance in scored if instance not in held]:
        return f"its predictions.jsonl has no {', '.join(missing[:NAMED])}"
    if Counter(row.category for row in golden.predictions) != Counter(golden.summary.instances):
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
    wanted = " ".join(kind_of(run))
    if fitting:
        names = ", ".join(path.name for path in fitting)
        raise ConfigError(f"several goldens are of {wanted}: {names}; say which with --against NAME")
    raise ConfigError(
        f"no golden in {folder} is of {wanted} (there are: {known}); bless a run of it, or say --against NAME"
    )


def _fitting(run: FinishedRun, folders: Iterable[Path]) -> list[Path]:
    """The goldens of a run's kind. One that is damaged tells none: it is named and stands in no other's way."""
    kinds = read_each(lambda folder: (folder, kind_of(read_golden(folder))), folders)
    return [folder for folder, kind in said(kinds) if kind == kind_of(run)]


def kind_of(run: FinishedRun) -> tuple[str, ...]:
    """Data set, method and, if it changes texts, the retriever: what a golden is called by."""
    config = run.config
    retriever = (config.retriever,) if "retriever" in run.record.identity["settings"] else ()
    return (Path(config.dataset).name, config.method, *retriever)


# -- (1) this code and these packages ----------------------------------------------------------------------------------


def check_goldens(folder: Path, say: Say) -> list[str]:
    """Score the texts of every golden in `folder` again: a finding for each signature, each metric's rows and each
    score that is not what is stored, within `TOLERANCE`.

    Raises `StoreError` without a golden and, once all others are scored, for damaged ones, `ResourceError` if a metric
    cannot be computed here.
    """
    findings: list[str] = []
    damaged: list[StoreError] = []
    for path in golden_folders(folder):
        try:
            golden = read_golden(path)
        except StoreError as error:
            damaged.append(error)
            continue
        found = [f"golden {golden.name}: {finding}" for finding in _drift(golden)]
        state = f"{len(found)} findings" if found else "no drift"
        say(f"golden {golden.name}: {len(golden.predictions)} texts scored with {', '.join(golden.metrics)}: {state}")
        findings += found
    if damaged:
        for finding in findings:
            say(f"drift: {finding}")
        raise StoreError("; ".join(map(str, damaged)))
    return findings


def _drift(golden: FinishedRun) -> Iterator[str]:
    for metric in golden.metrics.values():
        metric.check()
    now = {name: metric.signature() for name, metric in golden.metrics.items()}
    yield from changed_signatures(golden.summary.signatures, now)
    yield from foreign_rows(golden, golden.metrics)
    for category, scores in golden.summary.scores.items():
        for column in scores:
            if column not in golden.columns:
                yield f"{category} has a stored {column}, which no metric gives now"
    # Vectors on disk would hide that an encoder changed, and what a metric keeps is not the golden's.
    with tempfile.TemporaryDirectory() as scratch:
        batch = batch_of(golden.predictions, partial(_background, golden, Path(scratch)))
        for name, metric in golden.metrics.items():
            stored, rows = golden.rows(name), metric_rows(name, metric, batch)
            if rows.shape != stored.shape:
                yield f"{name}: a row has {rows.shape[1]} statistics, {stored.shape[1]} are stored"
                continue
            yield from _changed_rows(golden, name, stored, rows)
            # Over the stored rows: what the rows themselves changed has been told.
            yield from _changed_scores(golden, name, stored)


def _background(golden: FinishedRun, scratch: Path) -> Background:
    config = golden.config
    corpora = load(config.dataset, config.categories, config.revision, config.task)
    task = registry.create("tasks", config.task, config.options.get(config.task, {}), config.fidelity)
    return background_of(golden.predictions, corpora, task, EmbeddingCache(scratch).embed, scratch)


def _changed_rows(golden: FinishedRun, name: str, stored: Array, rows: Array) -> Iterator[str]:
    distance = np.abs(rows - stored)
    differing = int((~(distance <= TOLERANCE)).any(axis=1).sum())
    if differing:
        row, entry = np.unravel_index(distance.argmax(), distance.shape)
        instance = golden.predictions[int(row)].instance
        statistic = golden.metrics[name].statistics[int(entry)]
        yield (
            f"{name}: {differing} of {len(rows)} rows differ, most that of {instance}: "
            f"{statistic} was {stored[row, entry]:.8g}, is {rows[row, entry]:.8g}"
        )


def _changed_scores(golden: FinishedRun, name: str, rows: Array) -> Iterator[str]:
    metric = golden.metrics[name]
    for category, stored in golden.summary.scores.items():
        now = category_scores(category, golden.predictions, {name: metric}, {name: rows}, golden.resamples)
        for column in (column.name for column in metric.columns):
            score, was = now.get(column), stored.get(column)
            if score is None or was is None:
                if was is not None:
                    yield f"{name}: {category} has a stored {column}, which the metric does not give now"
                elif score is not None:
                    yield f"{name}: {category} has no stored {column}, which the metric gives now"
            elif not _equal(score, was):
                yield (
                    f"{name}: the score of the same rows changed: {category} {column} was {_with_interval(was)}, "
                    f"is {_with_interval(score)}"
                )


def _equal(score: Score, was: Score) -> bool:
    pairs = ((score.value, was.value), (score.low, was.low), (score.high, was.high))
    return all(abs(new - old) <= TOLERANCE for new, old in pairs)


def _with_interval(score: Score) -> str:
    return f"{score.value:.8g} [{score.low:.8g}, {score.high:.8g}]"


def changed_signatures(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """A finding for each metric of `was` whose signature in `now` is another or missing."""
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


def foreign_rows(run: FinishedRun, metrics: Mapping[str, Metric]) -> Iterator[str]:
    """A finding if scores.jsonl was not made from the run's texts, as each row's hash of them tells. The rows of a
    metric that reads the data are made from more than texts and are left out."""
    plain = {name: run.summary.signatures.get(name) for name, metric in metrics.items() if not reads_data(metric)}
    texts = {row.instance: text_hash(row) for row in run.predictions}
    foreign = {
        row.instance: None
        for row in rows_of(ScoreRow, run.folder / "scores.jsonl", run.record.owner)
        if row.signature == plain.get(row.metric, "") and row.texts != texts.get(row.instance, row.texts)
    }
    yield from named("whose stored scores were not made from the texts in predictions.jsonl", list(foreign))


def named(what: str, instances: Sequence[str]) -> Iterator[str]:
    """A finding about instances, if there are any; it names the first `NAMED`."""
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
        if target in known and (old := kind_of(read_golden(target))) != (own := kind_of(new)):
            raise ConfigError(
                f"golden {target.name} is of {' '.join(old)}, the run of {' '.join(own)}; give another --name, or "
                "delete it first"
            )
    lines = _moved(new, target)
    wanted = {row.instance for row in new.predictions}
    scores = [
        row.json_object()
        for row in rows_of(ScoreRow, run / "scores.jsonl", new.record.owner)
        if row.signature == new.summary.signatures.get(row.metric) and row.instance in wanted
    ]
    record = _without_machine(new)
    rows = {"predictions.jsonl": [row.json_object() for row in new.predictions], "scores.jsonl": scores}
    files = {"run.json": record.text().encode()}
    for name, content in rows.items():
        files[name] = as_lines(content).encode() if record.owner is None else sealed_lines(content, record.owner)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items() if record.owner}
    summary = _with_cleaned_options(new.summary).model_copy(update={"files": hashes})
    _replace(target, files | {"summary.json": summary.text().encode()})
    return lines


def _usual_name(run: FinishedRun, known: Sequence[Path]) -> str:
    fitting = _fitting(run, known)
    if len(fitting) > 1:
        names = ", ".join(path.name for path in fitting)
        raise ConfigError(f"several goldens are of {' '.join(kind_of(run))}: {names}; say which with --name NAME")
    return fitting[0].name if fitting else re.sub(r"[^\w.-]", "_", "-".join(kind_of(run)))


def _check_scores(run: FinishedRun) -> None:
    if not run.metrics:
        raise StoreError(f"{run.folder} cannot be blessed: it is not scored. Run its command again with some metrics")
    for name in run.summary.signatures:
        run.rows(name)
    if foreign := next(foreign_rows(run, run.metrics), None):
        raise StoreError(f"{run.folder} cannot be blessed: {foreign}. Run its command again to score it")
    now = {name: metric.signature() for name, metric in run.metrics.items()}
    if changed := next(changed_signatures(run.summary.signatures, now), None):
        raise StoreError(f"{run.folder} cannot be blessed: {changed}. Run its command again to score it")


def _check_portable(run: FinishedRun) -> None:
    dataset = run.config.dataset
    reading = [name for name, metric in run.metrics.items() if reads_data(metric)]
    if reading and is_place(dataset):
        raise ConfigError(
            f"{run.folder} cannot be blessed: {', '.join(reading)} must read the data again to be checked, and the "
            f"data set {dataset} is on this machine alone; take the demo or a hub id, or leave {', '.join(reading)} "
            "out of the metrics and run again"
        )
    for name in run.metrics:
        for option, value in run.metric_options.get(name, {}).items():
            if isinstance(value, str) and is_place(value):
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
    lines = list(changed_signatures(old.summary.signatures, new.summary.signatures))
    lines += [f"{name}: new, {new.summary.signatures[name]}" for name in new.metrics if name not in old.metrics]
    was = {row.instance: row.prediction for row in old.predictions}
    texts = {row.instance: row.prediction for row in new.predictions}
    lines += named("that leave", [name for name in was if name not in texts])
    lines += named("that are new", [name for name in texts if name not in was])
    lines += named("with another text", [name for name in texts if was.get(name, texts[name]) != texts[name]])
    for category, scores in new.summary.scores.items():
        before = old.summary.scores.get(category, {})
        for column, score in scores.items():
            if column not in before:
                lines.append(f"{category} {column}: new, {score.value:.4f}")
            elif abs(score.value - before[column].value) > TOLERANCE:
                lines.append(f"{category} {column}: {before[column].value:.4f} -> {score.value:.4f}")
    return [f"golden {target.name} is replaced: {about}", *(lines or ["nothing in it changes"])]


def _without_machine(run: FinishedRun) -> RunRecord:
    """A run's record without what tells of the machine: settings that change no text are the default's, a path is
    its last part, an address is left out."""
    config = run.config.model_dump(mode="json")
    default = build({"task": run.config.task, "method": run.config.method}).model_dump(mode="json")
    for field, _, kind in fields_of(RunConfig):
        if kind is RUNTIME:
            *sections, leaf = field.split(".")
            to, of = config, default
            for section in sections:
                to, of = to[section], of[section]
            to[leaf] = of[leaf]
    for name in registry.names("backends"):
        if (section := config["options"].get(name)) is not None:
            fields = fields_of(registry.load("backends", name).settings)
            runtime = {field for field, _, kind in fields if kind is RUNTIME}
            config["options"][name] = {key: value for key, value in section.items() if key not in runtime}
    return RunRecord.model_validate(without_places({**run.record.json_object(), "config": config}))


def _with_cleaned_options(summary: Summary) -> Summary:
    return summary.model_copy(update={"metric_options": without_places(summary.metric_options)})


def _replace(target: Path, files: Mapping[str, bytes]) -> None:
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
