"""Users by uniqueness: distances against numpy, halves by hand, scores by group against the metric itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data.corpus import Corpus
from bench.errors import DataError
from bench.records import Instance, Record
from bench.uniqueness import grouping_note, groups, uniqueness


def instance(user: str, texts: Sequence[str], split: str = "test", number: str = "") -> Instance:
    profile = tuple(Record(user, text, {}, "A1", index) for index, text in enumerate(texts))
    return Instance(f"Toys/{split}/{user}{number}", "Toys", split, user, {}, profile, "A1", 99)


def corpus(*instances: Instance) -> Corpus:
    return Corpus("Toys", {instances[0].split: instances}, {i.id: "r" for i in instances})


class Encoder:
    """Texts are pairs of numbers; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(list(texts))
        return np.array([list(map(float, text.split())) for text in texts], np.float32)


# ---- distances


def test_by_hand() -> None:
    # Vectors (0, 0), (4, 0) and (2, 6), the mean (2, 2).
    data = corpus(instance("u1", ["0 0"]), instance("u2", ["3 1", "5 -1"]), instance("u3", ["2 6"]))
    expected = {"u1": 8**0.5, "u2": 8**0.5, "u3": 4.0}
    found = uniqueness(data, "test", Encoder())
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=1e-12)


def test_against_numpy_with_each_text_encoded_once() -> None:
    dice = np.random.default_rng(5)
    profiles = {f"u{i}": [f"{a} {b}" for a, b in dice.integers(4, size=(dice.integers(1, 9), 2))] for i in range(40)}
    encoder = Encoder()
    found = uniqueness(corpus(*(instance(user, texts) for user, texts in profiles.items())), "test", encoder)
    (asked,) = encoder.asked
    assert len(asked) == len(set(asked)) == 16
    vectors = [np.mean([[float(n) for n in text.split()] for text in texts], axis=0) for texts in profiles.values()]
    expected = [np.sqrt(((vector - np.mean(vectors, axis=0)) ** 2).sum()) for vector in vectors]
    assert list(found) == list(profiles)
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-12)


def test_a_repeated_text_counts_as_often_as_it_stands_there() -> None:
    encoder = Encoder()
    found = uniqueness(corpus(instance("u1", ["0 0", "0 0", "3 0"]), instance("u2", ["3 0"])), "test", encoder)
    assert encoder.asked == [["0 0", "3 0"]]
    assert found == pytest.approx({"u1": 1.0, "u2": 1.0}, abs=1e-12)


def test_the_longest_profile_counts_and_users_without_one_do_not() -> None:
    short, long = instance("u1", ["0 0"], "train", "/0"), instance("u1", ["0 0", "4 0"], "train", "/1")
    data = corpus(long, short, instance("u2", ["0 0"], "train"), instance("u3", [], "train"))
    found = uniqueness(data, "train", Encoder())
    assert found == pytest.approx({"u1": 1.0, "u2": 1.0}, abs=1e-12)
    assert grouping_note(data, "train", groups(found), "hashed-ngrams") == (
        "Users by the Euclidean distance of their mean review embedding (hashed-ngrams) to the mean over all users: "
        "the farther half is Unique (1 Unique, 1 Non-Unique; 1 without past reviews are in neither group)."
    )


def test_nobody_to_compare() -> None:
    with pytest.raises(DataError, match="Toys/test: no user has a past review"):
        uniqueness(corpus(instance("u1", [])), "test", Encoder())
    with pytest.raises(DataError, match="has no split 'val'"):
        uniqueness(corpus(instance("u1", ["0 0"])), "val", Encoder())


# ---- groups


@pytest.mark.parametrize(
    ("distances", "unique", "others"),
    [
        ({"a": 1.0, "b": 3.0, "c": 2.0, "d": 0.5}, ["b", "c"], ["a", "d"]),
        # The median of an odd number is not unique.
        ({"a": 1.0, "b": 3.0, "c": 2.0}, ["b"], ["c", "a"]),
        ({"d": 1.0, "c": 1.0, "b": 1.0, "a": 1.0}, ["a", "b"], ["c", "d"]),
        ({"z": 2.0, "b": 1.0, "a": 1.0, "c": 0.0}, ["z", "a"], ["b", "c"]),
    ],
)
def test_halves(distances: dict[str, float], unique: list[str], others: list[str]) -> None:
    assert groups(distances) == {"Unique": unique, "Non-Unique": others}


def test_one_user_cannot_be_halved() -> None:
    with pytest.raises(DataError, match="1 users with past reviews cannot be halved"):
        groups({"a": 1.0})
