"""What identifies a category's content."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.data.corpus import Corpus
from bench.errors import DataError
from bench.records import ABSENT, Instance, Record

LONG = "A description that is longer than the fields that are hashed where they stand. " * 3
PAST = (
    Record("U", "first", {"title": "a", "about": LONG, "rating": 5.0}, "G", 1),
    Record("U", "second", {"title": "b", "about": LONG, "rating": 4.0}, "H", 2),
)
ONE = Instance("c/test/U", "c", "test", "U", {"title": "t", "about": LONG}, PAST, "G", 3)


def corpus(one: Instance = ONE, reference: str = "third", groups: str = "GH") -> Corpus:
    return Corpus("c", {"test": (one,)}, {one.id: reference}, frozenset(groups))


def with_past(record: Record) -> Corpus:
    return corpus(replace(ONE, profile=(PAST[0], record)))


@pytest.mark.parametrize(
    "other",
    [
        corpus(replace(ONE, id="c/test/V")),
        corpus(replace(ONE, user_id="V")),
        corpus(replace(ONE, group="H")),
        corpus(replace(ONE, timestamp=None)),
        corpus(replace(ONE, given={"title": "t", "about": LONG + "!"})),
        corpus(replace(ONE, profile=PAST[::-1])),
        corpus(replace(ONE, profile=PAST[:1])),
        corpus(reference="thirD"),
        corpus(groups="GHI"),
        with_past(replace(PAST[1], text="second\n")),
        with_past(replace(PAST[1], user_id="V")),
        with_past(replace(PAST[1], group=None)),
        with_past(replace(PAST[1], timestamp=3)),
        with_past(replace(PAST[1], fields={**PAST[1].fields, "rating": 4.5})),
        with_past(replace(PAST[1], fields={**PAST[1].fields, "about": LONG[:-1]})),
        with_past(replace(PAST[1], fields={**PAST[1].fields, "name": "b"})),
        Corpus("d", {"test": (ONE,)}, {ONE.id: "third"}, frozenset("GH")),
    ],
)
def test_every_change_of_the_content_changes_the_fingerprint(other: Corpus) -> None:
    assert other.fingerprint != corpus().fingerprint


def test_what_is_no_content_leaves_the_fingerprint_alone() -> None:
    wanted = corpus().fingerprint
    assert replace(corpus(), notes=("Said of the data.",)).fingerprint == wanted
    other_order = replace(PAST[1], fields=dict(reversed(list(PAST[1].fields.items()))))
    assert with_past(other_order).fingerprint == wanted
    copy = "".join(list(LONG))
    assert copy is not LONG
    assert with_past(replace(PAST[1], fields={**PAST[1].fields, "about": copy})).fingerprint == wanted


def test_a_field_that_the_data_lack_is_no_empty_text() -> None:
    """A prompt shows them in different ways."""
    empty, absent = (with_past(replace(PAST[1], fields={**PAST[1].fields, "about": value})) for value in ("", ABSENT))
    assert empty.fingerprint != absent.fingerprint


def test_half_a_character_can_be_hashed() -> None:
    assert corpus(reference="\ud83d").fingerprint != corpus(reference="?").fingerprint


def test_a_split_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"category c has no split 'val' \(it has: test\)"):
        corpus().split("val")


def test_the_longest_profile_of_each_user() -> None:
    short, other = replace(ONE, id="c/test/U/0", profile=PAST[:1]), replace(ONE, id="c/test/V", user_id="V")
    known = Corpus("c", {"test": (short, ONE, other)}, dict.fromkeys((short.id, ONE.id, other.id), ""))
    assert known.longest_profiles("test") == (ONE, other)
