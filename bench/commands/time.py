"""bench time."""

from __future__ import annotations

import argparse

from bench.commands.options import add_settings, settings_of
from bench.terminal import show

HELP = "how fast every method is, on one engine: a table and a JSON file"


def add(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--method", action="append", default=[], help="a method; repeatable (default: all)")
    add_settings(parser, limit="instances of each category in a pass (default: 16)")
    parser.add_argument(
        "--warmup", type=int, default=1, metavar="N", help="passes to throw away (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="passes to keep (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Time the methods, print the tables and where they are kept."""
    from pathlib import Path

    from bench.report.timing import LIMIT, time_methods

    settings = settings_of(arguments)
    given = settings.pop("limit", None)
    limit = LIMIT if given is None else given
    name = Path(arguments.config).stem
    for line in time_methods(settings, arguments.method, limit, arguments.warmup, arguments.repeats, name):
        show(line)
