"""A timing's file, and its figures over the repeats."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import ConfigError, StoreError
from bench.files import dump, write_atomically

KIND, SCHEMA = "timing", 1
GIB = 1 << 30

Timing = dict[str, Any]
"""What `results/timing/NAME.json` holds: machine, settings, start of the engine and the figures by method."""


@dataclass(frozen=True)
class Spread:
    """A figure over the repeats."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum and maximum."""
    return Spread(statistics.median(values), min(values), max(values))


def write_timing(timing: Timing, path: Path) -> None:
    """Keep a timing. Raises `StoreError`."""
    write_atomically(path, dump(timing))


def read_timing(path: Path) -> Timing:
    """A timing from its file. Raises `ConfigError` for anything else, a run's folder above all, and `StoreError` for
    another schema or a file that cannot be read."""
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder, not a timing: the seconds in a run's folder may be those of a resumed run; make a "
            "timing with `bench time` and give its JSON file"
        )
    # A pipe would be waited for.
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is not a file; make a timing with `bench time` and give its JSON file")
    try:
        timing = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(
            f"{path} cannot be read: {error}; make a timing with `bench time` and give its JSON file"
        ) from None
    if not isinstance(timing, dict) or timing.get("kind") != KIND:
        raise ConfigError(f"{path} is not a timing; make one with `bench time` and give its JSON file")
    if timing.get("schema") != SCHEMA:
        raise StoreError(
            f"{path} was written by schema {timing.get('schema')} of bench's timings, this version reads {SCHEMA}; "
            "make it again with `bench time`"
        )
    return timing
