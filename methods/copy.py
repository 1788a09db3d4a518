"""copy (control): the user's last record, verbatim. What any method must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.context import Context
from bench.protocols import Properties, Steps
from bench.records import Instance


@dataclass(frozen=True)
class Copy:
    """No model call: repeats the text of the last record of the profile."""

    properties: ClassVar[Properties] = Properties(
        retrieval_augmented=False, embedded=False, inter_user=False, calls_model=False
    )

    def steps(self, instance: Instance, context: Context) -> Steps:
        yield from ()
        return instance.profile[-1].text if instance.profile else ""
