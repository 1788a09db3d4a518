"""Engines in Ray actors: one engine's texts, nothing lost when one breaks or the driver ends, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import cluster, cluster_end, registry
from bench.backends import Engines
from bench.backends.ray import RayBackend
from bench.chat import Chat
from bench.cli import main
from bench.config import RunConfig, build, read_config
from bench.errors import BackendError, BenchError, ConfigError, PluginError, ResourceError
from bench.execute import execute, side_by_side, train_adapter
from bench.job import Job
from bench.methods.dep import DEP
from bench.records import Call, Prompt

Key = tuple[str, str, int]


@pytest.fixture(scope="module")
def ray(scripted_backend: None) -> Iterator[Any]:
    """A local cluster, whose start takes seconds: one for the whole file."""
    with Engines(), cluster.joined() as ray:
        yield ray


def config(model: Path, **sections: dict[str, Any]) -> RunConfig:
    """Two stand-ins for engines; `sections` are those of several and stand_in."""
    given = {"method": "nonperso", "model": str(model), "input_budget": 600, "max_new_tokens": 8, "backend": "several"}
    sections["several"] = {"engines": 2, **sections.get("several", {})}
    return build(given, sections)


@pytest.fixture(scope="module")
def chat(tiny_qwen2: Path) -> Chat:
    return Chat(str(tiny_qwen2))


def calls(count: int) -> list[Call]:
    """Every second one with vectors for its slots and, as no row is there, for its marks."""
    made = []
    for number in range(count):
        key = (f"Books/test/u{number}", "review", 0)
        slots = tuple(f"[HIS_TOKEN_{slot}]" for slot in range(1 + number % 3))
        text = " ".join(["kite", "<|im_start|>", "é", str(number)] * (1 + number % 5))
        if number % 2:
            prompt = Prompt("review", "Write.", text + "".join(slots), slots=slots, marks=DEP.marks)
            vectors = np.random.default_rng(number).normal(size=(len(slots), 4)).astype(np.float32)
            made.append(Call(key, prompt, number, 0.8, 0.95, 8, vectors))
        else:
            made.append(Call(key, Prompt("review", "Write.", text), number, 0.8, 0.95, 8))
    return made


def collected(backend: Any, asked: Sequence[Call]) -> dict[Key, str]:
    """The answers to calls, each once."""
    for call in asked:
        backend.submit(call)
    texts: dict[Key, str] = {}
    while len(texts) < len(asked):
        for call, completion in backend.completed():
            assert call.key not in texts
            texts[call.key] = completion.text
    return texts


@pytest.fixture(scope="module")
def expected(tiny_qwen2: Path, chat: Chat) -> dict[Key, str]:
    """What one stand-in in this process answers."""
    kind = registry.load("backends", "stand_in")
    return collected(kind(config(tiny_qwen2).engine, chat, True), calls(24))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr("bench.backends.ray.say", lines.append)
    return lines


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("dies", "has ended without a word"),
        ("rubbish", "answered what it was not asked, ('nobody', 'asked', 0)"),
        ("fails", "the stand-in ran out of memory"),
        ("hangs", "gave no sign for 3 s (ray.timeout)"),
    ],
)
def test_calls_of_an_engine_that_breaks_are_sent_again(
    fault: str,
    why: str,
    ray: Any,
    tiny_qwen2: Path,
    chat: Chat,
    expected: dict[Key, str],
    said: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    faulty = {"fault": fault, "after": 3, "once": str(tmp_path / "broken"), "seconds": 0.02}
    # One that hangs is not started anew here: in three seconds a busy machine may not start one.
    several = {"restarts": 0 if fault == "hangs" else 1}
    asked = config(tiny_qwen2, several=several, stand_in=faulty)
    with Engines() as engines:
        backend: Any = engines.get(asked, chat, vectors=True)
        if fault == "hangs":
            backend._section = backend._section.model_copy(update={"timeout": 3.0})
        assert collected(backend, calls(24)) == expected
        assert backend.engines == (1 if fault == "hangs" else 2)
    (line,) = [line for line in said if why in line]
    end = "going on without it" if fault == "hangs" else "it is started anew"
    assert line.startswith("engine ")
    assert f" on {os.uname().nodename} (process " in line
    assert end in line
    assert "calls are sent again" in line
    assert capfd.readouterr().out == "", "what Ray prints of it by itself"


def test_no_engine_left_is_one_line(ray: Any, tiny_qwen2: Path, chat: Chat, said: list[str]) -> None:
    with Engines() as engines:
        with pytest.raises(
            BackendError, match=r"^no engine is left; the last, engine \d, .*the stand-in could not start"
        ):
            engines.get(config(tiny_qwen2, stand_in={"fault": "no start"}), chat)
        asked = config(tiny_qwen2, several={"restarts": 0}, stand_in={"fault": "fails"})
        backend = engines.get(asked, chat)
        with pytest.raises(BackendError, match=r"ran out of memory\. What was finished is kept"):
            collected(backend, calls(1) * 2)


def test_a_call_that_no_engine_can_take_stops_the_run(ray: Any, tiny_qwen2: Path, chat: Chat) -> None:
    prompt = Prompt("review", "", "no slot is here", slots=("[HIS_TOKEN_0]",), marks=DEP.marks)
    call = Call(("Books/test/u", "review", 0), prompt, 1, 0.8, 0.95, 8, np.zeros((1, 4), np.float32))
    with Engines() as engines:
        backend = engines.get(config(tiny_qwen2), chat, vectors=True)
        backend.submit(call)
        with pytest.raises(PluginError, match=r"its slots \[HIS_TOKEN_0\] are not what its text holds"):
            list(backend.completed())


def test_two_real_engines_write_what_one_writes(ray: Any, texts_of: Callable[..., Any], tmp_path: Path) -> None:
    """And a run is the same run wherever it is made."""
    settings = {**read_config("demo"), "max_new_tokens": 32, "input_budget": 700, "temperature": 0.8}
    made = []
    for name, backend in (("one", {}), ("two", {"backend": "ray", "ray": {"engines": 2}})):
        # A method with text alone and one with vectors.
        written = texts_of({**settings, **backend}, ["rag", "dep"], 2, tmp_path / name)
        made.append([(one.job.folder.name, *texts) for one, *texts in written])
    assert [len(answers) for _, answers, _ in made[0]] == [6, 6]
    assert made[1] == made[0]


def test_adapters_are_trained_in_tasks(ray: Any, shop_config: Path, tmp_path: Path) -> None:
    """With the weights of a training here, and an error that arrives as one."""

    def job(name: str, **settings: Any) -> Job:
        return Job.of(build(read_config(str(shop_config)), {"method": "prompt_tuning", "results": name}, settings))

    here, there = job(str(tmp_path / "here")), job(str(tmp_path / "there"), backend="several")
    assert here.trains is not None
    assert there.trains is not None
    train_adapter(here.trains)
    lines: list[str] = []
    assert side_by_side([here, there], lines.append) == [here]
    assert lines[0] == "training 1 adapters side by side: prompt_tuning"
    assert there.trains.weights_hash(1) == here.trains.weights_hash(1)
    assert side_by_side([there], lines.append) == []
    assert len(lines) == 2, "what is trained is left alone"
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "adapters").write_text("a file where a folder is wanted")
    with pytest.raises(BenchError, match="cannot be written"):
        side_by_side([job(str(tmp_path / "file"), backend="several")], lines.append)


# ---- the driver's end


def listening(processes: Sequence[int]) -> set[str]:
    """The local addresses on which some processes listen, as the kernel writes them."""
    sockets = set()
    for process in processes:
        for file in Path(f"/proc/{process}/fd").iterdir():
            try:
                target = os.readlink(file)
            except OSError:
                continue
            if target.startswith("socket:["):
                sockets.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and parts[9] in sockets:
                found.add(parts[1].rpartition(":")[0])
    return found


def cluster_of(driver: int) -> str | None:
    """The folder of the cluster that a process started."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            parent = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == driver and any(word.endswith(b"cluster_end.py") for word in words):
            return words[-2].decode()
    return None


def within(seconds: float, holds: Callable[[], Any]) -> Any:
    """What a condition gives once it holds. Fails the test if it does not within so many seconds."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def test_a_driver_that_is_stopped_leaves_its_rows_and_nothing_else(
    ray: Any, stored_rows: Callable[[Path], dict[Key, str]], tmp_path: Path
) -> None:
    """By kill -9, then by Ctrl-C; then the run is completed. Every answer that was kept is kept."""
    results = tmp_path / "results"
    given = {"method": "rag", "limit": 30, "backend": "several", "metrics": ["rouge"], "resamples": 10}
    given |= {"several": {"engines": 2}, "stand_in": {"seconds": 0.1}, "results": str(results)}
    command = [sys.executable, "-m", "bench.cli", "run", "--method", "rag"]
    for key, value in given.items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    known: dict[Key, str] = {}

    def stored() -> dict[Key, str]:
        return next((stored_rows(path) for path in results.glob("runs/*/generations.jsonl")), {})

    def started_and_stopped(stop: signal.Signals, code: int) -> None:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as driver:
            within(300, lambda: driver.poll() is not None or len(stored()) > len(known) + 5)
            assert driver.poll() is None, driver.stderr.read() if driver.stderr else ""
            folder = cluster_of(driver.pid)
            assert folder is not None
            members = cluster_end.members(folder)
            assert len(members) > 4, "the cluster's processes, two engines among them"
            addresses = listening([driver.pid, *members])
            assert addresses
            assert addresses <= LOOPBACK
            driver.send_signal(stop)
            driver.wait(120)
            assert driver.returncode == code
        within(60, lambda: not cluster_end.members(folder) and not Path(folder).exists())

    for stop, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        started_and_stopped(stop, code)
        assert known.items() <= stored().items()
        known = stored()
    assert 10 < len(known) < 90
    job = Job.of(build(read_config("demo"), given))
    (summary,) = execute([job], lambda _: None)
    assert summary.calls == 90
    assert known.items() <= stored().items()
    assert len(stored()) == 90


# ---- settings


def test_ray_is_imported_for_nothing_else() -> None:
    code = (
        "import sys; from bench import doctor, execute, registry; from bench.config import build\n"
        "build({'method': 'rag', 'backend': 'ray', 'ray': {'engines': 2}}); assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["ray.engines=0"], "bench: ray.engines: must be at least 1, got 0\n"),
        (["ray.engine=2"], "bench: 'ray.engine' is not a configuration key; did you mean 'engines'?"),
        (["ray.timeout=0"], "bench: ray.timeout: must be more than 0"),
        (["vllm.dtype=float8"], "bench: vllm.dtype: must be"),
    ],
)
def test_bad_settings_are_one_line(given: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [part for one in given for part in ("--set", one)]
    assert main(["run", "--method", "rag", "--backend", "ray", *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(line[:-1] if line.endswith("\n") else line)


def test_what_cannot_be_joined_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    with pytest.raises(ConfigError, match=r"is that of Ray's client, .*RAY_ADDRESS=auto"):
        RayBackend.check(build({"method": "rag", "backend": "ray"}))
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"run `make setup EXTRAS=ray`, or pip install '\.\[ray\]'$"):
        cluster.check()


def test_more_engines_than_gpus_are_refused(tiny_qwen2: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which no machine here has: what Ray says of its nodes is written by hand."""
    backend = object.__new__(RayBackend)

    def share(gpus: list[int], **settings: Any) -> tuple[dict[str, float], int, int]:
        nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": float(number)}} for number in gpus]
        backend._ray = type("Ray", (), {"nodes": staticmethod(lambda: nodes)})
        asked = build({"method": "rag", "backend": "ray", "model": str(tiny_qwen2)}, settings)
        backend._section = asked.backend_section  # type: ignore[assignment]
        return backend._share(asked)

    assert share([8, 8]) == ({"num_cpus": 0, "num_gpus": 1}, 16, 0)
    assert share([8, 7], vllm={"tensor_parallel_size": 2}) == ({"num_cpus": 0, "num_gpus": 2}, 7, 0)
    assert share([0], ray={"engines": 3}) == ({"num_cpus": 0}, 3, 2)
    with pytest.raises(ConfigError, match=r"ray.engines=8 with vllm.tensor_parallel_size=2: the nodes have 4, 4 GPUs"):
        share([4, 4], vllm={"tensor_parallel_size": 2}, ray={"engines": 8})
    with pytest.raises(BenchError, match="room for 0 engines"):
        share([1, 1], vllm={"tensor_parallel_size": 2})


def test_ray_that_was_imported_before_is_not_used() -> None:
    script = "import ray\nfrom bench import cluster\nwith cluster.joined(): pass"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "BackendError: Ray was imported in this process before bench could tell it" in done.stderr
