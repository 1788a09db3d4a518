"""From jobs to summaries: train the adapters that are missing, choose their epochs, make the texts, score them.

All training comes first, all texts after it, all scores last: a GPU need not hold the trained model, vLLM's and
BERTScore's at once. Without a GPU a second process (`bench.worker`) does about half of the work, adapters first.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from bench import machine
from bench.backends import Engines
from bench.errors import BusyError, ConfigError, DamagedError, StoreError
from bench.files import exclusive, gone, together
from bench.job import Job
from bench.loop import Loop, Seconds
from bench.merge import take_in
from bench.naming import older_names
from bench.neighbours import SharedAnswers
from bench.progress import Progress, duration, say
from bench.records import Completion, Instance
from bench.report.names import counted
from bench.resolved import Run, tell_defaults
from bench.results import AdapterRecord, Prediction, Selection, Summary, older
from bench.scoring import batch_of, metric_rows, score
from bench.shards import Shard, at_work, named, shards_in, shards_of, without_text
from bench.softprompt.trained import TrainedAdapter, told_apart
from bench.store import RunStore, made_otherwise, other_weights
from bench.work import Work
from bench.worker import Worker

Say = Callable[[str], None]


def execute(jobs: Sequence[Job], say: Say = say, processes: int | None = None) -> list[Summary]:
    """Do what is missing of each job and return their summaries. `processes`: 1 for this one alone, 2 for a worker
    beside it; default: 2 without a GPU and with two cores or more. Raises `BenchError`; what was finished is kept."""
    _check_alone()
    unfinished = [job for job in jobs if job.summary() is None]
    for job in unfinished:
        _look_over(job, say)
    # Torch, which knows of GPUs, is not imported for nothing. A backend with several engines has work for all of them.
    alone = not unfinished or any(job.spreads for job in unfinished)
    alone = alone or (_processes() if processes is None else processes) == 1
    if not alone and (sentence := foretold(unfinished)):
        say(sentence)
    here, there = (unfinished, []) if alone else split(unfinished)
    if there and any(job.trains or job.run.method.properties.calls_model for job in here):
        machine.share_cores(2)
        with Worker([job.config for job in there], say) as worker:
            _do(here, say)
            worker.wait()
    else:
        _do(unfinished, say)
    return [Summary.read(job.folder / "summary.json") for job in jobs]


def _check_alone() -> None:
    if (world := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise ConfigError(
            f"this is one of {world} processes, but texts are made by one: use `accelerate launch ... -m bench.cli "
            "train` for training, then run this command without the launcher"
        )


def _look_over(job: Job, say: Say) -> None:
    """Find out whether a job can be done, and say what is worth knowing before it is."""
    job.check()
    tell_defaults(job.run)
    if damage := job.damage():
        say(f"{damage}; mending it")
    _tell_of_older(job, say)
    if sentence := told_apart(job.run):
        say(sentence)


def _tell_of_older(job: Job, say: Say) -> None:
    """Say that a run of the same name lies there in an older schema: it is read, but never gone on with."""
    neighbours = job.folder.parent.glob(f"{older_names(job.run)}-*/run.json")
    for sentence in older(neighbours, "it can be listed, shown and compared, and its texts are made anew"):
        say(sentence)


def _do(unfinished: Sequence[Job], say: Say) -> None:
    """Train, write and score in this process."""
    unwritten = [job for job in unfinished if not job.is_written]
    for job in unwritten:
        embed_ahead(job.run)
    # Of a run that is written the adapter may be gone; where it is there it may have to be mended.
    training = [job for job in unfinished if job.trains and (job in unwritten or job.trains.folder.exists())]
    for job in side_by_side(training, say):
        assert job.trains is not None
        train_adapter(job.trains, say)
    seconds: dict[Path, Seconds | None] = {}
    with Engines(vectors=any(job.adapter is not None for job in unwritten)) as engines:
        for job in unfinished:
            if job in training:
                select_epoch(job, engines, say)
            with RunStore(job.folder, job.record(), say, job.places) as store:
                seconds[job.folder] = predict(job, store, engines, say)
    for job in unfinished:
        with RunStore(job.folder, job.record(), say, job.places) as store:
            summarise(job, store, say, seconds[job.folder])


TRAINING_RUNS = 2
"""How many runs with one call an instance take about as long as training an adapter and choosing its epoch: on the demo
.7 (pplug) to 2 (dep)."""


def split(jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
    """The jobs for this process and for a worker, about equally many calls, with an adapter's jobs together: those
    that need no training and call a model stay here, the largest adapters go there first."""
    here = [job for job in jobs if not job.trains]
    there: list[Job] = []
    by_adapter: dict[Path, list[Job]] = {}
    for job in jobs:
        if job.trains:
            by_adapter.setdefault(job.trains.folder, []).append(job)
    work_here, work_there = sum(map(calls, here)), 0
    for same in sorted(by_adapter.values(), key=len, reverse=True):
        work = TRAINING_RUNS + sum(map(calls, same))
        if work_there <= work_here:
            there += same
            work_there += work
        else:
            here += same
            work_here += work
    return here, there


MANY_CALLS = 2000
"""From how many on a machine without a GPU is busy for so long that it is said before."""


def foretold(jobs: Sequence[Job]) -> str:
    """A sentence on the many calls and the adapters that are to come; "" where it is not many. Only the first instance
    of each job is rendered."""
    unwritten = [job for job in jobs if not job.is_written]
    asked = sum(calls(job) * len(job.instances) for job in unwritten)
    if asked < MANY_CALLS:
        return ""
    adapters = {job.trains.folder for job in unwritten if job.trains and not job.trains.files.is_trained}
    training = f" and the training of {len(adapters)} adapters" if adapters else ""
    return (
        f"to come: about {asked:,} calls{training}, without what is there already of runs that were stopped; "
        "`bench plan` with the same options says what that takes"
    )


def calls(job: Job) -> int:
    """How many calls an instance of a job takes, as the first one does with a placeholder for each answer."""
    work = Work(job.run, job.run.instances[0])
    work.proceed(lambda call: Completion("(an answer)", 0, 0, "stop", 0.0))
    return len(work.exchanged)


def _processes() -> int:
    """How many engines, or an engine and a training, can go on side by side: a GPU's memory has no room for two, two
    cores have."""
    import torch

    return 1 if torch.cuda.is_available() else min(2, len(os.sched_getaffinity(0)))


# ---- shards


@dataclass(frozen=True)
class ShardDone:
    """What there is once a shard is done: how many instances it has, and how many of the run's `total` no shard is done
    with (`left`), which are those of the shards `to_come`; of these some are `at_work`. `summary` is there if that
    completed the run."""

    instances: int
    total: int
    left: int
    to_come: list[Shard]
    at_work: list[Shard]
    summary: Summary | None


def write_shard(job: Job, shard: Shard, say: Say = say) -> ShardDone:
    """Make the texts of a shard of a job that are missing; if it was the last one, complete the run. Raises
    `BenchError`; what was finished is kept."""
    _check_alone()
    part, total = job.part(shard), len(job.instances)
    if (known := job.summary()) is not None:
        return ShardDone(len(part.instances), total, 0, [], [], known)
    _look_over(job, say)
    _check_trained(job)
    with together(job.folder), RunStore(part.folder, part.record(), say, part.places) as store:
        others = [one for one in at_work(job.folder) if one.of != shard.of]
        if others:
            raise BusyError(
                f"shards of another count ({named(others)}) are at work on {job.folder}, and share instances with "
                f"{shard}; wait for them, or use their count. Nothing was changed"
            )
        embed_ahead(part.run, part.chosen)
        with Engines(vectors=part.adapter is not None) as engines:
            predict(part, store, engines, say)
    left = [] if job.is_written else without_text(job.folder, job.instances)
    to_come = shards_of(left, shard.of)
    busy = [one for one in at_work(job.folder) if one in to_come]
    summary = None
    if not left:
        try:
            summary = merge(job, say)
        except BusyError:
            # Of those that end last at the same time one completes the run.
            say(f"{job.label}: another process completes the run")
    return ShardDone(len(part.instances), total, len(left), to_come, busy, summary)


def _check_trained(job: Job) -> None:
    """Raise `StoreError` if a job's adapter is still to be trained: of many shards each would want to."""
    if job.trains is None:
        return
    command = f"train it before its shards: bench train --method {job.config.method}, with the same options"
    try:
        ready = job.trains.is_trained and job.trains.selection is not None
    except DamagedError as error:
        raise StoreError(f"{error.what}; {command}") from None
    if not ready:
        raise StoreError(f"the adapter {job.trains.folder} is not trained yet; {command}")


def merge(job: Job, say: Say = say) -> Summary:
    """Complete a run from what its shards wrote; asks no model. Raises `StoreError` if texts are missing, and tells
    whose they are."""
    _check_alone()
    if (known := job.summary()) is not None:
        return known
    for metric in job.run.metrics.values():
        metric.check()
    if not job.is_written and (missing := without_text(job.folder, job.instances)):
        raise StoreError(_incomplete(job, missing))
    with RunStore(job.folder, job.record(), say, job.places) as store:
        if not store.predictions(job.instances) and (missing := take_in(job, store, say)):
            raise StoreError(_incomplete(job, missing))
        summarise(job, store, say, None)
    return Summary.read(job.folder / "summary.json")


def _incomplete(job: Job, missing: Sequence[str]) -> str:
    """That a run is not complete, what is missing, and what to do about it."""
    here = shards_in(job.folder)
    if not here:
        return (
            f"{job.folder} has no shards to merge; start them with: bench run --shard 1/8 ..., or leave --merge out to "
            "make all texts here"
        )
    # Of several counts the one with the fewest shards to run.
    shards = min((shards_of(missing, of) for of in sorted({one.of for one in here})), key=len)
    return (
        f"{job.folder} is not complete: {len(missing):,} of {len(job.instances):,} instances have no text yet, all of "
        f"shards that are not done: {named(shards)}. Run each with the same options (--shard {shards[0]}), or leave "
        "--merge out to make these texts here"
    )


# ---- texts


def predict(job: Job, store: RunStore, engines: Engines, say: Say) -> Seconds | None:
    """Make the job's predictions.jsonl, if it is not there, or damaged; a neighbour's answers are taken over. Where the
    time went, if a model was asked."""
    if store.predictions(job.instances):
        return None
    if job.shard is None and not take_in(job, store, say):
        return None
    resumed = store.stored()
    if resumed:
        say(f"{job.label}: {counted(resumed, 'completion')} there already, going on")
    started = time.perf_counter()
    engine = partial(engines.get, job.config, job.run.chat, vectors=job.adapter is not None)
    answers = SharedAnswers(job, store)
    loop = Loop(job.run, answers, engine, job.vectors, job.label, job.chosen, calls(job))
    try:
        predictions = loop.predictions()
    finally:
        for name, count in answers.taken.items():
            say(f"{job.label}: took over {count} completions of {name}")
    store.write_predictions(predictions)
    took = duration(time.perf_counter() - started)
    where = "" if loop.seconds is None else f" ({loop.seconds})"
    asked = store.stored() - resumed - answers.taken.total()
    say(f"{job.label}: {len(predictions)} instances, {asked} calls in {took}{where}")
    for sentence in oddities(predictions):
        say(f"{job.label}: {sentence}")
    return loop.seconds


def oddities(predictions: Sequence[Prediction]) -> list[str]:
    """Sentences on answers that hold no text and on prompts that a server cut, with the instances."""
    sentences = []
    stages = sum((Counter(row.empty) for row in predictions), Counter[str]())
    if stages:
        counted = ", ".join(f"{stage} {count}" for stage, count in stages.items())
        sentences.append(f"{stages.total()} answers hold no text ({counted}): {_named(predictions, 'empty')}")
    if cut := sum(row.shortened for row in predictions):
        sentences.append(
            f"the server read far fewer tokens than {cut} prompts have, so it cut them: "
            f"{_named(predictions, 'shortened')}; raise its context, or lower input_budget"
        )
    return sentences


def _named(predictions: Sequence[Prediction], field: str) -> str:
    found = [row.instance for row in predictions if getattr(row, field)]
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def summarise(job: Job, store: RunStore, say: Say, seconds: Seconds | None) -> None:
    """Score the job's predictions and write its summary. What the run was scored with before stays in it."""
    predictions = _written(job, store)
    before = job.scored_before()
    beside = {} if before is None else job.beside(before)
    read = partial(job.background, predictions)
    scored = score(store, predictions, job.run.metrics, job.config.resamples, say, read, beside)
    scoring = job.scoring
    if before is not None:
        their_options = before.summary.metric_options or {}
        scoring["metric_options"] |= {name: their_options[name] for name in beside if name in their_options}
        if lost := [name for name in before.summary.signatures if name not in scored.signatures]:
            say(
                f"{job.label}: no longer scored with {', '.join(lost)}, whose scores were made otherwise or are gone; "
                f"ask for them again: --set 'metrics=[{', '.join(lost)}]'"
            )
    count = len(predictions)
    store.write_summary(
        Summary(
            name=job.folder.name,
            instances=dict(Counter(row.category for row in predictions)),
            empty_predictions=sum(not row.prediction for row in predictions),
            empty_answers=dict(sum((Counter(row.empty) for row in predictions), Counter())),
            cut_off=sum(row.cut_off for row in predictions),
            counts=dict(sum((Counter(row.counts) for row in predictions), Counter())),
            adapter=job.adapter_summary(),
            calls=sum(row.calls for row in predictions),
            prompt_tokens=sum(row.prompt_tokens for row in predictions),
            completion_tokens=sum(row.completion_tokens for row in predictions),
            uncounted_calls=sum(row.uncounted for row in predictions),
            shortened_calls=sum(row.shortened for row in predictions),
            blocks_shown=sum(row.blocks_shown for row in predictions) / count,
            blocks_offered=sum(row.blocks_offered for row in predictions) / count,
            seconds={} if seconds is None else asdict(seconds),
            **scoring,
            signatures=scored.signatures,
            metric_notes=scored.notes,
            scores=scored.scores,
        )
    )


def _written(job: Job, store: RunStore) -> list[Prediction]:
    """The predictions that were made just now. Raises `StoreError` if somebody removed them since."""
    predictions = store.predictions(job.instances)
    if not predictions:
        raise gone(job.folder)
    return predictions


def embed_ahead(run: Run, instances: Iterable[Instance] | None = None) -> None:
    """Put the vectors of all records, or of those in the profiles of some instances, on disk at once, in large batches,
    for a method with an encoder."""
    encoder = getattr(run.method, "encoder", None)
    if encoder is None:
        return
    texts: dict[str, None] = {}
    splits = (split for corpus in run.corpora.values() for split in corpus.instances.values())
    for instance in chain.from_iterable(splits) if instances is None else instances:
        texts.update(dict.fromkeys(record.text for record in instance.profile))
    started = time.perf_counter()
    progress: Progress | None = None
    seen = 0

    def report(done: int, total: int) -> None:
        nonlocal progress, seen
        progress = progress or Progress(f"embedding with {encoder}", total)
        progress.update(finished=done - seen)
        seen = done

    run.embeddings.fill(texts, encoder, report)
    if progress is not None:
        progress.close()
        say(f"embedded {seen:,} texts with {encoder} in {duration(time.perf_counter() - started)}")


# ---- adapters


def train(job: Job, say: Say = say) -> Selection:
    """Train a job's adapter and choose its epoch. Raises `BenchError`.

    Of several processes only the first comes back: the others end with the training.
    """
    from bench.softprompt import processes

    assert job.trains is not None
    first = processes.rank() == 0
    if first:
        job.check()
    train_adapter(job.trains, say)
    processes.leave()
    if not first:
        raise SystemExit(0)
    with Engines(vectors=True) as engines:
        return select_epoch(job, engines, say)


def side_by_side(jobs: Sequence[Job], say: Say = say) -> list[Job]:
    """Train the adapters of jobs whose backend spreads work, each in a task of its own; the jobs that are left. Raises
    `BenchError`; what was trained is kept."""
    spread = {job.trains.folder: job for job in jobs if job.spreads and job.trains}
    missing = [job for job in spread.values() if job.trains and not _is_trained(job.trains, say)]
    if missing:
        # Only here: what it needs is not installed where nobody asks for it.
        from bench.spreading import train_each

        train_each([job.config for job in missing], say)
    return [job for job in jobs if not job.spreads]


def train_adapter(adapter: TrainedAdapter, say: Say = say) -> None:
    """Train an adapter for all epochs, if that is not done. Of several processes all have to call it."""
    from bench.softprompt import processes, trainer

    if processes.as_the_first(lambda: _is_trained(adapter, say)):
        return
    if processes.rank():
        trainer.train(adapter.job())
        return
    for sentence in adapter.older():
        say(sentence)
    run = adapter.training
    with exclusive(adapter.folder):
        embed_ahead(run)
        record = Job(run, adapter, epoch=1).record()
        about = {name: getattr(record, name) for name in ("config", "versions", "device", "created")}
        adapter.files.write_record(AdapterRecord(method=run.config.method, identity=adapter.identity, **about))
        trainer.train(adapter.job())
        adapter.draw()


def _is_trained(adapter: TrainedAdapter, say: Say) -> bool:
    """Whether nothing is left to train, nor to mend."""
    try:
        return adapter.is_trained
    except DamagedError as error:
        say(f"{error.what}; mending it")
        return False


def select_epoch(job: Job, engines: Engines, say: Say) -> Selection:
    """Score the job's adapter after each epoch on the validation subset and keep the best (DEP, 4.1). The texts come
    through the engine that the run itself uses."""
    adapter = job.trains
    assert adapter is not None
    try:
        if (known := adapter.selection) is not None:
            return known
    except DamagedError as error:
        say(f"{error.what}; the epoch is chosen again")
    validations = {epoch: job.validation(epoch) for epoch in _epochs(adapter)}
    if any(other_weights(one.folder, one.record()) for one in validations.values()):
        raise made_otherwise(adapter.selection_folder)
    column = adapter.select_by
    with exclusive(adapter.selection_folder):
        scores = {epoch: _validate(one, column, engines, say) for epoch, one in validations.items()}
        selection = Selection(
            column=column,
            instances=len(adapter.training.instances),
            scores=scores,
            epoch=adapter.best(scores),
            signatures=adapter.training.signatures,
            weights=adapter.weights_hash(adapter.best(scores)) or "",
        )
        adapter.keep(selection)
        adapter.draw()
    listed = ", ".join(f"{epoch}: {score:.4f}" for epoch, score in scores.items())
    say(f"{job.config.method}: validation {column} after each epoch: {listed}; kept epoch {selection.epoch}")
    return selection


def _epochs(adapter: TrainedAdapter) -> range:
    return range(1, adapter.epochs + 1)


def _validate(job: Job, column: str, engines: Engines, say: Say) -> float:
    """The score of one epoch's adapter on the validation subset."""
    with RunStore(job.folder, job.record(), say, job.places) as store:
        predict(job, store, engines, say)
        predictions = _written(job, store)
    ((name, metric),) = job.run.metrics.items()
    statistics = metric_rows(name, metric, batch_of(predictions, partial(job.background, predictions)))
    return float(metric.aggregate(statistics)[column])
