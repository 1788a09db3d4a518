"""Reading back what prepare wrote: order, instances, references, and folders that were tampered with."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from bench.data.corpus import collection_paused
from bench.data.layouts.prepared import Prepared
from bench.data.manifest import SCHEMA, Manifest
from bench.data.prepare import prepare
from bench.data.thresholds import Thresholds
from bench.errors import DataError
from bench.records import Fields, Record

SMALL = Thresholds(1, 99, 1, 1, 11, 99, 1, 1)
START = 10**12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Category Toys: user A with twelve reviews (two of history), user B with eleven, all of items i0 to i11."""
    reviews = [
        {
            "user_id": user,
            "parent_asin": f"i{n}",
            "rating": 1 + n % 5,
            "title": f"{user}{n}",
            "text": f"by {user} on {n}",
        }
        | {"timestamp": START + n}
        for n in range(12)
        for user in "BA"
        if (user, n) != ("B", 0)
    ]
    items = [
        {
            "parent_asin": f"i{n}",
            "title": f"Item {n}",
            "description": ["d", str(n)],
            "categories": ["x"],
            "rating_number": 2,
        }
        for n in range(12)
    ]
    for name, records in (("r.jsonl", reviews), ("i.jsonl", items)):
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    prepare(tmp_path / "r.jsonl", tmp_path / "i.jsonl", "Toys", tmp_path / "out", lambda _: None, SMALL)
    return tmp_path / "out"


def test_instances_and_references(folder: Path) -> None:
    corpus = Prepared().read(folder, "Toys")
    assert [instance.id for instance in corpus.split("test")] == ["Toys/test/A", "Toys/test/B"]
    assert [instance.id for instance in corpus.split("val")] == ["Toys/val/A", "Toys/val/B"]
    assert [instance.id for instance in corpus.split("train")] == [
        f"Toys/train/{u}/{k}" for u in "AB" for k in range(8)
    ]
    test, val, train = corpus.split("test")[0], corpus.split("val")[0], corpus.split("train")[3]
    assert (test.user_id, test.group, test.timestamp) == ("A", "i11", START + 11)
    assert test.given == {
        "item_title": "Item 11",
        "item_description": "d 11",
        "output_rating": 2.0,
        "output_title": "A11",
    }
    assert [review.group for review in test.profile] == [f"i{n}" for n in range(11)]
    assert [review.group for review in val.profile] == [f"i{n}" for n in range(10)]
    assert (train.group, [review.group for review in train.profile]) == ("i5", [f"i{n}" for n in range(5)])
    fields: Fields = {"item_title": "Item 2", "item_description": "d 2", "rating": 3.0, "title": "A2"}
    assert test.profile[2] == Record("A", "by A on 2", fields, "i2", START + 2)
    assert corpus.groups == {f"i{n}" for n in range(12)}
    assert corpus.reference(test) == "by A on 11"
    assert test.profile[4] is train.profile[4], "profiles share their reviews"
    assert corpus.notes == (
        "Toys: 2 users, prepared from r.jsonl and i.jsonl by the steps of DPL's authors, but not with their "
        "thresholds: --min-text 1 (200), --min-description 1 (100), --max-description 99 (2000), "
        "--min-item-users 1 (8), --min-user-reviews 11 (18), --max-user-reviews 99 (500), --min-item-histories 1 (5), "
        "--min-history 1 (8).",
    )


def test_the_same_files_give_the_same_fingerprint(folder: Path) -> None:
    assert Prepared().read(folder, "Toys").fingerprint == Prepared().read(folder, "Toys").fingerprint


def test_the_manifest_comes_back_as_written(folder: Path) -> None:
    manifest = Manifest.read(folder / "Toys")
    assert manifest.summary.users == 2
    assert manifest.summary.instances == {"train": 16, "val": 2, "test": 2}
    assert [source["name"] for source in manifest.sources] == ["r.jsonl", "i.jsonl"]
    assert "test profile: 10.50 reviews on average (sd 0.50)" in "\n".join(manifest.summary.lines())


def test_garbage_collection_is_as_before(folder: Path) -> None:
    assert gc.isenabled()
    Prepared().read(folder, "Toys")
    assert gc.isenabled()
    (folder / "Toys" / "reviews.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError):
        Prepared().read(folder, "Toys")
    assert gc.isenabled()
    with collection_paused():
        assert not gc.isenabled()


def test_an_unfinished_folder_is_no_category(folder: Path) -> None:
    (folder / "Toys").rename(folder / ".Toys.123")
    assert Prepared().categories(folder) == []


def rewrite(change: Callable[[pl.DataFrame], pl.DataFrame], name: str = "reviews") -> Callable[[Path], None]:
    def apply(home: Path) -> None:
        path = home / f"{name}.parquet"
        change(pl.read_parquet(path)).write_parquet(path)

    return apply


def manifest_schema(home: Path) -> None:
    path = home / "manifest.json"
    path.write_text(path.read_text().replace(f'"schema": {SCHEMA}', '"schema": 99'))


CASES: list[tuple[Callable[[Path], object], str]] = [
    (manifest_schema, rf"has schema 99, this version reads {SCHEMA}; prepare the category again"),
    (lambda home: (home / "manifest.json").write_text("{"), r"manifest\.json cannot be read"),
    (lambda home: (home / "manifest.json").write_text('{"schema": 2}'), r"manifest\.json cannot be read"),
    (
        rewrite(lambda frame: frame.with_columns(rating=float("nan"))),
        r"Toys: column rating of reviews\.parquet holds what is not a finite number; remove the folder",
    ),
    (lambda home: (home / "reviews.parquet").write_bytes(b"PAR1"), r"reviews\.parquet cannot be read"),
    (lambda home: (home / "items.parquet").unlink(), r"items\.parquet cannot be read"),
    (rewrite(lambda frame: frame.drop("role")), r"reviews\.parquet cannot be read"),
    (
        rewrite(lambda frame: frame.with_columns(pl.col("timestamp").cast(pl.String))),
        "column timestamp .* another type",
    ),
    (rewrite(lambda frame: frame.with_columns(text=pl.lit(None, pl.String))), "column text .* gaps"),
    (rewrite(lambda frame: frame.drop("text")), "column text .* another type"),
    (rewrite(lambda frame: frame.with_columns(pl.col("text").cast(pl.Binary))), "column text .* another type"),
    (rewrite(lambda frame: frame[:-1]), "user B does not have a history followed by 10 inputs"),
    (rewrite(lambda frame: frame.with_columns(role=pl.lit("input"))), "user A does not have a history followed by"),
    (rewrite(lambda frame: frame[:5]), "user A does not have a history followed by 10 inputs"),
    (rewrite(lambda frame: frame[:0]), r"does not hold the 2 users of the manifest"),
    (rewrite(lambda frame: frame[:12][::-1].vstack(frame[12:])), "user A does not have a history followed by"),
    (rewrite(lambda frame: frame[:12]), r"does not hold the 2 users of the manifest"),
    (rewrite(lambda frame: frame.with_columns(pl.col("timestamp") * -1)), "user A are not in the order of time"),
    (
        rewrite(lambda frame: frame.with_columns(pl.col("timestamp") - 9 * (pl.int_range(frame.height) == 20))),
        "user B are not in the order of time",
    ),
    (rewrite(lambda frame: frame[1:], "items"), r"user A reviews item i0, which items\.parquet does not have"),
    (rewrite(lambda frame: frame[:-1], "items"), r"user . reviews item i\d+, which items\.parquet does not have"),
]


@pytest.mark.parametrize(("spoil", "message"), CASES)
def test_a_spoilt_folder_is_one_clear_error(folder: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(folder / "Toys")
    with pytest.raises(DataError, match=message):
        Prepared().read(folder, "Toys")
