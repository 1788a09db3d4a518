"""RAG: K retrieved records of the user stand in the prompt (Salemi et al., 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.context import Context
from bench.protocols import Properties, Steps
from bench.records import Instance


@dataclass(frozen=True)
class RAG:
    """Non-Perso's prompt plus K history blocks (DEP paper, appendix B)."""

    properties: ClassVar[Properties] = Properties(retrieval_augmented=True, embedded=False, inter_user=False)

    def steps(self, instance: Instance, context: Context) -> Steps:
        (text,) = yield [context.prompt("write", instance, history=context.retrieve(instance))]
        return text
