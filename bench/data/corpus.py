"""The data of one category: instances by split and, kept apart from them, the reference texts."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from bench.errors import DataError
from bench.records import Absent, Fields, Instance, Record

SPLITS = ("train", "val", "test")
_LONG = 64  # characters; a longer field is hashed once and then named by a number


def longest_profiles(instances: Iterable[Instance]) -> dict[str, Instance]:
    """For each user the instance with the longest profile, the last of equals, by user id."""
    longest: dict[str, Instance] = {}
    for instance in instances:
        known = longest.get(instance.user_id)
        if known is None or len(instance.profile) >= len(known.profile):
            longest[instance.user_id] = instance
    return longest


@contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage collection in the block: it would visit the records that are being built again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True)
class Corpus:
    """One category of a data set.

    `instances` maps a split's name to its instances in a fixed order; `references` maps an instance's id to the text
    that the user really wrote. Where a record of the target would have another text, `target_texts` maps the id to it:
    who predicts the rating of a review knows the review. `groups` holds the ids of all groups that the data knows, also
    those without a record.
    `notes` are sentences that a table made from this data has to carry (where it comes from, what it stands in for).
    """

    category: str
    instances: Mapping[str, tuple[Instance, ...]]
    references: Mapping[str, str] = field(repr=False)
    target_texts: Mapping[str, str] = field(default_factory=dict, repr=False, kw_only=True)
    groups: frozenset[str] = field(default=frozenset(), repr=False)
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> tuple[Instance, ...]:
        """The instances of a split. Raises `DataError` if the data set has no such split."""
        if name not in self.instances:
            have = ", ".join(self.instances) or "none"
            raise DataError(f"category {self.category} has no split '{name}' (it has: {have})")
        return self.instances[name]

    def longest_profiles(self, name: str) -> tuple[Instance, ...]:
        """For each user the instance of a split with the longest profile, the last of equals: what DEP trains on."""
        return tuple(longest_profiles(self.split(name)).values())

    def reference(self, instance: Instance) -> str:
        """The text the user really wrote; never shown to a method."""
        return self.references[instance.id]

    def target_text(self, instance: Instance) -> str:
        """The text that a record of the target has or would have; no peer's record may have it."""
        return self.target_texts.get(instance.id, self.references[instance.id])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything but the notes, as hex: part of a run's identity."""
        digest = _Digest()
        digest.row(self.category, sorted(self.groups))
        for split in sorted(self.instances):
            for instance in self.instances[split]:
                digest.row(
                    instance.id,
                    instance.split,
                    instance.user_id,
                    instance.group,
                    instance.timestamp,
                    digest.fields(instance.given),
                    digest.records(instance.profile),
                    text=self.references[instance.id],
                )
        return digest.hex()


class _Digest:
    """SHA-256 over rows of JSON, each followed by a text. Records and long fields stand in many rows: each is hashed
    once, in a row of its own, and has a number then. Rows of different kinds have different lengths."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._encode = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode
        self._records: dict[int, int] = {}
        self._texts: dict[str, int] = {}

    def row(self, *values: object, text: str = "") -> None:
        content = text.encode("utf-8", "surrogatepass")
        self._sha256.update(self._encode((*values, len(content))).encode())
        self._sha256.update(content)

    def records(self, records: Sequence[Record]) -> list[int]:
        """The numbers of records. The profiles of one user share their records, so the same object is enough."""
        known = self._records
        for record in records:
            if id(record) not in known:
                known[id(record)] = len(known)
                self.row(record.user_id, record.group, record.timestamp, self.fields(record.fields), text=record.text)
        return [known[id(record)] for record in records]

    def fields(self, fields: Fields) -> dict[str, object]:
        """Fields with the numbers of long texts, each in a list, in their place, and None for those that the data
        lack: a prompt shows these in another way than empty texts."""
        return {name: self._field(value) for name, value in fields.items()}

    def _field(self, value: str | float) -> object:
        if isinstance(value, Absent):
            return None
        return [self._text(value)] if isinstance(value, str) and len(value) > _LONG else value

    def _text(self, text: str) -> int:
        number = self._texts.get(text)
        if number is None:
            number = self._texts[text] = len(self._texts)
            self.row(text=text)
        return number

    def hex(self) -> str:
        return self._sha256.hexdigest()
