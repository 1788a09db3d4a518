"""A run's memory does not grow with its instances, nor with the prompts that its engine holds. measure_memory.py makes
the figures for thousands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("measure_memory.py")
FEW, MANY = 36, 72
MEBIBYTES, GROWTH = 200, 50
"""With whole tensors for its 16 prompts the engine would hold 330 MiB, beside 60 of its own."""


def test_peak_memory_hangs_neither_on_instances_nor_on_prompts_in_the_engine() -> None:
    sizes = ["--instances", str(FEW), str(MANY), "--window", "32", "--sequences", "16"]
    printed = subprocess.run([sys.executable, str(SCRIPT), *sizes], check=True, capture_output=True, text=True).stdout
    print(f"\n{printed}", end="")
    grown = []
    for line in printed.splitlines()[2:]:
        before, peak = (float(cell.replace(",", "")) for cell in line.strip("|").split("|")[1:3])
        grown.append(peak - before)
    assert len(grown) == 2
    assert max(grown) < MEBIBYTES
    assert grown[1] - grown[0] < GROWTH
