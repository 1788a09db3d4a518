"""Newest first: the retriever of the paper's main tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.errors import DataError
from bench.records import Instance, Record

if TYPE_CHECKING:
    from bench.context import Context


@dataclass(frozen=True)
class Recency:
    """Ranks records by time, newest first.

    Profiles ascend in time and equal timestamps keep the data's original order, so of two records with the same
    timestamp the later one in `candidates` is the newer: a profile's ranking is the profile reversed. With
    `ties=data_order` records with the same timestamp keep their order, as in the authors' released code.
    """

    timed: ClassVar[bool] = True
    official: ClassVar[Mapping[str, object]] = {"ties": "data_order"}

    ties: Literal["later_first", "data_order"] = "later_first"

    def rank(self, instance: Instance, candidates: Sequence[Record], context: Context) -> list[int]:
        """Indices into `candidates`, latest `timestamp` first; among equal ones the higher index first or, with
        `ties=data_order`, the lower."""
        if self.ties == "data_order":
            # A reversed sort of Python's leaves equal ones in their order.
            return sorted(range(len(candidates)), key=lambda i: _time(candidates[i]), reverse=True)
        return sorted(range(len(candidates)), key=lambda i: (_time(candidates[i]), i), reverse=True)


def _time(record: Record) -> int:
    if record.timestamp is None:
        raise DataError(f"retriever recency: a record of user {record.user_id} has no time; use another retriever")
    return record.timestamp
