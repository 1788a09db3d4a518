"""ROUGE against rouge_score, by hand, and its longest common subsequence against the textbook table."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import registry
from bench.batch import Batch
from bench.errors import DataError
from bench.metrics.rouge import Rouge, lcs_length


def test_equals_rouge_score(pairs: list[tuple[str, str]]) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    scores = [scorer.score(reference, prediction.strip()) for prediction, reference in pairs]
    expected = [(score["rouge1"].fmeasure, score["rougeL"].fmeasure) for score in scores]
    rows = Rouge().rows(Batch([p for p, _ in pairs], [r for _, r in pairs]))
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-9)
    assert rows.shape == (len(pairs), 2)
    assert 0.1 < rows[:, 0].mean() < 0.9


def test_by_hand() -> None:
    rows = Rouge().rows(Batch(["b a", "The cat sat.", "the THE the"], ["a b", "the cat ate the mouse", "the end"]))
    # Order matters to L only; 2 of 3 and 2 of 5; one "the" counts once, 1 of 3 and 1 of 2.
    np.testing.assert_allclose(rows, [[1.0, 0.5], [0.5, 0.5], [0.4, 0.4]], atol=1e-12)


@pytest.mark.parametrize("empty", ["", " \n", "!?", "\U0001f600", "\ud800"])
def test_a_text_without_tokens_scores_0(empty: str) -> None:
    assert Rouge().rows(Batch([empty, "word", empty], ["word", empty, empty])).tolist() == [[0, 0]] * 3


def _table(first: list[int], second: list[int]) -> int:
    @cache
    def best(i: int, j: int) -> int:
        if i == len(first) or j == len(second):
            return 0
        if first[i] == second[j]:
            return 1 + best(i + 1, j + 1)
        return max(best(i + 1, j), best(i, j + 1))

    return best(0, 0)


@given(st.lists(st.integers(0, 6), max_size=90), st.lists(st.integers(0, 6), max_size=90))
def test_lcs_equals_the_table(first: list[int], second: list[int]) -> None:
    assert lcs_length([str(x) for x in first], [str(x) for x in second]) == _table(first, second)


def test_bootstrap_median_equals_rouge_score(pairs: list[tuple[str, str]]) -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.scoring import BootstrapAggregator

    some = pairs[:60]
    scorer, aggregator = RougeScorer(["rouge1", "rougeL"]), BootstrapAggregator()
    for prediction, reference in some:
        aggregator.add_scores(scorer.score(reference, prediction))
    np.random.seed(5)  # the package draws from the global generator
    expected = aggregator.aggregate()

    metric = Rouge(average="bootstrap_median", seed=5)
    rows = metric.rows(Batch([p for p, _ in some], [r for _, r in some]))
    scores = metric.aggregate(rows)
    for column in (column.name for column in metric.columns):
        assert scores[column].shape == ()
        assert scores[column] == pytest.approx(expected[column].mid.fmeasure, abs=1e-12)
        assert scores[column] != Rouge(average="bootstrap_median", seed=6).aggregate(rows)[column]
        assert scores[column] == pytest.approx(Rouge().aggregate(rows)[column], abs=0.01)


@pytest.mark.parametrize("count", [1, 7, 60, 300])
def test_official_equals_the_evaluation_script_to_the_last_digit(count: int, pairs: list[tuple[str, str]]) -> None:
    """All four types that the script asks for, in its order, from the seed that it sets; no tolerance."""
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.scoring import BootstrapAggregator

    some = pairs[:count]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=False)
    aggregator = BootstrapAggregator()
    for prediction, reference in some:
        aggregator.add_scores(scorer.score(reference, prediction))
    np.random.seed(42)
    expected = aggregator.aggregate()
    metric = registry.create("metrics", "rouge", {}, "official")
    scores = metric.aggregate(metric.rows(Batch([p for p, _ in some], [r for _, r in some])))
    assert {name: float(value) for name, value in scores.items()} == {
        name: float(expected[name].mid.fmeasure) for name in ("rouge1", "rougeL")
    }


def test_the_draws_of_rouge_2_are_felt_in_rouge_l_alone(pairs: list[tuple[str, str]]) -> None:
    rows = Rouge().rows(Batch([p for p, _ in pairs], [r for _, r in pairs]))
    without, passed = (Rouge("bootstrap_median", 42, draws).aggregate(rows) for draws in (False, True))
    assert without["rouge1"] == passed["rouge1"]
    assert without["rougeL"] != passed["rougeL"]


@pytest.mark.parametrize("metric", [Rouge(), Rouge(average="bootstrap_median")])
def test_weights_count_rows(metric: Rouge) -> None:
    rows = np.array([[0.0, 0.25], [1.0, 0.5], [0.5, 1.0]])
    weights = np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]])
    scores = metric.aggregate(rows, weights)
    np.testing.assert_allclose(scores["rouge1"], [0.5, 0.5 / 3])
    np.testing.assert_allclose(scores["rougeL"], [1.75 / 3, 0.5])


def test_a_note_says_which_references_it_can_hardly_read() -> None:
    read = ["Plain words, 10/10!", "d\u00e9j\u00e0 vu au caf\u00e9", "\u6211 like it a lot"]
    assert Rouge().note(read) == ""
    hardly = [
        "\u6211\u975e\u5e38\u559c\u6b22 DVD",
        "\u041e\u0447\u0435\u043d\u044c \u0445\u043e\u0440\u043e\u0448\u043e",
        "\U0001f600",
        "...",
    ]
    note = Rouge().note([*read, *hardly])
    assert note.startswith("rouge: 4 of 7 references are mostly not in the letters a-z and the digits 0-9, all")
    assert "; 3 hold none of these: their ROUGE is 0 by definition." in note
    assert not Rouge().rows(Batch(hardly[1:], hardly[1:])).any()


def test_nothing_to_aggregate_is_an_error() -> None:
    rows = Rouge().rows(Batch([], []))
    assert rows.shape == (0, 2)
    for metric in (Rouge(), Rouge(average="bootstrap_median")):
        with pytest.raises(DataError, match="rouge: there are no rows to aggregate"):
            metric.aggregate(rows)
    with pytest.raises(DataError, match="gives every row the weight 0"):
        Rouge().aggregate(np.ones((2, 2)), np.array([[1.0, 1.0], [0.0, 0.0]]))


def test_the_signature_names_the_options() -> None:
    assert Rouge().signature() == "rouge|types:rouge1,rougeL|score:f|stem:no|avg:mean|like:rouge_score-0.1.2"
    assert "avg:bootstrap_median[1000,seed:3]" in Rouge(average="bootstrap_median", seed=3).signature()
    official = registry.create("metrics", "rouge", {}, "official")
    assert "avg:bootstrap_median[1000,seed:42,draws:rouge2]" in official.signature()
