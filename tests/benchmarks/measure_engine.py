"""How long an engine waits for the harness: a stand-in that takes the same time for every call, and the real engine
against itself on prompts that were prepared beforehand.

    python tests/benchmarks/measure_engine.py idle --method rag dep dpl [--seconds 0.025 | --times 10]
    python tests/benchmarks/measure_engine.py generation --method rag dep [--pairs 5]

Both take `--config`, `--limit` (instances of each category) and `--set KEY=VALUE` as `bench run` does. Adapters are
fresh: what their vectors say takes no other time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.backends import Engines
from bench.config import merge, parse_setting, read_config
from bench.execute import embed_ahead
from bench.loop import Loop
from bench.protocols import Backend
from bench.records import Call, Completion
from bench.resolved import Inputs
from bench.store import RunStore
from bench.timing.subjects import Subject, subjects
from bench.work import Work


class StandIn:
    """An engine that works on one call at a time, `seconds` each, and adds up the time in which it had none."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._open: deque[tuple[float, Call]] = deque()
        self._first: float | None = None
        self._busy_until = 0.0
        self._idle = 0.0

    def submit(self, call: Call) -> None:
        now = time.perf_counter()
        if self._first is None:
            self._first = self._busy_until = now
        self._idle += max(0.0, now - self._busy_until)
        self._busy_until = max(now, self._busy_until) + self._seconds
        self._open.append((self._busy_until, call))

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        time.sleep(max(0.0, self._open[0][0] - time.perf_counter()))
        while self._open and self._open[0][0] <= time.perf_counter():
            yield self._open.popleft()[1], Completion(" an answer" * 40, 1800, 80, "stop", self._seconds)

    def close(self) -> None:
        """It holds nothing."""

    @property
    def idle(self) -> float:
        """The share of the time since its first call in which it had nothing to do."""
        assert self._first is not None
        return self._idle / (self._busy_until - self._first)


def rendering_seconds(subject: Subject) -> float:
    """Of a call."""
    calls, started = 0, 0.0
    for instance in subject.job.run.instances[:8]:
        calls += len(Work(subject.job.run, instance).advance())
        # The first one loads the tokenizer.
        if not started:
            calls, started = 0, time.perf_counter()
    return (time.perf_counter() - started) / calls


def idle(subject: Subject, folder: Path, seconds: float, times: float | None) -> None:
    """Print how long the stand-in waited."""
    job, engine = subject.job, StandIn(seconds if times is None else times * rendering_seconds(subject))
    with RunStore(folder, job.record()) as store:
        loop = Loop(job.run, store, lambda: engine, job.vectors, job.label)  # type: ignore[arg-type,return-value]
        loop.predictions()
    assert loop.seconds is not None
    print(
        f"| {subject.name} | {len(job.instances)} | {loop.seconds.rendering:.2f} | {loop.seconds.engine:.2f} | "
        f"{100 * engine.idle:.2f} % |",
        flush=True,
    )


def through_loop(subject: Subject, folder: Path, backend: Backend) -> float:
    """Seconds of a run's texts by the loop, from the first prompt on."""
    job = subject.job
    with RunStore(folder, job.record()) as store:
        loop = Loop(job.run, store, lambda: backend, job.vectors, job.label)
        started = time.perf_counter()
        loop.predictions()
        return time.perf_counter() - started


def prepared(subject: Subject, backend: Any) -> list[tuple[Any, Any]]:
    """The engine's form of all prompts of a method with one call an instance, with the calls."""
    job, prompts = subject.job, []
    for instance in job.run.instances:
        (call,) = Work(job.run, instance).advance()
        ids = job.run.chat.ids(call.prompt)
        if job.vectors is None:
            prompts.append((call, {"prompt_token_ids": ids}))
        else:
            call = replace(call, vectors=job.vectors(call.prompt, instance))
            prompts.append((call, backend._mixed(call, ids)))
    return prompts


def bare(prompts: list[tuple[Any, Any]], engine: Any) -> float:
    """Seconds of the engine alone on prepared prompts."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    started = time.perf_counter()
    for number, (call, prompt) in enumerate(prompts):
        parameters = SamplingParams(
            temperature=call.temperature,
            top_p=call.top_p,
            max_tokens=call.max_new_tokens,
            seed=call.seed,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        engine.add_request(str(number), prompt, parameters)
    texts = 0
    while texts < len(prompts):
        texts += sum(output.finished for output in engine.step())
    return time.perf_counter() - started


def generation(subject: Subject, folder: Path, engines: Engines, pairs: int) -> None:
    """Print the seconds by the loop against those of the engine alone, in turn."""
    backend: Any = subject.engine(engines)
    prompts = prepared(subject, backend)
    # To warm both up.
    bare(prompts[:16], backend.engine)
    ratios, loops, alone = [], [], []
    for number in range(pairs):
        alone.append(bare(prompts, backend.engine))
        loops.append(through_loop(subject, folder / f"pass-{number}", backend))
        ratios.append(loops[-1] / alone[-1])
    print(
        f"| {subject.name} | {len(prompts)} | {statistics.median(alone):.1f} | {statistics.median(loops):.1f} | "
        f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) |",
        flush=True,
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("idle", "generation"))
    parser.add_argument("--method", nargs="+", default=["rag", "dep"])
    parser.add_argument("--config", default="demo")
    parser.add_argument("--limit", type=int, default=168)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seconds", type=float, default=0.025, help="what the stand-in takes for a call")
    parser.add_argument("--times", type=float, help="instead: so many times what this machine takes to render one now")
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Engines(vectors=True) as engines:
        folder = Path(name)
        settings = read_config(asked.config)
        for text in asked.set:
            settings = merge(settings, parse_setting(text))
        timed = subjects(settings, asked.method, asked.limit, folder, Inputs())
        if asked.what == "idle":
            print("| method | instances | rendering (s) | engine (s) | engine idle |\n|---|---|---|---|---|")
            run = partial(idle, seconds=asked.seconds, times=asked.times)
        else:
            print("| method | instances | engine alone (s) | by the loop (s) | ratio, median |\n|---|---|---|---|---|")
            run = partial(generation, engines=engines, pairs=asked.pairs)
        for subject in timed:
            embed_ahead(subject.job.run)
            run(subject, folder / "passes" / subject.name)


if __name__ == "__main__":
    sys.exit(main())
