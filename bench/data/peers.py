"""Peers: what other users wrote in a group (about an item), and nothing that anyone has to predict."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain

from bench.data.corpus import Corpus, longest_profiles
from bench.records import Record


class Peers:
    """The records in the histories of a category's users, without any whose text is the target of an instance.

    DPL's published form has a training instance for each of a user's reviews k=0..7 after the history, of which DEP
    trains on the last. With `unused_targets` the targets of the others stay in the pool, as in the authors' released
    code; without it no target text of any split is in it.
    """

    def __init__(self, corpus: Corpus, unused_targets: bool = False) -> None:
        used = list(corpus.instances.get("train", ()))
        if used and unused_targets:
            used = list(corpus.longest_profiles("train"))
        used += [i for split, instances in corpus.instances.items() if split != "train" for i in instances]
        targets = {corpus.references[instance.id] for instance in used}
        everyone = longest_profiles(chain.from_iterable(corpus.instances.values()))
        self._by_user: dict[str, tuple[Record, ...]] = {
            user: tuple(record for record in instance.profile if record.text not in targets)
            for user, instance in everyone.items()
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

    def of_user(self, user_id: str) -> tuple[Record, ...]:
        """A user's own records in the pool, ascending in time; empty for a user whom the data set does not know."""
        return self._by_user.get(user_id, ())
