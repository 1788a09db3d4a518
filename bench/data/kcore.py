"""The numeric core of DPL's steps 5 and 9, on integer codes of users, items and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars

Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]


def joint_core(
    users: Codes,
    items: Codes,
    times: Codes,
    texts: NDArray[np.uint64],
    repeats: Codes,
    item_users: int,
    reviews: tuple[int, int],
) -> tuple[Codes, int, tuple[int, int, int]]:
    """Step 5: the positions of the reviews that survive, ascending, how many passes it took, and how many reviews fell:
    with their item, with a user who has too few, and with one who has too many; whichever is first.

    All arrays but `repeats` have an entry a review, in the order of the file; `users` and `items` are codes 0..n-1;
    equal `texts` of a user are equal texts, and are at the positions `repeats`. An item needs `item_users` users; of a
    user, counted without repeats, at least `reviews[0]` and at most `reviews[1]` reviews are wanted. Rows fall by whole
    users and items only.
    """
    n_users, n_items = int(users.max(initial=-1)) + 1, int(items.max(initial=-1)) + 1
    pairs = users * n_items + items
    order = np.argsort(pairs, kind="stable")
    same = pairs[order[1:]] == pairs[order[:-1]]  # as the one before
    new_user = np.ones(len(pairs), dtype=np.bool_)
    new_user[order[1:][same]] = False
    # Only repeats need to be put in order.
    repeated = np.unique(np.concatenate([order[1:][same], order[:-1][same], repeats]))
    repeated = repeated[newest_first(users[repeated], times[repeated])]
    by_item, by_text = dense(pairs[repeated]), dense(users[repeated], dense(texts[repeated]))
    single = np.ones(len(users), dtype=np.bool_)
    single[repeated] = False
    rows = np.arange(len(users))
    passes, fallen = 0, (0, 0, 0)
    while True:
        chosen = repeated[unrepeated(by_item, by_text)]
        per_user = np.bincount(users[rows[single]], minlength=n_users) + np.bincount(users[chosen], minlength=n_users)
        per_item = np.bincount(items[rows[new_user]], minlength=n_items)
        enough, user_stays = per_user >= reviews[0], (per_user >= reviews[0]) & (per_user <= reviews[1])
        item_stays = per_item >= item_users
        of_item = item_stays[items[rows]]
        stays = of_item & user_stays[users[rows]]
        passes += 1
        if stays.all():
            return rows, passes, fallen
        few, left = of_item & ~enough[users[rows]], int(stays.sum())
        of_items, of_few = len(rows) - int(of_item.sum()), int(few.sum())
        fallen = fallen[0] + of_items, fallen[1] + of_few, fallen[2] + len(rows) - left - of_items - of_few
        rows, single, new_user = rows[stays], single[stays], new_user[stays]
        stays = item_stays[items[repeated]] & user_stays[users[repeated]]
        repeated, by_item, by_text = repeated[stays], by_item[stays], by_text[stays]


def history_core(
    users: Codes, items: Codes, history: Mask, item_users: int, user_reviews: int
) -> tuple[Mask, tuple[int, int]]:
    """Step 9: marks the history reviews that survive, of those that `history` marks, and how many fell with their item
    and with their user; an item needs `item_users` reviews in the histories, a user `user_reviews`."""
    alive, of_items = history.copy(), 0
    left = int(users.max()) + 1
    while True:
        per_item = np.bincount(items[alive], minlength=int(items.max()) + 1)
        there = int(alive.sum())
        alive &= (per_item >= item_users)[items]
        of_items += there - int(alive.sum())
        per_user = np.bincount(users[alive], minlength=int(users.max()) + 1)
        alive &= (per_user >= user_reviews)[users]
        before, left = left, int((per_user >= user_reviews).sum())
        if left == before:
            return alive, (of_items, int(history.sum()) - int(alive.sum()) - of_items)


def unrepeated(by_item: Codes, by_text: Codes) -> Mask:
    """Marks the reviews that stay when a review is dropped if an earlier one *that stays* has the same code.

    What a dropped review holds does not count, so the two codes cannot be treated one after the other: each round
    keeps what comes first in both its groups and drops the rest of these groups.
    """
    kept = np.zeros(len(by_item), dtype=np.bool_)
    item_taken = np.zeros(int(by_item.max(initial=-1)) + 1, dtype=np.bool_)
    text_taken = np.zeros(int(by_text.max(initial=-1)) + 1, dtype=np.bool_)
    undecided = np.arange(len(by_item))
    while undecided.size:
        chosen = undecided[_is_first(by_item[undecided]) & _is_first(by_text[undecided])]
        kept[chosen] = True
        item_taken[by_item[chosen]] = True
        text_taken[by_text[chosen]] = True
        undecided = undecided[~(item_taken[by_item[undecided]] | text_taken[by_text[undecided]])]
    return kept


def newest_first(users: Codes, times: Codes) -> Codes:
    """The order by user, then newest first; equal times keep their order."""
    return cast(Codes, np.lexsort((-times, users)))


def dense(*columns: NDArray[np.int64] | NDArray[np.uint64]) -> Codes:
    """Codes 0..n-1, one for each distinct row of `columns`, which, if several, hold codes 0..n-1."""
    codes = columns[0]
    for column in columns[1:]:
        codes = codes * (int(column.max(initial=0)) + 1) + column
    return cast(Codes, np.unique(codes, return_inverse=True)[1].astype(np.int64, copy=False))


def repeats(users: Codes, texts: NDArray[np.uint64]) -> Codes:
    """The positions, ascending, of the reviews whose text's code their user has more than once (and, by chance, of a
    few others)."""
    import polars as pl

    return np.flatnonzero(pl.Series(mixed(users, texts)).is_duplicated().to_numpy())


def told_apart(
    users: Codes, hashes: NDArray[np.uint64], positions: Codes, texts: polars.Series
) -> NDArray[np.uint64] | None:
    """Codes that are equal for a user only where the texts are, or None if the hashes are such codes already.
    `texts` are those at `positions`, which are the `repeats` of the hashes."""
    import polars as pl

    frame = pl.DataFrame({"user": users[positions], "hash": hashes[positions], "text": texts})
    if frame.group_by("user", "hash").agg(pl.col("text").n_unique())["text"].max() in (None, 1):
        return None
    codes = dense(hashes)
    codes[positions] = len(hashes) + dense(frame["text"].rank("dense").to_numpy().astype(np.int64))
    return codes.astype(np.uint64)


def mixed(users: Codes, texts: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A number for each pair of user and text: equal for equal pairs, seldom for others."""
    return cast(NDArray[np.uint64], texts ^ (users.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)))


def _is_first(codes: Codes) -> Mask:
    """Marks the first occurrence of each code."""
    mask = np.zeros(len(codes), dtype=np.bool_)
    mask[np.unique(codes, return_index=True)[1]] = True
    return mask
