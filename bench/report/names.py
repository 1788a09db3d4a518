"""The words that a reader sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

CATEGORIES = {"Movies_and_TV": "Movies & TV", "CDs_and_Vinyl": "CDs & Vinyl"}


def category_name(category: str) -> str:
    """The name of a category in a table: the paper's for its three, else its own with spaces for underscores."""
    return CATEGORIES.get(category, category.replace("_", " "))


def plural(word: str) -> str:
    """Several of what a task writes: "reviews", "stories"."""
    return f"{word[:-1]}ies" if word.endswith("y") and word[-2:-1] not in tuple("aeiou") else f"{word}s"


def unlike_measures(labels: Sequence[str], signatures: Sequence[Mapping[str, str]]) -> list[str]:
    """A sentence on each metric that is not the same measure in all runs; `signatures` are those of each run, by
    metric."""
    sentences = []
    for metric in dict.fromkeys(name for own in signatures for name in own):
        ways: dict[str, dict[str, None]] = {}
        for label, own in zip(labels, signatures, strict=True):
            if metric in own:
                ways.setdefault(own[metric], {})[label] = None
        if len(ways) > 1:
            told = "; ".join(f"{way} in {', '.join(found)}" for way, found in ways.items())
            sentences.append(f"{metric} is not the same measure in all rows, which do not compare: {told}.")
    return sentences
