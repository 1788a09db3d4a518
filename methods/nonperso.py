"""Non-Perso: the model writes from what is given of the target alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.context import Context
from bench.protocols import Properties, Steps
from bench.records import Instance


@dataclass(frozen=True)
class NonPerso:
    """Nothing of the user is shown (DEP paper, appendix B)."""

    properties: ClassVar[Properties] = Properties(retrieval_augmented=False, embedded=False, inter_user=False)

    def steps(self, instance: Instance, context: Context) -> Steps:
        (text,) = yield [context.prompt("write", instance)]
        return text
