"""What the harness itself takes of an instance, without a model: prompts rendered and cut to the budget, steps driven,
answers stored, on the demo's data with an engine that answers at once.

`pytest tests/benchmarks -k methods` prints the seconds of a pass, and `extra_info` of `--benchmark-json` holds the
instances a second; with a model: `bench time`. No bar in seconds: machines differ.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.backends import Engines
from bench.config import build, read_config
from bench.data.corpus import Corpus
from bench.job import Job
from bench.loop import Loop
from bench.resolved import Inputs
from bench.store import RunStore

LIMIT, ROUNDS = 5, 3
CALLS = {"nonperso": 1, "rag": 1, "pag": 2, "dpl": 5, "drp": 8}
"""LLM calls of an instance, with the demo's three history reviews."""


@pytest.mark.parametrize("method", CALLS)
def test_instances_without_a_model(
    method: str, benchmark: BenchmarkFixture, demo: dict[str, Corpus], scripted: Any, tmp_path: Path
) -> None:
    changed = {"method": method, "backend": "scripted", "limit": LIMIT, "metrics": [], "results": str(tmp_path)}
    job = Job.of(build(read_config("demo"), changed), Inputs(demo))
    record, numbers = job.record(), count()

    def one_pass() -> int:
        with RunStore(tmp_path / f"pass-{next(numbers)}", record) as store, Engines() as engines:
            engine = partial(engines.get, job.config, job.run.chat)
            return len(Loop(job.run, store, engine, job.vectors, job.label).predictions())

    # The first round puts vectors on disk, as a run does ahead.
    instances = benchmark.pedantic(one_pass, rounds=ROUNDS, warmup_rounds=1)
    assert instances == LIMIT * len(demo)
    assert len(scripted.calls) == (ROUNDS + 1) * instances * CALLS[method]
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["instances_per_second"] = instances / seconds
    print(f"\n{method}: {instances / seconds:,.0f} instances/s without a model")
