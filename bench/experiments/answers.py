"""What the rows of a table tell of each other: verdicts on finished runs, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import DataError
from bench.experiments.spec import AnswerSpec, Experiment
from bench.protocols import Column
from bench.verdict import LEVEL, Sides, Verdict, decide

if TYPE_CHECKING:
    from bench.experiments.scores import RowRuns


def answers_of(experiment: Experiment, rows: Sequence[RowRuns], instances: Sequence[str]) -> list[str]:
    """A sentence for each answer that an experiment asks for, under each configuration, and what they promise; none
    where it asks for none. `rows` have runs, which have all `instances`. What the rows cannot answer is left out."""
    said, verdicts = [], []
    models = list(dict.fromkeys(row.model for row in rows))
    for model in models:
        of_model = [row for row in rows if row.model == model]
        for spec in experiment.answers:
            if answer := _answer(spec, experiment.columns, of_model, instances):
                sentence, verdict, group = answer
                said.append(f"{group}: {sentence}" if len(models) > 1 else sentence)
                verdicts.append(verdict)
    if not said:
        return []
    claim = (
        f"Paired over the {verdicts[0].users} users of all categories as one sample. For each sentence the chance that "
        f"any difference it claims is not there is at most {LEVEL:.0%}: sign-flip tests, p adjusted for its scores "
        "(Holm) and, because the best was found on the same instances, for how many rows it was chosen from."
    )
    limits = (line for verdict in verdicts if not verdict.all_shown for line in verdict.limits)
    return [*said, claim, *dict.fromkeys(limits)]


def _answer(
    spec: AnswerSpec, names: Sequence[str], rows: Sequence[RowRuns], instances: Sequence[str]
) -> tuple[str, Verdict, str] | None:
    """The sentence, its verdict and the group of the row that it is about."""
    labels = {row.spec.label: row for row in rows}
    if spec.against not in labels or spec.row not in (None, *labels):
        return None
    against = labels[spec.against]
    if spec.row is not None:
        candidates = [labels[spec.row]]
    else:
        candidates = [row for row in rows if row.group.ranked and row is not against]
    columns = [
        column
        for column in (against.finished[0].columns[name][1] for name in names)
        if column.better and all(_has_score(row, column, instances) for row in (against, *candidates))
    ]
    if not candidates or not columns:
        return None
    by = columns[0]
    best = max if by.better == "higher" else min
    row = best(candidates, key=lambda row: _score(row, by, instances))
    verdict = _verdict(row, against, columns, instances, len(candidates))
    label = row.spec.label
    if spec.row is None:
        label += f" (the best of {', '.join(one.spec.label for one in candidates)} by {by.head})"
    return verdict.words(against.spec.label, label), verdict, row.group.name


def _score(row: RowRuns, column: Column, instances: Sequence[str]) -> float:
    """A row's score of all instances as one sample, the mean over its seeds. Raises `DataError` where there is none."""
    rows, aggregate = row.scored(column.name, instances, pooled=True)
    return float(aggregate(rows, np.ones((1, len(rows))))[column.name][0])


def _has_score(row: RowRuns, column: Column, instances: Sequence[str]) -> bool:
    try:
        _score(row, column, instances)
    except DataError:
        return False
    return True


def _verdict(
    row: RowRuns, against: RowRuns, columns: Sequence[Column], instances: Sequence[str], among: int
) -> Verdict:
    sides = []
    for column in columns:
        (rows_a, _), (rows_b, aggregate) = (one.scored(column.name, instances, pooled=True) for one in (against, row))
        sides.append(Sides([column], aggregate, rows_a, rows_b))
    users = [row.users[instance] for instance in instances]
    return decide(sides, users, among=among, resamples=row.config.resamples)
