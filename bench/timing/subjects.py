"""What is timed: methods, each with a configuration, an adapter and a folder of its own."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.backends import Engines
from bench.config import RunConfig, build
from bench.context import Context
from bench.encoders import EmbeddingCache
from bench.errors import StoreError
from bench.job import Job
from bench.loop import Loop, dry_run
from bench.protocols import Backend
from bench.records import Prompt
from bench.resolved import Inputs, Run, validation_subset
from bench.softprompt.adapters import AdapterFiles, read_tensors
from bench.softprompt.trained import ImportedAdapter, TrainedAdapter, fresh_adapter, has_slots, table_shape
from bench.store import RunStore
from bench.timing import memory
from bench.timing.files import Timing
from bench.timing.watches import WatchedBackend, WatchedEmbedder, WatchedRetriever

if TYPE_CHECKING:
    from torch import Tensor

TRAINING_STEPS = 2
"""Optimiser steps of a pass of training."""


@dataclass
class Subject:
    """A method to be timed; `folder` is its own, for everything that it writes. `weights` says whose the adapter's
    are: "trained", "fresh" or "imported"; `training` is the adapter whose training is timed."""

    job: Job
    folder: Path
    weights: str | None = None
    training: TrainedAdapter | None = None

    @property
    def name(self) -> str:
        """The method's."""
        return self.job.config.method

    def prepare(self, warmup: int, repeats: int) -> Timing:
        """What needs no engine: the prompts, for the texts that are embedded for them, then those, then training."""
        run = self.job.run
        needed = WatchedEmbedder(run.embeddings.embed)
        dry_run(_with_contexts(run, lambda context: replace(context, embedder=needed)), _made)
        found: Timing = {"weights": self.weights, "figures": {}}
        if texts := sum(map(len, needed.texts.values())):
            found["embedded_texts"] = texts
            found["figures"]["embedding_seconds"] = [
                _embed_cold(needed.texts, self.folder / f"cold-{number}") for number in range(repeats)
            ]
        if self.training is not None:
            found["training"] = time_training(self.training, self.folder / "training", warmup, repeats)
        # All vectors are on disk: without the encoders, whose place the engine may need.
        run.embeddings.release()
        memory.free_gpu()
        return found

    def time_empty(self, engines: Engines) -> dict[str, float]:
        """`time_pass` in a folder of its own, which is gone afterwards."""
        folder = self.folder / "pass"
        with RunStore(folder, self.job.record()) as store:
            figures = self.time_pass(store, engines)
        shutil.rmtree(folder)
        return figures

    def time_pass(self, store: RunStore, engines: Engines) -> dict[str, float]:
        """The figures of one pass over all instances. Raises `StoreError` for a store that holds answers."""
        if store.stored():
            raise StoreError(
                f"{store.folder} holds {store.stored()} answers already: a resumed or cached run cannot be timed; give "
                "an empty folder"
            )
        retriever = None if self.job.run.retriever is None else WatchedRetriever(self.job.run.retriever)
        run = _with_contexts(self.job.run, lambda context: replace(context, retriever=retriever))
        watches: list[WatchedBackend] = []

        def engine() -> Backend:
            watches.append(WatchedBackend(self.engine(engines)))
            return watches[0]  # type: ignore[return-value]

        loop = Loop(run, store, engine, self.job.vectors, self.job.label)
        measures_memory = memory.forget_peak()
        started = perf_counter()
        loop.predictions()
        seconds = perf_counter() - started
        figures = {"instances_per_second": len(run.instances) / seconds}
        if (spent := loop.seconds) is not None:
            figures["rendering_seconds"] = spent.rendering / len(run.instances)
            figures["idle_share"] = spent.idle / (spent.idle + spent.engine)
        for watch in watches:
            figures |= watch.figures(len(run.instances), seconds)
        if retriever is not None:
            figures["retrieval_seconds"] = retriever.seconds / len(run.instances)
        if measures_memory:
            figures["memory_bytes"] = memory.peak()
        if (used := memory.gpus_in_use()) is not None:
            figures["gpu_memory_bytes"] = used
        return figures

    def engine(self, engines: Engines) -> Backend:
        """The engine for the method's calls."""
        return engines.get(self.job.config, self.job.run.chat, vectors=self.job.adapter is not None)


def subjects(
    settings: Mapping[str, Any], names: Sequence[str], limit: int, folder: Path, inputs: Inputs
) -> list[Subject]:
    """The methods of these names on the first `limit` instances of each category, each in a folder of its own in
    `folder`. The backend gets the settings that a timing needs, whatever `settings` say. Raises `BenchError`."""
    return [_subject(build(settings, {"method": name}), settings, limit, folder / name, inputs) for name in names]


def _subject(asked: RunConfig, settings: Mapping[str, Any], limit: int, folder: Path, inputs: Inputs) -> Subject:
    backend = asked.engine.backend
    needed = {backend: dict(registry.load("backends", backend).timing)}
    changed = {"method": asked.method, "limit": limit, "metrics": [], "results": str(folder)}
    run = Run(build(settings, changed, needed), inputs)
    if not has_slots(run):
        return Subject(Job(run, None), folder)
    training = TrainedAdapter(run)
    if asked.adapter is not None:
        return Subject(Job(run, ImportedAdapter(asked.adapter, asked.method)), folder, "imported", training)
    weights, tensors, marks = _weights(TrainedAdapter(Run(asked, inputs)), run)
    adapter = ImportedAdapter.write(folder / "adapter", asked.method, tensors, marks=marks)
    run = Run(run.config.model_copy(update={"adapter": adapter.folder}), inputs)
    return Subject(Job(run, adapter), folder, weights, training)


def _weights(known: TrainedAdapter, run: Run) -> tuple[str, dict[str, Tensor], dict[str, Tensor]]:
    """An adapter's weights, with the vectors of marks without embeddings, and whose they are: those of the
    configuration's own adapter, if it is trained and its epoch chosen, else fresh ones."""
    import torch

    rows, width = table_shape(run.config.model)
    marks = run.chat.mark_ids(known.method.marks, rows)
    if known.is_trained and known.selection is not None:
        vectors = {mark: torch.from_numpy(vector) for mark, vector in known.marks(marks).items()}
        return "trained", read_tensors(known.weights()), vectors
    torch.manual_seed(run.config.train.seed)
    return "fresh", fresh_adapter(run, width).state_dict(), {mark: torch.zeros(width) for mark in marks}


def _with_contexts(run: Run, change: Callable[[Context], Context]) -> Run:
    """The same run with other contexts."""
    changed = copy.copy(run)
    changed.contexts = {category: change(context) for category, context in run.contexts.items()}
    return changed


def _embed_cold(texts: Mapping[str, Mapping[str, None]], folder: Path) -> float:
    """Seconds in which the texts of each encoder become vectors on disk, as a run makes them ahead; the encoder's
    loading apart."""
    cache = EmbeddingCache(folder)
    seconds = 0.0
    for encoder, chosen in texts.items():
        # A text of no record: the first one has the model's weights read.
        cache.embed(["how long is a vector?"], encoder)
        started = perf_counter()
        cache.embed(list(chosen), encoder)
        seconds += perf_counter() - started
    return seconds


def _made(prompt: Prompt) -> None:
    """Have a prompt's features made, for which texts are embedded."""
    len(prompt.features)


def time_training(adapter: TrainedAdapter, folder: Path, warmup: int, repeats: int) -> Timing:
    """Time some steps of a method's training, as many times as passes are wanted, from fresh weights."""
    from bench.softprompt import trainer

    job, pool = adapter.job(), adapter.instances
    chosen = validation_subset(pool, TRAINING_STEPS * job.config.batch_size)
    job = replace(
        job,
        label=f"{job.label}, to time it",
        folder=folder,
        config=job.config.model_copy(update={"epochs": warmup + repeats}),
        examples=partial(adapter.examples, chosen),
        # Found once, and no part of a step.
        token_weights=None,
    )
    measures_memory = memory.forget_peak()
    trainer.train(job)
    peak = memory.peak() if measures_memory else None
    files = AdapterFiles(folder)
    record, steps = files.training(), files.steps()
    assert record is not None
    passes = [[step for step in steps if step.epoch == epoch + 1] for epoch in range(warmup, warmup + repeats)]
    return {
        "instances_per_second": [
            sum(one.instances for one in kept) / sum(one.seconds for one in kept) for kept in passes
        ],
        "timed_instances": record.instances,
        "instances_an_epoch": len(pool),
        "parameters": record.parameters,
        "share": record.share,
        "memory_bytes": peak,
        "gpu_memory_bytes": memory.gpu_peak(),
    }
