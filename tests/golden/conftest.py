"""A golden of two cheap metrics, and a run that made its texts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOLDENS = Path(__file__).parents[2] / "results" / "golden"
NAME = "demo-rag-recency"
CHEAP = ("rouge", "bleu")

Row = dict[str, Any]
Rewrite = Callable[[Path, Callable[[Any], Any]], None]
Sign = Callable[[Path, str, str], None]


@pytest.fixture
def goldens(tmp_path: Path, rewrite: Rewrite) -> Path:
    """A folder with the shipped golden, of whose metrics and options only two cheap metrics are left."""
    golden = shutil.copytree(GOLDENS / NAME, tmp_path / "golden" / NAME)

    def cheap(summary: Row) -> None:
        for name in summary["signatures"].keys() - set(CHEAP):
            del summary["signatures"][name]
        summary.update(fidelity="paper", metric_options={})
        for scores in summary["scores"].values():
            for column in scores.keys() - {"rouge1", "rougeL", "bleu"}:
                del scores[column]

    rewrite(golden / "summary.json", cheap)
    rewrite(golden / "run.json", lambda record: record["config"].update(metrics=CHEAP, options={}))
    rewrite(golden / "scores.jsonl", lambda rows: [row for row in rows if row["metric"] in CHEAP])
    return tmp_path / "golden"


@pytest.fixture
def golden(goldens: Path) -> Path:
    return goldens / NAME


@pytest.fixture
def run(golden: Path, tmp_path: Path) -> Path:
    """A run that made the golden's texts: the same files."""
    return shutil.copytree(golden, tmp_path / "run")


@pytest.fixture
def sign(rewrite: Rewrite) -> Sign:
    """Stores a golden or a run as if it was scored under other signatures: sign(folder, part, other part)."""

    def write(folder: Path, part: str, other: str) -> None:
        def rows(rows: list[Row]) -> list[Row]:
            return [row | {"signature": row["signature"].replace(part, other)} for row in rows]

        def summary(summary: Row) -> None:
            signatures = summary["signatures"]
            signatures.update({name: signature.replace(part, other) for name, signature in signatures.items()})

        rewrite(folder / "scores.jsonl", rows)
        rewrite(folder / "summary.json", summary)

    return write
