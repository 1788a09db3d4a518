"""What `bench list runs` and `bench show` print: read from the run folders, nothing is computed again."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from bench.errors import ConfigError
from bench.finished import config_of, find_run, finished, read_record, run_folders
from bench.store import read_generations, read_json


def list_runs(results: str) -> str:
    """A line a run: name, state, instances, completions, when it was begun."""
    rows = []
    for folder in run_folders(Path(results)):
        generated = len(read_generations(folder))
        summary = folder / "summary.json"
        state = "complete" if summary.exists() else "unfinished"
        instances = sum(read_json(summary)["instances"].values()) if summary.exists() else ""
        rows.append([folder.name, state, instances, generated, read_json(folder / "run.json").get("created", "")])
    if not rows:
        return f"no runs in {Path(results) / 'runs'}; make one with: bench run --method rag"
    return tabulate(rows, headers=["run", "state", "instances", "completions", "created"])


def show_run(results: str, part: str) -> str:
    """A run's identity and scores."""
    folder = find_run(Path(results), part)
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

    folder = find_run(Path(results), part)
    run = Run(config_of(read_record(folder)))
    ids = [instance.id for instance in run.instances]
    found = [name for name in ids if name == instance_part] or [name for name in ids if instance_part in name]
    if len(found) != 1:
        some = ", ".join(found[:5]) if found else f"the first are {', '.join(ids[:3])}"
        raise ConfigError(f"'{instance_part}' names {len(found)} instances of {folder.name}: {some}")
    instance = next(instance for instance in run.instances if instance.id == found[0])
    corpus = run.corpora[instance.category]
    exchanged, prediction = replay(run, instance, read_generations(folder, {instance.id}))
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
    lines += [f"\n=== reference\n{corpus.reference(instance)}", "\n=== scores", *_scores(folder, instance.id)]
    return "\n".join(lines)


def _scores(folder: Path, instance: str) -> list[str]:
    """The instance's own scores: each metric's aggregate over its row alone."""
    if not (folder / "summary.json").exists():
        return ["(not scored yet)"]
    run = finished(folder)
    scores = run.instance_scores([row["instance"] for row in run.predictions].index(instance))
    return [
        f"{name}: {scores[name]:.4f}" if name in scores else f"{name}: none for this instance" for name in run.columns
    ]
