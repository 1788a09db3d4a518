"""Two timings compared: what has become slower."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import ConfigError
from bench.timing.files import GIB, Spread, Timing, read_timing, spread


@dataclass(frozen=True)
class _Figure:
    """How a figure is compared: its name in a finding, what it is when it is worse, and its unit."""

    what: str
    worse: str
    more_is_better: bool = False
    unit: float = 1.0


COMPARED = {
    "instances_per_second": _Figure("instances a second", "slow", more_is_better=True),
    "latency_p50": _Figure("seconds of median latency", "long"),
    "latency_p95": _Figure("seconds of 95th percentile latency", "long"),
    "memory_bytes": _Figure("GiB of memory at most", "much", unit=GIB),
    "gpu_memory_bytes": _Figure("GiB of GPU memory", "much", unit=GIB),
}
"""The figures of a method that are compared."""
WORK = {"calls": "LLM calls", "prompt_tokens": "prompt tokens", "output_tokens": "output tokens"}


def compare_timings(old: Path, new: Path, factor: float = 1.25) -> list[str]:
    """What has become slower from one timing to another; nothing if all is well.

    A finding is a figure (a method's speed, latency or memory, the start of the engine) whose median is worse by more
    than `factor` and whose repeats all are worse than all the old ones, or a method that is no longer there. Raises
    `ConfigError` for timings that cannot be compared: of another device, other settings or other adapters' weights, or
    of a machine that did the fixed piece of work at another speed. Seconds are not divided by that speed: it is of
    another mix of work than a method's.
    """
    if not 1 <= factor < math.inf:
        raise ConfigError(f"the factor by which a timing may be worse is {factor:g}; it has to be 1 or more, e.g. 1.25")
    before, after = read_timing(old), read_timing(new)
    _check_same(before, after, old, new)
    _check_calibration(before, after, old, new, factor)
    findings: list[str] = []
    start = _Figure("seconds to start", "long")
    findings += _worse("the engine", start, before["engine_start_seconds"], after["engine_start_seconds"], factor)
    for method, was in before["methods"].items():
        now = after["methods"].get(method)
        if now is None:
            findings.append(f"{method}: timed in {old}, missing in {new}")
        else:
            findings += [finding + _other_work(was, now) for finding in _worse_figures(method, was, now, factor)]
    return findings


def _check_same(before: Timing, after: Timing, old: Path, new: Path) -> None:
    """Raise `ConfigError` for timings of another machine, other settings or other weights."""
    for part in ("machine", "settings"):
        for name in {**before[part], **after[part]}:
            was, now = before[part].get(name), after[part].get(name)
            if was != now:
                raise ConfigError(
                    f"{old} and {new} cannot be compared: {name} was {was!r} and is {now!r}; time both in the same way"
                )
    for method, found in before["methods"].items():
        was, now = found["weights"], after["methods"].get(method, found)["weights"]
        if was != now:
            raise ConfigError(
                f"{old} and {new} cannot be compared: the weights of {method}'s adapter were {was} and are {now}; time "
                "both in the same way"
            )


def _check_calibration(before: Timing, after: Timing, old: Path, new: Path, factor: float) -> None:
    was, now = spread(before["calibration_seconds"]), spread(after["calibration_seconds"])
    ratio = now.median / was.median
    if max(ratio, 1 / ratio) > factor and (now.low > was.high or was.low > now.high):
        raise ConfigError(
            f"{old} and {new} cannot be compared: a fixed piece of work without any model took {ratio:.2f} times as "
            "long in the second, so the machine itself was not as fast; time again while nothing else runs"
        )


def _worse_figures(method: str, was: Timing, now: Timing, factor: float) -> Iterator[str]:
    for name, figure in COMPARED.items():
        yield from _worse(method, figure, was["figures"].get(name), now["figures"].get(name), factor)
    if "training" in was and "training" in now:
        for name in ("instances_per_second", "memory_bytes", "gpu_memory_bytes"):
            before, after = was["training"][name], now["training"][name]
            yield from _worse(f"training of {method}", COMPARED[name], before, after, factor)


def _worse(
    whose: str, figure: _Figure, old: Sequence[float] | float | None, new: Sequence[float] | float | None, factor: float
) -> Iterator[str]:
    """The finding on a figure, of repeats or measured once, if it is worse; nothing where a timing does not have
    the figure."""
    if old is None or new is None:
        return
    before, after = (
        spread([value / figure.unit for value in ([values] if isinstance(values, int | float) else values)])
        for values in (old, new)
    )
    if figure.more_is_better:
        ratio, apart = before.median / after.median, after.high < before.low
    else:
        ratio, apart = after.median / before.median, after.low > before.high
    if ratio > factor and apart:
        yield (
            f"{whose}: {_shown(after)} {figure.what}, was {_shown(before)}: {ratio:.2f} times as {figure.worse}, "
            f"{factor:g} is allowed"
        )


def _shown(figure: Spread) -> str:
    if figure.low == figure.high:
        return f"{figure.median:.4g}"
    return f"{figure.median:.4g} ({figure.low:.4g} to {figure.high:.4g})"


def _other_work(was: Timing, now: Timing) -> str:
    """What is more or less to do for an instance than before."""
    changes = []
    for name, what in WORK.items():
        before, after = (statistics.median(timing["figures"].get(name, [0.0])) for timing in (was, now))
        if before != after:
            changes.append(f"{after:.4g} {what} an instance, were {before:.4g}")
    return f" ({'; '.join(changes)})" if changes else ""
