"""Verdicts on systems whose true difference is known, and by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pytest

from bench.protocols import Array, Column
from bench.statistics import holm, paired
from bench.verdict import LEVEL, Sides, Verdict, decide

COLUMNS = (
    Column("overlap", "Overlap"),
    Column("fluency", "Fluency"),
    Column("error", "Error", better="lower"),
    Column("length", "Length", better=None),
)
SETS = 100
"""Simulated pairs of runs of each kind."""


def means(rows: Array, weights: Array) -> Mapping[str, Array]:
    """The weighted mean of each entry of a row."""
    scores = weights @ rows / weights.sum(axis=1, keepdims=True)
    return {column.name: scores[:, place] for place, column in enumerate(COLUMNS)}


def simulated(seed: int, gains: Sequence[float]) -> Verdict:
    """On 60 users with 1 to 3 instances. A system's effect on a user is common to the user's instances and in part to
    all scores; `gains` are the true differences."""
    generator = np.random.default_rng(seed)
    user_of = np.repeat(np.arange(60), generator.integers(1, 4, size=60))
    item = generator.normal(0.3, 0.1, size=(len(user_of), 1))
    a, b = (
        item
        + generator.normal(0, 0.03, size=(60, 1))[user_of]
        + generator.normal(0, 0.05, size=(60, 4))[user_of]
        + generator.normal(0, 0.05, size=(len(user_of), 4))
        for _ in "ab"
    )
    return decide([Sides(COLUMNS, means, a, b + gains)], [str(user) for user in user_of], resamples=200, flips=999)


def claims(verdicts: Sequence[Verdict], *true: tuple[str, str]) -> int:
    """Verdicts that claim a difference which is not among the `true`, by column and outcome."""
    claimed = [
        {(one.column.name, one.outcome) for one in verdict.findings if one.outcome != "not shown to differ"}
        for verdict in verdicts
    ]
    return sum(bool(found - {*true}) for found in claimed)


@pytest.fixture(scope="module")
def equal() -> list[Verdict]:
    return [simulated(seed, [0.0] * 4) for seed in range(2 * SETS)]


def test_equal_systems_are_hardly_ever_told_apart(equal: list[Verdict]) -> None:
    # Of binomial counts of 200 at 5% no more than 3 in 1,000 pass 19; without Holm it would be 24.
    assert 1 <= claims(equal) <= 19
    assert {verdict.tests for verdict in equal} == {4}


@pytest.mark.parametrize(
    ("column", "sign", "expected"), [("overlap", 1, "better"), ("overlap", -1, "worse"), ("error", -1, "better")]
)
def test_a_difference_of_the_size_that_is_stated_is_found_four_times_in_five(
    column: str, sign: int, expected: Literal["better", "worse"], equal: list[Verdict]
) -> None:
    place = [one.name for one in COLUMNS].index(column)
    size = np.mean([verdict.findings[place].detectable or 0.0 for verdict in equal])
    gains = [sign * size if one.name == column else 0.0 for one in COLUMNS]
    verdicts = [simulated(1000 * (place + 1) + 500 * sign + seed, gains) for seed in range(SETS)]
    found = sum(verdict.findings[place].outcome == expected for verdict in verdicts)
    # 99.8% of binomial counts of 100 at 80% lie here; that the other scores are equal makes wrong claims no likelier.
    assert 67 <= found <= 91
    assert claims(verdicts, (column, expected)) <= 11
    wrong = {"better": "worse", "worse": "better"}[expected]
    assert all(verdict.findings[place].outcome != wrong for verdict in verdicts)
    overall = [verdict.outcome for verdict in verdicts]
    assert overall.count(expected) + overall.count("mixed") >= found


def test_a_chosen_system_is_claimed_better_hardly_ever() -> None:
    """The best of 20 equal systems by the first score, against another one."""
    wrong = 0
    for seed in range(SETS):
        rows = np.random.default_rng(seed).normal(0.3, 0.1, size=(21, 40, 1))
        best = max(rows[1:], key=np.mean)
        side = Sides(COLUMNS[:1], means_of_one, rows[0], best)
        users = [str(user) for user in range(40)]
        wrong += decide([side], users, among=20, resamples=20, flips=999).outcome == "better"
        if seed == 0:
            plain, chosen = (decide([side], users, among=among, flips=999) for among in (1, 20))
            assert chosen.findings[0].adjusted == min(1.0, 20 * plain.findings[0].adjusted)
            assert (chosen.findings[0].detectable or 0) > (plain.findings[0].detectable or 0)
    assert wrong <= 11


def means_of_one(rows: Array, weights: Array) -> Mapping[str, Array]:
    return {"overlap": (weights @ rows)[:, 0] / weights.sum(axis=1)}


# ---- by hand


def verdict_of(changes: Array, count: int = 20) -> Verdict:
    """Of systems whose scores differ by `changes`, shape (count, 4) or one that is broadcast to it."""
    a = np.linspace(0.2, 0.8, count * 4).reshape(count, 4)
    return decide([Sides(COLUMNS, means, a, a + changes)], [str(user) for user in range(count)])


def spread(count: int, size: float) -> Array:
    """Differences of `count` users around `size`, all on its side."""
    return size * np.linspace(0.5, 1.5, count)


def columns(*each: Array | float) -> Array:
    count = max(np.size(one) for one in each)
    return np.stack([np.broadcast_to(one, count) for one in each], axis=1)


def test_outcomes_and_words() -> None:
    up, noise = spread(20, 0.1), np.tile([0.1, -0.1], 10) + spread(20, 0.001)
    found = verdict_of(columns(up, noise, up, -up))
    assert [one.outcome for one in found.findings] == ["better", "not shown to differ", "worse", "lower"]
    assert found.outcome == "mixed"
    words = found.words()
    assert words.startswith("B is better than A in Overlap (+0.1000, +20.")
    assert "), but worse in Error (+0.1000, +" in words
    assert "; lower in Length (-0.1000, -" in words
    assert "; not shown to differ in Fluency (+0.0010; shows from 0." in words
    assert found.words("rag", "dep").startswith("dep is better than rag in Overlap (")
    assert [line.partition(":")[0] for line in found.meaning] == [
        "The chance that any difference claimed is not there is at most 5%",
        "Shows from",
    ]
    assert "p adjusted for 4 tests (Holm)." in found.meaning[0]
    assert "Not shown is not equal." in found.meaning[1]


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        (columns(spread(20, 0.1), 0, -spread(20, 0.1), 0), "better"),
        (columns(-spread(20, 0.1), 0, 0, spread(20, 0.1)), "worse"),
        (columns(0, 0, 0, spread(20, 0.1)), "the same"),
        (np.zeros(4), "the same"),
    ],
)
def test_all_scores_together(changes: Array, outcome: str) -> None:
    assert verdict_of(changes).outcome == outcome


def test_scores_of_which_none_is_better() -> None:
    neutral = [column for column in COLUMNS if column.better is None]
    a = np.linspace(0.2, 0.8, 80).reshape(20, 4)
    b = a + columns(0, 0, 0, spread(20, 0.1))
    found = decide([Sides(neutral, means, a, b)], [str(user) for user in range(20)])
    assert (found.outcome, found.findings[0].outcome) == ("different", "higher")


def test_what_every_user_has_alike_is_no_test() -> None:
    found = verdict_of(columns(spread(20, 0.1), np.tile([0.1, -0.1], 10), 0, 0))
    assert found.tests == 2
    assert [one.adjusted for one in found.findings[2:]] == [1, 1]
    assert [one.detectable for one in found.findings[2:]] == [None, None]
    ps = [one.difference.p for one in found.findings[:2]]
    assert [one.adjusted for one in found.findings[:2]] == holm(ps)
    assert "; the same in Error and Length." in found.words()


def test_too_few_users_are_said_and_how_many_it_takes() -> None:
    # Four tests: 2 / 2^7 is the smallest p of 7 users, 4 times that is above 5%; 8 users are enough.
    found = verdict_of(columns(*[spread(7, 0.1)] * 4), count=7)
    assert {one.outcome for one in found.findings} == {"too few users"} == {found.outcome}
    assert found.words().startswith("B cannot be told from A by so few users in Overlap (+0.1000")
    assert found.meaning == ["Too few users: 4 tests can reach 5% only where the scores of 8 users or more differ."]
    assert verdict_of(columns(*[spread(8, 0.1)] * 4), count=8).findings[0].outcome == "better"
    # Of 20 users those count whose scores differ.
    few = np.where(np.arange(20) < 4, spread(20, 0.1), 0)
    assert [one.outcome for one in verdict_of(columns(few, 0, 0, 0)).findings][:2] == ["too few users", "the same"]


def test_the_difference_that_shows_is_that_of_the_paired_users() -> None:
    changes = np.random.default_rng(3).normal(0.02, 0.1, size=(200, 4))
    a, users = np.linspace(0.2, 0.8, 800).reshape(200, 4), [str(user) for user in range(200)]
    found = decide([Sides(COLUMNS, means, a, a + changes)], users, resamples=20_000)
    # Normal quantiles of 1 - 0.05 / 4 / 2 and of 0.8.
    by_hand = (2.4977 + 0.8416) * changes.std(axis=0, ddof=1) / np.sqrt(200)
    assert [one.detectable for one in found.findings] == pytest.approx(by_hand, rel=0.03)
    own = paired(means, a, a + changes, users, resamples=20_000)
    assert [one.difference for one in found.findings] == list(own.values())
    assert found.level == LEVEL
