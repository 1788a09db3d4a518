"""A timing from its start to its figures.

The order is that of a run: embedding and training first, then the engine, so that a GPU need not hold all of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from bench import registry
from bench.backends import Engines
from bench.config import (
    DATA,
    GENERATION,
    PEERS,
    RETRIEVAL,
    RUNTIME,
    TRAINING,
    backend_settings_of,
    settings_of,
)
from bench.errors import ConfigError
from bench.machine import processor
from bench.models import fingerprint
from bench.places import shown_name, without_places
from bench.progress import say
from bench.resolved import Inputs, Run
from bench.timing.files import KIND, SCHEMA, Timing
from bench.timing.subjects import Subject, subjects

MOST_PASSES = 1000
CALIBRATIONS = 5
"""How often the fixed piece of work is timed before all else, and again after it."""


def measure(
    settings: Mapping[str, Any],
    methods: Sequence[str],
    limit: int,
    warmup: int,
    repeats: int,
    inputs: Inputs | None = None,
) -> Timing:
    """Time methods, all registered ones if none is named, on the first `limit` instances of each category.

    For each method the first `warmup` passes are thrown away and `repeats` are kept, one figure each; all make the same
    texts. What a backend would keep of one pass for the next is off whatever the settings say (`Backend.timing`).
    Raises `BenchError`.
    """
    if not (0 <= warmup <= MOST_PASSES and 1 <= repeats <= MOST_PASSES):
        raise ConfigError(
            f"a timing needs --warmup of 0 to {MOST_PASSES} and --repeats of 1 to {MOST_PASSES} passes over the "
            f"instances, not {warmup} and {repeats}"
        )
    names = list(dict.fromkeys(methods)) or registry.names("methods")
    load_average = os.getloadavg()[0]
    calibration = [_calibrate() for _ in range(CALIBRATIONS)]
    with TemporaryDirectory(prefix="bench-timing-") as folder:
        timed = subjects(settings, names, limit, Path(folder), inputs or Inputs())
        for subject in timed:
            subject.job.check()
        soft = any(subject.job.adapter is not None for subject in timed)
        found = {subject.name: _prepared(subject, warmup, repeats) for subject in timed}
        with Engines(vectors=soft) as engines:
            start_seconds = _start(timed, engines)
            _pass_in_turns(timed, engines, warmup, repeats, found)
        calibration += [_calibrate() for _ in range(CALIBRATIONS)]
        measured = {
            "load_average": load_average,
            "calibration_seconds": calibration,
            "engine_start_seconds": start_seconds,
        }
        return _timing(timed[0], soft, {"limit": limit, "warmup": warmup, "repeats": repeats}, measured, found)


def _prepared(subject: Subject, warmup: int, repeats: int) -> Timing:
    training = " and training" if subject.training else ""
    say(f"timing {subject.name}: prompts, embedding{training}")
    return subject.prepare(warmup, repeats)


def _start(timed: Sequence[Subject], engines: Engines) -> float | None:
    """Start the engine; the seconds it took, None if no method calls it."""
    for subject in timed:
        if subject.job.run.method.properties.calls_model:
            started = perf_counter()
            subject.engine(engines)
            return perf_counter() - started
    return None


def _pass_in_turns(
    timed: Sequence[Subject], engines: Engines, warmup: int, repeats: int, found: Mapping[str, Timing]
) -> None:
    """Add the figures of all passes. In turns: what disturbs the machine for a while then shows in the spread, not in
    one method's median."""
    passes: list[list[dict[str, float]]] = []
    for number in range(warmup + repeats):
        say(f"timing: pass {number + 1} of {warmup + repeats}{' (to warm up)' if number < warmup else ''}")
        passes.append([subject.time_empty(engines) for subject in timed])
    for subject, kept in zip(timed, zip(*passes[warmup:], strict=True), strict=True):
        found[subject.name]["figures"] |= {name: [one[name] for one in kept] for name in kept[0]}


def _timing(
    first: Subject, soft: bool, asked: Mapping[str, int], measured: Mapping[str, Any], found: Mapping[str, Timing]
) -> Timing:
    """The content of the timing's file."""
    run, record = first.job.run, first.job.record()
    corpora, split = run.corpora, run.config.split
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "created": record.created,
        "machine": {"device": record.device, "processor": processor(), "cores": len(os.sched_getaffinity(0))},
        "load_average": measured["load_average"],
        "versions": record.versions,
        "settings": _settings(run, soft) | dict(asked),
        "model": shown_name(run.config.model),
        "dataset": shown_name(run.config.dataset),
        "instances": {name: len(corpus.split(split)[: asked["limit"]]) for name, corpus in corpora.items()},
        "calibration_seconds": measured["calibration_seconds"],
        "engine_start_seconds": measured["engine_start_seconds"],
        "methods": dict(found),
    }


def _settings(run: Run, soft: bool) -> dict[str, Any]:
    """What has to be equal in two timings that are compared: everything that decides what work is done."""
    config = run.config
    kinds = [DATA, RETRIEVAL, PEERS, TRAINING, GENERATION, RUNTIME]
    chosen = settings_of(config, kinds) | backend_settings_of(config, kinds)
    for name in ("method", "dataset", "revision", "model", "tokenizer", "adapter", "prompts", "results"):
        chosen.pop(name)
    plugins = {*registry.names("methods"), *registry.names("retrievers"), *registry.names("tasks")}
    chosen |= {"options": {name: values for name, values in config.options.items() if name in plugins}}
    return {
        **without_places(chosen),
        "data": {category: corpus.fingerprint for category, corpus in run.corpora.items()},
        "model": fingerprint(config.model),
        "tokenizer": fingerprint(config.tokenizer or config.model),
        "engine for soft prompts": soft,
    }


def _calibrate() -> float:
    """Seconds of a fixed piece of work on one thread, half of it numpy's and half of it Python's own."""
    values = np.random.default_rng(0).random(500_000)
    started = perf_counter()
    np.sort(values)
    sum(number * number for number in range(500_000))
    return perf_counter() - started
