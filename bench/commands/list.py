"""bench list."""

from __future__ import annotations

import argparse

from bench.commands.options import add_results
from bench.terminal import show

HELP = "list methods, retrievers, metrics, tasks, backends, layouts, configs, experiments or runs"
PLUGINS = ("methods", "retrievers", "metrics", "tasks", "backends", "layouts")


def add(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("what", choices=[*PLUGINS, "configs", "experiments", "runs"])
    add_results(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print names, one a line; of experiments the titles too, of runs a table."""
    if arguments.what == "runs":
        from bench.report.runs import list_runs

        show(list_runs(arguments.results))
    elif arguments.what == "configs":
        from bench.config import config_names

        show("\n".join(config_names()))
    elif arguments.what == "experiments":
        from bench.experiments.names import experiment_names, title_of

        for name in experiment_names():
            show(f"{name:<9} {title_of(name)}")
    else:
        from bench import registry

        show("\n".join(registry.names(arguments.what)))
