"""A method, a retriever and a metric that are no part of bench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from bench.context import Context
from bench.protocols import Array, Properties, Steps
from bench.records import Instance, Review


@dataclass(frozen=True)
class Parrot:
    """Repeats the first retrieved review before what the model writes."""

    properties: ClassVar[Properties] = Properties(retrieval_augmented=True, embedded=False, inter_user=False)

    shout: bool = False

    def steps(self, instance: Instance, context: Context) -> Steps:
        """One call, with the history in the prompt."""
        history = context.retrieve(instance)
        (review,) = yield [context.prompt("rag_review", instance, history=history)]
        said = history[0].text if history else ""
        return f"{said.upper() if self.shout else said} {review}"


@dataclass(frozen=True)
class Oldest:
    """Ranks reviews by time, oldest first: profiles ascend in time."""

    def rank(self, instance: Instance, candidates: Sequence[Review], context: Context) -> list[int]:
        """Indices into `candidates`, oldest first."""
        return list(range(len(candidates)))


@dataclass(frozen=True)
class Size:
    """Mean size of the predictions."""

    columns: ClassVar[tuple[str, ...]] = ("size",)
    statistics: ClassVar[tuple[str, ...]] = ("size",)

    unit: Literal["words", "characters"] = "words"

    def check(self) -> None:
        """It needs nothing."""

    def signature(self) -> str:
        """The unit is all that can move the number."""
        return f"size|unit:{self.unit}"

    def rows(self, predictions: Sequence[str], references: Sequence[str]) -> Array:
        """Length of each prediction, shape (n, 1)."""
        return np.asarray([[len(p.split() if self.unit == "words" else p)] for p in predictions], dtype=np.float64)

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """The mean of `rows`, shape (n, 1); see `bench.protocols.Metric`."""
        if weights is None:
            return {"size": rows.mean(axis=0)[0]}
        return {"size": (weights @ rows)[:, 0] / weights.sum(axis=1)}
