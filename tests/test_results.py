"""The types of what lies on disk: what is written comes back, two schemas are read, anything else is one error."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import DamagedError, StoreError
from bench.files import as_lines, object_hash, sealed_lines
from bench.results import (
    READABLE,
    SCHEMA,
    AdapterRecord,
    AdapterSummary,
    File,
    Generation,
    InfluenceRow,
    Prediction,
    RunRecord,
    Score,
    ScoreRow,
    Selection,
    Stored,
    Summary,
    TrainingRecord,
    TrainingStep,
    rows_of,
    sound_rows,
)

# -- what is written is read back equal ----------------------------------------------------------------------------

WORD = st.text(max_size=8)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
"""Lone surrogates too: models and users write them."""
COUNT = st.integers(0, 1 << 40)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | COUNT | NUMBER | WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, max_size=3),
    max_leaves=6,
)
SETTINGS = st.dictionaries(WORD, JSON, max_size=4)
WORDS = st.dictionaries(WORD, WORD, max_size=3)
COUNTS = st.dictionaries(WORD, COUNT, max_size=3)
SCORE = st.builds(Score, value=NUMBER, low=NUMBER, high=NUMBER)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


ROWS: dict[type[Stored], st.SearchStrategy[Any]] = {
    Generation: st.builds(
        Generation,
        instance=ANY_TEXT,
        stage=WORD,
        index=COUNT,
        prompt=WORD,
        text=ANY_TEXT,
        prompt_tokens=COUNT,
        completion_tokens=COUNT,
        finish_reason=WORD,
        seconds=NUMBER,
    ),
    Prediction: st.builds(
        Prediction,
        instance=ANY_TEXT,
        category=WORD,
        user=ANY_TEXT,
        prediction=ANY_TEXT,
        reference=ANY_TEXT,
        blocks_shown=COUNT,
        blocks_offered=COUNT,
        calls=COUNT,
        prompt_tokens=COUNT,
        completion_tokens=COUNT,
        cut_off=st.booleans(),
        counts=COUNTS,
    ),
    InfluenceRow: st.builds(InfluenceRow, instance=ANY_TEXT, nats=st.lists(NUMBER, max_size=3)),
    ScoreRow: st.builds(
        ScoreRow, instance=ANY_TEXT, metric=WORD, signature=WORD, texts=WORD, statistics=st.lists(NUMBER, max_size=4)
    ),
    TrainingStep: st.builds(
        TrainingStep,
        step=COUNT,
        epoch=COUNT,
        instances=COUNT,
        tokens=COUNT,
        loss=NUMBER,
        generation=NUMBER,
        own=NUMBER,
        gradient_norm=NUMBER,
        learning_rate=NUMBER,
        seconds=NUMBER,
    ),
}
FILES: dict[type[File], st.SearchStrategy[Any]] = {
    RunRecord: st.builds(
        RunRecord,
        name=WORD,
        identity=SETTINGS,
        config=SETTINGS,
        data_notes=st.dictionaries(WORD, st.lists(WORD, max_size=2), max_size=2),
        versions=WORDS,
        device=WORD,
        created=WORD,
    ),
    Summary: st.builds(
        Summary,
        name=WORD,
        instances=COUNTS,
        empty_predictions=COUNT,
        cut_off=COUNT,
        counts=COUNTS,
        adapter=maybe(
            st.builds(
                AdapterSummary,
                name=WORD,
                parameters=maybe(COUNT),
                share=maybe(NUMBER),
                epochs=maybe(COUNT),
                instances=maybe(COUNT),
                epoch=maybe(COUNT),
            )
        ),
        calls=COUNT,
        prompt_tokens=COUNT,
        completion_tokens=COUNT,
        blocks_shown=NUMBER,
        blocks_offered=NUMBER,
        resamples=maybe(COUNT),
        fidelity=maybe(WORD),
        metric_options=maybe(st.dictionaries(WORD, SETTINGS, max_size=2)),
        signatures=WORDS,
        scores=st.dictionaries(WORD, st.dictionaries(WORD, SCORE, max_size=2), max_size=2),
    ),
    AdapterRecord: st.builds(
        AdapterRecord,
        method=WORD,
        identity=maybe(SETTINGS),
        config=maybe(SETTINGS),
        versions=WORDS,
        device=WORD,
        created=WORD,
        source=maybe(WORD),
        weights=maybe(WORD),
        tensors=maybe(st.dictionaries(WORD, st.lists(COUNT, max_size=3), max_size=2)),
    ),
    TrainingRecord: st.builds(
        TrainingRecord,
        epochs=COUNT,
        steps=COUNT,
        instances=COUNT,
        parameters=COUNT,
        share=NUMBER,
        processes=COUNT,
        seconds=NUMBER,
    ),
    Selection: st.builds(
        Selection,
        column=WORD,
        instances=COUNT,
        scores=st.dictionaries(COUNT, NUMBER, max_size=3),
        epoch=COUNT,
        signatures=WORDS,
    ),
}


def kinds(base: type[Stored]) -> set[type[Stored]]:
    return {kind for sub in base.__subclasses__() for kind in (sub, *kinds(sub))}


def test_every_kind_is_tried() -> None:
    here = {kind for kind in kinds(Stored) if kind.__module__ == Stored.__module__}
    assert here == {*ROWS, *FILES, File, Score, AdapterSummary}


@pytest.mark.parametrize("kind", FILES, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_file_comes_back(kind: type[File], data: st.DataObject) -> None:
    content = data.draw(FILES[kind])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.json"
        path.write_text(content.text(), encoding="utf-8")
        assert kind.read(path) == content
        written = json.loads(path.read_text(encoding="utf-8"))
    assert next(iter(written)) == "schema"
    assert written["schema"] == SCHEMA
    assert set(written) - {"schema", "sha256"} == set(kind.model_fields) - {"schema_version"}
    assert written.pop("sha256") == object_hash(dict(reversed(written.items())))


@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_rows_come_back(kind: type[Stored], data: st.DataObject) -> None:
    rows = data.draw(st.lists(ROWS[kind], max_size=3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text(as_lines(row.json_object() for row in rows), encoding="utf-8")
        assert list(rows_of(kind, path)) == rows
        path.write_bytes(sealed_lines((row.json_object() for row in rows), "run"))
        assert list(rows_of(kind, path, "run")) == sound_rows(kind, path, "run", print) == rows


def test_no_rows_where_there_is_no_file(tmp_path: Path) -> None:
    assert list(rows_of(Generation, tmp_path / "generations.jsonl")) == []


def test_what_is_read_cannot_be_changed() -> None:
    score = Score(value=1.0, low=0.5, high=1.5)
    with pytest.raises(ValueError, match="frozen"):
        score.value = 2.0


# -- schemas -------------------------------------------------------------------------------------------------------

RUN = {"name": "rag-demo", "identity": {"settings": {"k": 8}}, "config": {"method": "rag", "vllm": {"dtype": "auto"}}}
SUMMARY = {
    "name": "rag-demo",
    "instances": {"Books": 2},
    "empty_predictions": 0,
    "cut_off": 1,
    "counts": {},
    "calls": 2,
    "prompt_tokens": 70,
    "completion_tokens": 9,
    "blocks_shown": 3.0,
    "blocks_offered": 3.0,
    "resamples": 1000,
    "signatures": {"rouge": "rouge|v:1"},
    "scores": {"Books": {"rouge1": {"value": 0.5, "low": 0.25, "high": 0.75}}},
}
ADAPTER = {"method": "dep", "identity": {}, "config": {}, "versions": {}, "device": "cpu", "created": "today"}
TRAINING = {
    "epochs": 5,
    "steps": 40,
    "instances": 128,
    "parameters": 1000,
    "share": 0.1,
    "processes": 1,
    "seconds": 9.5,
}
SELECTION = {
    "column": "meteor",
    "instances": 3,
    "scores": {"1": 0.25, "2": 0.5},
    "epoch": 2,
    "signatures": {"meteor": "meteor|v:1"},
}
CONTENTS: dict[type[File], dict[str, Any]] = {
    RunRecord: RUN,
    Summary: SUMMARY,
    AdapterRecord: ADAPTER,
    TrainingRecord: TRAINING,
    Selection: SELECTION,
}


def test_every_file_is_tried() -> None:
    assert set(CONTENTS) == set(FILES)


def file(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("schema", [1, 2])
@pytest.mark.parametrize("kind", CONTENTS, ids=lambda kind: kind.__name__)
def test_these_schemas_are_read(kind: type[File], schema: int, tmp_path: Path) -> None:
    assert schema in READABLE
    content = CONTENTS[kind]
    # Schema 1's run.json says how the engine was started; a later version may add what this one does not know.
    read = kind.read(file(tmp_path / "run.json", {"schema": schema, **content, "batch_invariant": False, "new": [1]}))
    assert read.schema_version == schema
    assert read == kind.model_validate({"schema": schema, **content})
    assert {name: value for name, value in read.json_object().items() if name in content} == content


@pytest.mark.parametrize("schema", [0, 4, None, "2", [2]])
@pytest.mark.parametrize("kind", CONTENTS, ids=lambda kind: kind.__name__)
def test_other_schemas_are_refused_in_one_line(kind: type[File], schema: object, tmp_path: Path) -> None:
    path = file(tmp_path / "some-run" / "run.json", {"schema": schema, **CONTENTS[kind]})
    with pytest.raises(StoreError) as caught:
        kind.read(path)
    assert str(caught.value) == (
        f"{path.parent} was written by schema {schema} of bench, this version reads 1, 2, 3. Use the version that "
        "wrote it, or move the folder away to start over"
    )


def test_a_file_without_a_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"written by schema None of bench, this version reads 1, 2, 3\."):
        Summary.read(file(tmp_path / "summary.json", SUMMARY))


def test_the_golden_is_read() -> None:
    """A run's files as a version of bench wrote them."""
    (folder,) = (Path(__file__).parents[1] / "results" / "golden").iterdir()
    record, summary = RunRecord.read(folder / "run.json"), Summary.read(folder / "summary.json")
    assert record.name == summary.name
    assert record.schema_version == summary.schema_version == json.loads((folder / "run.json").read_text())["schema"]
    predictions = list(rows_of(Prediction, folder / "predictions.jsonl"))
    assert len(predictions) == sum(summary.instances.values())
    assert sum(row.prompt_tokens for row in predictions) == summary.prompt_tokens
    scores = list(rows_of(ScoreRow, folder / "scores.jsonl"))
    assert {row.metric for row in scores} == set(summary.signatures)
    assert len(scores) == len(predictions) * len(summary.signatures)


@pytest.mark.parametrize("kind", CONTENTS, ids=lambda kind: kind.__name__)
def test_any_change_of_a_file_is_found(kind: type[File], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    text = kind.model_validate(CONTENTS[kind]).text()
    path.write_text(text)
    assert kind.read(path) == kind.model_validate(CONTENTS[kind])
    path.write_text(json.dumps(json.loads(text), sort_keys=True))
    assert kind.read(path) == kind.model_validate(CONTENTS[kind]), "its form does not matter"
    for place, character in enumerate(text):
        if not character.isspace():
            path.write_text(text[:place] + ("7" if character != "7" else "3") + text[place + 1 :])
            with pytest.raises(DamagedError, match=r"a\.json is damaged"):
                kind.read(path)
    content = json.loads(text)
    checksum = content.pop("sha256")
    for changed in (content, content | {"schema": 2, "sha256": checksum}):
        with pytest.raises(DamagedError, match="it does not have the content of its checksum"):
            kind.read(file(path, changed))
    older = content | {"schema": 2}
    with pytest.raises(DamagedError, match="schema 2 has no checksums"):
        kind.read(file(path, older | {"sha256": object_hash(older)}))


# -- what is broken ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        (Summary, {"calls": "many"}, r"summary\.json is damaged: calls: Input should be a valid integer"),
        (
            Summary,
            {"scores": {"Books": {"rouge1": {"value": 1}}}},
            r"json is damaged: scores\.Books\.rouge1\.low: Field required",
        ),
        (Summary, {"signatures": None}, r"json is damaged: signatures: Input should be a valid dictionary"),
        (Summary, {"adapter": {}}, r"json is damaged: adapter\.name: Field required"),
        (RunRecord, {"identity": []}, r"json is damaged: identity: Input should be a valid dictionary"),
        (RunRecord, {"name": 5}, r"json is damaged: name: Input should be a valid string"),
        (
            Selection,
            {"scores": {"first": 0.5}},
            r"json is damaged: scores\.first\.\S+: Input should be a valid integer",
        ),
        (Selection, {"epoch": 1.5}, r"json is damaged: epoch: Input should be a valid integer"),
        (TrainingRecord, {"seconds": "long"}, r"json is damaged: seconds: Input should be a valid number"),
        (AdapterRecord, {"method": None}, r"json is damaged: method: Input should be a valid string"),
    ],
)
def test_a_field_of_another_type(kind: type[File], content: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = file(tmp_path / "summary.json", {"schema": 2, **CONTENTS[kind], **content})
    with pytest.raises(StoreError, match=message) as caught:
        kind.read(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith(". Run its command again, which mends it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind in CONTENTS
        for name, field in kind.model_fields.items()
        if field.is_required() and name in CONTENTS[kind]
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_field_that_is_missing(kind: type[File], name: str, tmp_path: Path) -> None:
    content = {key: value for key, value in CONTENTS[kind].items() if key != name}
    with pytest.raises(StoreError, match=rf"a\.json is damaged: {name}: Field required\. Run its command again"):
        kind.read(file(tmp_path / "a.json", {"schema": 2, **content}))


def test_a_file_that_is_no_json_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    for content in ("{", "[]"):
        path.write_text(content)
        with pytest.raises(StoreError, match=r"summary\.json is damaged: .*Run its command again, which mends it"):
            Summary.read(path)


ROW = {"instance": "a", "metric": "bleu", "signature": "s", "texts": "t", "statistics": [1.0]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"metric": None}, r"line 2 is damaged: metric: Input should be a valid string"),
        ({"statistics": [1.0, "much"]}, r"line 2 is damaged: statistics\.1: Input should be a valid number"),
        ({"statistics": 5}, r"line 2 is damaged: statistics: Input should be a valid list"),
        ({"texts": ["a"]}, r"line 2 is damaged: texts: Input should be a valid string"),
    ],
)
def test_a_row_with_another_type_is_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text(as_lines([ROW, ROW | row, ROW]))
    rows = rows_of(ScoreRow, path)
    assert next(rows) == ScoreRow(**ROW)
    with pytest.raises(StoreError, match=message) as caught:
        next(rows)
    assert str(caught.value).startswith(f"{path}, line 2 is damaged: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(ROW))
def test_a_row_that_misses_a_field_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text(as_lines([ROW, {key: value for key, value in ROW.items() if key != name}]))
    with pytest.raises(StoreError, match=rf"scores\.jsonl, line 2 is damaged: {name}: Field required"):
        list(rows_of(ScoreRow, path))


def test_keys_of_rows_that_are_not_known_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text(as_lines([ROW | {"new": {"a": 1}}]))
    assert [row.json_object() for row in rows_of(ScoreRow, path)] == [ROW]
