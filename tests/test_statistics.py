"""The bootstrap over users against scipy, by hand, and by its coverage on data whose mean is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import pytest
import scipy.stats

import bench.statistics
from bench.errors import ConfigError, DataError
from bench.protocols import Array
from bench.statistics import interval, user_weights


def means(rows: Array, weights: Array) -> Mapping[str, Array]:
    """One column per entry of a row: its weighted mean."""
    scores = weights @ rows / weights.sum(axis=1, keepdims=True)
    return {str(column): scores[:, column] for column in range(rows.shape[1])}


def test_a_weight_counts_how_often_the_user_was_drawn() -> None:
    users = ["a", "b", "a", "c", "b", "a"]
    weights = user_weights(users, resamples=500, seed=3)
    assert weights.shape == (500, 6)
    assert weights.dtype == np.float64
    for same in ([0, 2, 5], [1, 4]):
        assert (weights[:, same] == weights[:, same[:1]]).all()
    # One column a user: as many users are drawn as there are.
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert set(np.unique(weights)) == {0, 1, 2, 3}


def test_every_draw_of_users_is_equally_likely() -> None:
    weights = user_weights(["a", "b", "c"], resamples=60_000, seed=1)
    counts = {draw: 0 for draw in product(range(4), repeat=3) if sum(draw) == 3}
    for draw, count in zip(*np.unique(weights, axis=0, return_counts=True), strict=True):
        counts[tuple(int(times) for times in draw)] = int(count)
    ways = {1: 6, 2: 3, 3: 1}  # of 27: all different, one twice, one three times
    expected = [60_000 * ways[max(draw)] / 27 for draw in counts]
    assert scipy.stats.chisquare(list(counts.values()), expected).pvalue > 0.001


def test_two_users_by_hand() -> None:
    # Users a (0 and 1) and b (5): a resample is aa (mean 0.5), ab or ba (mean 2) or bb (mean 5), 1 : 2 : 1.
    rows = np.array([[0.0], [1.0], [5.0]])
    weights = user_weights(["a", "a", "b"], resamples=4000, seed=0)
    scores = means(rows, weights)["0"]
    values, counts = np.unique(scores, return_counts=True)
    assert values.tolist() == [0.5, 2.0, 5.0]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert interval(means, rows, ["a", "a", "b"]) == {"0": (0.5, 5.0)}
    assert interval(means, rows, ["a", "a", "b"], level=0.4) == {"0": (2.0, 2.0)}


def test_one_user_has_an_interval_without_width() -> None:
    assert interval(means, np.array([[1.0], [2.0]]), ["a", "a"]) == {"0": (1.5, 1.5)}


def test_equals_scipy_on_the_plain_mean() -> None:
    values = np.random.default_rng(5).gamma(2.0, size=80)
    ours = interval(means, values[:, None], [f"u{i}" for i in range(80)], level=0.9, resamples=40_000)["0"]
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=40_000, method="percentile", rng=7
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.02 * width)


def coverage(rows: Array, users: list[str], truth: float) -> float:
    """Share of the columns of `rows`, one simulated data set each, whose interval holds the truth."""
    intervals = interval(means, rows, users).values()
    return float(np.mean([low <= truth <= high for low, high in intervals]))


def test_coverage_with_one_instance_a_user() -> None:
    rows = np.random.default_rng(11).normal(0.3, 0.1, size=(150, 3000))
    assert 0.93 <= coverage(rows, [str(i) for i in range(150)], 0.3) <= 0.97


def test_coverage_with_several_instances_a_user() -> None:
    generator = np.random.default_rng(12)
    user_of = np.repeat(np.arange(150), generator.integers(1, 6, size=150))
    user_effects = generator.normal(0.3, 0.1, size=(150, 3000))
    rows = user_effects[user_of] + generator.normal(0, 0.05, size=(len(user_of), 3000))
    assert 0.93 <= coverage(rows, [str(user) for user in user_of], 0.3) <= 0.97
    # Reviews taken for independent ones: what resampling users protects from.
    assert coverage(rows, [str(i) for i in range(len(user_of))], 0.3) < 0.85


def test_equal_reviews_of_a_user_add_nothing() -> None:
    values = np.random.default_rng(2).normal(size=(100, 1))
    users = [str(i) for i in range(100)]
    once = interval(means, values, users)
    assert interval(means, np.repeat(values, 4, axis=0), list(np.repeat(users, 4)))["0"] == pytest.approx(once["0"])
    low, high = interval(means, np.repeat(values, 4, axis=0), [str(i) for i in range(400)])["0"]
    # Four times as many independent reviews would halve the interval.
    assert (high - low) / (once["0"][1] - once["0"][0]) == pytest.approx(0.5, abs=0.06)


def test_depends_on_the_seed_and_on_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(8).random((30, 2))
    users = [f"user {i % 11}" for i in range(30)]
    first, weights = interval(means, rows, users, seed=4), user_weights(users, 100, seed=4)
    assert interval(means, rows, users, seed=4) == first
    assert interval(means, rows, users, seed=5) != first
    assert interval(means, rows, [user.upper() for user in users], seed=4) == first
    monkeypatch.setattr(bench.statistics, "BLOCK_ENTRIES", 100)
    assert interval(means, rows, users, seed=4) == first
    assert (user_weights(users, 100, seed=4) == weights).all()


def test_memory_is_bounded_by_blocks() -> None:
    sizes = []

    def watch(rows: Array, weights: Array) -> Mapping[str, Array]:
        sizes.append(weights.size)
        return means(rows, weights)

    interval(watch, np.zeros((20_000, 1)), [str(i) for i in range(20_000)], resamples=250)
    assert max(sizes) <= bench.statistics.BLOCK_ENTRIES
    assert sum(sizes) == 250 * 20_000


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: interval(means, np.zeros((2, 1)), ["a"]), DataError, "2 rows but 1 users"),
        (lambda: interval(means, np.zeros((0, 1)), []), DataError, "no instances"),
        (lambda: interval(means, np.zeros((1, 1)), ["a"], level=95), ConfigError, "level is 95"),
        (lambda: user_weights(["a"], 0, seed=0), ConfigError, "0 resamples"),
        (lambda: interval(means, np.array([[np.nan]]), ["a"]), DataError, "resampled 0 is not a finite number"),
    ],
)
def test_errors_say_what_to_do(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
