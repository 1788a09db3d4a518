"""BLEU against sacreBLEU, on the corpus and on resamples of it, and by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from bench.batch import Batch
from bench.errors import DataError
from bench.metrics.bleu import Bleu


def test_equals_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    metric, reference_metric = Bleu(), BLEU()
    for chosen in (pairs, pairs[:50], pairs[180:200], pairs[-150:-110]):
        predictions, references = [p.strip() for p, _ in chosen], [r for _, r in chosen]
        expected = reference_metric.corpus_score(predictions, [references])
        rows = metric.rows(Batch([p for p, _ in chosen], references))
        score = metric.aggregate(rows)["bleu"]
        assert score.shape == ()
        assert score == pytest.approx(expected.score, abs=1e-9)
        assert rows.sum(axis=0).tolist() == [*expected.counts, *expected.totals, expected.sys_len, expected.ref_len]
    assert metric.signature() == f"bleu|{reference_metric.get_signature()}"


def test_equals_sacrebleu_pair_by_pair(pairs: list[tuple[str, str]]) -> None:
    rows = Bleu().rows(Batch([p for p, _ in pairs], [r for _, r in pairs]))
    scores = Bleu().aggregate(rows, np.eye(len(pairs)))["bleu"]
    expected = [BLEU().corpus_score([prediction.strip()], [[reference]]).score for prediction, reference in pairs]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-9)
    assert min(expected) == 0 < max(expected)


WORDS = st.sampled_from(["a", "b", "c", "the", "cat.", "1,5", "don't"])
TEXT = st.lists(WORDS, max_size=9).map(" ".join)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_a_resample_equals_sacrebleu_on_the_resampled_texts(texts: list[tuple[str, str]], seed: int) -> None:
    random_ = random.Random(seed)
    rows = Bleu().rows(Batch([p for p, _ in texts], [r for _, r in texts]))
    draws = [[random_.randrange(len(texts)) for _ in texts] for _ in range(5)]
    weights = np.array([[draw.count(i) for i in range(len(texts))] for draw in draws], dtype=float)
    expected = [BLEU().corpus_score([texts[i][0] for i in draw], [[texts[i][1] for i in draw]]).score for draw in draws]
    np.testing.assert_allclose(Bleu().aggregate(rows, weights)["bleu"], expected, rtol=0, atol=1e-9)


def test_by_hand() -> None:
    metric = Bleu()
    rows = metric.rows(Batch(["a b c d x"], ["a b c d e"]))
    assert rows.tolist() == [[4, 3, 2, 1, 5, 4, 3, 2, 5, 5]]
    assert metric.aggregate(rows)["bleu"] == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    # Orders 3 and 4 miss: 1/2 and 1/4 of a match; one token too short: brevity exp(1 - 6/5).
    rows = metric.rows(Batch(["a b x c y"], ["a b c d e f"]))
    smoothed = (3 / 5 * 1 / 4 * (1 / 2) / 3 * (1 / 4) / 2) ** 0.25
    assert metric.aggregate(rows)["bleu"] == pytest.approx(100 * math.exp(1 - 6 / 5) * smoothed)


def test_an_empty_prediction_counts_against_the_corpus() -> None:
    metric = Bleu()
    rows = metric.rows(Batch(["", "a b c d e"], ["one two three", "a b c d e"]))
    assert rows[0].tolist() == [0] * 9 + [3]
    assert metric.aggregate(rows[:1])["bleu"] == 0
    assert metric.aggregate(rows)["bleu"] == pytest.approx(100 * math.exp(1 - 8 / 5))


def test_nothing_to_aggregate_is_an_error() -> None:
    rows = Bleu().rows(Batch([], []))
    assert rows.shape == (0, 10)
    with pytest.raises(DataError, match="bleu: there are no rows to aggregate"):
        Bleu().aggregate(rows)


def test_statistics_name_the_entries_of_a_row() -> None:
    assert len(Bleu.statistics) == 10
    assert Bleu.statistics[0] == "correct1"
    assert Bleu.statistics[-2:] == ("sys_len", "ref_len")
