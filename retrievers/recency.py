"""Newest first: the retriever of the paper's main tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bench.errors import DataError
from bench.records import Instance, Record

if TYPE_CHECKING:
    from bench.context import Context


@dataclass(frozen=True)
class Recency:
    """Ranks records by time, newest first.

    Profiles ascend in time and equal timestamps keep the data's original order, so of two records with the same
    timestamp the later one in `candidates` is the newer: a profile's ranking is the profile reversed.
    """

    timed: ClassVar[bool] = True

    def rank(self, instance: Instance, candidates: Sequence[Record], context: Context) -> list[int]:
        """Indices into `candidates`, latest `timestamp` first, higher index first among equal ones."""
        return sorted(range(len(candidates)), key=lambda i: (_time(candidates[i]), i), reverse=True)


def _time(record: Record) -> int:
    if record.timestamp is None:
        raise DataError(f"retriever recency: a record of user {record.user_id} has no time; use another retriever")
    return record.timestamp
