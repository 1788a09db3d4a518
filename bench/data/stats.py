"""What a data set is like: its sizes (the paper's Table 4), what decides how far a run on it can be trusted, and what
predictions without a model score."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from bench.batch import Batch
from bench.data.corpus import Corpus, longest_profiles
from bench.data.peers import Peers
from bench.records import Instance, Record

NEWEST = 8
"""How many of a test instance's newest profile records are looked at for peers: the paper's K."""
GRAM = 5
"""Words of a gram, of which near-duplicates share at least 80%."""


# ---- sizes


@dataclass(frozen=True)
class Sizes:
    """A row of Table 4: instances, profile size in records and reference length in characters. Standard deviations
    are the population's; without instances they and the means are None."""

    instances: int
    profile_mean: float | None
    profile_sd: float | None
    length_mean: float | None
    length_sd: float | None


def sizes(instances: Sequence[Instance], corpora: Mapping[str, Corpus]) -> Sizes:
    """The sizes of instances of one or several categories; `corpora` has their references, by category."""
    if not instances:
        return Sizes(0, None, None, None, None)
    profiles = np.asarray([len(instance.profile) for instance in instances])
    lengths = np.asarray([len(corpora[instance.category].reference(instance)) for instance in instances])
    means = float(profiles.mean()), float(profiles.std()), float(lengths.mean()), float(lengths.std())
    return Sizes(len(instances), *means)


# ---- how far a run on a category can be trusted


@dataclass(frozen=True)
class Proportion:
    """How many of how many."""

    count: int
    of: int


@dataclass(frozen=True)
class Trust:
    """One category. For each user the records of the longest profile count, and the targets that are not in it.

    `peers_mean` and `peers_median` are None if no test instance has a profile, `in_other_categories` if there is no
    other category.
    """

    items: int
    """Groups: what peers share."""
    users: int
    reviews: int
    """Records."""
    in_other_categories: Proportion | None
    """Users that another category of the data has too."""
    peers_mean: float | None
    peers_median: float | None
    """Peers' records of the group, over the newest `NEWEST` profile reviews of all test instances."""
    without_peers: Proportion
    without_history: Proportion
    """Test instances with an empty profile."""
    peers_of_target: Proportion
    """Test instances whose group has a peer's record."""
    tied_users: Proportion
    """Users with two records of the same time."""
    tied_targets: Proportion
    """Test instances whose target has the very time of its newest profile record."""
    repeats_by_same_user: Proportion
    """Records whose exact text another record of the same user has."""
    repeats_by_others: Proportion
    exact_in_profile: Proportion
    """Test targets with the same text in their own profile."""
    near_in_profile: Proportion
    exact_in_peers: Proportion
    """Test targets with the same text among the peers' records of their group."""
    near_in_peers: Proportion


def trust(corpus: Corpus, others: Iterable[Corpus] = (), advance: Callable[[], None] = lambda: None) -> Trust:
    """Everything about one category, exactly. `others` are the other categories of the data; `advance` is called
    after each test instance. Raises `DataError` if the category has no test split."""
    test = corpus.split("test")
    records = records_by_user(corpus)
    total = sum(map(len, records.values()))
    elsewhere = [{instance.user_id for instance in _instances(other)} for other in others]
    shared = Proportion(len(records.keys() & set().union(*elsewhere)), len(records))
    pool = Peers(corpus)
    peers = _peers_of_newest(test, pool)
    by_same, by_others = _repeats(records.values())
    found: Counter[str] = Counter()
    for instance in test:
        found.update(_copies(corpus.target_text(instance), instance, pool))
        advance()
    return Trust(
        items=len(corpus.groups),
        users=len(records),
        reviews=total,
        in_other_categories=shared if elsewhere else None,
        peers_mean=float(np.mean(peers)) if peers else None,
        peers_median=float(np.median(peers)) if peers else None,
        without_peers=Proportion(peers.count(0), len(peers)),
        without_history=Proportion(sum(not instance.profile for instance in test), len(test)),
        peers_of_target=Proportion(
            sum(bool(pool.of_group(instance.group, but=(instance.user_id,))) for instance in test), len(test)
        ),
        tied_users=Proportion(sum(map(_has_tie, records.values())), len(records)),
        tied_targets=Proportion(sum(map(_target_is_tied, test)), len(test)),
        repeats_by_same_user=Proportion(by_same, total),
        repeats_by_others=Proportion(by_others, total),
        **{
            name: Proportion(found[name], len(test))
            for name in ("exact_in_profile", "near_in_profile", "exact_in_peers", "near_in_peers")
        },
    )


def _instances(corpus: Corpus) -> Iterable[Instance]:
    return chain.from_iterable(corpus.instances.values())


def records_by_user(corpus: Corpus) -> dict[str, list[Record]]:
    """All records of a category by user: those of the longest profile and, after them, the targets not in it.

    A target is in a profile if a record there has its text, group and time. It has no fields here: no two tasks give
    the same names to what is known of a target and of a record.
    """
    records = {user: list(instance.profile) for user, instance in longest_profiles(_instances(corpus)).items()}
    known = {user: {_key(record) for record in written} for user, written in records.items()}
    for instance in _instances(corpus):
        target = Record(instance.user_id, corpus.target_text(instance), {}, instance.group, instance.timestamp)
        if _key(target) not in known[instance.user_id]:
            known[instance.user_id].add(_key(target))
            records[instance.user_id].append(target)
    return records


def _key(record: Record) -> tuple[str, str | None, int | None]:
    return record.text, record.group, record.timestamp


def _peers_of_newest(instances: Iterable[Instance], pool: Peers) -> list[int]:
    """For each of the newest records of each profile, how many records of its group the pool has by other users."""
    writers: dict[str | None, Counter[str]] = {}
    counts = []
    for instance in instances:
        for record in instance.profile[-NEWEST:]:
            if record.group not in writers:
                writers[record.group] = Counter(peer.user_id for peer in pool.of_group(record.group))
            counts.append(writers[record.group].total() - writers[record.group][instance.user_id])
    return counts


def _has_tie(records: Sequence[Record]) -> bool:
    times = [record.timestamp for record in records if record.timestamp is not None]
    return len(set(times)) < len(times)


def _target_is_tied(instance: Instance) -> bool:
    return instance.timestamp is not None and any(
        record.timestamp == instance.timestamp for record in instance.profile[-1:]
    )


def _repeats(users: Iterable[Sequence[Record]]) -> tuple[int, int]:
    """How many records have a text that another one of the same user has, and one of another user."""
    writers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in chain.from_iterable(users):
        writers[record.text][record.user_id] += 1
    by_same = sum(count for users_of in writers.values() for count in users_of.values() if count > 1)
    by_others = sum(users_of.total() for users_of in writers.values() if len(users_of) > 1)
    return by_same, by_others


# ---- near-duplicates


def _copies(target: str, instance: Instance, pool: Peers) -> list[str]:
    """Which kinds of copies of its target an instance has."""
    own = {record.text for record in instance.profile}
    peers = {record.text for record in pool.of_group(instance.group, but=(instance.user_id,))}
    similar = NearDuplicates(target)
    kinds = []
    for where, texts in (("profile", own), ("peers", peers)):
        kinds += [f"exact_in_{where}"] if target in texts else []
        kinds += [f"near_in_{where}"] if any(similar.has(text) for text in texts if text != target) else []
    return kinds


class NearDuplicates:
    """The texts that are nearly a given one: the Jaccard similarity of the two sets of word 5-grams is 0.8 or more.

    Words are runs of letters, digits and underscores, lower-cased; a text of fewer than five words is one gram, one
    without any word is similar to nothing.
    """

    def __init__(self, text: str) -> None:
        self._grams = _grams(text.lower())
        self._longest = Counter(max(gram, key=len) for gram in self._grams).most_common()

    def has(self, text: str) -> bool:
        """Whether `text` is nearly the given text, or the same."""
        lowered = text.lower()
        if not self._grams or self._misses_too_many(lowered):
            return False
        grams = _grams(lowered)
        # In whole numbers: a similarity of exactly 0.8 has to count.
        return 5 * len(self._grams & grams) >= 4 * len(self._grams | grams)

    def _misses_too_many(self, lowered: str) -> bool:
        """Whether a text certainly misses more than a fifth of the grams: those whose longest word it has nowhere.
        Almost all texts are told apart so, about 14 times as fast as by their grams."""
        missing = 0
        for word, grams in self._longest:
            if word not in lowered:
                missing += grams
                if 5 * missing > len(self._grams):
                    return True
        return False


def _grams(lowered: str) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", lowered)
    if len(words) < GRAM:
        return frozenset([tuple(words)] if words else [])
    return frozenset(zip(*(words[start:] for start in range(GRAM)), strict=False))


# ---- writers without a model

FLOORS = {
    "copy": "the user's last review",
    "peer": "another user's review of the item",
    "random": "any other user's review",
}
"""The writers that any data set of reviews has, with what they repeat."""


@dataclass(frozen=True)
class Floor:
    """What a writer scores over so many instances; None over none."""

    rouge1: float | None
    instances: int


def floors(corpus: Corpus) -> dict[str, Floor]:
    """Mean ROUGE-1 (F-measure, no stemming) on the test split for writers that need no model, by the names in `FLOORS`,
    each with the instances that it has a text for. Reviews that are drawn are the same each time, and never one that
    anyone has to write. Raises `DataError` if the category has no test split."""
    from bench.metrics.rouge import Rouge

    pool, rouge = Peers(corpus), Rouge()
    users = sorted(pool.users())
    every = [record for user in users for record in pool.of_user(user)]
    pairs: dict[str, list[tuple[str, str]]] = {name: [] for name in FLOORS}
    for instance in corpus.split("test"):
        draw = random.Random(f"floors {instance.id}")
        peers = pool.of_group(instance.group, but=(instance.user_id,))
        written = {
            "copy": instance.profile[-1:],
            "peer": [draw.choice(peers)] if peers else [],
            "random": [_of_another(every, instance.user_id, draw)] if users and users != [instance.user_id] else [],
        }
        for name, records in written.items():
            pairs[name] += [(record.text, corpus.reference(instance)) for record in records]
    found = {}
    for name, texts in pairs.items():
        own, references = [one for one, _ in texts], [other for _, other in texts]
        score = float(rouge.aggregate(rouge.rows(Batch(own, references)))["rouge1"]) if texts else None
        found[name] = Floor(score, len(texts))
    return found


def _of_another(records: Sequence[Record], user_id: str, draw: random.Random) -> Record:
    while (record := draw.choice(records)).user_id == user_id:
        pass
    return record


def floors_note(corpus: Corpus) -> str:
    """What writers that need no model score on a category, as a sentence."""
    total = len(corpus.split("test"))
    told = []
    for name, floor in floors(corpus).items():
        of = f" (of {floor.instances:,} of {total:,} instances)" if 0 < floor.instances < total else ""
        told.append(f"{FLOORS[name]} {'–' if floor.rouge1 is None else f'{floor.rouge1:.3f}'}{of}")
    return f"ROUGE-1 without a model on the test split of {corpus.category}: {', '.join(told)}."


def demo_floors() -> str:
    """What predictions that need no model score on the demo, as a sentence."""
    from bench.data.demo import floors

    scores = floors()
    return (
        f"ROUGE-1 without a model on the test split: the user's last review {scores['copy']:.3f}, another user's "
        f"review of the item {scores['peer']:.3f}, any other user's review {scores['random']:.3f}; the same user "
        f"reviewing the same item again (the oracle) {scores['oracle']:.3f}."
    )
