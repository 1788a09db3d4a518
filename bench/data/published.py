"""The form in which DPL's authors published their splits: two data sets, DPL-main and DPL-meta.

A row of DPL-main (splits train, val, test; one configuration a category) and one of DPL-meta (split full):

    {"user_id": "AE2...", "profile": [REVIEW, ...], "data": REVIEW}, a REVIEW being
        {"rating": 5.0, "title": "...", "text": "...", "asin": "B00...", "timestamp": 1588687728923}
    {"asin": "B00...", "title": "...", "description": "..."}

On the Hugging Face hub they are "<owner>/<name>-main" and "<owner>/<name>-meta". A local copy is a folder with

    FOLDER/main/<category>/{train,val,test}.{parquet,jsonl,arrow}
    FOLDER/meta/<category>/full.{parquet,jsonl,arrow}

where a split may also be a folder that `datasets` wrote with `save_to_disk`. FOLDER/fetched.json, which `bench data
fetch` writes, and FOLDER/exported.json, which `write` writes, say where the copy comes from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.corpus import SPLITS, Corpus
from bench.data.prepared import collection_paused, staging
from bench.errors import DataError, ResourceError
from bench.records import Instance, Item, Review
from bench.store import replace_content

if TYPE_CHECKING:
    import datasets
    import polars
    import pyarrow

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

HUB = "SnowCharmQ/DPL-main"
FETCHED = "fetched.json"
EXPORTED = "exported.json"
_REVIEW = ("rating", "title", "text", "asin", "timestamp")
_FORMS = ("parquet", "jsonl", "arrow")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHUNK = 128  # rows read or written at a time; a row holds up to 500 reviews


def categories(folder: Path) -> list[str]:
    """The categories of a local copy, sorted; empty if `folder` is none."""
    return sorted(path.name for path in (folder / "main").glob("*") if path.is_dir() and not path.name.startswith("."))


def read(folder: Path, category: str) -> Corpus:
    """One category of a local copy. Raises `DataError` for files that are missing, broken or inconsistent."""

    def chunks(part: str, split: str) -> Chunks:
        return _local_chunks(folder / part / category, split)

    fetched, exported = read_record(folder / FETCHED), read_record(folder / EXPORTED)
    origin, notes = f"the published splits in folder {folder.name}", []
    try:
        if category in fetched.get("categories", ()):
            main, meta = fetched["sources"]["main"], fetched["sources"]["meta"]
            origin = hub_origin(main["id"], meta["id"], main["commit"], meta["commit"])
        if category in exported.get("categories", ()):
            notes = [str(note) for note in exported["categories"][category]["notes"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder}: {FETCHED} or {EXPORTED} lacks {error}; fetch or export the data again") from error
    return _corpus(category, chunks, origin, notes)


def read_record(path: Path) -> dict[str, Any]:
    """What fetched.json or exported.json holds; empty if there is none. Raises `DataError` for a broken file."""
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _broken(path, error) from error
    if not isinstance(record, dict) or record.get("schema") != 1:
        raise DataError(f"{path} is not of schema 1, which this version reads; fetch or export the data again")
    return record


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write fetched.json or exported.json; whoever reads it at the same time sees the old or the new one."""
    replace_content(path, json.dumps({"schema": 1, **record}, indent=2, ensure_ascii=False) + "\n")


def hub_origin(main: str, meta: str, main_commit: str, meta_commit: str) -> str:
    """Where a corpus of the hub comes from, for its note: commits by their first twelve digits."""
    commits = dict.fromkeys((main_commit[:12], meta_commit[:12]))
    return f"{main} and {meta} on the Hugging Face hub at revision {','.join(commits)}"


def hub_categories(name: str, revision: str | None) -> list[str]:
    """The categories of a data set on the hub. Raises `ResourceError` if the hub cannot be reached."""
    import datasets

    main = commit(name, revisions(revision)[0])
    try:
        return [str(config) for config in datasets.get_dataset_config_names(name, revision=main)]
    except hub_errors() as error:
        raise unreachable(name, error) from error
    except (ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{name} cannot be read: {first_line(error)}; this is not the form of {HUB}") from error


def read_hub(name: str, category: str, revision: str | None) -> Corpus:
    """One category of the data set `name` ("owner/DPL-main") on the hub, with the items of "owner/DPL-meta".

    `revision` is a branch, tag or commit of both data sets, or "MAIN,META" for one each. Raises `ResourceError` if
    the hub cannot be reached, `DataError` for data of another form.
    """
    names = (name, meta_name(name))
    # By commits: for the name of a branch `datasets` may give what it has kept of another commit.
    commits = [commit(repository, wanted) for repository, wanted in zip(names, revisions(revision), strict=True)]
    parts = {
        part: load_hub(repository, category, at)
        for part, repository, at in zip(("main", "meta"), names, commits, strict=True)
    }

    def chunks(part: str, split: str) -> Chunks:
        where = f"{names[part == 'meta']}, {category}, split {split}"
        return _counted(where, hub_batches(parts[part], split, where))

    return _corpus(category, chunks, hub_origin(*names, *commits))


def meta_name(name: str) -> str:
    """The data set on the hub that holds the items of `name`. Raises `DataError` for a name that has none."""
    if not name.endswith("-main"):
        raise DataError(
            f"data set '{name}' on the hub: the name has to end in '-main'; the items are then looked up in '...-meta'"
        )
    return name.removesuffix("-main") + "-meta"


def revisions(revision: str | None) -> tuple[str | None, str | None]:
    """The revisions of main and meta that "REVISION" or "MAIN,META" means."""
    main, _, meta = (revision or "").partition(",")
    return main or None, meta or main or None


@cache
def commit(repository: str, revision: str | None) -> str:
    """The commit that a revision (a branch, a tag, a commit; the main branch if None) means on the hub; asked once, so
    that all categories are of the same. Raises `ResourceError` if the hub cannot be reached or refuses, `DataError`
    for what is no id."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        found = HfApi().dataset_info(repository, revision=revision).sha
    except HFValidationError as error:
        raise DataError(f"'{repository}' is not the id of a data set on the hub: {first_line(error)}") from error
    except GatedRepoError as error:
        raise ResourceError(
            f"data set {repository} is gated: ask for access on its page on the hub, then log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ResourceError(
            f"the hub has no data set {repository}, or does not show it to you; check the id, and log in with "
            "`hf auth login` if it is private"
        ) from error
    except RevisionNotFoundError as error:
        raise ResourceError(
            f"data set {repository} has no revision '{revision}'; give a branch, a tag or a commit of it with "
            "--revision ('MAIN,META' where the two differ)"
        ) from error
    except hub_errors() as error:
        raise unreachable(repository, error) from error
    if not found or not _COMMIT.fullmatch(found):
        raise ResourceError(f"the hub names no commit of data set {repository} (but {found!r}); try again later")
    return found


def hub_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises if the hub cannot be reached or refuses: the base classes of its own error, among
    them that of the HTTP library it uses."""
    from huggingface_hub.errors import HfHubHTTPError

    return (*(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)), OSError)


def load_hub(repository: str, category: str, revision: str | None, **options: Any) -> datasets.DatasetDict:
    """One category of a data set on the hub, downloaded. Raises `ResourceError` if the hub cannot be reached,
    `DataError` if `datasets` cannot read the category. No code of the repository is ever run."""
    import datasets

    try:
        return datasets.load_dataset(repository, category, revision=revision, **options)
    except hub_errors() as error:
        raise unreachable(repository, error) from error
    except (ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if isinstance(error.__cause__, hub_errors()):
            raise unreachable(repository, error.__cause__) from error
        reason = first_line(error.__cause__ or error)
        raise DataError(f"{repository} cannot be read as category {category}: {reason}") from error


def hub_batches(parts: datasets.DatasetDict, split: str, where: str) -> Iterator[pyarrow.RecordBatch]:
    """The rows of a split. Raises `DataError` if it is not there; `where` is for the message."""
    if split not in parts:
        raise DataError(f"{where}: there is no such split; this is not the form of {HUB}")
    return (batch for table in parts[split].with_format("arrow").iter(_CHUNK) for batch in table.to_batches())


def unreachable(repository: str, error: BaseException) -> ResourceError:
    """The error of a data set that the hub does not give."""
    return ResourceError(
        f"data set {repository} could not be fetched from the Hugging Face hub ({first_line(error)}); check the name, "
        "the revision ('MAIN,META' where the two differ) and the connection, or use a local copy "
        "(FOLDER/main/<category>/..., FOLDER/meta/<category>/...) or a folder made by `bench data prepare`"
    )


def first_line(error: BaseException) -> str:
    """An error's message without what follows its first line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# Reading local files.


def _local_chunks(home: Path, split: str) -> Chunks:
    readers: dict[str, Callable[[Path], Chunks]] = {"parquet": _parquet, "jsonl": _jsonl, "arrow": _arrow}
    for form in _FORMS:
        path = home / f"{split}.{form}"
        if path.is_file():
            return readers[form](path)
    shards = sorted((home / split).glob("data-*.arrow"))
    if shards:
        return (chunk for shard in shards for chunk in _arrow(shard))
    raise DataError(
        f"{home} has no {split}.{{{','.join(_FORMS)}}}; a local copy needs main/<category>/ and meta/<category>/"
    )


def _counted(where: str, batches: Iterable[pyarrow.RecordBatch]) -> Chunks:
    first = 1
    for batch in batches:
        yield Chunk(where, first, batch)
        first += batch.num_rows


def _parquet(path: Path) -> Chunks:
    import pyarrow as pa
    import pyarrow.parquet

    def batches() -> Iterator[pyarrow.RecordBatch]:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                yield from file.iter_batches(_CHUNK)
        except (pa.ArrowException, OSError) as error:
            raise _broken(path, error) from error

    return _counted(str(path), batches())


def _arrow(path: Path) -> Chunks:
    import pyarrow as pa

    def batches() -> Iterator[pyarrow.RecordBatch]:
        try:
            with pa.memory_map(str(path)) as file:
                is_file = file.read(6) == b"ARROW1"
                file.seek(0)
                table = (pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)).read_all()
                yield from table.to_batches(_CHUNK)
        except (pa.ArrowException, OSError) as error:
            raise _broken(path, error) from error

    return _counted(str(path), batches())


def _jsonl(path: Path) -> Chunks:
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
                yield Chunk(str(path), number, row, "line")
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read ({first_line(error)}); fetch the file again")


# Writing.


def export(corpus: Corpus, folder: Path) -> None:
    """`write`, unless the folder holds the same already."""
    held = read_record(folder / EXPORTED).get("categories", {}).get(corpus.category, {})
    if held.get("fingerprint") != corpus.fingerprint:
        write(corpus, folder)


def write(corpus: Corpus, folder: Path) -> None:
    """Write a corpus as a category of a local copy, in Parquet; it appears when it is complete.

    Its notes go into FOLDER/exported.json. Raises `DataError` if the folder holds the category already.
    """
    category = corpus.category
    for part in ("main", "meta"):
        if (folder / part / category).exists():
            raise DataError(f"{folder / part / category} exists already; remove it or write to another folder")
    missing = [split for split in SPLITS if split not in corpus.instances]
    if missing:
        raise DataError(f"category {category} has no split {missing[0]}; the published form needs {', '.join(SPLITS)}")
    record = read_record(folder / EXPORTED)
    with (
        writing(folder),
        staging(folder / "main", category) as main,
        staging(folder / "meta", category) as meta,
    ):
        write_parquet(meta / "full.parquet", [_item_table(corpus)])
        for split in SPLITS:
            write_parquet(main / f"{split}.parquet", _main_tables(corpus, split))
        entry = {"fingerprint": corpus.fingerprint, "notes": list(corpus.notes)}
        write_record(folder / EXPORTED, record | {"categories": record.get("categories", {}) | {category: entry}})


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns an error of the file system in the block into a `DataError` that names the folder."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({first_line(error)}); see to the space and the rights there and try again"
        ) from error


def write_parquet(path: Path, tables: Iterable[pyarrow.Table]) -> None:
    """Write tables, at least one (it may be empty), as the row groups of a file; a text that is repeated in a row
    group is stored once."""
    import pyarrow.parquet

    writer = None
    try:
        for table in tables:
            writer = writer or pyarrow.parquet.ParquetWriter(
                path, table.schema, compression="zstd", dictionary_pagesize_limit=1 << 26
            )
            if table.num_rows:  # `datasets` cannot read a row group without rows
                writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _item_table(corpus: Corpus) -> pyarrow.Table:
    import pyarrow as pa

    items = corpus.items.values()
    return pa.table(
        {
            name: pa.array([getattr(item, name) for item in items], pa.string())
            for name in ("title", "description", "asin")
        }
    )


def _main_tables(corpus: Corpus, split: str) -> Iterator[pyarrow.Table]:
    """The rows of a split, `_CHUNK` at a time; one table without rows if it has none."""
    import pyarrow as pa

    instances = corpus.split(split)
    for start in range(0, max(1, len(instances)), _CHUNK):
        some = instances[start : start + _CHUNK]
        offsets = [0, *accumulate(len(instance.profile) for instance in some)]
        past = _struct([review for instance in some for review in instance.profile])
        targets = [
            Review(one.user_id, one.item.asin, one.rating, one.title, corpus.reference(one), one.timestamp)
            for one in some
        ]
        yield pa.table(
            {
                "user_id": pa.array([instance.user_id for instance in some], pa.string()),
                "profile": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), past),
                "data": _struct(targets),
            }
        )


def _struct(reviews: Sequence[Review]) -> pyarrow.StructArray:
    """Reviews as a column of structs. Each is converted once, however often it occurs."""
    import pyarrow as pa

    places: dict[int, int] = {}
    once: list[Review] = []
    for review in reviews:
        if id(review) not in places:
            places[id(review)] = len(once)
            once.append(review)
    kinds = {"rating": pa.float64(), "timestamp": pa.int64()}
    columns = [pa.array([getattr(review, name) for review in once], kinds.get(name, pa.string())) for name in _REVIEW]
    indices = pa.array([places[id(review)] for review in reviews], pa.int64())
    return pa.StructArray.from_arrays([column.take(indices) for column in columns], list(_REVIEW))


# From rows to a corpus.


@dataclass
class _Reader:
    """Builds reviews, the same one only once: eight training rows of a user repeat nearly the whole profile."""

    items: Mapping[str, Item]
    seen: dict[Review, Review] = field(default_factory=dict)
    by_hash: dict[int, Review] = field(default_factory=dict)
    lacking: dict[str, int] = field(default_factory=dict)
    unsorted: int = 0

    @cached_property
    def asins(self) -> polars.Series:
        """Those of the items."""
        import polars as pl

        return pl.Series(list(self.items), dtype=pl.String)

    def rows(self, chunk: Chunk) -> Iterator[tuple[str, Review, tuple[Review, ...]]]:
        """Of each row where it stands, the target and the profile. Raises `DataError` for a malformed row."""
        if not isinstance(chunk.rows, Mapping) and _is_as_published(chunk.rows):
            reviews, ends = _columns(chunk.rows)
            every = self._same_reviews(reviews)
            if every is not None:
                yield from self._from_columns(chunk, reviews, every, ends)
                return
        # Row by row, which also says in words what is wrong where.
        for where, row in chunk.numbered():
            user_id = _text(row, "user_id", where)
            profile = self._profile(user_id, row.get("profile"), where)
            yield where, self._review(user_id, row.get("data"), where), profile

    def _same_reviews(self, reviews: polars.DataFrame) -> list[Review] | None:
        """The reviews of a frame, equal ones the same object, without a Python object for each time that one occurs:
        they are found by a 64-bit hash. None if the hash of two different ones is the same."""
        import numpy as np

        hashes = reviews.hash_rows().to_numpy()
        keys, first, place = np.unique(hashes, return_index=True, return_inverse=True)
        different = reviews[first]
        if not different[place].equals(reviews):
            return None
        found = []
        rows = different.select("user_id", *_REVIEW).iter_rows()
        for key, (user_id, rating, title, text, asin, timestamp) in zip(keys.tolist(), rows, strict=True):
            review = Review(user_id, asin, float(rating), title, text, timestamp)
            known = self.by_hash.get(key)
            if known is None:
                known = self.by_hash[key] = self.seen.setdefault(review, review)
            elif known != review:
                return None
            found.append(known)
        return [found[index] for index in place.tolist()]

    def _from_columns(
        self, chunk: Chunk, reviews: polars.DataFrame, every: Sequence[Review], ends: Sequence[int]
    ) -> Iterator[tuple[str, Review, tuple[Review, ...]]]:
        """What `rows` gives, from all reviews of a chunk, as a frame and as objects, and where its rows end."""
        unknown = reviews["asin"].filter(reviews["asin"].is_in(self.asins.implode()).not_())
        for asin in unknown:
            self.lacking[asin] = self.lacking.get(asin, 0) + 1
        earlier = (reviews["timestamp"].diff() < 0).fill_null(False).arg_true().to_numpy()
        for number, (start, end) in enumerate(pairwise([0, *ends]), start=chunk.first):
            profile = list(every[start : end - 1])
            # The first review of a profile follows the target of the row before, whose time does not matter.
            if earlier.searchsorted(start + 1) < earlier.searchsorted(end - 1):
                self.unsorted += 1
                profile.sort(key=lambda review: review.timestamp)
            yield f"{chunk.where}, {chunk.unit} {number:,}", every[end - 1], tuple(profile)

    def _review(self, user_id: str, record: Any, where: str) -> Review:
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

    def _profile(self, user_id: str, records: Any, where: str) -> tuple[Review, ...]:
        if not isinstance(records, list):
            raise _malformed(where, "profile is not a list of reviews")
        reviews = [self._review(user_id, record, where) for record in records]
        if any(older.timestamp > newer.timestamp for older, newer in pairwise(reviews)):
            self.unsorted += 1
            reviews.sort(key=lambda review: review.timestamp)
        return tuple(reviews)


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
    for name in _REVIEW:
        parts = [pl.Series(pl.from_arrow(reviews.field(name))) for reviews in (past, targets)]
        columns[name] = pl.concat([part.cast(kinds.get(name, pl.String)) for part in parts]).gather(order)
    return pl.DataFrame(columns), ends.tolist()


def _corpus(category: str, chunks: Source, origin: str, notes: Sequence[str] = ()) -> Corpus:
    items = dict(_item(row, where) for chunk in chunks("meta", "full") for where, row in chunk.numbered())
    reader = _Reader(items)
    instances: dict[str, tuple[Instance, ...]] = {}
    references: dict[str, str] = {}
    for split in SPLITS:
        found: list[Instance] = []
        counts: dict[str, int] = {}
        with collection_paused():
            for chunk in chunks("main", split):
                for where, target, profile in reader.rows(chunk):
                    user_id = target.user_id
                    k = counts[user_id] = counts.get(user_id, -1) + 1
                    if split != "train" and k:
                        raise _malformed(where, f"user {user_id} has a second row in split {split}")
                    identity = f"{category}/{split}/{user_id}" + (f"/{k}" if split == "train" else "")
                    references[identity] = target.text
                    if target.asin in items:
                        found.append(_instance(identity, category, split, target, items[target.asin], profile))
        instances[split] = tuple(found)
    _check_items(category, reader)
    told = [f"{category}: {len(instances['test']):,} test users, from {origin}.", *notes]
    if reader.unsorted:
        told.append(f"{category}: {reader.unsorted:,} profiles were not in the order of time and were sorted.")
    return Corpus(category, items, instances, references, tuple(told))


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
