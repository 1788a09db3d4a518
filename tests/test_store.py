"""The run folder: what a kill, a full disk, a stranger's edit or a second process may do to it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.errors import StoreError
from bench.files import content_hash, dump, read_json, read_rows, sealed_lines
from bench.records import Call, Completion, Prompt
from bench.results import Generation, Prediction, RunRecord, Score, ScoreRow, Summary
from bench.store import RunStore, read_generations, stored_completion

RECORD = RunRecord(name="run", identity={"seed": 0, "categories": ("Books",)}, config={"method": "rag"})


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
        "shortened": False,
    }


def test_run_json_is_there_first_and_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunStore(folder, RECORD.model_copy(update={"created": "first"})):
        assert read_json(folder / "run.json")["identity"] == {"seed": 0, "categories": ["Books"]}
    with RunStore(folder, RECORD.model_copy(update={"created": "second"})):
        pass
    assert RunRecord.read(folder / "run.json").created == "first"


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


@pytest.mark.parametrize(
    "garbage",
    [
        b"not json",
        b'"a text"',
        b"5",
        b"\0\0\0",
        b"",
        b"\xff\xfe",
        b'{"instance": "a"}',
        "flipped",
        "unsealed",
        "foreign",
    ],
)
def test_a_damaged_row_is_dropped_kept_beside_and_told(tmp_path: Path, garbage: bytes | str) -> None:
    folder = tmp_path / "run"
    fill(folder, range(3))
    path = folder / "generations.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    row = read_generations(folder)[call(1).key].json_object()
    if garbage == "flipped":
        garbage = whole[1].replace(b"text 1", b"text 2").rstrip()
        assert garbage != whole[1].rstrip()
    elif isinstance(garbage, str):
        garbage = (
            (json.dumps(row) if garbage == "unsealed" else sealed_lines([row], "another").decode()).strip().encode()
        )
    content = whole[0] + garbage + b"\n" + whole[2]
    path.write_bytes(content)
    said: list[str] = []
    with RunStore(folder, RECORD, said.append) as store:
        assert [store.completion(call(number)) for number in range(3)] == [completion(0), None, completion(2)]
        store.append(call(1), completion(1))
    (line,) = said
    assert line.startswith(f"{path}: 1 of 3 rows are damaged or belong elsewhere; they are made again")
    assert line.endswith("the old file is kept as generations.jsonl.damaged")
    assert (folder / "generations.jsonl.damaged").read_bytes() == content
    assert path.read_bytes() == whole[0] + whole[2] + whole[1]
    with RunStore(folder, RECORD, said.append):
        assert len(said) == 1, "it is whole again"


def test_what_was_kept_beside_is_kept(tmp_path: Path) -> None:
    fill(tmp_path / "run", range(1))
    path = tmp_path / "run" / "generations.jsonl"
    for number, name in enumerate(("generations.jsonl.damaged", "generations.jsonl.damaged-2")):
        path.write_bytes(b"garbage %d\n" % number)
        with RunStore(tmp_path / "run", RECORD, lambda _: None) as store:
            assert store.stored() == 0
        assert (tmp_path / "run" / name).read_bytes() == b"garbage %d\n" % number


def test_a_full_disk_while_mending_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fill(folder, range(3))
    path = folder / "generations.jsonl"
    content = path.read_bytes().replace(b"text 1", b"text 2")
    path.write_bytes(content)
    with largest_file(len(content) // 2), pytest.raises(StoreError, match="cannot be written"):
        RunStore(folder, RECORD).__enter__()
    assert path.read_bytes() == content
    with RunStore(folder, RECORD, lambda _: None) as store:
        assert store.stored() == 2


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize("take", [shutil.rmtree, moved, lambda folder: (folder / "generations.jsonl").unlink()])
def test_a_folder_that_is_gone_stops_the_run(tmp_path: Path, take: Callable[[Path], None]) -> None:
    folder = tmp_path / "run"
    with RunStore(folder, RECORD) as store:
        store.append(call(0), completion(0))
        take(folder)
        with pytest.raises(
            StoreError, match=r"was removed or moved while .*Put it back if it was moved, then run again"
        ):
            store.append(call(1), completion(1))
        if not folder.exists():
            for write in (lambda: store.write_predictions([]), lambda: store.write_scores([])):
                with pytest.raises(StoreError, match="was removed or moved while"):
                    write()
            assert not folder.exists(), "no folder that is not complete"
    if take is moved:
        folder.with_name("elsewhere").rename(folder)
        assert len(read_generations(folder)) == 2


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


def test_a_full_disk_at_the_start_is_one_error(tmp_path: Path) -> None:
    with largest_file(0), pytest.raises(StoreError, match="choose another folder"):
        RunStore(tmp_path / "run", RECORD).__enter__()
    fill(tmp_path / "run", range(1))


SUMMARY = Summary(
    name="run",
    instances={"Books": 1},
    empty_predictions=0,
    cut_off=0,
    calls=1,
    prompt_tokens=7,
    completion_tokens=3,
    blocks_shown=2.0,
    blocks_offered=2.0,
    signatures={"rouge": "rouge|v:1"},
    scores={"Books": {"rouge1": Score(value=0.5, low=0.25, high=0.75)}},
)


def test_the_summary_is_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment of the replacement the new file is complete and the old one untouched."""
    path = tmp_path / "run" / "summary.json"
    seen: list[tuple[Summary, Summary | None]] = []
    replace = os.replace

    def watch(source: Path, target: Path) -> None:
        if Path(target) == path:
            seen.append((Summary.read(Path(source)), Summary.read(path) if path.exists() else None))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    with RunStore(tmp_path / "run", RECORD) as store:
        store.write_summary(SUMMARY)
        store.write_summary(SUMMARY.model_copy(update={"calls": 2}))
    files = {name: content_hash(path.with_name(name)) for name in ("run.json", "generations.jsonl")}
    one, two = (SUMMARY.model_copy(update={"calls": calls, "files": files}) for calls in (1, 2))
    assert seen == [(one, None), (two, one)]
    assert Summary.read(path) == two
    assert os.listdir(path.parent).count("summary.json") == 1


PREDICTIONS = [
    Prediction(
        instance=f"Books/test/u{number}",
        category="Books",
        user=f"u{number}",
        prediction=text,
        reference="it was",
        blocks_shown=1,
        blocks_offered=2,
        calls=1,
        prompt_tokens=7,
        completion_tokens=3,
        cut_off=False,
        counts={"slots": 2},
    )
    for number, text in enumerate(("é\n\u2028", "", "three"))
]
INSTANCES = [row.instance for row in PREDICTIONS]
SCORES = [ScoreRow(instance=name, metric="bleu", signature="s", texts="t", statistics=[1.0, 0.5]) for name in INSTANCES]


def written(folder: Path) -> None:
    """A run as far as its scores."""
    fill(folder, range(3))
    with RunStore(folder, RECORD) as store:
        store.write_predictions(PREDICTIONS)
        store.write_scores(SCORES)


def test_predictions_and_scores_come_back(tmp_path: Path) -> None:
    fill(tmp_path / "run", range(3))
    with RunStore(tmp_path / "run", RECORD) as store:
        assert (store.predictions(INSTANCES), store.scores()) == ([], [])
    written(tmp_path / "run")
    with RunStore(tmp_path / "run", RECORD) as store:
        assert (store.predictions(INSTANCES), store.scores()) == (PREDICTIONS, SCORES)


def swapped(lines: list[bytes]) -> list[bytes]:
    return [lines[1], lines[0], *lines[2:]]


DAMAGE: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "cut": lambda lines: [*lines[:-1], lines[-1][:-40]],
    "emptied": lambda lines: [],
    "doubled": lambda lines: [lines[0], *lines],
    "removed": lambda lines: lines[1:],
    "swapped": swapped,
    "flipped": lambda lines: [lines[0].replace(b'_shown": 1', b'_shown": 3'), *lines[1:]],
    "bit": lambda lines: [lines[0].replace(b"Books/test", b"Books/pest"), *lines[1:]],
    "zeros": lambda lines: [*lines, b"\0" * 10 + b"\n"],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_predictions_are_not_believed_and_kept_beside(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "run"
    written(folder)
    path = folder / "predictions.jsonl"
    whole = path.read_bytes()
    damaged = b"".join(DAMAGE[damage](whole.splitlines(keepends=True)))
    path.write_bytes(damaged)
    said: list[str] = []
    with RunStore(folder, RECORD, said.append) as store:
        assert store.predictions(INSTANCES) == []
        store.write_predictions(PREDICTIONS)
        assert store.predictions(INSTANCES) == PREDICTIONS
    assert len(said) == 1
    assert "predictions.jsonl" in said[0]
    assert said[0].endswith("; made again from the answers")
    assert path.read_bytes() == whole
    assert (folder / "predictions.jsonl.damaged").read_bytes() == damaged


def test_predictions_of_other_instances_or_of_another_run_are_made_again(tmp_path: Path) -> None:
    written(tmp_path / "run")
    said: list[str] = []
    with RunStore(tmp_path / "run", RECORD, said.append) as store:
        assert store.predictions([*INSTANCES[:2], "Books/test/u9"]) == []
        (tmp_path / "run" / "predictions.jsonl").write_bytes(
            sealed_lines((row.json_object() for row in PREDICTIONS), "another")
        )
        assert store.predictions(INSTANCES) == []
    assert [line.partition("damaged: ")[2].partition(";")[0] for line in said] == [
        "its 3 instances are not the 3 of the run in their order",
        "it belongs elsewhere",
    ]


def test_answers_that_are_lost_are_asked_for_again(tmp_path: Path) -> None:
    written(tmp_path / "run")
    path = tmp_path / "run" / "generations.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    said: list[str] = []
    with RunStore(tmp_path / "run", RECORD, said.append) as store:
        assert store.predictions(INSTANCES) == []
    assert said == [f"{path} lacks 1 answers; they are asked for again"]


def test_damaged_scores_are_made_again(tmp_path: Path) -> None:
    written(tmp_path / "run")
    path = tmp_path / "run" / "scores.jsonl"
    path.write_bytes(path.read_bytes().replace(b"[1.0", b"[0.0", 1))
    said: list[str] = []
    with RunStore(tmp_path / "run", RECORD, said.append) as store:
        assert store.scores() == SCORES[1:]
    assert len(said) == 1


@pytest.mark.parametrize("name", ["run.json", "generations.jsonl", "predictions.jsonl", "scores.jsonl", "summary.json"])
def test_a_folder_in_the_place_of_a_file(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    written(folder)
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    with RunStore(folder, RECORD, lambda _: None) as store:
        store.write_predictions(PREDICTIONS)
        store.write_scores(SCORES)
        store.write_summary(SUMMARY)
    assert (folder / f"{name}.damaged").is_dir()
    assert (folder / name).is_file()


def test_a_run_that_is_scored_again_is_not_complete(tmp_path: Path) -> None:
    """Whatever stops it there: the summary would not be of the scores."""
    written(tmp_path / "run")
    with RunStore(tmp_path / "run", RECORD) as store:
        store.write_summary(SUMMARY)
        store.write_scores(SCORES[:1])
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (0, r"written by schema 0 of bench, this version reads 1, 2, 3\. .*[Mm]ove the folder"),
        (1, r"written by schema 1 of bench, this version writes 3\. Move the folder away to run again"),
        (2, r"written by schema 2 of bench, this version writes 3\. Move the folder away to run again"),
        (4, r"written by schema 4 of bench, this version reads 1, 2, 3\. .*[Mm]ove the folder"),
        (None, r"written by schema None of bench, this version reads 1, 2, 3\. .*[Mm]ove the folder"),
    ],
)
def test_a_folder_of_another_schema_is_refused_unchanged(tmp_path: Path, schema: int | None, message: str) -> None:
    folder = tmp_path / "run"
    fill(folder, range(2))
    record = read_json(folder / "run.json")
    record["schema"] = schema
    del record["sha256"]
    (folder / "run.json").write_text(dump(record))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(StoreError, match=message):
        RunStore(folder, RECORD).__enter__()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    shutil.move(folder, tmp_path / "away")
    fill(folder, range(2))
    assert numbers(folder) == [0, 1], "the advice works"


def another(content: str) -> str:
    return RECORD.model_copy(update={"identity": {"seed": 1}}).text()


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda content, text=text: text for text in ("", "{", "[]", "\udc80", "5", "\0\0", '{"schema": 3}')),
        another,
        lambda content: content.replace('"seed": 0', '"seed": 1'),
        lambda content: content.replace('"schema": 3', '"schema": 2'),
        lambda content: content.replace('"schema": 3', '"schema": 7'),
        lambda content: content.replace('"sha256"', '"sha257"'),
    ],
)
def test_a_damaged_record_is_written_again(tmp_path: Path, damage: Callable[[str], str]) -> None:
    folder = tmp_path / "run"
    fill(folder, range(2))
    path = folder / "run.json"
    whole = path.read_text()
    path.write_bytes(damage(whole).encode("utf-8", "surrogateescape"))
    assert path.read_text(errors="replace") != whole
    said: list[str] = []
    with RunStore(folder, RECORD, said.append) as store:
        assert store.stored() == 2
    assert len(said) == 1
    assert said[0].startswith(f"{path} is damaged: ")
    assert said[0].endswith("; written again")
    assert path.read_text() == whole


def test_texts_of_other_weights_are_not_mixed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    one, two = (RECORD.model_copy(update={"weights": weights}) for weights in ("one", "two"))
    for record in (one, one, RECORD):
        with RunStore(folder, record):
            pass
    with pytest.raises(
        StoreError, match=r"were made with other weights than the adapter has now\. Move the folder away"
    ):
        RunStore(folder, two).__enter__()
    shutil.move(folder, tmp_path / "away")
    with RunStore(folder, two):
        pass


def test_results_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match=r"cannot be written: .*--set results=FOLDER"):
        RunStore(tmp_path / "results" / "runs" / "run", RECORD).__enter__()


WRITER = """
import sys
from pathlib import Path
from bench.records import Call, Completion, Prompt
from bench.results import RunRecord
from bench.store import RunStore
record = RunRecord(name="run", identity={"seed": 0, "categories": ["Books"]}, config={"method": "rag"})
with RunStore(Path(sys.argv[1]), record) as store:
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


def test_the_completions_of_some_instances_alone(tmp_path: Path) -> None:
    fill(tmp_path / "run", range(3))
    found = read_generations(tmp_path / "run", {"Books/test/u1", "Books/test/u9"})
    assert list(found) == [call(1).key]
    assert found[call(1).key] == Generation(
        instance="Books/test/u1",
        stage="review",
        index=0,
        prompt=call(1).prompt.hash,
        text=completion(1).text,
        prompt_tokens=11,
        completion_tokens=5,
        finish_reason="stop",
        seconds=0.25,
    )
    assert read_generations(tmp_path / "elsewhere") == {}


def test_a_stored_answer_belongs_to_its_prompt(tmp_path: Path) -> None:
    fill(tmp_path / "run", range(2))
    rows = read_generations(tmp_path / "run")
    assert stored_completion(rows, call(1)) == completion(1)
    assert stored_completion(rows, call(1, user="reworded")) is None
    assert stored_completion(rows, call(5)) is None


def test_a_row_that_changes_while_the_run_goes_on_is_no_answer(tmp_path: Path) -> None:
    """Rows stay in the file and are looked at again: what is there now counts."""
    folder = tmp_path / "run"
    fill(folder, range(3))
    path = folder / "generations.jsonl"
    with RunStore(folder, RECORD) as store:
        store.append(call(3), completion(3))
        path.write_bytes(path.read_bytes().replace(b"text 1", b"text 9"))
        assert [store.completion(call(number)) for number in range(4)] == [
            completion(0),
            None,
            completion(2),
            completion(3),
        ]
        path.unlink()
        assert store.completion(call(0)) is None


def test_a_row_in_the_place_of_another_is_no_answer(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fill(folder, range(3))
    path = folder / "generations.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    with RunStore(folder, RECORD) as store:
        path.write_bytes(lines[1] + lines[0] + lines[2])
        assert [store.completion(call(number)) for number in range(3)] == [None, None, completion(2)]


def test_of_a_key_the_last_row_counts(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fill(folder, range(2))
    with RunStore(folder, RECORD) as store:
        store.append(call(0, user="reworded"), completion(5))
        assert store.completion(call(0, user="reworded")) == completion(5)
        assert store.stored() == 2
    with RunStore(folder, RECORD) as store:
        assert (store.completion(call(0)), store.completion(call(0, user="reworded"))) == (None, completion(5))
        assert store.stored() == 2


def test_answers_are_kept_and_looked_up_by_several_threads(tmp_path: Path) -> None:
    def keep(numbers: range) -> None:
        for number in numbers:
            store.append(call(number), completion(number))
            assert store.completion(call(number)) == completion(number)

    with RunStore(tmp_path / "run", RECORD) as store, ThreadPoolExecutor(4) as threads:
        list(threads.map(keep, (range(start, start + 50) for start in range(0, 200, 50))))
        assert all(store.completion(call(number)) == completion(number) for number in range(200))
    with RunStore(tmp_path / "run", RECORD) as store:
        assert all(store.completion(call(number)) == completion(number) for number in range(200))


def test_reading_many_rows_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.progress.PLAIN_EVERY", 0.0)
    folder = tmp_path / "run"
    fill(folder, range(1))
    path = folder / "generations.jsonl"
    path.write_bytes(path.read_bytes() * 25_000)
    with RunStore(folder, RECORD) as store:
        assert store.stored() == 1
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        f"reading {path}: {share}" for share in ("40%", "80%")
    ]
