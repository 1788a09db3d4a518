"""`bench data prepare` on generated raw files: that it is fast and small. The figures for millions of reviews, and the
comparison of engines, are made by measure_prepare.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("measure_prepare.py")
# To see a slow-down by: it takes four times the processor time of DuckDB's bare reading of the same reviews.
REVIEWS, TIMES_AS_LONG, MEBIBYTES = 200_000, 8, 900


@pytest.mark.parametrize("options", [[], ["--gzip"]], ids=["plain", "gzip"])
def test_speed_and_memory(tmp_path: Path, options: list[str]) -> None:
    prepare = measured("prepare", tmp_path, options)
    bare = measured("duckdb", tmp_path, [*options, "--engines"])
    assert prepare["processor seconds"] < TIMES_AS_LONG * bare["processor seconds"]
    assert prepare["peak memory, MiB"] < MEBIBYTES


def measured(what: str, folder: Path, options: list[str]) -> dict[str, float]:
    """The numbers of a row that the script prints, by their heads."""
    command = [sys.executable, str(SCRIPT), "--reviews", str(REVIEWS), "--folder", str(folder), *options]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(f"\n{printed}", end="")
    heads, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line.startswith("|")
    )
    (row,) = (row for row in rows if what in row)
    return {head: float(cell.replace(",", "")) for head, cell in zip(heads, row, strict=True) if head != "what"}
