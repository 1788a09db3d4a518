"""Copies of models in a form that everything here loads, each made once and kept in a cache.

    $BENCH_CACHE, else $XDG_CACHE_HOME/bench, else ~/.cache/bench
      models/NAME-HASH12/    a model's folder with safetensors; HASH12 tells what it was made of
        bench.json           what it was made of, the versions that made it, and the size and hash of each file

A folder there is whole: it is made under another name and renamed. Removing one costs the time to make it again.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import DamagedError, ResourceError, StoreError
from bench.files import content_hash, dump, path_of, read_json, replace_content
from bench.progress import say

RECORD = "bench.json"
RECIPE = 1
"""Counts how copies are made: those of another number are not used."""
MADE_BY = ("gguf", "safetensors", "torch", "transformers")


def cache_folder() -> Path:
    """Where bench keeps what it can make again."""
    if own := os.environ.get("BENCH_CACHE"):
        return path_of(own)
    return path_of(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "bench"


def unpacked(told: str, stem: str, source: str, make: Callable[[Path], None]) -> Path:
    """The folder of a copy; made if it is not there or is damaged, which is said in a line with the time that it took.

    `told` says what it is ("model 'x', unpacked from GGUF"), `stem` begins the folder's name, `source` is the
    fingerprint of what it is made of. `make` fills an empty folder. Another process that makes the same copy is waited
    for. Raises `ResourceError` for a cache that cannot be written, and whatever `make` raises but `OSError` and
    `SafetensorError`, which mean that.
    """
    digest = hashlib.sha256(f"{RECIPE} {source}".encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:80]
    folder = cache_folder() / "models" / f"{name}-{digest}"
    if _problem(folder, source) is None:
        return folder
    from safetensors import SafetensorError

    try:
        with _alone(folder, told):
            # Another process may have made it meanwhile.
            problem = _problem(folder, source)
            if problem is None:
                return folder
            if folder.exists():
                say(f"the copy in {folder} is damaged ({problem}): it is made again")
            started = time.perf_counter()
            _make(folder, source, make)
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ResourceError(
            f"{told}: the copy cannot be written to {folder.parent} ({why}); make room there, or set BENCH_CACHE to a "
            "folder elsewhere"
        ) from error
    say(f"{told}: kept as safetensors in {folder}, took {time.perf_counter() - started:.1f} s")
    return folder


@contextmanager
def _alone(folder: Path, told: str) -> Iterator[None]:
    """Hold the lock of a copy, which a killed process lets go. Raises `OSError`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{told}: waiting for another process that makes the copy")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(folder: Path, source: str, make: Callable[[Path], None]) -> None:
    """Call under the copy's lock: what lies beside it is of killed processes. Raises `OSError`."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        if left.is_dir():
            shutil.rmtree(left)
    temporary = folder.with_name(f".{folder.name}.new")
    temporary.mkdir()
    try:
        make(temporary)
        record = {"recipe": RECIPE, "source": source, "versions": _versions(), "files": _written(temporary)}
        replace_content(temporary / RECORD, dump(record))
        if folder.exists():
            folder.rename(folder.with_name(f".{folder.name}.damaged"))
        temporary.rename(folder)
    finally:
        for left in folder.parent.glob(f".{folder.name}.*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)


def _versions() -> dict[str, str]:
    installed = {name: _version(name) for name in MADE_BY}
    return {name: version for name, version in installed.items() if version}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _written(folder: Path) -> dict[str, dict[str, Any]]:
    """What the record says of each file, once it is safely on disk."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        about = path.stat()
        files[path.relative_to(folder).as_posix()] = {
            "size": about.st_size,
            "mtime_ns": about.st_mtime_ns,
            "sha256": content_hash(path),
        }
    return files


def _problem(folder: Path, source: str) -> str | None:
    """What is wrong with a copy; None if nothing is. A file whose time of change is not that of its record is read
    again and has to have its hash."""
    try:
        record = read_json(folder / RECORD)
        if (record["recipe"], record["source"]) != (RECIPE, source):
            return f"its {RECORD} is of something else"
        for name, wanted in record["files"].items():
            path = folder / name
            about = path.stat()
            same = about.st_size == wanted["size"] and (
                about.st_mtime_ns == wanted["mtime_ns"] or content_hash(path) == wanted["sha256"]
            )
            if not same:
                return f"{name} is not as it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename or '').name} is missing"
    except DamagedError as error:
        return f"{RECORD}: {error.problem}"
    except (OSError, StoreError, LookupError, TypeError, AttributeError) as error:
        return f"it cannot be read: {' '.join(str(error).split())[:120]}"
    return None
