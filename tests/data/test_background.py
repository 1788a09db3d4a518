"""Picking lines out of a file, and what else is found while it is read."""

from __future__ import annotations

import gzip
import hashlib
import random
from pathlib import Path

import pytest

from bench.data.raw.background import STRIP, BackgroundReader
from bench.errors import DataError


def random_lines(rng: random.Random) -> list[bytes]:
    """Lines of one byte up to several strips."""
    strip = STRIP
    sizes = rng.choice([[1, 2, 3], [10, 300, 2000], [strip - 1, strip, strip + 1], [1, 50, 5 * strip, 20 * strip]])
    return [bytes([97 + n % 26]) * (rng.choice(sizes) - 1) + b"\n" for n in range(rng.randint(1, 60))]


@pytest.mark.parametrize("seed", range(40))
def test_picked_lines_are_those_of_a_plain_reading(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    rows = random_lines(rng)
    data = b"".join(rows)
    path = tmp_path / "file"
    path.write_bytes(data if seed % 2 or data == b"\n" else data[:-1])
    total = path.read_bytes().count(b"\n") + (not path.read_bytes().endswith(b"\n"))
    rows = rows[:total]
    found = BackgroundReader([path])
    for size in {1, total, rng.randint(1, total)}:
        chosen = sorted(rng.sample(range(total), size))
        assert found.pick(path, chosen, total, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b"".join(rows[n] for n in chosen)
    assert found.pick(path, [], total, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b""


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_lines_that_end_with_a_strip(tmp_path: Path, shift: int) -> None:
    half = STRIP // 2
    rows = [bytes([65 + n]) * (half - 1 + shift * (n == 3)) + b"\n" for n in range(20)]
    path = tmp_path / "file"
    path.write_bytes(b"".join(rows))
    found = BackgroundReader([path])
    for n, row in enumerate(rows):
        assert found.pick(path, [n], 20, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == row, n


def test_lines_are_not_picked_where_rows_are_not_lines(tmp_path: Path) -> None:
    (tmp_path / "blank").write_bytes(b"a\n\nb\n")
    (tmp_path / "packed").write_bytes(gzip.compress(b"a\nb\n"))
    found = BackgroundReader([tmp_path / "blank", tmp_path / "packed"])
    assert not found.pick(tmp_path / "blank", [1], 2, tmp_path / "copy")
    assert not found.pick(tmp_path / "packed", [1], 2, tmp_path / "copy")


@pytest.mark.parametrize("pack", [False, True])
def test_sources_are_the_files_as_they_are(tmp_path: Path, pack: bool) -> None:
    data = random.Random(0).randbytes(1_000_000)
    data = gzip.compress(data) if pack else data
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(data)
    found = BackgroundReader([tmp_path / "one", tmp_path / "two"]).sources()
    wanted = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert found == [{"name": "one"} | wanted, {"name": "two"} | wanted]


def test_a_gzip_file_with_a_wrong_checksum(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"text\n" * 100))
    data[-8] ^= 1
    (tmp_path / "bad.gz").write_bytes(data)
    with pytest.raises(DataError, match=r"bad\.gz is a broken gzip file \(CRC check failed .*\); fetch it again"):
        BackgroundReader([tmp_path / "bad.gz"]).check()


def test_a_missing_file_is_found_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none cannot be read \(No such file"):
        BackgroundReader([tmp_path / "none"])
