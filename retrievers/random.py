"""A uniformly random choice: the floor of Table 8."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.records import Instance, Record

if TYPE_CHECKING:
    from bench.context import Context


@dataclass(frozen=True)
class Random:
    """Ranks records at random, uniformly and without replacement, seeded by the instance alone."""

    def rank(self, instance: Instance, candidates: Sequence[Record], context: Context) -> list[int]:
        """Indices into `candidates` in an order that depends on the run's seed, the instance id and their number."""
        # Sorting by random() and not shuffle(): its sequence is the one Python keeps the same in every version.
        generator = random.Random(context.seed(instance.id, "retriever", "random"))
        keys = [generator.random() for _ in candidates]
        return sorted(range(len(candidates)), key=keys.__getitem__)
