"""Texts side by side: no text breaks a rendering, and pdflatex sets the texts within the page."""

from __future__ import annotations

import csv as csv_format
import io
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.experiments.texts import emphasised
from bench.report.side_by_side import SideBySide, csv, html, latex, markdown, plain, write

REAL = "User's real review"
REFERENCE = "the drum is far too loud for me"
NASTY = (
    r"[50%_of] #1 & {2} ~3^4 \par $x$ <i>|`\\ -- --set k=4 **b** </td></table><script>alert(1)</script> &lt; "
    + '"q" naïve Žižek λ≥0 § … – — ß 漢字 😀 \u202e rtl \n new_line\n- item'
)


def shown(*texts: tuple[str, str]) -> SideBySide:
    """Texts by their labels beside the real one."""
    facts = {"Item": "Green Drum", "Rating": "4.0", "Review title": "Lovely"}
    return SideBySide("table10", "Texts", facts, emphasised(texts, REFERENCE, REAL), ())


# ---- renderings


def test_renderings_by_hand() -> None:
    found = shown(("RAG", ""), ("DEP", "Well: the drum, IS far away"))
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
        [REAL, REFERENCE, "the drum is far"],
    ]


def nasty(*more: tuple[str, str]) -> SideBySide:
    """Hostile text in every place, and further texts by label."""
    texts = [(NASTY, NASTY), ("[x]", "[y] *z*"), ("*", ""), *more]
    return SideBySide(
        "t",
        f"50% & more_ {NASTY}",
        {"Item": "Green Drum", "Rating": "4.0", "Review title": NASTY, NASTY: "x"},
        emphasised(texts, f"-item {NASTY}", REAL),
        (NASTY, "A note."),
    )


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


def test_no_text_injects_markup() -> None:
    parser, found = Tags(), nasty()
    parser.feed(html(found))
    assert parser.tags == {
        *("table class=texts id=t", "caption", "tbody", "tr", "th scope=row", "td dir=auto", "mark"),
        *("ul class=notes", "li"),
    }
    assert "</td></table><script>alert(1)</script> &lt;" in parser.text
    lines = [line for line in markdown(found).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}
    assert r"\<script\>" in lines[2]


def test_a_text_fills_the_terminal_and_stays_within_it() -> None:
    text = plain(nasty(("m", "a word " * 300)))
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
    paths = write(nasty(*CASES[case]), tmp_path)
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


def test_long_texts_continue_whole() -> None:
    tex = latex(nasty(("long", LONG), ("wide", "W" * 6000)))
    assert tex.count(r"\begin{table*}") == tex.count(r"\addtocounter{table}{-1}") + 1 > 2
    assert tex.count(r"\label{") == 1
    environments = tex.split(r"\begin{table*}")[2:]
    assert all(r"\toprule" + "\n{(continued)} & " in environment for environment in environments[:2])
    assert tex.count("{(continued)} &") <= len(environments)
    assert tex.count("honest") == 150
    assert tex.count("W") == 6000
