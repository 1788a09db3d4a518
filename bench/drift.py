"""A run against its golden: does a method still score as it did, as far as chance allows?

It answers with findings, a line each; none means no drift.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.comparison import Pair, differences
from bench.errors import ConfigError
from bench.finished import FinishedRun, finished
from bench.golden import changed_signatures, foreign_rows, named, read_golden

FAMILY_LEVEL = 0.9999
"""Chance that a run which differs from its golden by chance alone gives no finding, over all its comparisons, as
Student's t has it; scores of few users have heavier tails. Of the 210 pairs of runs of the demo under 21 seeds (48
scores of 96 instances) none fails: the largest change is 3.8 standard errors, where 5.8 are allowed
(tests/campaign/gate_pairs.py). With another model of the demo's 2 of 210 would have failed at 0.999."""

MINIMUM = 0.0025
"""Share of a golden's score below which a change is no drift, however certain it is."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Change:
    """A score's change from a golden, `a`, to a run, `b`, over the instances that both have."""

    pair: Pair

    @property
    def relative(self) -> float:
        """The change as a share of the golden's score."""
        value = self.pair.difference.value
        if self.pair.a == 0:
            return math.copysign(math.inf, value) if value else 0.0
        return value / abs(self.pair.a)

    @property
    def errors(self) -> float:
        """The change in standard errors."""
        value, error = self.pair.difference.value, self.pair.difference.error
        if error == 0:
            return math.copysign(math.inf, value) if value else 0.0
        return value / error

    @property
    def verdict(self) -> str:
        """ "better" or "worse"; empty for a score that is neither good nor bad, and where nothing changed."""
        value, better = self.pair.difference.value, self.pair.column.better
        if better is None or value == 0:
            return ""
        return "better" if (value > 0) == (better == "higher") else "worse"

    def __str__(self) -> str:
        new = self.pair.a + self.pair.difference.value
        parts = [f"{self.relative:+.2%}", f"{self.errors:+.1f} standard errors", self.verdict]
        return (
            f"{self.pair.category} {self.pair.column.name} {self.pair.a:.4f} -> {new:.4f} "
            f"({', '.join(filter(None, parts))})"
        )


def check_run(run: Path, golden: Path, say: Say, minimum: float = MINIMUM) -> list[str]:
    """Compare a complete run with a golden, both folders. Findings: instances that are missing, references
    and signatures that differ, scores stored for other texts than the run's, and each score whose change is larger
    than chance explains and than `minimum`, a share of the golden's score.

    What chance explains is an interval around the change, `errors_allowed` standard errors to each side; the standard
    error is that of a paired bootstrap over users. A change for the better counts like one for the worse. Metrics that
    the golden is not scored with are not compared. Raises `StoreError` if the run is not complete or the golden
    damaged, `ConfigError` for a minimum that is not a share.
    """
    if not 0 <= minimum < 1:
        raise ConfigError(f"--minimum {minimum}: give a share of the score from 0 to 1, e.g. {MINIMUM} for a quarter %")
    new, old = finished(run, whole=False), read_golden(golden)
    texts = {row.instance: row.reference for row in new.predictions}
    wanted = {row.instance: row.reference for row in old.predictions}
    shared = [instance for instance in wanted if instance in texts]
    if more := len(texts) - len(shared):
        say(f"golden {old.name}: {more} instances of the run are not in it and take no part")
    findings = [
        *named("missing in the run", [name for name in wanted if name not in texts]),
        *named("with another reference than the golden's", [name for name in shared if texts[name] != wanted[name]]),
        *changed_signatures(old.summary.signatures, new.summary.signatures),
        *foreign_rows(new, old.metrics),
        *_lost_scores(old, new),
        *_large_changes(old, new, shared, minimum, say),
    ]
    return [f"against golden {old.name}: {finding}" for finding in findings]


def _large_changes(
    golden: FinishedRun, run: FinishedRun, shared: Sequence[str], minimum: float, say: Say
) -> Iterator[str]:
    """The changes that are larger than chance explains and than `minimum`."""
    # No p is asked for, so one flip is enough.
    changes = [_Change(pair) for pair in differences(golden, run, flips=1)]
    if not changes:
        return
    allowed = errors_allowed(len(changes), _fewest_users(golden, shared))
    say(
        f"golden {golden.name}: {len(changes)} scores of {len(shared)} instances compared. One score alone passes "
        f"2 standard errors by chance 1 time in 20; a change counts beyond {allowed:.1f}, which all together "
        f"should pass by chance 1 time in {1 / (1 - FAMILY_LEVEL):,.0f}, and beyond {minimum:.2%} of the score"
    )
    say(f"farthest from chance: {max(changes, key=lambda change: abs(change.errors))}")
    for change in changes:
        if abs(change.errors) > allowed and abs(change.relative) > minimum:
            yield f"{change}: more than chance explains ({allowed:.1f} standard errors)"


def errors_allowed(comparisons: int, users: int) -> float:
    """How many standard errors a change may be large. A run is compared in every score of every category, and one
    beyond its interval is enough to fail; so the interval of each holds at 1 - (1 - FAMILY_LEVEL) / comparisons
    (Bonferroni). Student's t with users - 1 degrees of freedom, since the standard error comes from so few users; not
    a percentile interval, as 1000 resamples do not reach so far out. Infinite for a single user."""
    from scipy.special import stdtrit

    if users < 2:
        return math.inf
    return float(stdtrit(users - 1, 1 - (1 - FAMILY_LEVEL) / comparisons / 2))


def _lost_scores(golden: FinishedRun, run: FinishedRun) -> Iterator[str]:
    """Scores that a run does not have though it is scored with their metrics: they give none for its texts."""
    for category, scores in run.summary.scores.items():
        for column in golden.summary.scores.get(category, {}):
            if column in run.columns and column not in scores:
                metric, _ = run.columns[column]
                yield f"{metric}: {category} has no {column}, which the golden has"


def _fewest_users(golden: FinishedRun, shared: Sequence[str]) -> int:
    """The users of the category that has the fewest."""
    chosen = set(shared)
    users: dict[str, set[str]] = {}
    for row in golden.predictions:
        if row.instance in chosen:
            users.setdefault(row.category, set()).add(row.user)
    return min(map(len, users.values()))
