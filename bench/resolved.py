"""One configuration, resolved: its plugins, its data and what its method sees of them. No model, no adapter, no
writing."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench import registry, templates
from bench.chat import Chat, Unmeasured
from bench.config import RunConfig
from bench.context import Context
from bench.data.corpus import Corpus
from bench.data.load import load
from bench.data.peers import Peers
from bench.encoders import EmbeddingCache
from bench.errors import ConfigError, DataError, MisfitError
from bench.progress import say
from bench.protocols import Method, Metric, Retriever, Task
from bench.records import Instance


class Inputs:
    """What runs share: each data set is read, each tokenizer loaded and each pool of peers built once. `chat` is the
    class of chats that they get."""

    def __init__(self, corpora: Mapping[str, Corpus] | None = None, chat: type[Chat] = Chat) -> None:
        self._given = corpora
        self._chat = chat
        self._corpora: dict[tuple[object, ...], Mapping[str, Corpus]] = {}
        self._chats: dict[tuple[str, str, str], Chat] = {}
        self._pools: dict[tuple[str, bool, bool], Peers] = {}
        self._embeddings: dict[Path, EmbeddingCache] = {}

    def corpora(self, config: RunConfig) -> Mapping[str, Corpus]:
        """The corpora of a configuration by category, or those that were given at the start."""
        if self._given is not None:
            return self._given
        key = (config.dataset, config.categories, config.revision, config.task)
        if key not in self._corpora:
            self._corpora[key] = load(*key)
        return self._corpora[key]

    def chat(self, config: RunConfig) -> Chat:
        """The tokenizer of a configuration with its chat template."""
        model, variables = config.tokenizer or config.model, config.chat_template_kwargs
        key = (model, config.template, json.dumps(variables, sort_keys=True, default=str))
        return self._chats.setdefault(key, self._chat(model, config.template, variables))

    def pool(self, corpus: Corpus, config: RunConfig) -> Peers:
        """The pool of peers of a category."""
        switches = config.switch("peers.unused_targets"), config.switch("peers.all_targets")
        key = (corpus.fingerprint, *switches)
        if key not in self._pools:
            self._pools[key] = Peers(corpus, *switches)
        return self._pools[key]

    def embeddings(self, results: Path) -> EmbeddingCache:
        """The vectors that are kept in a folder of results."""
        folder = results / "embeddings"
        return self._embeddings.setdefault(folder, EmbeddingCache(folder))


class Run:
    """A configuration with its plugins made, its data read and its metrics chosen.

    With `validation` the run is over so many instances, drawn from all of its split. Raises `BenchError` for
    everything that can be known to be wrong from these alone.
    """

    def __init__(self, config: RunConfig, inputs: Inputs | None = None, validation: int | None = None) -> None:
        self.config = config
        self.inputs = inputs or Inputs()
        self.task: Task = self._plugin("tasks", config.task)
        self.method: Method = self._plugin("methods", config.method)
        self.chosen_retriever: Retriever = self._plugin("retrievers", config.retriever)
        properties = self.method.properties
        self.retriever = self.chosen_retriever if properties.retrieval_augmented else None
        self.metrics: dict[str, Metric] = {name: self._plugin("metrics", name) for name in config.metrics}
        _check_fit(self)
        self.templates = templates.load(self.method, config.method, self.task, config.task, config.prompts)
        self.chat = self.inputs.chat(config)
        self.corpora = self.inputs.corpora(config)
        self.embeddings = self.inputs.embeddings(config.results)
        self.instances = [
            instance for corpus in self.corpora.values() for instance in corpus.split(config.split)[: config.limit]
        ]
        if validation is not None:
            self.instances = validation_subset(self.instances, validation)
        if not self.instances:
            raise DataError(f"data set '{config.dataset}' has no {config.split} instances")
        _check_times(self)
        self.contexts = {category: self._context(corpus) for category, corpus in self.corpora.items()}

    def _plugin(self, group: str, name: str) -> Any:
        return registry.create(group, name, self.config.options.get(name, {}), self.config.fidelity)

    def _context(self, corpus: Corpus) -> Context:
        config = self.config
        return Context(
            task=self.task,
            # Without the texts to predict: no method or retriever can reach them.
            corpus=replace(corpus, references={}, target_texts={}),
            method=config.method,
            templates=self.templates,
            chat=self.chat,
            retriever=self.retriever,
            k=config.k,
            input_budget=config.budget,
            run_seed=config.seed,
            embedder=self.embeddings.embed,
            overlong_budget=(lambda: sys.maxsize if config.room is None else config.room)
            if config.switch("overlong") == "whole"
            else None,
            marks=getattr(self.method, "marks", ()),
            pool=self.inputs.pool(corpus, config) if self.method.properties.inter_user else None,
            before_target=config.peers.before_target,
        )

    @cached_property
    def by_id(self) -> dict[str, Instance]:
        """The instances by their ids."""
        return {instance.id: instance for instance in self.instances}

    @cached_property
    def unmeasured(self) -> Run:
        """The same run in which every prompt fits the budget, and no tokenizer is needed."""
        roomy = copy.copy(self)
        chat = Unmeasured(self.chat.model, self.chat.template)
        roomy.contexts = {name: replace(context, chat=chat) for name, context in self.contexts.items()}
        return roomy

    @property
    def signatures(self) -> dict[str, str]:
        """Each metric's signature."""
        return {name: metric.signature() for name, metric in self.metrics.items()}


def _check_fit(run: Run) -> None:
    """Raise `MisfitError` for a method, a metric or a retriever that needs what the task's data does not have,
    `ConfigError` for a method that needs what the backend does not have."""
    config, task = run.config, run.task
    if run.method.properties.repeats and not getattr(task, "answered", True):
        raise MisfitError(
            f"method {config.method} repeats what the user answered before, and the records of task {config.task} hold "
            "no answers; choose another method (bench list methods)"
        )
    if run.method.properties.inter_user and not task.grouped:
        raise MisfitError(
            f"method {config.method} compares users by what they wrote of the same thing, and the data of task "
            f"{config.task} have nothing that users share; choose a method without peers (bench list methods)"
        )
    if (others := getattr(run.method, "models", ())) and not _takes_models(config.backend):
        able = [name for name in registry.names("backends") if _takes_models(name)]
        raise ConfigError(
            f"method {config.method} asks a second model ('{others[0]}'), and backend={config.backend} runs one alone; "
            f"use {' or '.join(f'backend={name}' for name in able)}, or name no second model"
        )
    if run.method.properties.inter_user and config.peers.before_target and not task.timed:
        raise MisfitError(f"peers.before_target needs times, which the data of task {config.task} do not have")
    for name, metric in run.metrics.items():
        if getattr(metric, "grouped", False) and not task.grouped:
            raise MisfitError(
                f"metric {name} tells users from their peers, and the data of task {config.task} have nothing that "
                "users share; leave it out, e.g. --set metrics=[rouge]"
            )
    if run.retriever is not None and getattr(run.retriever, "timed", False) and task.timed is False:
        raise _timeless(config)


def _check_times(run: Run) -> None:
    """Raise `MisfitError` for a retriever that needs times on data without, where it takes a look at them to know."""
    if run.retriever is None or not getattr(run.retriever, "timed", False) or run.task.timed is not None:
        return
    if any(record.timestamp is None for instance in run.instances for record in instance.profile):
        raise _timeless(run.config)


def _timeless(config: RunConfig) -> MisfitError:
    return MisfitError(
        f"retriever {config.retriever} needs times, which the data of task {config.task} do not have; choose another "
        "one, e.g. --retriever bm25"
    )


@cache
def _tell(sentence: str) -> None:
    """Once: several runs may have the same to tell."""
    say(sentence)


def tell_defaults(run: Run) -> None:
    """Say what a run's task chose that is not the default elsewhere."""
    config = run.config
    if run.retriever is not None and config.retriever == getattr(run.task, "settings", {}).get("retriever"):
        _tell(f"task {config.task}: {config.retriever} chooses the history, the task's default (--retriever)")


def _takes_models(backend: str) -> bool:
    return getattr(registry.load("backends", backend), "other_models", False) is True


def validation_subset(instances: Sequence[Instance], count: int) -> list[Instance]:
    """`count` of the instances at random, always the same, in the order drawn (DEP's authors draw 512 of 3,996)."""
    order = np.random.default_rng(42).permutation(len(instances))
    return [instances[index] for index in order[:count]]
