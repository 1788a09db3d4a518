"""Distinct-n, and the words it counts, by hand."""

from __future__ import annotations

import pytest

from bench.batch import Batch
from bench.metrics._ngrams import ngrams, words
from bench.metrics.distinct import Distinct


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" ?! ... \U0001f600 _ ", []),
        ("Don't, DON\u2019T \u2018quote\u2019 'it'", ["don't", "don't", "quote", "it"]),
        ("Caf\u00e9 stra\u00dfe \u041a\u0438\u043d\u043e 10/10 well-known a_b",
         ["caf\u00e9", "stra\u00dfe", "\u043a\u0438\u043d\u043e", "10", "10", "well", "known", "a", "b"]),
        ("it''s", ["it", "s"]),
    ],
)  # fmt: skip
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_ngrams() -> None:
    assert ngrams(["a", "b", "a"], 2) == [("a", "b"), ("b", "a")]
    assert ngrams(["a"], 2) == []


def test_by_hand() -> None:
    rows = Distinct().rows(Batch(["the cat, the CAT the dog", "one", " !", "a b c"], ["", "one one", "x", "a a"]))
    # 3 of 6 words; the-cat, cat-the, the-dog of 5 pairs. One word has no pair, and a mark is no word.
    assert rows.tolist() == [[0.5, 0.6], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]
    scores = Distinct().aggregate(rows)
    assert (scores["distinct1"], scores["distinct2"]) == (pytest.approx(0.625), pytest.approx(0.4))


def test_the_signature_says_that_it_is_within_texts() -> None:
    assert Distinct().signature().startswith("distinct|n:1,2|within:text|avg:mean|words:")
