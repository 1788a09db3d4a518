"""Writing the published form: what comes back, its types, and folders that hold something already."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import polars as pl
import pyarrow.parquet
import pytest

from bench.data import export
from bench.data.corpus import Corpus
from bench.data.export import write
from bench.data.layouts.prepared import Prepared
from bench.data.layouts.published import Published
from bench.data.manifest import Manifest, Summary
from bench.errors import DataError
from bench.tasks.reviews import Item

Row = dict[str, Any]
Data = dict[str, list[Row]]


def review(n: int) -> Row:
    text = f"text {n}\n😀"
    return {"rating": 1.0 + n % 5, "title": f"t{n}", "text": text, "asin": f"i{n % 3}", "timestamp": 1000 + n}


def data() -> Data:
    """Users A and B, two training rows each, profiles that grow by one review a row."""
    splits: Data = {"train": [], "val": [], "test": []}
    for start, split in ((3, "train"), (4, "train"), (5, "val"), (6, "test")):
        for shift, user in ((0, "B"), (100, "A")):
            profile = [review(shift + n) for n in range(start)]
            splits[split].append({"user_id": user, "profile": profile, "data": review(shift + start)})
    return splits | {"full": [{"asin": f"i{n}", "title": f"Item {n}", "description": f"about {n}"} for n in range(3)]}


def copy(folder: Path, content: Data | None = None) -> Corpus:
    """The corpus of a local copy in JSON lines."""
    for split, rows in (content or data()).items():
        home = folder / ("meta" if split == "full" else "main") / "Books"
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Published().read(folder, "Books")


def same(one: Corpus, other: Corpus) -> bool:
    return (one.groups, one.instances, one.references) == (other.groups, other.instances, other.references)


def test_what_is_written_comes_back(tmp_path: Path, demo: Mapping[str, Corpus]) -> None:
    for corpus in demo.values():
        write(corpus, tmp_path / "out")
    assert Published().categories(tmp_path / "out") == sorted(demo)
    for category, corpus in demo.items():
        back = Published().read(tmp_path / "out", category)
        assert same(back, corpus)
        assert back.fingerprint == corpus.fingerprint
        assert back.notes[1:] == corpus.notes, "what a table has to say about the data is not lost"


def test_a_written_folder_has_the_published_types(tmp_path: Path) -> None:
    write(copy(tmp_path / "in"), tmp_path / "out")
    files = {split: str(tmp_path / f"out/main/Books/{split}.parquet") for split in ("train", "val", "test")}
    read = datasets.load_dataset("parquet", data_files=files, cache_dir=tmp_path / "cache")
    assert {split: len(rows) for split, rows in read.items()} == {"train": 4, "val": 2, "test": 2}
    text, whole, number = datasets.Value("string"), datasets.Value("int64"), datasets.Value("float64")
    past = {"rating": number, "title": text, "text": text, "asin": text, "timestamp": whole}
    assert read["test"].features == {"user_id": text, "profile": datasets.List(past), "data": past}
    assert list(read["test"].features["data"]) == list(past)
    assert read["test"][1] == data()["test"][1]
    items = datasets.load_dataset("parquet", data_files=str(tmp_path / "out/meta/Books/full.parquet"), split="train")
    assert items.column_names == ["title", "description", "asin"]


def test_a_split_without_rows_is_written_too(tmp_path: Path) -> None:
    corpus = copy(tmp_path / "in", data() | {"val": []})
    write(corpus, tmp_path / "out")
    assert same(Published().read(tmp_path / "out", "Books"), corpus)


def test_row_groups_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "ROWS", 3)
    write(copy(tmp_path / "in"), tmp_path / "out")
    metadata = pyarrow.parquet.ParquetFile(tmp_path / "out/main/Books/train.parquet").metadata
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [3, 1]


def test_a_category_is_not_overwritten_and_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = copy(tmp_path / "in")
    out = tmp_path / "out"

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pyarrow.parquet.ParquetWriter, "write_table", fails)
        with pytest.raises(DataError, match=r"out cannot be written \(.*No space left on device\)"):
            write(corpus, out)
    assert not out.exists()
    write(corpus, out)
    with pytest.raises(DataError, match=r"main/Books exists already; remove it or write to another folder"):
        write(corpus, out)
    with pytest.raises(DataError, match="category Books has no split val; the published form needs train, val, test"):
        write(Corpus("Books", {"train": ()}, {}), tmp_path / "other")


@pytest.mark.parametrize("hashes", ["the same for all", "the same in each chunk"])
def test_reviews_whose_hashes_are_equal_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashes: str
) -> None:
    write(copy(tmp_path / "in"), tmp_path / "out")
    wanted = Published().read(tmp_path / "out", "Books")
    monkeypatch.setattr(
        pl.DataFrame,
        "hash_rows",
        lambda frame: pl.Series(np.arange(frame.height) * (hashes != "the same for all"), dtype=pl.UInt64),
    )
    assert same(Published().read(tmp_path / "out", "Books"), wanted)


# A prepared category in the published form.


def prepared_folder(folder: Path, last_text: str = "text 11") -> Path:
    """One user's twelve reviews; nobody reviews the item "none"."""
    home = folder / "Books"
    home.mkdir(parents=True, exist_ok=True)
    count = 12
    reviews = {
        "user_id": ["U"] * count,
        "asin": [f"i{n % 3}" for n in range(count)],
        "rating": [5.0] * count,
        "title": [f"t{n}" for n in range(count)],
        "text": [*(f"text {n}" for n in range(count - 1)), last_text],
        "timestamp": list(range(count)),
        "role": ["history"] * 2 + ["input"] * 10,
    }
    asins = ["none", "i2", "i0", "i1"]
    items = {"asin": asins, "title": [f"Title {asin}" for asin in asins], "description": ["About."] * 4}
    pl.DataFrame(reviews).write_parquet(home / "reviews.parquet")
    pl.DataFrame(items).write_parquet(home / "items.parquet")
    summary = Summary("Books", {}, {}, 1, {"train": 8, "val": 1, "test": 1}, 11.0, 0.0)
    Manifest("Books", [{"name": "generated"}], {}, summary, {}).write(home)
    return folder


def test_a_prepared_category_keeps_its_items_and_their_order(tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path)
    out = export.export(folder, "Books")
    assert out == folder / "dpl"
    assert pl.read_parquet(out / "meta/Books/full.parquet")["asin"].to_list() == ["none", "i2", "i0", "i1"]
    back = Published().read(out, "Books")
    corpus = Prepared().read(folder, "Books")
    assert same(back, corpus)
    assert back.fingerprint == corpus.fingerprint


def test_exporting_the_same_again_is_nothing_to_do(tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path)
    out = export.export(folder, "Books")
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    export.export(folder, "Books")
    assert stamps == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    # Another version of bench may make another fingerprint of the same content.
    origin = out / "exported.json"
    origin.write_text(origin.read_text().replace(Prepared().read(folder, "Books").fingerprint, "0" * 64))
    export.export(folder, "Books")
    assert "0" * 64 in origin.read_text()
    prepared_folder(tmp_path, "another text")
    with pytest.raises(DataError, match="exists already"):
        export.export(folder, "Books")


def test_items_that_nobody_reviews_are_written_if_they_are_given(tmp_path: Path) -> None:
    corpus = copy(tmp_path / "in")
    write(corpus, tmp_path / "out")
    read = pl.read_parquet(tmp_path / "out/meta/Books/full.parquet")
    assert read.rows() == [(f"Item {n}", f"about {n}", f"i{n}") for n in range(3)]
    write(corpus, tmp_path / "more", [Item("i9", "Other", "")])
    assert pl.read_parquet(tmp_path / "more/meta/Books/full.parquet").rows() == [("Other", "", "i9")]
