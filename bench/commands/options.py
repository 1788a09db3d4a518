"""Flags that several commands share, and the settings that they make."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.files import path_of

if TYPE_CHECKING:
    from bench.config import RunConfig

CONFIG = "shipped configuration or YAML file (default: demo)"
SETTINGS = ("task", "method", "retriever", "dataset", "model", "backend", "limit", "seed", "results")
"""Flags that are the configuration keys of their names."""


def add_settings(
    parser: argparse.ArgumentParser, several: bool = False, limit: str = "only the first N instances of each category"
) -> None:
    """The flags of a configuration; `several` lets --config be repeated."""
    if several:
        several_help = f"{CONFIG}; with several the rows are repeated for each"
        parser.add_argument("--config", action="append", help=several_help)
    else:
        parser.add_argument("--config", default="demo", help=CONFIG)
    parser.add_argument("--task", help="what is to be written: reviews, ... (bench list tasks)")
    parser.add_argument("--retriever", help="which records a method sees: recency, bm25, contriever, random, ...")
    parser.add_argument("--dataset", help="demo, a folder (bench list layouts), or a hub id")
    parser.add_argument("--model", help="hub id, local folder or .gguf file, or either as python:PACKAGE/PATH")
    parser.add_argument("--backend", help="where the model runs: vllm, openai, ... (bench list backends)")
    parser.add_argument(
        "--base-url",
        action="append",
        metavar="URL",
        help="address of the server (with --backend openai); repeat it for several servers of one model",
    )
    parser.add_argument("--limit", type=int, metavar="N", help=limit)
    parser.add_argument("--seed", type=int, metavar="N", help="seed of sampling and of the random retriever")
    parser.add_argument("--results", metavar="FOLDER", help="where runs, tables and caches are kept (default: results)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any configuration key, e.g. k=4; repeatable"
    )


def add_results(parser: argparse.ArgumentParser) -> None:
    """The flag that says where results are."""
    parser.add_argument("--results", type=path_of, default="results", help="folder of results (default: %(default)s)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag for output that programs read."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def add_goldens(parser: argparse.ArgumentParser) -> None:
    """The flag that says where goldens are."""
    parser.add_argument(
        "--goldens", type=path_of, default="results/golden", help="folder of goldens (default: %(default)s)"
    )


def settings_of(arguments: argparse.Namespace, config: str | None = None) -> dict[str, Any]:
    """The settings of a configuration file with those of the flags over them. Raises `BenchError`."""
    from bench.config import merge, parse_setting, read_config

    # A list: several methods, each of which is a run of its own.
    given = {name: getattr(arguments, name, None) for name in SETTINGS}
    flags = {name: value for name, value in given.items() if value is not None and not isinstance(value, list)}
    own: dict[str, Any] = {}
    for text in arguments.set:
        own = merge(own, parse_setting(text))
    settings = merge(merge(read_config(config or arguments.config), flags), own)
    address = _address(arguments.base_url, settings)
    return merge(merge(settings, address), own)


def idle_options(arguments: argparse.Namespace, configs: Sequence[RunConfig]) -> list[str]:
    """The keys of --set that are options of a task, method, retriever or metric that none of the configurations has:
    a reader would take a run for something that it is not."""
    from bench import registry

    used = {name for config in configs for name in (config.task, config.method, config.retriever, *config.metrics)}
    known = {name for group in ("tasks", "methods", "retrievers", "metrics") for name in registry.names(group)}
    keys = [text.partition("=")[0].strip() for text in arguments.set]
    return [key for key in keys if "." in key and key.partition(".")[0] in known - used]


def _address(urls: list[str] | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The addresses of the servers as the setting of their backend. Raises `ConfigError` for a backend without one,
    `PluginError` for an unknown backend."""
    from bench import registry
    from bench.config import RunConfig
    from bench.errors import ConfigError

    backend = str(settings.get("backend", RunConfig.model_fields["backend"].default))
    kind = registry.load("backends", backend)
    if urls is None:
        return {}
    if "base_url" not in kind.settings.model_fields:
        servers = [
            name
            for name in registry.names("backends")
            if "base_url" in registry.load("backends", name).settings.model_fields
        ]
        raise ConfigError(
            f"--base-url is for a server, and backend={backend} is not one: add "
            f"{' or '.join(f'--backend {name}' for name in servers)}"
        )
    return {backend: {"base_url": urls}}
