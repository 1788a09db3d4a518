"""The loop of a run: instances through their method's steps, calls through a backend, answers to where they are kept.

A bounded window of calls is in flight. An instance's next calls go out the moment its last answers are in: no
barrier between stages, and never a list of all prompts in memory. A replay and a dry run go the same way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.progress import Progress
from bench.protocols import Backend
from bench.records import Call, Completion, Instance, Prompt
from bench.resolved import Run
from bench.results import Prediction
from bench.store import Generations, stored_completion
from bench.work import Work

VectorsOf = Callable[[Prompt, Instance], NDArray[np.float32]]
"""A row for each slot of an instance's prompt, shape (slots, hidden_size)."""


class Answers(Protocol):
    """Where answers are kept: a run's store."""

    def completion(self, call: Call) -> Completion | None:
        """The answer to a call, if it is there."""
        ...

    def append(self, call: Call, completion: Completion) -> None:
        """Keep an answer."""
        ...


class Loop:
    """Makes the predictions of a run.

    `engine` gives the backend on the first call whose answer is not there; `vectors` make those of prompts with slots.
    """

    def __init__(
        self, run: Run, answers: Answers, engine: Callable[[], Backend], vectors: VectorsOf | None, label: str
    ) -> None:
        self._run = run
        self._answers = answers
        self._engine = engine
        self._vectors = vectors
        self._backend: Backend | None = None
        self._waiting = iter(run.instances)
        self._working: dict[str, Work] = {}
        self._ready: deque[Call] = deque()
        self._in_flight = 0
        self._rows: dict[str, Prediction] = {}
        self._progress = Progress(label, len(run.instances))

    def predictions(self) -> list[Prediction]:
        """All predictions, in the order of the instances. Raises `BenchError`; answers that came are kept."""
        try:
            self._fill()
            while self._in_flight:
                self._collect()
                self._fill()
        finally:
            self._progress.close()
        return [self._rows[instance.id] for instance in self._run.instances]

    def _fill(self) -> None:
        """Submit calls, and begin instances, until the window is full."""
        while self._in_flight < self._run.config.window:
            if self._ready:
                self._submit(self._ready.popleft())
            elif (instance := next(self._waiting, None)) is not None:
                self._proceed(Work(self._run, instance))
            else:
                return

    def _submit(self, call: Call) -> None:
        if self._backend is None:
            self._backend = self._engine()
            self._progress.start()
        if call.prompt.slots and self._vectors is not None:
            call = replace(call, vectors=self._vectors(call.prompt, self._run.by_id[call.key[0]]))
        self._backend.submit(call)
        self._in_flight += 1

    def _proceed(self, work: Work) -> None:
        """Advance an instance as far as known answers reach; its calls without one become ready."""
        calls = work.proceed(self._known)
        if calls:
            self._ready.extend(calls)
            self._working[work.instance.id] = work
            return
        self._rows[work.instance.id] = work.row()
        self._working.pop(work.instance.id, None)
        self._progress.update(finished=1, spent=len(work.exchanged), note=self._note)

    def _known(self, call: Call) -> Completion | None:
        completion = self._answers.completion(call)
        if completion is not None:
            self._progress.update(calls=1)
        return completion

    def _collect(self) -> None:
        """Take the answers that are ready, waiting for at least one."""
        assert self._backend is not None
        for call, completion in self._backend.completed():
            self._answers.append(call, completion)
            self._in_flight -= 1
            self._progress.update(calls=1, tokens=completion.completion_tokens or 0, note=self._note)
            work = self._working[call.key[0]]
            if work.answer(call, completion):
                self._proceed(work)

    @property
    def _note(self) -> str:
        return f"{self._in_flight} calls in flight"


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
