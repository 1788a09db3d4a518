"""Training in a process of its own: it trains what it is told, ends when nobody waits, and its error arrives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.config import RunConfig, build, read_config
from bench.errors import BenchError
from bench.runner import Run
from bench.softprompt.adapters import is_trained
from bench.softprompt.beside import TrainingBeside

PARENT = """
import sys, time
from pathlib import Path
from bench.config import RunConfig
from bench.softprompt.beside import TrainingBeside
config = RunConfig.model_validate_json(Path(sys.argv[1]).read_text())
with TrainingBeside([config], print) as training:
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


def test_what_it_trains_is_what_this_process_would_train(shop_config: Path, tmp_path: Path) -> None:
    from bench.execute import train_adapter

    here = Run(config(shop_config, results=str(tmp_path / "here")))
    train_adapter(here)
    there = config(shop_config, results=str(tmp_path / "there"))
    said: list[str] = []
    with TrainingBeside([there, there], said.append) as training:
        training.wait()
    folder = Run(there).adapter_folder
    assert folder.name == here.adapter_folder.name
    assert is_trained(folder)
    weights = "epoch-1.safetensors"
    assert (folder / weights).read_bytes() == (here.adapter_folder / weights).read_bytes()
    assert sum(line.startswith("training prompt_tuning: 1 epochs of 1 instances") for line in said) == 1


def test_its_error_is_raised_here(shop_config: Path, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "adapters").write_text("a file where a folder is wanted")
    said: list[str] = []
    with TrainingBeside([config(shop_config)], said.append) as training, pytest.raises(BenchError) as error:
        training.wait()
    assert "cannot be written" in str(error.value)
    assert not any(line.startswith("bench: ") for line in said)


def test_leaving_the_block_ends_it(shop_config: Path) -> None:
    with TrainingBeside([config(shop_config, train={"epochs": 100_000})], print) as training:
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
