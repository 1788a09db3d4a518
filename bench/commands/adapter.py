"""bench adapter import."""

from __future__ import annotations

import argparse

from bench.commands.options import add_results
from bench.terminal import show

HELP = "adapters that were trained elsewhere"


def add(parser: argparse.ArgumentParser) -> None:
    """The command's actions and their flags."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    importing = actions.add_parser("import", help="take a method's adapter out of a whole-model checkpoint")
    importing.add_argument("source", metavar="FOLDER_OR_HUB_ID", help="checkpoint with safetensors files")
    importing.add_argument("--method", required=True, help="the method whose adapter it is, e.g. dep")
    add_results(importing)


def run(arguments: argparse.Namespace) -> None:
    """Import an adapter and print where it is kept."""
    from bench.softprompt.importing import import_adapter

    folder = import_adapter(arguments.source, arguments.method, arguments.results)
    show(
        f"kept in {folder}\n"
        f"use it: bench run --method {arguments.method} --config official-7b --set adapter={folder} ...\n"
        "(it learned from the prompts of its authors' code: fidelity=official, as in official-7b, makes the same ones, "
        "any other configuration makes others)"
    )
