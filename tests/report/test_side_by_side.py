"""Texts side by side: which instance, what is emphasised, and that no text breaks a rendering."""

from __future__ import annotations

import csv as csv_format
import io
import json
import random
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.data.corpus import Corpus
from bench.errors import ConfigError, DataError
from bench.finished import FinishedRun
from bench.records import Instance, Item
from bench.report.side_by_side import (
    PHRASE,
    REAL,
    SideBySide,
    Text,
    _emphasised,
    csv,
    html,
    latex,
    markdown,
    plain,
    side_by_side,
    write,
)

REFERENCES = {
    "u1": "short",
    "u2": "the drum is far too loud for me",
    "u3": "a text of some middle length",
    "u4": "x" * 90,
}
NASTY = (
    r"[50%_of] #1 & {2} ~3^4 \par $x$ <i>|`\\ -- --set k=4 **b** </td></table><script>alert(1)</script> &lt; "
    + '"q" naïve Žižek λ≥0 § … – — ß 漢字 😀 \x00 \x1b[31m \ud800 \u202e rtl \n new_line\r\n\n- item'
)


def corpus(
    references: dict[str, str] = REFERENCES, title: str = "Lovely", notes: tuple[str, ...] = ("Made-up data.",)
) -> Corpus:
    instances = tuple(
        Instance(f"Toys/test/{user}", "Toys", "test", user, Item("A1", "Green Drum", "A drum."), 4.0, title, 1, ())
        for user in references
    )
    texts = {f"Toys/test/{user}": text for user, text in references.items()}
    return Corpus("Toys", {"A1": instances[0].item}, {"test": instances}, texts, notes)


def run(folder: Path, data: Corpus, predictions: dict[str, str], fingerprint: str | None = None) -> FinishedRun:
    """A run with the rows of predictions.jsonl that some users have."""
    folder.mkdir(parents=True)
    rows = [
        {
            "instance": f"Toys/test/{user}",
            "category": "Toys",
            "user": user,
            "prediction": text,
            "reference": data.references[f"Toys/test/{user}"],
        }
        for user, text in predictions.items()
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = {
        "identity": {"data": {"Toys": fingerprint or data.fingerprint}},
        "config": {"notes": ["A random model."]},
    }
    return FinishedRun(folder, record, {})


def shown(folder: Path, instance_id: str | None = None, **other: str) -> SideBySide:
    """RAG's and DEP's texts on the four instances."""
    data = corpus()
    rag = run(folder / "rag", data, dict.fromkeys(REFERENCES, "nothing") | other)
    dep = run(folder / "dep", data, dict.fromkeys(REFERENCES, "Well: the drum, IS far away"))
    return side_by_side("table10", "Texts", [("RAG", rag), ("DEP", dep)], {"Toys": data}, instance_id)


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
    assert "test/c:" in side_by_side("t", "T", [("", whole)], {"Toys": data}).notes[0]
    part = run(tmp_path / "2", data, {"c": "1", "b": "1"})
    for runs in ([("", whole), ("", part)], [("", part), ("", whole)]):
        assert (
            "test/b: the one with the median length of the real review, of the 2"
            in (side_by_side("t", "T", runs, {"Toys": data}).notes[0])
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
        side_by_side("t", "T", [("", first)], {"Toys": data}, "Toys/test/u9")
    with pytest.raises(ConfigError, match="no instance is in all of the runs 1, 2"):
        side_by_side("t", "T", [("", first), ("", second)], {"Toys": data})
    with pytest.raises(ConfigError, match="name at least one"):
        side_by_side("t", "T", [], {"Toys": data})
    other = run(tmp_path / "3", data, {"u1": "a"}, fingerprint="0")
    with pytest.raises(DataError, match="3 is a run on other data of Toys"):
        side_by_side("t", "T", [("", first), ("", other)], {"Toys": data})


# ---- shared phrases


def bold(text: str, reference: str) -> list[str]:
    own, real = _emphasised([("m", text)], reference)
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
    *_, real = _emphasised([("m", "one two three"), ("n", "four five six")], "One two three, four five six seven")
    assert real.segments == (("One two three", True), (", ", False), ("four five six", True), (" seven", False))


def test_a_word_is_emphasised_where_a_phrase_with_it_is_shared() -> None:
    """Against the definition, on texts of three different words."""
    dice = random.Random(3)
    for _ in range(300):
        text, reference = ([dice.choice("abc") for _ in range(dice.randrange(9))] for _ in range(2))
        own, _ = _emphasised([("", " ".join(text))], " ".join(reference))
        marked = [emphasised for piece, emphasised in own.segments for _ in piece.split()]
        grams = [reference[start : start + PHRASE] for start in range(len(reference) - PHRASE + 1)]
        starts = [start for start in range(len(text) - PHRASE + 1) if text[start : start + PHRASE] in grams]
        assert marked == [any(start <= place < start + PHRASE for start in starts) for place in range(len(text))]


# ---- renderings


def test_renderings_by_hand(tmp_path: Path) -> None:
    found = shown(tmp_path, "Toys/test/u2", u2="")
    assert r"DEP} & Well: \textbf{the drum, IS far} away \\" in latex(found)
    assert r"real review} & \textbf{the drum is far} too loud for me \\" in latex(found)
    assert r"RAG} & (empty) \\" in latex(found)
    assert latex(found).isascii()
    text = markdown(found)
    assert "| DEP | Well: **the drum, IS far** away |\n" in text
    assert "- Rating: 4.0\n" in text
    assert "<td dir='auto'>Well: <mark>the drum, IS far</mark> away</td>" in html(found)
    assert "\nDEP\n  Well: *the drum, IS far* away\n" in plain(found)
    rows = list(csv_format.reader(io.StringIO(csv(found))))
    assert rows[0] == ["source", "text", "shared"]
    assert rows[-2:] == [
        ["DEP", "Well: the drum, IS far away", "the drum, IS far"],
        [REAL, REFERENCES["u2"], "the drum is far"],
    ]


def nasty(folder: Path, *more: tuple[str, str]) -> SideBySide:
    """Hostile text in every place, and further texts by label."""
    data = corpus({"u1": f"-item {NASTY}"}, title=NASTY, notes=(NASTY,))
    texts = [(NASTY, NASTY), ("[x]", "[y] *z*"), ("*", ""), *more]
    runs = [(label, run(folder / f"run{i}", data, {"u1": text})) for i, (label, text) in enumerate(texts)]
    return side_by_side("t", f"50% & more_ {NASTY}", runs, {"Toys": data})


class Tags(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.add(" ".join([tag, *(f"{name}={value}" for name, value in attrs)]))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_no_text_injects_markup(tmp_path: Path) -> None:
    parser, found = Tags(), nasty(tmp_path)
    parser.feed(html(found))
    assert parser.tags == {
        *("table class=texts id=t", "caption", "tbody", "tr", "th scope=row", "td dir=auto", "mark"),
        *("ul class=notes", "li"),
    }
    assert "</td></table><script>alert(1)</script> &lt;" in parser.text
    lines = [line for line in markdown(found).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}
    assert r"\<script\>" in lines[2]


def test_no_text_reaches_the_terminal_as_a_command(tmp_path: Path) -> None:
    text = plain(nasty(tmp_path, ("m", "a word " * 300)))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", text)
    assert max(len(line) for line in text.splitlines() if "a word" in line) in range(110, 121)


LONG = "An honest sentence of a review that does not end where it should. " * 150
CASES: dict[str, tuple[tuple[str, str], ...]] = {
    "nasty": (),
    "longer than a page": (("long", LONG), ("wide", "W" * 6000), ("tall", "漢" * 2000), ("bold", NASTY * 9)),
    # Emphasised pieces and others without a space between them.
    "chained": (("m", ".".join(["2.3.4", "x"] * 60)),),
    "many": tuple((f"method {i}", LONG[: 400 * i]) for i in range(12)),
}


@pytest.mark.parametrize("case", CASES)
def test_pdflatex_sets_the_texts_without_a_box_too_wide_or_too_high(
    case: str, tmp_path: Path, pdflatex: Callable[[Path, str], str]
) -> None:
    paths = write(nasty(tmp_path, *CASES[case]), tmp_path)
    assert [path.name for path in paths] == ["t.tex", "t_alone.tex", "t.md", "t.html", "t.csv"]
    # As a paper in two columns inputs it, which is narrower than the document of its own.
    (tmp_path / "paper.tex").write_text(
        "\\documentclass[11pt,twocolumn]{article}\\usepackage[a4paper,margin=2.5cm]{geometry}"
        "\\usepackage{array,booktabs}\\begin{document}\\input{t.tex}\\end{document}"
    )
    for document in ("t_alone.tex", "paper.tex"):
        log = pdflatex(tmp_path, document)
        assert "Overfull" not in log
        assert "Float too large" not in log
        assert "pk>" not in log, "a font was drawn as a bitmap"


def test_long_texts_continue_whole(tmp_path: Path) -> None:
    tex = latex(nasty(tmp_path, ("long", LONG), ("wide", "W" * 6000)))
    assert tex.count(r"\begin{table*}") == tex.count(r"\addtocounter{table}{-1}") + 1 > 2
    assert tex.count(r"\label{") == 1
    environments = tex.split(r"\begin{table*}")[2:]
    assert all(r"\toprule" + "\n{(continued)} & " in environment for environment in environments[:2])
    assert tex.count("{(continued)} &") <= len(environments)
    assert tex.count("honest") == 150
    assert tex.count("W") == 6000
