"""published: a local copy of the two data sets in which DPL's authors published their splits, DPL-main and DPL-meta.

    FOLDER/main/<category>/{train,val,test}.{parquet,jsonl,arrow}
    FOLDER/meta/<category>/full.{parquet,jsonl,arrow}

A split may also be a folder that `datasets` wrote with `save_to_disk`. FOLDER/fetched.json and FOLDER/exported.json, if
there, say where the copy comes from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.data.corpus import Corpus
from bench.data.layouts._published import ROWS, Chunk, Chunks, corpus_of, counted
from bench.data.origins import EXPORTED, FETCHED, broken, hub_origin, read_origin
from bench.errors import DataError

if TYPE_CHECKING:
    import pyarrow

_FORMS = ("parquet", "jsonl", "arrow")


@dataclass(frozen=True)
class Published:
    """A local copy of the published splits."""

    task: ClassVar[str] = "reviews"
    form: ClassVar[str] = "main/<category>/, as in a copy of the published data"

    def categories(self, folder: Path) -> list[str]:
        """The categories of a local copy, sorted; empty if `folder` is not one."""
        return sorted(
            path.name for path in (folder / "main").glob("*") if path.is_dir() and not path.name.startswith(".")
        )

    def read(self, folder: Path, category: str) -> Corpus:
        """One category. Raises `DataError` for files that are missing, broken or inconsistent."""

        def chunks(part: str, split: str) -> Chunks:
            return _local_chunks(folder / part / category, split)

        return corpus_of(category, chunks, *_origin(folder, category))


def _origin(folder: Path, category: str) -> tuple[str, list[str]]:
    """Where a category comes from, and the notes it came with."""
    fetched, exported = read_origin(folder / FETCHED), read_origin(folder / EXPORTED)
    origin, notes = f"the published splits in folder {folder.name}", []
    try:
        if category in fetched.get("categories", ()):
            main, meta = fetched["sources"]["main"], fetched["sources"]["meta"]
            origin = hub_origin(main["id"], meta["id"], main["commit"], meta["commit"])
        if category in exported.get("categories", ()):
            notes = [str(note) for note in exported["categories"][category]["notes"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder}: {FETCHED} or {EXPORTED} has no {error}; fetch or export the data again") from error
    return origin, notes


def _local_chunks(home: Path, split: str) -> Chunks:
    readers: dict[str, Callable[[Path], Chunks]] = {"parquet": _parquet, "jsonl": _jsonl, "arrow": _arrow}
    for form in _FORMS:
        path = home / f"{split}.{form}"
        if path.is_file():
            return readers[form](path)
    shards = sorted((home / split).glob("data-*.arrow"))
    if shards:
        return (chunk for shard in shards for chunk in _arrow(shard))
    raise DataError(
        f"{home} has no {split}.{{{','.join(_FORMS)}}}; a local copy needs main/<category>/ and meta/<category>/"
    )


def _parquet(path: Path) -> Chunks:
    import pyarrow as pa
    import pyarrow.parquet

    def batches() -> Iterator[pyarrow.RecordBatch]:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                yield from map(_valid, file.iter_batches(ROWS))
        except (pa.ArrowException, OSError) as error:
            raise broken(path, error) from error

    return counted(str(path), batches())


def _arrow(path: Path) -> Chunks:
    import pyarrow as pa

    def batches() -> Iterator[pyarrow.RecordBatch]:
        try:
            with pa.memory_map(str(path)) as file:
                is_file = file.read(6) == b"ARROW1"
                file.seek(0)
                table = (pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)).read_all()
                yield from map(_valid, table.to_batches(ROWS))
        except (pa.ArrowException, OSError) as error:
            raise broken(path, error) from error

    return counted(str(path), batches())


def _valid(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    """A batch whose texts are UTF-8, which no reader looks at. Raises `ArrowInvalid`."""
    batch.validate(full=True)
    return batch


def _jsonl(path: Path) -> Chunks:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield Chunk(str(path), number, _json_object(line, f"{path}, line {number:,}"), "line")
    except (OSError, UnicodeDecodeError) as error:
        raise broken(path, error) from error


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if "\\u" in line:
            # An escape may be half a character, which Python keeps, and which cannot be tokenised or written.
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):x}"
        raise DataError(f"{where}: a text holds half a character ({half}); correct it or leave it out") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({error}); fetch the file again") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object; fetch the file again")
    return row
