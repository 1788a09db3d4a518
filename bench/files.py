"""Files that survive a kill: whole or not at all. JSON, JSON lines, checksums and locks for folders of results."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from bench.errors import BusyError, ConfigError, DamagedError, StoreError

ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""What reading says of a file that is not there, or not a file: no right of access would help."""


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


def write_held(path: Path, content: str | bytes) -> None:
    """`write_atomically` into a folder that was made when it was locked; a folder in the file's place is put aside.
    Raises `StoreError` if the folder is gone."""
    _check_held(path)
    write_atomically(path, content)


def _check_held(path: Path) -> None:
    if not path.parent.is_dir():
        raise gone(path.parent)
    if path.is_dir():
        put_aside(path)


def put_aside(path: Path, copy: bool = False) -> Path:
    """Rename a damaged file, or what lies in its place, or `copy` it: its new place, beside it. Raises `StoreError`."""
    names = (path.with_name(f"{path.name}.damaged{number}") for number in ("", *(f"-{n}" for n in range(2, 1000))))
    aside = next(name for name in names if not name.exists())
    try:
        if copy:
            shutil.copyfile(path, aside)
        else:
            path.rename(aside)
    except OSError as error:
        raise unwritable(aside, error) from error
    return aside


def gone(path: Path) -> StoreError:
    return StoreError(
        f"{path} was removed or moved while this command wrote to it. Put it back if it was moved, then run again to "
        "go on"
    )


def unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be read: {error.strerror}; see to it that you may read it and the disk works, then run again"
    )


def problem_of(error: Exception) -> str:
    """What is wrong with a file that could not be read."""
    if isinstance(error, FileNotFoundError):
        return "it is missing"
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return "it is not a file"
    return f"it cannot be read ({' '.join(str(error).split())})"


def unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be written: {error.strerror}. What was finished is kept; make room or choose another folder "
        "(e.g. --set results=FOLDER) and run again to go on"
    )


def check_results(folder: Path) -> None:
    """Find out before data are read whether a folder of results can be written; it need not be there yet. Raises
    `ConfigError`."""
    place = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    why = "" if place.is_dir() else f"{place} is a file"
    if not why and not os.access(place, os.W_OK | os.X_OK):
        why = f"{place} is not yours to write"
    if why:
        raise ConfigError(f"nothing can be kept in {folder}: {why}; choose another folder: --results FOLDER")


def _check_file(path: Path) -> None:
    """Raise `DamagedError` for what is there and no file: a pipe would be waited for."""
    if path.exists() and not path.is_file():
        raise DamagedError(path, "it is not a file")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `DamagedError` for anything else, `StoreError` if it may not be read."""
    _check_file(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, *ABSENT) as error:
        raise DamagedError(path, problem_of(error)) from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not isinstance(value, dict):
        raise DamagedError(path, "it is not a JSON object")
    return value


def content_hash(path: Path) -> str:
    """SHA-256 of a file, as hex; empty where there is none. Raises `StoreError` if it may not be read."""
    if path.exists() and not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except ABSENT:
        return ""
    except OSError as error:
        raise unreadable(path, error) from error


def object_hash(value: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, whatever the order of its keys, as hex."""
    # Numbers among the keys are text in JSON, and sort as text.
    plain = json.loads(json.dumps(value))
    return hashlib.sha256(json.dumps(plain, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


# -- rows --------------------------------------------------------------------------------------------------------------

SUM = b'"sum": "'
"""Ends each line of a row, with the name of what the row belongs to and a part of the SHA-256 of both. Quotes inside of
JSON texts are escaped: nothing else in a line reads like it."""


def sealed(row: Mapping[str, Any], owner: str = "") -> bytes:
    """A row as a line with its checksum; `owner` names what it belongs to, e.g. a run."""
    line = json.dumps(row, ensure_ascii=True).encode()[:-1] + (b", " if row else b"")
    return line + SUM + _seal(line, owner.encode()) + b'"}\n'


def sealed_lines(rows: Iterable[Mapping[str, Any]], owner: str = "") -> bytes:
    """Rows as the content of a JSONL file, each with its checksum."""
    return b"".join(sealed(row, owner) for row in rows)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], owner: str, keep: bool = False) -> None:
    """Write rows, each with its checksum, as the whole content of a file, one row in memory at a time; with `keep`
    another content that lies there is kept beside. Else as `write_held`."""
    _check_held(path)
    digest = hashlib.sha256()
    try:
        with replacing(path) as file:
            for row in rows:
                line = sealed(row, owner)
                digest.update(line)
                file.write(line)
            if keep and path.exists() and content_hash(path) != digest.hexdigest():
                put_aside(path)
    except OSError as error:
        raise unwritable(path, error) from error


def as_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as the content of a JSONL file for others: without checksums."""
    return "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)


def _seal(line: bytes, owner: bytes) -> bytes:
    return owner + b"." + hashlib.sha256(owner + b"." + line).hexdigest()[:16].encode()


def read_line(line: bytes, owner: str | None = None) -> tuple[dict[str, Any], bool]:
    """The row in a line, and whether it has a checksum; with `owner` it has to be that one's. Raises `ValueError` for
    one that is not as it was written."""
    before, mark, seal = line.rpartition(SUM)
    if mark:
        name = seal.rpartition(b".")[0]
        if seal.rstrip(b"\n") != _seal(before, name) + b'"}':
            raise ValueError("it does not have the content of its checksum")
        if owner is not None and name != owner.encode():
            raise ValueError("it belongs elsewhere")
    elif owner is not None:
        raise ValueError("it has no checksum")
    try:
        # Of bytes the encoding would be guessed, which takes a fifth of the time.
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        raise ValueError("it is not a row") from None
    if not isinstance(row, dict):
        raise ValueError("it is not a row")
    row.pop("sum", None)
    return row, bool(mark)


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, none if it is not there; a torn last line, which a kill leaves, is left out. Raises
    `DamagedError` for a folder in its place, `StoreError` if it may not be read."""
    _check_file(path)
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))
    except FileNotFoundError:
        return
    except ABSENT as error:
        raise DamagedError(path, problem_of(error)) from error
    except OSError as error:
        raise unreadable(path, error) from error


def read_rows(path: Path, owner: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, none if it is not there; a torn last line is left out.

    With `owner` each has to have a checksum, and to be that one's. Else, as rows of older schemas have none, all have
    one or none has. Raises `DamagedError` for a row that is not as it was written.
    """
    first: bool | None = None
    for number, line in enumerate(whole_lines(path), 1):
        try:
            row, summed = read_line(line, owner)
            first = summed if first is None else first
            if summed != first:
                raise ValueError("other rows have a checksum, or it alone has one")
        except ValueError as error:
            raise DamagedError(f"{path}, line {number}", str(error)) from None
        yield row


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is not there. Raises `BusyError` if another process holds it,
    `StoreError` where there can be no lock."""
    with _locked(folder, fcntl.LOCK_EX):
        yield


@contextmanager
def together(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder together with all others that hold it so, and raise as `exclusive` does: who does has
    to wait for all of them."""
    with _locked(folder, fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Over NFS a lock that is held together takes a file that can be read, any other one that can be written.
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        raise unwritable(folder, error) from error
    with lock:
        try:
            # Not to be taken for a writer: who looks in `is_held` holds the lock for a moment.
            for pause in (0.02, 0.05, 0.1, 0):
                with suppress(BlockingIOError):
                    fcntl.flock(lock, kind | fcntl.LOCK_NB)
                    break
                time.sleep(pause)
            else:
                raise BusyError(f"another process is writing to {folder}; wait for it or stop it, nothing was changed")
        except OSError as error:
            raise StoreError(
                f"{folder} cannot be locked: {error.strerror}. Choose a folder on a file system with flock (e.g. --set "
                "results=FOLDER), and run again; nothing was changed"
            ) from error
        try:
            yield
        finally:
            # Closing would not do: a worker process forked meanwhile holds the same lock.
            fcntl.flock(lock, fcntl.LOCK_UN)


def is_held(folder: Path) -> bool:
    """Whether somebody holds the lock of a folder alone."""
    try:
        lock = (folder / ".lock").open()
    except ABSENT:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(lock, fcntl.LOCK_UN)
    return False


class RowWriter:
    """Appends rows with their checksums to a JSONL file; a torn last line is cut off first. One process at a time.
    `owner` is what the rows belong to. Raises `StoreError`."""

    def __init__(self, path: Path, owner: str = "") -> None:
        self._path = path
        self._owner = owner
        try:
            self._file = FileIO(path, "a+")
            self._size = _whole(self._file)
            self._file.truncate(self._size)
        except OSError as error:
            raise unwritable(path, error) from error

    def append(self, row: Mapping[str, Any]) -> int:
        """Keep a row, whole or not at all: once this returns, killing the process does not lose it. The byte at which
        it begins. Raises `StoreError` if the file, or its folder, is not where it was."""
        return self.append_line(sealed(row, self._owner))

    def append_line(self, line: bytes) -> int:
        """`append` a row that has its checksum."""
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
        try:
            there = os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            there = False
        if not there:
            raise gone(self._path)
        return self._size - len(line)

    def close(self) -> None:
        self._file.close()


def _whole(file: FileIO) -> int:
    """The length of a file without a torn last line."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(end - (1 << 16), 0)
        file.seek(start)
        if (found := file.read(end - start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0
