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
from bench.records import Instance, Record
from bench.tasks.reviews import Reviews
from bench.templates import Templates


def record(user: str, group: str, text: str, timestamp: int = 1) -> Record:
    return Record(user, text, {"title": "title"}, group, timestamp)


def instance(user: str, split: str, profile: Sequence[Record], timestamp: int = 99, k: int | None = None) -> Instance:
    name = f"c/{split}/{user}" + ("" if k is None else f"/{k}")
    return Instance(name, "c", split, user, {"output_title": "T"}, tuple(profile), "A", timestamp)


def corpus(references: Mapping[Instance, str]) -> Corpus:
    """A category with these instances and the texts they have to predict."""
    splits: dict[str, list[Instance]] = {}
    for one in references:
        splits.setdefault(one.split, []).append(one)
    instances = {split: tuple(rows) for split, rows in splits.items()}
    return Corpus("c", instances, {one.id: text for one, text in references.items()}, frozenset({"A"}))


def texts(records: Sequence[Record]) -> list[str]:
    return [one.text for one in records]


def published(user: str, group: str = "A") -> dict[Instance, str]:
    """DPL's instances of a user with two history reviews, shortened: train k=0, 1, then val and test."""
    told = [record(user, group, f"{user} {name}", time) for time, name in enumerate(("h0", "h1", "i0", "i1", "i2"))]
    rows = [("train", 2, 0), ("train", 3, 1), ("val", 4, None), ("test", 5, None)]
    return {instance(user, split, told[:n], k=k): f"{user} i{n - 2}" for split, n, k in rows}


def test_no_target_of_any_split_is_in_the_pool() -> None:
    peers = Peers(corpus(published("ann") | published("bob")))
    assert texts(peers.of_group("A")) == ["ann h0", "ann h1", "bob h0", "bob h1"]
    assert texts(peers.of_user("bob")) == ["bob h0", "bob h1"]


def test_unused_targets_are_those_of_training_instances_before_the_last() -> None:
    peers = Peers(corpus(published("ann") | published("bob")), unused_targets=True)
    # i0 only train k=0 has to predict; i1 is that of the longest training profile, i2 and i3 are of val and test.
    assert texts(peers.of_group("A", but=("bob",))) == ["ann h0", "ann h1", "ann i0"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("switches", [{}, {"unused_targets": True}, {"all_targets": True}])
def test_a_target_that_another_user_wrote_too(split: str, switches: dict[str, bool]) -> None:
    """By the paper nobody's review of these words is in the pool; the released code looks at a user's own targets."""
    copied = instance("bob", "test", [record("bob", "A", "the same words"), record("bob", "A", "own words")])
    target = {instance("ann", split, []): "the same words"}
    others = {instance("cat", name, []): f"target {name}" for name in ("train", "val", "test")}
    peers = Peers(corpus({copied: "bob's target"} | target | others), **switches)
    wanted = ["the same words", "own words"] if switches else ["own words"]
    assert texts(peers.of_group("A")) == texts(peers.of_user("bob")) == wanted


def test_all_targets_stay() -> None:
    peers = Peers(corpus(published("ann") | published("bob")), all_targets=True)
    # i3 is the target of the test instance and in nobody's profile.
    assert texts(peers.of_group("A", but=("bob",))) == ["ann h0", "ann h1", "ann i0", "ann i1", "ann i2"]


def test_a_user_with_the_target_that_is_trained_on() -> None:
    known = corpus(published("ann") | published("bob"))
    assert texts(Peers(known).of_user("ann", with_target=True)) == ["ann h0", "ann h1", "ann i1"]
    unused = Peers(known, unused_targets=True)
    assert texts(unused.of_user("ann", with_target=True)) == ["ann h0", "ann h1", "ann i0", "ann i1"]
    assert unused.of_user("nobody", with_target=True) == ()
    untrained = {one: text for one, text in published("ann").items() if one.split != "train"}
    assert texts(Peers(corpus(untrained)).of_user("ann", with_target=True)) == ["ann h0", "ann h1", "ann i0", "ann i1"]


def test_the_longest_profile_of_a_user_counts_once() -> None:
    told = [record("ann", "A", f"text {n}", n) for n in range(3)]
    known = {instance("ann", "test", told): "t", instance("ann", "val", told[:2]): "v"}
    assert texts(Peers(corpus(known)).of_group("A")) == ["text 0", "text 1", "text 2"]


def test_the_order_is_that_of_user_ids() -> None:
    known = {instance(user, "test", [record(user, "A", user)]): "t" for user in ("u2", "u10", "U3", "u1")}
    peers = Peers(corpus(known))
    assert texts(peers.of_group("A")) == ["U3", "u1", "u10", "u2"]
    assert texts(peers.of_group("A", but=("u1", "u2"))) == ["U3", "u10"]


class Counted(tuple[Record, ...]):
    """A profile that counts how often its records are gone through."""

    times = 0

    def __iter__(self) -> Iterator[Record]:
        Counted.times += 1
        return super().__iter__()


def test_asking_for_a_group_costs_its_peers_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "times", 0)
    known: dict[Instance, str] = {}
    for number in range(50):
        told = Counted(record(f"u{number}", group, f"{number} {group}") for group in ("A", f"own {number}"))
        for split, k in (("train", 0), ("train", 1), ("test", None)):
            known[replace(instance(f"u{number}", split, [], k=k), profile=told)] = f"target {number} {split} {k}"
    peers = Peers(corpus(known))
    assert [len(peers.of_group(group)) for group in ("A", "own 3", "A", "other")] == [50, 1, 50, 0]
    assert Counted.times == 50, "each user's profile is gone through once, and not again for a question"

    class But(tuple[str, ...]):
        asked: ClassVar[list[object]] = []

        def __contains__(self, user: object) -> bool:
            self.asked.append(user)
            return super().__contains__(user)

    assert peers.of_group("own 3", but=But(["u3"])) == []
    assert But.asked == ["u3"], "only the group's own records are looked at"


def test_groups_and_users_that_are_not_there() -> None:
    peers = Peers(corpus({instance("ann", "test", [record("ann", "A", "text")]): "t"}))
    assert peers.of_group("B") == []
    assert peers.of_user("bob") == ()
    assert peers.of_group("A", but=("ann",)) == []


def test_records_without_a_group_have_no_peers() -> None:
    alone = {instance(user, "test", [Record(user, f"by {user}", {})]): "t" for user in ("ann", "bob")}
    peers = Peers(corpus(alone))
    assert peers.of_group(None) == []
    assert texts(peers.of_user("ann")) == ["by ann"]


def test_without_any_instance() -> None:
    peers = Peers(Corpus("c", {"test": ()}, {}))
    assert (peers.of_group("A"), peers.of_user("ann")) == ([], ())


def test_the_demo(demo: Mapping[str, Corpus]) -> None:
    """Against a plain search through everything."""
    for category, whole in demo.items():
        peers = Peers(whole)
        targets = set(whole.references.values())
        written = {one for instances in whole.instances.values() for row in instances for one in row.profile}
        wanted = {one for one in written if one.text not in targets}
        found = {one for group in whole.groups for one in peers.of_group(group)}
        assert found == wanted, category
        assert len(found) > 1000
        # The pool grows by the targets of a user's training instances 0 to 6 and by nothing else.
        growing = Peers(whole, unused_targets=True)
        more = {one for group in whole.groups for one in growing.of_group(group)}
        used = [row for split in ("val", "test") for row in whole.split(split)]
        used += [row for row in whole.split("train") if row.id.endswith("/7")]
        assert more == {one for one in written if one.text not in {whole.references[row.id] for row in used}}
        assert len(more) > len(found)


# -- as a method sees them ---------------------------------------------------------------------------------------


def context(known: Corpus, pool: Peers | None, before_target: bool = False) -> Context:
    def no_embedder(texts: Sequence[str], encoder: str) -> np.typing.NDArray[np.float32]:
        raise AssertionError("nothing here embeds")

    return Context(
        task=Reviews(),
        corpus=known,
        method="dpl",
        templates=Templates({}, {}),
        chat=Chat("no model"),
        retriever=None,
        k=8,
        input_budget=100,
        run_seed=0,
        embedder=no_embedder,
        pool=pool,
        before_target=before_target,
    )


ANN, BOB, CAT = (
    instance(user, "test", [record(user, "A", f"{user} on A", time), record(user, "B", f"{user} on B", time)], 50)
    for user, time in (("ann", 10), ("bob", 50), ("cat", 49))
)
KNOWN = corpus({one: f"{one.user_id}'s target" for one in (ANN, BOB, CAT)})


def test_never_the_own_record() -> None:
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
    assert here.peers(record("ann", "C", "alone"), ANN) == []
    stranger = instance("eve", "test", [])
    assert texts(here.peers(record("eve", "A", "new"), stranger)) == ["ann on A", "bob on A", "cat on A"]


def test_a_method_that_did_not_say_that_it_compares_users() -> None:
    here = context(KNOWN, None)
    for ask in (lambda: here.peers(ANN.profile[0], ANN), lambda: here.user_vector("ann", "encoder")):
        with pytest.raises(PluginError, match="must declare inter_user=True"):
            ask()
