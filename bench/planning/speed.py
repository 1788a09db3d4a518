"""How fast this machine works, and how long a plan then takes.

Reading a prompt and writing an answer are told apart: a token of a prompt is cheap, all of them go through the model
together, a token of an answer takes a pass of its own. A table's rows differ in both by factors of ten.

The probe measures the two in two phases: first with answers of a single token, so that nearly all of the time goes into
prompts, then with answers as long as the model makes them, of which the prompts' share is taken off. A fit of both
speeds to the times of single calls would not do: calls run side by side and have no time of their own.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import harmonic_mean
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from bench.backends import Engines
from bench.errors import BackendError, ConfigError
from bench.job import Job
from bench.planning.calls import Need
from bench.planning.plan import AdapterPlan, Plan, RunPlan
from bench.protocols import Backend
from bench.records import Call, Completion
from bench.softprompt.trained import table_shape
from bench.timing.subjects import time_training

SECONDS = 30.0
"""About how long the probe of an engine takes, its start apart."""
FIRST = 4
"""Calls of the first round that counts; before it one call warms the engine up."""
LONGEST = 256
"""Tokens of an answer in the probe at most: more would tell no more, and take minutes."""

Engine = tuple[str, str]
"""A backend and a model."""


@dataclass(frozen=True)
class Speed:
    """Tokens of prompts and of answers a second."""

    prompt: float
    new: float

    def seconds(self, need: Need) -> float:
        """How long the calls take, with answers as they are expected."""
        return need.prompt_tokens / self.prompt + need.new_tokens / self.new

    def most_seconds(self, need: Need) -> float:
        """The same with all prompts and answers as long as they can be."""
        return need.most_prompt_tokens / self.prompt + need.most_new_tokens / self.new


@dataclass(frozen=True)
class Speeds:
    """What a plan's time is reckoned with: speeds of engines, and tokens a second of training by method. `given` ones
    are of every engine and method that has none of its own. `told` says where they are from."""

    given: Speed | None = None
    given_training: float | None = None
    engines: Mapping[Engine, Speed] = field(default_factory=dict)
    training: Mapping[str, float] = field(default_factory=dict)
    told: tuple[str, ...] = ()

    def of(self, job: Job) -> Speed | None:
        """The speed of a job's engine; None if it is not known."""
        return self.engines.get(_engine(job), self.given)

    def of_training(self, adapter: AdapterPlan) -> float | None:
        """Tokens a second of an adapter's training; None if it is not known."""
        return self.training.get(adapter.adapter.training.config.method, self.given_training)

    def run_seconds(self, run: RunPlan, most: bool = False) -> float | None:
        """How long a run's calls take."""
        if not run.counted.need.calls:
            return 0.0
        return None if (speed := self.of(run.job)) is None else _seconds(speed, run.counted.need, most)

    def adapter_seconds(self, plan: AdapterPlan, most: bool = False) -> float | None:
        """How long an adapter's training and validation take."""
        training, speed = self.of_training(plan), self.of(plan.job)
        if speed is None or (plan.tokens_left and training is None):
            return None
        trained = plan.tokens_left / training if training else 0.0
        return trained + _seconds(speed, plan.validation.need, most)


def _seconds(speed: Speed, need: Need, most: bool) -> float:
    return speed.most_seconds(need) if most else speed.seconds(need)


def _engine(job: Job) -> Engine:
    return job.config.backend, job.config.model


# ---- the probe


def probe(plan: Plan, say: Callable[[str], None], seconds: float = SECONDS) -> Speeds:
    """Measure the speeds of a plan's own engines on its own prompts, and of a few steps of each method's training.
    Nothing of it is kept. Raises `BenchError`; `ConfigError` for a plan without a tokenizer."""
    if plan.estimate:
        raise ConfigError("--probe asks a model, for which the tokenizer has to be here; leave out --estimate-tokens")
    training = {}
    for adapter in plan.adapters:
        method = adapter.adapter.training.config.method
        if adapter.tokens_left and method not in training:
            say(f"probe: some steps of training {method}")
            training[method] = _training_speed(adapter)
    engines: dict[Engine, Speed] = {}
    told = []
    calls = _calls(plan)
    for engine, weighed in calls.items():
        soft = any(job.adapter is not None for job, _, _ in weighed)
        with Engines(vectors=soft) as running:
            found = _Rounds(weighed, running).measure(seconds)
        engines[engine] = found.speed
        told.append(
            f"Probe of {engine[1]}: {found.calls} calls side by side, {found.speed.prompt:,.0f} prompt and "
            f"{found.speed.new:,.0f} new tokens a second; answers had {found.mean:.0f} tokens, of {LONGEST} at most."
        )
    told += [f"Probe of training {method}: {speed:,.0f} tokens a second." for method, speed in training.items()]
    return Speeds(engines=engines, training=training, told=tuple(told))


def _training_speed(adapter: AdapterPlan) -> float:
    """Tokens a second of a few optimiser steps; the features are stand-ins. Twice over the same instances: later epochs
    find prefixes that the first one leaves (`bench.softprompt.decoder.Prefixes`)."""
    with TemporaryDirectory(prefix="bench-plan-") as folder:
        found = time_training(adapter.adapter, Path(folder), warmup=0, repeats=2)
    speed = harmonic_mean(found["instances_per_second"])
    return float(speed * adapter.tokens / max(adapter.instances, 1))


Weighed = list[tuple[Job, Call, float]]
"""Calls of jobs, each with how many it stands for."""


def _calls(plan: Plan) -> dict[Engine, Weighed]:
    """The calls of a plan's samples, by engine."""
    found: dict[Engine, Weighed] = {}
    counted = [(run.job, run.counted) for run in plan.runs]
    counted += [(adapter.job, adapter.validation) for adapter in plan.adapters]
    for job, one in counted:
        for call in one.calls:
            found.setdefault(_engine(job), []).append((job, call, one.need.calls / len(one.calls)))
    return found


@dataclass(frozen=True)
class _Found:
    """What a round of two phases gave: so many calls in each, and the mean length of their answers in tokens."""

    speed: Speed
    calls: int
    mean: float


class _Rounds:
    """Rounds of twice as many calls as the last one, each of other calls, until one has the run's own batch or the time
    is up: the last one counts."""

    def __init__(self, weighed: Weighed, engines: Engines) -> None:
        self._weighed = weighed
        self._engines = engines
        self._random = np.random.default_rng(0)
        self._asked = 0
        self._window = max(job.config.window for job, _, _ in weighed)

    def measure(self, seconds: float) -> _Found:
        section = self._weighed[0][0].config.engine.backend_section
        most = min(int(getattr(section, "max_num_seqs", self._window)), self._window)
        size = min(FIRST, most)
        self._round(1)
        started = perf_counter()
        while True:
            begun = perf_counter()
            found = self._round(size)
            now = perf_counter()
            # The next round takes at most twice as long.
            if size >= most or now - started + 2 * (now - begun) > seconds:
                return found
            size = min(2 * size, most)

    def _round(self, size: int) -> _Found:
        short, read, _ = self._ask(size, 1)
        prompt = read / short
        whole, read, written = self._ask(size, LONGEST)
        # Where nearly nothing is left, answers cost next to nothing.
        rest = max(whole - read / prompt, 0.01 * whole)
        return _Found(Speed(prompt, written / rest), size, written / size)

    def _ask(self, size: int, new_tokens: int) -> tuple[float, int, int]:
        """Have the engine answer so many calls, side by side, in `new_tokens` at most; seconds, tokens of prompts and
        of answers."""
        weights = np.array([weight for _, _, weight in self._weighed])
        chosen = self._random.choice(len(weights), size, p=weights / weights.sum())
        calls = [self._call(place, new_tokens) for place in chosen]
        # The one whose engine takes the longest calls.
        job = max((job for job, _, _ in self._weighed), key=_longest)
        backend = self._engines.get(job.config, job.run.chat, vectors=job.adapter is not None)
        started = perf_counter()
        answers = _answered(backend, calls, self._window)
        seconds = perf_counter() - started
        if any(answer.completion_tokens is None for answer in answers):
            raise BackendError("the server does not say how many tokens it wrote (usage), which a probe needs")
        read = sum(job.run.chat.count(call.prompt) for call in calls)
        return seconds, read, sum(max(answer.completion_tokens or 0, 1) for answer in answers)

    def _call(self, place: int, new_tokens: int) -> Call:
        job, call, _ = self._weighed[place]
        self._asked += 1
        vectors, marks = None, {}
        if call.prompt.slots:
            rows, width = table_shape(job.config.model)
            vectors = self._drawn(len(call.prompt.slots), width)
            marks = {mark: self._drawn(width) for mark in job.run.chat.mark_ids(call.prompt.marks, rows)}
        limit = min(call.max_new_tokens, new_tokens)
        key = (f"probe-{self._asked}", *call.key[1:])
        return replace(call, key=key, seed=self._asked, vectors=vectors, marks=marks, max_new_tokens=limit)

    def _drawn(self, *shape: int) -> NDArray[np.float32]:
        """Vectors about as large as a token's embedding."""
        return self._random.normal(scale=0.02, size=shape).astype(np.float32)


def _longest(job: Job) -> int:
    return job.config.longest_prompt + job.config.max_new_tokens


def _answered(backend: Backend, calls: Sequence[Call], window: int) -> list[Completion]:
    """The answers to calls, of which as many as a run would have are in flight."""
    waiting, answers, in_flight = deque(calls), [], 0
    turn = getattr(backend, "a_turn", sys.maxsize)
    while waiting or in_flight:
        for _ in range(min(turn, window - in_flight, len(waiting))):
            backend.submit(waiting.popleft())
            in_flight += 1
        for _, answer in backend.completed():
            in_flight -= 1
            answers.append(answer)
    return answers
