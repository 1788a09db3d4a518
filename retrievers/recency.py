"""Newest first: the retriever of the paper's main tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.records import Instance, Review

if TYPE_CHECKING:
    from bench.context import Context


@dataclass(frozen=True)
class Recency:
    """Ranks reviews by time, newest first.

    Profiles ascend in time and equal timestamps keep the data's original order, so of two reviews with the same
    timestamp the later one in `candidates` is the newer: a profile's ranking is the profile reversed.
    """

    def rank(self, instance: Instance, candidates: Sequence[Review], context: Context) -> list[int]:
        """Indices into `candidates`, latest `timestamp` first, higher index first among equal ones."""
        return sorted(range(len(candidates)), key=lambda i: (candidates[i].timestamp, i), reverse=True)
