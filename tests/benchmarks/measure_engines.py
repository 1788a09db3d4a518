"""How much more several engines do than one: stand-ins in Ray actors, each of which takes a call after another and the
same time for every one, so that the harness alone can be the neck. Rendering, tokenising and storing are included.

    python tests/benchmarks/measure_engines.py --engines 1 2 4 8 --seconds 15

Prompts are those of rag on the demo's training instances, each rendered once and filled up to the budget.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench.backends import Engines  # noqa: E402
from bench.config import build, read_config  # noqa: E402
from bench.job import Job  # noqa: E402
from bench.loop import Loop  # noqa: E402
from bench.resolved import Inputs  # noqa: E402
from bench.results import Generation, rows_of  # noqa: E402
from bench.store import RunStore  # noqa: E402
from bench.work import Work  # noqa: E402
from tests.conftest import install_example  # noqa: E402

CATEGORIES = 3


def rate(engines: int, calls: int, each: float, tokens: int, inputs: Inputs, folder: Path) -> tuple[float, str]:
    """Calls a second, and a row of the table."""
    settings = {
        "method": "rag",
        "split": "train",
        "limit": max(1, calls // CATEGORIES),
        "k": 30,
        "input_budget": tokens,
        "backend": "several",
        "several": {"engines": engines},
        "stand_in": {"seconds": each, "words": 80},
        "metrics": [],
        "results": str(folder),
    }
    job = Job.of(build(read_config("demo"), settings), inputs)
    with Engines() as running, RunStore(job.folder, job.record()) as store:
        # Loads the tokenizer, and starts the engines.
        list(Work(job.run, job.run.instances[0]).advance())
        backend = running.get(job.config, job.run.chat)
        loop = Loop(job.run, store, lambda: backend, None, job.label)
        worked = time.process_time()
        loop.predictions()
        worked = time.process_time() - worked
    seconds = loop.seconds
    assert seconds is not None
    rows = list(rows_of(Generation, job.folder / "generations.jsonl", None))
    took = seconds.engine + seconds.idle
    length = sum(row.prompt_tokens or 0 for row in rows) / len(rows)
    found = len(rows) / took
    cells = [f"{engines}", f"{len(rows)}", f"{length:,.0f}", f"{seconds.rendering:.1f}", f"{took:.1f}"]
    return found, " | ".join(["", *cells, f"{1000 * worked / len(rows):.1f}", f"{found:.1f}", ""]).strip()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=15.0, help="about how long each number of engines runs")
    parser.add_argument("--each", type=float, default=0.05, help="seconds that a stand-in takes for a call")
    parser.add_argument("--tokens", type=int, default=1850, help="the budget of a prompt")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        install_example(patch, Path(name), "bench-stand-in", "backends")
        inputs, one = Inputs(), None
        heads = ["engines", "calls", "tokens a prompt", "rendering (s)", "all (s)"]
        heads += ["processor time of the driver a call (ms)", "calls a second", "times the first"]
        print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        for engines in asked.engines:
            calls = round(engines * asked.seconds / asked.each)
            found, row = rate(engines, calls, asked.each, asked.tokens, inputs, Path(name) / str(engines))
            one = one or found
            print(f"{row} {found / one:.2f} |", flush=True)


if __name__ == "__main__":
    main()
