"""A table of scores as a figure: PDF and PNG, its numbers as CSV, its title and notes as Markdown. The same table gives
the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import DataError
from bench.files import write_atomically
from bench.protocols import Column
from bench.report.markup import escape_markdown
from bench.report.names import category_name
from bench.report.table import INTERVAL_LEGEND, Row, Table, head
from bench.report.text import csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["lines", "bars"]

COLUMN_INCHES, TEXT_INCHES = 3.3, 6.3
"""Widths of a figure: a column and the whole text of a two-column page."""
PANEL_INCHES, AXES_INCHES = 1.9, 1.3
"""Height of a panel and, about, of the axes in it."""
MARGIN_INCHES = 0.7
"""Width of what stands left of the axes, and of a sign in the legend, about."""
LINE_INCHES = 0.14
"""Height of a line of text."""
PANELS_ABREAST = 3
BARS_ABREAST = 36
"""At most so many panels and bars stand side by side."""
COLUMN_BARS = 12
"""A figure with more bars takes the whole width of the text."""
PNG_DPI = 200
TEXT_POINTS, LABEL_POINTS = 7, 8
"""Sizes of the font."""

# Colours of Okabe and Ito, told apart by colour-blind readers; for their black and yellow, which hide a hatch or are
# too faint for a line, a grey and a wine of Tol. The numbers of markers, hatches and dashes have no divisor in common
# with that of the colours, so that the ninth series differs from the first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#882255")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "oo")
DASHES = ("-", "--", "-.")

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": TEXT_POINTS,
    "axes.labelsize": LABEL_POINTS,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.linewidth": 0.4,
    "grid.color": "0.85",
    "hatch.linewidth": 0.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "legend.frameon": False,
    # TrueType: text can be searched, and conferences refuse Type 3.
    "pdf.fonttype": 42,
    # Names of methods are text: "$" and "_" mean nothing.
    "text.parse_math": False,
}


def draw(table: Table, kind: Kind, x_label: str, folder: Path) -> list[Path]:
    """Write ID.pdf, ID.png, ID.csv and ID.md; returns their paths. A panel for each column of the table.

    "lines": a line for each category over the rows, whose labels are numbers (an experiment over K). "bars": a group of
    bars for each category, a bar for each row. Whiskers are the 95% intervals. Raises `DataError` for a table without
    scores, for a row of "lines" that is not a number or not the only one with its number, and `StoreError` if a file
    cannot be written; then no file is half written.
    """
    with style():
        figure = figure_of(table, kind, x_label)
        as_pdf, as_png = _saved(figure, "pdf"), _saved(figure, "png")
    contents: dict[str, str | bytes] = {"pdf": as_pdf, "png": as_png, "csv": csv(table), "md": _markdown(table, kind)}
    for suffix, content in contents.items():
        write_atomically(folder / f"{table.id}.{suffix}", content)
    return [folder / f"{table.id}.{suffix}" for suffix in contents]


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults and ours, whatever the user's own settings are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _saved(figure: Figure, suffix: str) -> bytes:
    buffer = io.BytesIO()
    # Without its date: the same figure is the same file.
    metadata = {"CreationDate": None} if suffix == "pdf" else None
    figure.savefig(buffer, format=suffix, dpi=PNG_DPI, metadata=metadata)
    return buffer.getvalue()


def _markdown(table: Table, kind: Kind) -> str:
    """What a caption has to say: the title, what the whiskers are, where the axes begin, the table's notes."""
    begin = (
        "Vertical axes do not begin at 0; points of one place are set side by side, so that their whiskers can be seen."
        if kind == "lines"
        else "Bars begin at 0."
    )
    notes = [f"Whiskers: {INTERVAL_LEGEND}.", begin, *table.notes]
    lines = [f"### {escape_markdown(table.title)}", "", f"![]({table.id}.png)", ""]
    return "\n".join([*lines, *(f"- {escape_markdown(note)}" for note in notes), ""])


# ---- the figure


def figure_of(table: Table, kind: Kind, x_label: str) -> Figure:
    """Panels with one legend below them; drawn within `style`. Raises `DataError` as `draw` does."""
    from matplotlib.figure import Figure

    if not any(row.cells for row in table.rows):
        raise DataError(f"{table.id}: there is no score to draw; give the table rows with cells")
    bars = len(table.categories) * len(table.rows) if kind == "bars" else 1
    abreast = min(len(table.columns), PANELS_ABREAST, max(1, BARS_ABREAST // bars))
    down = math.ceil(len(table.columns) / abreast)
    width = COLUMN_INCHES if len(table.columns) == 1 and bars <= COLUMN_BARS else TEXT_INCHES
    heads = [_wrapped(head(column), AXES_INCHES, LABEL_POINTS) for column in table.columns]
    room = width / abreast - MARGIN_INCHES - LINE_INCHES * max(label.count("\n") for label in heads)
    below = _wrapped(x_label, room, LABEL_POINTS)
    height = (PANEL_INCHES + below.count("\n") * LINE_INCHES) * down
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(down, abreast, squeeze=False).flatten().tolist()
    for column, label, axes in zip(table.columns, heads, panels, strict=False):
        series = _lines(axes, table, column) if kind == "lines" else _bars(axes, table, column, room)
        axes.set_ylabel(label)
        axes.set_xlabel(below)
    for axes in panels[len(table.columns) :]:
        axes.remove()
    labels = [category_name(name) for name in table.categories] if kind == "lines" else [r.label for r in table.rows]
    figure.set_figheight(height + _legend(figure, series, labels, width))
    return figure


def _points(table: Table) -> list[tuple[float, Row]]:
    """The rows by their number, ascending. Raises `DataError`."""
    points: dict[float, Row] = {}
    for row in table.rows:
        try:
            number = float(row.label)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise DataError(f"{table.id}, row '{row.label}': a figure of lines needs a number as its label, such as 8")
        if number in points:
            raise DataError(
                f"{table.id}: rows '{points[number].label}' and '{row.label}' stand at the same place; keep one of them"
            )
        points[number] = row
    return sorted(points.items(), key=lambda point: point[0])


def _lines(axes: Axes, table: Table, column: Column) -> list[Any]:
    """A line for each category. One without a score at a point is broken there."""
    points = _points(table)
    places = [place for place, _ in points]
    gap = min((after - before for before, after in pairwise(places)), default=1.0)
    series: list[Any] = []
    for number, category in enumerate(table.categories):
        cells = [row.cells.get((category, column.name)) for _, row in points]
        # Side by side within a fifth of the gap: whiskers one over another could not be read.
        shift = gap / 5 * ((number + 0.5) / len(table.categories) - 0.5)
        at = [place + shift for place in places]
        line = axes.plot(
            at,
            [math.nan if cell is None else cell.value for cell in cells],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            linestyle=DASHES[number % len(DASHES)],
            markeredgecolor="white",
            markeredgewidth=0.4,
        )
        shown = [(x, cell.low, cell.high) for x, cell in zip(at, cells, strict=True) if cell is not None]
        _whiskers(axes, shown, COLOURS[number % len(COLOURS)])
        series += line
    axes.set_xticks(places, [row.label for _, row in points])
    return series


def _bars(axes: Axes, table: Table, column: Column, room: float) -> list[Any]:
    """A group of bars for each category; a row without a score leaves its place empty."""
    width = 0.8 / len(table.rows)
    series = []
    for number, row in enumerate(table.rows):
        places = [index + width * (number + 0.5) - 0.4 for index in range(len(table.categories))]
        cells = [row.cells.get((category, column.name)) for category in table.categories]
        drawn = [(place, cell) for place, cell in zip(places, cells, strict=True) if cell is not None]
        bars = axes.bar(
            [place for place, _ in drawn],
            [cell.value for _, cell in drawn],
            width,
            color=COLOURS[number % len(COLOURS)],
            hatch=HATCHES[number % len(HATCHES)],
            edgecolor="black",
            linewidth=0.5,
        )
        _whiskers(axes, [(place, cell.low, cell.high) for place, cell in drawn], "black")
        series.append(bars)
    axes.axhline(0, color="black", linewidth=0.6)
    names = [_wrapped(category_name(name), room / len(table.categories), TEXT_POINTS) for name in table.categories]
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.tick_params(axis="x", length=0)
    return series


def _whiskers(axes: Axes, ends: Sequence[tuple[float, float, float]], colour: str) -> None:
    """Lines from low to high, given as (x, low, high). An interval need not hold its value: errors around that could be
    negative, which matplotlib refuses."""
    middles = [(low + high) / 2 for _, low, high in ends]
    halves = [abs(high - low) / 2 for _, low, high in ends]
    axes.errorbar(
        [x for x, _, _ in ends], middles, halves, fmt="none", ecolor=colour, elinewidth=0.7, capsize=1.5, capthick=0.7
    )


def _legend(figure: Figure, series: Sequence[Any], labels: Sequence[str], inches: float) -> float:
    """Put a legend below the panels, with as many columns as fit; returns its height in inches."""
    names = [_wrapped(label, inches - MARGIN_INCHES, TEXT_POINTS) for label in labels]
    for columns in range(len(names), 0, -1):
        legend = figure.legend(series, names, loc="outside lower center", ncols=columns)
        box = legend.get_window_extent()
        if box.width <= figure.bbox.width or columns == 1:
            break
        legend.remove()
    return float(box.height / figure.dpi)


# ---- text


def _wrapped(text: str, inches: float, points: float) -> str:
    """Text on lines of at most a width; words break where they are wider. What the font lacks is spelled as its code
    point (U+1F600)."""
    widths = _widths()
    room = inches * 72 / points
    lines: list[str] = []
    for word in text.split():
        known = "".join(character if ord(character) in widths else f"U+{ord(character):04X}" for character in word)
        if lines and sum(widths[ord(character)] for character in f"{lines[-1]} {known}") <= room:
            lines[-1] += f" {known}"
            continue
        lines.append("")
        left = room
        for character in known:
            left -= widths[ord(character)]
            if left < 0:
                lines.append("")
                left = room - widths[ord(character)]
            lines[-1] += character
    return "\n".join(lines)


@cache
def _widths() -> dict[int, float]:
    """The width of each character of the font, by code point, in ems."""
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.ft2font import LoadFlags

    font = get_font(findfont(FontProperties(family=STYLE["font.family"])))
    glyphs = font.get_charmap().items()
    return {code: font.load_glyph(glyph, LoadFlags.NO_SCALE).horiAdvance / font.units_per_EM for code, glyph in glyphs}
