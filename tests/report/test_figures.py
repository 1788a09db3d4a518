"""Figures: what is drawn are the numbers of the table, nothing is cut off, the same table gives the same bytes."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

from bench.errors import DataError, StoreError
from bench.protocols import Column
from bench.report.figures import draw, figure_of, style
from bench.report.table import Cell, Group, Row, Table
from bench.report.text import csv

PAPER_CATEGORIES = ("Books", "Movies_and_TV", "CDs_and_Vinyl")
SCORES = {
    "rouge1": Column("rouge1", "R-1"),
    "bleu": Column("bleu", "BLEU"),
    "meteor": Column("meteor", "METEOR"),
}
NASTY = (
    r"_a $\frac{1$ x^2 100% \\ & <b> A method with a name that is much longer than anybody would want it" + " 漢" * 3
)


def cell(value: float) -> Cell:
    return Cell(value, value * 0.9, value * 1.05)


def table(
    labels: Sequence[str] = ("0", "8", "2.5", "1"),
    categories: Sequence[str] = PAPER_CATEGORIES,
    columns: Sequence[str] = ("rouge1", "bleu"),
    notes: Sequence[str] = (),
) -> Table:
    """Every value another one; a cell is missing."""
    rows = [
        Row(label, "", {(c, m): cell(1 + i + 10 * j + 100 * k) for j, c in enumerate(categories) for k, m in names})
        for i, label in enumerate(labels)
        if (names := list(enumerate(columns)))
    ]
    if len(rows) > 1 and len(categories) > 1:
        del rows[1].cells[categories[1], columns[0]]  # type: ignore[attr-defined]
    scores = [SCORES.get(name, Column(name)) for name in columns]
    return Table("figure5", "Scores by $K_1$", categories, scores, rows, notes, [Group("", True)])


def whiskers(axes: Axes) -> list[list[tuple[float, float, float]]]:
    """(x, low, high) of each error bar, by series."""
    found = []
    for container in axes.containers:
        if isinstance(container, ErrorbarContainer):
            (lines,) = container.lines[2]
            assert isinstance(lines, LineCollection)
            found.append([(segment[0][0], segment[0][1], segment[1][1]) for segment in lines.get_segments()])
    return found


# ---- lines


@pytest.fixture(scope="module")
def lines() -> Figure:
    with style():
        return figure_of(table(), "lines", "Reviews K")


def test_lines_hold_the_numbers_of_the_table(lines: Figure) -> None:
    shown = table()
    assert len(lines.axes) == 2
    by_number = sorted(shown.rows, key=lambda row: float(row.label))
    for axes, column in zip(lines.axes, shown.columns, strict=True):
        drawn = [line for line in axes.get_lines() if len(line.get_xdata()) == 4 and line.get_linestyle() != "None"]
        for line, ends, category in zip(drawn, whiskers(axes), shown.categories, strict=True):
            cells = [row.cells.get((category, column.name)) for row in by_number]
            # Categories stand side by side, so close that each point stays at its number.
            assert line.get_xdata() == pytest.approx([0, 1, 2.5, 8], abs=0.1)
            assert line.get_ydata() == pytest.approx([math.nan if c is None else c.value for c in cells], nan_ok=True)
            have = [(x, c) for x, c in zip(line.get_xdata(), cells, strict=True) if c]
            flat = [number for end in ends for number in end]
            assert flat == pytest.approx([number for x, c in have for number in (x, c.low, c.high)])
        assert [(tick.get_text(), at) for tick, at in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)] == [
            ("0", 0),
            ("1", 1),
            ("2.5", 2.5),
            ("8", 8),
        ]


def test_labels_name_scores_with_their_direction_and_categories(lines: Figure) -> None:
    assert [axes.get_ylabel() for axes in lines.axes] == ["R-1 ↑", "BLEU ↑"]
    assert {axes.get_xlabel() for axes in lines.axes} == {"Reviews K"}
    assert [text.get_text() for text in lines.legends[0].get_texts()] == ["Books", "Movies & TV", "CDs & Vinyl"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("0", "K=1"), "figure5, row 'K=1': a figure of lines needs a number"),
        (("0", "nan"), "row 'nan': a figure of lines needs a number"),
        (("8", "1", "8.0"), "rows '8' and '8.0' stand at the same place"),
        ((), "figure5: there is no score to draw"),
    ],
)
def test_a_table_that_cannot_be_drawn(labels: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        draw(table(labels), "lines", "K", tmp_path)
    assert not list(tmp_path.iterdir())


# ---- bars


def test_bars_hold_the_numbers_of_the_table() -> None:
    shown = table(("Non-Perso", "DPL", "DEP"), ("Unique", "Non-Unique"), ("meteor",))
    shown.rows[2].cells["Unique", "meteor"] = Cell(-3.0, -4.0, -2.5)  # type: ignore[index]
    with style():
        (axes,) = (figure := figure_of(shown, "bars", "Users")).axes
    bars = [container for container in axes.containers if isinstance(container, BarContainer)]
    for container, ends, row in zip(bars, whiskers(axes), shown.rows, strict=True):
        cells = [row.cells.get((category, "meteor")) for category in shown.categories]
        places = [index for index, found in enumerate(cells) if found]
        centers = [bar.get_x() + bar.get_width() / 2 for bar in container]
        assert centers == pytest.approx(places, abs=0.41)
        assert [bar.get_y() for bar in container] == [0] * len(container)
        assert [bar.get_height() for bar in container] == [found.value for found in cells if found]
        flat = [number for end in ends for number in end]
        have = zip(centers, [found for found in cells if found], strict=True)
        assert flat == pytest.approx([number for x, found in have for number in (x, found.low, found.high)])
    low, high = axes.get_ylim()
    assert low < -4 < 0 < high
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["Unique", "Non-Unique"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Non-Perso", "DPL", "DEP"]


def test_an_interval_beside_its_value_is_drawn_as_it_is() -> None:
    shown = Table(
        "t", "T", ["A"], [SCORES["bleu"]], [Row("r", "", {("A", "bleu"): Cell(5, 1, 2)})], [], [Group("", True)]
    )
    with style():
        assert whiskers(figure_of(shown, "bars", "").axes[0])[0][0][1:] == (1, 2)


def test_many_series_look_different() -> None:
    shown = table([f"m{i}" for i in range(10)], ["A"], ["bleu"])
    with style():
        (axes,) = figure_of(shown, "bars", "").axes
    bars = [container[0] for container in axes.containers if isinstance(container, BarContainer)]
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in bars}) == 10
    shown = table(["1"], [f"C{i}" for i in range(10)], ["bleu"])
    with style():
        (axes,) = figure_of(shown, "lines", "").axes
    drawn = [line for line in axes.get_lines() if line.get_linestyle() != "None"]
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 10


# ---- text


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["lines", "bars"])
def test_long_and_hostile_labels_are_text_and_not_cut_off(kind: str) -> None:
    names = [f"{NASTY} {i}" for i in range(5)]
    columns = ["rouge1", "share_of_the_words_that_are_copied_from_the_history", "W" * 40, "bleu"]
    shown = table(("0", "1"), names, columns) if kind == "lines" else table(names, PAPER_CATEGORIES, columns)
    with style():
        figure = figure_of(shown, kind, f"{NASTY} {'W' * 60}")  # type: ignore[arg-type]
        # Would raise if "$\frac{1$" were read as a formula.
        figure.draw_without_rendering()
    assert not any(text.get_parse_math() for text in figure.findobj(Text))
    legend = [" ".join(text.get_text().split()) for text in figure.legends[0].get_texts()]
    spelled = [name.replace("漢", "U+6F22") for name in names]
    assert legend == [name.replace("_", " ").strip() if kind == "lines" else name for name in spelled]
    panels = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    for box in panels:
        assert box is not None
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    assert not any(one.overlaps(other) for one, other in combinations(panels, 2))  # type: ignore[union-attr,arg-type]


# ---- files


def test_files_of_a_figure_are_the_same_whatever_the_users_settings(tmp_path: Path) -> None:
    shown = table(("0", "8"), ["Books"], ["bleu"], notes=["Tiny_model."])
    paths = draw(shown, "lines", "K", tmp_path / "new")
    assert [path.name for path in paths] == ["figure5.pdf", "figure5.png", "figure5.csv", "figure5.md"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    pdf, png, as_csv, text = (path.read_bytes() for path in paths)
    assert pdf.startswith(b"%PDF")
    assert b"CreationDate" not in pdf
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    # A column of a page, at 200 dots an inch.
    assert struct.unpack(">I", png[16:20]) == (660,)
    assert as_csv.decode() == csv(shown)
    assert text.decode().startswith(
        "### Scores by \\$K\\_1\\$\n\n![](figure5.png)\n\n- Whiskers: 95% bootstrap intervals"
    )
    assert text.decode().endswith("- Tiny\\_model.\n")
    with mpl.rc_context({"font.size": 30, "text.usetex": True, "axes.facecolor": "red", "pdf.fonttype": 3}):
        again = [path.read_bytes() for path in draw(shown, "lines", "K", tmp_path / "new")]
        assert mpl.rcParams["font.size"] == 30
    assert again == [pdf, png, as_csv, text]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/figure5.pdf cannot be written"):
        draw(table(("0",), ["Books"], ["bleu"]), "lines", "K", tmp_path / "file")
