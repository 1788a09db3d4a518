"""What the report calls runs: by what they are, not by their folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from bench.experiments.spec import read_experiment
from bench.finished import FinishedRun
from bench.naming import recorded_differences, setting_text
from bench.places import DIGITS, data_print, shown_name, told_apart
from bench.report.table import MISSING
from bench.results import SCHEMA


def settings_of(run: FinishedRun) -> Mapping[str, Any]:
    """The settings in a run's identity, by name."""
    settings: Mapping[str, Any] = run.record.identity["settings"]
    return settings


def models_of(runs: Sequence[FinishedRun]) -> list[str]:
    """The language model of each run; one that asks none has none."""
    identities = [run.record.identity for run in runs]
    names = [
        shown_name(run.record.config["model"]) if "model" in identity else MISSING
        for run, identity in zip(runs, identities, strict=True)
    ]
    return told_apart(names, [str(identity.get("model", "")) for identity in identities])


def data_names(runs: Sequence[FinishedRun]) -> list[str]:
    """What the data of each run are called, with digits of their fingerprint where two data sets are called alike."""
    found: dict[tuple[str, int, str], set[str]] = {}
    names = [shown_name(run.record.config["dataset"]) for run in runs]
    for run, name in zip(runs, names, strict=True):
        # Each schema has fingerprints of its own, and a run may be of some categories alone.
        for category, fingerprint in run.record.identity["data"].items():
            found.setdefault((name, run.record.schema_version, category), set()).add(str(fingerprint))
    alike = {name for (name, _, _), fingerprints in found.items() if len(fingerprints) > 1}
    return [
        f"{name} ({data_print(run.record.identity['data'])[:DIGITS]})" if name in alike else name
        for run, name in zip(runs, names, strict=True)
    ]


def places_of(runs: Sequence[FinishedRun]) -> set[str]:
    """What of the runs' configurations may be places on the machine that made them."""
    names = ("dataset", "model", "tokenizer", "prompts", "adapter", "results")
    return {str(run.folder) for run in runs} | {str(run.record.config.get(name)) for run in runs for name in names}


def is_control(run: FinishedRun) -> bool:
    """Whether a run is one of Table 1's controls, which are never ranked."""
    method, options = settings_of(run)["method"], run.record.identity["method_options"]
    return any(
        control["method"] == method and control.get(method, {}).items() <= options.items() for control in _controls()
    )


@cache
def _controls() -> list[dict[str, Any]]:
    _, experiment = read_experiment("table1")
    return [row.set for group in experiment.groups if not group.ranked for row in group.rows if row.set]


def labels(runs: Sequence[FinishedRun]) -> list[str]:
    """A name for each run: method, retriever and K, then the settings in which it differs from most runs of the same
    name. Runs that no setting tells apart (other prompts, an edited method) carry the end of their folder's name."""
    names = [_short_name(run) for run in runs]
    facts = [_facts(run, model) for run, model in zip(runs, models_of(runs), strict=True)]
    result = []
    for name, own in zip(names, facts, strict=True):
        alike = [other for other_name, other in zip(names, facts, strict=True) if other_name == name]
        keys = [key for key in own if _differs(key, own, alike)]
        result.append(", ".join([name, *(f"{key}={setting_text(key, own[key])}" for key in keys)]))
    twice = {label for label, count in Counter(result).items() if count > 1}
    return [
        f"{label} ({run.name.rpartition('-')[2]})" if label in twice else label
        for label, run in zip(result, runs, strict=True)
    ]


def _short_name(run: FinishedRun) -> str:
    settings = settings_of(run)
    parts = [settings["method"]]
    if "retriever" in settings:
        parts += [settings["retriever"], f"K={settings.get('k')}"]
        trained = run.record.config.get("train", {}).get("k") if "adapter" in run.record.identity else None
        parts += [f"trained with {trained}"] if trained not in (None, settings.get("k")) else []
    return ", ".join(map(str, parts))


def _facts(run: FinishedRun, model: str) -> dict[str, Any]:
    """What can make two runs of a method differ, by name."""
    identity, config = run.record.identity, run.record.config
    facts: dict[str, Any] = {"model": model} if "model" in identity else {}
    facts["schema"] = run.record.schema_version
    facts |= {name: value for name, value in settings_of(run).items() if name not in ("method", "retriever", "k")}
    if "prompts" in identity and run.record.schema_version == SCHEMA:
        facts["prompts"] = recorded_differences(run.record).settings.get("prompts", "shipped")
    if "adapter" in identity:
        facts |= {f"train.{name}": value for name, value in config.get("train", {}).items()}
    return {**facts, **identity["method_options"], **identity.get("retriever_options", {})}


def _differs(key: str, own: Mapping[str, Any], alike: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run has another value than most of those alike that have any: an older schema knows fewer settings."""
    known = [other[key] for other in alike if key in other]
    return len({setting_text(key, value) for value in known}) > 1 and 2 * known.count(own[key]) <= len(known)
