"""The configuration of a run: one frozen object, read from a YAML file and `--set key=value` flags.

Every field is marked with what it can change (`Kind`). A run's identity, and so the name of its folder, covers
exactly the fields that can change a text; a test fails on a field without a mark.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo

from bench import registry, yaml_text
from bench.errors import ConfigError, PluginError
from bench.files import path_of
from bench.problems import DEEPEST, LARGEST, at_most, check_value, sentence

FOLDER = Path(__file__).parent / "configs"


class Kind(Enum):
    """What a field can change."""

    DATA = "which instances are predicted, and the seed"
    RETRIEVAL = "which reviews a retrieval-augmented method sees"
    PEERS = "which other users' reviews a method that compares users sees"
    TRAINING = "what an adapter learns"
    GENERATION = "what a model is asked and how it answers"
    SCORING = "how texts are scored, not the texts"
    RUNTIME = "where and how fast it runs, not what comes out (up to the order of floating-point sums)"


DATA, RETRIEVAL, PEERS, TRAINING, GENERATION, SCORING, RUNTIME = Kind


class Section(BaseModel):
    """Base of the configuration objects: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic would take true as 1."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and kind in (int, float, int | None, float | None):
            raise ValueError("must be a number")
        return value

    def public(self) -> dict[str, Any]:
        """The settings as JSON for records, without what must not be kept (a key in an address)."""
        return self.model_dump(mode="json")


def _budget(value: Any) -> Any:
    if value is None or value == "model" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError("write a number of tokens, at least 1, or the word model")


def _several(value: Any) -> Any:
    """A name alone is a list of one."""
    return (value,) if isinstance(value, str) else value


def _place(value: Any) -> Any:
    if not isinstance(value, str | Path):
        return value
    try:
        # Text: read from JSON, nothing else is a path to pydantic.
        return str(path_of(value))
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _temperature(value: float) -> float:
    if 0 < value < COLDEST:
        raise ValueError(
            f"must be 0, which is greedy, or at least {COLDEST}: vLLM samples at {COLDEST} for anything less"
        )
    return value


def _bounds(value: tuple[float, float]) -> tuple[float, float]:
    low, high = value
    if not 0 < low <= high:
        raise ValueError("write two numbers above 0, the smaller one first, e.g. [0.5, 5]")
    return value


def _resampling(value: int) -> str:
    hours, gigabytes = value * 1000 * SECONDS_A_DRAW / 3600, value * 8 / 1e9
    return f"so many take about {hours:,.1f} hours and {gigabytes:,.0f} GB for each score of 1,000 users"


COLDEST = 0.01
"""The least temperature above 0 that vLLM has (`_MAX_TEMP` in its sampling_params.py)."""
SECONDS_A_DRAW = 4e-8
"""Of one user in one resample, measured on one core."""
CONTEXT = 10_000_000
"""Tokens: more than any model's context."""

Place = Annotated[Path, BeforeValidator(_place)]
Temperature = Annotated[float, Field(ge=0, le=2), AfterValidator(_temperature)]
Tokens = Annotated[int, Field(ge=1), at_most(CONTEXT, "no model takes so many tokens")]
Seed = Annotated[int, Field(ge=0), at_most(LARGEST, "engines take seeds of 63 bits")]
Limit = Annotated[int, Field(ge=1), at_most(LARGEST, "no data have so many instances")]


class PeersConfig(Section):
    """Other users' reviews of an item, for the methods that compare users."""

    before_target: Annotated[bool, PEERS] = False
    """Only reviews written before the target review."""
    unused_targets: Annotated[bool | None, PEERS] = None
    """Whether reviews that only a training instance which no adapter is trained on (k < 7) has to predict are peers.
    A switch."""
    all_targets: Annotated[bool | None, PEERS] = None
    """Whether every review of the longest profiles is a peer, whoever has to predict it. A switch."""


class TrainConfig(Section):
    """Training of the adapters of methods that have one; the defaults are DEP's recipe (section 4.1)."""

    epochs: Annotated[int, Field(ge=1), at_most(10_000, "a training of so many takes months"), TRAINING] = 5
    batch_size: Annotated[int, Field(ge=1), at_most(1_000_000, "no data have so many instances"), TRAINING] = 16
    """Instances an optimiser step."""
    learning_rate: Annotated[float | None, Field(gt=0), TRAINING] = None
    """Peak, after which it falls linearly to 0. Default: the method's."""
    warmup: Annotated[float, Field(ge=0, lt=1), TRAINING] = 0.01
    """Share of the steps in which the learning rate rises linearly."""
    weight_decay: Annotated[float, Field(ge=0), TRAINING] = 0.025
    clip: Annotated[float, Field(gt=0), TRAINING] = 1.0
    """Largest norm of the gradient."""
    seed: Annotated[Seed, TRAINING] = 42
    """Of initialisation, the order of instances and the random retriever."""
    k: Annotated[int | None, Field(ge=0), at_most(1_000_000, "no user has so many reviews"), TRAINING] = None
    """History reviews in training. Default: those of the run; another number decodes an adapter with fewer or more."""
    limit: Annotated[Limit | None, TRAINING] = None
    """The first so many training instances of each category."""
    cross_entropy: Annotated[Literal["review", "token"] | None, TRAINING] = None
    """What counts alike in a step: its reviews, each with the mean over its tokens, or the tokens of all of them, so
    that long reviews weigh more. A switch."""
    max_target_tokens: Annotated[Tokens | None, TRAINING] = None
    """A longer review is cut. A switch."""
    cut_target_ends: Annotated[bool | None, TRAINING] = None
    """Whether the end-of-turn token follows a review whatever its length, beyond `max_target_tokens`. A switch."""
    whole_batches: Annotated[bool | None, TRAINING] = None
    """Whether the schedule counts whole batches alone, floor(n / batch_size) steps an epoch, so that training ends
    so many steps before the end of its last epoch. A switch."""
    loss: Annotated[Literal["plain", "history"], TRAINING] = "plain"
    """How much each token of a review counts: all alike, or by how much the user's history changes its probability
    (`bench.softprompt.influence`)."""
    loss_clip: Annotated[tuple[float, float], AfterValidator(_bounds), TRAINING] = (0.5, 5.0)
    """With `loss=history`: the least and the largest influence (nats) that a token counts with."""
    vocabulary: Annotated[Literal["model", "tokenizer"] | None, TRAINING] = None
    """Over which rows of the language model's output the softmax goes: all, or those that the tokenizer, with a
    method's own tokens, has a token for. A switch."""
    dtype: Annotated[Literal["bfloat16", "float32"], TRAINING] = "bfloat16"
    """Of the frozen language model; the adapter's weights are float32."""
    validation: Annotated[Limit, GENERATION] = 512
    """How many validation instances choose the epoch."""
    select_by: Annotated[str, GENERATION] = "meteor"
    """The score that chooses the epoch. Default: the task's."""
    tokens_per_batch: Annotated[Tokens, RUNTIME] = 8192
    """Tokens that go through the model at once, padding included; a longer instance goes alone."""
    checkpoint_every: Annotated[Limit, RUNTIME] = 10
    """Optimiser steps between two checkpoints: what a killed training loses at most."""


class RunConfig(Section):
    """Everything one run depends on."""

    task: Annotated[str, DATA] = "reviews"
    """What is to be written; the data set has to be of this task."""
    method: Annotated[str, DATA]
    retriever: Annotated[str, RETRIEVAL] = "recency"
    """Default: the task's."""
    fidelity: Annotated[Literal["paper", "official"], GENERATION] = "paper"
    """Which of the two the switches follow where the paper and its authors' released code differ."""
    seed: Annotated[Seed, DATA] = 0

    dataset: Annotated[str, DATA] = "demo"
    """"demo", a folder in a layout of the task, or a hub id."""
    revision: Annotated[str | None, DATA] = None
    """Revision of a hub data set."""
    categories: Annotated[tuple[str, ...] | None, BeforeValidator(_several), DATA] = None
    """Default: all."""
    split: Annotated[Literal["train", "val", "test"], DATA] = "test"
    limit: Annotated[Limit | None, DATA] = None
    """The first so many instances of each category."""

    k: Annotated[int, Field(ge=0), at_most(1_000_000, "no user has so many reviews"), RETRIEVAL] = 8
    """How many reviews the retriever gives."""
    input_budget: Annotated[
        int | Literal["model"] | None,
        BeforeValidator(_budget),
        at_most(CONTEXT, "no model takes so many tokens"),
        GENERATION,
    ] = None
    """Tokens a prompt may take; "model": what the model's context leaves beside `max_new_tokens`. A switch."""
    overlong: Annotated[Literal["cut", "whole"] | None, GENERATION] = None
    """What becomes of a prompt that has no room for even one history block: the block is cut to the budget, or to what
    the model's context leaves. A switch."""
    chat_template: Annotated[Literal["model", "official"] | None, GENERATION] = None
    """The tokenizer's own, or that of the released code. A switch."""
    chat_template_kwargs: Annotated[dict[str, Any], GENERATION] = Field(default_factory=dict)
    """What the model's chat template is given beside the conversation, e.g. {enable_thinking: false}."""
    prompts: Annotated[Place | None, RUNTIME] = None
    """Folder of prompt templates that replace the plugins' own (`bench.templates`). Their texts, not their place, are
    part of the identity."""

    peers: Annotated[PeersConfig, Field(default_factory=PeersConfig), PEERS]
    train: Annotated[TrainConfig, Field(default_factory=TrainConfig), TRAINING]
    adapter: Annotated[Place | None, RUNTIME] = None
    """Folder of an imported adapter, instead of one trained for this configuration. Its weights, not their place, are
    part of the identity."""

    model: Annotated[str, GENERATION] = "python:bench/demo/model"
    """Hub id (with @revision, if any), local folder or GGUF file, or either inside a package, python:PACKAGE/PATH."""
    tokenizer: Annotated[str | None, GENERATION] = None
    """Default: the model's."""
    backend: Annotated[str, GENERATION] = "vllm"
    """Where the model runs; its settings stand in a section of its name."""
    temperature: Annotated[Temperature, GENERATION] = 0.8
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1), GENERATION] = 0.95
    max_new_tokens: Annotated[Tokens, GENERATION] = 2048
    """The longest answer. Default: the task's."""

    metrics: Annotated[tuple[str, ...], BeforeValidator(_several), SCORING] = ()
    """Default: the task's."""
    resamples: Annotated[int, Field(ge=1), at_most(1_000_000, _resampling), SCORING] = 1000
    """Bootstrap resamples over users behind each 95% interval."""
    options: Annotated[dict[str, dict[str, Any]], Field(default_factory=dict), DATA]
    """Options of plugins by plugin name; written as a section of that name (`bertscore: {layer: 6}`)."""
    notes: Annotated[tuple[str, ...], BeforeValidator(_several), SCORING] = ()
    """Sentences that a table made with this configuration carries, e.g. what stands in for what."""

    results: Annotated[Place, RUNTIME] = Path("results")
    """Where runs, tables and caches are kept."""
    window: Annotated[int, Field(ge=1), at_most(100_000, "each is held in memory"), RUNTIME] = 512
    """Calls in flight at most, at one engine."""

    @cached_property
    def backend_section(self) -> Section:
        """The settings of the backend. Raises `ConfigError`."""
        return backend_section(self.backend, self.options.get(self.backend, {}))

    @property
    def engine(self) -> RunConfig:
        """The configuration of one engine: this one, but for a backend that runs several of another backend's."""
        # Not kept: a copy with other settings would keep it too.
        other = getattr(registry.load("backends", self.backend), "spreads", None)
        return self if other is None else RunConfig.model_validate(self.model_dump() | {"backend": other})

    def switch(self, name: str) -> Any:
        """The value of a switch (`SWITCHES`): as it is set, else that of the fidelity."""
        section, _, leaf = name.rpartition(".")
        value = getattr(getattr(self, section) if section else self, leaf)
        if value is not None:
            return value
        switch = SWITCHES[name]
        if self.fidelity == "paper":
            return switch.paper
        of_method = getattr(registry.load("methods", self.method), "official_settings", {})
        return of_method.get(name, switch.official)

    @cached_property
    def room(self) -> int | None:
        """The tokens that the model's context leaves beside an answer, which may be none; None: not known here."""
        from bench.models import context_length

        # A server's model has a name there alone.
        here = registry.load("backends", self.backend).applies_template
        context = context_length(self.model if here else self.tokenizer or self.model)
        return None if context is None else context - self.max_new_tokens

    @property
    def budget(self) -> int:
        """Tokens a prompt may take; for input_budget=model without bound where the context is not known. Raises
        `ConfigError` where it leaves none."""
        value = self.switch("input_budget")
        if value != "model":
            return int(value)
        if self.room is None:
            return sys.maxsize
        if self.room < 1:
            raise ConfigError(
                f"input_budget=model{'' if self.input_budget else f' (official for {self.method})'}: max_new_tokens="
                f"{self.max_new_tokens} leaves nothing of the context of model '{self.model}'; set max_new_tokens to "
                "less, or input_budget to a number"
            )
        return self.room

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that an engine has to take. Raises `ConfigError` as `budget` does."""
        return max(self.budget, self.room or 0) if self.switch("overlong") == "whole" else self.budget

    def check_context(self) -> None:
        """Raise `ConfigError` for input_budget=model where the context is not known: the run would be another one where
        it is."""
        if self.switch("input_budget") == "model" and self.room is None:
            raise ConfigError(
                "input_budget=model needs the model's config.json, which is not at hand; give input_budget as a number "
                "of tokens, or a folder or hub id that has one (--set model=... or, with a server, --set tokenizer=...)"
            )

    @property
    def training(self) -> TrainConfig:
        """The settings of training with every switch set."""
        names = [name for name in SWITCHES if name.startswith("train.")]
        return self.train.model_copy(update={name.removeprefix("train."): self.switch(name) for name in names})

    @property
    def template(self) -> Literal["model", "official"]:
        """Which chat template is used."""
        template: Literal["model", "official"] = self.switch("chat_template")
        return template


@dataclass(frozen=True)
class Switch:
    """A setting whose default is one thing by the paper and another by its authors' released code; a method can have
    a value of its own for the latter (`official_settings`)."""

    paper: Any
    official: Any


SWITCHES: Mapping[str, Switch] = {
    "input_budget": Switch(2048, 3072),
    "overlong": Switch("cut", "whole"),
    "chat_template": Switch("model", "official"),
    "peers.unused_targets": Switch(False, True),
    "peers.all_targets": Switch(False, False),
    "train.cross_entropy": Switch("review", "token"),
    "train.max_target_tokens": Switch(2048, 3072),
    "train.cut_target_ends": Switch(False, True),
    "train.whole_batches": Switch(False, True),
    "train.vocabulary": Switch("model", "tokenizer"),
}
"""The switches among the settings, by dotted name; those among a plugin's options stand in its class (`official`)."""


def fields_of(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo, Kind | None]]:
    """Dotted name, field and mark of every leaf field (None: no mark)."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from fields_of(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field, next((mark for mark in field.metadata if isinstance(mark, Kind)), None)


def config_names() -> list[str]:
    """Names of the shipped configurations."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_config(name: str) -> dict[str, Any]:
    """The settings in a shipped configuration or a YAML file. Raises `ConfigError`."""
    known = config_names()
    path = FOLDER / f"{name}.yaml" if name in known else path_of(name)
    # A pipe would be waited for.
    if not path.is_file():
        what = f"{path} is not a file of settings" if path.exists() else f"there is no configuration '{name}'"
        raise ConfigError(
            f"{what}{registry.near_match(name, known)} Shipped: {', '.join(known)}; or give the path of a YAML file"
        )
    settings = yaml_text.read(path)
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must hold a mapping of configuration keys, it holds a {type(settings).__name__}")
    return settings


def parse_setting(text: str) -> dict[str, Any]:
    """`a.b=value` as {"a": {"b": value}}, the value read as YAML (`bench.yaml_text`), or as it
    stands where it does not follow YAML's grammar. Raises `ConfigError`."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {text[:100]}: write it as key=value, e.g. --set k=4 or --set bertscore.layer=6")
    if len(parts) > DEEPEST:
        raise ConfigError(f"--set {text[:60]}...: a key has at most {DEEPEST} parts")
    parsed: Any
    try:
        parsed = yaml_text.parse(value, f"--set {text[:100]}")
    except yaml_text.NotYAMLError:
        parsed = value
    for part in reversed(parts):
        parsed = {part: parsed}
    result: dict[str, Any] = parsed
    return result


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the settings of `over`, section by section. Where `over` chooses another task, metrics and length of
    answers that `base` chose for its own are left to the new task's defaults."""
    merged = dict(base)
    if "task" in over and over["task"] != base.get("task", RunConfig.model_fields["task"].default):
        merged = {key: value for key, value in base.items() if key not in ("metrics", "max_new_tokens")}
    for key, value in over.items():
        old = merged.get(key)
        replaces = key == "extra_body" or not isinstance(value, Mapping) or not isinstance(old, Mapping)
        merged[key] = value if replaces else merge(old, value)  # type: ignore[arg-type]
    return merged


def build(*layers: Mapping[str, Any]) -> RunConfig:
    """A `RunConfig` from settings, later layers over earlier ones. Raises `ConfigError` with the near match for a
    key that is neither a field nor a plugin."""
    settings: dict[str, Any] = {}
    for layer in layers:
        settings = merge(settings, layer)
    task = registry.load("tasks", str(settings.get("task", RunConfig.model_fields["task"].default)))
    settings = merge(getattr(task, "settings", {}), settings)
    fields = [name for name in RunConfig.model_fields if name != "options"]
    for key, value in settings.items():
        if isinstance(key, str):
            check_value(value, key)
    options = {key: _section_for(key, settings.pop(key), fields) for key in list(settings) if key not in fields}
    for name, values in options.items():
        _check_section(name, values)
    defaults = {"metrics": task.metrics, "max_new_tokens": task.max_new_tokens}
    try:
        config = RunConfig(**(defaults | settings), options=options)
    except ValidationError as error:
        raise ConfigError(_first_problem(error)) from None
    backend = registry.load("backends", config.backend)
    if config.template != "model" and not backend.applies_template:
        raise ConfigError(
            f"chat_template={config.template} cannot be had with backend={config.backend}, where the server applies "
            "the model's own; add --set chat_template=model"
        )
    return config


def _section_for(key: str, section: Any, fields: Sequence[str]) -> dict[str, Any]:
    """The options in a section that is named after a plugin. Raises `ConfigError`."""
    plugins = [name for group in registry.GROUPS for name in registry.names(group)]
    if key not in plugins:
        near = _option_of(str(key)) or registry.near_match(str(key), [*_keys(), *plugins])
        raise ConfigError(
            f"'{key}' is not a configuration key{near} Keys: {', '.join(fields)}, or the name of a plugin "
            "for its options"
        )
    if not isinstance(section, Mapping):
        raise ConfigError(f"'{key}' is a plugin: set one of its options, {key}.OPTION=value")
    return dict(section)


def _option_of(key: str) -> str:
    """How a sentence about an unknown key ends that is an option of a plugin; "" for any other."""
    having = []
    for group in registry.GROUPS:
        for name in registry.names(group) if group != "backends" else ():
            with suppress(PluginError, ImportError):
                if key in registry.option_names(group, name):
                    having.append(f"'{name}.{key}'")
    return f"; did you mean {' or '.join(having)}?" if having else ""


def _check_section(name: str, options: Mapping[str, Any]) -> None:
    for group in registry.GROUPS:
        if name not in registry.names(group):
            continue
        if group == "backends":
            backend_section(name, options)
        else:
            registry.create(group, name, options)


def backend_section(name: str, options: Mapping[str, Any]) -> Section:
    """The settings of a backend. Raises `ConfigError`."""
    kind: type[Section] = registry.load("backends", name).settings
    try:
        return kind(**options)
    except ValidationError as error:
        raise ConfigError(_first_problem(error, f"{name}.")) from None


def _keys() -> list[str]:
    """All keys, those of the backends' sections too."""
    sections = {f"{name}.": registry.load("backends", name).settings for name in registry.names("backends")}
    keys = [
        name for prefix, section in {"": RunConfig, **sections}.items() for name, _, _ in fields_of(section, prefix)
    ]
    return [name for name in keys if name != "options"]


def _first_problem(error: ValidationError, prefix: str = "") -> str:
    """The first problem as a sentence; `prefix` names the section."""
    first = error.errors()[0]
    where = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        # Top-level keys are known to be right by now: the wrong one is a section's.
        section, _, leaf = where.rpartition(".")
        known = [name.removeprefix(f"{section}.") for name in _keys() if name.startswith(f"{section}.")]
        near = registry.near_match(leaf, known)
        return f"'{where}' is not a configuration key{near} Keys of {section}: {', '.join(known)}"
    if first["type"] == "missing":
        return f"'{where}' is not set: give --{where} or --set {where}=..."
    return sentence(first, prefix)


def settings_of(config: RunConfig, kinds: Sequence[Kind]) -> dict[str, Any]:
    """The values of all fields of these kinds by dotted name, ready for JSON; plugin options left out, defaults that
    hang on `fidelity` resolved."""
    dumped = config.model_dump(mode="json")
    for name in SWITCHES:
        section, _, leaf = name.rpartition(".")
        (dumped[section] if section else dumped)[leaf] = config.switch(name)
    if Kind.GENERATION in kinds:
        # Not the word "model": what it amounts to.
        dumped["input_budget"] = config.budget
    chosen: dict[str, Any] = {}
    for name, _, kind in fields_of(RunConfig):
        if kind in kinds and name != "options":
            value = dumped
            for part in name.split("."):
                value = value[part]
            chosen[name] = value
    return chosen


def backend_settings_of(config: RunConfig, kinds: Sequence[Kind]) -> dict[str, Any]:
    """The values of the backend's settings of these kinds by dotted name, ready for JSON."""
    section = config.backend_section
    public = section.public()
    return {f"{config.backend}.{name}": public[name] for name, _, kind in fields_of(type(section)) if kind in kinds}
