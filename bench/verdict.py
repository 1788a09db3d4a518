"""Is one system better than another? A verdict in words from their scores on the same instances, and how large a
difference these users could have shown.

Everything is B minus A. Pure: it knows no runs and no tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.protocols import Array, Column
from bench.report.names import counted
from bench.statistics import Aggregate, Difference, detectable, holm, paired

LEVEL = 0.05
"""Chance that any claim of a verdict is wrong."""
POWER = 0.8
"""Chance with which a difference as large as `Finding.detectable` is found."""

Outcome = Literal["better", "worse", "higher", "lower", "not shown to differ", "too few users", "the same"]
"""What is found of a score: "higher" or "lower" where neither way is better; "too few users" where the test cannot
reach the level, however large the difference; "the same" where every user has the same score in both."""
Overall = Literal["better", "worse", "mixed", "different", "not shown to differ", "too few users", "the same"]
"""What is found of all scores together: "different" where none of them is better one way."""


@dataclass(frozen=True)
class Sides:
    """A metric's rows of both systems on the same instances, each of shape (n, s), with its aggregate and those of its
    columns that are asked about."""

    columns: Sequence[Column]
    aggregate: Aggregate
    a: Array
    b: Array


@dataclass(frozen=True)
class Finding:
    """One score of a verdict, in its own unit."""

    column: Column
    a: float
    b: float
    difference: Difference
    adjusted: float
    """p, adjusted for all tests of the verdict; 1 where nothing is tested."""
    detectable: float | None
    """The smallest true difference that is found with a chance of `POWER` or more; None where none can be."""
    outcome: Outcome

    @property
    def numbers(self) -> str:
        """The difference, in the score's unit and as a share of A's, and what would show if nothing did."""
        if self.outcome == "the same":
            return ""
        found = f"{self.difference.value:+.{self.column.decimals}f}"
        if self.outcome != "not shown to differ":
            return f" ({found}{self._of_a(self.difference.value, '+')})"
        size = "" if self.detectable is None else f"; shows from {self.shows_from}"
        return f" ({found}{size})"

    @property
    def shows_from(self) -> str:
        """`detectable` as a text, also as a share of A's score."""
        if self.detectable is None:
            return ""
        return f"{self.detectable:.{self.column.decimals}f}{self._of_a(self.detectable)}"

    def _of_a(self, difference: float, sign: str = "") -> str:
        return f", {100 * difference / abs(self.a):{sign}.1f}%" if self.a else ""


_CLAUSES: dict[Outcome, tuple[str, str]] = {
    "better": ("is better than {a}", "better"),
    "worse": ("is worse than {a}", "worse"),
    "higher": ("is higher than {a}", "higher"),
    "lower": ("is lower than {a}", "lower"),
    "not shown to differ": ("is not shown to differ from {a}", "not shown to differ"),
    "too few users": ("cannot be told from {a} by so few users", "too few users to tell"),
    "the same": ("is the same as {a}", "the same"),
}
"""How a verdict says an outcome: first, and behind another one."""


@dataclass(frozen=True)
class Verdict:
    """The findings of a comparison, in the order asked for. All claims that one side is better, worse, higher or lower
    are right together with a chance of at least 1 - `level`: the p of the `tests` are adjusted for each other (Holm),
    and for the `among` systems of which B was chosen by the same scores (each adjusted p is multiplied by it)."""

    findings: Sequence[Finding]
    users: int
    tests: int
    among: int
    level: float

    @property
    def outcome(self) -> Overall:
        """Of B, by the scores that are better one way, if there are any."""
        directed = [finding.outcome for finding in self.findings if finding.column.better]
        found = set(directed or [finding.outcome for finding in self.findings])
        if found >= {"better", "worse"}:
            return "mixed"
        if found & {"higher", "lower"}:
            return "different"
        order: tuple[Overall, ...] = ("better", "worse", "not shown to differ", "too few users", "the same")
        return next(outcome for outcome in order if outcome in found)

    def words(self, a: str = "A", b: str = "B") -> str:
        """The verdict as a sentence; `a` and `b` are what it calls the systems."""
        said = b
        for outcome, (first, later) in _CLAUSES.items():
            found = [finding for finding in self.findings if finding.outcome == outcome]
            if found:
                so_far = said != b
                link = ", but " if self.outcome == "mixed" and outcome == "worse" else "; " if so_far else " "
                said += f"{link}{later if so_far else first.format(a=a)} in "
                said += _listed([f"{finding.column.head}{finding.numbers}" for finding in found])
        return f"{said}."

    @property
    def meaning(self) -> list[str]:
        """What its words promise and what they do not, in sentences."""
        chosen = f" and for the {self.among} systems that could have been chosen" if self.among > 1 else ""
        claim = (
            f"The chance that any difference claimed is not there is at most {self.level:.0%}: sign-flip tests over "
            f"{self.users} users, p adjusted for {counted(self.tests, 'test')} (Holm){chosen}."
        )
        return [claim, *self.limits] if self._found - {"too few users", "the same"} else self.limits

    @property
    def limits(self) -> list[str]:
        """What could not have been found, in sentences."""
        said = []
        chosen = f" of the best of {self.among}" if self.among > 1 else ""
        if any(finding.detectable is not None for finding in self.findings):
            equal = " Not shown is not equal." if "not shown to differ" in self._found else ""
            said.append(
                f"Shows from: a true difference of this size (%: of the other's score) is found with a chance of "
                f"{POWER:.0%} with these {self.users} users.{equal}"
            )
        if "too few users" in self._found:
            said.append(
                f"Too few users: {counted(self.tests, 'test')}{chosen} can reach {self.level:.0%} only where the "
                f"scores of {_needed(self.tests * self.among, self.level)} users or more differ."
            )
        return said

    @property
    def all_shown(self) -> bool:
        """Whether nothing is left to chance: no score is "not shown to differ" or has "too few users"."""
        return not self._found & {"not shown to differ", "too few users"}

    @property
    def _found(self) -> set[Outcome]:
        return {finding.outcome for finding in self.findings}


def decide(
    sides: Sequence[Sides],
    users: Sequence[str],
    level: float = LEVEL,
    among: int = 1,
    resamples: int = 1000,
    flips: int = 10_000,
    seed: int = 0,
) -> Verdict:
    """The verdict on B against A by the columns of all `sides`; `users[i]` is the user of row i of each.

    Each column is a test (see `bench.statistics.paired`), but for those in which every user has the same score in both
    systems. A column is "better" or "worse" where its adjusted p is at most `level`. `among`: of so many systems B
    is the one that these scores made look best; its p are multiplied by their number, so that the claims hold
    whichever was chosen (Bonferroni over the systems, Holm over the columns of each). What would be found is
    reckoned at the level of the first of Holm's steps, level / (tests * among), and is rather too large.

    Raises `DataError` and `ConfigError` as `paired` does.
    """
    count = len(set(users))
    measured = [
        (column, side, difference)
        for side in sides
        for column, difference in _differences(side, users, resamples, flips, seed)
    ]
    tested = [difference.p for _, _, difference in measured if difference.tested]
    adjusted = iter(holm(tested))
    family = len(tested) * among
    findings = []
    for column, side, difference in measured:
        p = min(1.0, among * next(adjusted)) if difference.tested else 1.0
        a, b = (float(side.aggregate(rows, np.ones((1, len(rows))))[column.name][0]) for rows in (side.a, side.b))
        # A user whose rows are equal changes nothing by being exchanged.
        testable = _changed(side, users) >= _needed(family, level) if difference.tested else False
        smallest = detectable(difference.error, count, level / family, POWER) if testable else None
        outcome = _outcome(column, difference, p <= level, testable)
        findings.append(Finding(column, a, b, difference, p, smallest, outcome))
    return Verdict(findings, count, len(tested), among, level)


def _differences(
    side: Sides, users: Sequence[str], resamples: int, flips: int, seed: int
) -> list[tuple[Column, Difference]]:
    found = paired(side.aggregate, side.a, side.b, users, resamples=resamples, flips=flips, seed=seed)
    return [(column, found[column.name]) for column in side.columns]


def _changed(side: Sides, users: Sequence[str]) -> int:
    """How many users have other rows in B than in A."""
    return len({user for user, other in zip(users, (side.a != side.b).any(axis=1), strict=True) if other})


def _needed(tests: int, level: float) -> int:
    """Users without whom no sign-flip test reaches the level: of n users' 2^n exchanges two set the scores farthest
    apart, so p is at least 2 / 2^n, and `tests` times that after Holm's first step."""
    return math.ceil(1 + math.log2(tests / level))


def _outcome(column: Column, difference: Difference, shown: bool, testable: bool) -> Outcome:
    if not difference.tested:
        return "the same"
    if not shown:
        return "not shown to differ" if testable else "too few users"
    if column.better is None:
        return "higher" if difference.value > 0 else "lower"
    return "better" if (difference.value > 0) == (column.better == "higher") else "worse"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
