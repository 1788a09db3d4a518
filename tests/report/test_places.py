"""Nothing that somebody publishes or sends on tells of the machine: everything is made on data and a model in folders
with telling names, and looked through."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import bench
from bench.api import tables
from bench.cli import main
from bench.config import read_config
from bench.experiments.data import data_statistics
from bench.golden import bless
from bench.places import by_name, found, hidden, shown_name, told_apart, without_paths, without_places
from bench.report.html import write_report
from bench.report.timing import time_methods

TELLING = ("jane_doe", "gpu-host-7", "secret plan")
ROWS = [
    {"label": "=RAG", "set": {"method": "rag"}},
    {"label": "Copy", "set": {"method": "copy"}},
]
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "scores": {"columns": ["rouge1"]},
    "drawn": {"columns": ["rouge1"], "figure": {"kind": "bars", "x": "method"}},
    "written": {"content": "texts"},
}


@pytest.fixture
def home(tmp_path: Path, shop: Path, tiny_qwen2: Path) -> Path:
    """A folder with the shop, another data set of its name and the model."""
    home = tmp_path / "jane_doe" / "gpu-host-7" / "secret plan"
    shutil.copytree(shop, home / "shop")
    other = shutil.copytree(shop, home / "elsewhere" / "shop")
    path = other / "main" / "Toys" / "test.jsonl"
    path.write_text(path.read_text().replace("A drum", "Two drums"))
    shutil.copytree(tiny_qwen2, home / "tiny-model")
    return home


def test_everything_is_made_and_no_path_is_in_it(
    home: Path, shop_config: Path, scripted: Any, tmp_path: Path, rewrite: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = read_config(str(shop_config)) | {"dataset": str(home / "shop"), "model": str(home / "tiny-model")}
    settings |= {"tokenizer": str(home / "tiny-model"), "results": str(home / "results")}
    names = []
    for name, content in EXPERIMENTS.items():
        rows = {"title": f"Of {name}", "groups": [{"rows": ROWS}]}
        names.append(str(tmp_path / f"{name}.yaml"))
        Path(names[-1]).write_text(yaml.safe_dump(rows | content))
    over: dict[str, Any] = {"dataset": None, "seed": None}
    printed = tables(names, {"demo": settings}, over, seeds=1, paper=False, significance=False)
    printed += time_methods(settings, ["copy", "rag"], limit=1, warmup=0, repeats=1)
    printed += data_statistics([str(home / "shop")], None, home / "results")
    bench.run("rag", settings, dataset=str(home / "elsewhere" / "shop"))
    results = home / "results"
    runs = sorted(path.name for path in (results / "runs").iterdir())
    (results / "runs" / "copy-broken").mkdir()
    shutil.copy(results / "runs" / runs[0] / "run.json", results / "runs" / "copy-broken")
    (results / "runs" / "copy-broken" / "summary.json").write_text("{")
    rewrite(results / "runs" / runs[1] / "run.json", lambda record: record["config"].update(prompts=".../none"))
    write_report(results, results / "report.html")
    bless(results / "runs" / runs[0], results / "golden")
    for command in (["list", "runs"], ["show", runs[0]], ["compare", runs[0], runs[1]]):
        assert main([*command, "--results", str(results)]) == 0
    printed += capsys.readouterr().out.splitlines()
    texts = {line: line for line in printed if not line.startswith("wrote ")}
    # What it takes to find data and model again, and nothing else.
    own = {path / "places.json" for path in (results / "runs").iterdir()}
    places = json.loads((results / "runs" / runs[0] / "places.json").read_text())
    assert places == {".../shop": str(home / "shop"), ".../tiny-model": str(home / "tiny-model")}
    files = [path for path in results.rglob("*") if path.is_file() and path not in own]
    assert {path.suffix for path in files} >= {".html", ".tex", ".md", ".csv", ".json", ".jsonl", ".png", ".pdf"}
    texts |= {path.name: path.read_bytes().decode("latin-1") for path in files}
    assert {name: word for name, text in texts.items() for word in (*TELLING, str(tmp_path)) if word in text} == {}
    page = texts["report.html"]
    # Two data sets of one name are told apart.
    assert page.count("<caption>Data shop (") == 2
    assert "model tiny-model" in page
    assert "Model tiny-model, data shop, test instances" in texts["scores.md"]
    assert "'=RAG" in texts["scores.csv"]


def test_records_have_names_for_paths() -> None:
    places: dict[str, str] = {}
    settings = {"a": "/x/m", "b": ["/y/m", "/x/m"], "c": {"d": "~/m?pooling=cls"}, "e": "org/m", "f": 1}
    record = hidden(settings, places)
    names = [".../m", ".../2/m", ".../m?pooling=cls"]
    assert record == {"a": names[0], "b": [names[1], names[0]], "c": {"d": names[2]}, "e": "org/m", "f": 1}
    assert found(record, places) == settings
    assert found(record, {}) == record, "on another machine"
    assert without_places(record)["b"] == ["m", "m"]
    assert shown_name(names[1]) == "m"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("demo", "demo"),
        ("Qwen/Qwen2.5-7B-Instruct@main", "Qwen/Qwen2.5-7B-Instruct@main"),
        ("python:bench/demo/model", "python:bench/demo/model"),
        ("/home/jane/movies", "movies"),
        ("/home/jane/movies/", "movies"),
        ("~/movies", "movies"),
        ("../jane/movies", "movies"),
        ("jane/data/movies", "movies"),
        (".", Path.cwd().name),
    ],
)
def test_a_name_in_the_place_of_a_path(name: str, shown: str) -> None:
    assert shown_name(name) == shown


def test_names_that_are_alike_carry_digits() -> None:
    prints = ["sha256:0123456789", "sha256:abcdefabcd", "sha256:0123456789", ""]
    assert told_apart(["a", "a", "b", "a"], prints) == ["a (012345)", "a (abcdef)", "b", "a"]


def test_paths_in_sentences() -> None:
    assert without_paths("data set '/home/jane/my data' was changed", ["/home/jane/my data"]) == (
        "data set 'my data' was changed"
    )
    assert without_paths("/home/jane/x.json, line 3: see https://host/a/b and/or <b>1/2</b>, ~/a/b") == (
        "x.json, line 3: see https://host/a/b and/or <b>1/2</b>, b"
    )
    assert by_name("Data /a/b, /a/b/c", ["/a/b", "demo", "None"]) == "Data b, b/c"
