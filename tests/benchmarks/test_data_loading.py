"""How long a data set of 2,000 users with 100 reviews of 1,600 characters takes to load, in each form, and to export.

Processor time of one process, because other processes on the machine are not the readers' fault; of several tries the
best, because the first ones pay for memory that the system has to find. `pytest tests/benchmarks -s` prints them.

A prepared folder is to be read within a second; on machines of one kind it took 0.55 to 1.2 s. So what is held are
multiples of the time in which polars alone makes Python objects of the same files, the least that reading can take.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import polars as pl
import pytest

from bench.data.corpus import Corpus
from bench.data.export import write
from bench.data.layouts.prepared import Prepared, read_items
from bench.data.layouts.published import Published
from bench.data.manifest import Manifest, Summary
from bench.data.peers import Peers
from bench.data.thresholds import INPUTS

USERS, REVIEWS, ITEMS, CHARACTERS = 2000, 100, 20_000, 1600
READING, PEERS = 4.0, 4.0  # multiples of the bare reading
PUBLISHED, EXPORT, FINGERPRINT = 36.0, 36.0, 12.0  # the same, each about twice what it takes
T = TypeVar("T")


def measured(what: str, work: Callable[[], T], tries: int = 1) -> tuple[T, float]:
    """The result of `work` and the seconds of its best try."""
    best = float("inf")
    for _ in range(tries):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    print(f"\n{what}: {best:.2f} s", end="")
    return result, best


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder, written as its format says."""
    random_ = random.Random(0)
    words = ["".join(random_.choices("etaoinshrdlu", k=random_.randint(2, 9))) for _ in range(5000)]
    prose = " ".join(random_.choices(words, k=400_000))

    def run(length: int) -> str:
        start = random_.randrange(len(prose) - length)
        return prose[start : start + length]

    asins = [f"B{n:09d}" for n in range(ITEMS)]
    count = USERS * REVIEWS
    reviews = {
        "user_id": [f"AE{n // REVIEWS:026d}" for n in range(count)],
        "asin": random_.choices(asins, k=count),
        "rating": [1.0 + n % 5 for n in range(count)],
        "title": [run(30) for _ in range(count)],
        "text": [run(CHARACTERS) for _ in range(count)],
        "timestamp": [10**12 + n for n in range(count)],
        "role": (["history"] * (REVIEWS - INPUTS) + ["input"] * INPUTS) * USERS,
    }
    items = {"asin": asins, "title": [run(60) for _ in asins], "description": [run(600) for _ in asins]}
    folder = tmp_path_factory.mktemp("prepared")
    home = folder / "Books"
    home.mkdir()
    pl.DataFrame(reviews).write_parquet(home / "reviews.parquet")
    pl.DataFrame(items).write_parquet(home / "items.parquet")
    summary = Summary("Books", {}, {}, USERS, {"train": 8 * USERS, "val": USERS, "test": USERS}, 99.0, 0.0)
    Manifest("Books", [{"name": "generated"}], {}, summary, {}).write(home)
    return folder


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return Prepared().read(folder, "Books")


@pytest.fixture(scope="module")
def bare(folder: Path) -> float:
    """Seconds that it takes to make Python objects of the folder's columns, and nothing else."""
    files = [folder / "Books" / "reviews.parquet", folder / "Books" / "items.parquet"]

    def columns() -> int:
        return sum(len(column.to_list()) for file in files for column in pl.read_parquet(file))

    return measured("the bare columns", columns, tries=5)[1]


def test_a_prepared_folder_is_read_in_little_more_than_its_columns(folder: Path, bare: float) -> None:
    corpus, seconds = measured("a prepared folder", lambda: Prepared().read(folder, "Books"), tries=5)
    assert len(corpus.split("train")) == 8 * USERS
    assert seconds < READING * bare


def test_the_published_form_there_and_back(folder: Path, corpus: Corpus, bare: float, tmp_path: Path) -> None:
    items = read_items(folder / "Books").values()
    _, fingerprint = measured("the fingerprint", lambda: corpus.fingerprint)
    _, there = measured("writing the published form", lambda: write(corpus, tmp_path, items))
    again, back = measured("reading the published form", lambda: Published().read(tmp_path, "Books"))
    assert again.fingerprint == corpus.fingerprint
    assert there < EXPORT * bare
    assert back < PUBLISHED * bare
    assert fingerprint < FINGERPRINT * bare


def test_peers(corpus: Corpus, bare: float) -> None:
    peers, seconds = measured("collecting all peers", lambda: Peers(corpus), tries=2)
    _, asking = measured("the peers of all items", lambda: [peers.of_group(asin) for asin in corpus.groups], tries=2)
    assert seconds + asking < PEERS * bare
