"""Text for a terminal and CSV: their parts, and a table of scores in them."""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Iterable, Mapping, Sequence

from bench.report.names import category_name
from bench.report.table import MISSING, Cell, Key, Mark, Place, Shown, Table, legend, marks, shown

TERMINAL_WIDTH = 120


# ---- for a terminal


def in_parts(widths: Sequence[float], room: float) -> list[list[int]]:
    """The columns' indices by the part of a table they stand in: as many as there is room for, at least one."""
    parts: list[list[int]] = []
    left = 0.0
    for index, width in enumerate(widths):
        if not parts or width > left:
            parts.append([])
            left = room
        parts[-1].append(index)
        left -= width
    return parts


def plain(table: Table) -> str:
    """Aligned text for a terminal: a block for each category, an asterisk before the best values. A block is split
    where it would pass 120 columns; only a very long label goes beyond."""
    marked = marks(table)
    blocks = [" ".join(table.title.split())]
    for category in table.categories:
        labels, *columns = _columns(table, category, marked)
        width = max(map(len, labels))
        for part in in_parts([len(texts[0]) + 2 for texts in columns], TERMINAL_WIDTH - width):
            lines = [
                "  ".join([labels[i].ljust(width), *(columns[n][i] for n in part)]).rstrip() for i in range(len(labels))
            ]
            blocks.append("\n".join([category_name(category), *lines]))
    notes = [*legend(table, "* best of the column in its group", "In brackets", str), *table.notes]
    blocks += ["\n".join(" ".join(line.split()) for line in lines) for lines in (notes, table.answers) if lines]
    return "\n\n".join(blocks) + "\n"


def _columns(table: Table, category: str, marked: Mapping[tuple[int, Key], Mark]) -> list[list[str]]:
    """The column of labels and those of one category's scores, all with the same lines, scores right-aligned."""
    places = table.of_category(category)
    lines = [["Method", *(place.column.head for place in places)]]
    for group, rows in table.grouped:
        if group.name:
            lines.append([f"-- {group.name}", *[""] * len(places)])
        for index, row in rows:
            cells = [_cell(row.cells.get(at.key), at, marked.get((index, at.key))) for at in places]
            lines.append([" ".join(row.label.split()), *cells])
            texts = [shown(row.cells[at.key], at.column) if at.key in row.cells else None for at in places]
            if any(text and text.paper for text in texts):
                # Under the value, not under what stands behind it.
                gaps = [" " * len(rest(text)) if text else "" for text in texts]
                for name in ("paper", "difference"):
                    found = [getattr(text, name) if text else "" for text in texts]
                    lines.append([f"  {name}", *(number + gap for number, gap in zip(found, gaps, strict=True))])
    labels, *scores = (list(lines) for lines in zip(*lines, strict=True))
    return [labels, *([text.rjust(max(map(len, texts))) for text in texts] for texts in scores)]


def _cell(cell: Cell | None, place: Place, mark: Mark | None) -> str:
    if cell is None:
        return MISSING
    texts = shown(cell, place.column)
    sign = "*" if mark == "best" else "†" if texts.significant else ""
    return sign + texts.value + rest(texts)


def rest(texts: Shown) -> str:
    """What stands behind a value: the deviation and the interval."""
    sd = f" {texts.sd}" if texts.sd else ""
    return f"{sd} [{texts.low}, {texts.high}]"


# ---- CSV


_FORMULA = ("=", "+", "-", "@", "\t", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a text begins that a spreadsheet may take for a formula; the last four are the full-width signs."""


def csv_text(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Lines under their heads as CSV. A text that a spreadsheet would compute has an apostrophe in front of it; numbers
    stay numbers."""
    text = io.StringIO()
    rows = [[_harmless(cell) for cell in line] for line in lines]
    csv_format.writer(text, lineterminator="\n").writerows([heads, *rows])
    return text.getvalue()


def _harmless(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    # Python's writer leaves a lone carriage return unquoted, and readers begin a new line at it.
    cell = cell.replace("\r\n", "\n").replace("\r", "\n")
    # Lone surrogates, e.g. of a folder's name: no file can hold them.
    cell = cell.encode("utf-8", "replace").decode()
    if not cell.startswith(_FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def csv(table: Table) -> str:
    """One line a cell: row, group, category, column, value, low, high, paper, difference, sd, p; numbers in full
    precision."""
    names = ["value", "low", "high", "paper", "difference", "sd", "p"]
    lines = [
        [row.label, row.group, *place.key, *(getattr(row.cells[place.key], name) for name in names)]
        for row in table.rows
        for place in table.places
        if place.key in row.cells
    ]
    return csv_text(["row", "group", "category", "column", *names], lines)
