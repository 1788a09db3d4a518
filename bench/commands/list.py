"""bench list."""

from __future__ import annotations

import argparse

from bench.commands.options import add_results

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

        print(list_runs(arguments.results))
    elif arguments.what == "configs":
        from bench.config import config_names

        print("\n".join(config_names()))
    elif arguments.what == "experiments":
        from bench.experiments.spec import experiment_names, read_experiment

        for name in experiment_names():
            print(f"{name:<9} {read_experiment(name)[1].title}")
    else:
        from bench import registry

        print("\n".join(registry.names(arguments.what)))
