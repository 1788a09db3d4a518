"""What `bench list runs` and `bench show` print: read from the run folders, nothing is computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from bench.errors import ConfigError
from bench.finished import config_of, find_run, finished, read_each, read_record, run_folders
from bench.records import Instance
from bench.report.heat import terminal
from bench.report.names import plural
from bench.report.weighed import WeighedTexts, weighed_texts
from bench.resolved import Run
from bench.results import SCHEMA, Generation, RunRecord, Summary, rows_of
from bench.shards import shards_in

HEADS = ["run", "state", "instances", "completions", "created"]


def _completions(folder: Path, record: RunRecord) -> int:
    """How many completions a run has, those of its shards among them."""
    places = (folder, *(shard.folder(folder) for shard in shards_in(folder)))
    rows = (row for place in places for row in rows_of(Generation, place / "generations.jsonl", record.owner))
    return len({(row.instance, row.stage, row.index) for row in rows})


def list_runs(results: str) -> str:
    """A line a run: name, state, instances, completions, when it was begun. Runs that cannot be read are named below,
    and it is said which are of an older schema."""
    readable = read_each(_line, run_folders(Path(results)))
    left_out = [f"left out: {name}: {reason}" for name, reason in readable.left_out.items()]
    if not readable.found and not left_out:
        return f"no runs in {Path(results) / 'runs'}; make one with: bench run --method rag"
    lines = [tabulate([row for row, _ in readable.found], headers=HEADS)] if readable.found else []
    older = [str(schema) for _, schema in readable.found if schema != SCHEMA]
    if older:
        schemas = ", ".join(sorted(set(older)))
        lines.append(
            f"{len(older)} of an older schema ({schemas}; this version writes {SCHEMA}): they can be shown, compared "
            "and reported, and are not gone on with"
        )
    return "\n".join([*lines, *left_out])


def _line(folder: Path) -> tuple[list[object], int]:
    """A run's row in the list, and its schema."""
    record = read_record(folder)
    completions, summary = _completions(folder, record), _summary(folder)
    schema = record.schema_version
    state = "unfinished" if summary is None else "complete"
    state += f" (schema {schema})" if schema != SCHEMA else ""
    instances = "" if summary is None else sum(summary.instances.values())
    return [folder.name, state, instances, completions, record.created], schema


def _summary(folder: Path) -> Summary | None:
    path = folder / "summary.json"
    return finished(folder).summary if path.exists() else None


def show_run(results: str, part: str) -> str:
    """A run's identity and scores. Raises `ConfigError` and `StoreError`."""
    folder = find_run(Path(results), part)
    record = read_record(folder)
    lines = [folder.name, f"created {record.created} on {record.device}"]
    if record.schema_version != SCHEMA:
        schema = record.schema_version
        lines.append(f"of an older schema ({schema}; this version writes {SCHEMA}): it is read and not gone on with")
    lines += ["", *(f"{name}: {value}" for name, value in record.identity["settings"].items())]
    lines += _adapter(folder, record)
    summary = _summary(folder)
    if summary is None:
        return "\n".join([*lines, "", f"unfinished: {_completions(folder, record)} completions are there"])
    rows = [
        [category, column, score.value, f"[{score.low:.4f}, {score.high:.4f}]"]
        for category, scores in summary.scores.items()
        for column, score in scores.items()
    ]
    lines += ["", tabulate(rows, headers=["category", "metric", "score", "95% interval"], floatfmt=".4f"), ""]
    lines += [f"{name}: {signature}" for name, signature in summary.signatures.items()]
    return "\n".join(lines)


def _adapter(folder: Path, record: RunRecord) -> list[str]:
    """Where to look at the weights of the tokens that a run's adapter was trained on, if they have some."""
    if record.config.get("train", {}).get("loss", "plain") == "plain":
        return []
    texts = weighed_texts(_rebuilt(folder, record))
    if texts is None or not texts.instances:
        return []
    first = texts.instances[0].id
    return ["", f"weights of the tokens that it was trained on: bench show {folder.name} --instance {first}"]


def _rebuilt(folder: Path, record: RunRecord) -> Run:
    """The run of a folder, as it was asked for."""
    return Run(config_of(record).model_copy(update={"results": folder.absolute().parents[1]}))


def show_instance(results: str, part: str, instance_part: str) -> str:
    """One instance of a run: profile, prompts, answers, prediction, reference and scores. The prompts are rendered
    anew and matched with the stored answers by their hash. Raises `ConfigError` and `StoreError`."""
    from bench.loop import replay
    from bench.store import read_generations

    folder = find_run(Path(results), part)
    stored = read_record(folder)
    run = _rebuilt(folder, stored)
    ids = [instance.id for instance in run.instances]
    found = _named(ids, instance_part)
    if not found and (texts := weighed_texts(run)) is not None:
        trained_on = {instance.id: instance for instance in texts.instances}
        if len(names := _named(list(trained_on), instance_part)) == 1:
            return _weighed(texts, trained_on[names[0]])
        ids, found = [*ids, *trained_on], names
    if len(found) != 1:
        some = ", ".join(found[:5]) if found else f"the first are {', '.join(ids[:3])}"
        raise ConfigError(f"'{instance_part}' names {len(found)} instances of {folder.name}: {some}")
    instance = run.by_id[found[0]]
    work = replay(run, instance, read_generations(folder, {instance.id}, stored.owner))
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


def _named(ids: Sequence[str], part: str) -> list[str]:
    """The ids that a part may mean: the one that it is, else all that it is in."""
    return [name for name in ids if name == part] or [name for name in ids if part in name]


def _weighed(texts: WeighedTexts, instance: Instance) -> str:
    """A text that an adapter was trained on, with the weights of its tokens."""
    facts = [f"{label}: {value}" for label, value in texts.facts(instance).items()]
    return "\n".join(
        [instance.id, *facts, "\n=== trained on, with the weights of its tokens", terminal(texts.pieces(instance))]
    )


def _facts(facts: Mapping[str, str]) -> str:
    """Facts in front of a text."""
    return "; ".join(f"{label}: {value}" for label, value in facts.items() if value) + "\n  " if facts else ""


def _scores(folder: Path, instance: str) -> list[str]:
    """The instance's own scores: each metric's aggregate over its row alone."""
    if not (folder / "summary.json").exists():
        return ["(not scored yet)"]
    run = finished(folder)
    scores = run.instance_scores([row.instance for row in run.predictions].index(instance))
    return [
        f"{name}: {scores[name]:.4f}" if name in scores else f"{name}: none for this instance" for name in run.columns
    ]
