"""Writing a category in the published form of DPL's splits (`bench.data.layouts.published`), in Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.corpus import SPLITS, Corpus
from bench.data.folders import staging
from bench.data.layouts._published import REVIEW_FIELDS, ROWS
from bench.data.layouts.prepared import Prepared, read_items
from bench.data.layouts.published import Published
from bench.data.origins import EXPORTED, read_origin, write_origin, writing
from bench.errors import DataError
from bench.records import Fields, Instance, Record
from bench.tasks.reviews import Item

if TYPE_CHECKING:
    import pyarrow

EXPORT = "dpl"
"""The folder beside the categories that holds them in the published form."""


def export(folder: Path, category: str) -> Path:
    """Write a category of a prepared folder into FOLDER/dpl, unless that holds the same already; returns FOLDER/dpl.
    Raises `DataError` as `write` does."""
    corpus, out = Prepared().read(folder, category), folder / EXPORT
    held = read_origin(out / EXPORTED).get("categories", {}).get(category)
    # A fingerprint of another version may differ for the same content, so the content itself has the last word.
    if not held or (
        held.get("fingerprint") != corpus.fingerprint
        and Published().read(out, category).fingerprint != corpus.fingerprint
    ):
        write(corpus, out, read_items(folder / category).values())
    return out


def write(corpus: Corpus, folder: Path, items: Iterable[Item] | None = None) -> None:
    """Write a corpus of reviews as a category of a local copy, in Parquet; it appears when it is complete.

    `items` are those of the meta data, by default the items that are reviewed. The notes go into FOLDER/exported.json.
    Raises `DataError` if the folder holds the category already.
    """
    category = corpus.category
    for part in ("main", "meta"):
        if (folder / part / category).exists():
            raise DataError(f"{folder / part / category} exists already; remove it or write to another folder")
    missing = [split for split in SPLITS if split not in corpus.instances]
    if missing:
        raise DataError(f"category {category} has no split {missing[0]}; the published form needs {', '.join(SPLITS)}")
    record = read_origin(folder / EXPORTED)
    with (
        writing(folder),
        staging(folder / "main", category) as main,
        staging(folder / "meta", category) as meta,
    ):
        write_parquet(meta / "full.parquet", [_item_table(_reviewed(corpus) if items is None else items)])
        for split in SPLITS:
            write_parquet(main / f"{split}.parquet", _main_tables(corpus, split))
        entry = {"fingerprint": corpus.fingerprint, "notes": list(corpus.notes)}
        write_origin(folder / EXPORTED, record | {"categories": record.get("categories", {}) | {category: entry}})


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


def _reviewed(corpus: Corpus) -> Iterable[Item]:
    """The items of all reviews, by asin."""
    found: dict[str, Item] = {}
    for instance in chain.from_iterable(corpus.instances.values()):
        for asin, fields in ((instance.group, instance.given), *((one.group, one.fields) for one in instance.profile)):
            if asin is not None and asin not in found:
                found[asin] = Item(asin, str(fields["item_title"]), str(fields["item_description"]))
    return [found[asin] for asin in sorted(found)]


def _item_table(items: Iterable[Item]) -> pyarrow.Table:
    import pyarrow as pa

    rows, names = list(items), ("title", "description", "asin")
    return pa.table({name: pa.array([getattr(item, name) for item in rows], pa.string()) for name in names})


def _main_tables(corpus: Corpus, split: str) -> Iterator[pyarrow.Table]:
    """The rows of a split, `ROWS` at a time; one table without rows if it has none."""
    import pyarrow as pa

    instances = corpus.split(split)
    for start in range(0, max(1, len(instances)), ROWS):
        some = instances[start : start + ROWS]
        offsets = [0, *accumulate(len(instance.profile) for instance in some)]
        yield pa.table(
            {
                "user_id": pa.array([instance.user_id for instance in some], pa.string()),
                "profile": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _profiles(some)),
                "data": _structs([_target(one, corpus.reference(one)) for one in some]),
            }
        )


Values = tuple[float, str, str, str | None, int | None]
"""A review as the values of `REVIEW_FIELDS`."""


def _past(record: Record) -> Values:
    fields: Fields = record.fields
    return float(fields["rating"]), str(fields["title"]), record.text, record.group, record.timestamp


def _target(one: Instance, text: str) -> Values:
    return float(one.given["output_rating"]), str(one.given["output_title"]), text, one.group, one.timestamp


def _profiles(instances: Sequence[Instance]) -> pyarrow.StructArray:
    """The reviews of all profiles, one profile after the other. Each is converted once, however often it occurs."""
    import pyarrow as pa

    reviews = [review for instance in instances for review in instance.profile]
    places: dict[int, int] = {}
    once: list[Values] = []
    for review in reviews:
        if id(review) not in places:
            places[id(review)] = len(once)
            once.append(_past(review))
    indices = pa.array([places[id(review)] for review in reviews], pa.int64())
    columns = _structs(once).flatten()
    return pa.StructArray.from_arrays([column.take(indices) for column in columns], list(REVIEW_FIELDS))


def _structs(reviews: Sequence[Values]) -> pyarrow.StructArray:
    """Reviews as a column of structs."""
    import pyarrow as pa

    kinds = {"rating": pa.float64(), "timestamp": pa.int64()}
    columns = zip(*reviews, strict=True) if reviews else [()] * len(REVIEW_FIELDS)
    arrays = [
        pa.array(list(column), kinds.get(name, pa.string()))
        for name, column in zip(REVIEW_FIELDS, columns, strict=True)
    ]
    return pa.StructArray.from_arrays(arrays, list(REVIEW_FIELDS))
