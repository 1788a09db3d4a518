"""Copy rate and longest copied run: by hand, and the run against the textbook table."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.batch import Background, Batch
from bench.metrics.copying import Copying, longest_run

Made = Callable[..., Background]
HISTORY = ["I read it twice. Could not put it down!", "Down it went, and I slept."]


def test_by_hand(background_with: Made) -> None:
    texts = [
        "i READ it twice - could not put the cat down",  # up to "put": 4 of 7 four-grams, 7 of 10 words
        "put it down. Down it went",  # 0 of 3: no run crosses from one review into the next; 3 of 6 words
        "slept I, and",  # no four-gram, one word
        "",
    ]
    rows = Copying(n=4).rows(Batch(texts, ["I read it twice"] * 4, lambda: background_with([HISTORY] * 4)))
    assert rows.tolist() == [[4, 7, 0.7], [0, 3, 0.5], [0, 0, 1 / 3], [0, 0, 0]]
    scores = Copying(n=4).aggregate(rows)
    assert scores["copy_rate"] == pytest.approx(0.4)
    assert scores["copied_run"] == pytest.approx((0.7 + 0.5 + 1 / 3) / 4)


def test_each_text_is_held_against_its_own_user_and_all_of_the_profile(background_with: Made) -> None:
    text = "and then it sank in the pond behind our house"
    rows = Copying().rows(
        Batch([text] * 3, [""] * 3, lambda: background_with([["No.", text, "Yes."], ["other words"], []]))
    )
    assert rows.tolist() == [[6, 6, 1], [0, 6, 0], [0, 6, 0]]


def test_texts_too_short_for_an_n_gram_copy_none() -> None:
    assert Copying().aggregate(np.array([[0.0, 0.0, 1.0]])) == {"copy_rate": 0.0, "copied_run": 1.0}


@given(
    st.lists(st.sampled_from(["a", "b", "aa"]), max_size=12),
    st.lists(st.lists(st.sampled_from(["a", "b", "aa"]), max_size=12), max_size=3),
)
def test_longest_run_equals_the_table(text: list[str], history: list[list[str]]) -> None:
    def table(first: list[str], second: list[str]) -> int:
        @cache
        def ending(i: int, j: int) -> int:
            return 1 + ending(i - 1, j - 1) if i and j and first[i - 1] == second[j - 1] else 0

        return max((ending(i, j) for i in range(len(first) + 1) for j in range(len(second) + 1)), default=0)

    assert longest_run(text, history) == max((table(text, review) for review in history), default=0)


def test_the_signature_names_the_option() -> None:
    assert Copying(n=3).signature().startswith("copying|n:3|from:profile|rate:corpus|run:mean|words:")
