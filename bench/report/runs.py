"""What `bench list runs` and `bench show` print: read from the run folders, nothing is computed again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from bench.errors import BenchError, ConfigError
from bench.finished import FinishedRun, Readable, config_of, find_run, finished, read_each, read_record, run_folders
from bench.report.names import counted, plural, score_name
from bench.results import SCHEMA, Generation, RunRecord, Score, Summary, rows_of
from bench.shards import shards_in

if TYPE_CHECKING:
    from bench.naming import Differences
    from bench.records import Instance
    from bench.report.weighed import WeighedTexts
    from bench.resolved import Run
    from bench.work import Work

MINUTES = len("2026-01-31T12:00")
LONGEST, SHOWN_DIGITS = 40, 10
"""Letters of a fingerprint that is shown whole, and of a longer one those that are."""
HEADS = ["run", "state", "instances", "metrics", "created", "settings"]
BESIDE = 3
"""Categories that stand side by side."""
MOST_NAMES = 2
"""Of more metrics than these the list tells how many they are."""


def _completions(folder: Path, record: RunRecord) -> int:
    """How many completions a run has, those of its shards among them."""
    places = (folder, *(shard.folder(folder) for shard in shards_in(folder)))
    rows = (row for place in places for row in rows_of(Generation, place / "generations.jsonl", record.owner))
    return len({(row.instance, row.stage, row.index) for row in rows})


@dataclass(frozen=True)
class Listed:
    """A run in the list. `content` tells runs apart that have the same settings; empty for all others."""

    name: str
    record: RunRecord
    complete: bool
    instances: int | None
    completions: int
    metrics: Sequence[str]
    """Those that it is scored with; none of a run that is not complete."""
    differences: Differences
    content: str = ""

    @property
    def line(self) -> list[object]:
        """Its row."""
        schema = self.record.schema_version
        state = "complete" if self.complete else f"unfinished, {counted(self.completions, 'completion')}"
        state += f" (schema {schema})" if schema != SCHEMA else ""
        settings = "; ".join(filter(None, [str(self.differences), self.content]))
        instances = "" if self.instances is None else self.instances
        metrics = ", ".join(self.metrics) if len(self.metrics) <= MOST_NAMES else str(len(self.metrics))
        created = self.record.created[:MINUTES].replace("T", " ")
        return [self.name, state, instances, metrics, created, settings]

    @property
    def json_object(self) -> dict[str, object]:
        """The same as an object, with all settings and options."""
        return {
            "run": self.name,
            "complete": self.complete,
            "schema": self.record.schema_version,
            "instances": self.instances,
            "completions": self.completions,
            "metrics": list(self.metrics),
            "created": self.record.created,
            "configuration": self.differences.base or None,
            "differs": dict(self.differences.all),
            "told_by": self.content or None,
            "settings": all_settings(self.record),
        }


def listed(results: Path) -> Readable[Listed]:
    """The runs in a folder of results, complete or not, by name."""
    readable = read_each(_listed, run_folders(results))
    if not readable.found:
        return readable
    from bench.naming import told_by_content

    alike: dict[tuple[str, str], list[Listed]] = {}
    for run in readable.found:
        alike.setdefault((run.name.rpartition("-")[0], str(run.differences)), []).append(run)
    content: dict[str, str] = {}
    for runs in alike.values():
        told = told_by_content([run.record.identity for run in runs])
        content |= {run.name: text for run, text in zip(runs, told, strict=True)}
    return Readable([replace(run, content=content[run.name]) for run in readable.found], readable.left_out)


def _listed(folder: Path) -> Listed:
    from bench.naming import recorded_differences

    record = read_record(folder)
    completions, summary = _completions(folder, record), _summary(folder)
    instances = None if summary is None else sum(summary.instances.values())
    metrics = () if summary is None else tuple(summary.signatures)
    return Listed(
        folder.name, record, summary is not None, instances, completions, metrics, recorded_differences(record)
    )


def list_runs(results: str) -> str:
    """A line a run: name, state, instances, metrics, when it was begun (UTC), and in what it differs from the shipped
    configuration that it goes back to. Runs that cannot be read are named below, and it is said which are of an older
    schema."""
    readable = listed(Path(results))
    left_out = [f"left out: {name}: {reason}" for name, reason in readable.left_out.items()]
    if not readable.found and not left_out:
        return f"no runs in {Path(results) / 'runs'}; make one with: bench run --method rag"
    lines = [tabulate([run.line for run in readable.found], headers=HEADS)] if readable.found else []
    older = [str(schema) for run in readable.found if (schema := run.record.schema_version) != SCHEMA]
    if older:
        schemas = ", ".join(sorted(set(older)))
        lines.append(
            f"{len(older)} of an older schema ({schemas}; this version writes {SCHEMA}): they can be shown, compared "
            "and reported, and are not gone on with"
        )
    return "\n".join([*lines, *left_out])


def runs_object(results: str) -> dict[str, object]:
    """The same as an object: `runs` and, by name, why others are `left_out`."""
    readable = listed(Path(results))
    return {"runs": [run.json_object for run in readable.found], "left_out": readable.left_out}


def _summary(folder: Path) -> Summary | None:
    path = folder / "summary.json"
    return finished(folder).summary if path.exists() else None


def all_settings(record: RunRecord) -> dict[str, object]:
    """Everything that can change a text of a run, by dotted name: its settings, those of its adapter's training and the
    options of its plugins."""
    identity, config = record.identity, record.config
    found = dict(identity["settings"])
    if "adapter" in identity:
        found |= {f"train.{name}": value for name, value in config.get("train", {}).items()}
    for name in ("task", "method", "retriever"):
        options = identity.get(f"{name}_options", {})
        found |= {f"{identity['settings'].get(name)}.{option}": value for option, value in options.items()}
    return found


def _content(identity: Mapping[str, Any]) -> dict[str, str]:
    """Digits of the content of what has no value that reads well, by its name: data, code, templates, models."""
    known = ("settings", "schema", "task_options", "method_options", "retriever_options")
    content: dict[str, str] = {}
    for name, value in identity.items():
        parts = value if isinstance(value, Mapping) else {"": value}
        for part, text in parts.items() if name not in known else ():
            shown = text if isinstance(text, str) else json.dumps(text)
            digits = shown.removeprefix("sha256:")[:SHOWN_DIGITS]
            content[f"{name.replace('_', ' ')} {part}".strip()] = shown if len(shown) <= LONGEST else f"{digits}..."
    return content


def show_run(results: str, part: str) -> str:
    """A run's identity and scores. Raises `ConfigError` and `StoreError`."""
    from bench.naming import recorded_differences, setting_text

    folder = find_run(Path(results), part)
    record = read_record(folder)
    lines = [folder.name, f"created {record.created} on {record.device}"]
    if record.schema_version != SCHEMA:
        schema = record.schema_version
        lines.append(f"of an older schema ({schema}; this version writes {SCHEMA}): it is read and not gone on with")
    differing = recorded_differences(record)
    lines.append(f"configuration: {differing}" if str(differing) else "configuration: the defaults")
    lines += ["", *(f"{name}: {setting_text(name, value)}" for name, value in all_settings(record).items())]
    lines += ["", *(f"{name}: {text}" for name, text in _content(record.identity).items())]
    lines += _weighed_at(folder, record)
    summary = _summary(folder)
    if summary is None:
        return "\n".join([*lines, "", f"unfinished, {counted(_completions(folder, record), 'completion')} there"])
    lines += ["", scores_table(finished(folder)), ""]
    lines += [f"{name}: {signature}" for name, signature in summary.signatures.items()]
    return "\n".join(lines)


def scores_table(run: FinishedRun) -> str:
    """The scores of a run by category, with their intervals: first those that decide."""
    heads = _heads(run)
    first: list[str] = []
    # A metric or the task may not be installed here.
    with suppress(BenchError):
        first = run.deciding
    categories = list(run.summary.scores)
    names = dict.fromkeys([*first, *(name for scores in run.summary.scores.values() for name in scores)])
    blocks = []
    for begin in range(0, len(categories), BESIDE):
        shown = categories[begin : begin + BESIDE]
        rows = [
            [
                score_name(name, heads.get(name, "")),
                *(_score(run.summary.scores[category].get(name)) for category in shown),
            ]
            for name in names
        ]
        sizes = [f"{category} ({run.summary.instances[category]})" for category in shown]
        blocks.append(tabulate(rows, headers=["score [95% interval]", *sizes], disable_numparse=True))
    return "\n\n".join(blocks)


def _score(score: Score | None) -> str:
    return "" if score is None else f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]"


def _weighed_at(folder: Path, record: RunRecord) -> list[str]:
    """Where to look at the weights of the tokens that a run's adapter was trained on, if they have some."""
    if record.config.get("train", {}).get("loss", "plain") == "plain":
        return []
    from bench.report.weighed import weighed_texts

    texts = weighed_texts(_rebuilt(folder, record))
    if texts is None or not texts.instances:
        return []
    first = texts.instances[0].id
    return ["", f"weights of the tokens that it was trained on: bench show {folder.name} --instance {first}"]


def _rebuilt(folder: Path, record: RunRecord) -> Run:
    """The run of a folder, as it was asked for. Raises `ConfigError` where that cannot be done here."""
    from bench.resolved import Run

    try:
        return Run(config_of(record).model_copy(update={"results": folder.absolute().parents[1]}))
    except ConfigError as error:
        raise ConfigError(
            f"the prompts of {folder.name} cannot be made again: {error} Install the package that a plugin came from; "
            "texts and scores are in the run's predictions.jsonl and scores.jsonl"
        ) from error


def run_object(results: str, part: str) -> dict[str, object]:
    """The same as an object: that of the list, and device, content, scores by category and name, signatures and the
    counts of the summary. Raises `ConfigError` and `StoreError`."""
    folder = find_run(Path(results), part)
    run = _listed(folder)
    found = run.json_object | {"device": run.record.device, "content": _content(run.record.identity)}
    summary = _summary(folder)
    if summary is None:
        return found | {"scores": None}
    kept = summary.json_object()
    left = ("schema", "name", "instances", "files")
    return (
        found | {name: value for name, value in kept.items() if name not in left} | {"heads": _heads(finished(folder))}
    )


def _heads(run: FinishedRun) -> dict[str, str]:
    """What tables call a run's scores, by the names that these have in files; none of a metric that is missing."""
    try:
        return {name: column.head for name, (_, column) in run.columns.items()}
    except BenchError:
        return {}


def instance_object(results: str, part: str, instance_part: str) -> dict[str, object]:
    """One instance of a run as an object; see `show_instance`. Raises `ConfigError` and `StoreError`."""
    folder, run = _run_of(results, part)
    if (trained_on := _trained_on(run, instance_part)) is not None:
        texts, instance = trained_on
        return {
            "run": folder.name,
            "instance": instance.id,
            "shown": dict(texts.facts(instance)),
            "weights": [list(piece) for piece in texts.pieces(instance)],
        }
    instance, work = _replayed(folder, run, instance_part)
    scores: dict[str, float | None] | None = None
    if (folder / "summary.json").exists():
        done = finished(folder)
        own = done.instance_scores([row.instance for row in done.predictions].index(instance.id))
        scores = {name: own.get(name) for name in done.columns}
    return {
        "run": folder.name,
        "instance": instance.id,
        "user": instance.user_id,
        "group": instance.group,
        "shown": dict(run.task.shown(instance)),
        "profile": [{"shown": dict(run.task.shown_record(one)), "text": one.text} for one in instance.profile],
        "calls": [
            {
                "stage": prompt.stage,
                "system": prompt.system,
                "user": prompt.user,
                "answer": completion.text,
                "finish_reason": completion.finish_reason,
                "completion_tokens": completion.completion_tokens,
            }
            for prompt, completion in work.exchanged
        ],
        "prediction": work.prediction,
        "reference": run.corpora[instance.category].reference(instance),
        "scores": scores,
    }


def show_instance(results: str, part: str, instance_part: str) -> str:
    """One instance of a run: profile, prompts, answers, prediction, reference and scores. The prompts are rendered
    anew and matched with the stored answers by their hash. Raises `ConfigError` and `StoreError`."""
    folder, run = _run_of(results, part)
    if (trained_on := _trained_on(run, instance_part)) is not None:
        from bench.report.heat import terminal

        texts, instance = trained_on
        lines = [instance.id, *(f"{label}: {value}" for label, value in texts.facts(instance).items() if value)]
        return "\n".join([*lines, "\n=== trained on, with the weights of its tokens", terminal(texts.pieces(instance))])
    instance, work = _replayed(folder, run, instance_part)
    lines = [instance.id, *(f"{label}: {value}" for label, value in run.task.shown(instance).items() if value)]
    lines += [f"Group: {instance.group}"] if instance.group is not None else []
    order = ", the newest last" if run.task.timed else ""
    lines.append(f"\n=== profile: {len(instance.profile)} {plural(run.task.target)}{order}")
    for record in instance.profile:
        lines.append(f"- {_facts(run.task.shown_record(record))}{record.text}")
    for prompt, completion in work.exchanged:
        lines += [f"\n=== prompt of {prompt.stage} ({prompt.blocks_shown} of {prompt.blocks_offered} blocks)"]
        lines += [f"--- system\n{prompt.system}", f"--- user\n{prompt.user}"]
        lines += [f"--- answer ({completion.completion_tokens} tokens, {completion.finish_reason})\n{completion.text}"]
    missing = "(not generated yet, or by another version of the prompts)"
    lines += [f"\n=== prediction\n{missing if work.prediction is None else work.prediction}"]
    reference = run.corpora[instance.category].reference(instance)
    lines += [f"\n=== reference\n{reference}", "\n=== scores", *_scores(folder, instance.id)]
    return "\n".join(lines)


def _run_of(results: str, part: str) -> tuple[Path, Run]:
    """The folder that a part of a name names, and its run."""
    folder = find_run(Path(results), part)
    return folder, _rebuilt(folder, read_record(folder))


def _named(ids: Iterable[str], part: str) -> list[str]:
    """The ids that a part may mean: the one that it is, else all that it is in."""
    known = list(ids)
    return [name for name in known if name == part] or [name for name in known if part in name]


def _trained_on(run: Run, instance_part: str) -> tuple[WeighedTexts, Instance] | None:
    """The weighted text of the one training instance that a part of an id names, where it names none of the run's
    own."""
    from bench.report.weighed import weighed_texts

    if run.config.train.loss == "plain" or _named(run.by_id, instance_part):
        return None
    texts = weighed_texts(run)
    by_id = {} if texts is None else {instance.id: instance for instance in texts.instances}
    found = _named(by_id, instance_part)
    return None if texts is None or len(found) != 1 else (texts, by_id[found[0]])


def _replayed(folder: Path, run: Run, instance_part: str) -> tuple[Instance, Work]:
    """The one instance of a run that a part of an id names, and what was exchanged of it."""
    from bench.loop import replay
    from bench.store import read_generations

    found = _named(run.by_id, instance_part)
    if len(found) != 1:
        some = ", ".join(found[:5]) if found else f"the first are {', '.join(list(run.by_id)[:3])}"
        raise ConfigError(f"'{instance_part}' names {len(found) or 'no'} instances of {folder.name}: {some}")
    instance = run.by_id[found[0]]
    return instance, replay(run, instance, read_generations(folder, {instance.id}, read_record(folder).owner))


def _facts(facts: Mapping[str, str]) -> str:
    """Facts in front of a text."""
    return "; ".join(f"{label}: {value}" for label, value in facts.items() if value) + "\n  " if facts else ""


def _scores(folder: Path, instance: str) -> list[str]:
    """The instance's own scores: each metric's aggregate over its row alone."""
    if not (folder / "summary.json").exists():
        return ["(not scored yet)"]
    run = finished(folder)
    scores = run.instance_scores([row.instance for row in run.predictions].index(instance))
    names = {name: score_name(name, column.head) for name, (_, column) in run.columns.items()}
    return [
        f"{shown}: {scores[name]:.4f}" if name in scores else f"{shown}: none for this instance"
        for name, shown in names.items()
    ]
