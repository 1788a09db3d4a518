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

from bench.config import RunConfig, build, read_config
from bench.errors import BenchError
from bench.execute import calls, execute, split
from bench.finished import finished
from bench.job import Job
from bench.results import Prediction, rows_of
from bench.worker import Worker, main

PARENT = """
import sys, time
from pathlib import Path
from bench.config import RunConfig
from bench.worker import Worker
config = RunConfig.model_validate_json(Path(sys.argv[1]).read_text())
with Worker([config], print) as training:
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
    here = Job.of(config(shop_config, results=str(tmp_path / "here")))
    execute([here])
    there = Job.of(config(shop_config, results=str(tmp_path / "there")))
    said: list[str] = []
    with Worker([there.config], said.append) as worker:
        worker.wait()
    assert there.folder.name == here.folder.name
    # The checksums differ, for the times do.
    summaries = [finished(job.folder).summary.model_copy(update={"files": {}, "seconds": {}}) for job in (there, here)]
    assert summaries[0] == summaries[1]
    assert here.trains is not None
    weights = f"adapters/{here.trains.folder.name}/epoch-1.safetensors"
    assert (tmp_path / "there" / weights).read_bytes() == (tmp_path / "here" / weights).read_bytes()
    texts = [[row.prediction for row in rows_of(Prediction, job.folder / "predictions.jsonl")] for job in (here, there)]
    assert texts[0] == texts[1]
    assert sum(line.startswith("training prompt_tuning: 1 epochs of 1 instances") for line in said) == 1


def test_trained_methods_go_to_the_worker(shop_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both processes' jobs are complete at the end, in the order asked for."""
    given: list[list[str]] = []

    class Watched(Worker):
        def __init__(self, configs: Sequence[RunConfig], say: Callable[[str], None]) -> None:
            given.append([one.method for one in configs])
            super().__init__(configs, say)

    monkeypatch.setattr("bench.execute.Worker", Watched)
    jobs = [Job.of(config(shop_config, method=name)) for name in ("prompt_tuning", "nonperso", "copy")]
    summaries = execute(jobs, lambda _: None, processes=2)
    assert given == [["prompt_tuning"]]
    assert [summary.name for summary in summaries] == [job.folder.name for job in jobs]
    # Alone, or with nothing but what asks no model, a method is trained here.
    assert execute(
        [Job.of(config(shop_config, method=name, seed=1)) for name in ("prompt_tuning", "copy")], processes=2
    )
    assert len(given) == 1


def test_both_processes_get_about_as_much_work(shop_config: Path) -> None:
    def jobs(*methods: str, **settings: object) -> list[Job]:
        return [Job.of(config(shop_config, method=name, **settings)) for name in methods]

    sweep = [job for k in (0, 1, 2) for job in jobs("dep", k=k, train={"k": 2, "epochs": 1, "dtype": "float32"})]
    others, trained = jobs("nonperso", "rag", "copy"), jobs("prompt_tuning", "pplug")
    here, there = split([*others, *trained, *sweep])
    # dep with K = 0 needs no adapter; the jobs of the largest one go to the worker, then the two take turns.
    assert [(job.config.method, job.config.k) for job in there] == [("dep", 1), ("dep", 2), ("pplug", 2)]
    assert {job.config.method for job in here} == {"nonperso", "rag", "copy", "prompt_tuning", "dep"}
    assert sorted(map(id, [*here, *there])) == sorted(map(id, [*others, *trained, *sweep]))


def test_work_is_counted_in_calls(shop_config: Path) -> None:
    jobs = [Job.of(config(shop_config, method=name)) for name in ("copy", "nonperso", "pag", "dpl")]
    # Nobody in the shop has a review that DPL could compare.
    assert [calls(job) for job in jobs] == [0, 1, 2, 2]


def test_a_worker_has_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []
    monkeypatch.setattr("bench.execute.execute", lambda jobs, processes=None: asked.append(processes))
    end, start = os.pipe()
    monkeypatch.setattr(sys, "stdin", os.fdopen(end))
    # It stays open: its end would end this process.
    os.write(start, b"[]\n")
    assert main() == 0
    assert asked == [1]


def test_its_error_is_raised_here(shop_config: Path, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "adapters").write_text("a file where a folder is wanted")
    said: list[str] = []
    with Worker([config(shop_config)], said.append) as training, pytest.raises(BenchError) as error:
        training.wait()
    assert "cannot be written" in str(error.value)
    assert not any(line.startswith("bench: ") for line in said)


def test_leaving_the_block_ends_it(shop_config: Path) -> None:
    with Worker([config(shop_config, train={"epochs": 10_000})], print) as training:
        process = training.process.pid
        assert alive(process)
    assert not alive(process)


def test_it_ends_when_this_process_is_killed(shop_config: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(config(shop_config, train={"epochs": 10_000}).model_dump_json())
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    process = int(parent.stdout.readline())
    # In the middle of training, not while it still starts.
    adapter = Job.of(config(shop_config, train={"epochs": 10_000})).trains
    assert adapter is not None
    checkpoint = adapter.folder / "checkpoint.safetensors"
    # However long a busy machine takes.
    while not checkpoint.exists():
        assert alive(process)
        time.sleep(0.1)
    assert alive(process)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(300):
        if not alive(process):
            break
        time.sleep(0.1)
    assert not alive(process)
