"""How fast each method is, on one engine: `bench time`, and the comparison of two timings.

A timing makes all of its texts anew, in folders that are empty when a pass begins and gone when it ends. The seconds in
a run's folder are never used: they may come from a run that was resumed.

The order is that of a run: embedding and training first, then the engine, so that a GPU need not hold all of them.
"""

from __future__ import annotations

import gc
import json
import math
import os
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from bench import registry
from bench.backends import Engines
from bench.backends.openai import without_credentials
from bench.chat import Chat
from bench.config import DATA, GENERATION, PEERS, RETRIEVAL, RUNTIME, TRAINING, RunConfig, build, settings_of
from bench.context import Context
from bench.data.corpus import Corpus
from bench.data.load import load
from bench.embedding import EmbeddingCache, Vectors
from bench.errors import ConfigError, StoreError
from bench.models import fingerprint, resolve_model
from bench.progress import say
from bench.protocols import Backend, Retriever
from bench.records import Call, Completion, Instance, Review
from bench.runner import Run, drawn, generate, rehearse
from bench.softprompt import adapters
from bench.store import RunStore, dump, read_json, read_rows, write_atomically

KIND, SCHEMA = "timing", 1
TRAINING_STEPS = 2
"""Optimiser steps of a pass of training."""
CALIBRATIONS = 5
"""How often the fixed piece of work is timed before all else, and again after it."""
Timing = dict[str, Any]


def measure(settings: Mapping[str, Any], methods: Sequence[str], limit: int, warmup: int, repeats: int) -> Timing:
    """Time methods, all registered ones if none is named, on the first `limit` instances of each category.

    Of each pass the first `warmup` are thrown away and `repeats` are kept, one figure each; all make the same texts.
    vLLM's prefix caching is off whatever the settings say: it would keep the first pass's prompts for the others.
    Returns what `results/timing/NAME.json` holds: machine, settings, start of the engine and the figures by method.
    Raises `BenchError`.
    """
    if warmup < 0 or repeats < 1:
        raise ConfigError(f"a timing needs --warmup 0 or more and --repeats 1 or more, not {warmup} and {repeats}")
    names = list(dict.fromkeys(methods)) or registry.names("methods")
    load_average = os.getloadavg()[0]
    calibration = [_calibrate() for _ in range(CALIBRATIONS)]
    with TemporaryDirectory(prefix="bench-timing-") as folder:
        subjects = _subjects(settings, names, limit, Path(folder))
        for subject in subjects:
            subject.run.check()
        found: dict[str, Timing] = {}
        for subject in subjects:
            say(f"timing {subject.run.label}: prompts, embedding{' and training' if subject.run.soft else ''}")
            found[subject.run.label] = subject.prepare(warmup, repeats)
        soft = any(subject.run.soft for subject in subjects)
        engines = _WatchedEngines(soft)
        with engines:
            start_seconds = _start(subjects, engines)
            passes: list[list[dict[str, float]]] = []
            # In turns: what disturbs the machine for a while then shows in the spread, not in one method's median.
            for number in range(warmup + repeats):
                say(f"timing: pass {number + 1} of {warmup + repeats}{' (to warm up)' if number < warmup else ''}")
                passes.append([subject.time_empty(engines) for subject in subjects])
        for subject, kept in zip(subjects, zip(*passes[warmup:], strict=True), strict=True):
            found[subject.run.label]["figures"] |= {name: [one[name] for one in kept] for name in kept[0]}
        run = subjects[0].run
        record = run.record()
        calibration += [_calibrate() for _ in range(CALIBRATIONS)]
        return {
            "kind": KIND,
            "schema": SCHEMA,
            "created": record["created"],
            "machine": {"device": record["device"], "processor": _processor(), "cores": len(os.sched_getaffinity(0))},
            "load_average": load_average,
            "versions": record["versions"],
            "settings": _settings(run, soft) | {"limit": limit, "warmup": warmup, "repeats": repeats},
            "model": run.config.model,
            "dataset": run.config.dataset,
            "instances": {name: len(corpus.split(run.config.split)[:limit]) for name, corpus in run.corpora.items()},
            "calibration_seconds": calibration,
            "engine_start_seconds": start_seconds,
            "methods": found,
        }


def _settings(run: Run, soft: bool) -> dict[str, Any]:
    """What has to be equal in two timings that are compared: everything that decides what work is done."""
    config = run.config
    chosen = settings_of(config, [DATA, RETRIEVAL, PEERS, TRAINING, GENERATION, RUNTIME])
    for name in ("method", "dataset", "revision", "model", "tokenizer", "adapter", "prompts", "results"):
        chosen.pop(name)
    if config.backend == "openai":
        chosen["openai.base_url"] = without_credentials(config.openai.base_url)
    other = {"vllm": "openai.", "openai": "vllm."}[config.backend]
    chosen = {name: value for name, value in chosen.items() if not name.startswith(other)}
    plugins = {*registry.names("methods"), *registry.names("retrievers")}
    return chosen | {
        "options": {name: values for name, values in config.options.items() if name in plugins},
        "data": {category: corpus.fingerprint for category, corpus in run.corpora.items()},
        "model": fingerprint(config.model),
        "tokenizer": fingerprint(config.tokenizer or config.model),
        "engine for soft prompts": soft,
    }


# -- one method ------------------------------------------------------------------------------------------------------


@dataclass
class _Subject:
    """A method to be timed; `folder` is its own, for everything that it writes. `weights` says whose the adapter's
    are: "trained", "fresh" or "imported"."""

    run: Run
    folder: Path
    weights: str | None = None

    def prepare(self, warmup: int, repeats: int) -> Timing:
        """What needs no engine: the prompts, for the texts that are embedded for them, then those, then training."""
        needed = _Recorder(self.run.embeddings.embed)
        self._watch(lambda context: replace(context, embedder=needed))
        rehearse(self.run)
        found: Timing = {"weights": self.weights, "figures": {}}
        if texts := sum(map(len, needed.texts.values())):
            found["embedded_texts"] = texts
            found["figures"]["embedding_seconds"] = [
                _embed_cold(needed.texts, self.folder / f"cold-{number}") for number in range(repeats)
            ]
        if self.run.soft:
            found["training"] = _train(self.run, self.folder / "training", warmup, repeats)
        # All vectors are on disk: without the encoders, whose place the engine may need.
        self.run.embeddings = EmbeddingCache(self.folder / "embeddings")
        self._watch(lambda context: replace(context, embedder=self.run.embeddings.embed))
        _free_gpu()
        return found

    def time_empty(self, engines: _WatchedEngines) -> dict[str, float]:
        """`time_pass` in a folder of its own, which is gone afterwards."""
        folder = self.folder / "pass"
        with RunStore(folder, self.run.record()) as store:
            figures = self.time_pass(store, engines)
        shutil.rmtree(folder)
        return figures

    def time_pass(self, store: RunStore, engines: _WatchedEngines) -> dict[str, float]:
        """The figures of one pass over all instances. Raises `StoreError` for a store that holds answers."""
        if store.stored():
            raise StoreError(
                f"{store.folder} holds {store.stored()} answers already: a resumed or cached run cannot be timed; give "
                "an empty folder"
            )
        retriever = None if self.run.retriever is None else _WatchedRetriever(self.run.retriever)
        self._watch(lambda context: replace(context, retriever=retriever))
        engines.watch = None
        measures_memory = _forget_peak()
        started = perf_counter()
        generate(self.run, store, engines)
        seconds = perf_counter() - started
        instances = len(self.run.instances)
        figures = {"instances_per_second": instances / seconds}
        if engines.watch is not None:
            figures |= engines.watch.figures(instances, seconds)
        if retriever is not None:
            figures["retrieval_seconds"] = retriever.seconds / instances
        if measures_memory:
            figures["memory_bytes"] = _peak_memory()
        if (used := _gpu_memory()) is not None:
            figures["gpu_memory_bytes"] = used
        return figures

    def _watch(self, change: Callable[[Context], Context]) -> None:
        self.run.contexts = {category: change(context) for category, context in self.run.contexts.items()}


def _subjects(settings: Mapping[str, Any], names: Sequence[str], limit: int, folder: Path) -> list[_Subject]:
    subjects: list[_Subject] = []
    corpora: dict[str, Corpus] | None = None
    for name in names:
        config = build(settings, {"method": name, "limit": limit, "metrics": [], "vllm": {"prefix_caching": False}})
        corpora = corpora or load(config.dataset, config.categories, config.revision)
        own = folder / name
        run = Run(config.model_copy(update={"results": own}), corpora)
        if not run.soft:
            subjects.append(_Subject(run, own))
        elif not run.learns:
            subjects.append(_Subject(run, own, "imported"))
        else:
            weights = _adapter(Run(build(settings, {"method": name}), corpora), run, own / "adapter")
            subjects.append(
                _Subject(Run(run.config.model_copy(update={"adapter": own / "adapter"}), corpora), own, weights)
            )
    return subjects


def _adapter(trained: Run, run: Run, folder: Path) -> str:
    """Make an adapter for timing in `folder`, in the form of an imported one: that of the configuration, if it has
    been trained, else a fresh one. Which of the two."""
    write_atomically(folder / "adapter.json", dump({"schema": adapters.SCHEMA, "method": run.config.method}))
    if adapters.is_trained(trained.adapter_folder) and (trained.selection_folder / "selection.json").exists():
        shutil.copyfile(trained.weights(), folder / "adapter.safetensors")
        return "trained"
    import torch
    from transformers import AutoConfig

    model = AutoConfig.from_pretrained(resolve_model(run.config.model), trust_remote_code=False)
    torch.manual_seed(run.config.train.seed)
    fresh = run.fresh_adapter(model.get_text_config().hidden_size)
    adapters.write_tensors(folder / "adapter.safetensors", fresh.state_dict())
    return "fresh"


def _embed_cold(texts: Mapping[str, Mapping[str, None]], folder: Path) -> float:
    """Seconds in which the texts of each encoder become vectors on disk, as a run makes them ahead; the encoder's
    loading apart."""
    cache = EmbeddingCache(folder)
    seconds = 0.0
    for encoder, chosen in texts.items():
        # A text of no review: the first one has the model's weights read.
        cache.embed(["how long is a vector?"], encoder)
        started = perf_counter()
        cache.embed(list(chosen), encoder)
        seconds += perf_counter() - started
    return seconds


def _train(run: Run, folder: Path, warmup: int, repeats: int) -> Timing:
    """Time some steps of a method's training, as many times as passes are wanted, from fresh weights."""
    from bench.softprompt import trainer

    first = run.at_epoch(1)
    method, config = first.trained_method, first.config.train
    assert method is not None
    pool = [
        (corpus, instance)
        for corpus in first.corpora.values()
        for instance in corpus.longest_profiles("train")[: config.limit]
    ]
    chosen = drawn([instance for _, instance in pool], TRAINING_STEPS * config.batch_size)
    corpus_of = {instance.id: corpus for corpus, instance in pool}

    def examples() -> list[Any]:
        return [
            trainer.example(
                first.chat, first.first_prompt(one), corpus_of[one.id].reference(one), config.max_target_tokens
            )
            for one in chosen
        ]

    job = trainer.Job(
        label=f"{run.config.method}, to time it",
        folder=folder,
        model=run.config.model,
        config=config.model_copy(update={"epochs": warmup + repeats}),
        learning_rate=first.learning_rate,
        aux_reduction=method.aux_reduction,
        adapter=first.fresh_adapter,
        examples=examples,
    )
    measures_memory = _forget_peak()
    trainer.train(job)
    memory = _peak_memory() if measures_memory else None
    record = read_json(folder / "training.json")
    log = list(read_rows(folder / "log.jsonl"))
    passes = [[row for row in log if row["epoch"] == epoch + 1] for epoch in range(warmup, warmup + repeats)]
    return {
        "instances_per_second": [
            sum(row["instances"] for row in rows) / sum(row["seconds"] for row in rows) for rows in passes
        ],
        "timed_instances": record["instances"],
        "instances_an_epoch": len(pool),
        "parameters": record["parameters"],
        "share": record["share"],
        "memory_bytes": memory,
        "gpu_memory_bytes": _gpu_peak(),
    }


# -- watches, from outside -------------------------------------------------------------------------------------------


@dataclass
class _Recorder:
    """Embeds, and keeps note of the texts by encoder."""

    embed: Callable[[Sequence[str], str], Vectors]
    texts: dict[str, dict[str, None]] = field(default_factory=dict)

    def __call__(self, texts: Sequence[str], encoder: str) -> Vectors:
        self.texts.setdefault(encoder, {}).update(dict.fromkeys(texts))
        return self.embed(texts, encoder)


@dataclass
class _WatchedRetriever:
    """Adds up the seconds that a retriever ranks."""

    retriever: Retriever
    seconds: float = 0.0

    def rank(self, instance: Instance, candidates: Sequence[Review], context: Context) -> list[int]:
        started = perf_counter()
        ranking = self.retriever.rank(instance, candidates, context)
        self.seconds += perf_counter() - started
        return ranking


@dataclass
class _WatchedBackend:
    """Takes the time of each instance's first call and last answer, and counts what the engine answered."""

    backend: Backend
    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    answers: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    def submit(self, call: Call) -> None:
        self.first.setdefault(call.key[0], perf_counter())
        self.backend.submit(call)

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        for call, completion in self.backend.completed():
            self.last[call.key[0]] = perf_counter()
            self.answers += 1
            self.prompt_tokens += completion.prompt_tokens
            self.output_tokens += completion.completion_tokens
            yield call, completion

    def close(self) -> None:
        self.backend.close()

    def figures(self, instances: int, seconds: float) -> dict[str, float]:
        """Speed, work and latency of a pass."""
        latencies = [self.last[instance] - started for instance, started in self.first.items()]
        return {
            "output_tokens_per_second": self.output_tokens / seconds,
            "latency_p50": float(np.quantile(latencies, 0.5)),
            "latency_p95": float(np.quantile(latencies, 0.95)),
            "calls": self.answers / instances,
            "prompt_tokens": self.prompt_tokens / instances,
            "output_tokens": self.output_tokens / instances,
        }


class _WatchedEngines(Engines):
    """The one engine, with a new watch on it each time that it is asked for."""

    watch: _WatchedBackend | None = None

    def get(self, config: RunConfig, chat: Chat, soft: bool = False) -> Backend:
        self.watch = _WatchedBackend(super().get(config, chat, soft))
        return self.watch


def _start(subjects: Sequence[_Subject], engines: _WatchedEngines) -> float | None:
    """Start the engine; the seconds it took, None if no method calls it."""
    for subject in subjects:
        if subject.run.method.properties.calls_model:
            started = perf_counter()
            engines.get(subject.run.config, subject.run.chat, subject.run.soft)
            return perf_counter() - started
    return None


# -- the machine -----------------------------------------------------------------------------------------------------


def _calibrate() -> float:
    """Seconds of a fixed piece of work on one thread, half of it numpy's and half of it Python's own."""
    values = np.random.default_rng(0).random(500_000)
    started = perf_counter()
    np.sort(values)
    sum(number * number for number in range(500_000))
    return perf_counter() - started


def _processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _forget_peak() -> bool:
    """Let the peaks of memory begin anew; false where the system does not tell this process's."""
    if _has_gpu():
        import torch

        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _peak_memory() -> int:
    """The most memory that this process has held since `_forget_peak`, in bytes (Linux's VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _gpu_peak() -> int | None:
    """The most GPU memory that torch has reserved here since `_forget_peak`, in bytes; not vLLM's on several GPUs."""
    if not _has_gpu():
        return None
    import torch

    return torch.cuda.max_memory_reserved()


def _gpu_memory() -> int | None:
    """The memory in use on all GPUs, in bytes, whoever uses it: vLLM's pool does not show in torch's own counts."""
    if not _has_gpu():
        return None
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    if answer.returncode:
        return None
    return sum(int(line) for line in answer.stdout.split()) << 20


def _free_gpu() -> None:
    """Give back the GPU memory that torch keeps for later."""
    if _has_gpu():
        import torch

        gc.collect()
        torch.cuda.empty_cache()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


# -- reading and comparing -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """A figure over the repeats."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum and maximum."""
    return Spread(statistics.median(values), min(values), max(values))


def write_timing(timing: Timing, path: Path) -> None:
    """Keep a timing. Raises `StoreError`."""
    write_atomically(path, dump(timing))


def read_timing(path: Path) -> Timing:
    """A timing from its file. Raises `ConfigError` for anything else, a run's folder above all, and `StoreError` for
    another schema or a file that cannot be read."""
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder, not a timing: the seconds in a run's folder may be those of a resumed run; make a "
            "timing with `bench time` and give its JSON file"
        )
    try:
        timing = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path} cannot be read: {error}; make a timing with `bench time` and give its JSON file"
        ) from None
    if not isinstance(timing, dict) or timing.get("kind") != KIND:
        raise ConfigError(f"{path} is not a timing; make one with `bench time` and give its JSON file")
    if timing.get("schema") != SCHEMA:
        raise StoreError(
            f"{path} was written by schema {timing.get('schema')} of bench's timings, this version reads {SCHEMA}; "
            "make it again with `bench time`"
        )
    return timing


GIB = 1 << 30


@dataclass(frozen=True)
class _Figure:
    """How a figure is compared: its name in a finding, what it is when it is worse, and its unit."""

    what: str
    worse: str
    more_is_better: bool = False
    unit: float = 1.0


COMPARED = {
    "instances_per_second": _Figure("instances a second", "slow", more_is_better=True),
    "latency_p50": _Figure("seconds of median latency", "long"),
    "latency_p95": _Figure("seconds of 95th percentile latency", "long"),
    "memory_bytes": _Figure("GiB of memory at most", "much", unit=GIB),
    "gpu_memory_bytes": _Figure("GiB of GPU memory", "much", unit=GIB),
}
"""The figures of a method that are compared."""
WORK = {"calls": "LLM calls", "prompt_tokens": "prompt tokens", "output_tokens": "output tokens"}


def compare_timings(old: Path, new: Path, factor: float = 1.25) -> list[str]:
    """What has become slower from one timing to another; nothing if all is well.

    A finding is a figure (a method's speed, latency or memory, the start of the engine) whose median is worse by more
    than `factor` and whose repeats all are worse than all the old ones, or a method that is no longer there. Raises
    `ConfigError` for timings that cannot be compared: of another device, other settings or other adapters' weights, or
    of a machine that did the fixed piece of work at another speed. Seconds are not divided by that speed: it is of
    another mix of work than a method's.
    """
    if not 1 <= factor < math.inf:
        raise ConfigError(f"the factor by which a timing may be worse is {factor:g}; it has to be 1 or more, e.g. 1.25")
    before, after = read_timing(old), read_timing(new)
    for part in ("machine", "settings"):
        for name in {**before[part], **after[part]}:
            was, now = before[part].get(name), after[part].get(name)
            if was != now:
                raise ConfigError(
                    f"{old} and {new} cannot be compared: {name} was {was!r} and is {now!r}; time both in the same way"
                )
    _check_calibration(before, after, old, new, factor)
    findings: list[str] = []
    start = _Figure("seconds to start", "long")
    findings += _worse("the engine", start, before["engine_start_seconds"], after["engine_start_seconds"], factor)
    for method, was in before["methods"].items():
        now = after["methods"].get(method)
        if now is None:
            findings.append(f"{method}: timed in {old}, missing in {new}")
            continue
        if was["weights"] != now["weights"]:
            raise ConfigError(
                f"{old} and {new} cannot be compared: the weights of {method}'s adapter were {was['weights']} and are "
                f"{now['weights']}; time both in the same way"
            )
        findings += [finding + _other_work(was, now) for finding in _worse_figures(method, was, now, factor)]
    return findings


def _check_calibration(before: Timing, after: Timing, old: Path, new: Path, factor: float) -> None:
    was, now = spread(before["calibration_seconds"]), spread(after["calibration_seconds"])
    ratio = now.median / was.median
    if max(ratio, 1 / ratio) > factor and (now.low > was.high or was.low > now.high):
        raise ConfigError(
            f"{old} and {new} cannot be compared: a fixed piece of work without any model took {ratio:.2f} times as "
            "long in the second, so the machine itself was not as fast; time again while nothing else runs"
        )


def _worse_figures(method: str, was: Timing, now: Timing, factor: float) -> Iterator[str]:
    for name, figure in COMPARED.items():
        yield from _worse(method, figure, was["figures"].get(name), now["figures"].get(name), factor)
    if "training" in was and "training" in now:
        for name in ("instances_per_second", "memory_bytes", "gpu_memory_bytes"):
            before, after = was["training"][name], now["training"][name]
            yield from _worse(f"training of {method}", COMPARED[name], before, after, factor)


def _worse(
    whose: str, figure: _Figure, old: Sequence[float] | float | None, new: Sequence[float] | float | None, factor: float
) -> Iterator[str]:
    """The finding on a figure, of repeats or measured once, if it is worse; none where a timing lacks it."""
    if old is None or new is None:
        return
    before, after = (
        spread([value / figure.unit for value in ([values] if isinstance(values, int | float) else values)])
        for values in (old, new)
    )
    if figure.more_is_better:
        ratio, apart = before.median / after.median, after.high < before.low
    else:
        ratio, apart = after.median / before.median, after.low > before.high
    if ratio > factor and apart:
        yield (
            f"{whose}: {_shown(after)} {figure.what}, was {_shown(before)}: {ratio:.2f} times as {figure.worse}, "
            f"{factor:g} is allowed"
        )


def _shown(figure: Spread) -> str:
    if figure.low == figure.high:
        return f"{figure.median:.4g}"
    return f"{figure.median:.4g} ({figure.low:.4g} to {figure.high:.4g})"


def _other_work(was: Timing, now: Timing) -> str:
    """What is more or less to do for an instance than before."""
    changes = []
    for name, what in WORK.items():
        before, after = (statistics.median(timing["figures"].get(name, [0.0])) for timing in (was, now))
        if before != after:
            changes.append(f"{after:.4g} {what} an instance, were {before:.4g}")
    return f" ({'; '.join(changes)})" if changes else ""
