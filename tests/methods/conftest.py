"""The chat template of a tiny model; made-up reviews in the form of the published data sets, and runs over them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.chat import Chat
from bench.config import build
from bench.data.corpus import Corpus
from bench.records import Instance
from bench.resolved import Inputs, Run
from bench.tasks import reviews
from bench.tasks.reviews import Item

K, DIMENSION = 8, 16


def _vector(text: str) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)


@dataclass(frozen=True)
class Published:
    """Each user's reviews by user id, ascending in time, the last ten of them the inputs i0 to i9; and the items."""

    users: dict[str, list[dict[str, Any]]]
    items: dict[str, tuple[str, str]]

    def profile(self, user: str, split: str) -> list[dict[str, Any]]:
        """What is before the target of the user's instance: i7 of the last training instance, i8 (val), i9 (test)."""
        return self.users[user][: {"train": -3, "val": -2, "test": -1}[split]]

    def target(self, user: str, split: str) -> dict[str, Any]:
        return self.users[user][{"train": -3, "val": -2, "test": -1}[split]]


def _published(seed: int, count: int = 24, words: int = 300, very_long: bool = False) -> Published:
    """Reviews of few days, so that many have one time, and of very different lengths; if asked, i7 of the first user
    and i8 of the second are beyond every limit."""
    draw = np.random.default_rng(seed)
    items = {f"A{n:02}": (f"Title {n}", f"About {n}." + " More." * int(draw.integers(20))) for n in range(34)}
    users = {}
    for number in range(count):
        user = f"u{draw.integers(10**6):06}{number:02}"
        often = [asin for asin in items if asin < "A29"]
        asins = list(draw.permutation(often)[: 18 + number % 5])
        if number < 10:
            # Five items with two reviewers each, one of whom wrote with i7 or i8.
            asins[-2 - number % 2 if number < 5 else 9] = f"A{29 + number % 5}"
        days = np.sort(draw.integers(0, 9, len(asins)))
        users[user] = [
            {
                "asin": asin,
                "rating": float(draw.integers(1, 6)),
                "title": f"says {user} {place}",
                "text": f"{user} on {asin}:" + " word" * int(words ** draw.random()),
                "timestamp": int(day) * 86_400_000,
            }
            for place, (asin, day) in enumerate(zip(asins, days, strict=True))
        ]
    for user, place in zip(list(users), (-3, -2), strict=False):
        users[user][place]["text"] += " very long" * 2000 * very_long
    return Published(users, items)


def _corpus_of(data: Published) -> Corpus:
    """The same as the product holds it, all eight training instances of each user."""
    instances: dict[str, list[Instance]] = {"train": [], "val": [], "test": []}
    references: dict[str, str] = {}
    for user, told in data.users.items():
        records = [
            reviews.review(user, Item(one["asin"], *data.items[one["asin"]]), *(one[name] for name in _NAMES))
            for one in told
        ]
        for place in range(-10, 0):
            split = {-1: "test", -2: "val"}.get(place, "train")
            suffix = f"/{place + 10}" if split == "train" else ""
            one = reviews.instance("c", split, records[place], tuple(records[:place]), suffix)
            instances[split].append(one)
            references[one.id] = records[place].text
    return Corpus("c", {split: tuple(rows) for split, rows in instances.items()}, references)


_NAMES = ("rating", "title", "text", "timestamp")


@pytest.fixture(scope="module")
def chat(tiny_qwen2: Path) -> Chat:
    """Its conversations as tokens."""
    return Chat(str(tiny_qwen2))


@pytest.fixture
def vector() -> Callable[[str], NDArray[np.float32]]:
    """The vector of a text: made up, always the same."""
    return _vector


@pytest.fixture
def published() -> Callable[..., Published]:
    """Data of one category: published(seed, count=24, words=300, very_long=False)."""
    return _published


@pytest.fixture
def run_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """A run over such data, under `official` unless the settings say otherwise: run_of(data, method, **settings)."""
    monkeypatch.setattr(
        "bench.encoders.EmbeddingCache.embed", lambda _, texts, *__: np.stack([_vector(text) for text in texts])
    )
    monkeypatch.setattr("bench.softprompt.trained.fresh_adapter", lambda run, size: run.method.adapter(DIMENSION, size))

    def make(data: Published, method: str, **settings: Any) -> Run:
        config = build(
            {"method": method, "fidelity": "official", "k": K, "max_new_tokens": 64, "metrics": ["rouge"]}, settings
        )
        return Run(config, Inputs({"c": _corpus_of(data)}))

    return make
