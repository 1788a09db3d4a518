"""bench bless."""

from __future__ import annotations

import argparse

from bench.commands.options import add_goldens, add_results
from bench.terminal import show

HELP = "make a run a golden, or the new state of one: the only way one moves"


def add(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("run", metavar="RUN", help="a complete run: name, part of it, or folder")
    parser.add_argument("--name", help="of the golden (default: that of the same kind of run, else after it)")
    add_results(parser)
    add_goldens(parser)


def run(arguments: argparse.Namespace) -> None:
    """Make the run a golden and print what changed."""
    from bench.finished import find_run
    from bench.golden import bless

    folder = find_run(arguments.results, arguments.run)
    for line in bless(folder, arguments.goldens, arguments.name):
        show(line)
