"""The generated data: shape and splits, determinism, what copying is worth, and what pre-training may not know."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import pytest

from bench.data import demo, demo_phrases
from bench.data.corpus import Corpus
from bench.demo import chats
from bench.records import Instance, Record

FINGERPRINTS = {
    "Books": "4318085a2a2bd09e0afe151923c2d8db797391dd4c4806e65703293f63e6ee7c",
    "Movies_and_TV": "b664a8d31d4939171aff5d86339a35500260a22dcc2205f0155350cc86a10ae5",
    "CDs_and_Vinyl": "f9980d27ffc3dc14687993961c41c57f3758757fa7497f039bd04ab00cbe27b6",
}


@pytest.fixture(scope="module")
def corpora() -> dict[str, Corpus]:
    return demo.generate(0)


@pytest.fixture(scope="module")
def floors() -> dict[str, float]:
    return demo.floors(0)


def known_time(row: Instance | Record) -> int:
    assert row.timestamp is not None
    return row.timestamp


def items(corpus: Corpus) -> dict[str, str]:
    """The descriptions of all items, by the item's id."""
    reviews = (review for row in corpus.split("test") for review in row.profile)
    return {str(review.group): str(review.fields["item_description"]) for review in reviews}


def test_every_corpus_has_its_pinned_content(corpora: dict[str, Corpus]) -> None:
    assert {name: corpus.fingerprint for name, corpus in corpora.items()} == FINGERPRINTS


def test_another_seed_is_other_data() -> None:
    one, two = (demo.make_world("Books", f"benchmark/{seed}", users=12) for seed in (0, 1))
    assert {user.id for user in one.users}.isdisjoint(user.id for user in two.users)


def test_splits_follow_dpl(corpora: dict[str, Corpus]) -> None:
    for corpus in corpora.values():
        assert {split: len(rows) for split, rows in corpus.instances.items()} == {
            "train": 1344,
            "val": 168,
            "test": 168,
        }
        assert corpus.references.keys() == {row.id for rows in corpus.instances.values() for row in rows}
    corpus = corpora["Books"]
    test, val = corpus.split("test")[5], corpus.split("val")[5]
    user = test.user_id
    train = [row for row in corpus.split("train") if row.user_id == user]
    assert (test.id, val.id) == (f"Books/test/{user}", f"Books/val/{user}")
    assert [row.id for row in train] == [f"Books/train/{user}/{k}" for k in range(8)]
    # Each target is the next entry of the following profile: i_k follows history + i_0..i_{k-1}.
    ordered = [*train, val, test]
    for now, later in pairwise(ordered):
        assert later.profile[:-1] == now.profile
        last = later.profile[-1]
        assert (last.group, last.timestamp) == (now.group, now.timestamp)
        assert (last.fields["rating"], last.fields["title"]) == (now.given["output_rating"], now.given["output_title"])
        assert all(last.fields[name] == now.given[name] for name in ("item_title", "item_description"))
        assert last.text == corpus.reference(now)


def test_histories_items_and_times_are_as_promised(corpora: dict[str, Corpus]) -> None:
    ids: set[str] = set()
    for corpus in corpora.values():
        reviewers: Counter[str] = Counter()
        for row in corpus.split("test"):
            assert 8 <= len(row.profile) - 9 <= 14
            times = [*map(known_time, row.profile), known_time(row)]
            assert times == sorted(set(times))
            seen = [*(str(review.group) for review in row.profile), str(row.group)]
            assert len(seen) == len(set(seen))
            assert {review.user_id for review in row.profile} == {row.user_id}
            assert {review.fields["rating"] for review in row.profile} <= {1.0, 2.0, 3.0, 4.0, 5.0}
            reviewers.update(seen)
        assert reviewers.keys() == corpus.groups
        assert min(reviewers.values()) >= 3
        assert 6 <= sum(reviewers.values()) / len(reviewers) - 1 <= 8
        users = {row.user_id for row in corpus.split("test")}
        assert ids.isdisjoint(users)
        ids |= users


def test_texts_have_the_promised_size(corpora: dict[str, Corpus]) -> None:
    for corpus in corpora.values():
        words = [len(text.split()) for text in corpus.references.values()]
        assert 35 <= sum(words) / len(words) <= 52
        described = [len(text.split()) for text in items(corpus).values()]
        assert 20 <= sum(described) / len(described) <= 32
        titles = [len(str(row.given["output_title"]).split()) for row in corpus.split("train")]
        assert min(titles) >= 2
        assert max(titles) <= 8
        for text in corpus.references.values():
            assert not re.search(r"[{}\0]|  ", text)


def test_notes_say_that_the_data_is_generated(corpora: dict[str, Corpus]) -> None:
    for corpus in corpora.values():
        assert "seed 0" in corpus.notes[0]
        assert "Generated" in corpus.notes[0]
        assert "stands in" in corpus.notes[1]


def test_copying_is_worth_more_than_chance_and_far_less_than_knowing(floors: dict[str, float]) -> None:
    assert floors["random"] + 0.04 < floors["copy"] <= floors["oracle"] - 0.15
    assert floors["random"] + 0.04 < floors["peer"] < floors["oracle"] - 0.1
    assert 0.42 < floors["oracle"] < 0.65


def test_the_oracle_keeps_what_is_given_and_writes_anew() -> None:
    world = demo.make_world("Books", "benchmark/0", users=12)
    user, thing = world.users[0], world.things[world.shelves[0][0]]
    first, second = (demo.review_dice(world, user, thing, day) for day in (0, 1))
    assert first[0] == second[0]
    texts = [demo.write(dice, world, user, thing, given).text for given, dice in (first, second)]
    assert texts[0] == demo.reviews(world, 0)[0][0].text
    assert texts[0] != texts[1]


def test_habits_persist_about_six_times_in_ten() -> None:
    world, dice = demo.make_world("Books", "benchmark/0", users=12), demo.Dice("persistence")
    own = sum(world.habit(dice, ("mine",), ("other",)) == "mine" for _ in range(4000))
    assert 0.57 < own / 4000 < 0.63


def test_dice_are_the_same_everywhere() -> None:
    # The values are CPython's documented Mersenne Twister output for a string seed of version 2.
    dice = demo.Dice("benchmark")
    assert [round(dice.unit(), 12) for _ in range(3)] == [0.627614340918, 0.026045085818, 0.336813151654]


SHARED = {"good", "bad", "good_reasons", "bad_reasons", "frames"}
"""What both populations say, as the demo's card discloses."""


@pytest.mark.parametrize("field", sorted(demo.Phrases.__dataclass_fields__.keys() - SHARED))
def test_pretraining_shares_no_phrase_with_the_benchmark(field: str) -> None:
    ours, theirs = (getattr(demo.phrases(pretraining), field) for pretraining in (False, True))
    assert len(ours) >= 8
    assert set(ours).isdisjoint(theirs)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, value in vars(demo_phrases).items()
        if name.endswith(("HEADS", "TAILS", "NAMES", "TOPICS", "PRAISE", "BLAME", "CONNECTORS", "INTENSIFIERS"))
    ],
)
def test_no_inventory_holds_an_entry_twice(name: str) -> None:
    entries = getattr(demo_phrases, name)
    assert len(entries) == len(set(entries))


def test_pretraining_users_items_and_phrases_are_not_in_the_benchmark(corpora: dict[str, Corpus]) -> None:
    texts = "\n".join(text.lower() for corpus in corpora.values() for text in corpus.references.values())
    users = {row.user_id for corpus in corpora.values() for row in corpus.split("test")}
    titles = {str(row.given["item_title"]) for corpus in corpora.values() for row in corpus.split("train")}
    asins = {asin for corpus in corpora.values() for asin in corpus.groups}
    for number in range(12):
        world = chats.world(f"pretraining/0/{number}")
        assert users.isdisjoint(user.id for user in world.users)
        assert titles.isdisjoint(thing.item.title for thing in world.things)
        assert asins.isdisjoint(thing.item.asin for thing in world.things)
        said = world.phrases
        for phrases in (said.openings, said.good_closings, said.bad_closings, said.remarks):
            for phrase in phrases:
                filled = phrase.format(thing=world.kind.thing, verb=world.kind.verb)
                assert filled.lower() not in texts


def test_pretraining_populations_differ_in_how_they_talk() -> None:
    one, two = (chats.world(f"pretraining/0/{number}") for number in range(2))
    assert one.persistence != two.persistence
    for field in SHARED:
        here, there = (set(getattr(world.phrases, field)) for world in (one, two))
        assert len(here & there) < 0.5 * len(here)
    for world in (one, two):
        texts = [record.text for user in range(4) for record, _, _ in demo.reviews(world, user)]
        assert not any(brace in text for text in texts for brace in "{}\0")
