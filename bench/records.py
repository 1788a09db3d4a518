"""The plain records that everything passes along.

An `Instance` carries everything a method may see of one prediction task; the text it has to predict
is *not* part of it (`bench.data.corpus.Corpus.reference` holds that), so no method can leak it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Item:
    """A product that is reviewed."""

    asin: str
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class Review:
    """A review a user wrote. `timestamp` is in milliseconds since 1970, `rating` on a scale of 1.0 to 5.0."""

    user_id: str
    asin: str
    rating: float
    title: str
    text: str
    timestamp: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One prediction task: write the review of `item` that `user_id` gave `rating` and `title`.

    `profile` holds the user's earlier reviews, ascending in time (LaMP's term). `id` is unique in a
    data set: "<category>/<split>/<user_id>" or, where a user has several, "<category>/<split>/<user_id>/<k>".
    """

    id: str
    category: str
    split: str
    user_id: str
    item: Item
    rating: float
    title: str
    timestamp: int
    profile: tuple[Review, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One chat prompt of a method: a system and a user message.

    `blocks_shown` counts the history blocks that fit the input budget, `blocks_offered` those the retriever gave.
    A soft prompt has `slots`: the placeholders in its text, in the order of the text, e.g. "[HIS_TOKEN_0]", each of
    which a vector takes the place of. `features` are what the method's adapter makes these vectors from. `counts` are
    whole numbers that are worth summing over a run.
    """

    stage: str
    system: str
    user: str
    blocks_shown: int = 0
    blocks_offered: int = 0
    slots: tuple[str, ...] = ()
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, compare=False, repr=False)
    counts: Mapping[str, int] = field(default_factory=dict, compare=False)

    @property
    def hash(self) -> str:
        """SHA-256 over everything in the prompt that the model sees, as hex; of vectors, over what they are made
        from (the adapter that makes them is part of a run's identity)."""
        digest = hashlib.sha256()
        for text in (self.system, self.user):
            digest.update(len(text).to_bytes(8, "little"))
            digest.update(text.encode("utf-8", "surrogatepass"))
        for name, values in sorted(self.features.items()):
            digest.update(f"{name}{values.shape}".encode())
            digest.update(np.ascontiguousarray(values, "<f4").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a language model. `key` is (instance id, stage, index) and unique in a run; `vectors` has a row
    for each slot of the prompt, shape (slots, hidden_size)."""

    key: tuple[str, str, int]
    prompt: Prompt
    seed: int
    temperature: float
    top_p: float
    max_new_tokens: int
    vectors: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Completion:
    """What a language model answered to a call; `seconds` is the time from submission to the last token."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    seconds: float


@dataclass(frozen=True)
class Background:
    """What a metric may know of n predictions beside their texts and references.

    `histories` has for each prediction the histories of its user and of its peers, the other users who reviewed its
    item, by user id, in the order of `Peers`; a user without any has none. No text that anyone has to predict is among
    them, whatever the run's own pool of peers was; the user's whole profile stands in `instances`. `embed` gives the
    vectors of texts by an encoder's specification, shape (n, d), and keeps them on disk. `folder` is the run's, for
    what a metric has to keep.
    """

    instances: Sequence[Instance]
    histories: Sequence[Mapping[str, Sequence[Review]]]
    embed: Callable[[Sequence[str], str], NDArray[np.float32]]
    folder: Path
