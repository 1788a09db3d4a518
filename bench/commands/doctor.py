"""bench doctor."""

from __future__ import annotations

import argparse

from bench.terminal import show

HELP = "say what works on this machine and how to mend what does not"


def add(parser: argparse.ArgumentParser) -> None:
    """It has no flags."""


def run(_: argparse.Namespace) -> None:
    """Print what works."""
    from bench.doctor import diagnose, render

    show(render(diagnose()))
