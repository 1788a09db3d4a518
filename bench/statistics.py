"""How far a score would move with other users: bootstrap intervals.

Users are resampled, not reviews. The reviews of one user resemble each other, so drawing reviews one by one would
count each user's luck several times and make the intervals too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.errors import ConfigError, DataError
from bench.protocols import Array

Aggregate = Callable[[Array, Array], Mapping[str, Array]]
"""A metric's `aggregate`: rows (n, s) and weights (b, n) to scores by column, each (b,)."""

BLOCK_ENTRIES = 1 << 21
"""Weights held at a time (16 MiB): bounds the memory, does not change a number."""


def user_weights(users: Sequence[str], resamples: int, seed: int) -> Array:
    """How often each instance counts in each bootstrap resample, shape (resamples, n).

    `users` names the user of each of n instances. A resample draws as many users as there are, with replacement
    (the cluster bootstrap of Davison and Hinkley 1997, section 3.8); an instance counts as often as its user was
    drawn. Depends on the seed and on which instances share a user, not on the users' names. Raises `DataError`
    without instances and `ConfigError` without resamples.
    """
    return np.concatenate(list(_weight_blocks(users, resamples, seed)))


def interval(
    metric_aggregate: Aggregate,
    rows: Array,
    users: Sequence[str],
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Mapping[str, tuple[float, float]]:
    """Percentile bootstrap interval over users of each of a metric's scores, by column, in the score's own unit.

    `rows` has shape (n, s) and `users` n entries. The lower end is the (1 - level) / 2 quantile of the resampled
    scores, the upper end that of (1 + level) / 2, both by linear interpolation. One user alone gives an interval
    without width. Raises `DataError` if rows and users do not match or a resampled score is not a finite number, and
    `ConfigError` for a level outside (0, 1) or less than one resample.
    """
    if not 0 < level < 1:
        raise ConfigError(f"interval: the level is {level}; it has to lie between 0 and 1, e.g. 0.95")
    if len(rows) != len(users):
        raise DataError(f"interval: {len(rows)} rows but {len(users)} users; give the user of each row")
    blocks = [metric_aggregate(rows, weights) for weights in _weight_blocks(users, resamples, seed)]
    tails = [(1 - level) / 2, (1 + level) / 2]
    intervals = {}
    for column in blocks[0]:
        scores = np.concatenate([block[column] for block in blocks])
        if not np.isfinite(scores).all():
            raise DataError(f"interval: a resampled {column} is not a finite number; look for such values in its rows")
        low, high = np.quantile(scores, tails)
        intervals[column] = (float(low), float(high))
    return intervals


def _weight_blocks(users: Sequence[str], resamples: int, seed: int) -> Iterator[Array]:
    """The rows of `user_weights`, some at a time. A generator that is read in pieces gives the same draws."""
    if len(users) == 0:
        raise DataError("bootstrap: there are no instances to resample; score at least one")
    if resamples < 1:
        raise ConfigError(f"bootstrap: {resamples} resamples were asked for; ask for at least 1 (usual: 1000)")
    user_of, count = _numbered(users)
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_ENTRIES // len(users))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = generator.integers(count, size=(size, count))
        drawn += count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        yield times[:, user_of].astype(np.float64)


def _numbered(users: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    """Each instance's user as a number in order of first appearance, and how many users there are."""
    numbers: dict[str, int] = {}
    user_of = np.array([numbers.setdefault(user, len(numbers)) for user in users], dtype=np.int64)
    return user_of, len(numbers)
