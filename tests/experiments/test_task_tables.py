"""Tables over several tasks: each with its own columns, a dash where a method cannot be run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.cli import main
from bench.config import read_config
from bench.errors import ConfigError, MisfitError
from bench.experiments.produce import Options, jobs_of_rows, produce
from bench.experiments.spec import read_experiment
from bench.resolved import Inputs

CONTENT: dict[str, Any] = {
    "title": "Two tasks",
    "tasks": {"lamp-1": ["accuracy"], "pgraphrag-rating": ["mae", "rmse"]},
    "groups": [
        {
            "name": "",
            "ranked": True,
            "rows": [
                {"label": "Bare", "set": {"method": "nonperso"}},
                {"label": "RAG", "set": {"method": "rag"}},
                {"label": "DPL", "set": {"method": "dpl"}},
            ],
        },
        {"name": "Controls", "ranked": False, "rows": [{"label": "Copy", "set": {"method": "copy"}}]},
    ],
}


def written(tmp_path: Path, content: dict[str, Any]) -> str:
    path = tmp_path / "tasks.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.fixture
def settings(shop_config: Path, scripted: Any) -> dict[str, Any]:
    """The scripted backend, which always says 4, on each task's own invented data."""
    return {**read_config(str(shop_config)), "dataset": "demo", "scripted": {"text": "4"}}


def test_a_table_of_tasks(settings: dict[str, Any], tmp_path: Path) -> None:
    printed = produce([written(tmp_path, CONTENT)], {"shop": settings}, Options(suffix="-x", significance=True))
    markdown = (tmp_path / "results" / "tables" / "tasks-x.md").read_text()
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    rows: dict[str, list[str]] = {}
    for cells in (line.split("|") for line in lines):
        rows.setdefault(cells[1].strip(), []).extend(cell.strip() for cell in cells[2:-1])
    assert set(rows) >= {"Bare", "RAG", "DPL", "Copy"}
    # 4 is none of LaMP-1's labels; a dash where there is no run.
    assert "0.000" in rows["RAG"][0]
    assert (rows["DPL"][0], rows["Copy"][0]) == ("–", "–")
    assert all(cell != "–" for cell in rows["DPL"][1:] + rows["Copy"][1:])
    assert "lamp-1" in markdown
    assert "pgraphrag-rating" in markdown
    assert "– DPL cannot be run on lamp-1: method dpl compares users by what they wrote of the same thing" in markdown
    assert "– Copy cannot be run on lamp-1: method copy repeats what the user answered before" in markdown
    assert "pgraphrag-rating: 12 of 20 instances are of users without a history." in markdown
    assert "lamp-1: 0 of" not in markdown
    # What holds of both tasks stands once.
    assert markdown.count("Invented data: no real user wrote them.") == 1
    assert any(line.endswith("tasks-x.tex") for line in printed)


def test_the_rows_of_a_plan(settings: dict[str, Any], tmp_path: Path) -> None:
    rows = jobs_of_rows([written(tmp_path, CONTENT)], {"shop": settings}, 1, Inputs())
    assert [label for label, _ in rows] == [
        *("lamp-1 Bare", "lamp-1 RAG"),
        *(f"pgraphrag-rating {label}" for label in ("Bare", "RAG", "DPL", "Copy")),
    ]


def test_a_misfit_is_an_error_in_a_table_of_one_task(settings: dict[str, Any], tmp_path: Path) -> None:
    content = {**CONTENT, "columns": ["accuracy"]}
    del content["tasks"]
    with pytest.raises(MisfitError, match="method dpl compares users"):
        produce([written(tmp_path, content)], {"shop": {**settings, "task": "lamp-1"}}, Options())
    alone = {**CONTENT, "tasks": {"lamp-1": ["accuracy"]}, "groups": [CONTENT["groups"][1]]}
    with pytest.raises(ConfigError, match="none of its methods can be run on one of its tasks"):
        produce([written(tmp_path, alone)], {"shop": settings}, Options())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": ["mae"]}, "'columns' must name at least one score, or 'tasks' tasks with theirs"),
        ({"tasks": {}}, "'columns' must name at least one score, or 'tasks' tasks with theirs"),
        ({"tasks": {"lamp-1": []}}, "tasks.lamp-1"),
        ({"categories": ["Books"]}, "'tasks' are for a table of scores of all categories and users"),
    ],
)
def test_what_tasks_do_not_go_with(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_experiment(written(tmp_path, CONTENT | change))


def test_a_column_that_a_task_does_not_give(settings: dict[str, Any], tmp_path: Path) -> None:
    content = CONTENT | {"tasks": {"lamp-1": ["rouge1"]}}
    with pytest.raises(ConfigError, match="a column 'rouge1', which none of the metrics accuracy, macro_f1 gives"):
        produce([written(tmp_path, content)], {"shop": settings}, Options())


@pytest.mark.parametrize("name", ["lamp", "longlamp", "pgraphrag"])
def test_the_shipped_ones(name: str) -> None:
    _, experiment = read_experiment(name)
    assert all(task.startswith(f"{name}-") for task in experiment.tasks)
    labels = [row.label for group in experiment.groups for row in group.rows]
    assert labels == ["Non-Perso", "RAG", "PAG", "DPL", "PPlug", "DEP", "DRP", "E2P", "Copy", "Prompt tuning"]


def test_data_stats_of_a_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "demo", "--task", "pgraphrag-text", "--out", str(tmp_path / "made")]) == 0
    assert f"bench run --task pgraphrag-text --dataset {tmp_path / 'made'}" in capsys.readouterr().out
    for data in ([str(tmp_path / "made")], []):
        assert main(["data", "stats", *data, "--task", "pgraphrag-text", "--results", str(tmp_path)]) == 0
        printed = capsys.readouterr().out
        assert "Test instances without a history" in printed
        assert "12 (60.0%)" in printed
        assert "ROUGE-1 without a model" not in printed
    assert (tmp_path / "tables" / "table4-pgraphrag-text.md").exists()
    assert main(["data", "demo", "--task", "pgraphrag-text", "--out", str(tmp_path / "made")]) == 2
    assert "exists already" in capsys.readouterr().err
