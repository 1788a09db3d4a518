"""A golden of two cheap metrics, and a run that made its texts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOLDENS = Path(__file__).parents[2] / "results" / "golden"
NAME = "demo-rag-recency"
CHEAP = ("rouge", "bleu")

Row = dict[str, Any]


def edit_json(path: Path, change: Callable[[Row], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_rows(path: Path, change: Callable[[list[Row]], list[Row] | None]) -> None:
    """Change the rows of a file in place, or give others."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    changed = change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in (rows if changed is None else changed)))


@pytest.fixture
def goldens(tmp_path: Path) -> Path:
    """A folder with the shipped golden, of whose metrics and options only two cheap metrics are left."""
    golden = shutil.copytree(GOLDENS / NAME, tmp_path / "golden" / NAME)

    def cheap(summary: Row) -> None:
        for name in summary["signatures"].keys() - set(CHEAP):
            del summary["signatures"][name]
        summary.update(fidelity="paper", metric_options={})
        for scores in summary["scores"].values():
            for column in scores.keys() - {"rouge1", "rougeL", "bleu"}:
                del scores[column]

    edit_json(golden / "summary.json", cheap)
    edit_json(golden / "run.json", lambda record: record["config"].update(metrics=CHEAP, options={}))
    edit_rows(golden / "scores.jsonl", lambda rows: [row for row in rows if row["metric"] in CHEAP])
    return tmp_path / "golden"


@pytest.fixture
def golden(goldens: Path) -> Path:
    return goldens / NAME


@pytest.fixture
def run(golden: Path, tmp_path: Path) -> Path:
    """A run that made the golden's texts: the same files."""
    return shutil.copytree(golden, tmp_path / "run")
