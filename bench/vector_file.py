"""Vectors on disk: one append-only file an encoder, which any number of processes may read and write."""

from __future__ import annotations

import fcntl
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from bench.errors import StoreError

Vectors = NDArray[np.float32]
"""Vectors of texts, shape (n, d), or of one, shape (d,)."""


class VectorFile:
    """One header line (JSON), then records of equal size: key (32 bytes), vector (little-endian float32), CRC-32.

    Only whole records are ever read, and a writer holds the file's lock and first cuts off what a killed one left.
    """

    def __init__(self, path: Path, encoder: str) -> None:
        self._path = path
        self._encoder = encoder
        self._rows: dict[bytes, int] = {}
        self._seen = 0
        self._start = 0
        self.dimension: int | None = None
        """Length of the vectors; None as long as there are none."""

    @property
    def size(self) -> int:
        """Its bytes; 0 if it is not there."""
        return self._path.stat().st_size if self._path.exists() else 0

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Vectors]:
        """The vectors that are there, by key; a damaged one, or one with a number that is not finite, is not."""
        if not self._path.exists():
            return {}
        found: dict[bytes, Vectors] = {}
        with self._guard("read"), self._path.open("rb") as file:
            self._index(file)
            if self.dimension is None:
                return {}
            for key in keys:
                if key in self._rows:
                    file.seek(self._start + self._rows[key] * self._size)
                    record = file.read(self._size)
                    if record[:32] == key and _checksum(record[:-4]) == record[-4:]:
                        vector = np.frombuffer(record, "<f4", self.dimension, offset=32)
                        if np.isfinite(vector).all():
                            found[key] = vector
        return found

    def append(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Add the rows of `vectors`, shape (n, d), under `keys`. Raises `StoreError` for a number that is not
        finite."""
        if not np.isfinite(vectors).all():
            raise StoreError(f"embedding file {self._path} takes no vector with a number that is not finite")
        with self._guard("written"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                self._index(file)
                header = b""
                if self.dimension is None:
                    header = json.dumps({"encoder": self._encoder, "dimension": vectors.shape[1]}).encode() + b"\n"
                    file.truncate(0)
                elif self.dimension != vectors.shape[1]:
                    raise self._unusable(f"holds vectors of {self.dimension} numbers, not {vectors.shape[1]}")
                else:
                    file.truncate(self._start + self._seen * self._size)
                rows = zip(keys, np.ascontiguousarray(vectors, "<f4"), strict=True)
                bodies = [key + row.tobytes() for key, row in rows]
                file.write(header + b"".join(body + _checksum(body) for body in bodies))

    @property
    def _size(self) -> int:
        return 32 + 4 * (self.dimension or 0) + 4

    def _index(self, file: IO[bytes]) -> None:
        """Take note of the records that have come since the last look."""
        length = file.seek(0, 2)
        if length < self._start + self._seen * self._size:
            # Someone deleted or emptied the file under us.
            self._rows, self._seen, self._start, self.dimension = {}, 0, 0, None
        if self.dimension is None and not self._read_header(file):
            return
        count = (length - self._start) // self._size
        if count > self._seen:
            layout = np.dtype([("key", "u1", 32), ("rest", "u1", self._size - 32)])
            records = np.memmap(file, layout, "r", self._start, (count,))
            keys = records["key"][self._seen :].tobytes()
            for row in range(count - self._seen):
                self._rows[keys[32 * row : 32 * row + 32]] = self._seen + row
            self._seen = count

    def _read_header(self, file: IO[bytes]) -> bool:
        file.seek(0)
        line = file.readline()
        if not line.endswith(b"\n"):
            return False
        try:
            header = json.loads(line)
            encoder, self.dimension = header["encoder"], int(header["dimension"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._unusable("does not begin with a header") from error
        if encoder != self._encoder:
            self.dimension = None
            raise self._unusable(f"belongs to the encoder {encoder}")
        self._start = len(line)
        return True

    def _unusable(self, why: str) -> StoreError:
        return StoreError(f"embedding file {self._path} {why}; delete it and its vectors are made again")

    @contextmanager
    def _guard(self, verb: str) -> Iterator[None]:
        try:
            yield
        except IsADirectoryError:
            raise self._unusable("is a folder") from None
        except OSError as error:
            raise StoreError(
                f"embedding file {self._path} cannot be {verb}: {error.strerror}; "
                "check the space and the permissions there"
            ) from error


def _checksum(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4, "little")
