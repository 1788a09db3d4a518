"""How much of a prompt fits a budget: the number of history blocks, and prefixes of texts."""

from __future__ import annotations

from collections.abc import Callable

_GUESSES = 4
"""Of good guesses two are enough: a number that fits, and the next one, which does not."""


def fitting(offered: int, fits: Callable[[int], bool], guess: Callable[[], int]) -> int:
    """The largest n <= `offered` with `fits(n)`, where fitting n blocks implies fitting fewer. 0 if not even one fits.

    `guess` says where to look, with what the last answer told it; where it errs, a bisection goes on.
    """
    low, high, probes = 0, offered + 1, 0
    while high - low > 1:
        probes += 1
        place = guess() if probes <= _GUESSES else (low + high) // 2
        place = min(max(place, low + 1), high - 1)
        if fits(place):
            low = place
        else:
            high = place
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
