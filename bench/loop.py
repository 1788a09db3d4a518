"""The loop of a run: instances through their method's steps, calls through a backend, answers to where they are kept.

A bounded window of calls is in flight. An instance's next calls go out as soon as its last answers are in: no
barrier between stages, and never a list of all prompts in memory. A replay and a dry run go the same way.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from bench.ahead import Ahead
from bench.progress import Progress
from bench.protocols import Backend
from bench.records import Call, Completion, Instance, Prompt
from bench.resolved import Run
from bench.results import Prediction
from bench.store import Generations, stored_completion
from bench.work import Work

if TYPE_CHECKING:
    from bench.softprompt.vectors import PromptVectors


class Answers(Protocol):
    """Where answers are kept: a run's store."""

    def completion(self, call: Call) -> Completion | None:
        """The answer to a call, if it is there."""
        ...

    def append(self, call: Call, completion: Completion) -> None:
        """Keep an answer."""
        ...


AHEAD = 64
"""How many instances are advanced before their calls have room in the window."""
WORTH_SAYING = 0.02
"""The share of the time that the backend waits from which on progress says so."""


@dataclass
class Seconds:
    """Where the time of a run's texts went: `rendering`, the making of prompts and their vectors, mostly beside the
    engine; `engine`, inside the backend since it was started; `idle`, the rest since then, in which an engine in this
    process had nothing to do."""

    rendering: float
    engine: float
    idle: float

    def __str__(self) -> str:
        return f"rendering {self.rendering:.1f} s, engine {self.engine:.1f} s, idle {self.idle:.1f} s"


@dataclass
class _Step:
    """An instance that was advanced: its next calls, none if it is done, and how many stored answers it took in."""

    work: Work
    calls: list[Call]
    known: int


class Loop:
    """Makes the predictions of a run, or of some of its `instances`.

    `engine` gives the backend on the first call whose answer is not there; `vectors` make those of prompts with slots;
    `each` foretells how many calls an instance takes.
    Instances are advanced ahead of the backend, in a thread. What the backend is given, and when, hangs on no clock: an
    instance's next calls go out at the next turn but one after its last answer, before those of instances that begin.
    """

    def __init__(
        self,
        run: Run,
        answers: Answers,
        engine: Callable[[], Backend],
        vectors: PromptVectors | None,
        label: str,
        instances: Sequence[Instance] | None = None,
        each: int = 0,
    ) -> None:
        self._run = run
        self._instances = run.instances if instances is None else instances
        self._answers = answers
        self._engine = engine
        self._vectors = vectors
        self._backend: Backend | None = None
        self._a_turn = sys.maxsize
        self._window = run.config.window
        self._waiting = iter(self._instances)
        self._ahead = Ahead(self._advance)
        self._begun: deque[Future[_Step]] = deque()
        self._continued: deque[Future[_Step]] = deque()
        self._due = 0
        """How many of `_continued` are waited for in this turn."""
        self._working: dict[str, Work] = {}
        self._ready: deque[Call] = deque()
        self._in_flight = 0
        self._rows: dict[str, Prediction] = {}
        self._progress = Progress(label, len(self._instances), each)
        self._started: float | None = None
        self._ended = 0.0
        self._engine_seconds = 0.0

    def predictions(self) -> list[Prediction]:
        """All predictions, in the order of the instances. Raises `BenchError`; answers that came are kept."""
        try:
            while self._fill():
                self._collect()
        finally:
            self._ended = perf_counter()
            self._ahead.close()
            self._progress.close()
        return [self._rows[instance.id] for instance in self._instances]

    @property
    def seconds(self) -> Seconds | None:
        """Where the time went; None if no backend was asked."""
        if self._started is None:
            return None
        idle = (self._ended or perf_counter()) - self._started - self._engine_seconds
        return Seconds(self._ahead.seconds, self._engine_seconds, max(idle, 0.0))

    def _fill(self) -> bool:
        """A turn: calls go out until the window is full, or as many as the backend takes at a time. Whether any is in
        flight."""
        room = self._window - self._in_flight
        while room > 0:
            if self._ready:
                self._submit(self._ready.popleft())
                room = min(room, self._a_turn) - 1
            elif (step := self._next()) is not None:
                self._take(step.result())
            else:
                break
        self._due = len(self._continued)
        self._look_ahead()
        return self._in_flight > 0

    def _next(self) -> Future[_Step] | None:
        """The instance whose calls are next."""
        if self._due or (self._continued and not self._in_flight):
            self._due = max(self._due - 1, 0)
            return self._continued.popleft()
        if self._backend is None:
            # Nothing to be ahead of: stored answers are looked up here, and the engine starts on the first that lacks.
            instance = next(self._waiting, None)
            return None if instance is None else self._ahead.here(Work(self._run, instance))
        self._look_ahead()
        return self._begun.popleft() if self._begun else None

    def _look_ahead(self) -> None:
        """Have the next instances begun."""
        if self._backend is not None:
            while len(self._begun) < AHEAD and (instance := next(self._waiting, None)) is not None:
                self._begun.append(self._ahead.ask(Work(self._run, instance), urgent=False))

    def _advance(self, work: Work) -> _Step:
        """In the thread: advance an instance as far as stored answers reach."""
        before = len(work.exchanged)
        calls = work.proceed(self._answers.completion)
        if self._backend is not None:
            calls = [self._with_vectors(call) for call in calls]
        return _Step(work, calls, len(work.exchanged) - before)

    def _take(self, step: _Step) -> None:
        work = step.work
        self._progress.update(calls=step.known)
        if step.calls:
            self._ready.extend(step.calls)
            self._working[work.instance.id] = work
            return
        self._rows[work.instance.id] = work.row()
        self._working.pop(work.instance.id, None)
        self._progress.update(finished=1, spent=len(work.exchanged), note=self._note)

    def _with_vectors(self, call: Call) -> Call:
        if self._vectors is None or not call.prompt.slots or call.vectors is not None:
            return call
        vectors = self._vectors.of(call.prompt, self._run.by_id[call.key[0]])
        return replace(call, vectors=vectors, marks=self._vectors.marks)

    def _submit(self, call: Call) -> None:
        if self._backend is None:
            self._backend = self._engine()
            self._a_turn = getattr(self._backend, "a_turn", self._a_turn)
            self._window *= getattr(self._backend, "engines", 1)
            self._progress.start()
        # Of the instances before the engine was there: it decides with how many threads vectors are made.
        call = self._with_vectors(call)
        started = perf_counter()
        self._started = self._started or started
        self._backend.submit(call)
        self._engine_seconds += perf_counter() - started
        self._in_flight += 1

    def _collect(self) -> None:
        """Let the backend work, and take the answers that are ready."""
        assert self._backend is not None
        answers = self._backend.completed()
        while True:
            started = perf_counter()
            answer = next(answers, None)
            self._engine_seconds += perf_counter() - started
            if answer is None:
                return
            self._answer(*answer)

    def _answer(self, call: Call, completion: Completion) -> None:
        self._answers.append(call, completion)
        self._in_flight -= 1
        self._progress.update(calls=1, tokens=completion.completion_tokens or 0, note=self._note)
        work = self._working[call.key[0]]
        if work.answer(call, completion):
            self._continued.append(self._ahead.ask(work, urgent=True))

    @property
    def _note(self) -> str:
        note = f"{self._in_flight} calls in flight"
        if (seconds := self.seconds) is None or not seconds.engine:
            return note
        share = seconds.idle / (seconds.idle + seconds.engine)
        return f"{note}, {share:.0%} of the time it waits for prompts" if share >= WORTH_SAYING else note


def replay(run: Run, instance: Instance, generations: Generations) -> Work:
    """An instance as far as its stored answers reach: its prompts with their answers, and its prediction; the latter is
    None where an answer is missing.

    A prompt is first rendered as if everything fitted the budget: an answer belongs to it only by the hash of the whole
    prompt, so a wrong guess finds none. The tokenizer is loaded where a guess was wrong."""
    known = partial(stored_completion, generations)
    guess = Work(run.unmeasured, instance)
    guess.proceed(known)
    if guess.prediction is not None:
        return guess
    work = Work(run, instance)
    work.proceed(known)
    return work


@dataclass
class Stage:
    """What a run asks of the model at one stage: the first prompt, how many calls, how many prompt tokens."""

    first: Prompt
    calls: int = 0
    prompt_tokens: int = 0


class _Placeholders:
    """A backend that answers each call with a placeholder, at once, and counts; it keeps no answers."""

    def __init__(self, run: Run, look: Callable[[Prompt], None]) -> None:
        self._run = run
        self._look = look
        self._waiting: list[Call] = []
        self.stages: dict[str, Stage] = {}

    def submit(self, call: Call) -> None:
        stage = self.stages.setdefault(call.prompt.stage, Stage(call.prompt))
        stage.calls += 1
        stage.prompt_tokens += self._run.chat.count(call.prompt)
        self._look(call.prompt)
        self._waiting.append(call)

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            yield call, Completion(f"(the answer to {call.prompt.stage})", 0, 0, "stop", 0.0)

    def completion(self, call: Call) -> Completion | None:
        return None

    def append(self, call: Call, completion: Completion) -> None:
        pass


def dry_run(run: Run, look: Callable[[Prompt], None] = lambda _: None) -> dict[str, Stage]:
    """Every prompt of the run, counted by stage and given to `look`, with a placeholder for each answer. Loads no
    language model, and an encoder only where the text of prompts hangs on vectors (DPL, a retriever).

    Prompts that quote an earlier answer are as long as they are with the placeholder.
    """
    counting = _Placeholders(run, look)
    Loop(run, counting, lambda: counting, None, f"{run.config.method}, dry run").predictions()  # type: ignore[arg-type,return-value]
    return counting.stages


def first_stage(run: Run) -> Iterator[dict[str, Any]]:
    """What the model is asked first, a JSON object for each prompt of each instance: "instance", "stage" and "index",
    which name the call; "text", the conversation in the model's template, and "tokens", its length; "blocks_shown", the
    history blocks in it, and "slots", its placeholders for vectors. Loads what `dry_run` does."""
    progress = Progress(f"{run.config.method}, first prompts", len(run.instances))
    progress.start()
    for instance in run.instances:
        for call in Work(run, instance).advance():
            name, stage, index = call.key
            yield {
                "instance": name,
                "stage": stage,
                "index": index,
                "text": run.chat.text(call.prompt),
                "tokens": run.chat.count(call.prompt),
                "blocks_shown": call.prompt.blocks_shown,
                "slots": list(call.prompt.slots),
            }
        progress.update(finished=1)
    progress.close()
