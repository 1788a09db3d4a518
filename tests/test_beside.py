"""Runs in a process of its own: it does what it is told, ends when nobody waits, and its error arrives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench.beside import Beside
from bench.config import RunConfig, build, read_config
from bench.errors import BenchError
from bench.execute import _shares, execute, main
from bench.runner import Run
from bench.store import read_rows

PARENT = """
import sys, time
from pathlib import Path
from bench.config import RunConfig
from bench.beside import Beside
config = RunConfig.model_validate_json(Path(sys.argv[1]).read_text())
with Beside([config], print) as training:
    print(training.process.pid, flush=True)
    time.sleep(600)
"""


def config(shop_config: Path, **settings: object) -> RunConfig:
    return build(read_config(str(shop_config)), {"method": "prompt_tuning"}, settings)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"


def test_what_it_does_is_what_this_process_would_do(shop_config: Path, tmp_path: Path) -> None:
    here = Run(config(shop_config, results=str(tmp_path / "here")))
    execute([here])
    there = Run(config(shop_config, results=str(tmp_path / "there")))
    said: list[str] = []
    with Beside([there.config], said.append) as beside:
        beside.wait()
    assert there.folder.name == here.folder.name
    assert there.summary() is not None
    assert there.summary() == here.summary()
    weights = f"adapters/{here.adapter_folder.name}/epoch-1.safetensors"
    assert (tmp_path / "there" / weights).read_bytes() == (tmp_path / "here" / weights).read_bytes()
    texts = [[row["prediction"] for row in read_rows(run.folder / "predictions.jsonl")] for run in (here, there)]
    assert texts[0] == texts[1]
    assert sum(line.startswith("training prompt_tuning: 1 epochs of 1 instances") for line in said) == 1


def test_trained_methods_go_beside_the_others(shop_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two cores; both lanes' runs are complete at the end, in the order asked for."""
    monkeypatch.setattr("bench.execute._cores_to_spare", lambda: True)
    beside: list[list[str]] = []

    class Watched(Beside):
        def __init__(self, configs: Sequence[RunConfig], say: Callable[[str], None]) -> None:
            beside.append([one.method for one in configs])
            super().__init__(configs, say)

    monkeypatch.setattr("bench.execute.Beside", Watched)
    runs = [Run(config(shop_config, method=name)) for name in ("prompt_tuning", "nonperso", "copy")]
    summaries = execute(runs, lambda _: None)
    assert beside == [["prompt_tuning"]]
    assert [summary["name"] for summary in summaries] == [run.folder.name for run in runs]
    # Alone, or beside what asks no model, a method is trained here.
    assert execute([Run(config(shop_config, method=name, seed=1)) for name in ("prompt_tuning", "copy")])
    assert len(beside) == 1


def test_both_processes_get_about_as_much_work(shop_config: Path) -> None:
    def runs(*methods: str, **settings: object) -> list[Run]:
        return [Run(config(shop_config, method=name, **settings)) for name in methods]

    sweep = [run for k in (0, 1, 2) for run in runs("dep", k=k, train={"k": 2, "epochs": 1, "dtype": "float32"})]
    others, trained = runs("nonperso", "rag", "copy"), runs("prompt_tuning", "pplug")
    here, there = _shares([*others, *trained, *sweep])
    # dep with K = 0 needs no adapter; the largest share of one goes beside, then the lanes take turns.
    assert [(run.config.method, run.config.k) for run in there] == [("dep", 1), ("dep", 2), ("pplug", 2)]
    assert {run.config.method for run in here} == {"nonperso", "rag", "copy", "prompt_tuning", "dep"}
    assert sorted(map(id, [*here, *there])) == sorted(map(id, [*others, *trained, *sweep]))


def test_it_has_none_beside_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("bench.execute.configs_from_parent", list)
    monkeypatch.setattr("bench.execute.execute", lambda runs, alone=False: asked.append(alone))
    assert main() == 0
    assert asked == [True]


def test_its_error_is_raised_here(shop_config: Path, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "adapters").write_text("a file where a folder is wanted")
    said: list[str] = []
    with Beside([config(shop_config)], said.append) as training, pytest.raises(BenchError) as error:
        training.wait()
    assert "cannot be written" in str(error.value)
    assert not any(line.startswith("bench: ") for line in said)


def test_leaving_the_block_ends_it(shop_config: Path) -> None:
    with Beside([config(shop_config, train={"epochs": 100_000})], print) as training:
        process = training.process.pid
        assert alive(process)
    assert not alive(process)


def test_it_ends_when_this_process_is_killed(shop_config: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(config(shop_config, train={"epochs": 100_000}).model_dump_json())
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    process = int(parent.stdout.readline())
    # In the middle of training, not while it still starts.
    checkpoint = Run(config(shop_config, train={"epochs": 100_000})).adapter_folder / "checkpoint.safetensors"
    for _ in range(600):
        if checkpoint.exists():
            break
        time.sleep(0.1)
    assert checkpoint.exists()
    assert alive(process)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(300):
        if not alive(process):
            break
        time.sleep(0.1)
    assert not alive(process)
