"""Plain tables: what they show, and that pdflatex sets them within the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.report.grid import Grid, Line, html, latex, markdown, plain, write
from bench.report.text import TERMINAL_WIDTH


def grid(columns: int, rows: int = 3) -> Grid:
    heads = tuple(f"A category_with [50%] a long #name {n}" for n in range(columns))
    cells = tuple(f"{123456 + n:,} (100.0%)" for n in range(columns))
    labels = ["[label] with & signs", "*", "A label that takes more than the width that labels are given in a table"]
    line = [Line(labels[n % 3], cells) for n in range(rows)]
    return Grid("grid", "A 100% title", heads, [line, [Line("paper", cells, minor=True)]], ["A note_1.", "Its 2nd."])


@pytest.mark.parametrize(("columns", "parts"), [(1, 1), (4, 1), (5, 2), (9, 3)])
def test_pdflatex_sets_the_table_without_a_box_too_wide(
    columns: int, parts: int, tmp_path: Path, pdflatex: Callable[[Path, str], str]
) -> None:
    write(grid(columns), "", tmp_path)
    log = pdflatex(tmp_path, f"{grid(columns).id}_alone.tex")
    assert "Overfull" not in log
    assert "pk>" not in log, "a font was drawn as a bitmap"
    assert latex(grid(columns)).isascii()
    assert latex(grid(columns)).count(r"\begin{tabular}") == parts
    assert latex(grid(columns)).count(r"\label{") == 1


def test_html_shows_every_cell_and_no_markup_from_outside() -> None:
    shown = dataclasses.replace(grid(2), title="<b>T</b>", notes=["<i>"])
    page = html(shown)
    assert page.count("<td>") == sum(len(line.cells) for block in shown.blocks for line in block)
    assert "<b>" not in page
    assert "<i>" not in page
    assert "<caption>&lt;b&gt;T&lt;/b&gt;</caption>" in page


def test_text_stays_within_the_terminal_and_shows_every_cell() -> None:
    shown = grid(9)
    tables = plain(shown).split("\n\nA note")[0]
    assert max(map(len, tables.splitlines())) <= TERMINAL_WIDTH
    for cell in shown.blocks[0][0].cells:
        assert tables.count(f"  {cell}") == 4
    assert plain(shown).endswith("A note_1.\nIts 2nd.\n")


def test_markdown_has_the_same_cells_in_every_line() -> None:
    lines = [line for line in markdown(grid(3)).splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in lines} == {3}
    assert lines[-1].startswith("| *paper* | *123,456 (100.0%)* |")
    assert r"| \[label\] with & signs | 123,456 (100.0%) |" in lines[2]
