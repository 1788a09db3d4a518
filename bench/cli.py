"""The command line: finds the command, runs it, turns errors into a line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from bench.errors import BenchError
from bench.terminal import visible

COMMANDS = (
    *("run", "train", "adapter", "table", "compare", "check", "bless", "time", "report", "list", "show", "doctor"),
    "data",
)
"""Each is a file of `bench.commands`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0, 1 for drift that `bench check` found, 2 for bad input or a broken environment,
    130 when interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        code: int | None = arguments.command(arguments)
        sys.stdout.flush()
        return code or 0
    except BenchError as error:
        print(f"bench: {visible(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbench: interrupted; run the same command again to go on where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) went away: that is its right. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _Parser(argparse.ArgumentParser):
    """Quotes arguments that it refuses so that they steer no terminal."""

    def error(self, message: str) -> NoReturn:
        super().error(visible(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bench", description="Benchmark of methods that make a language model write as a given user would."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"bench.commands.{name}")
        command = commands.add_parser(name, help=module.HELP)
        command.set_defaults(command=module.run)
        module.add(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
