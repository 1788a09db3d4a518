"""Whom a user is compared with: the histories of others, and nothing that anyone has to predict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from bench.chat import Chat
from bench.context import Context
from bench.data.corpus import Corpus
from bench.data.peers import Peers
from bench.errors import PluginError
from bench.prompts import Templates
from bench.records import Instance, Item, Review

ITEM = Item("A", "Title", "About.")


def review(user: str, asin: str, text: str, timestamp: int = 1) -> Review:
    return Review(user, asin, 4.0, "title", text, timestamp)


def instance(user: str, split: str, profile: Sequence[Review], timestamp: int = 99, k: int | None = None) -> Instance:
    name = f"c/{split}/{user}" + ("" if k is None else f"/{k}")
    return Instance(name, "c", split, user, ITEM, 5.0, "T", timestamp, tuple(profile))


def corpus(references: Mapping[Instance, str]) -> Corpus:
    """A category with these instances and the texts they have to predict."""
    splits: dict[str, list[Instance]] = {}
    for one in references:
        splits.setdefault(one.split, []).append(one)
    return Corpus(
        "c",
        {"A": ITEM},
        {split: tuple(instances) for split, instances in splits.items()},
        {one.id: text for one, text in references.items()},
    )


def texts(reviews: Sequence[Review]) -> list[str]:
    return [one.text for one in reviews]


def published(user: str, asin: str = "A") -> dict[Instance, str]:
    """DPL's instances of a user with two history reviews, shortened: train k=0, 1, then val and test."""
    told = [review(user, asin, f"{user} {name}", time) for time, name in enumerate(("h0", "h1", "i0", "i1", "i2"))]
    rows = [("train", 2, 0), ("train", 3, 1), ("val", 4, None), ("test", 5, None)]
    return {instance(user, split, told[:n], k=k): f"{user} i{n - 2}" for split, n, k in rows}


def test_no_target_of_any_split_is_in_the_pool() -> None:
    peers = Peers(corpus(published("ann") | published("bob")))
    assert texts(peers.of_item("A")) == ["ann h0", "ann h1", "bob h0", "bob h1"]
    assert texts(peers.of_user("bob")) == ["bob h0", "bob h1"]


def test_unused_targets_are_those_of_training_instances_before_the_last() -> None:
    peers = Peers(corpus(published("ann") | published("bob")), unused_targets=True)
    # i0 only train k=0 has to predict; i1 is that of the longest training profile, i2 and i3 are of val and test.
    assert texts(peers.of_item("A", but=("bob",))) == ["ann h0", "ann h1", "ann i0"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("unused_targets", [False, True])
def test_a_target_that_another_user_wrote_too_is_not_in_the_pool(split: str, unused_targets: bool) -> None:
    copied = instance("bob", "test", [review("bob", "A", "the same words"), review("bob", "A", "own words")])
    target = {instance("ann", split, []): "the same words"}
    others = {instance("cat", name, []): f"target {name}" for name in ("train", "val", "test")}
    peers = Peers(corpus({copied: "bob's target"} | target | others), unused_targets)
    assert texts(peers.of_item("A")) == ["own words"]
    assert texts(peers.of_user("bob")) == ["own words"]


def test_the_longest_profile_of_a_user_counts_once() -> None:
    told = [review("ann", "A", f"text {n}", n) for n in range(3)]
    known = {instance("ann", "test", told): "t", instance("ann", "val", told[:2]): "v"}
    assert texts(Peers(corpus(known)).of_item("A")) == ["text 0", "text 1", "text 2"]


def test_the_order_is_that_of_user_ids() -> None:
    known = {instance(user, "test", [review(user, "A", user)]): "t" for user in ("u2", "u10", "U3", "u1")}
    peers = Peers(corpus(known))
    assert texts(peers.of_item("A")) == ["U3", "u1", "u10", "u2"]
    assert texts(peers.of_item("A", but=("u1", "u2"))) == ["U3", "u10"]


class Counted(tuple[Review, ...]):
    """A profile that counts how often its reviews are gone through."""

    times = 0

    def __iter__(self) -> Iterator[Review]:
        Counted.times += 1
        return super().__iter__()


def test_asking_for_an_item_costs_its_peers_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "times", 0)
    known: dict[Instance, str] = {}
    for number in range(50):
        told = Counted(review(f"u{number}", asin, f"{number} {asin}") for asin in ("A", f"own {number}"))
        for split, k in (("train", 0), ("train", 1), ("test", None)):
            known[replace(instance(f"u{number}", split, [], k=k), profile=told)] = f"target {number} {split} {k}"
    peers = Peers(corpus(known))
    assert [len(peers.of_item(asin)) for asin in ("A", "own 3", "A", "other")] == [50, 1, 50, 0]
    assert Counted.times == 50, "each user's profile is gone through once, and not again for a question"

    class But(tuple[str, ...]):
        asked: ClassVar[list[object]] = []

        def __contains__(self, user: object) -> bool:
            self.asked.append(user)
            return super().__contains__(user)

    assert peers.of_item("own 3", but=But(["u3"])) == []
    assert But.asked == ["u3"], "only the item's own reviews are looked at"


def test_items_and_users_that_are_not_there() -> None:
    peers = Peers(corpus({instance("ann", "test", [review("ann", "A", "text")]): "t"}))
    assert peers.of_item("B") == []
    assert peers.of_user("bob") == ()
    assert peers.of_item("A", but=("ann",)) == []


def test_without_any_instance() -> None:
    peers = Peers(Corpus("c", {}, {"test": ()}, {}))
    assert (peers.of_item("A"), peers.of_user("ann")) == ([], ())


def test_the_demo(demo: Mapping[str, Corpus]) -> None:
    """Against a plain search through everything."""
    for category, whole in demo.items():
        peers = Peers(whole)
        targets = set(whole.references.values())
        written = {one for instances in whole.instances.values() for row in instances for one in row.profile}
        wanted = {one for one in written if one.text not in targets}
        found = {one for asin in whole.items for one in peers.of_item(asin)}
        assert found == wanted, category
        assert len(found) > 1000
        # The pool grows by the targets of a user's training instances 0 to 6 and by nothing else.
        growing = Peers(whole, unused_targets=True)
        more = {one for asin in whole.items for one in growing.of_item(asin)}
        used = [row for split in ("val", "test") for row in whole.split(split)]
        used += [row for row in whole.split("train") if row.id.endswith("/7")]
        assert more == {one for one in written if one.text not in {whole.references[row.id] for row in used}}
        assert len(more) > len(found)


# -- as a method sees them ---------------------------------------------------------------------------------------


def context(known: Corpus, pool: Peers | None, before_target: bool = False) -> Context:
    def no_embedder(texts: Sequence[str], encoder: str) -> np.typing.NDArray[np.float32]:
        raise AssertionError("nothing here embeds")

    chat = Chat("no model")
    return Context(known, Templates.load(), chat, None, 8, 100, 0, no_embedder, pool, before_target)


ANN, BOB, CAT = (
    instance(user, "test", [review(user, "A", f"{user} on A", time), review(user, "B", f"{user} on B", time)], 50)
    for user, time in (("ann", 10), ("bob", 50), ("cat", 49))
)
KNOWN = corpus({one: f"{one.user_id}'s target" for one in (ANN, BOB, CAT)})


def test_never_the_own_review() -> None:
    here = context(KNOWN, Peers(KNOWN))
    assert texts(here.peers(BOB.profile[0], BOB)) == ["ann on A", "cat on A"]
    assert texts(here.peers(BOB.profile[1], BOB)) == ["ann on B", "cat on B"]
    # The peers of a peer's review: neither its writer's nor the user's own.
    assert texts(here.peers(ANN.profile[0], BOB)) == ["cat on A"]


def test_before_the_target() -> None:
    here = context(KNOWN, Peers(KNOWN), before_target=True)
    # Written in the same millisecond is not before it.
    assert texts(here.peers(ANN.profile[0], ANN)) == ["cat on A"]
    assert texts(here.peers(ANN.profile[0], replace(ANN, timestamp=51))) == ["bob on A", "cat on A"]
    assert texts(context(KNOWN, Peers(KNOWN)).peers(ANN.profile[0], ANN)) == ["bob on A", "cat on A"]


def test_an_item_or_user_without_peers() -> None:
    here = context(KNOWN, Peers(KNOWN))
    assert here.peers(review("ann", "C", "alone"), ANN) == []
    stranger = instance("eve", "test", [])
    assert texts(here.peers(review("eve", "A", "new"), stranger)) == ["ann on A", "bob on A", "cat on A"]


def test_a_method_that_did_not_say_that_it_compares_users() -> None:
    here = context(KNOWN, None)
    for ask in (lambda: here.peers(ANN.profile[0], ANN), lambda: here.user_vector("ann", "encoder")):
        with pytest.raises(PluginError, match="must declare inter_user=True"):
            ask()
