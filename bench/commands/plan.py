"""bench plan."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.commands.options import add_settings, settings_of
from bench.errors import ConfigError
from bench.terminal import show

HELP = "what tables or a run will take: calls, tokens, training, disk and time; computes nothing"
MOST_TOKENS = 10_000_000


def add(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.description = (
        "Renders prompts of a sample of instances and counts what is missing in the results. It loads no language "
        "model and no encoder (but with --probe), trains nothing and writes nothing."
    )
    parser.add_argument(
        "experiment", nargs="*", help="shipped tables and figures (bench list experiments), or YAML files of your own"
    )
    parser.add_argument("--method", help="in the place of an experiment: a single run, as bench run would make it")
    add_settings(parser, several=True)
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs over N seeds (default: 1)")
    parser.add_argument(
        "--sample", type=int, default=None, metavar="N", help="instances of a run to render; 0: all (default: 64)"
    )
    parser.add_argument(
        "--sample-seed", type=int, default=0, metavar="N", help="which instances (default: %(default)s)"
    )
    parser.add_argument(
        "--answer-tokens",
        type=int,
        metavar="N",
        help="expected length of an answer (default: the mean of what the users wrote)",
    )
    parser.add_argument(
        "--estimate-tokens", action="store_true", help="do without the tokenizer: a token is 4 characters"
    )
    speeds = parser.add_argument_group("time", "printed where speeds are given or measured")
    speeds.add_argument(
        "--probe", action="store_true", help="measure this machine's engine, and training, for about half a minute each"
    )
    for name, what in (("prompt", "of prompts, read"), ("new", "of answers, written"), ("training", "trained on")):
        speeds.add_argument(f"--{name}-tokens-per-second", type=float, metavar="X", help=f"tokens {what}, in a second")


def run(arguments: argparse.Namespace) -> None:
    """Print the plan."""
    if bool(arguments.experiment) == bool(arguments.method):
        raise ConfigError("name experiments (bench list experiments), or a single run with --method, not both")
    _check(arguments)
    planned(arguments)


def planned(arguments: argparse.Namespace) -> None:
    """Plan what arguments of `bench plan`, or of `bench table`, ask for, and print it. Raises `BenchError`."""
    from bench.planning import Options, plan
    from bench.planning.inputs import PlanInputs
    from bench.planning.plan import SAMPLE
    from bench.progress import say
    from bench.report.plan import plan_text

    given = vars(arguments)
    method, sample = given.get("method"), given.get("sample")
    names = [method] if method else arguments.experiment
    configs = {config: settings_of(arguments, config) for config in arguments.config or ["demo"]}
    inputs = PlanInputs(given.get("estimate_tokens", False))
    options = Options(SAMPLE if sample is None else sample, given.get("sample_seed", 0), given.get("answer_tokens"))
    say("planning: reading data and rendering prompts")
    if method:
        rows = _single(method, configs, arguments.seeds, inputs)
    else:
        from bench.experiments.produce import jobs_of_rows

        rows = jobs_of_rows(names, configs, arguments.seeds, inputs)
    title = f"Plan of {', '.join(names)} with {', '.join(Path(config).stem for config in configs)}"
    made = plan(rows, inputs, options)
    show(plan_text(title, made, _speeds(given, made)))


def _single(method: str, configs: Mapping[str, Mapping[str, Any]], seeds: int, inputs: Any) -> Any:
    """A row with a run of a method, for each configuration."""
    from bench.config import build
    from bench.job import Job

    if seeds != 1:
        raise ConfigError("--seeds is for tables; plan a run with another --seed by itself")
    label = {name: method if len(configs) == 1 else f"{method}, {Path(name).stem}" for name in configs}
    return [(label[name], (Job.of(build(settings), inputs),)) for name, settings in configs.items()]


def _check(arguments: argparse.Namespace) -> None:
    for name, least in (("sample", 0), ("sample_seed", 0), ("answer_tokens", 1)):
        value = getattr(arguments, name)
        if value is not None and not least <= value <= MOST_TOKENS:
            raise ConfigError(f"--{name.replace('_', '-')} must be {least} to {MOST_TOKENS:,}, got {value}")
    speeds = {name: getattr(arguments, f"{name}_tokens_per_second") for name in ("prompt", "new", "training")}
    for name, speed in speeds.items():
        if speed is not None and not 0 < speed < float("inf"):
            raise ConfigError(f"--{name}-tokens-per-second must be a number above 0, got {speed:g}")
    if (speeds["prompt"] is None) != (speeds["new"] is None) or (speeds["training"] and not speeds["prompt"]):
        raise ConfigError("give --prompt-tokens-per-second and --new-tokens-per-second together")
    if arguments.probe and any(speeds.values()):
        raise ConfigError("--probe measures the speeds; leave out those that you give")


def _speeds(given: Mapping[str, Any], plan: Any) -> Any:
    """The speeds that were given, or are measured now."""
    from bench.planning.speed import Speed, Speeds, probe
    from bench.progress import say

    if given.get("probe"):
        return probe(plan, say)
    prompt, new = given.get("prompt_tokens_per_second"), given.get("new_tokens_per_second")
    if prompt is None or new is None:
        return Speeds()
    return Speeds(Speed(prompt, new), given.get("training_tokens_per_second"))
