"""bench doctor."""

from __future__ import annotations

import argparse

from bench.commands.options import add_json
from bench.terminal import show, show_json

HELP = "say what works on this machine and how to mend what does not"


def add(parser: argparse.ArgumentParser) -> None:
    """The command's flag."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print what works."""
    from bench.doctor import diagnose, render

    findings = diagnose()
    if arguments.json:
        runs = all(finding.state != "missing" for finding in findings)
        show_json({"demo_runs": runs, "findings": [vars(finding) for finding in findings]})
    else:
        show(render(findings))
