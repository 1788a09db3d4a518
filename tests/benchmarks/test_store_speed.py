"""Going on with a run of many completions: that it is fast and small. measure_store.py makes the figures for a million
rows, and compares with keeping all rows in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("measure_store.py")
ROWS, BYTES_A_ROW = 30_000, 600
"""Of a million rows that many bytes are 0.6 GB; kept in memory a row takes 2,900."""


def test_a_store_of_many_rows_is_small_and_opens_no_slower_than_reading_them(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--rows", str(ROWS), "--folder", str(tmp_path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(f"\n{printed}", end="")
    store, memory = (
        [cell.strip().replace(",", "") for cell in line.strip("|").split("|")]
        for line in printed.splitlines()
        if line.startswith(f"| {ROWS:,} ")
    )
    assert store[-1] == memory[-1], "the same texts"
    assert float(store[6]) < BYTES_A_ROW
    assert float(store[4]) > 0.7 * float(memory[4])
