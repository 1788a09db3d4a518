"""DPL's instances: which of a user's reviews become targets, and which stand in the profiles."""

from __future__ import annotations

from collections.abc import Iterator

from bench.data.thresholds import INPUTS
from bench.records import Instance, Record
from bench.tasks.reviews import instance

TRAIN = INPUTS - 2


def user_instances(category: str, reviews: tuple[Record, ...]) -> Iterator[tuple[Instance, str]]:
    """A user's ten instances, each with its reference text, from the user's reviews, oldest first: train 0 to 7,
    val, test. An instance's profile is everything older than its target in that order."""
    first = len(reviews) - INPUTS
    for k in range(INPUTS):
        target = reviews[first + k]
        split = "train" if k < TRAIN else "val" if k == TRAIN else "test"
        suffix = f"/{k}" if split == "train" else ""
        yield instance(category, split, target, reviews[: first + k], suffix), target.text
