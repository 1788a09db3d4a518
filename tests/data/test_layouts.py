"""The layouts of LaMP, LongLaMP and PGraphRAG: what they read, and what they say of files of another form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from bench.data.layouts import _rows
from bench.data.load import load
from bench.data.peers import Peers
from bench.errors import DataError


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False))
    return path


# ---- LaMP


def lamp(folder: Path, category: str = "LaMP_3", number: int = 3, **entry: str) -> Path:
    """Two questions of a task in each of the two splits; `entry` is what a profile's record has."""
    entry = entry or {"text": "Fine.", "score": "4"}
    for split in ("train", "dev"):
        profile = [{"id": "p1", **entry}, {"id": "p2", **entry}]
        questions = [{"id": f"{split}{k}", "input": f"Say. review: It {k}", "profile": profile} for k in range(2)]
        golds = [{"id": f"{split}{k}", "output": "4"} for k in (1, 0)]
        write(folder / category / f"{split}_questions.json", questions)
        write(folder / category / f"{split}_outputs.json", {"task": f"LaMP_{number}", "golds": golds})
    return folder / category


def test_lamp_as_it_is_given_out(tmp_path: Path) -> None:
    lamp(tmp_path)
    # Of another task, of none, and its test questions, whose answers are withheld.
    lamp(tmp_path, "LaMP_7", 7, text="Hi")
    (tmp_path / "notes").mkdir()
    write(tmp_path / "LaMP_3" / "test_questions.json", [{"id": "t", "input": "x", "profile": []}])
    corpora = load(str(tmp_path), None, task="lamp-3")
    (corpus,) = corpora.values()
    ids = {split: [one.id for one in instances] for split, instances in corpus.instances.items()}
    assert ids == {
        "train": ["LaMP_3/train/train0"],
        "val": ["LaMP_3/val/train1"],
        "test": ["LaMP_3/test/dev0", "LaMP_3/test/dev1"],
    }
    assert set(corpus.references) == {name for names in ids.values() for name in names}
    (first, _) = corpus.split("test")
    assert (first.given, first.user_id) == ({"input": "Say. review: It 0"}, "dev0")
    assert [(record.text, record.fields, record.timestamp) for record in first.profile] == [
        ("Fine.", {"score": "4"}, None)
    ] * 2
    assert corpus.target_text(first) == "It 0"
    # The category by itself, and its files a level deeper.
    again = load(str(tmp_path / "LaMP_3"), None, task="lamp-3")
    assert {name: one.fingerprint for name, one in again.items()} == {"LaMP_3": corpus.fingerprint}
    for path in list((tmp_path / "LaMP_3").glob("dev_*")):
        (path.parent / "dev").mkdir(exist_ok=True)
        path.rename(path.parent / "dev" / path.name)
    assert load(str(tmp_path), None, task="lamp-3")["LaMP_3"].fingerprint == corpus.fingerprint


def test_lamp_with_dates_is_in_the_order_of_time(tmp_path: Path) -> None:
    home = lamp(tmp_path, "LaMP_4_time", 4, text="T", title="H")
    rows = json.loads((home / "dev_questions.json").read_text())
    for row in rows:
        row["profile"] = [
            {**row["profile"][0], "title": date, "date": date} for date in ("2020-10-02", "2019-3-9", "2020-9-30")
        ]
    write(home / "dev_questions.json", rows)
    corpus = load(str(tmp_path), None, task="lamp-4")["LaMP_4_time"]
    profile = corpus.split("test")[0].profile
    assert [record.fields["title"] for record in profile] == ["2019-3-9", "2020-9-30", "2020-10-02"]
    assert profile[0].timestamp == 1_552_089_600_000
    rows[1]["profile"][0]["date"] = "last May"
    write(home / "dev_questions.json", rows)
    with pytest.raises(DataError, match=r"dev_questions\.json, row 2: date is 'last May'; LaMP's are year-month-day"):
        load(str(tmp_path), None, task="lamp-4")


def changed(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    write(path, content)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "dev_questions",
            lambda c: c.pop(),
            r"id dev1 has an output, once more than questions; the ids of .*dev_quest",
        ),
        ("dev_outputs", lambda c: c["golds"].pop(), r"dev_questions\.json, row 1: id dev0 has no output; the ids of"),
        ("dev_questions", lambda c: c.append(c[0]), r"row 3: id dev0 has no output"),
        ("dev_outputs", lambda c: c["golds"].append(c["golds"][0]), r"dev_outputs\.json, gold 3: id dev1 has a second"),
        (
            "dev_outputs",
            lambda c: c["golds"][1].update(output="good"),
            r"gold 2: the output is 'good'; those of LaMP-3",
        ),
        (
            "dev_outputs",
            lambda c: c["golds"][1].update(output=4),
            r"gold 2: it is \{'id': 'dev0', 'output': 4\}; a gold",
        ),
        ("dev_outputs", lambda c: c.pop("golds"), r'dev_outputs\.json has no list "golds"'),
        (
            "dev_questions",
            lambda c: c[1].pop("input"),
            r"dev_questions\.json, row 2: input is missing; LaMP-3 has rows",
        ),
        (
            "dev_questions",
            lambda c: c[1].pop("profile"),
            r"row 2: profile is missing, not a list; LaMP-3 has rows of id",
        ),
        (
            "dev_questions",
            lambda c: c[1]["profile"][1].pop("score"),
            r"row 2, record 2 of profile: score is missing; LaMP",
        ),
        (
            "dev_questions",
            lambda c: c[0]["profile"][0].update(text=None),
            r"record 1 of profile: text is missing, not a",
        ),
        ("dev_questions", lambda c: c[0]["profile"].append("x"), r"row 1, record 3 of profile: it is not an object"),
        ("dev_questions", lambda c: c.append(7), r"row 3: it is not an object"),
    ],
)
def test_what_is_wrong_with_lamp_is_named(
    name: str, change: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    home = lamp(tmp_path)
    changed(home / f"{name}.json", change)
    with pytest.raises(DataError, match=message):
        load(str(tmp_path), None, task="lamp-3")


def test_half_a_pair_and_broken_files_of_lamp(tmp_path: Path) -> None:
    home = lamp(tmp_path)
    (home / "dev_questions.json").rename(home / "kept")
    with pytest.raises(DataError, match=r"LaMP_3 has no dev_questions\.json, the other half of a pair of files"):
        load(str(tmp_path), None, task="lamp-3")
    (home / "dev_questions.json").write_bytes((home / "kept").read_bytes()[:-20])
    with pytest.raises(DataError, match=r"dev_questions\.json is not valid JSON"):
        load(str(tmp_path), None, task="lamp-3")


def test_the_older_lamp_2_is_told_apart(tmp_path: Path) -> None:
    home = lamp(tmp_path, "LaMP_2", 2, description="d", tag="women")
    for split in ("train", "dev"):
        changed(home / f"{split}_outputs.json", lambda c: [gold.update(output="politics") for gold in c["golds"]])
    with pytest.raises(
        DataError, match=r"the output is 'politics'; those of LaMP-2 are the tags sci-fi, .*older LaMP-2"
    ):
        load(str(tmp_path), None, task="lamp-2")


def test_data_of_another_task_are_said_to_be(tmp_path: Path) -> None:
    lamp(tmp_path)
    with pytest.raises(DataError, match="is of task lamp-3, not lamp-4; choose the task with --task lamp-3"):
        load(str(tmp_path), None, task="lamp-4")
    with pytest.raises(DataError, match="is of task lamp-3, not reviews"):
        load(str(tmp_path), None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no data set: neither ") as caught:
        load(str(tmp_path / "empty"), None, task="lamp-4")
    assert str(caught.value).count("as LaMP gives them out") == 1


# ---- LongLaMP

ROWS: list[dict[str, Any]] = [
    {
        "author": "a",
        "input": "Write.",
        "output": "Text.",
        "profile": [{"author": "a", "summary": "s", "content": "Ähm", "id": "1"}],
    },
    {"author": "b", "input": "Write it.", "output": "More.", "profile": []},
    {
        "author": "a",
        "input": "Again.",
        "output": "Third.",
        "profile": [{"author": "a", "summary": "s", "content": "Ähm", "id": "2"}],
    },
]


def longlamp(folder: Path, form: str, rows: list[dict[str, Any]] | None = None) -> Path:
    """Three rows in each split, train's in two files."""
    home = folder / "topic_writing_user"
    home.mkdir(parents=True)
    rows = ROWS if rows is None else rows
    files = {"train-00000-of-00002": rows[:2], "train-00001-of-00002": rows[2:], "val": rows, "test": rows}
    for name, part in files.items():
        path = home / f"{name}.{form}"
        if form == "parquet":
            pyarrow.parquet.write_table(pa.Table.from_pylist(part), path)
        elif form == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in part))
        else:
            write(path, part)
    return home


@pytest.mark.parametrize("form", ["parquet", "jsonl", "json"])
def test_longlamp_in_every_form(form: str, tmp_path: Path) -> None:
    longlamp(tmp_path, form)
    (tmp_path / "product_review_user").mkdir()
    (corpus,) = load(str(tmp_path), None, task="longlamp-topic").values()
    assert corpus.category == "topic_writing_user"
    train = corpus.split("train")
    assert [one.id.removeprefix("topic_writing_user/train/") for one in train] == ["a", "b", "a/1"]
    assert [corpus.reference(one) for one in train] == ["Text.", "More.", "Third."]
    (record,) = train[0].profile
    assert (record.text, record.fields, record.user_id) == ("Ähm", {"summary": "s"}, "a")
    # The same record is one object, in whatever row and split it stands.
    assert all(one.profile[0] is record for split in corpus.instances.values() for one in split if one.profile)


@pytest.mark.parametrize("form", ["parquet", "json"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows[2].update(output=None),
            r"row 3: output is missing, not a text or a number; LongLaMP topic_w",
        ),
        (
            lambda rows: rows[2]["profile"][0].update(content=None),
            r"row 3, record 1 of profile: content is missing, not",
        ),
        (
            lambda rows: [row.pop("author") for row in rows],
            r"row 1: author is missing; LongLaMP topic_writing has rows of",
        ),
        (lambda rows: [row.update(profile=None) for row in rows], r"row 1: profile is missing, not a list"),
        (
            lambda rows: [row.update(profile=[{"summary": "s"}]) for row in rows],
            r"row 1, record 1 of profile: content is",
        ),
    ],
)
def test_what_is_wrong_with_longlamp_is_named(form: str, change: Any, message: str, tmp_path: Path) -> None:
    rows = json.loads(json.dumps(ROWS))
    change(rows)
    home = longlamp(tmp_path, form, rows)
    for path in home.glob("train-*"):
        path.unlink()
    with pytest.raises(DataError, match=rf"val\.{form}, {message}"):
        load(str(tmp_path), None, task="longlamp-topic")


# ---- PGraphRAG


def test_pgraphrag_s_first_record_is_the_target(tmp_path: Path) -> None:
    reviews = [
        {"rating": rating, "title": f"t{n}", "text": f"x{n}", "pid": f"P{n}"} for n, rating in enumerate((5.0, 1))
    ]
    write(tmp_path / "gap_test.json", [{"id": "u", "profile": reviews}, {"id": "v", "profile": reviews[:1]}])
    (corpus,) = load(str(tmp_path), None, task="pgraphrag-rating").values()
    first, second = corpus.split("test")
    assert (first.given, corpus.reference(first), corpus.target_text(first)) == (
        {"title": "t0", "text": "x0"},
        "5",
        "x0",
    )
    assert [(one.text, one.fields, one.group) for one in first.profile] == [
        ("x1", {"title": "t1", "rating": "1"}, "test/P1")
    ]
    assert (second.profile, second.group) == ((), "test/P0")
    assert "2 test users, 1 of them without a history" in corpus.notes[0]
    for task, given, answer in (("text", {"title": "t0"}, "x0"), ("title", {"text": "x0"}, "t0")):
        (corpus,) = load(str(tmp_path), None, task=f"pgraphrag-{task}").values()
        assert (corpus.split("test")[0].given, corpus.reference(corpus.split("test")[0])) == (given, answer)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"id": "u", "profile": [{"rating": 1, "title": "t", "text": "x", "asin": "P"}]}],
            "record 1 of profile: pid is m",
        ),
        ([{"id": "u", "profile": []}], "row 1: profile is empty; its first record is the one to predict"),
        (
            [{"id": "u", "profile": [{"rating": 1, "title": "t", "text": "x", "pid": "P"}]}] * 2,
            "row 2: user u has a second",
        ),
    ],
)
def test_what_is_wrong_with_pgraphrag_is_named(rows: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path / "gap_test.json", rows)
    with pytest.raises(DataError, match=message):
        load(str(tmp_path), None, task="pgraphrag-text")


def test_pgraphrag_s_peers_stay_in_their_split(tmp_path: Path) -> None:
    """The same product was reviewed by users of all splits."""
    for split in ("train", "dev", "test"):
        rows = []
        for user in ("a", "b"):
            texts = [f"{split} {user} target", f"{split} {user} past"]
            profile = [{"rating": 3, "title": "t", "text": text, "pid": "P"} for text in texts]
            rows.append({"id": f"{split} {user}", "profile": profile})
        write(tmp_path / f"gap_{split}.json", rows)
    (corpus,) = load(str(tmp_path), None, task="pgraphrag-title").values()
    first, _ = corpus.split("test")
    peers = Peers(corpus).of_group(first.profile[0].group, but=(first.user_id,))
    assert [peer.text for peer in peers] == ["test b past"]


# ---- JSON, a few rows at a time


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "text", ['[{"a": [1, 22, "]"]}, 333, "é\\n"]', '{"a": [1, 22, "]"]}\n333\n"é\\n"\n', " [\n] ", ""]
)
def test_json_in_pieces(chunk: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rows, "_CHUNK", chunk)
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    wanted = [{"a": [1, 22, "]"]}, 333, "é\n"] if "a" in text else []
    assert list(_rows.objects(path)) == wanted


@pytest.mark.parametrize("text", ['[{"a": 1}, {"b"', '{"a": 1', "[1, x]"])
def test_json_that_breaks_off(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json is not valid JSON"):
        list(_rows.objects(tmp_path / "x.json"))
