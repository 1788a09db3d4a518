"""From raw files of reviews and items to DPL's splits, one category at a time.

The ten steps are those of DPL's authors. Rows by themselves (steps 1 to 4) are DuckDB's (`bench.data.raw`); the loops
over users and items (steps 5 and 9) work on integer codes (`bench.data.kcore`); texts are in memory for the reviews
that survive the first loop alone. Until then a text is a 64-bit hash; before a result counts, the texts of a user with
equal hashes are compared. Of items that occur twice, the first that passes the filters counts.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.data import kcore
from bench.data.layouts import ITEM_FIELDS, LAYOUTS, REVIEW_FIELDS, Layout
from bench.data.prepared import INPUTS, ITEM_COLUMNS, REVIEW_COLUMNS, TRAIN, Manifest, Summary, discard, missing_folders
from bench.data.raw import RawFile, connect, identity
from bench.data.survey import Survey
from bench.errors import DataError
from bench.store import replace_content

if TYPE_CHECKING:
    import polars

Progress = Callable[[str], None]

EXPORT = "dpl"
"""The folder beside the categories that holds them in the published form."""
LEFT_OUT = "left out, unusable"
_HEADING = "Product Description"
# What is to become one space: Python's notion of white space, which the authors' code uses, has four control characters
# more than the regex crate's. A single space is left alone, for speed.
_WHITESPACE = r"[\s\x1c-\x1f]{2,}|[\s\x1c-\x1f&&[^ ]]"
_AMAZON_2023 = LAYOUTS["amazon-2023"]


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
    layout: Layout = _AMAZON_2023,
    max_bad_lines: int = 0,
) -> Summary:
    """Prepare one category into `out`/`category` (see `bench.data.prepared` for the layout) and report what was kept.

    `reviews` and `items` are files as `layout` describes them; in each, up to `max_bad_lines` rows that cannot be used
    are left out, counted and reported. If the category is there already, made from the same files in the same way, it
    is reported and left alone. What was read before an interruption, also a hard one, is not read again. Raises
    `DataError` for input that cannot be read, for a category that is there from other files, and if nothing is left;
    then nothing is written.
    """
    limits = thresholds or Thresholds()
    if not re.fullmatch(r"\w[\w.-]*", category):
        raise DataError(f"category '{category}' cannot be a folder's name; use letters, digits, '_', '-' and '.'")
    if category == EXPORT:
        raise DataError(f"category '{EXPORT}': the folder of this name is for the published form; take another one")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is no folder; choose another --out")
    survey = Survey([items, reviews])  # in the order in which they are needed
    how = {"thresholds": asdict(limits), "layout": layout.described()}
    try:
        if (out / category).exists():
            return _existing(out / category, survey.sources()[::-1], how, max_bad_lines, progress)
        versions = [version("personalization-bench"), version("duckdb")]  # a hash is the same within a version
        files = [list(identity(path)) for path in (reviews, items)]
        task = {"files": files, "max_bad_lines": max_bad_lines, "versions": versions} | how
        with _workplace(out, category, task) as work:
            if (out / category).exists():  # since a moment ago
                return _existing(out / category, survey.sources()[::-1], how, max_bad_lines, progress)
            result = work / "result"
            result.mkdir()
            try:
                summary = _Steps(work, survey, limits, layout, max_bad_lines, progress).run(
                    reviews, items, category, result
                )
            except (DataError, EOFError, zlib.error, gzip.BadGzipFile):
                survey.check()
                raise
            sources = survey.sources()[::-1]
            if files != [list(identity(path)) for path in (reviews, items)]:
                raise DataError(f"{reviews} or {items} changed while it was read; run the same command again")
            Manifest(category, sources, how["thresholds"], summary, how["layout"]).write(result)
            result.rename(out / category)
        return summary
    except OSError as error:
        raise DataError(
            f"could not write {out / category} ({error}); choose another folder, or free space if the disk is full"
        ) from error
    finally:
        survey.give_up()


def _existing(
    folder: Path, sources: list[dict[str, Any]], how: Mapping[str, Any], max_bad_lines: int, progress: Progress
) -> Summary:
    if not (folder / "manifest.json").exists():
        raise DataError(
            f"{folder} exists but `bench data prepare` did not make it; move it away or choose another --out"
        )
    found = Manifest.read(folder)
    counts = {**found.summary.items, **found.summary.reviews}
    left_out = max(counts.get(f"{noun} {LEFT_OUT}", 0) for noun in ("items", "reviews"))
    same_files = [source["sha256"] for source in found.sources] == [source["sha256"] for source in sources]
    if not same_files:
        what = "from " + " and ".join(str(source["name"]) for source in found.sources)
    elif found.thresholds != how["thresholds"]:
        what = "with other thresholds"
    elif found.layout != how["layout"]:
        what = "with another mapping of columns"
    elif left_out > max_bad_lines:
        what = f"without {left_out:,} unusable lines"
    else:
        progress(f"{folder} is already prepared from these files; nothing to do")
        return found.summary
    raise DataError(
        f"{folder} is already prepared {what}, which is not the same as asked for; remove it or choose another --out"
    )


# Unfinished work.


@contextmanager
def _workplace(out: Path, category: str, task: Mapping[str, Any]) -> Iterator[Path]:
    """A hidden folder in `out` for one process at a time. It vanishes after success and for input that cannot be used;
    otherwise it stays for the next call with the same task. Raises `DataError` if another process is at work there."""
    created = missing_folders(out)
    folder = out / f".{category}.unfinished"
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "task.json"
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock.fileno()).st_nlink == 0:  # who had it has ended and removed the folder
                raise BlockingIOError
        except BlockingIOError:
            raise DataError(f"another process is preparing {out / category}; wait for it or stop it") from None
        if _read(note) != task:
            for path in folder.iterdir():
                if path.name != "lock":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            replace_content(note, json.dumps(task))
        shutil.rmtree(folder / "result", ignore_errors=True)
        try:
            yield folder
        except DataError:
            discard(folder, created)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> Any:
    """What a JSON file holds; None if there is none that is whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


# The steps.


@dataclass
class _Steps:
    """The ten steps over one category's files; `work` keeps what was read of them."""

    work: Path
    survey: Survey
    limits: Thresholds
    layout: Layout
    max_bad_lines: int
    progress: Progress

    def run(self, reviews: Path, items: Path, category: str, folder: Path) -> Summary:
        """Write reviews.parquet and items.parquet into `folder`."""
        with connect(self.work) as connection:
            item_file = RawFile(connection, items, ITEM_FIELDS, self.layout, "items.", self.survey, self.work)
            review_file = RawFile(connection, reviews, REVIEW_FIELDS, self.layout, "", self.survey, self.work)
            item_counts: dict[str, int] = {}
            review_counts: dict[str, int] = {}
            described = self._described_items(item_file, item_counts)
            frame = self._usable_reviews(review_file, described, review_counts)
            frame = self._joint_core(review_file, frame, review_counts)
            item_table = self._alive_items(item_file, described, frame, item_counts)
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

    def _scanned(
        self, noun: str, file: RawFile, keep: Sequence[str], wanted: Sequence[str], counts: dict[str, int]
    ) -> polars.DataFrame:
        """`RawFile.scan`, or what it gave before an interruption; counts the rows of the file."""
        import polars as pl

        table, note = self.work / f"{noun}.parquet", self.work / f"{noun}.json"
        if note.exists():
            frame, found = pl.read_parquet(table, glob=False), json.loads(note.read_text(encoding="utf-8"))
            file.rows = found["rows"]
            self.progress(f"{file.path.name} was read before the interruption")
        else:
            scanned = file.scan(keep, wanted, self.max_bad_lines)
            frame = scanned.kept
            found = {name: getattr(scanned, name) for name in ("rows", "bad", "reason", "absent")}
            frame.write_parquet(table, compression="uncompressed", statistics=False)
            replace_content(note, json.dumps(found))
        self._count(counts, f"{noun} in the file", found["rows"])
        if found["bad"]:
            self._count(counts, f"{noun} {LEFT_OUT}", found["bad"])
            self.progress(f"  the first of them: {found['reason']}")
        for column in found["absent"]:
            self.progress(f"  no row has a value for '{column}', which may be missing")
        return frame

    def _described_items(self, file: RawFile, counts: dict[str, int]) -> polars.DataFrame:
        """Steps 1 and 2: the items that are described well enough, as asin and row in the file."""
        limits = f"between {self.limits.description_min} and {self.limits.description_max}"
        keep = [
            file.given("rating_number", f"{file.number('rating_number')} <> 0"),
            file.given("title", file.true("title")),
            file.given("categories", file.true("categories")),
            file.given("description", f"length(described) {limits}"),
        ]
        texts = file.texts("description")
        rest = f"case when {texts}[1] = '{_HEADING}' then {texts}[2:] else {texts} end"
        file.derived = {"described": f"array_to_string({rest}, ' ')"}
        file.values = {"asin": file.text("asin"), "title": file.text("title"), "description": "described"}
        rows = self._scanned("items", file, keep, ["asin"], counts)
        rows = rows.unique("asin", keep="first", maintain_order=True)
        self._count(
            counts, "items with a title, categories, ratings and a description of the right length", rows.height
        )
        return rows

    def _usable_reviews(self, file: RawFile, described: polars.DataFrame, counts: dict[str, int]) -> polars.DataFrame:
        """Steps 3 and 4: the complete reviews of these items, as codes of user and item, timestamp, hash of the text
        and row in the file."""
        import polars as pl

        keep = [
            f"strlen(text) >= {self.limits.text_min}",  # in bytes, which are told fastest
            f"{file.number('rating')} <> 0",
            file.given("title", file.true("title")),
            f"{file.milliseconds('timestamp')} <> 0",
            f"length(text) >= {self.limits.text_min}",
        ]
        file.values = {name: file.text(name) for name in ("user_id", "asin", "title", "text")}
        file.values |= {"rating": file.number("rating"), "timestamp": file.milliseconds("timestamp")}
        file.values |= {"hash": "hash(text)"}
        rows = self._scanned("reviews", file, keep, ["user_id", "asin", "timestamp", "hash"], counts)
        self._count(counts, "reviews with a long text, a rating, a title and a time", rows.height)
        codes = described.select("asin").with_row_index("item")
        rows = rows.join(codes, on="asin", how="inner", maintain_order="left")
        self._count(counts, "reviews of kept items", rows.height)
        users = pl.Series("user", rows["user_id"].to_arrow().dictionary_encode().indices)
        return rows.select("row", "item", "timestamp", "hash", users.cast(pl.Int64))

    def _joint_core(self, file: RawFile, frame: polars.DataFrame, counts: dict[str, int]) -> polars.DataFrame:
        """Step 5: the surviving reviews with their texts, in the order of the file."""
        import polars as pl

        users, items = frame["user"].to_numpy(), frame["item"].to_numpy().astype(np.int64)
        times, hashes = frame["timestamp"].to_numpy(), frame["hash"].to_numpy()
        limits = (self.limits.user_reviews_min, self.limits.user_reviews_max)
        repeats = kcore.repeats(users, hashes)
        texts = hashes
        while True:
            rows, passes = kcore.joint_core(users, items, times, texts, repeats, self.limits.item_users, limits)
            self.progress(f"the joint k-core took {passes} passes")
            needed = np.union1d(rows, repeats)
            fetched = file.fetch(frame["row"].gather(needed))
            if not fetched.select("timestamp", "hash").equals(frame[needed].select("timestamp", "hash")):
                raise file.changed()
            compared = fetched["text"].gather(np.searchsorted(needed, repeats))
            codes = kcore.told_apart(users, hashes, repeats, compared) if texts is hashes else None
            if codes is None:
                self._count(counts, "reviews after the joint k-core", len(rows))
                return fetched.filter(pl.Series(np.isin(needed, rows))).drop("hash")
            texts = codes

    def _alive_items(
        self, file: RawFile, described: polars.DataFrame, frame: polars.DataFrame, counts: dict[str, int]
    ) -> polars.DataFrame:
        """Step 6: the item table, in the order of the file."""
        import polars as pl

        alive = described.join(frame.select("asin").unique(), on="asin", how="semi", maintain_order="left")
        self._count(counts, "items after the joint k-core", alive.height)
        table = file.fetch(alive["row"])
        if not table["asin"].equals(alive["asin"]):
            raise file.changed()
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
