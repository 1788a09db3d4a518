"""The command line: finds the command, runs it, turns errors into a line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from bench.errors import BenchError, ConfigError
from bench.terminal import visible

COMMANDS = (
    *(
        "run",
        "train",
        "adapter",
        "plan",
        "table",
        "compare",
        "check",
        "bless",
        "time",
        "report",
        "list",
        "show",
        "doctor",
    ),
    "data",
)
"""Each is a file of `bench.commands`."""
LONGEST_LINE = 4000
"""Characters of an error: a name in it may be of any length."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0, 1 for drift that `bench check` found, 2 for bad input or a broken environment,
    130 when interrupted."""
    given = sys.argv[1:] if argv is None else argv
    arguments = argparse.Namespace()
    try:
        _check_text(given)
        parser().parse_args(given, arguments)
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A text or a name may hold what the terminal's encoding cannot.
            sys.stdout.reconfigure(errors="backslashreplace")
        code: int | None = arguments.command(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code or 0
    except BenchError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        hint = "; run the same command again to go on where it stopped" if _goes_on(arguments) else ""
        print(f"\nbench: interrupted{hint}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) went away: that is its right. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # Of the disk, of permissions, of the network: not a fault in here. Any other exception is, and keeps its trace.
        where = f"{error.filename}: " if error.filename else ""
        kept = "; what was finished is kept, run it again to go on" if _goes_on(arguments) else ""
        return _failed(f"bench {given[0]} stopped: {where}{error.strerror or error}{kept}")
    except MemoryError:
        return _failed(f"bench {given[0]} stopped: no memory is left; what was finished is kept")


def _goes_on(arguments: argparse.Namespace) -> bool:
    """Whether the command keeps what it has done and takes it up the next time."""
    return getattr(arguments, "goes_on", False) and not getattr(arguments, "dry_run", False)


def _check_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"the argument {argument[:100]} is not UTF-8 text; rename what it names") from None
        if "\0" in argument:
            raise ConfigError(f"the argument {argument[:100]} holds a NUL character")


def _failed(message: str) -> int:
    """Say it in one line, whatever a name in it holds; the exit code."""
    line = visible(message).replace("\n", "\\n")
    print(f"bench: {line if len(line) <= LONGEST_LINE else f'{line[:LONGEST_LINE]}...'}", file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    """Quotes arguments that it refuses so that they steer no terminal."""

    def error(self, message: str) -> NoReturn:
        super().error(visible(message))


class _Version(argparse.Action):
    """Looks the version up only where it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"bench {version('personalization-bench')}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; what it gives has the command's function under `command`."""
    whole = _Parser(
        prog="bench", description="Benchmark of methods that make a language model write as a given user would."
    )
    whole.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"bench.commands.{name}")
        command = commands.add_parser(name, help=module.HELP)
        command.set_defaults(command=module.run)
        module.add(command)
    return whole


if __name__ == "__main__":
    sys.exit(main())
