"""From raw Amazon Reviews 2023 files to DPL's splits, one category at a time.

A line of the raw reviews and one of the raw items (further fields are ignored):

    {"user_id": "A2", "parent_asin": "B00...", "rating": 5.0, "title": "...", "text": "...", "timestamp": 1588687728000}
    {"parent_asin": "B00...", "title": "...", "description": ["...", ...], "categories": ["..."], "rating_number": 23}

Raw files are streamed. What passes the filters on single rows is kept on disk, and only integer codes (user, item,
text, time) are in memory while the k-core loop runs; texts come back for the reviews that survive it.

Texts are compared by 64-bit hash: two different texts of one user would be taken for one with probability 1e-13 even
for a user with 2,000 reviews. Of items that occur twice, the first that passes the filters counts.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from bench.data.prepared import INPUTS, ITEM_COLUMNS, REVIEW_COLUMNS, TRAIN, Manifest, Summary, staging
from bench.errors import DataError

if TYPE_CHECKING:
    import polars

Progress = Callable[[str], None]
Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]

_BLOCK = 1 << 24  # bytes of JSON parsed at a time; also the longest line that can be read
_REPORT = 2_000_000  # raw rows between two progress lines
_HEADING = "Product Description"
# Python's notion of white space, which the authors' code uses, has four control characters more than the regex crate's.
_WHITESPACE = r"[\s\x1c-\x1f]+"

_REVIEW_FIELDS = {
    "user_id": "text",
    "parent_asin": "text",
    "rating": "number",
    "title": "text",
    "text": "text",
    "timestamp": "whole number",
}
_ITEM_FIELDS = {
    "parent_asin": "text",
    "title": "text",
    "description": "list of texts",
    "categories": "list of texts",
    "rating_number": "number",
}
_REQUIRED = ("user_id", "parent_asin")


@dataclass(frozen=True)
class Thresholds:
    """DPL's limits; lengths in characters. Each is the smallest or largest value that is kept."""

    description_min: int = 100
    description_max: int = 2000
    text_min: int = 200
    item_users: int = 8
    """Users an item needs in the joint k-core."""
    user_reviews_min: int = 18
    user_reviews_max: int = 500
    history_item_users: int = 5
    """Users an item needs among the histories."""
    user_history: int = 8
    """History reviews a user needs."""


def prepare(
    reviews: Path,
    items: Path,
    category: str,
    out: Path,
    progress: Progress,
    thresholds: Thresholds | None = None,
) -> Summary:
    """Prepare one category into `out`/`category` (see `bench.data.prepared` for the layout) and report what was kept.

    `reviews` and `items` are JSONL files, gzipped or not. If the category is there already, made from the same
    files with the same thresholds, it is reported and left alone. Raises `DataError` for input that cannot be read,
    for a category that is there from other files, and if nothing is left; then nothing is written.
    """
    limits = thresholds or Thresholds()
    if not re.fullmatch(r"\w[\w.-]*", category):
        raise DataError(f"category '{category}' cannot be a folder's name; use letters, digits, '_', '-' and '.'")
    sources = [_source(path) for path in (reviews, items)]
    if (out / category).exists():
        return _existing(out / category, sources, limits, progress)
    try:
        with staging(out, category) as folder:
            summary = _build(reviews, items, category, folder, progress, limits)
            Manifest(category, sources, asdict(limits), summary).write(folder)
    except OSError as error:
        raise DataError(
            f"could not write {out / category} ({error}); free the space or choose another folder"
        ) from error
    return summary


def _source(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"name": path.name, "bytes": file.tell(), "sha256": digest}
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); give the path of a JSONL or JSONL.gz file"
        ) from error


def _existing(folder: Path, sources: list[dict[str, Any]], limits: Thresholds, progress: Progress) -> Summary:
    found = Manifest.read(folder)
    same_files = [source["sha256"] for source in found.sources] == [source["sha256"] for source in sources]
    if same_files and found.thresholds == asdict(limits):
        progress(f"{folder} is already prepared from these files; nothing to do")
        return found.summary
    what = "with other thresholds" if same_files else "from " + " and ".join(str(s["name"]) for s in found.sources)
    raise DataError(
        f"{folder} is already prepared {what}, which is not the same as asked for; remove it or choose another --out"
    )


def _build(reviews: Path, items: Path, category: str, folder: Path, progress: Progress, limits: Thresholds) -> Summary:
    """Steps 1 to 10 of one category, written into `folder`."""
    import polars as pl

    item_counts: dict[str, int] = {}
    review_counts: dict[str, int] = {}
    scratch = folder / "scratch"
    scratch.mkdir()
    item_table = _read_items(items, limits, item_counts, progress)
    frame = _read_reviews(reviews, item_table, limits, scratch, review_counts, progress)
    alive = _k_core(frame, limits, progress)
    frame = frame.filter(pl.Series(alive))
    _count(review_counts, "reviews after the joint k-core", frame.height, progress)
    item_table = item_table.filter(pl.col("asin").is_in(frame["asin"].unique().implode()))
    _count(item_counts, "items after the joint k-core", item_table.height, progress)
    final = _split(_with_texts(frame, scratch), limits, review_counts, progress)
    for path in scratch.iterdir():
        path.unlink()
    scratch.rmdir()
    final.write_parquet(folder / "reviews.parquet")
    item_table.write_parquet(folder / "items.parquet")
    profiles = final.group_by("user_id").len()["len"].to_numpy() - 1
    users = len(profiles)
    return Summary(
        category=category,
        reviews=review_counts,
        items=item_counts,
        users=users,
        instances={"train": TRAIN * users, "val": users, "test": users},
        profile_mean=float(profiles.mean()),
        profile_sd=float(profiles.std()),
    )


def _count(counts: dict[str, int], step: str, rows: int, progress: Progress) -> None:
    """Record and report what a step left. Raises `DataError` if that is nothing."""
    counts[step] = rows
    progress(f"{rows:,} {step}")
    if rows == 0:
        before = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        raise DataError(
            f"nothing is left ({before}); check that the reviews and the items are of the same category and that the "
            "data set is large enough for DPL's thresholds"
        )


# Steps 1 to 4: rows by themselves.


def _read_items(path: Path, limits: Thresholds, counts: dict[str, int], progress: Progress) -> polars.DataFrame:
    """Steps 1 and 2: the items that are described well enough; columns asin, title, description."""
    import polars as pl

    first = pl.col("description").list.first() == _HEADING
    entries = pl.when(first).then(pl.col("description").list.slice(1)).otherwise(pl.col("description"))
    kept, total = [], 0
    for batch in _batches(path, _ITEM_FIELDS):
        total += batch.height
        table = batch.with_columns(description=entries.list.join(" ")).filter(
            pl.col("description").str.len_chars().is_between(limits.description_min, limits.description_max),
            pl.col("title") != "",
            pl.col("categories").list.len() > 0,
            pl.col("rating_number") != 0,
        )
        kept.append(table.select(pl.col("parent_asin").alias("asin"), "title", "description"))
    table = pl.concat(kept).unique("asin", keep="first", maintain_order=True)
    _count(counts, "items in the file", total, progress)
    _count(
        counts, "items with a title, categories, ratings and a description of the right length", table.height, progress
    )
    return table.select(ITEM_COLUMNS)


def _read_reviews(
    path: Path,
    items: polars.DataFrame,
    limits: Thresholds,
    scratch: Path,
    counts: dict[str, int],
    progress: Progress,
) -> polars.DataFrame:
    """Steps 3 and 4. Whole rows go to `scratch`; returns what the k-core needs: row (position in the file), user_id,
    asin, timestamp and the text's hash."""
    import polars as pl

    kept, total, complete = [], 0, 0
    for number, batch in enumerate(_batches(path, _REVIEW_FIELDS)):
        rows = batch.rename({"parent_asin": "asin"}).with_row_index("row", offset=total)
        rows = rows.with_columns(pl.col("row").cast(pl.Int64)).filter(
            pl.col("text").str.len_chars() >= limits.text_min,
            pl.col("rating") != 0,
            pl.col("title") != "",
            pl.col("timestamp") != 0,
        )
        complete += rows.height
        rows = rows.join(items.select("asin"), on="asin", how="semi")
        rows.write_parquet(scratch / f"{number:08}.parquet")
        kept.append(rows.select("row", "user_id", "asin", "timestamp", text=pl.col("text").hash()))
        if (total + batch.height) // _REPORT > total // _REPORT:
            progress(f"{total + batch.height:,} reviews read")
        total += batch.height
    _count(counts, "reviews in the file", total, progress)
    _count(counts, "reviews with a long text, a rating, a title and a time", complete, progress)
    frame = pl.concat(kept)
    _count(counts, "reviews of kept items", frame.height, progress)
    return frame


# Step 5: the joint k-core, on integer codes.


def _dense(*columns: Codes) -> Codes:
    """Codes 0..n-1, one for each distinct row of `columns` (each holding codes 0..n-1)."""
    codes = columns[0]
    for column in columns[1:]:
        codes = codes * (int(column.max(initial=0)) + 1) + column
    return cast(Codes, np.unique(codes, return_inverse=True)[1].astype(np.int64, copy=False))


def _is_first(codes: Codes) -> Mask:
    """Marks the first occurrence of each code."""
    mask = np.zeros(len(codes), dtype=np.bool_)
    mask[np.unique(codes, return_index=True)[1]] = True
    return mask


def _repeated(codes: Codes) -> Mask:
    """Marks every occurrence of a code that occurs more than once."""
    return np.bincount(codes)[codes] > 1


def _unrepeated(by_item: Codes, by_text: Codes) -> Mask:
    """Marks the reviews that stay when a review is dropped if an earlier one *that stays* has the same code.

    What a dropped review holds does not count, so the two codes cannot be treated one after the other: each round
    keeps what comes first in both its groups and drops the rest of these groups.
    """
    kept = np.zeros(len(by_item), dtype=np.bool_)
    item_taken = np.zeros(int(by_item.max(initial=-1)) + 1, dtype=np.bool_)
    text_taken = np.zeros(int(by_text.max(initial=-1)) + 1, dtype=np.bool_)
    undecided = np.arange(len(by_item))
    while undecided.size:
        chosen = undecided[_is_first(by_item[undecided]) & _is_first(by_text[undecided])]
        kept[chosen] = True
        item_taken[by_item[chosen]] = True
        text_taken[by_text[chosen]] = True
        undecided = undecided[~(item_taken[by_item[undecided]] | text_taken[by_text[undecided]])]
    return kept


def _codes(frame: polars.DataFrame, column: str) -> Codes:
    """Codes in the order of the column's values."""
    ranks = frame[column].rank("dense").to_numpy()
    return cast(Codes, ranks.astype(np.int64) - 1)


def _newest_first(users: Codes, times: Codes) -> Codes:
    """The order by user, then newest first; equal times keep their order."""
    return cast(Codes, np.lexsort((-times, users)))


def _k_core(frame: polars.DataFrame, limits: Thresholds, progress: Progress) -> Mask:
    """Step 5: marks the rows of `frame` that survive. Rows fall by whole users and items only."""
    users, items = _codes(frame, "user_id"), _codes(frame, "asin")
    order = _newest_first(users, frame["timestamp"].to_numpy())
    users, items = users[order], items[order]
    pairs, texts = _dense(users, items), _dense(users, _codes(frame, "text")[order])
    # Neither changes while whole users and items go: a user's reviews of one item go together.
    new_user = _is_first(pairs)
    doubtful = _repeated(pairs) | _repeated(texts)
    alive = np.ones(len(order), dtype=np.bool_)
    n_users, n_items = int(users.max()) + 1, int(items.max()) + 1
    left, passes = len(order), 0
    while True:
        checked = np.flatnonzero(alive & doubtful)
        stays = alive & ~doubtful
        stays[checked[_unrepeated(pairs[checked], texts[checked])]] = True
        per_user = np.bincount(users[stays], minlength=n_users)
        per_item = np.bincount(items[alive & new_user], minlength=n_items)
        user_stays = (per_user >= limits.user_reviews_min) & (per_user <= limits.user_reviews_max)
        alive &= (per_item >= limits.item_users)[items] & user_stays[users]
        passes += 1
        before, left = left, int(alive.sum())
        if left == before:
            break
    progress(f"the joint k-core took {passes} passes")
    mask = np.zeros(len(order), dtype=np.bool_)
    mask[order] = alive
    return mask


# Steps 7 to 9: texts, histories and inputs.


def _with_texts(frame: polars.DataFrame, scratch: Path) -> polars.DataFrame:
    """The whole rows that `frame` names, in the order of the file, with white space in the texts normalised."""
    import polars as pl

    return (
        pl.scan_parquet(scratch / "*.parquet")
        .join(frame.lazy().select("row"), on="row", how="semi")
        .with_columns(pl.col("text").str.replace_all(_WHITESPACE, " ").str.strip_chars(" "))
        .collect(engine="streaming")
        .sort("row")
    )


def _split(frame: polars.DataFrame, limits: Thresholds, counts: dict[str, int], progress: Progress) -> polars.DataFrame:
    """Steps 7 to 9: drop repeats, split each user's reviews into history and inputs, thin the histories out."""
    import polars as pl

    users = _codes(frame, "user_id")
    order = _newest_first(users, frame["timestamp"].to_numpy())
    texts = _codes(frame.with_columns(pl.col("text").hash()), "text")
    mask = np.zeros(frame.height, dtype=np.bool_)
    mask[order] = _unrepeated(_dense(users[order], _codes(frame, "asin")[order]), _dense(users[order], texts[order]))
    frame = frame.filter(pl.Series(mask))
    frame = frame.sort("user_id", "timestamp", maintain_order=True)
    _count(counts, "reviews after dropping repeats", frame.height, progress)
    users, items = _codes(frame, "user_id"), _codes(frame, "asin")
    from_end = np.bincount(users).cumsum()[users] - np.arange(frame.height)
    inputs = from_end <= INPUTS
    alive = _history_core(users, items, ~inputs, limits)
    stays = np.bincount(users[alive], minlength=int(users.max()) + 1) > 0
    frame = frame.with_columns(role=pl.when(pl.Series(inputs)).then(pl.lit("input")).otherwise(pl.lit("history")))
    frame = frame.filter(pl.Series(alive | (inputs & stays[users])))
    _count(counts, "reviews after the core of the histories", frame.height, progress)
    return frame.select(*REVIEW_COLUMNS, "role")


def _history_core(users: Codes, items: Codes, history: Mask, limits: Thresholds) -> Mask:
    """Step 9: marks the history reviews that survive. `history` marks those to begin with."""
    alive = history.copy()
    left = int(users.max()) + 1
    while True:
        per_item = np.bincount(items[alive], minlength=int(items.max()) + 1)
        alive &= (per_item >= limits.history_item_users)[items]
        per_user = np.bincount(users[alive], minlength=int(users.max()) + 1)
        alive &= (per_user >= limits.user_history)[users]
        before, left = left, int((per_user >= limits.user_history).sum())
        if left == before:
            return alive


# Reading JSON lines.


def _batches(path: Path, fields: Mapping[str, str]) -> Iterator[polars.DataFrame]:
    """Stream a JSONL file as frames of the columns `fields` (name -> kind), missing values as nulls. Raises
    `DataError` for a file that is empty, broken, or lacks a field altogether."""
    import polars as pl
    import pyarrow as pa
    import pyarrow.json

    kinds = {
        "text": pa.string(),
        "number": pa.float64(),
        "whole number": pa.int64(),
        "list of texts": pa.list_(pa.string()),
    }
    parse = pyarrow.json.ParseOptions(
        explicit_schema=pa.schema([(name, kinds[kind]) for name, kind in fields.items()]),
        unexpected_field_behavior="ignore",
    )
    read = pyarrow.json.ReadOptions(block_size=_BLOCK)
    filled = dict.fromkeys(fields, False)
    try:
        with (
            pa.input_stream(str(path), compression="gzip" if _gzipped(path) else None) as stream,
            pyarrow.json.open_json(stream, read_options=read, parse_options=parse) as reader,
        ):
            for batch in reader:
                batch.validate(full=True)
                frame = cast(pl.DataFrame, pl.from_arrow(batch))
                if _unusable(frame, fields):
                    raise _explain(path, fields, "a value that cannot be used")
                filled = {name: found or frame[name].null_count() < frame.height for name, found in filled.items()}
                yield frame
    except (pa.ArrowInvalid, OSError) as error:
        raise _explain(path, fields, str(error)) from error
    lacking = [name for name, found in filled.items() if not found]
    if lacking:
        raise DataError(
            f"{path}: no line has a value for '{lacking[0]}'; the file has to be in the layout of Amazon Reviews 2023 "
            f"({', '.join(fields)})"
        )


def _unusable(frame: polars.DataFrame, fields: Mapping[str, str]) -> bool:
    """Whether a value is of the right type but makes no sense: no id, a rating that is not finite, a null in a list."""
    import polars as pl

    tests = [pl.col(name).fill_null("") == "" for name in _REQUIRED if name in fields]
    tests += [~pl.col(name).is_finite() for name, kind in fields.items() if kind == "number"]
    tests += [
        pl.col(name).list.eval(pl.element().is_null()).list.any()
        for name, kind in fields.items()
        if kind == "list of texts"
    ]
    return any(frame.select(test.any().alias(str(n)) for n, test in enumerate(tests)).row(0))


def _gzipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _explain(path: Path, fields: Mapping[str, str], fallback: str) -> DataError:
    """The error for a file that could not be parsed: reads it again, slowly, to name the first line that is wrong."""
    number = 0
    try:
        with cast(IO[bytes], gzip.open(path) if _gzipped(path) else path.open("rb")) as file:
            for number, line in enumerate(file, start=1):
                reason = _wrong(line, fields) if line.strip() else ""
                if reason:
                    return DataError(f"{path}, line {number:,}: {reason}; correct or remove the line")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        return DataError(f"{path} is a broken gzip file, readable up to line {number:,} ({error}); fetch it again")
    except OSError as error:
        return DataError(f"{path} cannot be read ({error}); give a JSONL or JSONL.gz file")
    if number == 0 or "Empty JSON" in fallback:
        return DataError(f"{path} is empty; give a JSONL file with one JSON object a line")
    return DataError(f"{path} cannot be parsed ({fallback}); give a JSONL file with one JSON object a line")


def _wrong(line: bytes, fields: Mapping[str, str]) -> str:
    """What is wrong with a line, or ""."""
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        return f"not valid JSON ({error})"
    if not isinstance(record, dict):
        return "not a JSON object"
    for name, kind in fields.items():
        value = record.get(name)
        if name in _REQUIRED and value in (None, ""):
            return f"'{name}' is missing or empty"
        if value is not None and not _is(value, kind):
            return f"'{name}' is not a {kind} but {json.dumps(value)[:60]}"
    return ""


def _is(value: object, kind: str) -> bool:
    if kind == "text":
        return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)
    if kind == "list of texts":
        return isinstance(value, list) and all(_is(entry, "text") for entry in value)
    if isinstance(value, bool):
        return False
    if kind == "number":
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, int) and -(2**63) <= value < 2**63
