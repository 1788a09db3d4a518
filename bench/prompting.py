"""How much of a prompt fits a budget: the number of history blocks, and prefixes of texts."""

from __future__ import annotations

from collections.abc import Callable


def fitting(offered: int, fits: Callable[[int], bool]) -> int:
    """The largest n <= `offered` with `fits(n)`, where fitting n blocks implies fitting fewer (a bisection: each
    probe renders and tokenises a prompt). 0 if not even one fits."""
    low, high = 0, offered
    if offered and fits(offered):
        return offered
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def longest_prefix(text: str, fits: Callable[[str], bool]) -> str:
    """The longest prefix of `text`, cut at a space where there is one, for which `fits` holds; "" if none does.

    Adding characters can save a token, so `fits` is only nearly monotone: the result fits, and no more than a
    few characters longer would.
    """
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(text[:middle]):
            low = middle
        else:
            high = middle - 1
    prefix = text[:low]
    if low < len(text) and text[low] != " " and " " in prefix:
        prefix = prefix[: prefix.rindex(" ")]
    while prefix and not fits(prefix):
        prefix = prefix.rpartition(" ")[0]
    return prefix
