"""From runs to summaries: train the adapters that are missing, choose their epochs, make the texts, score them.

All training comes first, all texts after it, all scores last: a GPU need not hold the trained model, vLLM's and
BERTScore's at once. Without a GPU a second process does about half of the work, adapters first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.backends import Engines
from bench.beside import Beside, configs_from_parent
from bench.errors import BenchError, ConfigError
from bench.progress import say
from bench.runner import Run, predict, summarise
from bench.scoring import metric_rows
from bench.softprompt import adapters
from bench.store import RunStore, dump, exclusive, read_json, read_rows, write_atomically

Say = Callable[[str], None]


def execute(runs: Sequence[Run], say: Say = say, alone: bool = False) -> list[dict[str, Any]]:
    """Do what is missing of each run, `alone` or with a second process, and return their summaries. Raises
    `BenchError`; what was finished is kept."""
    if (processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise ConfigError(
            f"this is one of {processes} processes, but texts are made by one: use `accelerate launch ... -m bench.cli "
            "train` for training, then run this command without the launcher"
        )
    unfinished = [run for run in runs if run.summary() is None]
    for run in unfinished:
        run.check()
    here, there = _shares(unfinished)
    worthwhile = there and any(run.learns or run.method.properties.calls_model for run in here)
    if worthwhile and not alone and _cores_to_spare():
        with Beside([run.config for run in there], say) as beside:
            _do(here, say)
            beside.wait()
    else:
        _do(unfinished, say)
    return [read_json(run.folder / "summary.json") for run in runs]


def _do(unfinished: Sequence[Run], say: Say) -> None:
    """Train, write and score in this process."""
    untold = [run for run in unfinished if not (run.folder / "predictions.jsonl").exists()]
    for run in untold:
        run.embed_ahead()
        if run.learns:
            train_adapter(run)
    with Engines(soft=any(run.soft for run in untold)) as engines:
        for run in untold:
            if run.learns:
                select_epoch(run, engines, say)
            with RunStore(run.folder, run.record()) as store:
                predict(run, store, engines, say)
    for run in unfinished:
        with RunStore(run.folder, run.record()) as store:
            summarise(run, store, say)


TRAINING_RUNS = 3
"""How many runs with one call an instance take about as long as training an adapter and choosing its epoch."""


def _shares(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """The runs for this process and for one beside it, about equally much work, with an adapter's runs together: those
    that need no training and call a model stay here, the largest adapters go there first."""
    here = [run for run in runs if not run.learns]
    there: list[Run] = []
    by_adapter: dict[Path, list[Run]] = {}
    for run in (run for run in runs if run.learns):
        by_adapter.setdefault(run.adapter_folder, []).append(run)
    work_here, work_there = sum(run.method.properties.calls_model for run in here), 0
    for same in sorted(by_adapter.values(), key=len, reverse=True):
        work = TRAINING_RUNS + len(same)
        if work_there <= work_here:
            there += same
            work_there += work
        else:
            here += same
            work_here += work
    return here, there


def _cores_to_spare() -> bool:
    """Whether two engines, or an engine and a training, can go on side by side: a GPU's memory has no room for both,
    two cores have."""
    import torch

    return not torch.cuda.is_available() and len(os.sched_getaffinity(0)) > 1


def train(run: Run, say: Say = say) -> dict[str, Any]:
    """Train a run's adapter and choose its epoch; the content of selection.json. Raises `BenchError`.

    Of several processes only the first comes back: the others end with the training.
    """
    from bench.softprompt import processes

    first = processes.rank() == 0
    if first:
        run.check()
    train_adapter(run)
    processes.leave()
    if not first:
        raise SystemExit(0)
    with Engines(soft=True) as engines:
        return select_epoch(run, engines, say)


def train_adapter(run: Run) -> None:
    """Train a run's adapter for all epochs, if that is not done. Of several processes all have to call it."""
    from bench.softprompt import processes, trainer

    if processes.as_the_first(lambda: adapters.is_trained(run.adapter_folder)):
        return
    first = run.at_epoch(1)
    assert first.trained_method is not None
    job = trainer.Job(
        label=run.config.method,
        folder=run.adapter_folder,
        model=run.config.model,
        config=run.config.train,
        learning_rate=first.learning_rate,
        aux_reduction=first.trained_method.aux_reduction,
        adapter=first.fresh_adapter,
        examples=lambda: _examples(first),
    )
    if processes.rank():
        trainer.train(job)
        return
    with exclusive(run.adapter_folder):
        run.embed_ahead()
        record = {
            "schema": adapters.SCHEMA,
            "method": run.config.method,
            "identity": run.training_identity,
            **{name: first.record()[name] for name in ("config", "versions", "device", "created")},
        }
        write_atomically(run.adapter_folder / "adapter.json", dump(record))
        trainer.train(job)
        draw(run, {})


def _examples(first: Run) -> list[Any]:
    """The training examples of all categories: of each user the instance with the longest profile (DEP, 4.1)."""
    from bench.softprompt.trainer import example

    config = first.config.train
    return [
        example(first.chat, first.first_prompt(instance), corpus.reference(instance), config.max_target_tokens)
        for corpus in first.corpora.values()
        for instance in corpus.longest_profiles("train")[: config.limit]
    ]


def select_epoch(run: Run, engines: Engines, say: Say) -> dict[str, Any]:
    """Score the adapter after each epoch on the validation instances and keep the best (4.1): the content of
    selection.json. The texts come through the engine that the run itself uses."""
    path = run.selection_folder / "selection.json"
    if path.exists():
        return read_json(path)
    column = run.config.train.select_by
    scores: dict[int, float] = {}
    with exclusive(run.selection_folder):
        for epoch in range(1, run.config.train.epochs + 1):
            validating = run.at_epoch(epoch)
            with RunStore(validating.folder, validating.record()) as store:
                predict(validating, store, engines, say)
                rows = store.rows("predictions.jsonl")
            ((name, metric),) = validating.metrics.items()
            statistics = metric_rows(name, metric, rows, partial(validating.background, rows))
            scores[epoch] = float(metric.aggregate(statistics)[column])
        best = max(scores, key=lambda epoch: scores[epoch])
        selection = {
            "schema": adapters.SCHEMA,
            "column": column,
            "instances": len(rows),
            "scores": {str(epoch): score for epoch, score in scores.items()},
            "epoch": best,
            "signatures": validating.signatures,
        }
        write_atomically(path, dump(selection))
        draw(run, scores)
    listed = ", ".join(f"{epoch}: {score:.4f}" for epoch, score in scores.items())
    say(f"{run.config.method}: validation {column} after each epoch: {listed}; kept epoch {best}")
    return selection


def draw(run: Run, scores: dict[int, float]) -> None:
    """The picture of a training, with the validation scores that are there."""
    from bench.softprompt import picture

    log = list(read_rows(run.adapter_folder / "log.jsonl"))
    picture.draw(run.adapter_folder / "loss.png", run.adapter_folder.name, log, run.config.train.select_by, scores)


def main() -> int:
    """The process beside another: do what that one asks for; the exit code, as the command line's."""
    configs = configs_from_parent()
    try:
        execute([Run(config) for config in configs], alone=True)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # A thread still reads standard input.
    os._exit(code)
