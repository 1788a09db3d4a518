"""Users by how far their writing lies from the average user's (the paper's section 4.4.2 and Figure 3).

The groups depend on the data and the encoder alone: they are the same for every method.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.corpus import Corpus
from bench.errors import DataError

UNIQUE, NON_UNIQUE = "Unique", "Non-Unique"


def uniqueness(corpus: Corpus, split: str, embed: Callable[[Sequence[str]], NDArray[Any]]) -> dict[str, float]:
    """Each user's Euclidean distance to the mean over all users, by user id, in the order of the split.

    A user's vector is the mean over the embeddings of the texts in the user's profile (the longest one, where the split
    has several), a repeated text counting as often as it stands there. `embed` gives vectors of shape (n, d) and is
    called once, with each distinct text once. A user without a profile has no vector and is left out. Raises
    `DataError` if the split is not there or no user in it has a profile.
    """
    texts = {
        instance.user_id: [record.text for record in instance.profile]
        for instance in corpus.longest_profiles(split)
        if instance.profile
    }
    if not texts:
        raise DataError(
            f"{corpus.category}/{split}: no user has a past review, so none is more unique than others; "
            "use a split with profiles"
        )
    index = {text: number for number, text in enumerate(dict.fromkeys(text for own in texts.values() for text in own))}
    vectors = embed(list(index))
    users = np.stack([vectors[[index[text] for text in own]].mean(axis=0, dtype=np.float64) for own in texts.values()])
    distances = np.linalg.norm(users - users.mean(axis=0), axis=1)
    return dict(zip(texts, distances.tolist(), strict=True))


def groups(distances: Mapping[str, float]) -> dict[str, list[str]]:
    """The farther half of the users ("Unique") and the others ("Non-Unique"), each farthest first.

    With an odd number of users the median one is Non-Unique. Where two have the same distance, the one whose id comes
    first counts as farther. Raises `DataError` for fewer than two users.
    """
    if len(distances) < 2:
        raise DataError(f"{len(distances)} users with past reviews cannot be halved; use a data set with two or more")
    ranked = sorted(distances, key=lambda user: (-distances[user], user))
    half = len(ranked) // 2
    return {UNIQUE: ranked[:half], NON_UNIQUE: ranked[half:]}


def grouping_note(corpus: Corpus, split: str, grouped: Mapping[str, Collection[str]], encoder: str) -> str:
    """How the users were grouped and how many there are: what has to stand under scores by group."""
    sizes = ", ".join(f"{len(users)} {name}" for name, users in grouped.items())
    without = len(corpus.longest_profiles(split)) - sum(map(len, grouped.values()))
    left_out = f"; {without} without past reviews are in neither group" if without else ""
    return (
        f"Users by the Euclidean distance of their mean review embedding ({encoder}) to the mean over all users: the "
        f"farther half is {UNIQUE} ({sizes}{left_out})."
    )
