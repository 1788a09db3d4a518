"""The folder that `bench data prepare` writes, and reading it back.

    OUT/<category>/reviews.parquet   user_id, asin, rating, title, text, timestamp, role; by user, then time
    OUT/<category>/items.parquet     asin, title, description
    OUT/<category>/manifest.json     {"schema": 2, "category": ..., "sources": ..., "thresholds": ..., ...}

A review's role is "history" or "input"; each user has ten inputs, the newest reviews of all. A category folder is
renamed into place when it is complete, so one that exists is whole; folders whose name starts with a dot are not.
"""

from __future__ import annotations

import gc
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.corpus import Corpus
from bench.errors import DataError
from bench.records import Instance, Item, Review

if TYPE_CHECKING:
    import polars

SCHEMA = 2
INPUTS = 10
"""Reviews of a user that become targets: eight for training, one for validation, one for the test."""
TRAIN = INPUTS - 2
REVIEW_COLUMNS = ("user_id", "asin", "rating", "title", "text", "timestamp")
ITEM_COLUMNS = ("asin", "title", "description")
_ROWS = 8192  # texts read at a time


@dataclass(frozen=True)
class Summary:
    """What preparing a category kept. `reviews` and `items` give the rows left after each step, in order;
    profile sizes are those of the test split, in reviews (`profile_sd` is the population's)."""

    category: str
    reviews: Mapping[str, int]
    items: Mapping[str, int]
    users: int
    instances: Mapping[str, int]
    profile_mean: float
    profile_sd: float

    def lines(self) -> list[str]:
        """The summary as text for a terminal."""
        return [
            f"{self.category}",
            *(f"  {count:>11,}  {step}" for counts in (self.items, self.reviews) for step, count in counts.items()),
            f"  {self.users:>11,}  users",
            f"  {'':>11}  instances: " + ", ".join(f"{split} {count:,}" for split, count in self.instances.items()),
            f"  {'':>11}  test profile: {self.profile_mean:.2f} reviews on average (sd {self.profile_sd:.2f})",
        ]


@dataclass(frozen=True)
class Manifest:
    """Where a prepared category comes from. A source is {"name", "bytes", "sha256"}; thresholds are DPL's or others;
    the layout says which columns of the raw files hold what."""

    category: str
    sources: Sequence[Mapping[str, Any]]
    thresholds: Mapping[str, int]
    summary: Summary
    layout: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Write manifest.json into `folder`."""
        text = json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2, ensure_ascii=False)
        (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a category folder's manifest. Raises `DataError` if it is missing, broken or of another schema."""
        path = folder / "manifest.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            schema = values.pop("schema")
            if schema != SCHEMA:
                raise DataError(
                    f"{path} has schema {schema}, this version reads {SCHEMA}; prepare the category again with "
                    "`bench data prepare`"
                )
            return cls(**(values | {"summary": Summary(**values["summary"])}))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} cannot be read ({error}); remove {folder} and run `bench data prepare` again"
            ) from error


@contextmanager
def staging(out: Path, category: str) -> Iterator[Path]:
    """A hidden folder in `out` that becomes `out`/`category` if the block succeeds and vanishes if it does not."""
    created = missing_folders(out)
    folder = out / f".{category}.{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.rename(out / category)
    except BaseException:
        discard(folder, created)
        raise


def missing_folders(folder: Path) -> list[Path]:
    """Of a folder and those around it the ones that are not there, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def discard(folder: Path, created: Sequence[Path]) -> None:
    """Remove a folder and, if they are empty then, those that were made for it."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in created:
        with suppress(OSError):
            path.rmdir()


def categories(folder: Path) -> list[str]:
    """The prepared categories in `folder`, sorted; empty if it is no prepared folder."""
    return sorted(path.parent.name for path in folder.glob("*/manifest.json") if not path.parent.name.startswith("."))


def read(folder: Path, category: str) -> Corpus:
    """Read one prepared category. Raises `DataError` for files that are missing, broken or inconsistent."""
    home = folder / category
    manifest = Manifest.read(home)
    items = {row[0]: Item(*row) for row in _columns(home / "items.parquet", ITEM_COLUMNS).iter_rows()}
    frame = _columns(home / "reviews.parquet", ("user_id", "asin", "rating", "title", "timestamp", "role"))
    users = _users(home, frame, items)
    instances: dict[str, list[Instance]] = {"train": [], "val": [], "test": []}
    references: dict[str, str] = {}
    with collection_paused():
        columns = {name: frame[name].to_list() for name in frame.columns} | {"text": _texts(home / "reviews.parquet")}
        reviews = tuple(map(Review, *(columns[name] for name in REVIEW_COLUMNS)))
        for start, end in pairwise([0, *accumulate(users)]):
            for instance, text in user_instances(category, reviews[start:end], items):
                instances[instance.split].append(instance)
                references[instance.id] = text
    if len(references) != INPUTS * manifest.summary.users:
        raise _inconsistent(home, f"reviews.parquet does not hold the {manifest.summary.users:,} users of the manifest")
    sources = " and ".join(str(source["name"]) for source in manifest.sources)
    note = f"{category}: {manifest.summary.users:,} users, prepared from {sources} by the steps of DPL's authors."
    return Corpus(category, items, {split: tuple(rows) for split, rows in instances.items()}, references, (note,))


def user_instances(
    category: str, reviews: tuple[Review, ...], items: Mapping[str, Item]
) -> Iterator[tuple[Instance, str]]:
    """A user's ten instances, each with its reference text, from the user's reviews, oldest first: train 0 to 7,
    val, test. An instance's profile is everything older than its target in that order."""
    first = len(reviews) - INPUTS
    for k in range(INPUTS):
        target = reviews[first + k]
        split = "train" if k < TRAIN else "val" if k == TRAIN else "test"
        suffix = f"/{k}" if split == "train" else ""
        yield (
            Instance(
                id=f"{category}/{split}/{target.user_id}{suffix}",
                category=category,
                split=split,
                user_id=target.user_id,
                item=items[target.asin],
                rating=target.rating,
                title=target.title,
                timestamp=target.timestamp,
                profile=reviews[: first + k],
            ),
            target.text,
        )


def _columns(path: Path, names: Sequence[str]) -> polars.DataFrame:
    import polars as pl

    try:
        frame = pl.read_parquet(path, columns=list(names), glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _unreadable(path, error) from error
    _check_columns(path, frame, names)
    return frame


def _texts(path: Path) -> list[str]:
    """The reviews' texts, nearly all of the file, a part at a time: memory that is used again costs no page faults."""
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet

    texts: list[str] = []
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS, columns=["text"]):
                frame = pl.DataFrame(pl.from_arrow(batch))
                _check_columns(path, frame, ("text",))
                texts += frame["text"].to_list()
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    return texts


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read ({str(error).splitlines()[0]}); remove {path.parent} and run `bench data prepare` again"
    )


def _check_columns(path: Path, frame: polars.DataFrame, names: Sequence[str]) -> None:
    import polars as pl

    kinds = {"rating": pl.Float64, "timestamp": pl.Int64}
    for name in names:
        if frame.schema.get(name) != kinds.get(name, pl.String) or frame[name].null_count():
            raise _inconsistent(path.parent, f"column {name} of {path.name} has another type or gaps")


def _users(home: Path, frame: polars.DataFrame, items: Mapping[str, Item]) -> list[int]:
    """The number of reviews of each user, in the order of the rows, after a check of all of them."""
    import polars as pl

    def check(right: polars.Series, what: str) -> None:
        if not right.all():
            user, asin = frame.select("user_id", "asin").row(right.not_().arg_max() or 0)
            raise _inconsistent(home, what.format(user=user, asin=asin))

    users = frame.select(pl.col("user_id").rle()).unnest("user_id")["len"]
    run = frame["user_id"].rle_id()
    # Counted from a user's last review, which is 1.
    place = pl.select(users.cum_sum().gather(run) - pl.int_range(frame.height)).to_series()
    roles = pl.select(pl.when(place > INPUTS).then(pl.lit("history")).otherwise(pl.lit("input"))).to_series()
    complete = (users >= INPUTS).gather(run)
    check((frame["role"] == roles) & complete, f"user {{user}} does not have a history followed by {INPUTS} inputs")
    later = (frame["timestamp"].diff() >= 0) | (run.diff() != 0)
    check(later.fill_null(True), "the reviews of user {user} are not in the order of time")
    known = frame["asin"].is_in(list(items))
    check(known, "user {user} reviews item {asin}, which items.parquet lacks")
    return users.to_list()


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


def _inconsistent(home: Path, what: str) -> DataError:
    return DataError(f"{home}: {what}; remove the folder and run `bench data prepare` again")
