"""A data set's name leads to the right reader, and a wrong one to an error that helps."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from bench.data import published_hub
from bench.data.corpus import Corpus
from bench.data.load import load
from bench.data.prepare import prepare
from bench.data.thresholds import Thresholds
from bench.errors import DataError
from bench.records import Instance, Record


def prepared_folder(folder: Path, names: tuple[str, ...] = ("Books", "Toys")) -> Path:
    records = [
        {"user_id": "U", "parent_asin": str(n), "rating": 5, "title": "t", "text": f"text {n}", "timestamp": 10**12 + n}
        for n in range(11)
    ]
    items = [
        {"parent_asin": str(n), "title": "T", "description": ["d"], "categories": ["c"], "rating_number": 1}
        for n in range(11)
    ]
    for name, rows in (("r.jsonl", records), ("i.jsonl", items)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    for category in names:
        limits = Thresholds(1, 99, 1, 1, 11, 99, 1, 1)
        prepare(folder / "r.jsonl", folder / "i.jsonl", category, folder / "amazon", lambda _: None, limits)
    return folder / "amazon"


def published_folder(folder: Path) -> Path:
    review = {"rating": 5.0, "title": "t", "text": "x", "asin": "a", "timestamp": 1}
    row = {"user_id": "U", "profile": [review], "data": review}
    for part, split in (("main", "train"), ("main", "val"), ("main", "test"), ("meta", "full")):
        home = folder / part / "Books"
        home.mkdir(parents=True, exist_ok=True)
        content = row if part == "main" else {"asin": "a", "title": "T", "description": "d"}
        (home / f"{split}.jsonl").write_text(json.dumps(content) + "\n")
    return folder


def test_a_prepared_folder(tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path)
    corpora = load(str(folder), None)
    assert {name: corpus.category for name, corpus in corpora.items()} == {"Books": "Books", "Toys": "Toys"}
    assert list(load(str(folder), ["Toys"])) == ["Toys"]


def test_a_published_folder(tmp_path: Path) -> None:
    corpora = load(str(published_folder(tmp_path / "copy")), None)
    assert [instance.id for instance in corpora["Books"].split("test")] == ["Books/test/U"]


def test_a_hub_id_goes_to_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def read_hub(name: str, category: str, revision: str | None) -> Corpus:
        asked.append((name, category, revision))
        return Corpus(category, {}, {})

    def hub_categories(name: str, revision: str | None) -> list[str]:
        return ["Books", "CDs_and_Vinyl"]

    monkeypatch.setattr(published_hub, "read_hub", read_hub)
    monkeypatch.setattr(published_hub, "hub_categories", hub_categories)
    assert list(load("SnowCharmQ/DPL-main", ["Books"], "v1")) == ["Books"]
    assert list(load("SnowCharmQ/DPL-main", None)) == ["Books", "CDs_and_Vinyl"]
    assert asked == [
        ("SnowCharmQ/DPL-main", "Books", "v1"),
        ("SnowCharmQ/DPL-main", "Books", None),
        ("SnowCharmQ/DPL-main", "CDs_and_Vinyl", None),
    ]


def test_the_demo_and_its_categories() -> None:
    assert list(load("demo", ["Books"])) == ["Books"]
    with pytest.raises(DataError, match=r"data set demo has no category 'Bocks'; did you mean 'Books'\? It has: Books"):
        load("demo", ["Bocks"])


@pytest.mark.parametrize(
    ("name", "near"), [("dem", "demo"), ("SnowCharmQ/DPL-man", "SnowCharmQ/DPL-main"), ("{0}/amazn", "{0}/amazon")]
)
def test_an_unknown_name_lists_what_was_tried(tmp_path: Path, name: str, near: str) -> None:
    prepared_folder(tmp_path, ("Toys",))
    with pytest.raises(DataError) as caught:
        load(name.format(tmp_path), None)
    message = str(caught.value)
    assert f"did you mean '{near.format(tmp_path)}'?" in message
    assert "Tried: the name 'demo', a folder of that path, and a data set on the hub" in message


def test_a_path_that_looks_like_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared_folder(tmp_path, ("Toys",)).rename(tmp_path / "toys-main")
    (tmp_path / "data").mkdir()
    (tmp_path / "toys-main").rename(tmp_path / "data/toys-main")
    monkeypatch.chdir(tmp_path)
    assert list(load("data/toys-main", None)) == ["Toys"]
    with pytest.raises(DataError, match=r"no data set 'data/toy-main'; did you mean 'data/toys-main'\?"):
        load("data/toy-main", None)


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"holds no data set: neither .* nor .*; make one with `bench data prepare` or `bench data fetch`",
    ):
        load(str(tmp_path), None)


def test_a_category_folder_instead_of_its_parent(tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path, ("Toys",))
    with pytest.raises(DataError, match=rf"give its parent, {folder}$"):
        load(str(folder / "Toys"), None)


def test_an_unknown_category(tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path, ("Toys",))
    with pytest.raises(DataError, match=r"no category 'Toy'; did you mean 'Toys'\? It has: Toys"):
        load(str(folder), ["Toy"])


# Tasks.


@dataclass(frozen=True)
class Headlines:
    """A layout of another task: FOLDER/<category>.headlines holds a headline a line, the last one to be written."""

    task: ClassVar[str] = "headlines"
    form: ClassVar[str] = "<category>.headlines, a headline a line"

    def categories(self, folder: Path) -> list[str]:
        return sorted(path.stem for path in folder.glob("*.headlines"))

    def read(self, folder: Path, category: str) -> Corpus:
        *past, last = (folder / f"{category}.headlines").read_text().splitlines()
        profile = tuple(Record("U", text, {}) for text in past)
        one = Instance(f"{category}/test/U", category, "test", "U", {}, profile)
        return Corpus(category, {"test": (one,)}, {one.id: last})


@pytest.fixture
def headlines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the layout of an installed package."""
    point = importlib.metadata.EntryPoint("lines", f"{__name__}:Headlines", "bench.layouts")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == point.group else [])
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "sports.headlines").write_text("One\nTwo\nThree\n")
    return tmp_path / "papers"


def test_a_layout_of_another_package(headlines: Path) -> None:
    corpus = load(str(headlines), None, task="headlines")["sports"]
    (one,) = corpus.split("test")
    assert ([old.text for old in one.profile], corpus.reference(one)) == (["One", "Two"], "Three")
    with pytest.raises(DataError, match=r"no category 'sport'; did you mean 'sports'\? It has: sports"):
        load(str(headlines), ["sport"], task="headlines")
    with pytest.raises(DataError, match=r"nor main/<category>/, .* nor <category>\.headlines, a headline a line; make"):
        load(str(headlines.parent), None, task="headlines")


def test_data_of_another_task(headlines: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"papers is of task headlines, not reviews; .*--task headlines"):
        load(str(headlines), None)
    for name in (str(prepared_folder(tmp_path, ("Toys",))), "demo", "owner/DPL-main"):
        with pytest.raises(DataError, match=rf"{name} is of task reviews, not headlines; .*--task reviews"):
            load(name, None, task="headlines")


def test_a_folder_with_data_of_two_tasks(headlines: Path) -> None:
    published_folder(headlines)
    assert list(load(str(headlines), None)) == ["Books"]
    assert list(load(str(headlines), None, task="headlines")) == ["sports"]


def test_importing_the_readers_loads_no_heavy_package() -> None:
    code = (
        "import sys, bench.data.load, bench.data.prepare, bench.data.fetch\n"
        "print([name for name in ('polars', 'pyarrow', 'datasets', 'torch', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
