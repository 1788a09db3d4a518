"""parrot: a method with templates of its own, `prompts/parrot/`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.context import Context
from bench.protocols import Properties, Steps
from bench.records import Instance


@dataclass(frozen=True)
class Parrot:
    """Repeats the first retrieved record before what the model writes."""

    properties: ClassVar[Properties] = Properties(retrieval_augmented=True, embedded=False, inter_user=False)

    shout: bool = False

    def steps(self, instance: Instance, context: Context) -> Steps:
        """One call, with the history in the prompt."""
        history = context.retrieve(instance)
        (text,) = yield [context.prompt("write", instance, history=history)]
        said = history[0].text if history else ""
        return f"{said.upper() if self.shout else said} {text}"
