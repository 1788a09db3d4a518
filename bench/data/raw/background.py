"""Reading raw files from end to end in the background, for what DuckDB does not tell."""

from __future__ import annotations

import gzip
import hashlib
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError

STRIP = 1 << 13
"""Bytes of a file whose lines are counted together."""
_CHUNK = 8 * STRIP  # bytes read at a time; memory for much more would come from the kernel anew each time


class BackgroundReader:
    """Reads files from end to end in a thread of its own: for their SHA-256, for where the lines of plain files are,
    and for the checksums in gzip files, which DuckDB does not look at."""

    def __init__(self, paths: Sequence[Path]) -> None:
        for path in paths:
            if path.exists() and not path.is_file():
                raise DataError(f"{path} cannot be read (it is a folder or a pipe); give the path of a file")
            try:
                path.open("rb").close()
            except OSError as error:
                raise DataError(
                    f"{path} cannot be read ({error.strerror}); give the path of a file of JSON lines, CSV or Parquet"
                ) from error
        self._paths = paths
        self._sources: list[dict[str, Any]] = []
        self._lines: dict[Path, NDArray[np.int64]] = {}
        self._error: DataError | None = None
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for path in self._paths:
            hashing = _Hashing()
            try:
                with path.open("rb") as file:
                    if gzipped(path):
                        hashing.file = file
                        with gzip.GzipFile(fileobj=cast(IO[bytes], hashing)) as unpacked:
                            while unpacked.read(_CHUNK) and not self._given_up.is_set():
                                pass
                    else:
                        self._lines[path] = self._read_plain(file, hashing)
                self._sources.append({"name": path.name, "bytes": hashing.size, "sha256": hashing.sha256.hexdigest()})
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                self._error = DataError(f"{path} is a broken gzip file ({error}); fetch it again")
                return
            except OSError as error:
                self._error = DataError(f"{path} cannot be read ({error}); copy it to a disk that can be read")
                return

    def _read_plain(self, file: IO[bytes], hashing: _Hashing) -> NDArray[np.int64]:
        """Hash a file; the number of line ends before each of its strips, and in all."""
        counts = [0]
        while (chunk := file.read(_CHUNK)) and not self._given_up.is_set():
            hashing.update(chunk)
            counts.extend(chunk.count(b"\n", start, start + STRIP) for start in range(0, len(chunk), STRIP))
        return np.cumsum(counts)

    def check(self) -> None:
        """Wait for the files; raise the `DataError` of a broken one."""
        self._thread.join()
        if self._error:
            raise self._error

    def sources(self) -> list[dict[str, Any]]:
        """{"name", "bytes", "sha256"} of each file; waits for them. Raises `DataError` for a broken gzip file."""
        self.check()
        return self._sources

    def pick(self, path: Path, rows: Sequence[int], total: int, copy: Path) -> bool:
        """Write some of the `total` lines of a plain file, given by their positions, ascending, into `copy`. False if
        where the lines are is not known, for gzip files and for those with blank lines."""
        self.check()
        before = self._lines.get(path)
        if before is None:
            return False
        with copy.open("wb") as out, path.open("rb") as file:
            file.seek(-1, 2)
            if before[-1] + (file.read(1) != b"\n") != total:
                return False
            # A line begins after the line end before it, which is in the last strip with fewer ends before it.
            strips = np.maximum(np.searchsorted(before, np.asarray(rows), "left") - 1, 0)
            for row, strip, passed in zip(rows, strips.tolist(), before[strips].tolist(), strict=True):
                file.seek(strip * STRIP)
                for _ in range(row - passed):
                    file.readline()
                out.write(file.readline().rstrip(b"\n") + b"\n")
        return True

    def give_up(self) -> None:
        """Stop reading."""
        self._given_up.set()
        self._thread.join()


class _Hashing:
    """SHA-256 and size of what is read, also through it."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.size = 0
        self.file: IO[bytes] | None = None

    def update(self, data: bytes) -> None:
        self.sha256.update(data)
        self.size += len(data)

    def read(self, size: int = -1) -> bytes:
        assert self.file is not None
        data = self.file.read(size)
        self.update(data)
        return data


def gzipped(path: Path) -> bool:
    """Whether a file begins as a gzip file does."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, gzipped or not, with their ends."""
    with cast(IO[bytes], gzip.open(path)) if gzipped(path) else path.open("rb") as file:
        yield from file
