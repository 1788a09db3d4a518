"""The numeric core against cases done by hand."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest

from bench.data import kcore


def codes(*values: int) -> kcore.Codes:
    return np.array(values, dtype=np.int64)


def texts_of(*values: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    return np.array(values, dtype=np.uint64)


def core(
    rows: list[tuple[int, int, int, int]], item_users: int, low: int, high: int, extra: tuple[int, ...] = ()
) -> tuple[list[int], int]:
    """`joint_core` of rows of user, item, time and text."""
    users, items, times, texts = (codes(*column) for column in zip(*rows, strict=True))
    repeats = np.union1d(kcore.repeats(users, texts.astype(np.uint64)), codes(*extra))
    limits = (low, high)
    found, passes, fallen = kcore.joint_core(users, items, times, texts.astype(np.uint64), repeats, item_users, limits)
    assert sum(fallen) == len(rows) - len(found), "each review falls once"
    return found.tolist(), passes


def grid(users: int, items: int) -> list[tuple[int, int, int, int]]:
    """Each user reviews each item once, each text once."""
    return [(user, item, item, user * items + item) for user in range(users) for item in range(items)]


def test_nothing_falls_from_a_full_grid() -> None:
    assert core(grid(3, 4), 3, 4, 4) == (list(range(12)), 1)


@pytest.mark.parametrize(("item_users", "low", "high"), [(4, 1, 9), (1, 5, 9), (1, 1, 3)])
def test_everything_falls_beyond_a_limit(item_users: int, low: int, high: int) -> None:
    assert core(grid(3, 4), item_users, low, high)[0] == []


def test_items_and_users_fall_in_one_pass_and_by_the_same_count() -> None:
    """Item 2 has too few users. User 2 has enough reviews until item 2 is gone: it falls a pass later."""
    rows = [*grid(2, 2), (2, 0, 0, 9), (2, 2, 0, 10)]
    assert core(rows, 2, 2, 9) == ([0, 1, 2, 3], 3)
    assert core(rows, 2, 1, 9) == ([0, 1, 2, 3, 4], 2)


def test_a_users_repeats_do_not_count_for_the_user_but_stay() -> None:
    """User 0 reviews item 0 twice and has one text twice, among others."""
    rows = [(0, 0, 1, 0), (0, 0, 2, 1), (0, 1, 3, 2), (0, 2, 4, 2), (0, 3, 5, 5)]
    assert core(rows, 1, 3, 3) == ([0, 1, 2, 3, 4], 1)
    assert core(rows, 1, 4, 9)[0] == []


def test_a_users_repeats_do_not_count_for_the_item() -> None:
    assert core([(0, 0, 1, 0), (0, 0, 2, 1)], 2, 1, 9)[0] == []
    assert core([(0, 0, 1, 0), (1, 0, 2, 0)], 2, 1, 9)[0] == [0, 1]


def test_equal_texts_of_two_users_are_no_repeats() -> None:
    assert core([(0, 0, 1, 7), (0, 1, 1, 8), (1, 0, 1, 7), (1, 1, 1, 8)], 2, 2, 2) == ([0, 1, 2, 3], 1)


def test_a_dropped_review_does_not_shadow_others() -> None:
    """Newest first: (0, X) stays; (0, Y) repeats the item; (1, Y) stays; (2, X) repeats the text; (2, Z) stays."""
    chain = [(0, 0), (0, 1), (1, 1), (2, 0), (2, 2)]
    rows = [(0, item, 9 - n, text) for n, (item, text) in enumerate(chain)]
    assert core(rows, 1, 3, 3) == ([0, 1, 2, 3, 4], 1)
    for low, high in ((4, 9), (1, 2)):
        assert core(rows, 1, low, high)[0] == []


def test_which_of_two_is_newer_decides() -> None:
    """Newest first (0, X), (0, Y), (1, X): one is left. With the middle one newest both it and the last one are."""
    assert core([(0, 0, 3, 0), (0, 0, 2, 1), (0, 1, 1, 0)], 1, 1, 1)[0] == [0, 1, 2]
    assert core([(0, 0, 2, 0), (0, 0, 3, 1), (0, 1, 1, 0)], 1, 2, 2)[0] == [0, 1, 2]
    assert core([(0, 0, 2, 0), (0, 0, 2, 1), (0, 1, 1, 0)], 1, 1, 1)[0] == [0, 1, 2], "of equal times the first"


def test_repeats_that_are_none_change_nothing() -> None:
    rows = [(0, 0, 1, 0), (0, 1, 2, 1), (0, 1, 3, 2), (1, 0, 1, 0), (1, 1, 1, 5)]
    assert core(rows, 2, 2, 2, extra=(0, 1, 3, 4)) == core(rows, 2, 2, 2) == ([0, 1, 2, 3, 4], 1)


def test_no_reviews_at_all() -> None:
    rows, passes, fallen = kcore.joint_core(codes(), codes(), codes(), texts_of(), codes(), 1, (1, 9))
    assert (rows.tolist(), passes, fallen) == ([], 1, (0, 0, 0))


def test_why_reviews_fall() -> None:
    """Item 9 has one user, user 2 one review then, user 1 three; what falls with its item is counted there."""
    users, items = codes(0, 0, 1, 1, 1, 2, 2), codes(0, 1, 0, 1, 2, 2, 9)
    texts = texts_of(*range(7))
    found = kcore.joint_core(users, items, codes(*range(7)), texts, codes(), 2, (2, 2))
    assert (found[0].tolist(), found[2]) == ([], (4, 0, 3))
    found = kcore.joint_core(users, items, codes(*range(7)), texts, codes(), 1, (3, 3))
    assert (found[0].tolist(), found[2]) == ([2, 3, 4], (0, 4, 0))


def test_the_core_of_the_histories() -> None:
    """Item 0 has two reviews in histories, one in inputs; without item 1 user 1 has too few, then item 2 has."""
    users = codes(0, 0, 0, 1, 1, 2, 2, 2)
    items = codes(0, 2, 3, 1, 2, 0, 3, 0)
    history = np.array([1, 1, 1, 1, 1, 1, 1, 0], dtype=np.bool_)
    found, fallen = kcore.history_core(users, items, history, 2, 2)
    assert fallen == (2, 1)
    assert found.tolist() == [True, False, True, False, False, True, True, False]
    assert history.sum() == 7, "the argument is left alone"


def test_the_core_of_the_histories_stops_when_no_user_falls() -> None:
    """The items of a user that stays are not counted anew: step 9 looks at the number of users alone."""
    users, items = codes(0, 0, 0, 1, 1, 1), codes(0, 1, 2, 0, 1, 3)
    history = np.ones(6, dtype=np.bool_)
    assert kcore.history_core(users, items, history, 2, 2)[0].tolist() == [True, True, False, True, True, False]


@pytest.mark.parametrize(
    ("by_item", "by_text", "kept"),
    [
        ([], [], []),
        ([0, 1, 2], [0, 1, 2], [0, 1, 2]),
        ([0, 0, 0], [0, 1, 2], [0]),
        ([0, 1, 2], [0, 0, 0], [0]),
        ([0, 0, 1, 2, 2], [0, 1, 1, 0, 2], [0, 2, 4]),
        ([0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 1, 2, 2, 3, 3, 0], [0, 2, 4, 6]),
    ],
)
def test_unrepeated(by_item: list[int], by_text: list[int], kept: list[int]) -> None:
    assert np.flatnonzero(kcore.unrepeated(codes(*by_item), codes(*by_text))).tolist() == kept


@pytest.mark.parametrize("seed", range(50))
def test_unrepeated_is_what_a_loop_gives(seed: int) -> None:
    rng = random.Random(seed)
    span = rng.choice([3, 10, 40])
    pairs = [(rng.randrange(span), rng.randrange(span)) for _ in range(rng.randrange(100))]
    kept: list[int] = []
    for n, (item, text) in enumerate(pairs):
        if all(item != pairs[m][0] and text != pairs[m][1] for m in kept):
            kept.append(n)
    found = kcore.unrepeated(codes(*(item for item, _ in pairs)), codes(*(text for _, text in pairs)))
    assert np.flatnonzero(found).tolist() == kept


def test_newest_first() -> None:
    order = kcore.newest_first(codes(1, 0, 1, 0, 1), codes(5, 7, 6, 8, 6))
    assert order.tolist() == [3, 1, 2, 4, 0]


def test_dense() -> None:
    assert kcore.dense(texts_of(2**63, 5, 2**63 + 1, 5)).tolist() == [1, 0, 2, 0]
    assert kcore.dense(codes(1, 0, 1, 0), codes(0, 2, 0, 1)).tolist() == [2, 1, 2, 0]
    assert kcore.dense(codes()).tolist() == []


def test_repeats_are_all_of_a_users_equal_texts() -> None:
    assert kcore.repeats(codes(0, 0, 1, 0, 1, 2), texts_of(5, 6, 5, 5, 7, 7)).tolist() == [0, 3]
    assert kcore.repeats(codes(), texts_of()).tolist() == []


def test_texts_are_told_apart() -> None:
    users, hashes = codes(0, 0, 0, 1, 1, 2), texts_of(5, 5, 5, 5, 5, 6)
    same = pl.Series(["a", "a", "a", "b", "b"])
    assert kcore.told_apart(users, hashes, codes(0, 1, 2, 3, 4), same) is None
    found = kcore.told_apart(users, hashes, codes(0, 1, 2, 3, 4), pl.Series(["a", "b", "a", "b", "b"]))
    assert found is not None
    assert found[0] == found[2] != found[1]
    assert found[3] == found[4]
    assert found[5] not in found[:5].tolist()
    assert kcore.told_apart(users, hashes, codes(), pl.Series([], dtype=pl.String)) is None
