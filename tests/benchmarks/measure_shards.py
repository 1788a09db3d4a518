"""What a run of many instances takes of the process that drives it, and of the disk: a run of one process, going on
with one, a shard, the merge of all shards, scoring. The engine answers at once; all else is a run's own.

    python tests/benchmarks/measure_shards.py --instances 4000 16000 --folder FOLDER

Method nonperso (prompts of 110 tokens), answers and references of 1,200 characters. A figure is that of a process of
its own: seconds of the processor, resident memory before (the data, for the most part) and at the peak. The last rows
go on in a straight line, from the two largest sizes, to `--to` instances. FOLDER takes about 12 KB an instance.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any

import bench.execute
from bench.config import RunConfig, build
from bench.data.corpus import Corpus
from bench.execute import execute, merge, predict, write_shard
from bench.job import Job
from bench.records import Call, Completion
from bench.resolved import Inputs
from bench.shards import Shard
from bench.store import RunStore
from bench.tasks.reviews import Item, instance, review
from bench.timing import memory

ANSWER = "It was what they said it would be. " * 35
PHASES = ("run", "resume", "shard", "rest", "merge", "score")
"""Each goes on with what those before it left; `rest` are all other shards."""


class AtOnce:
    """An engine, and what starts it."""

    def __init__(self, vectors: bool = False) -> None:
        self._waiting: list[Call] = []

    def __enter__(self) -> AtOnce:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def get(self, *config: object, vectors: bool) -> AtOnce:
        """The engine."""
        return self

    def submit(self, call: Call) -> None:
        """Keep a call."""
        self._waiting.append(call)

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        """The answers to all calls."""
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            yield call, Completion(f"{ANSWER}{call.seed}", 110, 300, "stop", 0.0)


def corpus(users: int) -> Corpus:
    """A category whose users each have one past review."""
    items = [Item(f"A{number}", f"Item {number}", f"It is the item {number}.") for number in range(1000)]
    made, references = [], {}
    for user in range(users):
        past, own = items[user % 1000], items[(user * 7 + 1) % 1000]
        name = f"A{user:013d}"
        history = (review(name, past, 4.0, "Good", f"{past.title} is good, {user} times. " * 5, 0),)
        one = instance("Books", "test", review(name, own, 5.0, "Fine", "", 1), history)
        made.append(one)
        references[one.id] = f"User {user} liked {own.title}. " * 40
    return Corpus("Books", {"test": tuple(made)}, references)


def job_of(config: RunConfig, instances: int) -> Job:
    """A run of so many instances."""
    return Job.of(config, Inputs({"Books": corpus(instances)}))


def quiet(_: str) -> None:
    """Say nothing."""


def measure(phase: str, instances: int, shards: int, folder: Path) -> dict[str, float]:
    """One phase in this process: seconds of the processor, MiB before and at the peak."""
    results = folder / ("plain" if phase in ("run", "resume") else "shards")
    settings: dict[str, Any] = {"method": "nonperso", "results": str(results), "resamples": 1000}
    settings["metrics"] = ["rouge"] if phase == "score" else []
    job = job_of(build(settings), instances)
    bench.execute.Engines = AtOnce  # type: ignore[assignment,misc]
    if phase == "resume":
        path = job.folder / "generations.jsonl"
        rows = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(rows[: -instances // 100]))
        (job.folder / "predictions.jsonl").unlink()
        del rows
    if phase == "merge":
        for path in job.folder.iterdir():
            if path.is_file():
                path.unlink()
    # What the data took on their way here is not the run's.
    assert memory.forget_peak()
    before, started = memory.peak(), time.process_time()
    if phase in ("run", "resume"):
        with RunStore(job.folder, job.record(), quiet, job.places) as store:
            predict(job, store, AtOnce(), quiet)  # type: ignore[arg-type]
    elif phase in ("shard", "rest"):
        for number in (1,) if phase == "shard" else range(2, shards + 1):
            write_shard(job, Shard(shards, number), quiet)
    elif phase == "merge":
        assert merge(job, quiet).calls == instances
    else:
        execute([job], quiet, processes=1)
    return {
        "seconds": time.process_time() - started,
        "before": before / 2**20,
        "peak": memory.peak() / 2**20,
    }


def sizes(instances: int, folder: Path) -> dict[str, float]:
    """Bytes an instance of the merged run's files, and how many files there are."""
    (run,) = (folder / "shards" / "runs").iterdir()
    found: dict[str, float] = {}
    for name in ("generations", "predictions", "scores"):
        found[f"bytes of {name} an instance"] = (run / f"{name}.jsonl").stat().st_size / instances
    found["files of the run"] = sum(path.is_file() for path in run.iterdir())
    found["files of a shard"] = sum(path.is_file() for path in next((run / "shards").iterdir()).iterdir())
    return found


def line(name: str, figures: dict[str, float]) -> str:
    """A row of the table."""
    return f"| {name} | {figures['seconds']:,.1f} | {figures['before']:,.0f} | {figures['peak']:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a run of many instances.")
    parser.add_argument("--instances", type=int, nargs="+", required=True)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--to", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    # Imported once here: the processes of the phases are forks of this one.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    job_of(build({"method": "nonperso", "metrics": ["rouge"], "results": str(options.folder)}), 10).check()
    print("| instances, what | processor s | MiB before | MiB at the peak |\n|---|---|---|---|", flush=True)
    found: dict[int, dict[str, dict[str, float]]] = {}
    for count in options.instances:
        folder = options.folder / str(count)
        found[count] = {}
        for phase in PHASES:
            with get_context("fork").Pool(1) as pool:
                found[count][phase] = pool.apply(measure, (phase, count, options.shards, folder))
            print(line(f"{count:,}, {phase}", found[count][phase]), flush=True)
    if len(found) > 1:
        small, large = sorted(found)[-2:]
        for phase, figures in found[large].items():
            further = {
                name: value + (value - found[small][phase][name]) / (large - small) * (options.to - large)
                for name, value in figures.items()
            }
            print(line(f"{options.to:,} by extrapolation, {phase}", further))
    for count in found:
        print(f"\n{count:,} instances")
        for name, value in sizes(count, options.folder / str(count)).items():
            print(f"{name}: {value:,.0f}")


if __name__ == "__main__":
    main()
