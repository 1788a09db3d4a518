"""bench report."""

from __future__ import annotations

import argparse

from bench.commands.options import add_results
from bench.files import path_of
from bench.terminal import show

HELP = "one HTML page of all results: leaderboard, tables, figures, texts"


def add(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--out", type=path_of, metavar="FILE", help="the page (default: RESULTS/report.html)")
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="PART",
        help="the runs whose names contain PART; repeatable (default: all)",
    )
    parser.add_argument(
        "--instances", type=int, metavar="N", help="how many of each category can be looked at (default: 80)"
    )
    add_results(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write the page and print where it is."""
    from bench.report.html import INSTANCES, write_report

    results = arguments.results
    out = results / "report.html" if arguments.out is None else arguments.out
    instances = INSTANCES if arguments.instances is None else arguments.instances
    show(f"wrote {write_report(results, out, arguments.run, instances)}")
