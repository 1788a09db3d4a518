"""Texts side by side: which instance is shown, what is emphasised, and what of a text nothing can show."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from bench.data.corpus import Corpus
from bench.errors import ConfigError, DataError
from bench.experiments.texts import PHRASE, emphasised, side_by_side
from bench.files import sealed_lines
from bench.finished import FinishedRun
from bench.report.side_by_side import SideBySide, Text, plain
from bench.results import Prediction, RunRecord, Summary
from bench.tasks.reviews import Item, Reviews, instance, review

REAL = "User's real review"
REFERENCES = {
    "u1": "short",
    "u2": "the drum is far too loud for me",
    "u3": "a text of some middle length",
    "u4": "x" * 90,
}


def corpus(
    references: dict[str, str] = REFERENCES, title: str = "Lovely", notes: tuple[str, ...] = ("Made-up data.",)
) -> Corpus:
    item = Item("A1", "Green Drum", "A drum.")
    targets = {user: review(user, item, 4.0, title, text, 1) for user, text in references.items()}
    instances = tuple(instance("Toys", "test", target, ()) for target in targets.values())
    texts = {f"Toys/test/{user}": text for user, text in references.items()}
    return Corpus("Toys", {"test": instances}, texts, frozenset(["A1"]), notes)


def run(folder: Path, data: Corpus, predictions: dict[str, str], fingerprint: str | None = None) -> FinishedRun:
    """A run with the predictions that some users have."""
    folder.mkdir(parents=True)
    rows = [
        Prediction(
            instance=f"Toys/test/{user}",
            category="Toys",
            user=user,
            prediction=text,
            reference=data.references[f"Toys/test/{user}"],
            blocks_shown=0,
            blocks_offered=0,
            calls=0,
            prompt_tokens=0,
            completion_tokens=0,
            cut_off=False,
        )
        for user, text in predictions.items()
    ]
    identity = {"data": {"Toys": fingerprint or data.fingerprint}}
    record = RunRecord(name=folder.name, identity=identity, config={"method": "copy", "notes": ["A random model."]})
    content = sealed_lines((row.json_object() for row in rows), record.owner or "")
    (folder / "predictions.jsonl").write_bytes(content)
    summary = Summary(
        name=folder.name,
        instances={"Toys": len(rows)},
        empty_predictions=0,
        cut_off=0,
        calls=0,
        prompt_tokens=0,
        completion_tokens=0,
        blocks_shown=0,
        blocks_offered=0,
        signatures={},
        scores={},
    )
    return FinishedRun(folder, record, summary)


def shown(folder: Path, instance_id: str | None = None, **other: str) -> SideBySide:
    """RAG's and DEP's texts on the four instances."""
    data = corpus()
    rag = run(folder / "rag", data, dict.fromkeys(REFERENCES, "nothing") | other)
    dep = run(folder / "dep", data, dict.fromkeys(REFERENCES, "Well: the drum, IS far away"))
    return side_by_side("table10", "Texts", [("RAG", rag), ("DEP", dep)], {"Toys": data}, Reviews(), instance_id)


# ---- which instance


def test_the_median_reference_is_chosen_whatever_the_methods_wrote(tmp_path: Path) -> None:
    # 5, 28, 31 and 90 characters: the shorter of the two in the middle.
    first = shown(tmp_path / "1")
    assert first.texts[-1] == Text(REAL, ((REFERENCES["u3"], False),))
    assert "Instance Toys/test/u3: the one with the median length" in first.notes[0]
    assert "of the 4 that all methods have" in first.notes[0]
    assert shown(tmp_path / "2", u2=REFERENCES["u2"], u1="", u4="y" * 500).texts[-1] == first.texts[-1]


def test_equal_lengths_go_by_id_and_only_instances_of_all_runs_count(tmp_path: Path) -> None:
    data = corpus({"b": "same", "c": "four", "a": "long as well", "d": "a very long text"})
    all_users = {"c": "1", "b": "1", "a": "1", "d": "1"}
    whole = run(tmp_path / "1", data, all_users)
    assert "test/c:" in side_by_side("t", "T", [("", whole)], {"Toys": data}, Reviews()).notes[0]
    part = run(tmp_path / "2", data, {"c": "1", "b": "1"})
    for runs in ([("", whole), ("", part)], [("", part), ("", whole)]):
        assert (
            "test/b: the one with the median length of the real review, of the 2"
            in (side_by_side("t", "T", runs, {"Toys": data}, Reviews()).notes[0])
        )


def test_a_named_instance(tmp_path: Path) -> None:
    found = shown(tmp_path, "Toys/test/u2")
    assert found.facts == {"Item": "Green Drum", "Rating": "4.0", "Review title": "Lovely"}
    assert [text.label for text in found.texts] == ["RAG", "DEP", REAL]
    assert found.texts[1].text == "Well: the drum, IS far away"
    assert found.notes[0] == "Instance Toys/test/u2: chosen by hand."
    assert found.notes[-2:] == ("Made-up data.", "A random model.")


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    data = corpus()
    first, second = run(tmp_path / "1", data, {"u1": "a"}), run(tmp_path / "2", data, {"u2": "b"})
    with pytest.raises(ConfigError, match=r"'Toys/test/u9' is not in all of the runs 1; did you mean 'Toys/test/u1'\?"):
        side_by_side("t", "T", [("", first)], {"Toys": data}, Reviews(), "Toys/test/u9")
    with pytest.raises(ConfigError, match="no instance is in all of the runs 1, 2"):
        side_by_side("t", "T", [("", first), ("", second)], {"Toys": data}, Reviews())
    with pytest.raises(ConfigError, match="name at least one"):
        side_by_side("t", "T", [], {"Toys": data}, Reviews())
    other = run(tmp_path / "3", data, {"u1": "a"}, fingerprint="0")
    with pytest.raises(DataError, match="3 is a run on other data of Toys"):
        side_by_side("t", "T", [("", first), ("", other)], {"Toys": data}, Reviews())


# ---- shared phrases


def bold(text: str, reference: str) -> list[str]:
    own, real = emphasised([("m", text)], reference, REAL)
    assert (own.text, real.text) == (text, reference)
    return [piece for piece, emphasised in own.segments if emphasised]


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("so it is dull.", "It is dull!", ["it is dull"]),
        ("it is", "it is", []),
        ("IT’S not, it is", "it's NOT -- it was", ["IT’S not, it"]),
        ("a b c d e", "a b c d x b c d e", ["a b c d e"]),
        # Two phrases that touch but are not one.
        ("a b c d e f", "d e f a b c", ["a b c", "d e f"]),
        ("a b c", "a b x c", []),
        ("a_b_c", "a b c", ["a_b_c"]),
        ("Straße um die", "STRASSE UM DIE", ["Straße um die"]),
        ("", "a b c", []),
    ],
)
def test_shared_phrases_by_hand(text: str, reference: str, expected: list[str]) -> None:
    assert bold(text, reference) == expected


def test_the_real_review_shows_what_any_text_shares() -> None:
    *_, real = emphasised([("m", "one two three"), ("n", "four five six")], "One two three, four five six seven", REAL)
    assert real.segments == (("One two three", True), (", ", False), ("four five six", True), (" seven", False))


def test_a_word_is_emphasised_where_a_phrase_with_it_is_shared() -> None:
    """Against the definition, on texts of three different words."""
    dice = random.Random(3)
    for _ in range(300):
        text, reference = ([dice.choice("abc") for _ in range(dice.randrange(9))] for _ in range(2))
        own, _ = emphasised([("", " ".join(text))], " ".join(reference), REAL)
        marked = [emphasised for piece, emphasised in own.segments for _ in piece.split()]
        grams = [reference[start : start + PHRASE] for start in range(len(reference) - PHRASE + 1)]
        starts = [start for start in range(len(text) - PHRASE + 1) if text[start : start + PHRASE] in grams]
        assert marked == [any(start <= place < start + PHRASE for start in starts) for place in range(len(text))]


def test_what_no_page_can_show_is_replaced_everywhere(tmp_path: Path) -> None:
    """Control characters would steer a terminal, lone surrogates cannot be written."""
    bad = "a \x00 b \x1b[31m c \ud800 d\r\n e"
    data = corpus({"u1": bad}, title=bad, notes=(bad,))
    runs = [(bad, run(tmp_path / "1", data, {"u1": bad}))]
    text = plain(side_by_side("t", bad, runs, {"Toys": data}, Reviews()))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", text)
    # Title, the review's title, label and text of the run, the real review, a note.
    assert text.count("b \ufffd[31m c \ufffd d") == 6
