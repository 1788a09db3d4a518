"""The ten steps of DPL's authors, from raw files of reviews and items to one category's splits.

Rows by themselves (steps 1 to 4) are DuckDB's (`bench.data.raw`); the loops over users and items (steps 5 and 9) work
on integer codes (`bench.data.kcore`); texts are in memory for the reviews that survive the first loop alone. Until then
a text is a 64-bit hash; before a result counts, the texts of a user with equal hashes are compared. Of items that occur
twice, the first that passes the filters counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from bench.data.splitting import TRAIN
from bench.data.thresholds import INPUTS, Thresholds
from bench.errors import DataError
from bench.report.names import counted

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
class _Kept:
    """What a scan kept of a file, and how to get the rest of it."""

    file: RawFile
    selection: Selection
    total: int
    """Rows of the file."""
    rows: polars.DataFrame
    unmet: list[int]
    """Rows that each condition of the selection left out."""

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
    removed: dict[str, dict[str, int]] = field(default_factory=dict)
    """By step the rows that were left out, by reason."""

    def run(self, reviews: Path, items: Path | None, category: str, folder: Path) -> Summary:
        """Write reviews.parquet and items.parquet into `folder`. Without a file of items these come out of the
        reviews. Raises `DataError`."""
        item_counts: dict[str, int] = {}
        review_counts: dict[str, int] = {}
        with connect(self.work) as connection:
            item_fields = Fields(items or reviews, ITEM_FIELDS, self.columns, "items.")
            item_file = RawFile(connection, item_fields, self.background, self.work)
            review_fields = Fields(reviews, REVIEW_FIELDS, self.columns, "")
            review_file = RawFile(connection, review_fields, self.background, self.work)
            if items is None:  # what is wrong with the file is said of its reviews
                complete = self._complete_reviews(review_file, review_counts)
                described = self._items_of_reviews(item_file, item_counts)
            else:
                described = self._described_items(item_file, item_counts)
                complete = self._complete_reviews(review_file, review_counts)
            usable = self._of_items(complete, described.rows, review_counts)
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
            removed=self.removed,
        )

    def _count(
        self,
        counts: dict[str, int],
        step: str,
        rows: int,
        reasons: Mapping[str, int] | None = None,
        hint: Callable[[], str] = lambda: "",
    ) -> None:
        """Record and report what a step left, and why it left rows out. Raises `DataError` if nothing is left; `hint`
        says what is known of the values then."""
        counts[step] = rows
        self.progress(f"{rows:,} {step}")
        if reasons := {reason: count for reason, count in (reasons or {}).items() if count}:
            self.removed[step] = reasons
        if rows == 0:
            before = ", ".join(f"{count:,} {name}" for name, count in counts.items())
            why = "; ".join(f"{count:,} {reason}" for own in self.removed.values() for reason, count in own.items())
            raise DataError(
                f"nothing is left ({before}); left out were {why}{hint()}. Change what the options in brackets say"
                if why
                else f"nothing is left ({before}); check that the reviews and the items are of the same category"
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
        return _Kept(file, selection, scanned.rows, scanned.kept, scanned.unmet)

    def _described_items(self, file: RawFile, counts: dict[str, int]) -> _Kept:
        """Steps 1 and 2: the items that are described well enough, as asin and row in the file."""
        selection = self._described(file)
        found = self._scan("items", file, selection, counts)
        found = replace(found, rows=found.rows.unique("asin", keep="first", maintain_order=True))
        step = "items with a title, categories, ratings and a description of the right length"
        self._count(counts, step, found.rows.height, self._item_reasons(found.unmet), lambda: self._lengths(found))
        return found

    def _items_of_reviews(self, file: RawFile, counts: dict[str, int]) -> _Kept:
        """The same of the reviews' own columns: an item is what the first review that may tell says of it."""
        selection = self._described(file)
        scanned, _ = Checkpoint(self.work, "items").scan(file, selection, self.max_bad_lines)
        rows = scanned.kept.unique("asin", keep="first", maintain_order=True)
        found = _Kept(file, selection, scanned.rows, rows, scanned.unmet)
        reasons = {f"reviews of an item {why}": count for why, count in self._item_reasons(scanned.unmet).items()}
        self._count(counts, "items in the reviews", rows.height, reasons, lambda: self._lengths(found))
        return found

    def _described(self, file: RawFile) -> Selection:
        """What is wanted of the items."""
        sql = file.sql
        texts = sql.texts("description")
        rest = f"case when {texts}[1] = '{_HEADING}' then {texts}[2:] else {texts} end"
        return Selection(
            keep=[
                sql.given("rating_number", f"{sql.number('rating_number')} <> 0"),
                sql.given("title", sql.true("title")),
                sql.given("categories", sql.true("categories")),
                sql.given("description", sql.true("description")),
                sql.given("description", f"length(described) >= {self.limits.description_min}"),
                sql.given("description", f"length(described) <= {self.limits.description_max}"),
            ],
            values={"asin": sql.text("asin"), "title": sql.text("title"), "description": "described"},
            scanned=["asin"],
            derived={"described": f"array_to_string({rest}, ' ')"},
        )

    def _item_reasons(self, unmet: Sequence[int]) -> dict[str, int]:
        """Why items were left out, in the order of the conditions."""
        limits = self.limits
        reasons = [
            "without ratings (--allow-missing items.rating_number)",
            "without a title (--allow-missing items.title)",
            "without categories (--allow-missing items.categories)",
            "without a description (--allow-missing items.description)",
            f"with a description of fewer than {limits.description_min:,} characters (--min-description)",
            f"with a description of more than {limits.description_max:,} characters (--max-description)",
        ]
        return dict(zip(reasons, unmet, strict=True))

    def _lengths(self, found: _Kept, text: str = "described", several: str = "descriptions") -> str:
        """How long the texts of a file are that has none of the right length, for its user to choose a threshold."""
        told = found.file.median_and_longest(text, found.selection.derived)
        if told is None:
            return ""
        return f" (half of the {several} have {told[0]:,} characters or more, the longest has {told[1]:,})"

    def _complete_reviews(self, file: RawFile, counts: dict[str, int]) -> _Kept:
        """Step 3: the complete reviews, as ids of user and item, timestamp, hash of the text and row in the file."""
        sql = file.sql
        selection = Selection(
            keep=[
                f"strlen(text) >= {self.limits.text_min}",  # in bytes, which are told fastest
                sql.rated("rating"),
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
        short, rating, title, time, shorter = found.unmet
        reasons = {
            f"with a text of fewer than {self.limits.text_min:,} characters (--min-text)": short + shorter,
            "without a rating": rating,
            "without a title (--allow-missing title)": title,
            "without a time": time,
        }
        needed = ["a long text", "a rating", *([] if sql.fields.may_be_missing("title") else ["a title"])]
        step = f"reviews with {', '.join(needed)} and a time"
        self._count(counts, step, found.rows.height, reasons, lambda: self._lengths(found, "text", "texts"))
        return found

    def _of_items(self, found: _Kept, described: polars.DataFrame, counts: dict[str, int]) -> _Kept:
        """Step 4: those of the described items, as codes of user and item, timestamp, hash and row."""
        import polars as pl

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
            rows, passes, fallen = kcore.joint_core(users, items, times, texts, repeats, self.limits.item_users, limits)
            self.progress(f"the joint k-core took {counted(passes, 'pass')}")
            needed = np.union1d(rows, repeats)
            fetched = usable.fetch(frame["row"].gather(needed))
            if not fetched.select("timestamp", "hash").equals(frame[needed].select("timestamp", "hash")):
                raise usable.file.changed()
            compared = fetched["text"].gather(np.searchsorted(needed, repeats))
            codes = kcore.told_apart(users, hashes, repeats, compared) if texts is hashes else None
            if codes is None:
                reasons = {
                    f"of items with fewer than {self.limits.item_users} users (--min-item-users)": fallen[0],
                    f"of users with fewer than {limits[0]} reviews (--min-user-reviews)": fallen[1],
                    f"of users with more than {limits[1]} reviews (--max-user-reviews)": fallen[2],
                }
                self._count(counts, "reviews after the joint k-core", len(rows), reasons, lambda: _most(users, items))
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
        repeated = {"of a user who has a newer one of the same item or text": len(mask) - frame.height}
        self._count(counts, "reviews after dropping repeats", frame.height, repeated)
        users, items = _codes(frame, "user_id"), _codes(frame, "asin")
        from_end = np.bincount(users).cumsum()[users] - np.arange(frame.height)
        inputs = from_end <= INPUTS
        limits = self.limits
        alive, fallen = kcore.history_core(users, items, ~inputs, limits.history_item_users, limits.user_history)
        stays = np.bincount(users[alive], minlength=int(users.max()) + 1) > 0
        frame = frame.with_columns(role=pl.when(pl.Series(inputs)).then(pl.lit("input")).otherwise(pl.lit("history")))
        frame = frame.filter(pl.Series(alive | (inputs & stays[users])))
        reasons = {
            f"of items in fewer than {limits.history_item_users} histories (--min-item-histories)": fallen[0],
            f"of users with fewer than {limits.user_history} reviews in the history (--min-history)": fallen[1],
            "to be written by users without a history": int((inputs & ~stays[users]).sum()),
        }
        self._count(counts, "reviews after the core of the histories", frame.height, reasons)
        return frame.select(*REVIEW_COLUMNS, "role")


def _most(users: kcore.Codes, items: kcore.Codes) -> str:
    """The most that there are, for who has to choose a threshold."""
    pairs = kcore.dense(users, items)
    _, first = np.unique(pairs, return_index=True)
    return (
        f" (before that, no user had reviews of more than {np.bincount(users[first]).max():,} items, and no item had "
        f"more than {np.bincount(items[first]).max():,} users)"
    )


def _codes(frame: polars.DataFrame, column: str) -> kcore.Codes:
    """Codes 0..n-1 in the order of the column's values."""
    return frame[column].rank("dense").to_numpy().astype(np.int64) - 1
