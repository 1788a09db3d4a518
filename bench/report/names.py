"""The words that a reader sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

CATEGORIES = {"Movies_and_TV": "Movies & TV", "CDs_and_Vinyl": "CDs & Vinyl"}


def category_name(category: str) -> str:
    """The name of a category in a table: the paper's for its three, else its own with spaces for underscores."""
    return CATEGORIES.get(category, category.replace("_", " "))


def average_name(categories: int) -> str:
    """The head over scores that are means over so many categories."""
    return f"Average (of {categories} categories)"


def average_note(categories: int) -> str:
    """What such a score is."""
    return (
        f"Average: the unweighted mean of a score over the {categories} categories, which count alike whatever their "
        "numbers of instances."
    )


def plural(word: str) -> str:
    """Several of a thing: "reviews", "stories", "passes"."""
    if word.endswith("s"):
        return f"{word}es"
    return f"{word[:-1]}ies" if word.endswith("y") and word[-2:-1] not in tuple("aeiou") else f"{word}s"


def counted(count: int, word: str) -> str:
    """A number of things: "1 text", "1,200 texts"."""
    return f"{count:,} {word if count == 1 else plural(word)}"


def score_name(name: str, head: str) -> str:
    """What a score is called: by its head in tables and, where that is another word, by the name that it has in options
    and in files."""
    return head or name if head.lower() in ("", name.lower()) else f"{head} ({name})"


def named_score(text: str, columns: Mapping[str, str]) -> str:
    """The name of the score that a text names by its name, its head or both, whatever the case; the text itself if none
    or several are meant. `columns` are heads by name."""
    meant = [
        name
        for name, head in columns.items()
        if text.lower() in (name.lower(), head.lower(), score_name(name, head).lower())
    ]
    return text if text in columns or len(meant) != 1 else meant[0]


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
