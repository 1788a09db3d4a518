"""What a table costs when all of its runs are there: processor time of fresh processes, `pytest -s` prints it.

Against importing pandas and pydantic, which takes its share of a busy machine in the same way. The table reads the
demo's data, checks its runs' files and imports none of what only a computation needs; with NLTK, which brings
scikit-learn, and with the demo's population made once more for its note it took more than twice as long.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import yaml

from bench.cli import main

MOST = 8.0
"""Times as long as the imports; 4.0 was measured."""


def seconds(*arguments: str) -> float:
    """Processor time of a fresh Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_second_table(tmp_path: Path) -> None:
    table = tmp_path / "copies.yaml"
    rows = [{"label": "Copy", "set": {"method": "copy"}}]
    columns = {"columns": ["rouge1", "meteor"], "groups": [{"name": "", "ranked": True, "rows": rows}]}
    table.write_text(yaml.safe_dump({"title": "Copies", **columns}), encoding="utf-8")
    settings = ["--set", f"results={tmp_path / 'results'}", "--set", "metrics=[rouge, meteor]"]
    command = ["table", str(table), "--limit", "4", *settings]
    assert main(command) == 0
    pairs = [
        (seconds("-m", "bench.cli", *command), seconds("-c", "import pandas, pydantic; pydantic.BaseModel"))
        for _ in range(3)
    ]
    took, imports = (min(of) for of in zip(*pairs, strict=True))
    print(f"\na table with everything done: {took:.2f} s; importing pandas and pydantic: {imports:.2f} s")
    assert took < MOST * imports
