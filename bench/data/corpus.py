"""The data of one category: items, instances by split and, kept apart from them, the reference texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field
from functools import cached_property

from bench.errors import DataError
from bench.records import Instance, Item

SPLITS = ("train", "val", "test")


def longest_profiles(instances: Iterable[Instance]) -> dict[str, Instance]:
    """Of each user the instance with the longest profile, the last of equals, by user id."""
    longest: dict[str, Instance] = {}
    for instance in instances:
        known = longest.get(instance.user_id)
        if known is None or len(instance.profile) >= len(known.profile):
            longest[instance.user_id] = instance
    return longest


@dataclass(frozen=True)
class Corpus:
    """One category of a data set.

    `items` maps asin to item; `instances` maps a split's name to its instances in a fixed order;
    `references` maps an instance id to the text the user really wrote. `notes` are sentences that a table
    made from this data has to carry (where it comes from, what it stands in for).
    """

    category: str
    items: Mapping[str, Item]
    instances: Mapping[str, tuple[Instance, ...]]
    references: Mapping[str, str] = field(repr=False)
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> tuple[Instance, ...]:
        """The instances of a split. Raises `DataError` if the data set lacks it."""
        if name not in self.instances:
            have = ", ".join(self.instances) or "none"
            raise DataError(f"category {self.category} has no split '{name}' (it has: {have})")
        return self.instances[name]

    def longest_profiles(self, name: str) -> tuple[Instance, ...]:
        """Of each user the instance of a split with the longest profile, the last of equals: what DEP trains on."""
        return tuple(longest_profiles(self.split(name)).values())

    def reference(self, instance: Instance) -> str:
        """The text the user really wrote; never shown to a method."""
        return self.references[instance.id]

    def item(self, asin: str) -> Item:
        """The item of a review. Raises `DataError` for an asin that the data set does not describe."""
        try:
            return self.items[asin]
        except KeyError:
            raise DataError(f"category {self.category} has no item '{asin}', but a profile reviews it") from None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the whole content, as hex: part of a run's identity."""
        digest = hashlib.sha256()

        def feed(*values: object) -> None:
            digest.update(json.dumps(values, ensure_ascii=True, separators=(",", ":")).encode())
            digest.update(b"\n")

        feed(self.category)
        for asin in sorted(self.items):
            feed(*astuple(self.items[asin]))
        seen: dict[int, int] = {}
        for split in sorted(self.instances):
            for instance in self.instances[split]:
                feed(
                    instance.id,
                    instance.user_id,
                    instance.item.asin,
                    instance.rating,
                    instance.title,
                    instance.timestamp,
                    self.references[instance.id],
                )
                # Profiles of one user share their Review objects: hash each once, then refer to it by number.
                for review in instance.profile:
                    if id(review) not in seen:
                        seen[id(review)] = len(seen)
                        feed(review.user_id, review.asin, review.rating, review.title, review.text, review.timestamp)
                feed([seen[id(review)] for review in instance.profile])
        return digest.hexdigest()
