"""The ten steps of DPL's authors, from raw files of reviews and items to one category's splits.

Rows by themselves (steps 1 to 4) are DuckDB's (`bench.data.raw`); the loops over users and items (steps 5 and 9) work
on integer codes (`bench.data.kcore`); texts are in memory for the reviews that survive the first loop alone. Until then
a text is a 64-bit hash; before a result counts, the texts of a user with equal hashes are compared. Of items that occur
twice, the first that passes the filters counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.data import kcore
from bench.data.manifest import ITEM_COLUMNS, REVIEW_COLUMNS, Summary
from bench.data.raw.background import BackgroundReader
from bench.data.raw.checkpoint import Checkpoint
from bench.data.raw.columns import ITEM_FIELDS, REVIEW_FIELDS, ColumnMap
from bench.data.raw.database import connect
from bench.data.raw.fields import Fields
from bench.data.raw.file import RawFile, Selection
from bench.data.splitting import INPUTS, TRAIN
from bench.errors import DataError

if TYPE_CHECKING:
    import polars

Progress = Callable[[str], None]

LEFT_OUT = "left out, unusable"
TEXT_HASH = "hash(text)"
"""SQL for the 64-bit hash of a text."""
_HEADING = "Product Description"
# What is to become one space: Python's notion of white space, which the authors' code uses, has four control characters
# more than the regex crate's. A single space is left alone, for speed.
_WHITESPACE = r"[\s\x1c-\x1f]{2,}|[\s\x1c-\x1f&&[^ ]]"


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


@dataclass(frozen=True)
class _Kept:
    """What a scan kept of a file, and how to get the rest of it."""

    file: RawFile
    selection: Selection
    total: int
    """Rows of the file."""
    rows: polars.DataFrame

    def fetch(self, rows: polars.Series) -> polars.DataFrame:
        """All values of rows, given by their positions in the file, ascending."""
        return self.file.fetch(self.selection, rows, self.total)


@dataclass(frozen=True)
class Steps:
    """The ten steps over one category's files; `work` keeps what was read of them."""

    work: Path
    background: BackgroundReader
    limits: Thresholds
    columns: ColumnMap
    max_bad_lines: int
    progress: Progress

    def run(self, reviews: Path, items: Path, category: str, folder: Path) -> Summary:
        """Write reviews.parquet and items.parquet into `folder`. Raises `DataError`."""
        item_counts: dict[str, int] = {}
        review_counts: dict[str, int] = {}
        with connect(self.work) as connection:
            item_fields = Fields(items, ITEM_FIELDS, self.columns, "items.")
            item_file = RawFile(connection, item_fields, self.background, self.work)
            review_fields = Fields(reviews, REVIEW_FIELDS, self.columns, "")
            review_file = RawFile(connection, review_fields, self.background, self.work)
            described = self._described_items(item_file, item_counts)
            usable = self._usable_reviews(review_file, described.rows, review_counts)
            frame = self._joint_core(usable, review_counts)
            item_table = self._alive_items(described, frame, item_counts)
        final = self._split(frame, review_counts)
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

    def _count(self, counts: dict[str, int], step: str, rows: int) -> None:
        """Record and report what a step left. Raises `DataError` if that is nothing."""
        counts[step] = rows
        self.progress(f"{rows:,} {step}")
        if rows == 0:
            before = ", ".join(f"{count:,} {name}" for name, count in counts.items())
            raise DataError(
                f"nothing is left ({before}); check that the reviews and the items are of the same category and that "
                "the data set is large enough for DPL's thresholds"
            )

    def _scan(self, noun: str, file: RawFile, selection: Selection, counts: dict[str, int]) -> _Kept:
        """The rows of a file that are kept, also from before an interruption; counts the rows of the file."""
        scanned, before = Checkpoint(self.work, noun).scan(file, selection, self.max_bad_lines)
        if before:
            self.progress(f"{file.path.name} was read before the interruption")
        self._count(counts, f"{noun} in the file", scanned.rows)
        if scanned.bad:
            self._count(counts, f"{noun} {LEFT_OUT}", scanned.bad)
            self.progress(f"  the first of them: {scanned.reason}")
        for column in scanned.absent:
            self.progress(f"  no row has a value for '{column}', which may be missing")
        return _Kept(file, selection, scanned.rows, scanned.kept)

    def _described_items(self, file: RawFile, counts: dict[str, int]) -> _Kept:
        """Steps 1 and 2: the items that are described well enough, as asin and row in the file."""
        sql, limits = file.sql, f"between {self.limits.description_min} and {self.limits.description_max}"
        texts = sql.texts("description")
        rest = f"case when {texts}[1] = '{_HEADING}' then {texts}[2:] else {texts} end"
        selection = Selection(
            keep=[
                sql.given("rating_number", f"{sql.number('rating_number')} <> 0"),
                sql.given("title", sql.true("title")),
                sql.given("categories", sql.true("categories")),
                sql.given("description", f"length(described) {limits}"),
            ],
            values={"asin": sql.text("asin"), "title": sql.text("title"), "description": "described"},
            scanned=["asin"],
            derived={"described": f"array_to_string({rest}, ' ')"},
        )
        found = self._scan("items", file, selection, counts)
        found = replace(found, rows=found.rows.unique("asin", keep="first", maintain_order=True))
        step = "items with a title, categories, ratings and a description of the right length"
        self._count(counts, step, found.rows.height)
        return found

    def _usable_reviews(self, file: RawFile, described: polars.DataFrame, counts: dict[str, int]) -> _Kept:
        """Steps 3 and 4: the complete reviews of these items, as codes of user and item, timestamp, hash of the text
        and row in the file."""
        import polars as pl

        sql = file.sql
        selection = Selection(
            keep=[
                f"strlen(text) >= {self.limits.text_min}",  # in bytes, which are told fastest
                f"{sql.number('rating')} <> 0",
                sql.given("title", sql.true("title")),
                f"{sql.milliseconds('timestamp')} <> 0",
                f"length(text) >= {self.limits.text_min}",
            ],
            values={
                **{name: sql.text(name) for name in ("user_id", "asin", "title", "text")},
                "rating": sql.number("rating"),
                "timestamp": sql.milliseconds("timestamp"),
                "hash": TEXT_HASH,
            },
            scanned=["user_id", "asin", "timestamp", "hash"],
        )
        found = self._scan("reviews", file, selection, counts)
        self._count(counts, "reviews with a long text, a rating, a title and a time", found.rows.height)
        codes = described.select("asin").with_row_index("item")
        rows = found.rows.join(codes, on="asin", how="inner", maintain_order="left")
        self._count(counts, "reviews of kept items", rows.height)
        users = pl.Series("user", rows["user_id"].to_arrow().dictionary_encode().indices)
        return replace(found, rows=rows.select("row", "item", "timestamp", "hash", users.cast(pl.Int64)))

    def _joint_core(self, usable: _Kept, counts: dict[str, int]) -> polars.DataFrame:
        """Step 5: the surviving reviews with their texts, in the order of the file."""
        import polars as pl

        frame = usable.rows
        users, items = frame["user"].to_numpy(), frame["item"].to_numpy().astype(np.int64)
        times, hashes = frame["timestamp"].to_numpy(), frame["hash"].to_numpy()
        limits = (self.limits.user_reviews_min, self.limits.user_reviews_max)
        repeats = kcore.repeats(users, hashes)
        texts = hashes
        while True:
            rows, passes = kcore.joint_core(users, items, times, texts, repeats, self.limits.item_users, limits)
            self.progress(f"the joint k-core took {passes} passes")
            needed = np.union1d(rows, repeats)
            fetched = usable.fetch(frame["row"].gather(needed))
            if not fetched.select("timestamp", "hash").equals(frame[needed].select("timestamp", "hash")):
                raise usable.file.changed()
            compared = fetched["text"].gather(np.searchsorted(needed, repeats))
            codes = kcore.told_apart(users, hashes, repeats, compared) if texts is hashes else None
            if codes is None:
                self._count(counts, "reviews after the joint k-core", len(rows))
                return fetched.filter(pl.Series(np.isin(needed, rows))).drop("hash")
            texts = codes

    def _alive_items(self, described: _Kept, frame: polars.DataFrame, counts: dict[str, int]) -> polars.DataFrame:
        """Step 6: the item table, in the order of the file."""
        import polars as pl

        alive = described.rows.join(frame.select("asin").unique(), on="asin", how="semi", maintain_order="left")
        self._count(counts, "items after the joint k-core", alive.height)
        table = described.fetch(alive["row"])
        if not table["asin"].equals(alive["asin"]):
            raise described.file.changed()
        return table.select(pl.col(ITEM_COLUMNS).fill_null(""))

    def _split(self, frame: polars.DataFrame, counts: dict[str, int]) -> polars.DataFrame:
        """Steps 7 to 9: normalise texts, drop repeats, split each user's reviews into history and inputs, thin the
        histories out."""
        import polars as pl

        frame = frame.with_columns(
            pl.col("title").fill_null(""), pl.col("text").str.replace_all(_WHITESPACE, " ").str.strip_chars(" ")
        )
        users, items = _codes(frame, "user_id"), _codes(frame, "asin")
        hashes = frame["text"].hash().to_numpy()
        repeats = kcore.repeats(users, hashes)
        codes = kcore.told_apart(users, hashes, repeats, frame["text"].gather(repeats))
        texts = kcore.dense(hashes if codes is None else codes)
        order = kcore.newest_first(users, frame["timestamp"].to_numpy())
        by_item, by_text = kcore.dense(users, items)[order], kcore.dense(users, texts)[order]
        mask = np.zeros(frame.height, dtype=np.bool_)
        mask[order] = kcore.unrepeated(by_item, by_text)
        frame = frame.filter(pl.Series(mask)).sort("user_id", "timestamp", maintain_order=True)
        self._count(counts, "reviews after dropping repeats", frame.height)
        users, items = _codes(frame, "user_id"), _codes(frame, "asin")
        from_end = np.bincount(users).cumsum()[users] - np.arange(frame.height)
        inputs = from_end <= INPUTS
        alive = kcore.history_core(users, items, ~inputs, self.limits.history_item_users, self.limits.user_history)
        stays = np.bincount(users[alive], minlength=int(users.max()) + 1) > 0
        frame = frame.with_columns(role=pl.when(pl.Series(inputs)).then(pl.lit("input")).otherwise(pl.lit("history")))
        frame = frame.filter(pl.Series(alive | (inputs & stays[users])))
        self._count(counts, "reviews after the core of the histories", frame.height)
        return frame.select(*REVIEW_COLUMNS, "role")


def _codes(frame: polars.DataFrame, column: str) -> kcore.Codes:
    """Codes 0..n-1 in the order of the column's values."""
    return frame[column].rank("dense").to_numpy().astype(np.int64) - 1
