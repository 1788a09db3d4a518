"""A plain table of ready texts as LaTeX, Markdown, HTML and terminal text: what is not a table of scores (`table`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.report.files import write_files
from bench.report.latex import TEXT_WIDTH, escape_latex, latex_floats
from bench.report.markup import escape_html, escape_markdown, html_notes, markdown_line
from bench.report.text import TERMINAL_WIDTH, in_parts

LABEL_WIDTH = 200.0
COLUMN_WIDTHS = (62.0, 84.0)
"""Points that the labels take at most, and a column at least and at most."""
GAP = 3.0
_CHARACTER = 4.8


@dataclass(frozen=True)
class Line:
    """A row's label and its cells. A minor line belongs to the one above it and is set smaller."""

    label: str
    cells: tuple[str, ...]
    minor: bool = False


@dataclass(frozen=True)
class Grid:
    r"""A table: `heads` name its columns, without that of the labels; a rule stands between two blocks of lines. `id`
    names its files and, as tab:ID, what \ref refers to."""

    id: str
    title: str
    heads: tuple[str, ...]
    blocks: Sequence[Sequence[Line]]
    notes: Sequence[str]


# ---- text


def plain(grid: Grid) -> str:
    """Aligned text for a terminal; columns that pass its width continue below."""
    lines = [line for block in grid.blocks for line in block]
    labels = [f"  {line.label}" if line.minor else line.label for line in lines]
    label_width = max(map(len, labels), default=0)
    widths = [max(len(head), *(len(line.cells[i]) for line in lines)) + 2 for i, head in enumerate(grid.heads)]
    parts = [grid.title]
    for columns in in_parts(widths, TERMINAL_WIDTH - label_width):
        rows = [_aligned("", label_width, [(grid.heads[i], widths[i]) for i in columns])]
        for number, block in enumerate(grid.blocks):
            rows += [""] if number else []
            for line in block:
                label = f"  {line.label}" if line.minor else line.label
                rows.append(_aligned(label, label_width, [(line.cells[i], widths[i]) for i in columns]))
        parts.append("\n".join(rows))
    return "\n\n".join([*parts, "\n".join(grid.notes)]) + "\n"


def _aligned(label: str, label_width: int, cells: Sequence[tuple[str, int]]) -> str:
    return (label.ljust(label_width) + "".join(text.rjust(width) for text, width in cells)).rstrip()


# ---- Markdown


def markdown(grid: Grid) -> str:
    """GitHub Markdown; minor lines in italics, notes as a list."""
    lines = [f"### {escape_markdown(grid.title)}", "", markdown_line(["", *map(escape_markdown, grid.heads)])]
    lines.append(markdown_line([":--", *["--:"] * len(grid.heads)]))
    for line in (line for block in grid.blocks for line in block):
        # Numbers are not escaped: the point of "41.12" would make a list of it only at the beginning of a line.
        texts = [escape_markdown(line.label), *(text.replace("|", r"\|") for text in line.cells)]
        lines.append(markdown_line([f"*{text}*" if line.minor and text else text for text in texts]))
    return "\n".join([*lines, "", *(f"- {escape_markdown(note)}" for note in grid.notes), ""])


# ---- LaTeX


def latex(grid: Grid) -> str:
    r"""A table environment for \input: booktabs, plain ASCII. Columns that pass the text width continue in a further
    environment; the notes stand under the last."""
    longest = max((len(line.label) for block in grid.blocks for line in block), default=0)
    label = min(LABEL_WIDTH, _CHARACTER * longest + 10)
    least, most = (width + 2 * GAP for width in COLUMN_WIDTHS)
    parts = in_parts([least] * len(grid.heads), TEXT_WIDTH - label)
    lines = [f"% {grid.id}: needs \\usepackage{{array,booktabs}} and up to {TEXT_WIDTH / 72.27 * 2.54:.1f} cm of text."]
    tabulars = []
    for columns in parts:
        width = min(most, (TEXT_WIDTH - label) / len(columns)) - 2 * GAP
        tabulars.append(("table*", _tabular(grid, columns, label, width)))
    notes = r"\par ".join(map(escape_latex, grid.notes))
    return "\n".join([*lines, *latex_floats(grid.id, grid.title, tabulars, GAP, notes), ""])


def _tabular(grid: Grid, columns: Sequence[int], label: float, width: float) -> list[str]:
    layout = f"@{{}}>{{\\raggedright\\arraybackslash}}p{{{label:.0f}pt}}"
    layout += f"*{{{len(columns)}}}{{>{{\\raggedleft\\arraybackslash}}p{{{width:.0f}pt}}}}@{{}}"
    heads = ["", *(f"\\scriptsize {escape_latex(grid.heads[i], width)}" for i in columns)]
    lines = [f"\\begin{{tabular}}{{{layout}}}", r"\toprule", " & ".join(heads) + r" \\"]
    for block in grid.blocks:
        lines.append(r"\midrule")
        for line in block:
            # In braces: a label that begins with "[" or "*" would be read as an argument of the "\\" above it.
            cells = [f"{{{escape_latex(line.label, label)}}}"]
            cells += [escape_latex(line.cells[i], width) for i in columns]
            style = r"\scriptsize\itshape " if line.minor else ""
            lines.append(" & ".join(style + cell for cell in cells) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


# ---- HTML


def html(grid: Grid) -> str:
    """A fragment for a page: the table with its caption, then its notes as a list. Everything in it is escaped."""
    heads = "".join(f"<th scope='col'>{escape_html(head)}</th>" for head in ("", *grid.heads))
    lines = [f"<table class='grid' id='{grid.id}'>", f"<caption>{escape_html(grid.title)}</caption>"]
    lines.append(f"<thead><tr>{heads}</tr></thead>")
    for block in grid.blocks:
        lines.append("<tbody>")
        for line in block:
            cells = "".join(f"<td>{escape_html(text)}</td>" for text in line.cells)
            kind = " class='minor'" if line.minor else ""
            lines.append(f"<tr{kind}><th scope='row'>{escape_html(line.label)}</th>{cells}</tr>")
        lines.append("</tbody>")
    return "\n".join([*lines, "</table>", html_notes([escape_html(note) for note in grid.notes])])


def write(grid: Grid, as_csv: str, folder: Path) -> list[Path]:
    """Write all renderings, and the numbers behind them as CSV, as `files.write_table` does."""
    return write_files(grid.id, latex(grid), markdown(grid), html(grid), as_csv, folder)
