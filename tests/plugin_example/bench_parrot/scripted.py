"""scripted: a backend without a model, for tests of what is around one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from bench.chat import Chat
from bench.config import GENERATION, RUNTIME, RunConfig, Section
from bench.records import Call, Completion


class ScriptedSettings(Section):
    """What is answered."""

    text: Annotated[str, GENERATION] = "answer {stage} {instance}"
    pause: Annotated[float, RUNTIME] = 0.0
    """Seconds after each answer."""


class Scripted:
    """Answers each call with a text that names it. `calls` are all that this process got, in their order."""

    settings: ClassVar[type[Section]] = ScriptedSettings
    takes_vectors: ClassVar[bool] = True
    applies_template: ClassVar[bool] = True
    timing: ClassVar[Mapping[str, object]] = {}
    calls: ClassVar[list[Call]] = []

    def __init__(self, config: RunConfig, chat: Chat, vectors: bool) -> None:
        section = config.backend_section
        assert isinstance(section, ScriptedSettings)
        self._text = section.text
        self._pause = section.pause
        self._waiting: list[Call] = []

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """It needs nothing."""

    @classmethod
    def device(cls) -> str:
        """It runs on nothing."""
        return "a script"

    def submit(self, call: Call) -> None:
        """Keep the call."""
        self.calls.append(call)
        self._waiting.append(call)

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        """An answer to each call that waits."""
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            text = self._text.format(stage=call.prompt.stage, instance=call.key[0])
            yield call, Completion(text, 7, 3, "stop", 0.0)
            time.sleep(self._pause)

    def close(self) -> None:
        """Nothing is open."""
