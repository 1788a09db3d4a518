"""bench compare."""

from __future__ import annotations

import argparse

from bench.commands.options import add_json, add_results
from bench.terminal import show, show_json

HELP = "is one run better than another, and by how much? A verdict, differences, intervals, p, texts"


def add(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.description = (
        "Two complete runs on the instances that both have, paired and clustered by user: a verdict over all users, "
        "with the smallest difference that they could have shown, then each score by category."
    )
    parser.add_argument("runs", nargs=2, metavar="RUN", help="names of two runs, or parts of them; B minus A is shown")
    parser.add_argument(
        "--scores",
        metavar="NAMES",
        help="the scores that decide: names with commas between them, or all (default: the paper's four, or those of "
        "another task); p are adjusted for how many they are",
    )
    add_json(parser)
    parser.add_argument(
        "--changed", type=int, default=5, metavar="N", help="how many changed texts to show (default: 5)"
    )
    parser.add_argument("--by", metavar="SCORE", help="the score by which they changed (default: the first mean)")
    add_results(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the comparison."""
    import bench

    a, b = arguments.runs
    comparison = bench.compare(a, b, arguments.changed, arguments.by, arguments.results, arguments.scores)
    if arguments.json:
        show_json(comparison.data)
    else:
        show(comparison)
