"""How fast each method is, on one engine: `bench time`, and the comparison of two timings.

A timing makes all of its texts anew, in folders that are empty when a pass begins and gone when it ends. The seconds in
a run's folder are never used: they may come from a run that was resumed.
"""

from bench.timing.comparison import compare_timings
from bench.timing.files import GIB, SCHEMA, Spread, Timing, read_timing, spread, write_timing
from bench.timing.passes import measure

__all__ = [
    "GIB",
    "SCHEMA",
    "Spread",
    "Timing",
    "compare_timings",
    "measure",
    "read_timing",
    "spread",
    "write_timing",
]
