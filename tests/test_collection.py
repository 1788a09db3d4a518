"""The tests themselves: every process has to find the same ones, or workers that share them run none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def collected(hash_seed: int, time_zone: str) -> list[str]:
    """Ids of all tests in their order, as another process finds them; seconds later the clock is another, too."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONHASHSEED": str(hash_seed), "TZ": time_zone}
    # Without rewriting assertions, which is half of the work where no bytecode is kept.
    options = ["--collect-only", "-q", "--assert=plain", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(ROOT / "tests")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_ids_depend_on_no_clock_hash_seed_or_place() -> None:
    first = collected(1, "UTC")
    assert len(first) > 1000
    assert len(set(first)) == len(first)
    assert [id_ for id_ in first if str(ROOT) in id_] == []
    second = collected(2, "Asia/Tokyo")
    assert [pair for pair in zip(first, second, strict=False) if pair[0] != pair[1]] == []
    assert len(second) == len(first)
