"""bench train."""

from __future__ import annotations

import argparse

from bench.commands.options import add_settings, settings_of
from bench.errors import ConfigError
from bench.files import check_results
from bench.terminal import show

HELP = "train a method's adapter and choose its epoch; 'bench run' does it too"


def add(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.set_defaults(goes_on=True)
    parser.add_argument("--method", required=True, help="a method with an adapter, e.g. dep")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """Train the adapter that is missing and print where it is kept."""
    from bench.config import build
    from bench.execute import train
    from bench.job import Job

    config = build(settings_of(arguments))
    check_results(config.results)
    job = Job.of(config)
    if job.trains is None:
        raise ConfigError(
            f"nothing to train: method {job.config.method} "
            + ("uses the adapter that is set" if job.config.adapter else "has no adapter in this configuration")
        )
    train(job)
    show(f"kept in {job.trains.folder}")
