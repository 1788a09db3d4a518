"""Real vLLM servers of the demo's model, and the texts that engines write for its data."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from bench.backends import Engines
from bench.loop import Answers, Loop
from bench.models import resolve_model
from bench.resolved import Inputs
from bench.store import RunStore
from bench.timing.subjects import Subject, subjects

Rows = dict[tuple[str, str, int], str]
"""Texts by the keys of their calls."""


class VLLMServer:
    """A real vLLM server of the demo's model with the settings of the engine in process; a context manager."""

    def __init__(self, log: Path) -> None:
        self.model = resolve_model("python:bench/demo/model")
        self.log = log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> VLLMServer:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Returns once it answers."""
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--model", self.model, "--served-model-name", "tiny"]
        command += ["--dtype", "float32", "--enforce-eager", "--no-enable-prefix-caching", "--max-model-len", "2048"]
        command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "4096", "--max-num-seqs", "256"]
        command += ["--disable-log-stats", "--disable-uvicorn-access-log", "--enable-prompt-embeds"]
        settings = {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        environment = {**os.environ, **settings, "VLLM_NO_USAGE_STATS": "1"}
        environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=self.log.parent, start_new_session=True
            )
        # Half a minute; on a busy machine many times as long.
        for _ in range(6000):
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            try:
                urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError(f"the server did not start: {self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """SIGKILL the server and its engine."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    with VLLMServer(tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.fixture
def another_server(tmp_path: Path) -> Iterator[VLLMServer]:
    """One that a test may kill."""
    with VLLMServer(tmp_path / "another.log") as server:
        yield server


def stored_rows(path: Path) -> Rows:
    """The whole rows of a generations.jsonl. Raises `AssertionError` for a call that is there twice."""
    found: Rows = {}
    for line in path.read_bytes().split(b"\n")[:-1]:
        row = json.loads(line)
        key = (row["instance"], row["stage"], row["index"])
        assert key not in found, f"{key} is there twice"
        found[key] = row["text"]
    return found


def texts_of(
    settings: Mapping[str, Any],
    methods: Sequence[str],
    limit: int,
    folder: Path,
    answers: Callable[[RunStore], Answers] = lambda store: store,
) -> list[tuple[Subject, Rows, list[str]]]:
    """What methods write for the first `limit` instances of each category, with adapters that were not trained, and
    one engine for all: the answers and the predictions. `answers` may stand before the store that keeps them."""
    made = []
    with Engines(vectors=True) as engines:
        for one in subjects(settings, methods, limit, folder, Inputs()):
            job, run = one.job, folder / one.name / "run"
            with RunStore(run, job.record()) as store:
                loop = Loop(job.run, answers(store), partial(one.engine, engines), job.vectors, job.label)
                predictions = [row.prediction for row in loop.predictions()]
            made.append((one, stored_rows(run / "generations.jsonl"), predictions))
    return made


@pytest.fixture(name="texts_of", scope="session")
def _texts_of() -> Callable[..., list[tuple[Subject, Rows, list[str]]]]:
    return texts_of


@pytest.fixture(name="stored_rows", scope="session")
def _stored_rows() -> Callable[[Path], Rows]:
    return stored_rows
