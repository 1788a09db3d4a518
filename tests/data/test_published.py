"""The published form: the same small data in every layout, read through the real libraries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet
import pytest

from bench.data.corpus import Corpus
from bench.data.layouts import published
from bench.data.layouts.published import Published
from bench.data.published_hub import hub_categories, read_hub
from bench.errors import DataError, ResourceError
from bench.records import Record

Row = dict[str, Any]
Data = dict[str, list[Row]]


def review(n: int, asin: str | None = None) -> Row:
    return {
        "rating": 1.0 + n % 5,
        "title": f"t{n}",
        "text": f"text {n}\n😀",
        "asin": asin or f"i{n % 3}",
        "timestamp": 1000 + n,
    }


def data() -> Data:
    """Users A and B, two training rows each, profiles that grow by one review a row."""
    splits: Data = {"train": [], "val": [], "test": []}
    for start, split in ((3, "train"), (4, "train"), (5, "val"), (6, "test")):
        for shift, user in ((0, "B"), (100, "A")):
            profile = [review(shift + n) for n in range(start)]
            splits[split].append({"user_id": user, "profile": profile, "data": review(shift + start)})
    return splits | {"full": [{"asin": f"i{n}", "title": f"Item {n}", "description": f"about {n}"} for n in range(3)]}


def write_parquet(path: Path, rows: list[Row]) -> None:
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))


def write_jsonl(path: Path, rows: list[Row]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.with_suffix(".jsonl").write_text(text, encoding="utf-8")


def write_stream(path: Path, rows: list[Row]) -> None:
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(path.with_suffix(".arrow"), table.schema) as writer:
        writer.write_table(table)


def write_file(path: Path, rows: list[Row]) -> None:
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_file(path.with_suffix(".arrow"), table.schema) as writer:
        writer.write_table(table)


def save_to_disk(path: Path, rows: list[Row]) -> None:
    datasets.Dataset.from_list(rows).save_to_disk(path)


Writer = Callable[[Path, list[Row]], None]
WRITERS: list[Writer] = [write_parquet, write_jsonl, write_stream, write_file, save_to_disk]


def write(folder: Path, content: Data, writer: Writer = write_jsonl) -> Path:
    for split, rows in content.items():
        home = folder / ("meta" if split == "full" else "main") / "Books"
        home.mkdir(parents=True, exist_ok=True)
        writer(home / split, rows)
    return folder


def values(old: Record) -> tuple[Any, ...]:
    return old.user_id, old.group, old.fields["rating"], old.fields["title"], old.text, old.timestamp


def check(corpus: Corpus) -> None:
    assert {split: [instance.id for instance in rows] for split, rows in corpus.instances.items()} == {
        "train": ["Books/train/B/0", "Books/train/A/0", "Books/train/B/1", "Books/train/A/1"],
        "val": ["Books/val/B", "Books/val/A"],
        "test": ["Books/test/B", "Books/test/A"],
    }
    test, train = corpus.split("test")[1], corpus.split("train")[1]
    assert (test.user_id, test.group, test.timestamp) == ("A", "i1", 1106)
    assert test.given == {
        "item_title": "Item 1",
        "item_description": "about 1",
        "output_rating": 2.0,
        "output_title": "t106",
    }
    assert corpus.reference(test) == "text 106\n😀"
    wanted = [review(100 + n) for n in range(6)]
    assert [values(old) for old in test.profile] == [
        ("A", old["asin"], old["rating"], old["title"], old["text"], old["timestamp"]) for old in wanted
    ]
    assert test.profile[2].fields["item_description"] == "about 0"
    assert isinstance(test.given["output_rating"], float)
    assert isinstance(test.profile[0].fields["rating"], float)
    assert test.profile[0] is train.profile[0], "the same review is held once"
    assert corpus.groups == {"i0", "i1", "i2"}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_layout_gives_the_same(tmp_path: Path, writer: Writer) -> None:
    folder = write(tmp_path / "copy", data(), writer)
    assert Published().categories(folder) == ["Books"]
    corpus = Published().read(folder, "Books")
    check(corpus)
    assert corpus.notes == ("Books: 2 test users, from the published splits in folder copy.",)


def test_whole_ratings_become_floats(tmp_path: Path) -> None:
    content = data()
    content["test"][0]["data"]["rating"] = 4
    rating = Published().read(write(tmp_path, content), "Books").split("test")[0].given["output_rating"]
    assert (rating, type(rating)) == (4.0, float)


def test_a_profile_out_of_order_is_sorted_and_said(tmp_path: Path) -> None:
    content = data()
    profile = content["test"][0]["profile"]
    profile[3]["timestamp"] = profile[0]["timestamp"]
    profile[3], profile[4] = profile[4], profile[3]
    corpus = Published().read(write(tmp_path, content), "Books")
    assert [old.fields["title"] for old in corpus.split("test")[0].profile] == ["t0", "t3", "t1", "t2", "t4", "t5"]
    assert corpus.notes[1] == "Books: 1 profiles were not in the order of time and were sorted."


@pytest.mark.parametrize("writer", [write_parquet, write_stream])
def test_columns_and_rows_are_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Writer) -> None:
    """The fast way for well-formed columns against the plain one, over batches of all sizes and awkward profiles."""
    content = data()
    content["train"][0]["profile"] = []
    content["test"][1]["profile"].reverse()
    content["val"][0]["profile"][2]["timestamp"] = 0
    content["test"][0]["data"]["timestamp"] = 0  # older than its profile: no matter for the profile's order
    content["train"][3]["profile"] *= 2
    folder = write(tmp_path / "columns", content, writer)
    plain = Published().read(write(tmp_path / "rows", content, write_jsonl), "Books")
    for rows in (1, 3, 128):
        monkeypatch.setattr(published, "ROWS", rows)
        corpus = Published().read(folder, "Books")
        assert (corpus.instances, corpus.references) == (plain.instances, plain.references)
        assert (
            corpus.notes[1:] == plain.notes[1:] == ("Books: 3 profiles were not in the order of time and were sorted.",)
        )
        assert corpus.fingerprint == plain.fingerprint, "also in which reviews are the same object"


def test_splits_of_different_layouts_share_their_reviews(tmp_path: Path) -> None:
    folder = write(tmp_path, data(), write_parquet)
    (folder / "main/Books/test.parquet").unlink()
    write_jsonl(folder / "main/Books/test", data()["test"])
    check(Published().read(folder, "Books"))


@pytest.mark.parametrize("change", [{"text": "new"}, {"title": "new"}, {"asin": "i2"}, {"rating": 5.0}])
def test_reviews_that_differ_in_one_field_stay_apart(tmp_path: Path, change: Row) -> None:
    content = data()
    profile = content["test"][1]["profile"]
    profile.insert(1, profile[0] | change)
    corpus = Published().read(write(tmp_path, content, write_parquet), "Books")
    test = corpus.split("test")[1]
    assert [values(one) for one in test.profile[:2]] == [
        ("A", one["asin"], one["rating"], one["title"], one["text"], one["timestamp"]) for one in profile[:2]
    ]
    assert test.profile[0] != test.profile[1]


@pytest.mark.parametrize(
    ("column", "kind", "message"),
    [
        ("rating", pa.string(), r"row 1: rating is '1(\.0)?', not a number"),
        ("timestamp", pa.float64(), r"row 1: timestamp is 1000\.0, not a whole number"),
        ("asin", pa.large_string(), None),
        ("rating", pa.float32(), None),
        ("timestamp", pa.int32(), None),
    ],
)
def test_columns_of_other_types(tmp_path: Path, column: str, kind: pa.DataType, message: str | None) -> None:
    folder = write(tmp_path, data(), write_parquet)
    path = folder / "main/Books/val.parquet"
    table = pyarrow.parquet.read_table(path)
    fields = [field if field.name != column else pa.field(column, kind) for field in table.schema.field("data").type]
    schema = pa.schema(
        [("user_id", pa.string()), ("profile", pa.list_(pa.struct(fields))), ("data", pa.struct(fields))]
    )
    pyarrow.parquet.write_table(table.select(schema.names).cast(schema), path)
    if message is None:
        check(Published().read(folder, "Books"))
        return
    with pytest.raises(DataError, match=message):
        Published().read(folder, "Books")


def test_gaps_in_columns_are_one_clear_error(tmp_path: Path) -> None:
    content = data()
    content["val"][1]["profile"][0]["title"] = None
    with pytest.raises(DataError, match=r"val\.parquet, row 2: title is None, not a text"):
        Published().read(write(tmp_path / "title", content, write_parquet), "Books")
    content = data()
    content["val"][1]["data"] = None
    with pytest.raises(DataError, match=r"val\.parquet, row 2: a review is not an object"):
        Published().read(write(tmp_path / "data", content, write_parquet), "Books")
    content["train"][1]["profile"] = None
    with pytest.raises(DataError, match=r"train\.parquet, row 2: profile is not a list"):
        Published().read(write(tmp_path / "profile", content, write_parquet), "Books")


def test_a_split_without_rows_and_a_category_without_items(tmp_path: Path) -> None:
    folder = write(tmp_path, data() | {"train": []})
    corpus = Published().read(folder, "Books")
    assert (corpus.split("train"), len(corpus.split("test"))) == ((), 2)
    (folder / "main/Toys").mkdir()
    assert Published().categories(folder) == ["Books", "Toys"]
    with pytest.raises(DataError, match=r"meta/Toys has no full\.\{parquet,jsonl,arrow\}"):
        Published().read(folder, "Toys")


def test_a_broken_record_of_where_it_comes_from(tmp_path: Path) -> None:
    folder = write(tmp_path, data())
    record = folder / "fetched.json"
    for text, message in (
        ("{", r"fetched\.json cannot be read"),
        ('{"schema": 9}', r"fetched\.json is not of schema 1"),
        ('{"schema": 1, "categories": {"Books": {}}}', "has no 'sources'; fetch or export"),
    ):
        record.write_text(text)
        with pytest.raises(DataError, match=message):
            Published().read(folder, "Books")


# Malformed data.


def spoilt(change: Callable[[Data], object]) -> Data:
    content = deepcopy(data())
    change(content)
    return content


CASES: list[tuple[Callable[[Data], object], str]] = [
    (
        lambda d: [row["profile"].append(review(50, asin)) for row in d["val"] for asin in ("x", "y")],
        "item x, reviewed 2 times, is missing from the meta data, as are 1 other items",
    ),
    (
        lambda d: d["test"][1]["data"].update(asin="zz"),
        "item zz, reviewed 1 times, is missing from the meta data; fetch",
    ),
    (lambda d: d["test"][1].pop("user_id"), r"test\.jsonl, line 2: user_id is None, not a text; .*form of SnowCharmQ"),
    (lambda d: d["test"][0].update(profile="p"), r"test\.jsonl, line 1: profile is not a list"),
    (lambda d: d["test"][0].update(data=[]), r"test\.jsonl, line 1: a review is not an object"),
    (lambda d: d["val"][0]["profile"][2].update(rating="5"), r"val\.jsonl, line 1: rating is '5', not a number"),
    (lambda d: d["val"][0]["profile"][2].update(rating=float("nan")), "val.*, line 1: rating is nan, not a finite num"),
    (lambda d: d["test"][1]["data"].update(rating=float("-inf")), "test.*, line 2: rating is -inf, not a finite numb"),
    (lambda d: d["test"][1]["data"].update(rating=10**400), "test.*, line 2: rating is 1000.*, not a finite number"),
    (lambda d: d["val"][0]["data"].update(timestamp=1 << 63), "line 1: timestamp is 9223372036854775808, not a whole"),
    (lambda d: d["val"][0]["data"].update(timestamp=float("nan")), "line 1: timestamp is nan, not a whole number"),
    (lambda d: d["val"][0]["data"].update(text="a \ud83d b"), r"val.*, line 1: a text holds half a character .\\ud83d"),
    (lambda d: d["full"][1].update(title="\udc00"), r"full.*, line 2: a text holds half a character .\\udc00"),
    (lambda d: d["test"][1].update(user_id="\ud800"), r"test.*, line 2: a text holds half a character"),
    (lambda d: d["val"][0]["data"].update(timestamp=1.5), r"val\.jsonl, line 1: timestamp is 1\.5, not a whole number"),
    (lambda d: d["train"][1]["data"].update(text=None), r"train\.jsonl, line 2: text is None, not a text"),
    (lambda d: d["full"][2].update(description=None), r"full\.jsonl, line 3: description is None"),
    (lambda d: d["test"].append(d["test"][0]), r"test\.jsonl, line 3: user B has a second row in split test"),
]


@pytest.mark.parametrize(("change", "message"), CASES)
def test_malformed_data_is_one_clear_error(tmp_path: Path, change: Callable[[Data], object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Published().read(write(tmp_path, spoilt(change)), "Books")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("rating", [float("nan"), float("inf")])
def test_a_rating_that_is_no_number(tmp_path: Path, writer: Writer, rating: float) -> None:
    content = data()
    content["val"][1]["profile"][2]["rating"] = rating
    with pytest.raises(DataError, match=rf"val.*, (row|line) 2: rating is {rating}, not a finite number; the data has"):
        Published().read(write(tmp_path, content, writer), "Books")


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_column_of_texts_that_are_not_utf_8(tmp_path: Path, form: str) -> None:
    folder = write(tmp_path, data() | {"full": []})
    (folder / "meta/Books/full.jsonl").unlink()
    texts = pa.array([b"i0", b"i\xff", b"i2"]).view(pa.string())
    table = pa.table(dict.fromkeys(("asin", "title", "description"), texts))
    path = folder / f"meta/Books/full.{form}"
    if form == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table)
    with pytest.raises(DataError, match=r"full\..* cannot be read .*UTF-?8"):
        Published().read(folder, "Books")


def test_a_byte_order_mark_and_blank_lines_are_no_error(tmp_path: Path) -> None:
    folder = write(tmp_path / "copy", data())
    for path in folder.rglob("*.jsonl"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n"))
    (folder / "exported.json").write_bytes(b'\xef\xbb\xbf{"schema": 1}')
    check(Published().read(folder, "Books"))


def test_a_missing_or_broken_file_is_one_clear_error(tmp_path: Path) -> None:
    folder = write(tmp_path, data())
    path = folder / "main/Books/val.jsonl"
    path.write_text("{}\nhello\n")
    with pytest.raises(DataError, match=r"val\.jsonl, line 1: user_id is None"):
        Published().read(folder, "Books")
    path.write_text(json.dumps(data()["val"][0]) + "\nhello\n")
    with pytest.raises(DataError, match=r"val\.jsonl, line 2: not valid JSON"):
        Published().read(folder, "Books")
    path.unlink()
    with pytest.raises(DataError, match=r"Books has no val\.\{parquet,jsonl,arrow\}"):
        Published().read(folder, "Books")
    for suffix in ("parquet", "arrow"):
        broken = path.with_suffix(f".{suffix}")
        broken.write_bytes(b"ARROW1 not really")
        with pytest.raises(DataError, match=rf"val\.{suffix} cannot be read"):
            Published().read(folder, "Books")
        broken.unlink()


# The hub. `datasets` reads a folder "owner/name" below the working directory as it reads a repository.


def made_commit(repository: str, revision: str | None) -> str:
    return hashlib.sha1(f"{repository}@{revision}".encode()).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    content = data()
    parts = {"main": ("train", "val", "test"), "meta": ("full",)}
    for part, splits in parts.items():
        home = tmp_path / f"owner/DPL-{part}"
        (home / "Books").mkdir(parents=True)
        files = "".join(f"  - split: {split}\n    path: Books/{split}.parquet\n" for split in splits)
        (home / "README.md").write_text(f"---\nconfigs:\n- config_name: Books\n  data_files:\n{files}---\n")
        for split in splits:
            write_parquet(home / "Books" / split, content[split])
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "dataset_info",
        lambda _, repository, revision: SimpleNamespace(sha=made_commit(repository, revision)),
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path / "owner"


def test_the_hub_form_gives_the_same(hub: Path) -> None:
    assert hub_categories("owner/DPL-main", None) == ["Books"]
    corpus = read_hub("owner/DPL-main", "Books", None)
    check(corpus)
    at = ",".join(made_commit(f"owner/DPL-{part}", None)[:12] for part in ("main", "meta"))
    origin = f"owner/DPL-main and owner/DPL-meta on the Hugging Face hub at revision {at}"
    assert corpus.notes == (f"Books: 2 test users, from {origin}.",)


def test_an_unknown_category_on_the_hub(hub: Path) -> None:
    with pytest.raises(DataError, match=r"owner/DPL-main cannot be read as category Bikes: .*Books"):
        read_hub("owner/DPL-main", "Bikes", None)


def test_a_hub_data_set_without_a_split(hub: Path) -> None:
    readme = hub / "DPL-main/README.md"
    readme.write_text(readme.read_text().replace("split: val", "split: other"))
    with pytest.raises(DataError, match="owner/DPL-main, Books, split val: there is no such split"):
        read_hub("owner/DPL-main", "Books", None)


@pytest.mark.parametrize(
    ("revision", "main", "meta"), [(None, None, None), ("v1", "v1", "v1"), ("abc,def", "abc", "def")]
)
def test_which_revision_of_what_is_asked_for(
    hub: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None, main: str | None, meta: str | None
) -> None:
    asked = []
    real = datasets.load_dataset

    def load_dataset(path: str, name: str, **options: Any) -> datasets.DatasetDict:
        asked.append((path, name, options))
        return real(path, name)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = read_hub("owner/DPL-main", "Books", revision)
    assert asked == [
        ("owner/DPL-main", "Books", {"revision": made_commit("owner/DPL-main", main)}),
        ("owner/DPL-meta", "Books", {"revision": made_commit("owner/DPL-meta", meta)}),
    ]
    assert made_commit("owner/DPL-main", main)[:12] in corpus.notes[0]


def test_the_hub_cannot_be_reached(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    message = "other/DPL-main could not be fetched .*check the name.*local copy .*`bench data prepare`"
    with pytest.raises(ResourceError, match=message):
        read_hub("other/DPL-main", "Books", None)
    with pytest.raises(ResourceError, match=message):
        hub_categories("other/DPL-main", None)


def test_a_name_without_main_has_no_items() -> None:
    with pytest.raises(DataError, match="has to end in '-main'"):
        read_hub("owner/DPL", "Books", None)
