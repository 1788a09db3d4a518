"""From the rows of the published form to a corpus: DPL-main has a row for each instance, DPL-meta one for each item.

    {"user_id": "AE2...", "profile": [REVIEW, ...], "data": REVIEW}, a REVIEW being
        {"rating": 5.0, "title": "...", "text": "...", "asin": "B00...", "timestamp": 1588687728923}
    {"asin": "B00...", "title": "...", "description": "..."}

Rows of main are in splits train, val and test, those of meta in the split full.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bench.data.corpus import SPLITS, Corpus, collection_paused
from bench.data.origins import HUB
from bench.errors import DataError
from bench.records import ABSENT, Instance, Record
from bench.tasks.reviews import Item, instance, review

if TYPE_CHECKING:
    import polars
    import pyarrow

REVIEW_FIELDS = ("rating", "title", "text", "asin", "timestamp")
_INT64 = 1 << 63
_LARGEST = sys.float_info.max
ROWS = 128
"""Rows read or written at a time; a row holds up to 500 reviews."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file or a split: a batch of Arrow's, or one line of JSON."""

    where: str
    first: int
    """The number of the first row, from 1."""
    rows: pyarrow.RecordBatch | Row
    unit: str = "row"

    def numbered(self) -> Iterator[tuple[str, Row]]:
        """The rows as Python objects, each with where it stands."""
        rows = [self.rows] if isinstance(self.rows, Mapping) else self.rows.to_pylist()
        return ((f"{self.where}, {self.unit} {number:,}", row) for number, row in enumerate(rows, start=self.first))


Chunks = Iterator[Chunk]
Source = Callable[[str, str], Chunks]
"""Gives the rows of a data set ("main" or "meta") and split."""


def counted(where: str, batches: Iterable[pyarrow.RecordBatch]) -> Chunks:
    """Batches of a file or split as chunks."""
    first = 1
    for batch in batches:
        yield Chunk(where, first, batch)
        first += batch.num_rows


@dataclass
class _Reader:
    """Builds reviews, the same one only once: eight training rows of a user repeat nearly the whole profile.

    Counts the reviews of each item that the meta data does not describe, and the profiles that it had to sort."""

    items: Mapping[str, Item]
    seen: dict[Record, Record] = field(default_factory=dict)
    by_hash: dict[int, Record] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    unsorted: int = 0

    @cached_property
    def asins(self) -> polars.Series:
        """Those of the items."""
        import polars as pl

        return pl.Series(list(self.items), dtype=pl.String)

    def rows(self, chunk: Chunk) -> Iterator[tuple[str, Record, tuple[Record, ...]]]:
        """For each row: where it stands, the target and the profile. Raises `DataError` for a malformed row."""
        if not isinstance(chunk.rows, Mapping) and _is_as_published(chunk.rows):
            reviews, ends = _columns(chunk.rows)
            every = self._same_reviews(reviews) if reviews["rating"].is_finite().all() else None
            if every is not None:
                yield from self._from_columns(chunk, reviews, every, ends)
                return
        # Row by row, which also says in words what is wrong where.
        for where, row in chunk.numbered():
            user_id = _text(row, "user_id", where)
            profile = self._profile(user_id, row.get("profile"), where)
            yield where, self._review(user_id, row.get("data"), where), profile

    def _same_reviews(self, reviews: polars.DataFrame) -> list[Record] | None:
        """The reviews of a frame, equal ones the same object, without a Python object for each time that one occurs:
        they are found by a 64-bit hash. None if the hash of two different ones is the same."""
        import numpy as np

        hashes = reviews.hash_rows().to_numpy()
        keys, first, place = np.unique(hashes, return_index=True, return_inverse=True)
        different = reviews[first]
        if not different[place].equals(reviews):
            return None
        found = []
        rows = different.select("user_id", *REVIEW_FIELDS).iter_rows()
        for key, (user_id, rating, title, text, asin, timestamp) in zip(keys.tolist(), rows, strict=True):
            known = self.by_hash.get(key)
            if known is None:
                built = review(user_id, self._item(asin), float(rating), title or ABSENT, text, timestamp)
                known = self.by_hash[key] = self.seen.setdefault(built, built)
            elif (known.text, known.user_id, known.group, known.timestamp) != (text, user_id, asin, timestamp) or (
                known.fields["rating"],
                known.fields["title"],
            ) != (rating, title):
                return None
            found.append(known)
        return [found[index] for index in place.tolist()]

    def _from_columns(
        self, chunk: Chunk, reviews: polars.DataFrame, every: Sequence[Record], ends: Sequence[int]
    ) -> Iterator[tuple[str, Record, tuple[Record, ...]]]:
        """What `rows` gives, from all reviews of a chunk, as a frame and as objects, and where its rows end."""
        unknown = reviews["asin"].filter(reviews["asin"].is_in(self.asins.implode()).not_())
        for asin in unknown:
            self.missing[asin] = self.missing.get(asin, 0) + 1
        earlier = (reviews["timestamp"].diff() < 0).fill_null(False).arg_true().to_numpy()
        for number, (start, end) in enumerate(pairwise([0, *ends]), start=chunk.first):
            profile = list(every[start : end - 1])
            # The first review of a profile follows the target of the row before, whose time does not matter.
            if earlier.searchsorted(start + 1) < earlier.searchsorted(end - 1):
                self.unsorted += 1
                profile.sort(key=_time)
            yield f"{chunk.where}, {chunk.unit} {number:,}", every[end - 1], tuple(profile)

    def _review(self, user_id: str, record: Any, where: str) -> Record:
        if not isinstance(record, Mapping):
            raise _malformed(where, "a review is not an object of rating, title, text, asin, timestamp")
        asin, title, text = (_text(record, name, where) for name in ("asin", "title", "text"))
        rating, timestamp = record.get("rating"), record.get("timestamp")
        if isinstance(rating, bool) or not isinstance(rating, int | float):
            raise _malformed(where, f"rating is {rating!r:.60}, not a number")
        if not -_LARGEST <= rating <= _LARGEST:
            raise _malformed(where, f"rating is {rating!r:.60}, not a finite number")
        if isinstance(timestamp, bool) or not isinstance(timestamp, int) or not -_INT64 <= timestamp < _INT64:
            raise _malformed(where, f"timestamp is {timestamp!r:.60}, not a whole number of milliseconds")
        if asin not in self.items:
            self.missing[asin] = self.missing.get(asin, 0) + 1
        built = review(user_id, self._item(asin), float(rating), title or ABSENT, text, timestamp)
        return self.seen.setdefault(built, built)

    def _item(self, asin: str) -> Item:
        """An item; for one that is missing, which is an error once all are counted, one without a description."""
        return self.items.get(asin) or Item(asin, ABSENT, ABSENT)

    def _profile(self, user_id: str, records: Any, where: str) -> tuple[Record, ...]:
        if not isinstance(records, list):
            raise _malformed(where, "profile is not a list of reviews")
        reviews = [self._review(user_id, record, where) for record in records]
        if any(_time(older) > _time(newer) for older, newer in pairwise(reviews)):
            self.unsorted += 1
            reviews.sort(key=_time)
        return tuple(reviews)


def _time(record: Record) -> int:
    """When a review was written, which all of this form say."""
    assert record.timestamp is not None
    return record.timestamp


def _is_as_published(batch: pyarrow.RecordBatch) -> bool:
    """Whether a batch of main has the columns and types of the published form and no gaps."""
    import pyarrow.types as types

    def is_text(kind: Any) -> bool:
        return bool(types.is_string(kind) or types.is_large_string(kind))

    def are_reviews(structs: Any) -> bool:
        fits: dict[str, Callable[[Any], bool]] = dict.fromkeys(("title", "text", "asin"), is_text)
        fits["rating"] = lambda kind: bool(types.is_floating(kind) or types.is_integer(kind))
        fits["timestamp"] = types.is_signed_integer
        if not types.is_struct(structs.type) or structs.null_count:
            return False
        kinds = {column.name: column.type for column in structs.type}
        return all(name in kinds and fits[name](kinds[name]) and not structs.field(name).null_count for name in fits)

    if not {"user_id", "profile", "data"} <= set(batch.schema.names):
        return False
    users, profiles = batch.column("user_id"), batch.column("profile")
    if not is_text(users.type) or not (types.is_list(profiles.type) or types.is_large_list(profiles.type)):
        return False
    if users.null_count or profiles.null_count:
        return False
    return are_reviews(profiles.flatten()) and are_reviews(batch.column("data"))


def _columns(batch: pyarrow.RecordBatch) -> tuple[polars.DataFrame, list[int]]:
    """All reviews of a batch of main with their user, each row's profile and then its target; and where rows end."""
    import numpy as np
    import polars as pl
    import pyarrow.compute as pc

    profiles = batch.column("profile")
    past, targets = profiles.flatten(), batch.column("data")
    sizes = pc.list_value_length(profiles).to_numpy(zero_copy_only=False) + 1
    ends = np.cumsum(sizes)
    is_target = np.zeros(len(past) + len(targets), dtype=bool)
    is_target[ends - 1] = True
    # Where a place's review stands in the profiles' reviews followed by the targets.
    order = np.empty(len(is_target), dtype=np.int64)
    order[~is_target] = np.arange(len(past))
    order[is_target] = np.arange(len(past), len(order))
    kinds = {"rating": pl.Float64, "timestamp": pl.Int64}
    columns = {
        "user_id": pl.Series(pl.from_arrow(batch.column("user_id"))).gather(np.repeat(np.arange(len(ends)), sizes))
    }
    for name in REVIEW_FIELDS:
        parts = [pl.Series(pl.from_arrow(reviews.field(name))) for reviews in (past, targets)]
        columns[name] = pl.concat([part.cast(kinds.get(name, pl.String)) for part in parts]).gather(order)
    return pl.DataFrame(columns), ends.tolist()


def corpus_of(category: str, chunks: Source, origin: str, notes: Sequence[str] = ()) -> Corpus:
    """A category from its rows; `origin` and `notes` say where they come from. Raises `DataError` for malformed rows
    and if the meta data does not describe an item that is reviewed."""
    items = dict(_item(row, where) for chunk in chunks("meta", "full") for where, row in chunk.numbered())
    reader = _Reader(items)
    instances: dict[str, tuple[Instance, ...]] = {}
    references: dict[str, str] = {}
    for split in SPLITS:
        with collection_paused():
            found = list(_instances(category, split, chunks("main", split), reader))
        instances[split] = tuple(one for one, _ in found)
        references |= {one.id: text for one, text in found}
    _check_items(category, reader)
    told = [f"{category}: {len(instances['test']):,} test users, from {origin}.", *notes]
    if reader.unsorted:
        told.append(f"{category}: {reader.unsorted:,} profiles were not in the order of time and were sorted.")
    return Corpus(category, instances, references, frozenset(items), tuple(told))


def _instances(category: str, split: str, chunks: Chunks, reader: _Reader) -> Iterator[tuple[Instance, str]]:
    """The instances of a split with their reference texts."""
    counts: dict[str, int] = {}
    for chunk in chunks:
        for where, target, profile in reader.rows(chunk):
            k = counts[target.user_id] = counts.get(target.user_id, -1) + 1
            if split != "train" and k:
                raise _malformed(where, f"user {target.user_id} has a second row in split {split}")
            suffix = f"/{k}" if split == "train" else ""
            yield instance(category, split, target, profile, suffix), target.text


def _item(row: Row, where: str) -> tuple[str, Item]:
    asin, title, description = (_text(row, name, where) for name in ("asin", "title", "description"))
    return asin, Item(asin, title or ABSENT, description or ABSENT)


def _text(record: Row, name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise _malformed(where, f"{name} is {value!r:.60}, not a text")
    return value


def _malformed(where: str, what: str) -> DataError:
    return DataError(f"{where}: {what}; the data has to be in the form of {HUB}")


def _check_items(category: str, reader: _Reader) -> None:
    if reader.missing:
        asin, count = next(iter(reader.missing.items()))
        more = f", as are {len(reader.missing) - 1:,} other items" if len(reader.missing) > 1 else ""
        raise DataError(
            f"category {category}: item {asin}, reviewed {count:,} times, is missing from the meta data{more}; "
            "fetch main and meta of the same revision"
        )
