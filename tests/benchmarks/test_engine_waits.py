"""How long an engine waits for prompts. The figures for long prompts, and those against the real engine alone, are made
by measure_engine.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("measure_engine.py")
METHODS = ("rag", "dep", "dpl")
TIMES, MOST = 4, 10.0
"""An engine that takes four times as long for a call as rendering does would wait 20 % of its time for a harness that
renders between its calls."""


def test_a_stand_in_hardly_waits() -> None:
    command = [sys.executable, str(SCRIPT), "idle", "--limit", "16", "--times", str(TIMES), "--method", *METHODS]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(f"\n{printed}", end="")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines()[2:]]
    assert [row[0] for row in rows] == list(METHODS)
    assert all(float(row[-1].removesuffix(" %")) < MOST for row in rows)
