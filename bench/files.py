"""Files that survive a kill: whole or not at all. JSON, JSON lines and locks for folders of results."""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from bench.errors import ConfigError, StoreError

DELETE_LINE = "Delete that line, what it held is made again; or move the folder away to start over"
"""What to do about a broken row."""


LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes of a file's name and of a path, on Linux."""


def path_of(text: str | Path) -> Path:
    """A path as a user writes it, with "~" for a home folder. Raises `ConfigError` for one that no file can have."""
    text = str(text)
    start = text if len(text) <= 60 else f"{text[:60]}..."
    if not text:
        raise ConfigError("a path must not be empty; write . for the folder you are in")
    try:
        path = Path(text).expanduser()
        # A folder alone, ".", has no parts.
        names = [0, *(len(name.encode()) for name in path.parts)]
    except RuntimeError:
        user = text.partition("/")[0]
        raise ConfigError(
            f"path '{start}': this machine knows no home folder {user}; write ./{user} for a file of that name"
        ) from None
    except UnicodeEncodeError:
        names = []
    if "\0" in text or not names:
        raise ConfigError(f"path {start!r} holds a character that no path has")
    if max(names) > LONGEST_NAME or sum(names) + len(names) > LONGEST_PATH:
        raise ConfigError(
            f"path '{start}' is too long: a name has at most {LONGEST_NAME} bytes, a path {LONGEST_PATH:,}"
        )
    return path


def dump(value: Mapping[str, Any]) -> str:
    """JSON for people: indented, unsorted, a new line at the end."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write_atomically(path: Path, content: str | bytes) -> None:
    """`replace_content`, in a folder of results. Raises `StoreError`."""
    try:
        replace_content(path, content)
    except OSError as error:
        raise unwritable(path, error) from error


def replace_content(path: Path, content: str | bytes) -> None:
    """Write `content` so that `path` holds either its old or its whole new content. Raises `OSError`."""
    with replacing(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends, and is gone if it fails. Raises `OSError`, also for
    a pipe or a device, whose place nothing may take."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise FileExistsError(errno.EEXIST, "it is a pipe or a device", str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def drop_leftovers(path: Path) -> None:
    """Remove what `replacing` left beside `path` in processes that were killed."""
    with suppress(OSError):
        for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
            number = left.name.rpartition(".")[2]
            if number.isdecimal() and not Path("/proc", number).exists():
                left.unlink()


def unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be written: {error.strerror}. What was finished is kept; make room or choose another folder "
        "(e.g. --set results=FOLDER) and run again to go on"
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `StoreError`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read: {error}. Move its folder away to start over") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} does not hold a JSON object. Move its folder away to start over")
    return value


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, none if it is not there; a torn last line is left out. Raises `StoreError` for a line
    torn elsewhere or that is not a JSON object."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}. Move its folder away to start over") from error
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise StoreError(f"{path}, line {number} is not a row: something else wrote to it. {DELETE_LINE}")
        yield row


def as_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as the content of a JSONL file."""
    return "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is not there. Raises `StoreError` if another process holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except OSError as error:
        raise unwritable(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(
                f"another process is writing to {folder}; wait for it or stop it, nothing was changed"
            ) from None
        try:
            yield
        finally:
            # Closing would not do: a worker process forked meanwhile holds the same lock.
            fcntl.flock(lock, fcntl.LOCK_UN)


class RowWriter:
    """Appends rows to a JSONL file; a torn last line is cut off first. One process at a time. Raises `StoreError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = FileIO(path, "a")
            self._size = path.read_bytes().rfind(b"\n") + 1
            self._file.truncate(self._size)
        except OSError as error:
            raise unwritable(path, error) from error

    def append(self, row: Mapping[str, Any]) -> None:
        """Keep a row, whole or not at all: once this returns, killing the process does not lose it."""
        line = json.dumps(row, ensure_ascii=True).encode() + b"\n"
        try:
            # An unbuffered write to a full disk may stop short without an error.
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            # Leave no torn line in front of what is appended later.
            with suppress(OSError):
                self._file.truncate(self._size)
            raise unwritable(self._path, error) from error
        self._size += len(line)

    def close(self) -> None:
        self._file.close()
