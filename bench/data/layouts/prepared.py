"""prepared: the folder that `bench data prepare` writes (see `bench.data.manifest`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.data.corpus import SPLITS, Corpus, collection_paused
from bench.data.manifest import ITEM_COLUMNS, REVIEW_COLUMNS, Manifest
from bench.data.raw.columns import SCALE
from bench.data.scale import STARS, Scale, read_scale
from bench.data.splitting import user_instances
from bench.data.thresholds import INPUTS, changed
from bench.errors import ConfigError, DataError
from bench.records import ABSENT, Instance, Record
from bench.tasks.reviews import Item, review

if TYPE_CHECKING:
    import polars

_ROWS = 8192  # texts read at a time


@dataclass(frozen=True)
class Prepared:
    """Splits made by `bench data prepare`."""

    task: ClassVar[str] = "reviews"
    form: ClassVar[str] = "<category>/manifest.json, as `bench data prepare` writes it"

    def categories(self, folder: Path) -> list[str]:
        """The prepared categories in `folder`, sorted; empty if it is not a prepared folder."""
        found = (path.parent.name for path in folder.glob("*/manifest.json"))
        return sorted(name for name in found if not name.startswith("."))

    def read(self, folder: Path, category: str) -> Corpus:
        """One category. Raises `DataError` for files that are missing, broken or inconsistent."""
        home = folder / category
        manifest = Manifest.read(home)
        items, scale = read_items(home), _scale(home, manifest)
        instances: dict[str, list[Instance]] = {split: [] for split in SPLITS}
        references: dict[str, str] = {}
        with collection_paused():
            reviews, counts = _reviews(home, items, scale)
            for start, end in pairwise([0, *accumulate(counts)]):
                for instance, text in user_instances(category, reviews[start:end]):
                    instances[instance.split].append(instance)
                    references[instance.id] = text
        users = manifest.summary.users
        if len(references) != INPUTS * users:
            raise _inconsistent(home, f"reviews.parquet does not hold the {users:,} users of the manifest")
        sources = " and ".join(str(source["name"]) for source in manifest.sources)
        how = changed(manifest.thresholds)
        steps = f"but not with their thresholds: {how}" if how else "and with their thresholds"
        note = f"{category}: {users:,} users, prepared from {sources} by the steps of DPL's authors, {steps}."
        note += "" if scale == STARS else f" Ratings are on a scale of {scale.low:g} to {scale.high:g}."
        note += _lacking(reviews)
        splits = {split: tuple(rows) for split, rows in instances.items()}
        return Corpus(category, splits, references, frozenset(items), (note,))


def read_items(home: Path) -> dict[str, Item]:
    """The items of a category by asin, also those without a review. Raises `DataError`."""
    rows = _columns(home / "items.parquet", ITEM_COLUMNS).iter_rows()
    return {asin: Item(asin, title or ABSENT, description or ABSENT) for asin, title, description in rows}


def _scale(home: Path, manifest: Manifest) -> Scale:
    """The scale of the ratings."""
    try:
        return read_scale(str(manifest.layout.get(SCALE, STARS)))
    except ConfigError as error:
        raise _inconsistent(home, f"manifest.json: {error}") from error


def _lacking(reviews: Sequence[Record]) -> str:
    """What no review has, as the rest of a note; a prompt says nothing of it."""
    labels = {"title": "review titles", "item_title": "item titles", "item_description": "item descriptions"}
    lacking = [label for name, label in labels.items() if not any(one.fields[name] for one in reviews)]
    return f" The data have no {' and no '.join(lacking)}." if lacking else ""


def _reviews(home: Path, items: dict[str, Item], scale: Scale) -> tuple[tuple[Record, ...], list[int]]:
    """All reviews, in the order of the rows, and how many each user has."""
    path = home / "reviews.parquet"
    frame = _columns(path, ("user_id", "asin", "rating", "title", "timestamp", "role"))
    counts = _users(home, frame, items)
    columns = {name: frame[name].to_list() for name in frame.columns} | {"text": _texts(path)}
    columns["asin"] = [items[asin] for asin in columns["asin"]]
    columns["title"] = [title or ABSENT for title in columns["title"]]
    reviews = map(review, *(columns[name] for name in REVIEW_COLUMNS))
    return tuple(reviews if scale == STARS else (_on_scale(one, scale) for one in reviews)), counts


def _on_scale(record: Record, scale: Scale) -> Record:
    """A review with its rating as its scale shows it."""
    return replace(record, fields={**record.fields, "rating": scale.shown(float(record.fields["rating"]))})


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
        if name == "rating" and not frame[name].is_finite().all():
            raise _inconsistent(path.parent, f"column {name} of {path.name} holds what is not a finite number")


def _users(home: Path, frame: polars.DataFrame, items: Collection[str]) -> list[int]:
    """How many reviews each user has, in the order of the rows, after a check of all of them."""
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
    check(known, "user {user} reviews item {asin}, which items.parquet does not have")
    return users.to_list()


def _inconsistent(home: Path, what: str) -> DataError:
    return DataError(f"{home}: {what}; remove the folder and run `bench data prepare` again")
