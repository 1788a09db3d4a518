"""Words and word n-grams, as `distinct` and `copying` count them."""

from __future__ import annotations

import re
from collections.abc import Sequence

WORDS = "lower-case runs of letters and digits of any script, apostrophes inside"
_WORDS = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits of any script; "don't" is one word, with either apostrophe."""
    return _WORDS.findall(text.replace("\u2019", "'").lower())


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words, in order."""
    return list(zip(*(words[start:] for start in range(n)), strict=False))
