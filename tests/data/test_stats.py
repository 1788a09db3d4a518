"""What a data set is like, against figures counted by hand."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from bench.data.corpus import Corpus
from bench.data.stats import (
    NEWEST,
    Floor,
    NearDuplicates,
    Proportion,
    Sizes,
    Trust,
    floors,
    floors_note,
    records_by_user,
    sizes,
    trust,
)
from bench.errors import DataError
from bench.records import Instance, Record

GROUPS = frozenset("ABCT")


def record(user: str, group: str, text: str, timestamp: int) -> Record:
    return Record(user, text, {"title": "title"}, group, timestamp)


def instance(user: str, profile: Sequence[Record], timestamp: int, group: str = "T", split: str = "test") -> Instance:
    return Instance(f"c/{split}/{user}", "c", split, user, {"output_title": "t"}, tuple(profile), group, timestamp)


def corpus(references: Mapping[Instance, str], category: str = "c") -> Corpus:
    splits: dict[str, list[Instance]] = {"train": [], "val": [], "test": []}
    for one in references:
        splits[one.split].append(one)
    instances = {split: tuple(rows) for split, rows in splits.items()}
    return Corpus(category, instances, {one.id: text for one, text in references.items()}, GROUPS)


def words(count: int, start: int = 0) -> str:
    """Different words: a text of n of them has n - 4 different grams."""
    return " ".join(f"word{n}" for n in range(start, start + count))


TARGET = words(12)
"""Eight grams."""


# -- sizes


def test_sizes_by_hand() -> None:
    ann = instance("ann", [record("ann", "A", "text", time) for time in range(2)], 9)
    bob = instance("bob", [record("bob", "A", "text", time) for time in range(6)], 9)
    known = corpus({ann: "x" * 10, bob: "x" * 30})
    # The population's standard deviation of 2 and 6 is 2, the sample's would be 2.83.
    assert sizes([ann, bob], {"c": known}) == Sizes(2, 4.0, 2.0, 20.0, 10.0)
    assert sizes([bob], {"c": known}) == Sizes(1, 6.0, 0.0, 30.0, 0.0)
    assert sizes([], {"c": known}) == Sizes(0, None, None, None, None)


# -- records


def test_the_records_of_a_user_are_the_longest_profile_and_the_targets() -> None:
    told = [record("ann", "A", f"text {time}", time) for time in range(3)]
    known = corpus(
        {
            # Its target is in the longest profile already.
            replace(instance("ann", told[:2], 2, "A"), id="c/train/ann/0", split="train"): "text 2",
            instance("ann", told, 3): "the test target",
            instance("bob", [], 4): "bob's only one",
        }
    )
    found = {user: [one.text for one in records] for user, records in records_by_user(known).items()}
    assert found == {"ann": ["text 0", "text 1", "text 2", "the test target"], "bob": ["bob's only one"]}
    whole = trust(known)
    assert (whole.users, whole.items, whole.reviews) == (2, 4, 5)


# -- peers


def test_peers_of_the_newest_profile_reviews() -> None:
    old = record("ann", "C", "too old to count", 0)
    newest = [record("ann", "A", f"again {n}", 1 + n) for n in range(NEWEST - 1)] + [record("ann", "B", "b", 50)]
    known = corpus(
        {
            instance("ann", [old, *newest], 99): "ann's target",
            instance(
                "bob", [record("bob", *told, 1) for told in (("A", "1"), ("A", "2"), ("C", "3"))], 99
            ): "bob's target",
            # Not a peer: somebody has to predict this very text.
            instance("cat", [record("cat", "B", "ann's target", 1)], 99): "cat's target",
        }
    )
    # ann: seven times two reviews of A by bob, none of B; bob: seven of A by ann, twice, and her old one of C; cat:
    # ann's of B.
    counts = sorted([2] * 7 + [0] + [7] * 2 + [1] + [1])
    whole = trust(known)
    assert whole.peers_mean == pytest.approx(sum(counts) / 12)
    assert whole.peers_median == (counts[5] + counts[6]) / 2 == 2
    assert whole.without_peers == Proportion(1, 12)


def test_nobody_has_a_profile() -> None:
    whole = trust(corpus({instance("ann", [], 1): "a", instance("bob", [], 1): "b"}))
    assert (whole.peers_mean, whole.peers_median, whole.without_peers) == (None, None, Proportion(0, 0))
    assert whole.tied_targets == Proportion(0, 2)


# -- ties


def test_ties_by_hand() -> None:
    def profile(user: str, *times: int) -> list[Record]:
        return [record(user, "A", f"{user} {n}", time) for n, time in enumerate(times)]

    whole = trust(
        corpus(
            {
                instance("none", profile("none", 1, 2, 3), 4): "none's target",
                instance("past", profile("past", 1, 1, 3), 4): "past's target",
                # The target's time is that of the newest review, which makes the user one with a tie too.
                instance("newest", profile("newest", 1, 2, 3), 3): "newest's target",
                # Of an older one: a tie of the user, but the newest review is known.
                instance("older", profile("older", 1, 2, 3), 2): "older's target",
                instance("empty", [], 4): "empty's target",
            }
        )
    )
    assert whole.tied_users == Proportion(3, 5)
    assert whole.tied_targets == Proportion(1, 5)


def test_records_without_times_or_groups() -> None:
    own = {user: [Record(user, f"{user} {n}", {}) for n in range(3)] for user in ("ann", "bob")}
    rows = {Instance(f"c/test/{user}", "c", "test", user, {}, tuple(own[user])): f"{user}'s target" for user in own}
    whole = trust(corpus(rows))
    assert (whole.tied_users, whole.tied_targets) == (Proportion(0, 2), Proportion(0, 2))
    assert (whole.peers_mean, whole.without_peers) == (0.0, Proportion(6, 6))
    assert (whole.users, whole.reviews) == (2, 8)


# -- repeated texts


def test_repeated_texts_by_hand() -> None:
    ann = [record("ann", "A", "the same", 1), record("ann", "B", "the same", 2), record("ann", "C", "shared", 3)]
    bob = [record("bob", "A", "shared", 1), record("bob", "B", "Shared", 2)]
    whole = trust(corpus({instance("ann", ann, 4): "own", instance("bob", bob, 4): "shared"}))
    # Within ann: both of "the same"; within bob: "shared" and the target.
    assert whole.repeats_by_same_user == Proportion(4, 7)
    # "shared": once by ann, twice by bob; another case is another text.
    assert whole.repeats_by_others == Proportion(3, 7)


# -- users in several categories


def test_users_of_other_categories() -> None:
    def category(name: str, *users: str) -> Corpus:
        return corpus({instance(user, [], 1): f"{user} {name}" for user in users}, name)

    first, second, third = category("1", "ann", "bob", "cat"), category("2", "bob"), category("3", "bob", "cat", "dan")
    assert trust(first, [second, third]).in_other_categories == Proportion(2, 3)
    assert trust(second, [first, third]).in_other_categories == Proportion(1, 1)
    assert trust(third, [second]).in_other_categories == Proportion(1, 3)
    assert trust(first).in_other_categories is None


# -- near-duplicates


@pytest.mark.parametrize(
    ("text", "similar"),
    [
        (TARGET, True),
        # Eight grams of ten are 0.8 exactly, of eleven less.
        (f"{TARGET} and more", True),
        (f"{TARGET} and more again", False),
        # The same with words that are the longest of their grams.
        (f"{TARGET} considerably moreover", True),
        (f"{TARGET} considerably moreover furthermore", False),
        # Fewer: seven of eight, six of eight.
        (words(11), True),
        (words(10), False),
        # One word in the middle takes five grams with it.
        (TARGET.replace("word5", "other"), False),
        (TARGET.upper().replace(" ", " -- ") + "!", True),
        (" ".join(reversed(TARGET.split())), False),
        # Said twice: the eight grams count once, and there are four more across the seam.
        (f"{TARGET} {TARGET}", False),
        ("", False),
    ],
)
def test_near_duplicates_around_the_threshold(text: str, similar: bool) -> None:
    assert NearDuplicates(TARGET).has(text) is similar
    assert NearDuplicates(text).has(TARGET) is similar


def test_short_texts_are_one_gram() -> None:
    assert NearDuplicates("Very good!").has("very good")
    assert not NearDuplicates("Very good!").has("very very good")
    assert not NearDuplicates("!").has("!")
    assert not NearDuplicates("!").has("?")


def test_near_duplicates_equal_the_definition_on_random_texts() -> None:
    """Few different words, repeats and words within words: the quick way out must never be wrong."""
    draw = random.Random(0)
    vocabulary = ["a", "an", "ant", "antler", "be", "bee", "beetle", "cat", "category", "do", "dog", "dogma"]

    def grams(text: str) -> set[tuple[str, ...]]:
        split = re.findall(r"\w+", text.lower())
        return {tuple(split[start : start + 5]) for start in range(len(split) - 4)}

    found = []
    for _ in range(3000):
        one = [draw.choice(vocabulary) for _ in range(draw.randint(5, 60))]
        other = list(one)
        for _ in range(draw.randint(0, 4)):
            other[draw.randrange(len(other))] = draw.choice(vocabulary)
        other += one[: draw.randint(0, 6)]
        first, second = grams(" ".join(one)), grams(" ".join(other))
        wanted = 10 * len(first & second) >= 8 * len(first | second)
        assert NearDuplicates(" ".join(one)).has(" ".join(other)) is wanted, (one, other)
        found.append(wanted)
    assert 300 < sum(found) < 2700


def test_copies_of_targets_are_counted_by_place_and_kind() -> None:
    near, other = f"{TARGET} and more", words(12, start=100)
    own = {
        "ann": [record("ann", "A", TARGET, 1)],
        "bob": [record("bob", "A", near.replace("word", "BOB"), 1)],
        "cat": [record("cat", "A", other, 1), record("cat", "T", f"{other} once", 2)],
        # Peers of the item T, nearly what others have to write, and of another item, which does not count.
        "dan": [record("dan", "T", TARGET + "!", 1), record("dan", "A", other + "?", 2)],
    }
    targets = {"ann": TARGET, "bob": TARGET.replace("word", "bob"), "cat": other, "dan": "nothing like it"}
    whole = trust(corpus({instance(user, profile, 9): targets[user] for user, profile in own.items()}))
    assert whole.exact_in_profile == Proportion(2, 4)  # ann and cat
    assert whole.near_in_profile == Proportion(2, 4)  # bob, and cat, who has both kinds
    # dan's review is nearly ann's target; cat's of T is cat's own, no peer's.
    assert whole.near_in_peers == Proportion(1, 4)
    assert whole.exact_in_peers == Proportion(0, 4)


def test_an_exact_copy_is_never_among_the_peers() -> None:
    known = corpus({instance("ann", [], 9): TARGET, instance("bob", [record("bob", "T", TARGET, 1)], 9): "bob's"})
    whole = trust(known)
    assert (whole.exact_in_peers, whole.near_in_peers) == (Proportion(0, 2), Proportion(0, 2))


# -- the whole


def test_each_test_instance_is_told_of() -> None:
    calls: list[None] = []
    trust(corpus({instance(user, [], 1): user for user in ("ann", "bob")}), advance=lambda: calls.append(None))
    assert len(calls) == 2


def test_a_category_without_a_test_split() -> None:
    with pytest.raises(DataError, match="category c has no split 'test'"):
        trust(Corpus("c", {"train": ()}, {}))


def test_the_demo_has_no_copies_and_no_ties(demo: Mapping[str, Corpus]) -> None:
    for category, known in demo.items():
        whole = trust(known, [other for name, other in demo.items() if name != category])
        clean = ("tied_users", "tied_targets", "repeats_by_same_user", "exact_in_profile", "near_in_profile")
        assert [getattr(whole, name).count for name in clean] == [0] * len(clean), category
        assert whole.users == 168
        assert isinstance(whole, Trust)
        assert whole.in_other_categories == Proportion(0, 168)


# -- writers without a model


def test_writers_without_a_model_by_hand() -> None:
    known = corpus(
        {
            instance("ann", [record("ann", "A", "a", 1), record("ann", "B", "a b", 2)], 9, "C"): "a b c d",
            instance("bob", [record("bob", "C", "d x", 1)], 9, "Z"): "x y",
            # Her review is one that somebody has to write: others may not repeat it.
            instance("cat", [record("cat", "C", "x y", 1)], 9, "Z"): "q",
        }
    )
    found = floors(known)
    # F-measures of (2 of 2 words, 2 of 4), of (1 of 2, 1 of 2) and of nothing.
    assert (found["copy"].rouge1, found["copy"].instances) == (pytest.approx((2 / 3 + 1 / 2 + 0) / 3), 3)
    # Bob's review of C, (1 of 2, 1 of 4); of Z there is none.
    assert (found["peer"].rouge1, found["peer"].instances) == (pytest.approx(1 / 3), 1)
    # Ann has bob's alone to draw; what the two others may draw has none of their words.
    assert (found["random"].rouge1, found["random"].instances) == (pytest.approx((1 / 3 + 0 + 0) / 3), 3)
    assert floors_note(known) == (
        "ROUGE-1 without a model on the test split of c: the user's last review 0.389, another user's review of the "
        "item 0.333 (of 1 of 3 instances), any other user's review 0.111."
    )
    alone = floors(corpus({instance("ann", [record("ann", "A", "a", 1)], 9): "b"}))
    assert (alone["peer"], alone["random"]) == (Floor(None, 0), Floor(None, 0))
