"""The two searches that make a prompt fit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.prompting import fitting, longest_prefix


@given(offered=st.integers(0, 40), limit=st.integers(0, 45), guesses=st.lists(st.integers(-2, 50), max_size=4))
def test_fitting_is_the_largest_that_fits(offered: int, limit: int, guesses: list[int]) -> None:
    probes: list[int] = []

    def fits(n: int) -> bool:
        probes.append(n)
        return n <= limit

    waiting = [*guesses, 0, 0, 0, 0]
    assert fitting(offered, fits, lambda: waiting.pop(0)) == min(offered, limit)
    assert len(probes) <= 4 + 6
    assert len(set(probes)) == len(probes)


def test_of_good_guesses_two_are_enough() -> None:
    probes: list[int] = []

    def fits(n: int) -> bool:
        probes.append(n)
        return n <= 5

    assert fitting(128, fits, lambda: 5) == 5
    assert probes == [5, 6]


@given(text=st.text(alphabet="ab ", max_size=30), limit=st.integers(0, 35))
def test_longest_prefix_is_the_longest_of_whole_words(text: str, limit: int) -> None:
    found = longest_prefix(text, lambda prefix: len(prefix) <= limit)
    assert text.startswith(found)
    assert len(found) <= limit
    if len(text) <= limit:
        assert found == text
    elif " " in text[:limit]:
        whole = [i for i in range(limit + 1) if text[i] == " "]
        assert len(found) == max(whole)


def test_longest_prefix_by_hand() -> None:
    assert longest_prefix("one two three", lambda p: len(p) <= 7) == "one two"
    assert longest_prefix("one two three", lambda p: len(p) <= 9) == "one two"
    assert longest_prefix("abcdef", lambda p: len(p) <= 4) == "abcd"
    assert longest_prefix("one two", lambda _: False) == ""


def test_longest_prefix_fits_even_where_fitting_is_not_monotone() -> None:
    # "one two" alone takes more than "one two t": a shorter text is not always cheaper.
    refused = {"one two"}
    assert longest_prefix("one two three four", lambda p: len(p) <= 9 and p not in refused) == "one"
