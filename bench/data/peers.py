"""Peers: what other users wrote in a group (about an item), and nothing that anyone has to predict."""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import cached_property
from itertools import chain

from bench.data.corpus import Corpus, longest_profiles
from bench.records import Record


class Peers:
    """The records in the histories of a category's users, without any whose text is the target of an instance.

    DPL's published form has a training instance for each of a user's reviews k=0..7 after the history, of which DEP
    trains on the last. The authors' released code has two other pools: with `unused_targets` (DEP's) only the targets
    that an adapter is trained on, validated or tested with leave it, each from its own user's records alone, so that
    another user's review of the same words stays; with `all_targets` (DPL's) nothing leaves it.
    """

    def __init__(self, corpus: Corpus, unused_targets: bool = False, all_targets: bool = False) -> None:
        trained = corpus.longest_profiles("train") if corpus.instances.get("train") else ()
        later = [i for split, instances in corpus.instances.items() if split != "train" for i in instances]
        # Of users as of texts: a target of the user's own.
        own = {(i.user_id, corpus.target_text(i)) for i in (*trained, *later)}
        texts = {corpus.target_text(i) for i in chain(corpus.instances.get("train", ()), later)}
        self._trained = {(i.user_id, corpus.target_text(i)) for i in trained}

        def stays(record: Record) -> bool:
            if all_targets:
                return True
            return (record.user_id, record.text) not in own if unused_targets else record.text not in texts

        self._profiles = {
            user: instance.profile
            for user, instance in longest_profiles(chain.from_iterable(corpus.instances.values())).items()
        }
        self._by_user: dict[str, tuple[Record, ...]] = {
            user: tuple(record for record in profile if stays(record)) for user, profile in self._profiles.items()
        }

    @cached_property
    def _by_group(self) -> dict[str, list[Record]]:
        by_group: dict[str, list[Record]] = {}
        for user in sorted(self._by_user):
            for record in self._by_user[user]:
                if record.group is not None:
                    by_group.setdefault(record.group, []).append(record)
        return by_group

    def of_group(self, group: str | None, but: Sequence[str] = ()) -> list[Record]:
        """The records of a group by other users than those in `but`, in the order of the user ids; empty for None, the
        group of what shares nothing."""
        if group is None:
            return []
        return [record for record in self._by_group.get(group, ()) if record.user_id not in but]

    def users(self) -> Set[str]:
        """Those who have a record in the pool."""
        return {user for user, records in self._by_user.items() if records}

    def of_user(self, user_id: str, with_target: bool = False) -> tuple[Record, ...]:
        """A user's own records in the pool, ascending in time; empty for a user whom the data set does not know. With
        `with_target` also the one that an adapter is trained to write."""
        kept = self._by_user.get(user_id, ())
        if not with_target:
            return kept
        there = set(map(id, kept))
        return tuple(
            record
            for record in self._profiles.get(user_id, ())
            if id(record) in there or (user_id, record.text) in self._trained
        )
