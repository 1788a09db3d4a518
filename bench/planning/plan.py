"""The plan of some runs: what each of them, and the adapters behind them, still take.

Only what is missing counts. A run that several rows share is counted where it comes first, an adapter that several runs
share once. Of a run that was stopped, answers count as kept if they have a call's key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from bench.encoders import HASHED_NGRAMS, EmbeddingCache
from bench.errors import DamagedError, ResourceError
from bench.job import Job
from bench.neighbours import answers_at_hand
from bench.planning.calls import NOTHING, Answers, Need, asked
from bench.planning.inputs import PlanInputs
from bench.records import Call, Instance
from bench.resolved import Run
from bench.results import ScoreRow, identity_hash, rows_of
from bench.softprompt.trained import TrainedAdapter, hidden_size
from bench.store import Generations

SAMPLE = 64
"""Instances of a run that are rendered where nothing else is asked for."""
ROW_BYTES = 340
"""What a row of generations.jsonl or predictions.jsonl takes beside its texts."""
SCORE_BYTES = 280
"""What a row of scores.jsonl takes."""
DIMENSION = 1024
"""Numbers in a vector of an encoder whose configuration is not at hand: bge-m3's."""
CHECKPOINT = 3
"""A checkpoint holds the weights and two moments of each."""


@dataclass(frozen=True)
class Options:
    """How a plan is made: from how many instances of a run (0: all), drawn with which seed, and how long an answer is
    expected to be, in tokens (default: as long as what the users wrote)."""

    sample: int = SAMPLE
    seed: int = 0
    answer_tokens: int | None = None


@dataclass(frozen=True)
class Counted:
    """What a run is still to be asked. `sampled` of its `of` open instances were rendered; `instances` of all are
    expected not to be finished. `calls` are the sample's."""

    need: Need = NOTHING
    instances: float = 0.0
    blocks_shown: float = 0.0
    blocks_offered: float = 0.0
    sampled: int = 0
    of: int = 0
    calls: tuple[Call, ...] = ()


UNASKED = Counted()


@dataclass(frozen=True)
class RunPlan:
    """What a run takes: `judged` predictions that a judge is asked about, and bytes of its folder. A `finished` one
    takes nothing."""

    job: Job
    finished: bool
    counted: Counted = UNASKED
    judged: int = 0
    size: float = 0.0


@dataclass(frozen=True)
class RowPlan:
    """A row of a table and the runs that are counted with it; `shared` others are counted with rows above."""

    label: str
    runs: tuple[RunPlan, ...]
    shared: int

    @property
    def need(self) -> Need:
        """What its runs are to be asked."""
        return sum((run.counted.need for run in self.runs), NOTHING)


@dataclass(frozen=True)
class AdapterPlan:
    """What an adapter takes: `instances` and `tokens` of prompts and answers an epoch, `tokens_left` of all `epochs`,
    and the `validation` that chooses the epoch. `parameters` are None where the model's configuration is not here."""

    label: str
    job: Job
    adapter: TrainedAdapter
    instances: int
    epochs: int
    tokens: float
    tokens_left: float
    validation: Counted
    parameters: int | None

    @property
    def size(self) -> float:
        """Bytes of its weights, as far as they are known, and of the validation's answers."""
        return 4.0 * (self.parameters or 0) * (self.epochs + CHECKPOINT) + ROW_BYTES * self.validation.need.calls


@dataclass(frozen=True)
class Plan:
    """What some rows take, and what it is made of. `vectors` are the bytes of the vectors that encoders have to make,
    by encoder; `stood_in` are encoders that hashed n-grams stood in for; with `estimate` tokens are characters."""

    rows: tuple[RowPlan, ...]
    adapters: tuple[AdapterPlan, ...]
    options: Options
    answer_tokens: tuple[int, int]
    vectors: Mapping[str, float]
    stood_in: tuple[str, ...]
    estimate: bool

    @property
    def runs(self) -> list[RunPlan]:
        """All runs, each once."""
        return [run for row in self.rows for run in row.runs]

    @property
    def open(self) -> list[RunPlan]:
        """The runs that are not finished."""
        return [run for run in self.runs if not run.finished]

    @cached_property
    def need(self) -> Need:
        """What all of it asks, the validation of adapters too."""
        runs = sum((row.need for row in self.rows), NOTHING)
        return sum((adapter.validation.need for adapter in self.adapters), runs)

    @property
    def is_sampled(self) -> bool:
        """Whether not every instance was looked at."""
        counted = [*(run.counted for run in self.runs), *(adapter.validation for adapter in self.adapters)]
        return any(one.sampled < one.of for one in counted) or any(
            self.options.sample and adapter.instances > self.options.sample for adapter in self.adapters
        )


def plan(rows: Sequence[tuple[str, Sequence[Job]]], inputs: PlanInputs, options: Options) -> Plan:
    """The plan of rows, whose jobs were made with `inputs`. Raises `BenchError`: where data or a tokenizer is missing
    nothing is planned."""
    planner = _Planner(options)
    seen: set[Path] = set()
    planned = []
    for label, jobs in rows:
        new = [job for job in {job.folder: job for job in jobs}.values() if job.folder not in seen]
        seen |= {job.folder for job in new}
        runs = tuple(planner.run(job) for job in new)
        planned.append(RowPlan(label, runs, len(jobs) - len(new)))
    return Plan(
        tuple(planned),
        tuple(planner.adapters.values()),
        options,
        (min(planner.usual, default=0), max(planner.usual, default=0)),
        _vectors([run.job for row in planned for run in row.runs if not run.finished]),
        tuple(sorted(inputs.stand_ins.stood_in)),
        inputs.estimate,
    )


@dataclass
class _Planner:
    options: Options
    adapters: dict[Path, AdapterPlan] = field(default_factory=dict)
    usual: set[int] = field(default_factory=set)
    """How long answers are expected to be, over all runs."""

    def run(self, job: Job) -> RunPlan:
        """A run, and the adapter behind it if that has to be made first."""
        if job.summary() is not None:
            return RunPlan(job, finished=True)
        written = job.is_written
        if job.run.method.properties.calls_model:
            job.config.check_context()
        if job.trains is not None and (not written or job.trains.folder.exists()):
            self.adapter(job)
        counted = UNASKED if written else self.counted(job)
        return RunPlan(job, False, counted, _judged(job), self._size(job, counted, written))

    def counted(self, job: Job) -> Counted:
        """What the job's model is still to be asked."""
        run = job.run
        if not run.method.properties.calls_model:
            return Counted(instances=len(run.instances))
        known = answers_at_hand(job)
        begun = {name for name, _, _ in known}
        answers = self.answers(run)
        self.usual.add(answers.tokens)
        parts = (
            [instance for instance in run.instances if instance.id not in begun],
            [instance for instance in run.instances if instance.id in begun],
        )
        return _together([self._part(run, part, known, answers) for part in parts if part])

    def _part(self, run: Run, instances: Sequence[Instance], known: Generations, answers: Answers) -> Counted:
        """Some instances of a run, of which a sample stands for all."""
        chosen = self.sample(instances)
        found = [asked(run, instance, known, answers) for instance in chosen]
        scale = len(instances) / len(chosen)
        return Counted(
            sum((one.need for one in found), NOTHING) * scale,
            sum(bool(one.calls) for one in found) * scale,
            sum(one.blocks_shown for one in found) * scale,
            sum(one.blocks_offered for one in found) * scale,
            len(chosen),
            len(instances),
            tuple(call for one in found for call in one.calls),
        )

    def sample(self, instances: Sequence[Instance]) -> list[Instance]:
        """So many of the instances as are looked at, in their order; which ones hangs on the seed alone."""
        if not self.options.sample or len(instances) <= self.options.sample:
            return list(instances)
        order = np.random.default_rng(self.options.seed).permutation(len(instances))
        return [instances[place] for place in sorted(order[: self.options.sample])]

    def answers(self, run: Run) -> Answers:
        """What stands in for the answers of a run."""
        chosen = self.sample(run.instances)
        source = " ".join(record.text for instance in chosen[:8] for record in instance.profile)[:100_000]
        tokens = self.options.answer_tokens
        if tokens is None:
            wrote = [run.chat.count_text(run.corpora[one.category].reference(one).strip()) for one in chosen]
            tokens = max(round(sum(wrote) / len(wrote)), 1)
        return Answers.of(run.chat, source, tokens, run.config.max_new_tokens)

    def adapter(self, job: Job) -> None:
        """Plan the job's adapter, unless that is done or nothing is left to do."""
        adapter = job.trains
        assert adapter is not None
        if adapter.folder in self.adapters:
            return
        trained = _is_trained(adapter)
        if trained and _is_chosen(adapter):
            return
        from bench.softprompt.trainer import schedule

        pool = adapter.instances
        looked_at = self.sample(pool)
        lengths = [adapter.length(instance) for instance in looked_at]
        count = round(sum(length > 0 for length in lengths) * len(pool) / max(len(looked_at), 1))
        tokens = sum(lengths) * len(pool) / max(len(looked_at), 1)
        per_epoch, steps = schedule(count, adapter.training.config.training)
        left = 0.0 if trained else max(tokens * steps / max(per_epoch, 1) - _trained_on(adapter), 0.0)
        if not trained and adapter.influence is not None and not adapter.influence.path.exists():
            # Twice forwards without a gradient: about the work of an epoch.
            left += tokens
        epochs = math.ceil(steps / max(per_epoch, 1))
        validation = _together([self.counted(job.validation(epoch)) for epoch in range(1, epochs + 1)])
        shown = adapter.training.config
        label = f"{shown.method} k={shown.k}" if job.run.method.properties.retrieval_augmented else shown.method
        self.adapters[adapter.folder] = AdapterPlan(
            label, job.validation(1), adapter, count, epochs, tokens, left, validation, _parameters(adapter)
        )

    def _size(self, job: Job, counted: Counted, written: bool) -> float:
        """Bytes that the run's folder grows by."""
        run = job.run
        wrote = [run.corpora[one.category].reference(one) for one in self.sample(run.instances)]
        text = sum(len(one.encode("utf-8", "surrogatepass")) for one in wrote) / len(wrote)
        size = float(SCORE_BYTES * len(run.instances) * len(run.metrics))
        if not written:
            # An answer is taken to be as long as what the user wrote.
            size += counted.need.calls * (ROW_BYTES + text) + len(run.instances) * (ROW_BYTES + 2 * text)
        return size


def _together(parts: Sequence[Counted]) -> Counted:
    """Parts of a run as one; blocks are then those of a prompt, on average."""
    of = sum(part.of for part in parts)
    return Counted(
        sum((part.need for part in parts), NOTHING),
        sum(part.instances for part in parts),
        sum(part.blocks_shown for part in parts) / max(of, 1),
        sum(part.blocks_offered for part in parts) / max(of, 1),
        sum(part.sampled for part in parts),
        of,
        tuple(call for part in parts for call in part.calls),
    )


def _is_trained(adapter: TrainedAdapter) -> bool:
    """Whether an adapter is trained; what is damaged is made again."""
    try:
        return adapter.is_trained
    except DamagedError:
        return False


def _is_chosen(adapter: TrainedAdapter) -> bool:
    """Whether the epoch of an adapter is chosen."""
    try:
        return adapter.selection is not None
    except DamagedError:
        return False


def _trained_on(adapter: TrainedAdapter) -> int:
    """Tokens that a training that was stopped has behind it, of which those since its last checkpoint come again."""
    try:
        return sum(step.tokens for step in adapter.files.steps())
    except DamagedError:
        return 0


def _parameters(adapter: TrainedAdapter) -> int | None:
    """How many numbers the adapter learns; None where the language model's configuration is not here."""
    import torch

    try:
        width = hidden_size(adapter.training.config.model)
    except (ResourceError, OSError, ValueError):
        return None
    encoder = adapter.method.encoder
    with torch.device("meta"):
        module = adapter.method.adapter(_dimension(encoder) if encoder else 0, width)
    return sum(parameter.numel() for parameter in module.parameters())


def _dimension(encoder: str) -> int:
    """How many numbers an encoder's vectors have."""
    if encoder == HASHED_NGRAMS:
        return 512
    try:
        return hidden_size(encoder.partition("?")[0])
    except (ResourceError, OSError, ValueError):
        return DIMENSION


def _vectors(jobs: Sequence[Job]) -> dict[str, float]:
    """Bytes of the vectors of profiles that are not on disk, by encoder: a method's encoder embeds all of them ahead.
    Which ones are there is told by their number alone."""
    texts: dict[tuple[str, Path], set[str]] = {}
    for job in jobs:
        if (encoder := getattr(job.run.method, "encoder", None)) is None or job.is_written:
            continue
        kept = texts.setdefault((encoder, job.config.results), set())
        for corpus in job.run.corpora.values():
            for instances in corpus.instances.values():
                kept.update(record.text for instance in instances for record in instance.profile)
    sizes: dict[str, float] = {}
    for (encoder, results), unique in texts.items():
        needed = len(unique) * (36 + 4 * _dimension(encoder))
        left = max(needed - _held(encoder, results), 0)
        sizes[encoder] = sizes.get(encoder, 0.0) + left
    return {encoder: size for encoder, size in sizes.items() if size}


def _held(encoder: str, results: Path) -> int:
    try:
        return EmbeddingCache(results / "embeddings").size(encoder)
    except ResourceError:
        return 0


def _judged(job: Job) -> int:
    """Predictions that metrics ask a model about: those of which the run's folder holds no score."""
    asking = [name for name, metric in job.run.metrics.items() if getattr(metric, "asks", False)]
    if not asking:
        return 0
    try:
        rows = list(rows_of(ScoreRow, job.folder / "scores.jsonl", identity_hash(job.identity)))
    except DamagedError:
        rows = []
    scored = {(row.metric, row.signature) for row in rows}
    signatures = {name: job.run.metrics[name].signature() for name in asking}
    return sum(len(job.instances) for name in asking if (name, signatures[name]) not in scored)
