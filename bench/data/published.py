"""The form in which DPL's authors published their splits: two data sets, DPL-main and DPL-meta.

A row of DPL-main (splits train, val, test; one configuration a category) and one of DPL-meta (split full):

    {"user_id": "AE2...", "profile": [REVIEW, ...], "data": REVIEW}, a REVIEW being
        {"rating": 5.0, "title": "...", "text": "...", "asin": "B00...", "timestamp": 1588687728923}
    {"asin": "B00...", "title": "...", "description": "..."}

On the Hugging Face hub they are "<owner>/<name>-main" and "<owner>/<name>-meta". A local copy is a folder with

    FOLDER/main/<category>/{train,val,test}.{parquet,jsonl,arrow}
    FOLDER/meta/<category>/full.{parquet,jsonl,arrow}

where a split may also be a folder that `datasets` wrote with `save_to_disk`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.corpus import SPLITS, Corpus
from bench.errors import DataError, ResourceError
from bench.records import Instance, Item, Review

if TYPE_CHECKING:
    import datasets

Row = Mapping[str, Any]
Rows = Iterator[tuple[str, Row]]
"""Rows, each with where it stands."""
Source = Callable[[str, str], Rows]
"""Gives the rows of a data set ("main" or "meta") and split."""

HUB = "SnowCharmQ/DPL-main"
_FORMS = ("parquet", "jsonl", "arrow")
_CHUNK = 128  # rows turned into Python objects at a time; a row holds up to 500 reviews


def categories(folder: Path) -> list[str]:
    """The categories of a local copy, sorted; empty if `folder` is none."""
    return sorted(path.name for path in (folder / "main").glob("*") if path.is_dir() and not path.name.startswith("."))


def read(folder: Path, category: str) -> Corpus:
    """One category of a local copy. Raises `DataError` for files that are missing, broken or inconsistent."""

    def rows(part: str, split: str) -> Rows:
        return _local_rows(folder / part / category, split)

    return _corpus(category, rows, f"the published splits in folder {folder.name}")


def hub_categories(name: str, revision: str | None) -> list[str]:
    """The categories of a data set on the hub. Raises `ResourceError` if the hub cannot be reached."""
    import datasets

    main, (main_revision, _) = name, _revisions(revision)
    try:
        return [str(config) for config in datasets.get_dataset_config_names(main, revision=main_revision)]
    except _hub_errors() as error:
        raise _unreachable(main, error) from error


def read_hub(name: str, category: str, revision: str | None) -> Corpus:
    """One category of the data set `name` ("owner/DPL-main") on the hub, with the items of "owner/DPL-meta".

    `revision` is a branch, tag or commit of both data sets, or "MAIN,META" for one each. Raises `ResourceError` if
    the hub cannot be reached, `DataError` for data of another form.
    """
    if not name.endswith("-main"):
        raise DataError(
            f"data set '{name}' on the hub: the name has to end in '-main'; the items are then looked up in '...-meta'"
        )
    revisions = _revisions(revision)
    names = (name, name.removesuffix("-main") + "-meta")
    parts = {
        part: _load(repository, category, wanted)
        for part, repository, wanted in zip(("main", "meta"), names, revisions, strict=True)
    }

    def rows(part: str, split: str) -> Rows:
        where = f"{names[part == 'meta']}, {category}, split {split}"
        if split not in parts[part]:
            raise DataError(f"{where}: there is no such split; this is not the form of {HUB}")
        return _numbered(
            where, (row for batch in parts[part][split].with_format("arrow").iter(_CHUNK) for row in batch.to_pylist())
        )

    at = f" at revision {revision}" if revision else ""
    return _corpus(category, rows, f"{names[0]} and {names[1]} on the Hugging Face hub{at}")


def _revisions(revision: str | None) -> tuple[str | None, str | None]:
    main, _, meta = (revision or "").partition(",")
    return main or None, meta or main or None


def _hub_errors() -> tuple[type[Exception], ...]:
    import httpx

    return (OSError, httpx.HTTPError)


def _load(repository: str, category: str, revision: str | None) -> datasets.DatasetDict:
    import datasets

    try:
        return datasets.load_dataset(repository, category, revision=revision)
    except _hub_errors() as error:
        raise _unreachable(repository, error) from error
    except ValueError as error:
        raise DataError(f"{repository} cannot be read as category {category}: {_first_line(error)}") from error


def _unreachable(repository: str, error: Exception) -> ResourceError:
    return ResourceError(
        f"data set {repository} could not be fetched from the Hugging Face hub ({_first_line(error)}); check the name, "
        "the revision ('MAIN,META' where the two differ) and the connection, or give --dataset a local copy "
        "(FOLDER/main/<category>/..., FOLDER/meta/<category>/...) or a folder made by `bench data prepare`"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# Reading local files.


def _local_rows(home: Path, split: str) -> Rows:
    readers: dict[str, Callable[[Path], Rows]] = {"parquet": _parquet, "jsonl": _jsonl, "arrow": _arrow}
    for form in _FORMS:
        path = home / f"{split}.{form}"
        if path.is_file():
            return readers[form](path)
    shards = sorted((home / split).glob("data-*.arrow"))
    if shards:
        return (row for shard in shards for row in _arrow(shard))
    raise DataError(
        f"{home} has no {split}.{{{','.join(_FORMS)}}}; a local copy needs main/<category>/ and meta/<category>/"
    )


def _numbered(where: str, rows: Iterator[Row]) -> Rows:
    return ((f"{where}, row {number:,}", row) for number, row in enumerate(rows, start=1))


def _parquet(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet

    def rows() -> Iterator[Row]:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(_CHUNK):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise _broken(path, error) from error

    return _numbered(str(path), rows())


def _arrow(path: Path) -> Rows:
    import pyarrow as pa

    def rows() -> Iterator[Row]:
        try:
            with pa.memory_map(str(path)) as file:
                is_file = file.read(6) == b"ARROW1"
                file.seek(0)
                table = (pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)).read_all()
                for batch in table.to_batches(_CHUNK):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise _broken(path, error) from error

    return _numbered(str(path), rows())


def _jsonl(path: Path) -> Rows:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                where = f"{path}, line {number:,}"
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise DataError(f"{where}: not valid JSON ({error}); fetch the file again") from error
                if not isinstance(row, dict):
                    raise DataError(f"{where}: not a JSON object; fetch the file again")
                yield where, row
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read ({_first_line(error)}); fetch the file again")


# From rows to a corpus.


@dataclass
class _Reader:
    """Builds reviews, the same one only once: eight training rows of a user repeat nearly the whole profile."""

    items: Mapping[str, Item]
    seen: dict[Review, Review] = field(default_factory=dict)
    lacking: dict[str, int] = field(default_factory=dict)
    unsorted: int = 0

    def review(self, user_id: str, record: Any, where: str) -> Review:
        if not isinstance(record, Mapping):
            raise _malformed(where, "a review is not an object of rating, title, text, asin, timestamp")
        asin, title, text = (_text(record, name, where) for name in ("asin", "title", "text"))
        rating, timestamp = record.get("rating"), record.get("timestamp")
        if isinstance(rating, bool) or not isinstance(rating, int | float):
            raise _malformed(where, f"rating is {rating!r:.60}, not a number")
        if isinstance(timestamp, bool) or not isinstance(timestamp, int):
            raise _malformed(where, f"timestamp is {timestamp!r:.60}, not a whole number of milliseconds")
        if asin not in self.items:
            self.lacking[asin] = self.lacking.get(asin, 0) + 1
        review = Review(user_id, asin, float(rating), title, text, timestamp)
        return self.seen.setdefault(review, review)

    def profile(self, user_id: str, records: Any, where: str) -> tuple[Review, ...]:
        if not isinstance(records, list):
            raise _malformed(where, "profile is not a list of reviews")
        reviews = [self.review(user_id, record, where) for record in records]
        if any(older.timestamp > newer.timestamp for older, newer in pairwise(reviews)):
            self.unsorted += 1
            reviews.sort(key=lambda review: review.timestamp)
        return tuple(reviews)


def _corpus(category: str, rows: Source, origin: str) -> Corpus:
    items = dict(_item(row, where) for where, row in rows("meta", "full"))
    reader = _Reader(items)
    instances: dict[str, tuple[Instance, ...]] = {}
    references: dict[str, str] = {}
    for split in SPLITS:
        found: list[Instance] = []
        counts: dict[str, int] = {}
        for where, row in rows("main", split):
            user_id = _text(row, "user_id", where)
            profile = reader.profile(user_id, row.get("profile"), where)
            target = reader.review(user_id, row.get("data"), where)
            k = counts[user_id] = counts.get(user_id, -1) + 1
            if split != "train" and k:
                raise _malformed(where, f"user {user_id} has a second row in split {split}")
            identity = f"{category}/{split}/{user_id}" + (f"/{k}" if split == "train" else "")
            references[identity] = target.text
            if target.asin in items:
                found.append(_instance(identity, category, split, target, items[target.asin], profile))
        instances[split] = tuple(found)
    _check_items(category, reader)
    notes = [f"{category}: {len(instances['test']):,} test users, from {origin}."]
    if reader.unsorted:
        notes.append(f"{category}: {reader.unsorted:,} profiles were not in the order of time and were sorted.")
    return Corpus(category, items, instances, references, tuple(notes))


def _instance(
    identity: str, category: str, split: str, target: Review, item: Item, profile: tuple[Review, ...]
) -> Instance:
    return Instance(
        identity, category, split, target.user_id, item, target.rating, target.title, target.timestamp, profile
    )


def _item(row: Row, where: str) -> tuple[str, Item]:
    asin, title, description = (_text(row, name, where) for name in ("asin", "title", "description"))
    return asin, Item(asin, title, description)


def _text(record: Row, name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise _malformed(where, f"{name} is {value!r:.60}, not a text")
    return value


def _malformed(where: str, what: str) -> DataError:
    return DataError(f"{where}: {what}; the data has to be in the form of {HUB}")


def _check_items(category: str, reader: _Reader) -> None:
    if reader.lacking:
        asin, count = next(iter(reader.lacking.items()))
        more = f", as are {len(reader.lacking) - 1:,} other items" if len(reader.lacking) > 1 else ""
        raise DataError(
            f"category {category}: item {asin}, reviewed {count:,} times, is missing from the meta data{more}; "
            "fetch main and meta of the same revision"
        )
