"""`kill -9` at random moments of a run, then the same command to the end: real processes, a real engine."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.cli import main
from bench.finished import finished

KILLS = int(os.environ.get("RESUME_KILLS", "2"))
"""The bar is five; each costs the start of a process and its engine."""
INSTANCES = 60
ROWS = 2 * INSTANCES


def arguments(config: Path, results: Path) -> list[str]:
    return ["run", "--method", "pag", "--config", str(config), "--set", f"results={results}"]


def start(config: Path, results: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.cli", *arguments(config, results)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def folder_in(results: Path) -> Path:
    (folder,) = results.glob("runs/*")
    return folder


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def texts(folder: Path) -> dict[tuple[str, str, int], tuple[str, str, int, int]]:
    """Everything of generations.jsonl but the times."""
    return {
        (row["instance"], row["stage"], row["index"]): (
            row["prompt"],
            row["text"],
            row["prompt_tokens"],
            row["completion_tokens"],
        )
        for row in rows(folder, "generations.jsonl")
    }


def content(results: Path) -> bytes:
    return b"".join(path.read_bytes() for path in results.glob("runs/*/generations.jsonl"))


@pytest.fixture
def config(tiny_qwen2: Path, tmp_path: Path) -> Path:
    path = tmp_path / "resume.yaml"
    settings = {
        "dataset": "demo",
        "model": str(tiny_qwen2),
        "limit": INSTANCES // 3,
        "k": 1,
        "input_budget": 1024,
        "max_new_tokens": 12,
        "window": 4,
        "vllm": {"dtype": "float32", "enforce_eager": True},
        "metrics": ["rouge", "bleu"],
        "resamples": 50,
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_killed_run_goes_on_where_it_stopped(config: Path, tmp_path: Path) -> None:
    assert main(arguments(config, tmp_path / "uninterrupted")) == 0
    uninterrupted = folder_in(tmp_path / "uninterrupted")
    killed = tmp_path / "killed"
    choose = random.Random()
    before = b""
    for left in range(KILLS, 0, -1):
        done = before.count(b"\n")
        stop_at = done + choose.randint(1, max(1, (ROWS - done - 5) // left))
        process = start(config, killed)
        while content(killed).count(b"\n") < stop_at:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(choose.random() / 200)
        process.kill()
        process.communicate()
        after = content(killed)
        lines = after.count(b"\n")
        print(f"killed with {lines} of {ROWS} rows, {len(after)} bytes")
        assert after.startswith(before[: before.rfind(b"\n") + 1]), "a finished row was made again or changed"
        assert stop_at <= lines < ROWS
        assert not list(killed.glob("runs/*/summary.json"))
        before = after
    process = start(config, killed)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    folder = folder_in(killed)

    written = content(killed)
    assert written.startswith(before[: before.rfind(b"\n") + 1])
    keys = Counter((row["instance"], row["stage"], row["index"]) for row in rows(folder, "generations.jsonl"))
    assert len(keys) == ROWS
    assert set(keys.values()) == {1}, "every row once: nothing finished was asked again"
    assert folder.name == uninterrupted.name
    assert texts(folder) == texts(uninterrupted)
    for name in ("predictions.jsonl", "scores.jsonl"):
        assert (folder / name).read_bytes() == (uninterrupted / name).read_bytes()
    # The checksums differ, for the times do.
    other = {"files": {}, "seconds": {}}
    summaries = [finished(one).summary.model_copy(update=other) for one in (folder, uninterrupted)]
    assert summaries[0] == summaries[1]
