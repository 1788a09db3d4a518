"""Several vLLM engines, each in a Ray actor: on the GPUs of this machine or a cluster, or sharing this machine's cores.

This process reads, renders, tokenises and stores; the engines (`bench.backends._ray_engine`) get token ids and vectors.
A call goes to the engine with the fewest, and belongs to it until its answer is here: when an engine ends, hangs or
answers what nobody asked, it is started anew, and what it had is sent again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import Field

from bench import cluster, machine, registry
from bench.backends._ray_engine import About, Engine, Key, Report, encoded, versions
from bench.chat import Chat
from bench.config import RUNTIME, RunConfig, Section
from bench.errors import BackendError, ConfigError
from bench.models import fingerprint
from bench.problems import at_most
from bench.progress import duration, say
from bench.records import Call, Completion

WITHOUT_GPU = 2
"""Engines where the configuration names no number and there is no GPU."""
ASKED = 2
"""Requests for a while of work that an engine has at a time: it goes on with the second while the first is on its
way."""
HUNGRY, FULL = 0.01, 0.25
"""Seconds that an answer is waited for while there is room for more calls, and while there is none."""
GO_ON = "What was finished is kept; run again to go on."


class RaySettings(Section):
    """Engines side by side; what each of them is stands in the section of its own backend (vllm). None of it changes a
    text."""

    engines: Annotated[int | None, Field(ge=1), at_most(4096, "no cluster has so many GPUs"), RUNTIME] = None
    """Default: as many as the GPUs are enough for; 2 where there is none."""
    timeout: Annotated[float, Field(gt=0), at_most(86_400, "a day is enough for any start"), RUNTIME] = 600.0
    """Seconds without a sign of life, a start included, after which an engine counts as hung."""
    restarts: Annotated[int, Field(ge=0), at_most(1000, "an engine that ends so often is broken"), RUNTIME] = 3
    """How often an engine that ended or hung is started anew before the run goes on without it."""


@dataclass(eq=False)
class _Engine:
    """An engine as it is seen from here."""

    number: int
    actor: Any = None
    where: str = ""
    ready: bool = False
    ends: int = 0
    open: dict[Key, Call] = field(default_factory=dict)
    """What it has to answer."""
    unsent: list[Call] = field(default_factory=list)
    """Those of it that it does not have yet, encoded."""
    asked: list[Any] = field(default_factory=list)
    """References to answers of the actor that are to come."""
    sign: float = 0.0
    """When it last was heard of, or first asked."""

    @property
    def name(self) -> str:
        return f"engine {self.number}{self.where}"


class RayBackend:
    """Runs calls on `ray.engines` engines. Raises `BackendError` if none can start."""

    settings: ClassVar[type[Section]] = RaySettings
    takes_vectors: ClassVar[bool] = True
    applies_template: ClassVar[bool] = True
    timing: ClassVar[Mapping[str, object]] = {}
    spreads: ClassVar[str] = "vllm"
    a_turn: ClassVar[int] = 16
    """So few that answers are stored soon, also while the window fills."""

    def __init__(self, config: RunConfig, chat: Chat, vectors: bool) -> None:
        section = config.backend_section
        assert isinstance(section, RaySettings)
        self._section = section
        self._chat = chat
        self._window = config.window
        self._waiting: deque[Call] = deque()
        self._engines: list[_Engine] = []
        self._without: list[str] | None = []
        """Sentences on engines that do not start, kept until one has: where none does, the error says it."""
        self._exit = ExitStack()
        self._ray = self._exit.enter_context(cluster.joined())
        try:
            self._model = fingerprint(config.model)
            self._versions = versions()
            self._need, count, threads = self._share(config)
            self._arguments = (cluster.portable(config.engine), chat.opens_thought, vectors, threads)
            self._start(count, config.model)
        except BaseException:
            self.close()
            raise

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raises `ResourceError` where Ray is not installed, and what an engine's own check does."""
        cluster.check()
        registry.load("backends", cls.spreads).check(config.engine)

    @classmethod
    def device(cls) -> str:
        """This machine's, or a cluster's, which nobody knows before it is joined."""
        return machine.device() if cluster.is_local() else "a Ray cluster"

    @property
    def engines(self) -> int:
        """How many engines there are: each has room for a window of calls."""
        return len(self._engines)

    # ---- starting

    def _share(self, config: RunConfig) -> tuple[dict[str, float], int, int]:
        """What an engine needs of Ray, how many there are, and how many threads each has (0: what it takes). Raises
        `ConfigError` for more than the cluster has."""
        gpus = cluster.gpus(self._ray)
        if not any(gpus):
            # Nothing is reserved: engines share the cores with each other and with this process.
            count = self._section.engines or WITHOUT_GPU
            cores = cluster.cores(self._ray)
            return {"num_cpus": 0}, count, max(1, min(cores) // -(-count // len(cores)))
        each = int(getattr(config.engine.backend_section, "tensor_parallel_size", 1))
        room = sum(number // each for number in gpus)
        count = self._section.engines or room
        if not 0 < count <= room:
            raise ConfigError(
                f"ray.engines={self._section.engines or 'as many as fit'} with {config.engine.backend}."
                f"tensor_parallel_size={each}: the nodes have {', '.join(map(str, gpus))} GPUs, room for {room} engines"
            )
        return {"num_cpus": 0, "num_gpus": each}, count, 0

    def _start(self, count: int, model: str) -> None:
        say(f"starting {count} engines with {model} on {'this machine' if cluster.is_local() else 'the Ray cluster'}")
        started = time.perf_counter()
        self._engines = [_Engine(number) for number in range(1, count + 1)]
        for engine in self._engines:
            self._begin(engine)
        while not all(engine.ready for engine in self._engines):
            for engine, report in self._heard(FULL):
                list(self._taken(engine, report))
        for sentence in self._without or ():
            say(sentence)
        self._without = None
        say(f"{len(self._engines)} engines started in {duration(time.perf_counter() - started)}")

    def _begin(self, engine: _Engine) -> None:
        """Start an engine, or start it anew."""
        # Ray starts none of its own accord: one that is back would not have the calls that the last one had.
        actor = self._ray.remote(max_restarts=0, max_task_retries=0, **self._need)(Engine)
        engine.actor = actor.remote()
        engine.where, engine.ready, engine.sign = "", False, time.perf_counter()
        engine.asked = [engine.actor.start.remote(*self._arguments)]

    # ---- calls

    def submit(self, call: Call) -> None:
        """Queue a call. Raises `PluginError` for slots that its text does not hold."""
        self._waiting.append(call)

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        """Answers that are there, waiting a moment for the first. Raises `BackendError` once no engine is left,
        `BenchError` for a call that no engine can take."""
        self._send()
        room = sum(self._window - len(engine.open) for engine in self._engines)
        for engine, report in self._heard(HUNGRY if room > 0 else FULL):
            yield from self._taken(engine, report)
        self._send()

    def _send(self) -> None:
        """Give the engines calls, and something to do to each that has any."""
        able = [engine for engine in self._engines if engine.ready]
        while self._waiting and able:
            engine = min(able, key=lambda one: len(one.open))
            if len(engine.open) >= self._window:
                break
            call = self._waiting.popleft()
            engine.open[call.key] = call
            engine.unsent.append(encoded(call, self._chat))
        for engine in able:
            while engine.open and len(engine.asked) < ASKED:
                if not engine.asked:
                    engine.sign = time.perf_counter()
                engine.asked.append(engine.actor.work.remote(engine.unsent))
                engine.unsent = []

    def _heard(self, seconds: float) -> Iterator[tuple[_Engine, About | Report]]:
        """What engines said, waiting for the first. One that ended or hung has a report of it."""
        by_reference = {reference: engine for engine in self._engines for reference in engine.asked}
        if not by_reference:
            return
        references = list(by_reference)
        ready, _ = self._ray.wait(references, num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        for reference in ready:
            engine = by_reference[reference]
            if reference not in engine.asked:
                # Of an engine that has ended meanwhile.
                continue
            engine.asked.remove(reference)
            engine.sign = time.perf_counter()
            try:
                said = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                said = Report(failed=_why_it_ended(error), died=True)
            yield engine, said
        now = time.perf_counter()
        for engine in list(self._engines):
            if engine.asked and now - engine.sign > self._section.timeout:
                yield engine, Report(failed=f"gave no sign for {self._section.timeout:g} s (ray.timeout)")

    def _taken(self, engine: _Engine, said: About | Report) -> Iterator[tuple[Call, Completion]]:
        """The answers in what an engine said, each the first and only one to its call; then what is wrong."""
        if isinstance(said, About):
            self._settle(engine, said)
            return
        failed = said.failed
        for key, completion in said.answers:
            if isinstance(completion, Completion) and (call := engine.open.pop(key, None)) is not None:
                yield call, completion
            else:
                failed = failed or f"answered what it was not asked, {key}"
        if said.refused is not None:
            raise said.refused
        if failed:
            self._ended(engine, failed, engine.ready or said.died)

    def _settle(self, engine: _Engine, about: About) -> None:
        """An engine is ready, if it runs what this process does."""
        engine.where = f" on {about.node} (process {about.process})"
        unlike = [
            f"{package} {about.versions.get(package, 'not at all')} instead of {self._versions.get(package, 'none')}"
            for package in sorted({*self._versions, *about.versions})
            if about.versions.get(package) != self._versions.get(package)
        ]
        if unlike:
            raise BackendError(f"{engine.name} has {unlike[0]}: every node needs the environment of this process")
        if about.model != self._model:
            raise BackendError(
                f"{engine.name} has other files under the name of the model than this process: every node needs the "
                "same, by a path that they share or by its name on the hub"
            )
        engine.ready = True

    def _ended(self, engine: _Engine, why: str, again: bool) -> None:
        """Take back what an engine had, and start it `again`, or go on without it. Raises `BackendError` if none is
        left."""
        name, calls = engine.name, len(engine.open)
        self._waiting.extendleft(reversed(engine.open.values()))
        engine.open, engine.unsent, engine.asked = {}, [], []
        self._ray.kill(engine.actor)
        engine.ends += 1
        sent = f", its {calls} calls are sent again" if calls else ""
        if again and engine.ends <= self._section.restarts:
            say(f"{name} {why}; it is started anew{sent}")
            self._begin(engine)
            return
        self._engines.remove(engine)
        if not self._engines:
            raise BackendError(f"no engine is left; the last, {name}, {why.rstrip('.')}. {GO_ON}")
        sentence = f"{name} {why}; going on without it{sent}"
        if self._without is None:
            say(sentence)
        else:
            self._without.append(sentence)

    def close(self) -> None:
        """End the engines, with what they have, and the cluster if it is this run's own."""
        for engine in self._engines:
            self._ray.kill(engine.actor)
        self._engines = []
        self._waiting.clear()
        self._exit.close()


def _why_it_ended(error: Exception) -> str:
    """What became of an engine that Ray has no answer of."""
    text = " ".join(str(error).split())
    if "running low on memory" in text:
        return "was ended by Ray because its node ran out of memory"
    if "ModuleNotFoundError" in text or "failed to import" in text:
        return f"cannot import what this process runs: {text[-200:]}"
    kind = type(error).__name__
    if kind in ("ActorDiedError", "ActorUnavailableError", "WorkerCrashedError", "LocalRayletDiedError"):
        return "has ended without a word (its process was killed, or its node is gone)"
    return f"failed: {text[-300:]}"
