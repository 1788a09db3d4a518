"""bench compare."""

from __future__ import annotations

import argparse

from bench.commands.options import add_results
from bench.terminal import show

HELP = "two runs on the same instances: differences, intervals, p, texts"


def add(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("runs", nargs=2, metavar="RUN", help="names of two runs, or parts of them; B minus A is shown")
    parser.add_argument(
        "--changed", type=int, default=5, metavar="N", help="how many changed texts to show (default: 5)"
    )
    parser.add_argument("--by", metavar="SCORE", help="the score by which they changed (default: the first mean)")
    add_results(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the comparison."""
    import bench

    a, b = arguments.runs
    show(bench.compare(a, b, arguments.changed, arguments.by, arguments.results))
