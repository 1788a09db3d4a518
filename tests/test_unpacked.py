"""Copies of models that are made once: kills, other processes, damage, a full disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.errors import ResourceError
from bench.unpacked import cache_folder, unpacked


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def fill(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "inner" / "config.json").write_text("{}")


def never(folder: Path) -> None:
    raise AssertionError("made again")


def test_a_copy_is_made_once(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = unpacked("the model", "a b/c.Q4", "source 1", fill)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"the model: kept as safetensors in {folder}, took ")
    assert folder.parent == cache
    assert folder.name.startswith("a-b-c.Q4-")
    record = json.loads((folder / "bench.json").read_text())
    assert record["source"] == "source 1"
    assert "torch" in record["versions"]
    assert set(record["files"]) == {"model.safetensors", "inner/config.json"}
    assert unpacked("the model", "a b/c.Q4", "source 1", never) == folder
    os.utime(folder / "model.safetensors")
    assert unpacked("the model", "a b/c.Q4", "source 1", never) == folder, "touched, but not changed"
    assert unpacked("the model", "a b/c.Q4", "source 2", fill) != folder
    assert "damaged" not in capsys.readouterr().err


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/bench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("~/.cache/bench").expanduser()


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "record", "no record"])
def test_a_damaged_copy_is_made_again(cache: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    folder = unpacked("the model", "m", "source", fill)
    weights, record = folder / "model.safetensors", folder / "bench.json"
    good = weights.read_bytes()
    if damage == "flip":
        weights.write_bytes(good[:5000] + bytes([good[5000] ^ 1]) + good[5001:])
    elif damage == "cut":
        weights.write_bytes(good[:-1])
    elif damage == "remove":
        weights.unlink()
    elif damage == "record":
        record.write_text('{"recipe": 1, "source": "source", "files": {"model.safetensors": 3}}')
    else:
        record.unlink()
    capsys.readouterr()
    assert unpacked("the model", "m", "source", fill) == folder
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"the copy in {folder} is damaged (")
    assert first.endswith("): it is made again")
    assert second.startswith("the model: kept as safetensors")
    assert weights.read_bytes() == good
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [folder.name]


def process(code: str) -> subprocess.Popen[str]:
    start = "import os, signal, sys, time\nfrom pathlib import Path\nfrom bench.unpacked import unpacked\n"
    command = [sys.executable, "-c", start + code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_kill_in_the_middle_leaves_nothing_that_counts(cache: Path) -> None:
    half = (
        "def make(folder):\n"
        "    (folder / 'model.safetensors').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "unpacked('m', 'm', 'source', make)"
    )
    killed = process(half)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (left,) = (path for path in cache.iterdir() if path.is_dir())
    assert left.name.startswith(".")
    folder = unpacked("m", "m", "source", fill)
    assert (folder / "model.safetensors").stat().st_size == 10240
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [folder.name], "leftovers are cleared"


def test_two_processes_at_once_make_one_copy(cache: Path, tmp_path: Path) -> None:
    code = (
        "def make(folder):\n"
        f"    (Path({str(tmp_path)!r}) / f'made-{{os.getpid()}}').touch()\n"
        "    (folder / 'a').write_bytes(b'1')\n"
        f"    while not (Path({str(tmp_path)!r}) / 'go').exists(): time.sleep(0.01)\n"
        "    (folder / 'b').write_bytes(b'2')\n"
        "print(unpacked('m', 'm', 'source', make))"
    )
    both = [process(code), process(code)]
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("made-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)
    (tmp_path / "go").touch()
    printed = [one.communicate(timeout=60) for one in both]
    assert len(list(tmp_path.glob("made-*"))) == 1
    assert len({out for out, _ in printed}) == 1, printed
    folder = Path(printed[0][0].strip())
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "bench.json"]


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file of more than 5,000 bytes can be written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_without_room_is_one_line(cache: Path, small_disk: None) -> None:
    with pytest.raises(ResourceError, match=r"the model: the copy cannot be written to .*set BENCH_CACHE") as caught:
        unpacked("the model", "m", "source", fill)
    assert "\n" not in str(caught.value)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []


def test_a_cache_that_is_no_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="the copy cannot be written"):
        unpacked("the model", "m", "source", fill)
