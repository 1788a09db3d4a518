"""What runs and adapters are called: what of each differs from the shipped configuration that it goes back to, and the
folders' names, which tell it.

A folder is `<readable name>-<hash>`. Only the hash says which run it is, and a folder is found by it: one that was
named otherwise, by an older version, is taken up as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from bench import registry, templates
from bench.config import (
    TRAINING,
    Kind,
    RunConfig,
    backend_settings_of,
    build,
    config_names,
    read_config,
    settings_of,
)
from bench.errors import BenchError
from bench.finished import config_of
from bench.identity import Identity, plugin_options
from bench.models import fingerprint
from bench.places import DIGITS
from bench.resolved import Run
from bench.results import SCHEMA, RunRecord, identity_hash

IN_THE_NAME = ("task", "method", "retriever", "k", "seed", "limit")
"""Settings that a run's name tells whatever they are."""
COUNTED = ("k", "seed", "limit")
"""Those of them that a shipped configuration has a value of whatever the method."""
LONGEST_NAME, LONGEST_PART, LONGEST_PARTS = 100, 50, 80
"""Bytes of a folder's name before what differs, of one thing that does, and of all of them: with the rest of it the
name stays below the 255 that file systems have."""
_UNKNOWN = object()


@dataclass(frozen=True)
class Differences:
    """What of a run, or of an adapter, is not as in `base`, the shipped configuration that it goes back to ("" for
    none: then the defaults count). `settings` are the values by dotted name; what has no value that reads well, a
    model or templates, is given by digits of its content. `in_the_name` are those among k, seed and limit, which a
    folder's name tells whatever they are."""

    base: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    in_the_name: Mapping[str, Any] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, Any]:
        """Both, by dotted name."""
        return {**self.in_the_name, **self.settings}

    def __str__(self) -> str:
        """ "demo, k=4, dep.vectors=shuffled"."""
        told = [f"{name}={setting_text(name, value)}" for name, value in self.all.items()]
        return ", ".join([*([self.base] if self.base else []), *told])


def setting_text(name: str, value: Any) -> str:
    """The value of a setting as it is shown."""
    if value is None:
        return "all" if name.rpartition(".")[2] == "limit" else "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def differences(identity: Identity, config: RunConfig) -> Differences:
    """What can change a text of a run, or the weights of an adapter, and is not as in the shipped configuration of its
    model; `identity` and `config` are the run's or the training's."""
    base = _base_of(identity, config)
    usual = _usual(base, config)
    known = {} if usual is None else _values(usual, config)
    # What an identity has beside settings follows from them; an older schema had settings of other names.
    derived = set(identity["settings"]) - set(known) if known and identity.get("schema") == SCHEMA else set()
    own = {name: value for name, value in identity["settings"].items() if name not in derived}
    if "trained" in identity.get("adapter", {}):
        own |= settings_of(config, [TRAINING])
        own["train.k"] = config.k if config.train.k is None else config.train.k
        if config.train.loss == "plain":
            own.pop("train.loss_clip")
    if "train.learning_rate" in own:
        own.setdefault("fidelity", config.fidelity)
        own["train.learning_rate"] = _rate(config)
    if config.switch("input_budget") == "model" == known.pop("input_budget", None):
        # What the model's context leaves is not known on every machine.
        own.pop("input_budget", None)
    found: dict[str, Any] = {}
    for name, kind in (("method", "methods"), ("retriever", "retrievers"), ("task", "tasks")):
        found |= _options(identity.get(f"{name}_options", {}), getattr(config, name), kind, usual)
    if "prompts" in identity and identity["prompts"] != _shipped_prompts(config):
        found["prompts"] = identity_hash(identity["prompts"])[:DIGITS]
    if "imported" in identity.get("adapter", {}):
        found["adapter"] = _digits(identity["adapter"]["imported"])
    if "tokenizer" in identity and identity["tokenizer"] != identity.get("model"):
        found["tokenizer"] = _digits(identity["tokenizer"])
    if config.categories is not None and [*config.categories] != _shipped(base).get("categories"):
        found["categories"] = sorted(identity["data"])
    others = [name for name in own if name not in IN_THE_NAME and known.get(name, _UNKNOWN) != own[name]]
    found |= {name: own[name] for name in sorted(others, key=lambda name: name.startswith("train."))}
    counted = [name for name in COUNTED if name in known and own.get(name, known[name]) != known[name]]
    return Differences(base, found, {name: own[name] for name in counted})


def _base_of(identity: Identity, config: RunConfig) -> str:
    """The shipped configuration of a run's model, of the same fidelity if there are several; "" if none is of it."""
    if "model" not in identity:
        return ""
    models = {name: str(_shipped(name).get("model")) for name in config_names()}
    same = [name for name, model in models.items() if model == config.model]
    same = same or [name for name, model in models.items() if _is_model(model, config.model, identity["model"])]
    ranked = sorted(same, key=lambda name: _shipped(name).get("fidelity", "paper") != config.fidelity)
    return ranked[0] if ranked else ""


def _is_model(shipped: str, model: str, content: str) -> bool:
    """Whether a model is a shipped configuration's, wherever it lies."""
    try:
        return Path(shipped).name == Path(model).name and fingerprint(shipped) == content
    except BenchError:
        return False


@cache
def _shipped(name: str) -> dict[str, Any]:
    return read_config(name) if name else {}


def _usual(base: str, config: RunConfig) -> RunConfig | None:
    """The configuration `base` for the method, task and so on of another one; None where this version of bench refuses
    it."""
    names = ("method", "task", "retriever", "fidelity", "backend", "model", "tokenizer")
    try:
        return _built(base, tuple((name, getattr(config, name)) for name in names))
    except BenchError:
        return None


@lru_cache(256)
def _built(base: str, over: tuple[tuple[str, Any], ...]) -> RunConfig:
    return build(_shipped(base), dict(over))


def _values(usual: RunConfig, config: RunConfig) -> dict[str, Any]:
    """The values of all settings of `usual` by dotted name."""
    try:
        values = settings_of(usual, [*Kind]) | backend_settings_of(usual.engine, [*Kind])
    except BenchError:
        return {}
    values["train.learning_rate"] = _rate(usual)
    values["train.k"] = config.k if usual.train.k is None else usual.train.k
    if usual.switch("input_budget") == "model":
        values["input_budget"] = "model"
    # A name tells of the released code whatever the shipped configuration.
    return values | {"backend": RunConfig.model_fields["backend"].default, "fidelity": "paper"}


def _rate(config: RunConfig) -> float | None:
    rate = config.train.learning_rate
    return getattr(registry.load("methods", config.method), "learning_rate", None) if rate is None else rate


def _options(own: Mapping[str, Any], name: str, kind: str, usual: RunConfig | None) -> dict[str, Any]:
    """The options of a plugin that are not as in `usual`, by dotted name."""
    known: Mapping[str, Any] = {}
    with suppress(BenchError):
        if usual is not None:
            known = plugin_options(registry.create(kind, name, usual.options.get(name, {}), usual.fidelity))
    return {f"{name}.{option}": _digits(value) for option, value in own.items() if known.get(option, _UNKNOWN) != value}


def _digits(value: Any) -> Any:
    """A value, or digits of it where it is a fingerprint."""
    if not isinstance(value, str):
        return value
    name, mark, rest = value.partition("?")
    if name.startswith("sha256:") or len(name) == 64:
        name = name.removeprefix("sha256:")[:DIGITS]
    return f"{name}{mark}{rest}"


def _shipped_prompts(config: RunConfig) -> dict[str, str]:
    """The fingerprint of the templates that a configuration has without any of its user's own."""
    try:
        plugins = [
            registry.create(kind, name, config.options.get(name, {}), config.fidelity)
            for kind, name in (("methods", config.method), ("tasks", config.task))
        ]
        return templates.load(plugins[0], config.method, plugins[1], config.task).fingerprint
    except BenchError:
        return {}


# ---- folders


def readable_name(run: Run) -> str:
    """What the names of all runs begin with that have a run's method, history, task, data and model, and those of their
    adapters."""
    config = run.config
    parts = [config.method]
    if run.retriever is not None:
        parts += [config.retriever, f"k{config.k}"]
    # Of several tasks the same folder, or "demo", may hold the data.
    parts += [config.task] if config.task != RunConfig.model_fields["task"].default else []
    parts.append(Path(config.dataset).name)
    if run.method.properties.calls_model:
        parts.append(Path(config.model.partition("@")[0]).name)
    name = "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in part) for part in parts)
    return name.encode()[:LONGEST_NAME].decode(errors="ignore")


def run_name(run: Run, identity: Identity) -> str:
    """The name of a run's folder without the hash."""
    return "-".join([readable_name(run), *name_parts(differences(identity, run.config)), *_counted(run)])


def older_names(run: Run) -> str:
    """The same as versions of bench named it whose names did not tell what differs."""
    return "-".join([readable_name(run), *_counted(run)])


def _counted(run: Run) -> list[str]:
    limit, seed = run.config.limit, run.config.seed
    return [*([f"first{limit}"] if limit else []), f"seed{seed}"]


def adapter_name(training: Run, identity: Identity) -> str:
    """The name of an adapter's folder without the hash; `training` is the run whose prompts it is trained on."""
    return "-".join([readable_name(training), *name_parts(differences(identity, training.config))])


def folder_of(place: Path, name: str, beginning: str, digits: str) -> Path:
    """The folder of a run or an adapter in `place`: of its name and hash or, if that is not there, the one of the same
    beginning and hash that an older version named."""
    folder = place / f"{name}-{digits}"
    if folder.exists():
        return folder
    return next(iter(sorted(place.glob(f"{beginning}*-{digits}"))), folder)


def name_parts(differing: Differences) -> list[str]:
    """What differs, as parts of a file's name: short, of letters, digits, dots and underscores. Of very many the last
    are only counted."""
    parts = [_part(name, value) for name, value in differing.settings.items()]
    kept: list[str] = []
    for part in parts:
        if len("-".join([*kept, part])) > LONGEST_PARTS:
            return [*kept, f"and{len(parts) - len(kept)}more"]
        kept.append(part)
    return kept


def _part(name: str, value: Any) -> str:
    """ "vectors_shuffled", "temperature0.5", "train.epochs3"."""
    short = name if name.startswith("train.") else name.rpartition(".")[2]
    if name in ("fidelity", "backend"):
        text = str(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        text = f"{short}{value:g}"
    else:
        text = f"{short}_{Path(value).name if isinstance(value, str) else setting_text(name, value)}"
    plain = re.sub(r"[^A-Za-z0-9.]+", "_", text).strip("_")
    if len(plain) <= LONGEST_PART:
        return plain
    return f"{plain[: LONGEST_PART - DIGITS - 1]}_{hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}"


# ---- runs as they are recorded


def recorded_differences(record: RunRecord) -> Differences:
    """`differences` of a run by its record. One whose configuration this version of bench refuses goes back to none:
    all of its settings are told."""
    try:
        return differences(record.identity, config_of(record))
    except BenchError:
        found = {name: value for name, value in record.identity["settings"].items() if name not in IN_THE_NAME}
        method = record.identity["settings"]["method"]
        options = record.identity.get("method_options", {})
        return Differences("", found | {f"{method}.{name}": _digits(value) for name, value in options.items()})


def told_by_content(identities: Sequence[Identity]) -> list[str]:
    """What sets runs apart that have the same settings: for each the digits of the parts of its identity in which they
    differ, e.g. "method code 78d332"."""
    names = list(dict.fromkeys(name for identity in identities for name in identity if name != "schema"))
    prints = [{name: identity_hash({name: identity.get(name)})[:DIGITS] for name in names} for identity in identities]
    differing = [name for name in names if len({own[name] for own in prints}) > 1]
    return [", ".join(f"{name.replace('_', ' ')} {own[name]}" for name in differing) for own in prints]
