"""Markdown and HTML: their escapes and notes, and a table of scores in them."""

from __future__ import annotations

import html as html_format
import re
from collections.abc import Sequence

from bench.report.names import category_name
from bench.report.table import MISSING, Cell, Mark, Place, Table, head, legend, marks, shown
from bench.report.text import rest

_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""What no page can hold, and what would steer a terminal."""

ANSWERS = "What the rows tell"
"""Stands above a table's answers."""

# ---- Markdown


def escape_markdown(text: str) -> str:
    """Text as GitHub Markdown that shows it, on one line."""
    line = _CONTROL.sub("\ufffd", " ".join(text.split()))
    escaped = re.sub(r"([\\`*_\[\]<>|~#$]|&(?=#?\w+;))", r"\\\1", line)
    # A list within the list, if it stood at the beginning.
    return re.sub(r"^(\d*)([-+.)])", r"\1\\\2", escaped)


def markdown_line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def markdown(table: Table) -> str:
    """GitHub Markdown: one table a category, intervals beside the values, notes as a list."""
    lines = [f"### {escape_markdown(table.title)}", ""]
    marked = marks(table)
    for category in table.categories:
        places = table.of_category(category)
        heads = ["Method", *(escape_markdown(head(place.column)) for place in places)]
        lines += [f"#### {escape_markdown(category_name(category))}", ""]
        lines += [markdown_line(heads), markdown_line([":--", *["--:"] * len(places)])]
        for group, rows in table.grouped:
            if group.name:
                lines.append(markdown_line([f"*{escape_markdown(group.name)}*", *[""] * len(places)]))
            for index, row in rows:
                cells = [_markdown_cell(row.cells.get(at.key), at, marked.get((index, at.key))) for at in places]
                lines.append(markdown_line([escape_markdown(row.label), *cells]))
        lines.append("")
    best = "Best value of a column in its group **bold**, second best <u>underlined</u>"
    notes = [*legend(table, best, "In brackets", escape_markdown), *map(escape_markdown, table.notes)]
    lines += [*(f"- {note}" for note in notes), ""]
    if table.answers:
        lines += [f"#### {ANSWERS}", "", *(f"- {escape_markdown(answer)}" for answer in table.answers), ""]
    return "\n".join(lines)


def _markdown_cell(cell: Cell | None, place: Place, mark: Mark | None) -> str:
    if cell is None:
        return MISSING
    texts = shown(cell, place.column)
    before, after = {"best": ("**", "**"), "second": ("<u>", "</u>"), None: ("", "")}[mark]
    paper = f"<br>paper {texts.paper} ({texts.difference})" if texts.paper else ""
    dagger = "†" if texts.significant else ""
    return f"{before}{texts.value}{after}{dagger}{rest(texts)}{paper}"


# ---- HTML


def escape_html(text: str) -> str:
    """Text as HTML that shows it, also within an attribute's quotation marks."""
    return escape_spaced(" ".join(text.split()))


def escape_spaced(text: str) -> str:
    """The same for text whose white space counts."""
    return html_format.escape(_CONTROL.sub("\ufffd", text))


def html_notes(notes: Sequence[str]) -> str:
    """Notes, ready as HTML, as the list under a table."""
    return "\n".join(["<ul class='notes'>", *(f"<li>{note}</li>" for note in notes), "</ul>", ""])


def html(table: Table) -> str:
    """A fragment for a page: the table with its caption, then its notes as a list. Everything in it is escaped."""
    marked, places = marks(table), table.places
    heads = ["<th scope='col'></th>"]
    heads += [
        f"<th scope='colgroup' colspan='{len(table.of_category(category))}'>{escape_html(category_name(category))}</th>"
        for category in table.categories
    ]
    names = ["Method", *(escape_html(head(place.column)) for place in places)]
    lines = [f"<table class='scores' id='{table.id}'>", f"<caption>{escape_html(table.title)}</caption>"]
    lines += ["<thead>", f"<tr>{''.join(heads)}</tr>"]
    lines += ["<tr>", *(f"<th scope='col'>{name}</th>" for name in names), "</tr>", "</thead>"]
    for group, rows in table.grouped:
        lines.append("<tbody>")
        if group.name:
            name = escape_html(group.name)
            lines.append(f"<tr><th class='group' scope='rowgroup' colspan='{len(names)}'>{name}</th></tr>")
        for index, row in rows:
            cells = [_html_cell(row.cells.get(at.key), at, marked.get((index, at.key))) for at in places]
            lines.append(f"<tr><th scope='row'>{escape_html(row.label)}</th>{''.join(cells)}</tr>")
        lines.append("</tbody>")
    best = "Best value of a column in its group <b>bold</b>, second best <u>underlined</u>"
    notes = [*legend(table, best, "Small figures", escape_html), *map(escape_html, table.notes)]
    lines += ["</table>", html_notes(notes)]
    if table.answers:
        lines += [f"<h4>{ANSWERS}</h4>", html_notes(list(map(escape_html, table.answers)))]
    return "\n".join(lines)


def _html_cell(cell: Cell | None, place: Place, mark: Mark | None) -> str:
    if cell is None:
        return f"<td>{MISSING}</td>"
    texts = shown(cell, place.column)
    small = [f"<small class='interval'>{texts.low}{MISSING}{texts.high}</small>"]
    small += [f"<small class='sd'>{texts.sd}</small>"] if texts.sd else []
    small += [f"<small class='paper'>paper {texts.paper} ({texts.difference})</small>"] if texts.paper else []
    kind = f" class='{mark}'" if mark else ""
    dagger = "<sup>†</sup>" if texts.significant else ""
    return f"<td{kind}><span>{texts.value}</span>{dagger}{''.join(small)}</td>"
