"""oldest: a retriever that needs no times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.context import Context
from bench.records import Instance, Record


@dataclass(frozen=True)
class Oldest:
    """Ranks records in the order of the profile, which ascends in time where there are times."""

    def rank(self, instance: Instance, candidates: Sequence[Record], context: Context) -> list[int]:
        """Indices into `candidates`, oldest first."""
        return list(range(len(candidates)))
