"""Files that survive a kill or a full disk: whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from bench.errors import BusyError, ConfigError, DamagedError, StoreError
from bench.files import (
    RowWriter,
    as_lines,
    content_hash,
    drop_leftovers,
    dump,
    exclusive,
    is_held,
    path_of,
    put_aside,
    read_json,
    read_rows,
    replace_content,
    sealed,
    sealed_lines,
    together,
    write_atomically,
    write_held,
)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that is full once a file has `size` bytes: what fits is written, then the write fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "text", ["", "~nosuchuser", "~nosuchuser/x", "a\0b", "\ud800", "x" * 256, "é" * 128, "x/" * 2048]
)
def test_paths_that_no_file_has(text: str) -> None:
    with pytest.raises(ConfigError):
        path_of(text)


def test_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of/tests")
    given = ["~", "~/x", ".", "/", "x" * 255, "a\nb", "a~b"]
    assert [str(path_of(text)) for text in given] == ["/home/of/tests", "/home/of/tests/x", *given[2:]]


def test_json_that_is_nested_too_deep(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000 + "\n")
    with pytest.raises(StoreError, match=r"deep\.json is damaged: it cannot be read"):
        read_json(path)
    with pytest.raises(StoreError, match=r"line 1 is damaged"):
        list(read_rows(path))


def test_nobody_waits_for_a_pipe_in_a_files_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DamagedError, match="it is not a file"):
        read_json(tmp_path / "pipe")
    with pytest.raises(DamagedError, match="it is not a file"):
        list(read_rows(tmp_path / "pipe"))
    assert content_hash(tmp_path / "pipe") == ""


def test_nothing_takes_the_place_of_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="it is a pipe or a device"):
        replace_content(tmp_path / "pipe", "page")
    assert (tmp_path / "pipe").is_fifo()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    gone, alive, other = (tmp_path / f".p.jsonl.{end}" for end in (2**30, os.getpid(), "x"))
    for path in (gone, alive, other):
        path.touch()
    drop_leftovers(tmp_path / "p.jsonl")
    assert sorted(tmp_path.iterdir()) == sorted([alive, other])


def test_a_full_disk_leaves_the_old_file_in_place(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_atomically(path, "old")
    with largest_file(10), pytest.raises(StoreError, match=r"summary\.json cannot be written"):
        write_atomically(path, "new" * 100)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["summary.json"], "no temporary file is left"
    write_atomically(path, "new" * 100)
    assert path.read_text() == "new" * 100


def test_contents_replace_each_other_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    for content in ("é\n\u2028", b"\xff\x00", ""):
        replace_content(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
        assert os.listdir(path.parent) == ["file.txt"]


def test_replacing_says_what_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        replace_content(tmp_path / "file" / "table.md", "text")
    with pytest.raises(StoreError, match=r"table\.md cannot be written: .*--set results=FOLDER.* run again"):
        write_atomically(tmp_path / "file" / "table.md", "text")


def test_json_for_people() -> None:
    assert dump({"b": "é", "a": [1]}) == '{\n  "b": "é",\n  "a": [\n    1\n  ]\n}\n'


@pytest.mark.parametrize("value", [{}, {"a": None, "é": ["\u2028", 1.5]}])
def test_a_json_object_comes_back(value: dict[str, Any], tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.json", dump(value))
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("content", ["", "{", "[]", "5", "\udc80"])
def test_what_is_no_json_object(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(
        StoreError,
        match=r"a\.json is damaged: it (cannot be read|is not a JSON object).*Run its command again, which mends it$",
    ):
        read_json(path)


def test_a_json_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"a\.json is damaged: it is missing\."):
        read_json(tmp_path / "a.json")


ROWS: list[dict[str, Any]] = [{"text": "é\n\u2028\x85😀"}, {}, {"n": [1, None]}]


def test_rows_come_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert list(read_rows(path)) == []
    write_atomically(path, as_lines(ROWS))
    assert list(read_rows(path)) == ROWS
    assert path.read_bytes().count(b"\n") == len(ROWS)
    path.write_bytes(path.read_bytes() + b'{"torn": ')
    assert list(read_rows(path)) == ROWS


@pytest.mark.parametrize("garbage", [b"not json", b'"a text"', b"5", b"\0\0\0", b"", b"\xff\xfe"])
def test_a_line_that_is_no_row_is_named(garbage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + garbage + b'\n{"a": 2}\n')
    rows = read_rows(path)
    assert next(rows) == {"a": 1}
    with pytest.raises(StoreError, match=r"rows\.jsonl, line 2 is damaged: it is not a row\. Run its command again"):
        next(rows)


def test_rows_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.raises(StoreError, match=r"rows\.jsonl is damaged: it is not a file"):
        list(read_rows(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize("kept", [0, 1, 7])
def test_a_writer_goes_on_after_a_torn_line(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(sealed_lines(ROWS[:1]) + b'{"torn": '[:kept])
    writer = RowWriter(path)
    writer.append(ROWS[1])
    # What is appended is there, before anything is closed.
    assert list(read_rows(path)) == ROWS[:2]
    writer.append(ROWS[2])
    writer.close()
    assert path.read_bytes() == sealed_lines(ROWS)


@pytest.mark.parametrize("size", [0, 1, (1 << 16) - 2, 1 << 16, (1 << 16) + 1, 3 << 16])
def test_a_long_torn_line_is_cut_off(size: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for before in (b"", sealed_lines(ROWS)):
        path.write_bytes(before + b"x" * size)
        RowWriter(path).close()
        assert path.read_bytes() == before


# -- checksums ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [*ROWS, {"text": '"sum": "a.0"}', "sum of it": 1.5}], ids=str)
def test_a_row_with_any_byte_changed_is_refused(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    line = sealed(row, "run")
    path.write_bytes(line)
    assert list(read_rows(path)) == list(read_rows(path, "run")) == [row]
    with pytest.raises(DamagedError, match=r"line 1 is damaged: it belongs elsewhere\."):
        list(read_rows(path, "walk"))
    for place in range(len(line) - 1):
        for bit in (0, 3, 5):
            changed = bytearray(line)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(DamagedError, match=r"rows\.jsonl, line 1 is damaged"):
                list(read_rows(path, "run"))


def test_rows_with_and_without_checksums_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    old, new = as_lines(ROWS).encode(), sealed_lines(ROWS, "run")
    path.write_bytes(old)
    assert list(read_rows(path)) == ROWS
    with pytest.raises(DamagedError, match="line 1 is damaged: it has no checksum"):
        list(read_rows(path, "run"))
    for content in (old + new, new + old):
        path.write_bytes(content)
        with pytest.raises(DamagedError, match="line 4 is damaged: other rows have a checksum, or it alone has one"):
            list(read_rows(path))


def test_what_is_put_aside_takes_no_others_place(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for name, copy in (("a.json.damaged", False), ("a.json.damaged-2", True), ("a.json.damaged-3", False)):
        path.write_text(name)
        assert put_aside(path, copy) == tmp_path / name
        assert (tmp_path / name).read_text() == name
        assert path.exists() == copy


def test_nothing_is_written_into_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"run was removed or moved while this command wrote to it\. Put it back"):
        write_held(tmp_path / "run" / "a.json", "text")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_leaves_no_part_of_a_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    writer = RowWriter(path)
    writer.append(ROWS[0])
    whole = path.read_bytes()
    with largest_file(len(whole) + 3), pytest.raises(StoreError, match=r"rows\.jsonl cannot be written: .*kept"):
        writer.append(ROWS[2])
    assert path.read_bytes() == whole
    writer.append(ROWS[2])
    writer.close()
    assert list(read_rows(path)) == [ROWS[0], ROWS[2]]


def test_a_writer_without_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"rows\.jsonl cannot be written"):
        RowWriter(tmp_path / "missing" / "rows.jsonl")


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with (
        exclusive(folder),
        pytest.raises(StoreError, match=r"another process is writing to .*; wait for it or stop it"),
    ):
        exclusive(folder).__enter__()
    with exclusive(folder):
        pass
    with pytest.raises(ValueError, match="broke"), exclusive(folder):
        raise ValueError("broke")
    with exclusive(folder):
        pass


def test_a_folder_is_held_by_several_together_or_by_one_alone(tmp_path: Path) -> None:
    with together(tmp_path), together(tmp_path):
        assert not is_held(tmp_path)
        with pytest.raises(BusyError, match="another process is writing to"):
            exclusive(tmp_path).__enter__()
    with exclusive(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(BusyError, match="another process is writing to"):
            together(tmp_path).__enter__()
    assert not is_held(tmp_path)
    assert not is_held(tmp_path / "missing")


def test_who_looks_whether_a_folder_is_held_is_no_writer(tmp_path: Path) -> None:
    with together(tmp_path):
        pass
    with (tmp_path / ".lock").open() as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        looked = Timer(0.03, fcntl.flock, (look, fcntl.LOCK_UN))
        looked.start()
        with exclusive(tmp_path):
            pass
        looked.join()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("bench.files.fcntl.flock", refuse)
    with pytest.raises(
        StoreError, match=r"cannot be locked: Function not implemented\. Choose a folder on a file system"
    ):
        exclusive(tmp_path).__enter__()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/run cannot be written: .*make room or choose another folder"):
        exclusive(tmp_path / "file" / "run").__enter__()
