"""The functions for notebooks: their signatures, and what they give for real runs."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import bench
from bench.errors import BenchError, ConfigError, PluginError, StoreError
from bench.results import Prediction, Summary, rows_of

SIGNATURES = {
    "compare": "(a: 'str', b: 'str', changed: 'int' = 5, by: 'str | None' = None, results: 'str | Path' = 'results', "
    "scores: 'str | None' = None) -> 'Comparison'",
    "run": "(method: 'str', config: 'Config' = 'demo', limit: 'int | None' = None, **settings: 'Any') -> 'Summary'",
    "runs": "(results: 'str | Path' = 'results') -> 'DataFrame'",
    "scores": "(results: 'str | Path' = 'results', runs: 'str | Sequence[str] | None' = None) -> 'DataFrame'",
    "table": "(experiment: 'str' = 'table1', config: 'str | Path | Sequence[str | Path]' = 'demo', *, "
    "seeds: 'int' = 1, paper: 'bool' = False, significance: 'bool' = False, **settings: 'Any') -> 'str'",
}
"""Notebooks hang on them: a change here is a change for all users."""

SHOWN = """
import bench
from pandas import DataFrame
from bench.results import Summary

summary: Summary = bench.run("rag", limit=20)
score: float = summary.scores["Books"]["rouge1"].value
frame: DataFrame = bench.runs("results")
text: str = bench.table("table1")
low: float = bench.compare("a", "b").lines[0].difference.low
"""
MISTAKES = 'import bench\nbench.run(7)\nname: int = bench.run("rag").name\n'


def test_signatures() -> None:
    found = {name: str(inspect.signature(getattr(bench, name))) for name in bench.__all__}
    assert found == SIGNATURES
    assert all(getattr(bench, name).__doc__ for name in bench.__all__)


def test_no_module_takes_a_function_s_place() -> None:
    """A module bench.run, once imported, would be what `bench.run` means."""
    folder = Path(bench.__file__).parent
    assert [name for name in bench.__all__ if (folder / name).is_dir() or (folder / f"{name}.py").exists()] == []


def test_the_import_brings_nothing_else() -> None:
    code = "import sys, bench\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    own = {name for name in done.stdout.split() if name.startswith("bench.")}
    assert own == {"bench.api"}
    assert {"numpy", "pandas", "pydantic", "torch", "yaml"}.isdisjoint(done.stdout.split())


def test_mypy_knows_the_types(tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(SHOWN)
    (tmp_path / "wrong.py").write_text(MISTAKES)
    # What other packages say takes minutes to read.
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nignore_missing_imports = True\nfollow_imports = skip\n[mypy-bench.*]\nfollow_imports = silent\n"
    )
    # mypy does not follow the finder of an editable installation.
    environment = os.environ | {"MYPYPATH": str(Path(bench.__file__).parents[1])}
    command = [sys.executable, "-m", "mypy", "right.py", "wrong.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    found = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(found) == 2, done.stdout
    assert 'wrong.py:2: error: Argument 1 to "run" has incompatible type "int"; expected "str"' in found[0]
    assert 'wrong.py:3: error: Incompatible types in assignment (expression has type "str"' in found[1]


@pytest.fixture
def results(shop_config: Path, scripted: Any) -> Path:
    """The folder of results of two runs, and of one that is not complete."""
    settings = yaml.safe_load(shop_config.read_text())
    bench.run("rag", shop_config)
    bench.run("copy", settings, k=1)
    folder = Path(settings["results"])
    bench.run("nonperso", shop_config, limit=1)
    (unfinished,) = folder.glob("runs/nonperso-*")
    (unfinished / "summary.json").unlink()
    return folder


def test_run(shop_config: Path, scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    summary = bench.run("rag", shop_config, limit=2, k=1, metrics=["rouge"], rag={})
    assert isinstance(summary, Summary)
    assert summary.name.startswith("rag-recency-k1-shop-")
    assert summary.instances == {"Toys": 2}
    assert [call.key[0] for call in scripted.calls] == ["Toys/test/u1", "Toys/test/u2"]
    score = summary.scores["Toys"]["rouge1"]
    assert 0 <= score.low <= score.value <= score.high <= 1
    # Once more: nothing is computed.
    assert bench.run("rag", shop_config, limit=2, k=1, metrics=["rouge"]) == summary
    assert len(scripted.calls) == 2
    # Settings win over the configuration, and a mapping is a configuration.
    settings = yaml.safe_load(shop_config.read_text())
    assert bench.run("rag", settings | {"k": 1, "limit": 2, "metrics": ["rouge"]}) == summary
    assert capsys.readouterr().out == ""


def test_what_is_wrong_is_a_bench_error(shop_config: Path, scripted: Any) -> None:
    with pytest.raises(PluginError, match=r"there is no method 'raag'; did you mean 'rag'\?"):
        bench.run("raag", shop_config)
    with pytest.raises(PluginError, match=r"there is no backend 'vlm'; did you mean 'vllm'\?"):
        bench.run("copy", shop_config, backend="vlm")
    with pytest.raises(ConfigError, match=r"'limt' is not a configuration key; did you mean 'limit'\?"):
        bench.run("rag", shop_config, limt=3)
    with pytest.raises(ConfigError, match=r"there is no configuration 'dmeo'; did you mean 'demo'\?"):
        bench.run("rag", "dmeo")
    with pytest.raises(ConfigError, match="limit: must be at least 1"):
        bench.run("rag", shop_config, limit=0)
    assert scripted.calls == []


def test_runs(results: Path) -> None:
    frame = bench.runs(results)
    assert list(frame["method"]) == ["copy", "nonperso", "rag"]
    assert list(frame["complete"]) == [True, False, True]
    rag = frame.set_index("method").loc["rag"]
    assert (rag["task"], rag["retriever"], rag["k"], rag["backend"]) == ("reviews", "recency", 2, "scripted")
    # What a run does not use, it does not have.
    copied = frame.set_index("method").loc["copy"]
    assert copied[["retriever", "k", "model", "backend"]].isna().all()
    assert (copied["task"], copied["split"], copied["seed"]) == ("reviews", "test", rag["seed"])
    assert (rag["instances"], rag["calls"], rag["prompt_tokens"]) == (3, 3, 21)
    summary = Summary.read(results / "runs" / rag["run"] / "summary.json")
    assert {name: rag[f"Toys {name}"] for name in summary.scores["Toys"]} == {
        name: score.value for name, score in summary.scores["Toys"].items()
    }
    unfinished = frame.set_index("method").loc["nonperso"]
    assert unfinished[["instances", "Toys rouge1"]].isna().all()
    nothing = bench.runs(results / "nowhere")
    assert len(nothing) == 0
    assert [name for name in frame if not name.startswith("Toys ")] == list(nothing)


def test_scores(results: Path) -> None:
    frame = bench.scores(str(results))
    assert list(frame) == ["run", "method", "category", "instance", "user", "metric", "score", "value"]
    assert set(frame["method"]) == {"copy", "rag"}
    # A row an instance and score, none twice.
    assert len(frame) == len(frame.drop_duplicates(["run", "instance", "score"])) == 2 * 3 * 3
    copied = frame[frame["method"] == "copy"].pivot(index="instance", columns="score", values="value")
    summary = Summary.read(results / "runs" / frame["run"][0] / "summary.json")
    for name in ("rouge1", "rougeL"):
        assert copied[name].mean() == pytest.approx(summary.scores["Toys"][name].value)
    assert dict(zip(frame["score"], frame["metric"], strict=True)) == {
        "rouge1": "rouge",
        "rougeL": "rouge",
        "bleu": "bleu",
    }
    texts = rows_of(Prediction, results / "runs" / frame["run"][0] / "predictions.jsonl")
    assert {row.instance: row.user for row in texts} == dict(zip(frame["instance"], frame["user"], strict=True))


def test_a_run_that_cannot_be_read_is_left_out(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder,) = results.glob("runs/rag-*")
    (folder / "run.json").write_text("{}")
    assert list(bench.runs(results)["method"]) == ["copy", "nonperso"]
    assert set(bench.scores(results)["method"]) == {"copy"}
    assert capsys.readouterr().err.count(f"left out: {folder.name}: ") == 2
    with pytest.raises(StoreError):
        bench.scores(results, [folder.name])


def test_scores_of_chosen_runs(results: Path) -> None:
    assert set(bench.scores(results, "rag")["method"]) == {"rag"}
    assert set(bench.scores(results, ["rag", "copy"])["method"]) == {"rag", "copy"}
    assert len(bench.scores(results, [])) == 0
    with pytest.raises(ConfigError, match=r"is called 'raag'; did you mean|is called 'raag'"):
        bench.scores(results, "raag")
    with pytest.raises(StoreError, match="is not complete"):
        bench.scores(results, ["nonperso"])
    assert list(bench.scores(results / "nowhere")) == list(bench.scores(results))


def test_compare(results: Path) -> None:
    comparison = bench.compare("copy", "rag", changed=1, by="rougeL", results=results)
    assert comparison.instances == {"Toys": 3}
    assert comparison.by.name == "rougeL"
    assert len(comparison.changes) <= 1
    frame = bench.runs(results).set_index("method")
    for line in comparison.lines:
        assert line.b - line.a == pytest.approx(line.difference.value)
        if line.column.name.startswith("rouge"):
            assert line.a == pytest.approx(frame.loc["copy"][f"Toys {line.column.name}"])
    assert str(comparison).startswith(f"A: {comparison.name_a}\nB: {comparison.name_b}\n")
    with pytest.raises(ConfigError, match="no run in"):
        bench.compare("copy", "pag", results=results)


def test_table(shop_config: Path, tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = tmp_path / "small.yaml"
    rows = [{"label": "Copy", "set": {"method": "copy"}}, {"label": "RAG", "set": {"method": "rag"}}]
    groups = [{"name": "", "ranked": True, "rows": rows}]
    experiment.write_text(yaml.safe_dump({"title": "T", "columns": ["bleu"], "groups": groups}))
    text = bench.table(str(experiment), shop_config, seeds=2, limit=1)
    assert "Copy" in text
    written = tmp_path / "results" / "tables" / "small-shop-seeds2.md"
    assert f"wrote {written}" in text
    assert "| Copy" in written.read_text(encoding="utf-8")
    # One instance, two seeds.
    assert [call.key[0] for call in scripted.calls] == ["Toys/test/u1"] * 2
    assert capsys.readouterr().out == ""
    with pytest.raises(BenchError, match=r"there is no experiment 'tabel1'; did you mean 'table1'\?"):
        bench.table("tabel1", shop_config)
    with pytest.raises(BenchError, match="0 seeds were asked for"):
        bench.table(str(experiment), [shop_config], seeds=0)
