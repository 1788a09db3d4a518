"""What makes a run, or an adapter, the one that it is: all that can change a text, or a weight, and nothing else.

Data, plugins, templates and models count for what they are, not for where they lie. Folders are named by a hash of it
(`bench.naming`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench import registry
from bench.config import (
    DATA,
    GENERATION,
    PEERS,
    RETRIEVAL,
    TRAINING,
    Kind,
    RunConfig,
    TrainConfig,
    backend_settings_of,
    settings_of,
)
from bench.encoders import HASHED_NGRAMS
from bench.models import fingerprint, served_fingerprint
from bench.resolved import Run
from bench.results import SCHEMA, identity_hash

Identity = dict[str, Any]


def run_identity(run: Run, adapter: Mapping[str, Any] | None) -> Identity:
    """Everything that can change a text of a run; `adapter` tells which one makes its vectors."""
    identity = _identity(run, [DATA, *([GENERATION] if run.method.properties.calls_model else [])])
    if adapter is not None:
        return identity | {"adapter": dict(adapter)}
    settings = {name: value for name, value in identity["settings"].items() if not name.startswith("train.")}
    return identity | {"settings": settings}


def training_identity(training: Run, learning_rate: float, influence: str | None = None) -> Identity:
    """Everything that can change the weights after each epoch; `training` is the run whose prompts are trained on,
    `influence` a hash of what its texts' tokens are weighted by."""
    identity = _identity(training, [TRAINING])
    identity["settings"] |= _prompt_settings(training.config) | {"train.learning_rate": learning_rate}
    # What it amounts to stands under k.
    identity["settings"].pop("train.k")
    if influence is not None:
        return identity | {"influence": influence}
    # As it was before there was a choice: adapters keep their names.
    for name in ("train.loss", "train.loss_clip"):
        identity["settings"].pop(name)
    return identity


def influence_identity(prompted: Run, training: TrainConfig) -> Identity:
    """Everything that can change how much the history changes the log-probability of a training text; `prompted` is the
    run whose prompts show the history, `training` has every switch set."""
    identity = _identity(prompted, [])
    # The seed is the random retriever's.
    names = ("dtype", "max_target_tokens", "cut_target_ends", "seed")
    identity["settings"] |= _prompt_settings(prompted.config) | {name: getattr(training, name) for name in names}
    return identity


def _prompt_settings(config: RunConfig) -> dict[str, Any]:
    """What changes the prompts of a training beside retriever, peers and templates."""
    settings = {
        "input_budget": config.budget,
        "chat_template": config.template,
        "chat_template_kwargs": config.chat_template_kwargs,
    }
    if config.switch("overlong") == "whole":
        settings["longest_prompt"] = config.longest_prompt
    return settings


def selection_identity(training: Run, trained: Mapping[str, Any]) -> Identity:
    """Everything that can change which epoch of a training is chosen."""
    return {
        "run": _identity(training, [DATA, GENERATION]),
        "signatures": training.signatures,
        "adapter": identity_hash(trained),
    }


def _identity(run: Run, kinds: Sequence[Kind]) -> Identity:
    # How many engines make the texts is no part of it.
    config, properties = run.config.engine, run.method.properties
    chosen = [*kinds]
    if properties.retrieval_augmented:
        chosen.append(RETRIEVAL)
    if properties.inter_user:
        chosen.append(PEERS)
    settings = settings_of(config, chosen) | backend_settings_of(config, chosen)
    for name in ("dataset", "revision", "categories", "model", "tokenizer"):
        settings.pop(name, None)
    identity: Identity = {
        # Results of an older version are never gone on with: they keep their folders, and stay readable there.
        "schema": SCHEMA,
        "settings": settings,
        "data": {category: corpus.fingerprint for category, corpus in run.corpora.items()},
        "task_options": plugin_options(run.task),
        "task_code": registry.code_of(run.task),
        "method_options": plugin_options(run.method),
        "method_code": registry.code_of(run.method),
    }
    if properties.retrieval_augmented:
        identity["retriever_options"] = plugin_options(run.chosen_retriever)
        identity["retriever_code"] = registry.code_of(run.chosen_retriever)
    if properties.calls_model:
        identity["prompts"] = run.templates.fingerprint
        identity["marks"] = list(getattr(run.method, "marks", ()))
        here = registry.load("backends", config.backend).applies_template
        identity["model"] = (fingerprint if here else served_fingerprint)(config.model)
        identity["tokenizer"] = fingerprint(config.tokenizer or config.model)
    return identity


def plugin_options(plugin: Any) -> dict[str, Any]:
    """A plugin's options in an identity; those that name a model or an encoder by what it is, not by where it lies."""
    options = registry.options_of(plugin)
    for option in ("model", "encoder"):
        name, mark, settings = str(options.get(option) or HASHED_NGRAMS).partition("?")
        if name != HASHED_NGRAMS:
            tell = served_fingerprint if name in getattr(plugin, "models", ()) else fingerprint
            options[option] = tell(name) + mark + settings
    return options
