"""The run folder: what a kill, a full disk, a stranger's edit or a second process may do to it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.errors import StoreError
from bench.records import Call, Completion, Prompt
from bench.store import (
    RunStore,
    identity_hash,
    read_generations,
    read_json,
    read_rows,
    stored_completion,
    write_atomically,
)

RECORD = {"identity": {"seed": 0, "categories": ("Books",)}}


def call(number: int, user: str = "write") -> Call:
    return Call((f"Books/test/u{number}", "review", 0), Prompt("review", "system", user), number, 0.8, 0.95, 16)


def completion(number: int) -> Completion:
    return Completion(f"text {number} – é😀\n\u2028\x85", 10 + number, 5, "stop", 0.25)


def fill(folder: Path, numbers: range) -> None:
    with RunStore(folder, RECORD) as store:
        for number in numbers:
            store.append(call(number), completion(number))


def numbers(folder: Path) -> list[int]:
    return [int(row["instance"].rpartition("u")[2]) for row in read_rows(folder / "generations.jsonl")]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that is full once a file has `size` bytes: what fits is written, then the write fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_completions_come_back_as_they_were(tmp_path: Path) -> None:
    fill(tmp_path / "run", range(3))
    with RunStore(tmp_path / "run", RECORD) as store:
        assert store.stored() == 3
        assert [store.completion(call(number)) for number in range(3)] == [completion(number) for number in range(3)]
        assert store.completion(call(3)) is None
        assert store.completion(call(1, user="another prompt")) is None


def test_each_append_is_in_the_file_when_it_returns(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run", RECORD) as store:
        store.append(call(0), completion(0))
        (row,) = read_rows(tmp_path / "run" / "generations.jsonl")
    assert row == {
        "instance": "Books/test/u0",
        "stage": "review",
        "index": 0,
        "prompt": call(0).prompt.hash,
        "text": completion(0).text,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "finish_reason": "stop",
        "seconds": 0.25,
    }


def test_run_json_is_there_first_and_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunStore(folder, {**RECORD, "created": "first"}):
        assert read_json(folder / "run.json")["identity"] == {"seed": 0, "categories": ["Books"]}
    with RunStore(folder, {**RECORD, "created": "second"}):
        pass
    assert read_json(folder / "run.json")["created"] == "first"


@pytest.mark.parametrize("kept", [0, 1, 40, -1])
def test_a_torn_last_line_is_dropped_and_cut_off(tmp_path: Path, kept: int) -> None:
    folder = tmp_path / "run"
    fill(folder, range(3))
    path = folder / "generations.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    torn = whole[2][:kept]
    path.write_bytes(whole[0] + whole[1] + torn)
    assert sorted(read_generations(folder)) == [call(0).key, call(1).key]
    assert path.read_bytes() == whole[0] + whole[1] + torn, "reading changes nothing"
    with RunStore(folder, RECORD) as store:
        assert path.read_bytes() == whole[0] + whole[1]
        assert store.completion(call(2)) is None
        store.append(call(2), completion(2))
    assert path.read_bytes() == b"".join(whole)


def test_a_full_disk_after_a_torn_line_leaves_no_gap(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fill(folder, range(2))
    path = folder / "generations.jsonl"
    before = path.read_bytes()
    path.write_bytes(before + b'{"instance": "torn')
    with RunStore(folder, RECORD) as store, largest_file(len(before) + 5), pytest.raises(StoreError):
        store.append(call(2), completion(2))
    assert path.read_bytes() == before


@pytest.mark.parametrize("garbage", [b"not json", b'"a text"', b"5", b"\0\0\0", b"", b"\xff\xfe", b'{"instance": "a"}'])
def test_garbage_in_the_middle_is_named_and_kept(tmp_path: Path, garbage: bytes) -> None:
    folder = tmp_path / "run"
    fill(folder, range(3))
    path = folder / "generations.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    content = whole[0] + garbage + b"\n" + whole[1] + whole[2]
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"generations\.jsonl, line 2 .*[Dd]elete that line"):
        RunStore(folder, RECORD).__enter__()
    assert path.read_bytes() == content
    path.write_bytes(b"".join(whole))
    with RunStore(folder, RECORD) as store:
        assert store.stored() == 3, "the failed attempt gave its lock back"


@pytest.mark.parametrize("room", [0, 1, 50])
def test_a_full_disk_stops_an_append_and_loses_nothing(tmp_path: Path, room: int) -> None:
    folder = tmp_path / "run"
    fill(folder, range(3))
    path = folder / "generations.jsonl"
    with RunStore(folder, RECORD) as store:
        store.append(call(3), completion(3))
        before = path.read_bytes()
        with largest_file(len(before) + room):
            for number in (4, 5):
                with pytest.raises(StoreError, match=r"generations\.jsonl cannot be written: .*kept.*run again"):
                    store.append(call(number), completion(number))
        assert path.read_bytes() == before
        assert store.completion(call(4)) is None
        store.append(call(4), completion(4))
    fill(folder, range(5, 7))
    assert numbers(folder) == [0, 1, 2, 3, 4, 5, 6]


def test_a_full_disk_leaves_the_old_file_in_place(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_atomically(path, "old")
    with largest_file(10), pytest.raises(StoreError, match=r"summary\.json cannot be written"):
        write_atomically(path, "new" * 100)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["summary.json"], "no temporary file is left"
    write_atomically(path, "new" * 100)
    assert path.read_text() == "new" * 100


def test_a_full_disk_at_the_start_is_one_error(tmp_path: Path) -> None:
    with largest_file(0), pytest.raises(StoreError, match="choose another folder"):
        RunStore(tmp_path / "run", RECORD).__enter__()
    fill(tmp_path / "run", range(1))


def test_the_summary_is_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment of the replacement the new file is complete and the old one untouched."""
    seen: list[tuple[str, str]] = []
    replace = os.replace

    def watch(source: Path, target: Path) -> None:
        seen.append((Path(source).read_text(), Path(target).read_text() if Path(target).exists() else ""))
        replace(source, target)

    monkeypatch.setattr("bench.store.os.replace", watch)
    with RunStore(tmp_path / "run", RECORD) as store:
        store.write_summary({"calls": 1})
        store.write_summary({"calls": 2})
    written = (tmp_path / "run" / "summary.json").read_text()
    assert json.loads(written) == {"schema": 1, "calls": 2}
    first, second = seen[1:]
    assert json.loads(first[0])["calls"] == 1
    assert first[1] == ""
    assert second == (written, first[0])


def test_rows_of_a_file_come_back(tmp_path: Path) -> None:
    rows = [{"instance": "a", "text": "é\n\u2028"}, {"instance": "b", "text": ""}]
    with RunStore(tmp_path / "run", RECORD) as store:
        assert store.rows("predictions.jsonl") == []
        store.write_rows("predictions.jsonl", rows)
        assert store.rows("predictions.jsonl") == rows


@pytest.mark.parametrize("schema", [0, 2, None])
def test_a_folder_of_another_schema_is_refused_unchanged(tmp_path: Path, schema: int | None) -> None:
    folder = tmp_path / "run"
    fill(folder, range(2))
    record: dict[str, Any] = json.loads((folder / "run.json").read_text())
    record["schema"] = schema
    (folder / "run.json").write_text(json.dumps(record))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(
        StoreError, match=f"written by schema {schema} of bench, this version writes 1.*Move the folder"
    ):
        RunStore(folder, RECORD).__enter__()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_record_of_another_run_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "run", range(1))
    with pytest.raises(StoreError, match=r"run\.json records another run .*Move the folder away"):
        RunStore(tmp_path / "run", {"identity": {"seed": 1}}).__enter__()


@pytest.mark.parametrize("content", ["", "{", "[]", "\udc80"])
def test_an_unreadable_record_is_one_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreError, match=r"run\.json .*Move its folder away to start over"):
        RunStore(tmp_path / "run", RECORD).__enter__()


def test_results_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match=r"cannot be written: .*--set results=FOLDER"):
        RunStore(tmp_path / "results" / "runs" / "run", RECORD).__enter__()
    with pytest.raises(StoreError, match="cannot be written"):
        write_atomically(tmp_path / "results" / "tables" / "table1.md", "text")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "run" / "generations.jsonl").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"generations\.jsonl cannot be read"):
        RunStore(tmp_path / "run", RECORD).__enter__()


WRITER = """
import sys
from pathlib import Path
from bench.records import Call, Completion, Prompt
from bench.store import RunStore
with RunStore(Path(sys.argv[1]), {"identity": {"seed": 0, "categories": ["Books"]}}) as store:
    print("open", flush=True)
    sys.stdin.readline()
    call = Call(("Books/test/u9", "review", 0), Prompt("review", "system", "write"), 0, 0.8, 0.95, 16)
    store.append(call, Completion("kept", 1, 1, "stop", 0.1))
"""


def test_a_second_process_gets_an_error_and_the_first_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    with pytest.raises(StoreError, match=r"another process is writing to .*; wait for it or stop it"):
        RunStore(folder, RECORD).__enter__()
    writer.communicate("go on\n")
    assert writer.returncode == 0
    with RunStore(folder, RECORD) as store:
        kept = store.completion(call(9))
    assert kept is not None
    assert kept.text == "kept"


def test_a_forked_worker_does_not_keep_the_folder_locked(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with RunStore(tmp_path / "run", RECORD):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    try:
        with RunStore(tmp_path / "run", RECORD):
            pass
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_a_killed_writer_leaves_no_lock(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    writer.kill()
    writer.communicate()
    fill(tmp_path / "run", range(1))


def test_a_stored_answer_belongs_to_its_prompt(tmp_path: Path) -> None:
    fill(tmp_path / "run", range(2))
    rows = read_generations(tmp_path / "run")
    assert stored_completion(rows, call(1)) == completion(1)
    assert stored_completion(rows, call(1, user="reworded")) is None
    assert stored_completion(rows, call(5)) is None


def test_identity_hashes_depend_on_content_alone() -> None:
    assert identity_hash({"a": 1, "b": {"c": 2, "d": "é"}}) == identity_hash({"b": {"d": "é", "c": 2}, "a": 1})
    assert identity_hash({"a": 1}) != identity_hash({"a": 2})
    assert len(identity_hash({})) == 10
