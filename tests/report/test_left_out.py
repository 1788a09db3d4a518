"""A run's folder that cannot be read is named with the reason and costs no other run anything."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.cli import main
from bench.config import build
from bench.errors import BenchError
from bench.execute import execute
from bench.job import Job
from bench.report.html import write_report

Rewrite = Callable[[Path, Callable[[Any], Any]], None]
Damage = Callable[[Path, Rewrite], None]


def content(name: str, text: str | bytes) -> Damage:
    content = text.encode() if isinstance(text, str) else text
    return lambda run, _: (run / name).write_bytes(content) and None


def missing(name: str) -> Damage:
    return lambda run, _: (run / name).unlink()


def without(*keys: str) -> Damage:
    """run.json, with the right checksum, lacks a key."""

    def change(record: Any) -> None:
        for key in keys[:-1]:
            record = record[key]
        del record[keys[-1]]

    return lambda run, rewrite: rewrite(run / "run.json", change)


def changed(name: str, change: Callable[[Any], Any]) -> Damage:
    """A file of JSON, or each of its rows, is another one, with the right checksum."""
    of_file = (lambda rows: [change(row) for row in rows]) if name.endswith("l") else change
    return lambda run, rewrite: rewrite(run / name, of_file)


def shorter(row: Any) -> Any:
    return row | {"statistics": row["statistics"][:-1]}


def one_shorter(row: Any) -> Any:
    return shorter(row) if "u1" in row["instance"] else row


def with_config(**settings: Any) -> Callable[[Any], Any]:
    return lambda record: record | {"config": record["config"] | settings}


def with_score(summary: Any) -> Any:
    summary["scores"]["Toys"]["other"] = {"value": 1.0, "low": 0.0, "high": 2.0}
    return summary


def with_metric(summary: Any) -> Any:
    return summary | {"signatures": summary["signatures"] | {"gone": "gone|v:1"}}


def folder_in_its_place(run: Path, _: Rewrite) -> None:
    (run / "run.json").unlink()
    (run / "run.json").mkdir()


LISTED: dict[str, tuple[Damage, str]] = {
    "torn": (content("run.json", '{"schema": 3, "na'), "run.json is damaged: it cannot be read"),
    "not a text": (content("run.json", b"\xff\xfe{"), "run.json is damaged: it cannot be read"),
    "no run.json": (missing("run.json"), "run.json is damaged: it is missing"),
    "a folder": (folder_in_its_place, "run.json is damaged: it is not a file"),
    "a list": (content("run.json", "[]"), "it is not a JSON object"),
    "empty": (content("run.json", "{}"), "schema None"),
    "another schema": (content("run.json", '{"schema": 99}'), "schema 99"),
    "another text": (content("run.json", '{"schema": 3, "sha256": "0"}'), "does not have the content of its checksum"),
    "only a name": (
        content("run.json", '{"schema": 2, "name": "x", "identity": {}, "config": {}}'),
        "run.json is damaged: identity.settings: Field required",
    ),
    "no settings": (without("identity", "settings"), "identity.settings: Field required"),
    "no data": (without("identity", "data"), "identity.data: Field required"),
    "no limit": (without("identity", "settings", "limit"), "identity.settings.limit: Field required"),
    "no data set": (without("config", "dataset"), "config.dataset: Field required"),
    "notes that are no list": (changed("run.json", with_config(notes=0)), "config.notes: "),
    "training that is no section": (changed("run.json", with_config(train=[])), "config.train: "),
    "torn summary": (content("summary.json", '{"schema": 2'), "summary.json is damaged: it cannot be read"),
    "summary without scores": (content("summary.json", '{"schema": 2, "name": "x"}'), "summary.json is damaged: "),
    "torn row": (content("predictions.jsonl", "torn\n"), "predictions.jsonl is damaged: it is not as it was when"),
    "no predictions": (missing("predictions.jsonl"), "predictions.jsonl is damaged: it is missing"),
    "no scores": (missing("scores.jsonl"), "scores.jsonl is damaged: it is missing"),
}
"""What `bench list runs` cannot read either."""
NOT_SHOWN: dict[str, tuple[Damage, str]] = {
    "incomplete": (missing("summary.json"), "it is not complete"),
    "rows of two lengths": (changed("scores.jsonl", one_shorter), "of different lengths"),
    "short rows": (changed("scores.jsonl", shorter), "statistics, the metric makes"),
    "a score of no metric": (changed("summary.json", with_score), "a score other"),
    "a metric that is not installed": (changed("summary.json", with_metric), "there is no metric 'gone'"),
}


@pytest.fixture(scope="module")
def made(shop: Path, tiny_qwen2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two runs."""
    results = tmp_path_factory.mktemp("left_out") / "results"
    settings = {"dataset": str(shop), "model": str(tiny_qwen2), "backend": "scripted", "results": str(results)}
    settings |= {"metrics": ["rouge", "bleu"], "resamples": 10}
    execute([Job.of(build(settings, {"method": name})) for name in ("copy", "nonperso")], lambda _: None)
    return results


@pytest.mark.parametrize("name", [*LISTED, *NOT_SHOWN])
def test_a_run_that_cannot_be_read(
    name: str, made: Path, tmp_path: Path, rewrite: Rewrite, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, reason = {**LISTED, **NOT_SHOWN}[name]
    results = Path(shutil.copytree(made, tmp_path / "results"))
    (copy,), (other,) = ([*(results / "runs").glob(f"{method}-*")] for method in ("copy", "nonperso"))
    bad = copy.with_name("bad")
    shutil.copytree(copy, bad)
    damage(bad, rewrite)
    why = rf"left out: bad: .*{re.escape(reason)}"
    page = write_report(results, tmp_path / "report.html").read_text()
    assert re.search(why, capsys.readouterr().err)
    assert "<p>2 finished runs on shop" in page
    (line,) = re.findall(r"<li><bdi>bad</bdi>: (.*)</li>", page)
    assert reason in line.replace("&#x27;", "'")
    assert str(tmp_path) not in page
    assert main(["list", "runs", "--results", str(results)]) == 0
    listed = capsys.readouterr().out
    assert (copy.name in listed, other.name in listed) == (True, True)
    assert bool(re.search(why, listed)) == (name in LISTED)
    assert set(bench.runs(results)["run"]) >= {copy.name, other.name}
    assert set(bench.scores(results)["run"]) == {copy.name, other.name}
    assert bench.compare("copy-", "nonperso", results=results).lines
    with pytest.raises(BenchError):
        bench.compare("bad", "copy-", results=results)


def test_a_table_beside_a_folder_that_cannot_be_read(made: Path, shop: Path, tiny_qwen2: Path, tmp_path: Path) -> None:
    results = Path(shutil.copytree(made, tmp_path / "results"))
    # The name that the table's run has, but for the hash.
    neighbour = results / "runs" / "copy-shop-seed3-0000000000"
    neighbour.mkdir()
    (neighbour / "run.json").write_text("{")
    table, config = tmp_path / "own.yaml", tmp_path / "config.yaml"
    table.write_text("title: T\ncolumns: [rouge1]\ngroups: [{rows: [{label: Copy, set: {method: copy, seed: 3}}]}]\n")
    settings = {"dataset": str(shop), "model": str(tiny_qwen2), "metrics": ["rouge", "bleu"], "resamples": 10}
    config.write_text(json.dumps(settings | {"results": str(results)}))
    assert "Copy" in bench.table(str(table), str(config))
    assert len([*(results / "runs").glob("copy-shop-seed3-*/summary.json")]) == 1
