"""bench table."""

from __future__ import annotations

import argparse

from bench.commands.options import add_settings, settings_of
from bench.commands.plan import planned
from bench.terminal import show

HELP = "compute what tables and figures miss and write them (LaTeX, Markdown, HTML, CSV; PDF, PNG)"


def add(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.set_defaults(goes_on=True)
    parser.description = (
        "Several at once share their runs: each run is computed once, by whichever table needs it first."
    )
    parser.add_argument(
        "experiment", nargs="+", help="shipped tables and figures (bench list experiments), or YAML files of your own"
    )
    add_settings(parser, several=True)
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="mean and standard deviation over N seeds (default: 1)"
    )
    parser.add_argument(
        "--paper",
        action="store_true",
        help="the paper's figures and the difference from them also where data or model are not the paper's",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what it will take, as `bench plan` does, and compute nothing"
    )
    parser.add_argument(
        "--significance", action="store_true", help="mark what is significantly worse than the best of its column"
    )


def run(arguments: argparse.Namespace) -> None:
    """Compute what is missing, print the tables and which files were written."""
    from bench.api import tables

    if arguments.dry_run:
        planned(arguments)
        return
    configs = {config: settings_of(arguments, config) for config in arguments.config or ["demo"]}
    shared = {"dataset": arguments.dataset, "seed": arguments.seed}
    options = (arguments.seeds, arguments.paper, arguments.significance)
    for line in tables(arguments.experiment, configs, shared, *options):
        show(line)
