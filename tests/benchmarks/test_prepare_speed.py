"""`bench data prepare` on generated raw files: that it is fast and small. The figures for millions of reviews, and the
comparison of engines, are made by measure_prepare.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("measure_prepare.py")
# Bars to see a slow-down by, on busy machines too: two idle cores do 200,000 a second, start-up included.
REVIEWS, REVIEWS_PER_SECOND, MEBIBYTES = 200_000, 60_000, 900


@pytest.mark.parametrize("options", [[], ["--gzip"]], ids=["plain", "gzip"])
def test_speed_and_memory(tmp_path: Path, options: list[str]) -> None:
    command = [
        sys.executable,
        str(SCRIPT),
        "--reviews",
        str(REVIEWS),
        "--folder",
        str(tmp_path),
        "--tries",
        "1",
        *options,
    ]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(f"\n{printed}", end="")
    row = next(line for line in printed.splitlines() if line.startswith(f"| {REVIEWS:,} "))
    cells = [cell.strip().replace(",", "") for cell in row.strip("|").split("|")]
    assert float(cells[4]) > REVIEWS_PER_SECOND
    assert float(cells[6]) < MEBIBYTES
