"""What the report calls runs: by what they are, not by their folders."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bench.finished import FinishedRun
from bench.report.table import MISSING


def settings_of(run: FinishedRun) -> Mapping[str, Any]:
    """The settings in a run's identity, by name."""
    settings: Mapping[str, Any] = run.record.identity["settings"]
    return settings


def model_of(run: FinishedRun) -> str:
    """The language model of a run; one that asks none has none."""
    return str(run.record.config["model"]) if "model" in run.record.identity else MISSING


def labels(runs: Sequence[FinishedRun]) -> list[str]:
    """A name for each run: method, retriever and K, then the settings in which it differs from most runs of the same
    name. Runs that no setting tells apart (other prompts, an edited method) carry the end of their folder's name."""
    names = [_short_name(run) for run in runs]
    facts = [_facts(run) for run in runs]
    result = []
    for name, own in zip(names, facts, strict=True):
        alike = [other for other_name, other in zip(names, facts, strict=True) if other_name == name]
        keys = [key for key in own if _differs(key, own, alike)]
        result.append(", ".join([name, *(f"{key}={_plain(own[key])}" for key in keys)]))
    twice = {label for label, count in Counter(result).items() if count > 1}
    return [
        f"{label} ({run.name.rpartition('-')[2]})" if label in twice else label
        for label, run in zip(result, runs, strict=True)
    ]


def _short_name(run: FinishedRun) -> str:
    settings = settings_of(run)
    parts = [settings["method"]]
    if "retriever" in settings:
        parts += [settings["retriever"], f"K={settings['k']}"]
        trained = run.record.config["train"]["k"] if "adapter" in run.record.identity else None
        parts += [f"trained with {trained}"] if trained not in (None, settings["k"]) else []
    return ", ".join(map(str, parts))


def _facts(run: FinishedRun) -> dict[str, Any]:
    """What can make two runs of a method differ, by name."""
    identity, config = run.record.identity, run.record.config
    facts: dict[str, Any] = {"model": model_of(run)} if "model" in identity else {}
    facts["schema"] = run.record.schema_version
    facts |= {name: value for name, value in settings_of(run).items() if name not in ("method", "retriever", "k")}
    if "adapter" in identity:
        facts |= {f"train.{name}": value for name, value in config["train"].items()}
    return {**facts, **identity["method_options"], **identity.get("retriever_options", {})}


def _differs(key: str, own: Mapping[str, Any], alike: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run has another value than most of those alike that have any: an older schema knows fewer settings."""
    known = [other[key] for other in alike if key in other]
    return len(set(map(_plain, known))) > 1 and 2 * known.count(own[key]) <= len(known)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
