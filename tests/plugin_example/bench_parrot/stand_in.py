"""stand_in: an engine that takes the same time for every call, one after another, and can be told to break; `several`:
engines of it in Ray actors."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np

from bench.backends.ray import RayBackend
from bench.chat import Chat
from bench.config import GENERATION, RUNTIME, RunConfig, Section
from bench.errors import BackendError
from bench.records import Call, Completion


class StandInSettings(Section):
    """How fast it is, and how it breaks."""

    seconds: Annotated[float, RUNTIME] = 0.0
    words: Annotated[int, GENERATION] = 2
    fault: Annotated[Literal["none", "dies", "hangs", "rubbish", "fails", "no start"], RUNTIME] = "none"
    after: Annotated[int, RUNTIME] = 0
    """How many calls it answers before."""
    once: Annotated[str, RUNTIME] = ""
    """A file: the engine that makes it breaks, and no other one."""


class StandIn:
    """Answers each call with a text that hangs on its prompt's tokens, its vectors and its seed."""

    settings: ClassVar[type[Section]] = StandInSettings
    takes_vectors: ClassVar[bool] = True
    applies_template: ClassVar[bool] = True
    timing: ClassVar[Mapping[str, object]] = {}

    def __init__(self, config: RunConfig, chat: Chat, vectors: bool) -> None:
        section = config.backend_section
        assert isinstance(section, StandInSettings)
        self._section = section
        self._chat = chat
        self._open: deque[tuple[float, Call, str, int]] = deque()
        self._busy_until = 0.0
        self._answered = 0
        if section.fault == "no start" and self._is_the_one():
            raise BackendError("the stand-in could not start")

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """It needs nothing."""

    @classmethod
    def device(cls) -> str:
        """It runs on nothing."""
        return "a stand-in"

    def _is_the_one(self) -> bool:
        """Whether this engine breaks."""
        if not self._section.once:
            return True
        try:
            Path(self._section.once).open("x").close()
        except FileExistsError:
            return False
        return True

    def submit(self, call: Call) -> None:
        """Begin a call once those before it are done."""
        ids = self._chat.ids(call.prompt)
        told = sum(place * token for place, token in enumerate(ids[:50])) + call.seed
        if call.vectors is not None:
            # An engine may change what it was given.
            call.vectors[:] = call.vectors * 1.0
            told += int(1e6 * float(np.abs(list(self._chat.vectors_at(call, ids, 1 << 20).values())).sum()))
        self._busy_until = max(time.perf_counter(), self._busy_until) + self._section.seconds
        self._open.append((self._busy_until, call, f"answer {told} " * (self._section.words // 2), len(ids)))

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        """Those that are done, waiting for the first."""
        time.sleep(max(0.0, self._open[0][0] - time.perf_counter()))
        while self._open and self._open[0][0] <= time.perf_counter():
            if self._answered >= self._section.after and self._section.fault != "none" and self._is_the_one():
                self._break()
            _, call, text, tokens = self._open.popleft()
            self._answered += 1
            yield call, Completion(text, tokens, self._section.words, "stop", self._section.seconds)

    def _break(self) -> None:
        if self._section.fault == "dies":
            os.kill(os.getpid(), 9)
        if self._section.fault == "hangs":
            time.sleep(3600)
        if self._section.fault == "fails":
            raise BackendError("the stand-in ran out of memory")
        if self._section.fault == "rubbish":
            busy, call, _, tokens = self._open.popleft()
            self._open.appendleft((busy, Call(("nobody", "asked", 0), call.prompt, 0, 0.0, 1.0, 1), "", tokens))

    def close(self) -> None:
        """Nothing is kept."""


class Several(RayBackend):
    """Stand-ins side by side."""

    spreads: ClassVar[str] = "stand_in"
