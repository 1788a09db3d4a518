"""The words that a reader sees."""

from __future__ import annotations

CATEGORIES = {"Movies_and_TV": "Movies & TV", "CDs_and_Vinyl": "CDs & Vinyl"}


def category_name(category: str) -> str:
    """The name of a category in a table: the paper's for its three, else its own with spaces for underscores."""
    return CATEGORIES.get(category, category.replace("_", " "))


def plural(word: str) -> str:
    """Several of what a task writes: "reviews", "stories"."""
    return f"{word[:-1]}ies" if word.endswith("y") and word[-2:-1] not in tuple("aeiou") else f"{word}s"
