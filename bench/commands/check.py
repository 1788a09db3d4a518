"""bench check."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bench.commands.options import add_goldens, add_results
from bench.errors import ConfigError
from bench.files import path_of
from bench.terminal import show

if TYPE_CHECKING:
    from collections.abc import Sequence

HELP = "the gate: goldens scored again, a run against a golden, or two timings; exit code 1 on drift"


def add(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.description = (
        "Without RUN every golden's texts are scored again: rows, scores and signatures have to be what "
        "they were. With RUN that run is compared with a golden, as far as chance allows."
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help="a complete run: name, part of it, or folder")
    parser.add_argument("--against", metavar="NAME", help="name of a golden (default: the one of the same kind of run)")
    parser.add_argument(
        "--minimum",
        type=float,
        metavar="SHARE",
        help="changes below this share of a score do not count (default: 0.0025)",
    )
    parser.add_argument(
        "--timing", nargs=2, type=path_of, metavar=("OLD", "NEW"), help="compare two files of results/timing instead"
    )
    parser.add_argument("--factor", type=float, metavar="TIMES", help="by which a timing may be worse (default: 1.25)")
    add_results(parser)
    add_goldens(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what drifted; the exit code, 1 for drift."""
    _refuse_misuse(arguments)
    findings = _findings(arguments)
    for finding in findings:
        show(f"drift: {finding}")
    if not findings:
        show("no drift")
    return 1 if findings else 0


def _refuse_misuse(arguments: argparse.Namespace) -> None:
    """Raise `ConfigError` for flags that do not go together."""
    of_run = [flag for flag in ("against", "minimum") if getattr(arguments, flag) is not None]
    if arguments.run is None and of_run:
        raise ConfigError(f"--{of_run[0]} is for a run: give the run to check")
    if arguments.timing is None and arguments.factor is not None:
        raise ConfigError("--factor is for timings: give --timing OLD NEW")
    if arguments.timing is not None and arguments.run is not None:
        raise ConfigError("give a run or --timing OLD NEW, not both")


def _findings(arguments: argparse.Namespace) -> Sequence[object]:
    from bench.drift import MINIMUM, check_run
    from bench.finished import find_run, finished
    from bench.golden import check_goldens, find_golden
    from bench.progress import say
    from bench.timing.comparison import compare_timings

    goldens = arguments.goldens
    if arguments.timing is not None:
        return compare_timings(*arguments.timing, *([] if arguments.factor is None else [arguments.factor]))
    if arguments.run is not None:
        run = find_run(arguments.results, arguments.run)
        golden = find_golden(finished(run, whole=False), goldens, arguments.against)
        return check_run(run, golden, say, MINIMUM if arguments.minimum is None else arguments.minimum)
    return check_goldens(goldens, say)
