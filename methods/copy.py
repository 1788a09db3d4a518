"""copy (control): the user's last answer, verbatim. What any method must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.context import Context
from bench.protocols import Properties, Steps
from bench.records import Instance


@dataclass(frozen=True)
class Copy:
    """No model call: repeats what the user answered in the last record of the profile (for a review: its text), nothing
    where the profile is empty."""

    properties: ClassVar[Properties] = Properties(
        retrieval_augmented=False, embedded=False, inter_user=False, calls_model=False, repeats=True
    )

    def steps(self, instance: Instance, context: Context) -> Steps:
        yield from ()
        return context.answer(instance.profile[-1]) if instance.profile else ""
