"""What `bench list runs` and `bench show` print: read from the run folders, nothing is computed again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.config import build
from bench.errors import ConfigError, StoreError
from bench.registry import create, near_match
from bench.store import SCHEMA, read_generations, read_json, read_rows


def list_runs(results: str) -> str:
    """A line a run: name, state, instances, completions, when it was begun."""
    rows = []
    for folder in _folders(results):
        generated = len(read_generations(folder))
        summary = folder / "summary.json"
        state = "complete" if summary.exists() else "unfinished"
        instances = sum(read_json(summary)["instances"].values()) if summary.exists() else ""
        rows.append([folder.name, state, instances, generated, read_json(folder / "run.json").get("created", "")])
    if not rows:
        return f"no runs in {Path(results) / 'runs'}; make one with: bench run --method rag"
    return tabulate(rows, headers=["run", "state", "instances", "completions", "created"])


def find_run(results: str, part: str) -> Path:
    """The folder of the one run whose name contains `part`. Raises `ConfigError`."""
    folders = _folders(results)
    found = [folder for folder in folders if folder.name == part] or [
        folder for folder in folders if part in folder.name
    ]
    if len(found) == 1:
        return found[0]
    known = [folder.name for folder in folders]
    if not found:
        raise ConfigError(
            f"no run in {Path(results) / 'runs'} is called '{part}'{near_match(part, known)} See: bench list runs"
        )
    raise ConfigError(f"'{part}' names {len(found)} runs: {', '.join(folder.name for folder in found)}")


def _folders(results: str) -> list[Path]:
    return sorted(path.parent for path in (Path(results) / "runs").glob("*/run.json"))


def show_run(results: str, part: str) -> str:
    """A run's identity and scores."""
    folder = find_run(results, part)
    record = read_json(folder / "run.json")
    lines = [folder.name, f"created {record['created']} on {record['device']}", ""]
    lines += [f"{name}: {value}" for name, value in record["identity"]["settings"].items()]
    path = folder / "summary.json"
    if not path.exists():
        return "\n".join([*lines, "", f"unfinished: {len(read_generations(folder))} completions are there"])
    summary = read_json(path)
    rows = [
        [category, column, cell["value"], f"[{cell['low']:.4f}, {cell['high']:.4f}]"]
        for category, scores in summary["scores"].items()
        for column, cell in scores.items()
    ]
    lines += ["", tabulate(rows, headers=["category", "metric", "score", "95% interval"], floatfmt=".4f"), ""]
    lines += [f"{name}: {signature}" for name, signature in summary["signatures"].items()]
    return "\n".join(lines)


def show_instance(results: str, part: str, instance_part: str) -> str:
    """One instance of a run: profile, prompts, answers, prediction, reference and scores. The prompts are rendered
    anew and matched with the stored answers by their hash. Raises `ConfigError` and `StoreError`."""
    from bench.runner import Run, replay

    folder = find_run(results, part)
    record = read_json(folder / "run.json")
    if record.get("schema") != SCHEMA:
        raise StoreError(f"{folder} was written by schema {record.get('schema')} of bench, this version reads {SCHEMA}")
    settings = dict(record["config"])
    run = Run(build(settings, settings.pop("options", {})))
    ids = [instance.id for instance in run.instances]
    found = [name for name in ids if name == instance_part] or [name for name in ids if instance_part in name]
    if len(found) != 1:
        some = ", ".join(found[:5]) if found else f"the first are {', '.join(ids[:3])}"
        raise ConfigError(f"'{instance_part}' names {len(found)} instances of {folder.name}: {some}")
    instance = next(instance for instance in run.instances if instance.id == found[0])
    corpus = run.corpora[instance.category]
    exchanged, prediction = replay(run, instance, read_generations(folder))
    lines = [
        f"{instance.id}: {instance.item.title} ({instance.item.asin}), {instance.rating} stars, '{instance.title}'",
        f"\n=== profile: {len(instance.profile)} reviews, the newest last",
    ]
    for review in instance.profile:
        lines.append(f"- {corpus.item(review.asin).title}, {review.rating} stars, '{review.title}': {review.text}")
    for prompt, completion in exchanged:
        lines += [f"\n=== prompt of {prompt.stage} ({prompt.blocks_shown} of {prompt.blocks_offered} blocks)"]
        lines += [f"--- system\n{prompt.system}", f"--- user\n{prompt.user}"]
        lines += [f"--- answer ({completion.completion_tokens} tokens, {completion.finish_reason})\n{completion.text}"]
    missing = "(not generated yet, or by another version of the prompts)"
    lines += [f"\n=== prediction\n{missing if prediction is None else prediction}"]
    lines += [f"\n=== reference\n{corpus.reference(instance)}", "\n=== scores", *_scores(run, folder, instance.id)]
    return "\n".join(lines)


def _scores(run: Any, folder: Path, instance: str) -> list[str]:
    """The instance's own scores: each metric's aggregate over its row alone."""
    import numpy as np

    lines = []
    for row in read_rows(folder / "scores.jsonl"):
        if row["instance"] == instance:
            # run.json keeps the configuration of the first time; the run may have been scored with more metrics since.
            metric = run.metrics.get(row["metric"]) or create("metrics", row["metric"], {}, run.config.fidelity)
            values = metric.aggregate(np.asarray([row["statistics"]]))
            lines += [f"{column}: {float(value):.4f}" for column, value in values.items()]
    return lines or ["(not scored yet)"]
