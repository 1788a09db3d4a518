"""A run's folder, `results/runs/<readable-name>-<hash>/`:

    run.json           first: identity, configuration, versions, data and prompt hashes, device
    generations.jsonl  append-only, one row a completion, keyed by (instance, stage, index) and the prompt's hash
    predictions.jsonl  one row an instance, written when every completion is there
    scores.jsonl       one row an instance and metric
    summary.json       last, atomically: its existence means that the run is complete

Running the same configuration again resumes. A torn last line is dropped; one process at a time may write.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, fields
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.errors import StoreError
from bench.records import Call, Completion

SCHEMA = 1


def identity_hash(identity: Mapping[str, Any]) -> str:
    """Ten hex digits that stand for everything that can change a text of the run."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:10]


def write_atomically(path: Path, content: str | bytes) -> None:
    """`replace_content`, in a folder of results. Raises `StoreError`."""
    try:
        replace_content(path, content)
    except OSError as error:
        raise _unwritable(path, error) from error


def replace_content(path: Path, content: str | bytes) -> None:
    """Write `content` so that `path` holds either its old or its whole new content. Raises `OSError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be written: {error.strerror}. What was finished is kept; make room or choose another folder "
        "(e.g. --set results=FOLDER) and run again to go on"
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `StoreError`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}. Move its folder away to start over") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} does not hold a JSON object. Move its folder away to start over")
    return value


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, none if it is not there; a torn last line is left out. Raises `StoreError` for a line
    torn elsewhere or that is no JSON object."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}. Move its folder away to start over") from error
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise StoreError(
                f"{path}, line {number} is not a row: something else wrote to it. "
                "Delete that line, what it held is made again; or move the folder away to start over"
            )
        yield row


Rows = dict[tuple[str, str, int], dict[str, Any]]
_ROW_KEYS = {"instance", "stage", "index", "prompt", *(field.name for field in fields(Completion))}


def read_generations(folder: Path, instances: Collection[str] | None = None) -> Rows:
    """The rows of a run's generations.jsonl by (instance, stage, index), all or those of some instances. Raises
    `StoreError`."""
    path = folder / "generations.jsonl"
    rows: Rows = {}
    for number, row in enumerate(read_rows(path), 1):
        if lacking := _ROW_KEYS - row.keys():
            lacks = ", ".join(sorted(lacking))
            raise StoreError(f"{path}, line {number} lacks {lacks}: another program wrote it. Delete that line")
        if instances is None or row["instance"] in instances:
            rows[row["instance"], row["stage"], row["index"]] = row
    return rows


def stored_completion(rows: Rows, call: Call) -> Completion | None:
    """The stored answer to a call, if there is one to this very prompt."""
    row = rows.get(call.key)
    if row is None or row["prompt"] != call.prompt.hash:
        return None
    return Completion(row["text"], row["prompt_tokens"], row["completion_tokens"], row["finish_reason"], row["seconds"])


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is not there. Raises `StoreError` if another process holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except OSError as error:
        raise _unwritable(folder, error) from error
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
            raise _unwritable(path, error) from error

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
            raise _unwritable(self._path, error) from error
        self._size += len(line)

    def close(self) -> None:
        self._file.close()


class RunStore:
    """Reads and writes one run's folder; a context manager that holds the folder's lock.

    Raises `StoreError` on entering if another process writes to the folder, or if the folder was written by another
    schema or holds another run.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        self.folder = folder
        self._record = {"schema": SCHEMA, **record}
        self._lock = ExitStack()
        self._writer: RowWriter | None = None
        self._rows: Rows = {}

    def __enter__(self) -> RunStore:
        self._lock.enter_context(exclusive(self.folder))
        try:
            self._open_record()
            self._open_rows()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._lock.close()

    def _open_record(self) -> None:
        path = self.folder / "run.json"
        if not path.exists():
            write_atomically(path, dump(self._record))
            return
        old = read_json(path)
        if old.get("schema") != SCHEMA:
            raise StoreError(
                f"{self.folder} was written by schema {old.get('schema')} of bench, this version writes {SCHEMA}. "
                "Move the folder away to run again; nothing in it was changed"
            )
        if old.get("identity") != json.loads(json.dumps(self._record["identity"])):
            raise StoreError(
                f"{path} records another run than its folder's name says. Move the folder away to run again"
            )

    def _open_rows(self) -> None:
        self._rows = read_generations(self.folder)
        self._writer = RowWriter(self.folder / "generations.jsonl")

    def completion(self, call: Call) -> Completion | None:
        """The stored answer to a call, if there is one to this very prompt."""
        return stored_completion(self._rows, call)

    def append(self, call: Call, completion: Completion) -> None:
        """Keep an answer: once this returns, killing the process does not lose it. Raises `StoreError`."""
        assert self._writer is not None
        instance, stage, index = call.key
        row = {"instance": instance, "stage": stage, "index": index, "prompt": call.prompt.hash, **asdict(completion)}
        self._writer.append(row)
        self._rows[call.key] = row

    def stored(self) -> int:
        """How many completions are stored."""
        return len(self._rows)

    def write_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write a whole JSONL file atomically."""
        write_atomically(self.folder / name, "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a JSONL file of the run."""
        return list(read_rows(self.folder / name))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Declare the run complete."""
        write_atomically(self.folder / "summary.json", dump({"schema": SCHEMA, **summary}))


def dump(value: Mapping[str, Any]) -> str:
    """JSON for people: indented, unsorted, a new line at the end."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
