"""How fast profiles are ranked by BM25, beside rank_bm25, whose scores ours are to the last bit, and bm25s.

Profiles of the shape of real ones: 41 reviews (standard deviation 27) whose items are described in 170 words, with the
frequencies of words in English. Each profile is an index of its own, asked once. Processor time, median of three rounds
in turn. `pytest -s tests/benchmarks/test_retrieval_speed.py` prints all three, and how alike the rankings are: bm25s
has no variant with rank_bm25's weights of words that are in more than half of the documents.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.retrievers.bm25 import bm25_scores

Scores = Callable[[str, Sequence[str]], NDArray[np.float64]]

PROFILES, ROUNDS, SHOWN = 100, 3, 8
REVIEWS, DEVIATION, WORDS, VOCABULARY = 41, 27, 170, 20_000
BAR = 1.5
"""Idle cores show about 3 for both."""


@pytest.fixture
def profiles() -> Iterator[list[tuple[str, list[str]]]]:
    """A query and the documents of each profile."""
    draw = random.Random(1)
    words = [f"w{number}" for number in range(VOCABULARY)]
    weights = np.cumsum(1 / np.arange(3, VOCABULARY + 3)).tolist()

    def text() -> str:
        return " ".join(draw.choices(words, cum_weights=weights, k=max(3, round(draw.gauss(WORDS, WORDS / 3)))))

    def reviews() -> int:
        shape = (REVIEWS / DEVIATION) ** 2
        return max(1, round(draw.gammavariate(shape, REVIEWS / shape)))

    made = [(text(), [text() for _ in range(reviews())]) for _ in range(PROFILES)]
    gc.collect()
    gc.freeze()
    yield made
    gc.unfreeze()


def by_rank_bm25(query: str, documents: Sequence[str]) -> NDArray[np.float64]:
    from rank_bm25 import BM25Okapi

    return np.asarray(BM25Okapi([document.split() for document in documents]).get_scores(query.split()), np.float64)


def by_bm25s(query: str, documents: Sequence[str]) -> NDArray[np.float64]:
    import bm25s

    # Of its variants the one with rank_bm25's formula, but for the words in more than half of the documents.
    index = bm25s.BM25(k1=1.5, b=0.75, method="robertson")
    index.index([document.split() for document in documents], show_progress=False)
    return np.asarray(index.get_scores(query.split()), np.float64)


def shown(scores: NDArray[np.float64]) -> set[int]:
    """The documents that a method would be shown."""
    return set(np.argsort(-scores, kind="stable")[:SHOWN].tolist())


def test_bm25_is_faster_than_rank_bm25_and_bm25s(profiles: list[tuple[str, list[str]]]) -> None:
    ways: dict[str, Scores] = {"own": bm25_scores, "rank_bm25": by_rank_bm25, "bm25s": by_bm25s}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[NDArray[np.float64]]] = {}
    for way in ways.values():
        # What is imported or made once is not measured.
        way(*profiles[0])
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.process_time()
            found[name] = [way(query, documents) for query, documents in profiles]
            seconds[name].append(time.process_time() - started)
    spent = {name: median(each) for name, each in seconds.items()}
    documents = sum(len(texts) for _, texts in profiles)
    print(f"\n{PROFILES} profiles, {documents:,} documents")
    for name, scores in found.items():
        alike = [len(shown(one) & shown(own)) / len(shown(own)) for one, own in zip(scores, found["own"], strict=True)]
        print(
            f"{name}: {spent[name] * 1000 / PROFILES:.2f} ms a profile, {spent[name] / spent['own']:.1f} times our "
            f"time, {np.mean(alike):.1%} of our first {SHOWN} documents"
        )
    assert [one.tobytes() for one in found["own"]] == [one.tobytes() for one in found["rank_bm25"]]
    for peer in ("rank_bm25", "bm25s"):
        assert spent[peer] > BAR * spent["own"], peer
