"""bench show."""

from __future__ import annotations

import argparse

from bench.commands.options import add_json, add_results
from bench.terminal import show, show_json

HELP = "show a run, or one instance of it: history, prompts, output, scores"


def add(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("run", help="name of a run, or any part of it that names one run (bench list runs)")
    parser.add_argument("--instance", help="id of an instance, or any part of it that names one")
    add_results(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the run or the instance."""
    from bench.report.runs import instance_object, run_object, show_instance, show_run

    if arguments.json and arguments.instance is None:
        show_json(run_object(arguments.results, arguments.run))
    elif arguments.json:
        show_json(instance_object(arguments.results, arguments.run, arguments.instance))
    elif arguments.instance is None:
        show(show_run(arguments.results, arguments.run))
    else:
        show(show_instance(arguments.results, arguments.run, arguments.instance))
