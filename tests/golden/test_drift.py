"""A run against its golden: what is no drift, and that each planted change is told by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from bench import drift
from bench.batch import Batch
from bench.errors import ConfigError, StoreError
from bench.finished import finished
from bench.registry import create
from bench.scoring import text_hash

NAME = "demo-rag-recency"

Row = dict[str, Any]
Rewrite = Callable[[Path, Callable[[Any], Any]], None]
Sign = Callable[[Path, str, str], None]


def instances(folder: Path) -> list[str]:
    return [row.instance for row in finished(folder).predictions]


def silent(text: str) -> None:
    pass


def swap(rows: list[Row]) -> None:
    rows[1]["prediction"], rows[4]["prediction"] = rows[4]["prediction"], rows[1]["prediction"]


def rewrite_reference(rows: list[Row]) -> None:
    rows[2]["reference"] += " Indeed."


def check(run: Path, golden: Path, minimum: float = drift.MINIMUM) -> list[str]:
    return [
        finding.removeprefix(f"against golden {NAME}: ") for finding in drift.check_run(run, golden, silent, minimum)
    ]


def test_the_same_run_is_green_and_what_was_compared_is_said(run: Path, golden: Path) -> None:
    said: list[str] = []
    assert drift.check_run(run, golden, said.append) == []
    assert f"golden {NAME}: 9 scores of {len(instances(run))} instances compared." in said[0]
    assert "a change counts beyond 5." in said[0]
    assert "1 time in 10,000, and beyond 0.25% of the score" in said[0]


def scale(rewrite: Rewrite, run: Path, metric: str, entries: slice, factor: float) -> None:
    def change(rows: list[Row]) -> None:
        for row in rows:
            if row["metric"] == metric:
                row["statistics"][entries] = (np.array(row["statistics"][entries]) * factor).tolist()

    rewrite(run / "scores.jsonl", change)


@pytest.mark.parametrize(
    ("metric", "entries", "column"),
    # Of BLEU's statistics the first four are the matches: more of them make the score that much higher.
    [("rouge", slice(0, 1), "rouge1"), ("rouge", slice(1, 2), "rougeL"), ("bleu", slice(0, 4), "bleu")],
)
def test_half_a_percent_in_one_metric_is_told(
    run: Path, golden: Path, rewrite: Rewrite, metric: str, entries: slice, column: str
) -> None:
    scale(rewrite, run, metric, entries, 1.005)
    findings = check(run, golden)
    assert findings
    for finding in findings:
        category = finding.split()[0]
        score = finished(golden).summary.scores[category][column].value
        assert finding.startswith(f"{category} {column} {score:.4f} -> {score * 1.005:.4f} (+0.50%, +")
        assert "standard errors, better): more than chance explains" in finding


def score_with(rewrite: Rewrite, name: str, *folders: Path) -> None:
    """Add a metric to what runs are scored with."""
    metric = create("metrics", name, {})
    signature = metric.signature()
    for folder in folders:
        predictions = finished(folder).predictions
        pairs = Batch([row.prediction for row in predictions], [row.reference for row in predictions])
        rows = [
            {
                "instance": row.instance,
                "metric": name,
                "signature": signature,
                "texts": text_hash(row),
                "statistics": statistics,
            }
            for row, statistics in zip(predictions, metric.rows(pairs).tolist(), strict=True)
        ]
        rewrite(folder / "scores.jsonl", lambda old, new=rows: [*old, *new])
        rewrite(folder / "summary.json", lambda summary: summary["signatures"].update({name: signature}))


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(("factor", "verdict"), [(1.1, "worse"), (0.9, "better")])
def test_where_lower_is_better_more_is_worse(
    run: Path, golden: Path, rewrite: Rewrite, factor: float, verdict: str
) -> None:
    """The example's `size`: the shorter the better."""
    score_with(rewrite, "size", run, golden)
    scale(rewrite, run, "size", slice(0, 1), factor)
    findings = check(run, golden)
    assert [finding.split()[1] for finding in findings] == ["size"] * 3
    for finding in findings:
        assert f"({factor - 1:+.2%}, " in finding
        assert f" standard errors, {verdict}): more than chance explains" in finding


def test_a_score_that_is_neither_good_nor_bad_has_no_verdict(run: Path, golden: Path, rewrite: Rewrite) -> None:
    score_with(rewrite, "length", run, golden)
    scale(rewrite, run, "length", slice(0, 1), 1.1)
    ratios = [finding for finding in check(run, golden) if finding.split()[1] == "length_ratio"]
    assert len(ratios) == 3
    assert all(" standard errors): more than chance explains" in finding for finding in ratios)


def test_a_change_below_the_minimum_is_no_finding(run: Path, golden: Path, rewrite: Rewrite) -> None:
    scale(rewrite, run, "rouge", slice(0, 1), 0.998)
    assert check(run, golden) == []
    assert len(check(run, golden, minimum=0.0015)) == 3


def test_a_change_within_chance_is_no_finding(run: Path, golden: Path, rewrite: Rewrite) -> None:
    """Half of the texts better by a tenth and half as much worse, but for one: larger than the minimum, not certain."""

    def change(rows: list[Row]) -> None:
        chosen = [row for row in rows if row["metric"] == "rouge"]
        for number, row in enumerate(chosen):
            row["statistics"][0] *= 1.1 if number % 2 else 0.9

    rewrite(run / "scores.jsonl", change)
    said: list[str] = []
    assert drift.check_run(run, golden, said.append, minimum=0) == []
    assert "+0.0 standard errors" not in said[1]


def test_a_changed_signature_is_told(run: Path, golden: Path, rewrite: Rewrite, sign: Sign) -> None:
    sign(run, "stem:no", "stem:porter")
    scale(rewrite, run, "rouge", slice(0, 2), 2.0)
    (finding,) = check(run, golden)
    assert finding.startswith("rouge: the signature changed: stem:no -> stem:porter (was rouge|types"), (
        "scores under other signatures are not compared"
    )


def test_a_metric_that_was_not_scored_is_told(run: Path, golden: Path, rewrite: Rewrite) -> None:
    rewrite(run / "summary.json", lambda summary: summary["signatures"].__delitem__("bleu"))
    assert check(run, golden) == ["bleu: there are no scores of it, only rouge"]


def test_a_score_that_its_metric_does_not_give_is_told(run: Path, golden: Path, rewrite: Rewrite) -> None:
    rewrite(run / "summary.json", lambda summary: summary["scores"]["Books"].__delitem__("bleu"))
    assert check(run, golden) == ["bleu: Books has no bleu, which the golden has"]


def test_missing_instances_are_named_and_more_take_no_part(run: Path, golden: Path, rewrite: Rewrite) -> None:
    names = instances(golden)

    def change(rows: list[Row]) -> None:
        rows[7]["instance"] = "Books/test/NOBODY"

    rewrite(run / "predictions.jsonl", change)
    rewrite(run / "scores.jsonl", lambda rows: [*rows, *({**row, "instance": "Books/test/NOBODY"} for row in rows)])
    found = check(run, golden)
    assert found[0] == f"instances missing in the run: {names[7]}"
    assert not [line for line in found if "unknown" in line]
    rewrite(run / "predictions.jsonl", lambda rows: rows[9:])
    first, *_ = check(run, golden)
    assert first == f"instances missing in the run: {', '.join(names[:5])} and 4 more"


def test_one_missing_instance_is_all_that_is_told(run: Path, golden: Path, rewrite: Rewrite) -> None:
    rewrite(run / "predictions.jsonl", lambda rows: rows[:-1])
    assert check(run, golden) == [f"instances missing in the run: {instances(golden)[-1]}"]


def test_swapped_predictions_do_not_fit_their_scores(run: Path, golden: Path, rewrite: Rewrite) -> None:
    rewrite(run / "predictions.jsonl", swap)
    names = instances(run)
    assert check(run, golden) == [
        f"instances whose stored scores were not made from the texts in predictions.jsonl: {names[1]}, {names[4]}"
    ]


def test_a_reference_that_is_not_the_goldens_is_told(run: Path, golden: Path, rewrite: Rewrite) -> None:
    rewrite(run / "predictions.jsonl", rewrite_reference)
    assert check(run, golden)[0] == f"instances with another reference than the golden's: {instances(golden)[2]}"


def test_a_run_that_is_not_complete_is_no_drift(run: Path, golden: Path) -> None:
    (run / "summary.json").unlink()
    with pytest.raises(StoreError, match="is not complete"):
        check(run, golden)


def test_a_minimum_in_percent_is_refused(run: Path, golden: Path) -> None:
    with pytest.raises(ConfigError, match="--minimum 25: give a share"):
        check(run, golden, minimum=25)


def test_the_errors_allowed_are_students_for_the_whole_family() -> None:
    for comparisons, users in ((1, 40), (48, 32), (15, 168)):
        tail = scipy.stats.t.sf(drift.errors_allowed(comparisons, users), users - 1)
        assert 2 * tail * comparisons == pytest.approx(0.0001)
    assert drift.errors_allowed(3, 1) == np.inf
