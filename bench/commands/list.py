"""bench list."""

from __future__ import annotations

import argparse

from bench.commands.options import add_json, add_results
from bench.terminal import show, show_json

HELP = "list methods, retrievers, metrics, tasks, backends, layouts, configs, experiments or runs"
PLUGINS = ("methods", "retrievers", "metrics", "tasks", "backends", "layouts")


def add(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("what", choices=[*PLUGINS, "configs", "experiments", "runs"])
    add_results(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print a line each: of runs a table, of all else the name, what it is, its options and where it comes from."""
    if arguments.what == "runs":
        from bench.report.runs import list_runs, runs_object

        if arguments.json:
            show_json(runs_object(arguments.results))
        else:
            show(list_runs(arguments.results))
        return
    from bench.catalogue import entries

    found = entries(arguments.what)
    if arguments.json:
        show_json([entry.json_object for entry in found])
        return
    width = max((len(entry.name) for entry in found), default=0)
    for entry in found:
        show(f"{entry.name:<{width}}  {entry.line}")
