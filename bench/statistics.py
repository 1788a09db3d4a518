"""How far a score, or the difference of two on the same instances, would move with other users.

Users are resampled, not reviews. The reviews of one user resemble each other, so drawing reviews one by one would
count each user's luck several times and make the intervals too narrow and the p-values too small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.errors import ConfigError, DataError
from bench.protocols import Array

Aggregate = Callable[[Array, Array], Mapping[str, Array]]
"""A metric's `aggregate`: rows (n, s) and weights (b, n) to scores by column, each (b,)."""

BLOCK_ENTRIES = 1 << 21
"""Weights held at a time (16 MiB): bounds the memory, does not change a number."""

TIE = 1e-9
"""Differences closer than this share of the scores count as equal: the last digits of a sum depend on its order."""


def interval(
    metric_aggregate: Aggregate,
    rows: Array,
    users: Sequence[str],
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Mapping[str, tuple[float, float]]:
    """Percentile bootstrap interval over users of each of a metric's scores, by column, in the score's own unit.

    `rows` has shape (n, s); `users` names the user of each row. A resample draws as many users as there are, with
    replacement (the cluster bootstrap of Davison and Hinkley 1997, section 3.8), and a row counts as often as its user
    was drawn. Resamples depend on the seed and on which rows share a user, not on the users' names. The lower end is
    the (1 - level) / 2 quantile of the resampled scores, the upper end that of (1 + level) / 2, both by linear
    interpolation. One user alone gives an interval without width. Raises `DataError` if rows and users do not match or
    a resampled score is not a finite number, and `ConfigError` for a level outside (0, 1) or less than one resample.
    """
    _check_level(level)
    if len(rows) != len(users):
        raise DataError(f"interval: {len(rows)} rows but {len(users)} users; give the user of each row")
    scores = _resampled(metric_aggregate(rows, weights) for weights in _weight_blocks(users, resamples, seed))
    return {column: _percentiles(values, level) for column, values in scores.items()}


@dataclass(frozen=True)
class Difference:
    """Score of B minus score of A on the same instances, in the score's own unit; `paired` says how it is found."""

    value: float
    low: float
    high: float
    error: float
    """Standard deviation of the resampled differences: the bootstrap's standard error."""
    p: float
    """Two-sided."""

    @property
    def tested(self) -> bool:
        """Whether there is anything to test: no other draw of users sets two systems apart that score every user
        alike, e.g. in a score by chance, which no text can change."""
        return bool(self.value or self.error)


def paired(
    aggregate: Aggregate,
    rows_a: Array,
    rows_b: Array,
    users: Sequence[str],
    level: float = 0.95,
    resamples: int = 1000,
    flips: int = 10_000,
    seed: int = 0,
) -> Mapping[str, Difference]:
    """The difference of two systems in each of a metric's scores, by column.

    Row i of `rows_a` and of `rows_b`, both of shape (n, s), belong to the same instance, and `users[i]` is its user.

    `low` and `high` are a percentile bootstrap over users: both systems are scored on the same resamples, drawn as in
    `interval`. `p` is the sign-flip test over users (a paired permutation test; for corpus scores the approximate
    randomization of Noreen 1989). If it made no difference which of the two wrote a user's texts, they could be
    exchanged; p is the share of the ways to exchange some users' that set the scores as far apart as they are or
    farther. All 2^users ways are tried where that is at most `flips`. Else it is `flips` random ones, each user
    exchanged or not with equal chance, and p is (hits + 1) / (flips + 1).

    `value`, like all of it, is of the aggregate with weights of one. A metric may report another number without
    weights: ROUGE's bootstrap median. Raises `DataError` if rows and users do not match or a score is not a finite
    number, and `ConfigError` for a level outside (0, 1), less than two resamples or less than one flip.
    """
    _check_level(level)
    if rows_a.shape != rows_b.shape or len(rows_a) != len(users):
        raise DataError(
            f"paired: rows of shapes {rows_a.shape} and {rows_b.shape} for {len(users)} users; give both systems' row "
            "of each instance, and its user"
        )
    if resamples < 2 or flips < 1:
        raise ConfigError(
            f"paired: {resamples} resamples and {flips} flips; ask for at least 2 and 1 (usual: 1000 and 10000)"
        )
    resampled = _resampled(
        _minus(aggregate(rows_b, weights), aggregate(rows_a, weights))
        for weights in _weight_blocks(users, resamples, seed)
    )
    everything = np.ones((1, len(users)))
    observed = _minus(aggregate(rows_b, everything), aggregate(rows_a, everything))
    p = _sign_flips(aggregate, rows_a, rows_b, users, observed, flips, seed)
    return {
        column: Difference(
            float(observed[column][0]), *_percentiles(values, level), float(values.std(ddof=1)), p[column]
        )
        for column, values in resampled.items()
    }


def holm(ps: Sequence[float]) -> list[float]:
    """p-values adjusted for how many there are (Holm 1979), in the order given: rejecting those up to 0.05 is wrong
    anywhere with a chance of at most 5%, however the tests depend on each other."""
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, (len(ps) - rank) * ps[index])
        adjusted[index] = min(1.0, largest)
    return adjusted


def detectable(error: float, users: int, level: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided test at `level` finds with a chance of `power`, in the unit of
    `error`, the standard error of the difference that `paired` gives for so many users.

    It is t(1 - level / 2) + t(power) standard errors, quantiles of Student's t with users - 1 degrees of freedom (the
    minimum detectable effect of Bloom 1995, doi:10.1177/0193841X9501900504), here of a paired difference. The
    bootstrap's error is brought from n to n - 1 users first. It hangs on the spread over users and on their number and
    not on the difference that was found. Infinite for a single user. Raises `ConfigError` for a level or a power
    outside (0, 1).
    """
    from scipy.special import stdtrit

    for name, share in (("level", level), ("power", power)):
        if not 0 < share < 1:
            raise ConfigError(f"detectable: the {name} is {share}; it has to lie between 0 and 1")
    if users < 2:
        return math.inf
    quantiles = stdtrit(users - 1, 1 - level / 2) + stdtrit(users - 1, power)
    return float(quantiles * error * math.sqrt(users / (users - 1)))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"the interval's level is {level}; it has to lie between 0 and 1, e.g. 0.95")


def _minus(first: Mapping[str, Array], second: Mapping[str, Array]) -> dict[str, Array]:
    return {column: first[column] - second[column] for column in first}


def _resampled(blocks: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """All blocks' values by column, shape (resamples,). Raises `DataError` for one that is not a finite number."""
    parts: dict[str, list[Array]] = {}
    for block in blocks:
        for column, values in block.items():
            _check_finite(values, column)
            parts.setdefault(column, []).append(values)
    return {column: np.concatenate(values) for column, values in parts.items()}


def _check_finite(scores: Array, column: str) -> None:
    if not np.isfinite(scores).all():
        raise DataError(f"bootstrap: a resampled {column} is not a finite number; look for such values in its rows")


def _percentiles(values: Array, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sign_flips(
    aggregate: Aggregate,
    rows_a: Array,
    rows_b: Array,
    users: Sequence[str],
    observed: Mapping[str, Array],
    flips: int,
    seed: int,
) -> dict[str, float]:
    """p by column for the `observed` differences, each of shape (1,); see `paired`."""
    user_of, count = _numbered(users)
    exact = 2**count <= flips
    ways = 2**count if exact else flips
    rows = np.concatenate([rows_a, rows_b])
    hits = dict.fromkeys(observed, 0)
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_ENTRIES // len(rows))
    for start in range(0, ways, block):
        size = min(block, ways - start)
        if exact:
            exchanged = (np.arange(start, start + size)[:, None] >> np.arange(count) & 1).astype(bool)
        else:
            exchanged = generator.random((size, count)) < 0.5
        of_b = exchanged[:, user_of]
        weights = np.hstack([~of_b, of_b]).astype(np.float64)
        first, second = aggregate(rows, weights), aggregate(rows, 1 - weights)
        for column, value in observed.items():
            apart = np.abs(second[column] - first[column])
            _check_finite(apart, column)
            tie = TIE * np.maximum(np.abs(first[column]), np.abs(second[column]))
            hits[column] += int(np.count_nonzero(apart >= np.abs(value) - tie))
    return {column: hit / ways if exact else (hit + 1) / (ways + 1) for column, hit in hits.items()}


def _weight_blocks(users: Sequence[str], resamples: int, seed: int) -> Iterator[Array]:
    """How often each row counts in each resample, arrays of shape (some resamples, n). A generator that is read in
    pieces gives the same draws. Raises `DataError` without rows, `ConfigError` without resamples."""
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
