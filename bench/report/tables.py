"""A table of scores as LaTeX, Markdown, HTML, text and CSV. Everything but `write` is a pure function of a `Table`.

Among rows that are ranked together the best value of a column is marked (bold, an asterisk in text) and the second best
underlined. What is compared are the values as shown, so that equal figures carry equal marks. A group that is not
ranked (controls) is set apart and never marked.
"""

from __future__ import annotations

import csv as csv_format
import html as html_format
import io
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.errors import DataError
from bench.report.names import category_name, column
from bench.store import write_atomically

Key = tuple[str, str]
"""(category, column)"""
Mark = Literal["best", "second"]

MISSING = "–"
MINUS = "−"
INTERVAL_LEGEND = "95% bootstrap intervals over users"
SIGNIFICANT = 0.05
"""Adjusted p below which a cell carries a dagger."""


@dataclass(frozen=True)
class Cell:
    """A score, the ends of its 95% interval, what the paper reports there and the standard deviation over seeds, all in
    the score's own unit; `p` is that of its difference to the best row's, adjusted for the comparisons of the table. A
    `signed` cell is a difference of two rows, whose `p` is its own."""

    value: float
    low: float
    high: float
    paper: float | None = None
    sd: float | None = None
    p: float | None = None
    signed: bool = False

    @property
    def difference(self) -> float | None:
        """The value minus the paper's."""
        return None if self.paper is None else self.value - self.paper

    @property
    def significant(self) -> bool:
        """Whether the difference that `p` belongs to is more than chance."""
        return self.p is not None and self.p < SIGNIFICANT


@dataclass(frozen=True)
class Row:
    """A row; `group` is the name of one of the table's groups, a key of `cells` is (category, column)."""

    label: str
    group: str
    cells: Mapping[Key, Cell]


@dataclass(frozen=True)
class Group:
    """Rows that stand together. Its name is shown above them unless it is empty. Groups of one `ranking` are ranked
    together; by default each is by itself."""

    name: str
    ranked: bool
    ranking: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows by group, each with a value for every column of every category. `id` names its files.

    Raises `DataError` for an id that cannot be a file name, a row of an unknown group, a cell of an unknown
    category or column, and a number that is not finite.
    """

    id: str
    title: str
    categories: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str]
    groups: Sequence[Group]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.id):
            raise DataError(f"table id '{self.id}' cannot name a file; use letters, digits, '-' and '_' only")
        groups = [group.name for group in self.groups]
        if len(set(groups)) < len(groups):
            raise DataError(f"{self.id}: two groups have the same name; give each its own")
        keys = set(_keys(self))
        for row in self.rows:
            where = f"{self.id}, row '{row.label}'"
            if row.group not in groups:
                raise DataError(f"{where}: there is no group '{row.group}'; the table has: {', '.join(groups)}")
            for key, cell in row.cells.items():
                if key not in keys:
                    raise DataError(f"{where}: the table has no column {'/'.join(key)}; add it or leave the cell out")
                numbers = [cell.value, cell.low, cell.high, cell.paper, cell.sd, cell.p]
                if not all(math.isfinite(number) for number in numbers if number is not None):
                    raise DataError(f"{where}: {'/'.join(key)} has a number that is not finite; score the run again")


def rankings(table: Table) -> list[list[int]]:
    """The indices of the rows that are ranked together, a list for each ranking."""
    together: dict[str, set[str]] = {}
    for group in (group for group in table.groups if group.ranked):
        together.setdefault(group.name if group.ranking is None else f"\0{group.ranking}", set()).add(group.name)
    return [[i for i, row in enumerate(table.rows) if row.group in groups] for groups in together.values()]


def marks(table: Table) -> dict[tuple[int, Key], Mark]:
    """The marked cells, by (index of the row, key). A column with a single value in a ranking has nothing to rank."""
    marked: dict[tuple[int, Key], Mark] = {}
    for indices in rankings(table):
        for key in _keys(table):
            better = column(key[1]).better
            decimals = column(key[1]).decimals
            shown = {i: round(cell.value, decimals) for i in indices if (cell := table.rows[i].cells.get(key))}
            best_two = sorted(set(shown.values()), reverse=better == "higher")[:2]
            for index, value in shown.items():
                if better and len(shown) > 1 and value in best_two:
                    marked[index, key] = "best" if value == best_two[0] else "second"
    return marked


def _keys(table: Table) -> list[Key]:
    return [(category, name) for category in table.categories for name in table.columns]


def _groups(table: Table) -> list[tuple[Group, list[tuple[int, Row]]]]:
    """The groups that have rows, each with them and their indices in the table."""
    grouped = [(g, [(i, row) for i, row in enumerate(table.rows) if row.group == g.name]) for g in table.groups]
    return [(group, rows) for group, rows in grouped if rows]


def _value(cell: Cell, key: Key) -> str:
    return _signed(cell.value, key) if cell.signed else f"{cell.value:.{column(key[1]).decimals}f}"


def _signed(value: float, key: Key) -> str:
    return f"{value:+.{column(key[1]).decimals}f}".replace("-", MINUS)


def _sd(cell: Cell, key: Key) -> str:
    return "" if cell.sd is None else f"±{cell.sd:.{column(key[1]).decimals}f}"


def _paper(cell: Cell, key: Key) -> str:
    if cell.paper is None:
        return ""
    return _signed(cell.paper, key) if cell.signed else f"{cell.paper:.{column(key[1]).decimals}f}"


def _difference(cell: Cell, key: Key) -> str:
    return "" if cell.difference is None else _signed(cell.difference, key)


def _ends(cell: Cell, key: Key) -> tuple[str, str]:
    decimals = column(key[1]).interval_decimals
    return f"{cell.low:.{decimals}f}", f"{cell.high:.{decimals}f}"


def _legend(table: Table, marks: str, where: str, escape: Callable[[str], str], dagger: str = "†") -> list[str]:
    """What marks, brackets and signs mean, as far as they stand in the table."""
    cells = [cell for row in table.rows for cell in row.cells.values()]
    parts = [f"{marks}{_not_ranked(table, escape)}.", f"{where}: {escape(INTERVAL_LEGEND)}."]
    if any(cell.sd is not None for cell in cells):
        parts.append(escape("±: standard deviation over seeds; values are means over them."))
    if any(cell.p is not None for cell in cells):
        signed = " (in a row of differences: other than 0)" if any(cell.signed for cell in cells) else ""
        parts.append(f"{dagger}: {escape(DAGGER_LEGEND.format(signed=signed))}")
    if any(cell.paper is not None for cell in cells):
        parts.append(escape("Paper: what the paper reports; difference: ours minus the paper's."))
    return parts


DAGGER_LEGEND = (
    "significantly worse than the best of its column{signed}, sign-flip test over users, p below 5% after Holm's "
    "adjustment for all tests of the table. The best was found on the same instances."
)


def _not_ranked(table: Table, escape: Callable[[str], str]) -> str:
    names = [escape(group.name) for group, _ in _groups(table) if group.name and not group.ranked]
    return f" (not ranked: {', '.join(names)})" if names else ""


def _has(row: Row, name: str) -> bool:
    return any(getattr(cell, name) is not None for cell in row.cells.values())


# ---- LaTeX

TEXT_WIDTH = 482.0
"""Points a table may take: the text width of an A4 page with margins of 2 cm."""
LABEL_WIDTH = 60.0
"""Points the row labels may always take; longer ones wrap where the columns leave no more."""
COLUMN_GAP = 2.5
TINY, SCRIPT, FOOTNOTE, BOLD = 3.4, 3.98, 4.25, 4.9
"""Width in points of a digit of Computer Modern in the sizes used; BOLD is that of \footnotesize."""
DAGGER = 4.0
"""Width of a raised dagger."""

# fmt: off
# Only signs of the default fonts: those of TS1 (\textdollar, \textsection) become bitmaps where cm-super is missing.
_LATEX = {
    "%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "{": r"\{", "}": r"\}", "$": r"$\mathdollar$",
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "`": r"\char96{}", '"': r"\char34{}",
    # Kept apart, or TeX makes one dash of two hyphens.
    "-": "-{}",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "œ": r"\oe{}", "Œ": r"\OE{}",
    "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "\u2018": r"\textquoteleft{}", "\u2019": r"\textquoteright{}",
    "“": r"\textquotedblleft{}", "”": r"\textquotedblright{}", "\u2013": r"\textendash{}", "—": r"\textemdash{}",
    "…": r"\textellipsis{}", "·": r"$\cdot$", "§": r"$\mathsection$",
    "±": r"$\pm$", "\u00d7": r"$\times$", "\u2212": r"$-$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$",
    "→": r"$\rightarrow$", "←": r"$\leftarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "∞": r"$\infty$",
    "\u03b1": r"$\alpha$", "β": r"$\beta$", "\u03b3": r"$\gamma$", "δ": r"$\delta$", "ε": r"$\epsilon$",
    "λ": r"$\lambda$", "μ": r"$\mu$", "\u03c1": r"$\rho$", "\u03c3": r"$\sigma$", "φ": r"$\phi$",
}
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}
# fmt: on


def latex(table: Table, intervals: bool = True) -> str:
    r"""A table environment for \input: booktabs, one group of columns a category, plain ASCII.

    With `intervals` each row has a second line with the 95% intervals, one with standard deviations over seeds where
    there are any, and two with the paper's scores and the differences from them where it reports any. Categories that
    do not fit side by side continue in a further table environment.
    """
    width = TEXT_WIDTH / 72.27 * 2.54
    lines = [f"% {table.id}: needs \\usepackage{{array,booktabs}} and up to {width:.1f} cm of text width."]
    parts = [
        ("table*" if len(panel) > 1 else "table", _latex_panel(table, panel, intervals))
        for panel in _panels(table, intervals)
    ]
    notes = " ".join([_latex_legend(table, intervals), *map(escape_latex, table.notes)])
    return "\n".join([*lines, *latex_floats(table.id, table.title, parts, COLUMN_GAP / 2, notes), ""])


def latex_floats(
    table_id: str, title: str, parts: Sequence[tuple[str, Sequence[str]]], gap: float, notes: str
) -> list[str]:
    """The environments of a table's parts, each the name of its environment and the lines of its tabular: the caption
    above, marked from the second one on as continued, and the notes, ready as LaTeX, under the last. `gap` is half the
    space between columns in points."""
    lines: list[str] = []
    for number, (floating, tabular) in enumerate(parts):
        caption = f"\\caption{{{escape_latex(title)}}}\\label{{tab:{table_id}}}"
        if number:
            caption = f"\\addtocounter{{table}}{{-1}}\\caption{{{escape_latex(title)} (continued)}}"
        lines += [f"\\begin{{{floating}}}[tp]", r"\centering", caption, r"\par\smallskip\footnotesize"]
        lines += [f"\\setlength{{\\tabcolsep}}{{{gap}pt}}", *tabular]
        if number == len(parts) - 1:
            lines += [r"\par\smallskip", r"\begin{minipage}{\linewidth}\scriptsize\raggedright", notes]
            lines += [r"\end{minipage}"]
        lines.append(f"\\end{{{floating}}}")
    return lines


def latex_alone(table: Table) -> str:
    r"""A document that consists of the table; it has to lie in the folder of the table's file, which it inputs."""
    return _document(table.id)


def _document(table_id: str) -> str:
    number = re.match(r"table(\d+)", table_id)
    return "\n".join(
        [
            r"\documentclass[10pt]{article}",
            r"\usepackage[a4paper,margin=2cm]{geometry}",
            r"\usepackage{array,booktabs}",
            r"\pagestyle{empty}",
            r"\begin{document}",
            # The paper's number; \input into another document counts that document's tables.
            *([f"\\setcounter{{table}}{{{int(number[1]) - 1}}}"] if number else []),
            f"\\input{{{table_id}.tex}}",
            r"\end{document}",
            "",
        ]
    )


def escape_latex(text: str, room: float = 200.0) -> str:
    r"""Text as LaTeX that shows it, in ASCII, on one line.

    Accented Latin letters become accents; what pdfLaTeX has no sign for is spelled as its code point (U+1F600).
    Words wider than `room` points may break anywhere, but do so only where nothing else would fit.
    """
    words = unicodedata.normalize("NFC", text).split()
    breaks = [r"\penalty5000 " if _width(word, FOOTNOTE) > room else "" for word in words]
    return " ".join(cut.join(map(_latex_character, word)) for word, cut in zip(words, breaks, strict=True))


def _latex_character(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if character.isascii() and character.isprintable():
        return character
    base, *accents = list(unicodedata.normalize("NFD", character))
    if base.isascii() and base.isalpha() and len(accents) == 1 and accents[0] in _ACCENTS:
        return f"\\{_ACCENTS[accents[0]]}{{{base}}}"
    return f"\\texttt{{U+{ord(character):04X}}}"


def _width(text: str, digit: float) -> float:
    """About how many points a text takes, rather too many; `digit` is the width of a digit."""

    def digits(character: str) -> float:
        if _latex_character(character).startswith(r"\texttt"):
            return 8.0
        if character in ".,:; ":
            return 0.6
        if character in "+−±":
            return 1.6
        if character in "MWm@%":
            return 2.1 if character == "W" else 1.85
        return 1.45 if character.isupper() else 1.05 if character.isalpha() else 1.0

    return digit * sum(map(digits, unicodedata.normalize("NFC", text)))


def _latex_legend(table: Table, intervals: bool) -> str:
    best = r"Best value of a column in its group \textbf{bold}, second best \underline{underlined}"
    if not intervals:
        return f"{best}{_not_ranked(table, escape_latex)}."
    return " ".join(_legend(table, best, "Small figures", escape_latex, r"$^\dagger$"))


def _panels(table: Table, intervals: bool) -> list[list[list[Key]]]:
    """The columns by table environment and, in it, by category. A category too wide by itself is cut."""
    label = min(LABEL_WIDTH, _label_width(table))
    panels: list[list[list[Key]]] = []
    for category in table.categories:
        blocks: list[list[Key]] = []
        for key in ((category, name) for name in table.columns):
            if blocks and label + _panel_width(table, [[*blocks[-1], key]], intervals) <= TEXT_WIDTH:
                blocks[-1].append(key)
            else:
                blocks.append([key])
        for block in blocks:
            if panels and label + _panel_width(table, [*panels[-1], block], intervals) <= TEXT_WIDTH:
                panels[-1].append(block)
            else:
                panels.append([block])
    return panels


def _label_width(table: Table) -> float:
    return max(_width(label, FOOTNOTE) for label in ["Method", *(row.label for row in table.rows)]) + 6


def _panel_width(table: Table, blocks: Sequence[Sequence[Key]], intervals: bool) -> float:
    """About how many points the columns take without the labels."""
    widths = [sum(_column_width(table, key, intervals) for key in block) for block in blocks]
    names = [_width(category_name(block[0][0]), FOOTNOTE) for block in blocks]
    return sum(map(max, widths, names)) + 2 * COLUMN_GAP * (len(blocks) - 1)


def _column_width(table: Table, key: Key, intervals: bool) -> float:
    widths = [_width(line, SCRIPT) for line in _head_lines(key[1])]
    for cell in (row.cells[key] for row in table.rows if key in row.cells):
        widths.append(_width(_value(cell, key), BOLD) + (DAGGER if cell.significant else 0))
        if intervals:
            widths.append(_width(_short_interval(cell, key), TINY))
            widths.append(_width(_sd(cell, key), TINY))
            widths += [_width(_paper(cell, key), SCRIPT), _width(_short(_difference(cell, key)), TINY)]
    return max(widths) + COLUMN_GAP


def _head_lines(name: str) -> list[str]:
    """A column's head, a line for each word; a compound (BERTScore) breaks where its second word begins."""
    *lines, last = re.sub(r"(?<=[A-Z]{2})(?=[A-Z][a-z])", "- ", column(name).head).split() or [""]
    return [*lines, last + column(name).arrow] if lines else [last, column(name).arrow]


def _latex_panel(table: Table, panel: Sequence[Sequence[Key]], intervals: bool) -> list[str]:
    keys = [key for block in panel for key in block]
    room = min(_label_width(table), max(LABEL_WIDTH, TEXT_WIDTH - _panel_width(table, panel, intervals)))
    columns = f"@{{\\hspace{{{2 * COLUMN_GAP}pt}}}}".join("r" * len(block) for block in panel)
    lines = [f"\\begin{{tabular}}{{@{{}}{_ragged(room)}{columns}@{{}}}}", r"\toprule", *_latex_heads(panel)]
    marked = marks(table)
    for group, rows in _groups(table):
        lines.append(r"\midrule")
        if group.name:
            name = escape_latex(group.name, room)
            lines.append(f"\\multicolumn{{2}}{{@{{}}{_ragged(room + 20)}}}{{\\itshape {name}}} \\\\")
        for position, (index, row) in enumerate(rows):
            if position and intervals:
                lines.append(r"\addlinespace[2pt]")
            lines.append(_latex_row(row, room, keys, {key: marked.get((index, key)) for key in keys}, intervals))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _ragged(width: float) -> str:
    return f">{{\\raggedright\\arraybackslash}}p{{{width:.0f}pt}}"


def _latex_heads(panel: Sequence[Sequence[Key]]) -> list[str]:
    categories, rules, heads = [""], [], [r"\scriptsize Method"]
    for block in panel:
        start = len(heads) + 1
        categories.append(f"\\multicolumn{{{len(block)}}}{{c}}{{{escape_latex(category_name(block[0][0]))}}}")
        rules.append(f"\\cmidrule(lr){{{start}-{start + len(block) - 1}}}")
        for key in block:
            lines = r"\\".join(map(escape_latex, _head_lines(key[1])))
            heads.append(f"\\scriptsize\\shortstack[r]{{{lines}}}")
    return [" & ".join(categories) + r" \\", "".join(rules), " & ".join(heads) + r" \\"]


def _latex_row(row: Row, room: float, keys: Sequence[Key], marked: Mapping[Key, Mark | None], intervals: bool) -> str:
    cells = [(row.cells.get(key), key) for key in keys]
    # In braces: a label that begins with "[" or "*" would be read as an argument of the "\\" above it.
    lines = [[f"{{{escape_latex(row.label, room)}}}", *(_latex_value(cell, key, marked[key]) for cell, key in cells)]]
    if intervals:
        small = [f"\\tiny {_latex_number(_short_interval(cell, key))}" if cell else "" for cell, key in cells]
        lines.append(["", *small])
    if intervals and _has(row, "sd"):
        lines.append(["", *(f"\\tiny {_latex_number(_sd(cell, key))}" if cell else "" for cell, key in cells)])
    if intervals and _has(row, "paper"):
        paper = [f"\\scriptsize\\itshape {_latex_number(_paper(cell, key))}" if cell else "" for cell, key in cells]
        gaps = [f"\\tiny {_latex_number(_short(_difference(cell, key)))}" if cell else "" for cell, key in cells]
        lines += [[r"\scriptsize\itshape Paper", *paper], [r"\scriptsize\itshape Difference", *gaps]]
    return " \\\\[-1.5pt]\n".join(" & ".join(line) for line in lines) + r" \\"


def _latex_value(cell: Cell | None, key: Key, mark: Mark | None) -> str:
    if cell is None:
        return "--"
    value = _latex_number(_value(cell, key))
    marked = {"best": f"\\textbf{{{value}}}", "second": f"\\underline{{{value}}}", None: value}[mark]
    return marked + (r"$^\dagger$" if cell.significant else "")


def _latex_number(text: str) -> str:
    return (
        text.replace("-", "$-$").replace(MINUS, "$-$").replace("+", "$+$").replace("±", r"$\pm$").replace(MISSING, "--")
    )


def _short_interval(cell: Cell, key: Key) -> str:
    return MISSING.join(_short(end) for end in _ends(cell, key))


def _short(number: str) -> str:
    """Without the zero before the point: twelve columns fit a page only so."""
    return re.sub(r"(?<!\d)0\.", ".", number)


# ---- Markdown


def markdown(table: Table) -> str:
    """GitHub Markdown: one table a category, intervals beside the values, notes as a list."""
    lines = [f"### {escape_markdown(table.title)}", ""]
    marked = marks(table)
    for category in table.categories:
        keys = [(category, name) for name in table.columns]
        heads = [
            "Method",
            *(f"{escape_markdown(column(name).head)} {column(name).arrow}".strip() for name in table.columns),
        ]
        lines += [f"#### {escape_markdown(category_name(category))}", ""]
        lines += [markdown_line(heads), markdown_line([":--", *["--:"] * len(keys)])]
        for group, rows in _groups(table):
            if group.name:
                lines.append(markdown_line([f"*{escape_markdown(group.name)}*", *[""] * len(keys)]))
            for index, row in rows:
                cells = [_markdown_cell(row.cells.get(key), key, marked.get((index, key))) for key in keys]
                lines.append(markdown_line([escape_markdown(row.label), *cells]))
        lines.append("")
    best = "Best value of a column in its group **bold**, second best <u>underlined</u>"
    legend = _legend(table, best, "In brackets", escape_markdown)
    return "\n".join([*lines, *(f"- {note}" for note in [*legend, *map(escape_markdown, table.notes)]), ""])


def escape_markdown(text: str) -> str:
    """Text as GitHub Markdown that shows it, on one line."""
    escaped = re.sub(r"([\\`*_\[\]<>|~#$]|&(?=#?\w+;))", r"\\\1", " ".join(text.split()))
    # A list within the list, if it stood at the beginning.
    return re.sub(r"^(\d*)([-+.)])", r"\1\\\2", escaped)


def markdown_line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(cell: Cell | None, key: Key, mark: Mark | None) -> str:
    if cell is None:
        return MISSING
    before, after = {"best": ("**", "**"), "second": ("<u>", "</u>"), None: ("", "")}[mark]
    paper = f"<br>paper {_paper(cell, key)} ({_difference(cell, key)})" if cell.paper is not None else ""
    dagger = "†" if cell.significant else ""
    return f"{before}{_value(cell, key)}{after}{dagger}{_plain_rest(cell, key)}{paper}"


# ---- text

TERMINAL_WIDTH = 120


def plain(table: Table) -> str:
    """Aligned text for a terminal: a block for each category, an asterisk before the best values. A block is split
    where it would pass 120 columns; only a very long label goes beyond."""
    marked = marks(table)
    blocks = [" ".join(table.title.split())]
    for category in table.categories:
        labels, *columns = _plain_columns(table, category, marked)
        width = max(map(len, labels))
        for part in in_parts([len(texts[0]) + 2 for texts in columns], TERMINAL_WIDTH - width):
            heading = category_name(category)
            lines = [
                "  ".join([labels[i].ljust(width), *(columns[n][i] for n in part)]).rstrip() for i in range(len(labels))
            ]
            blocks.append("\n".join([heading, *lines]))
    legend = _legend(table, "* best of the column in its group", "In brackets", str)
    return "\n\n".join([*blocks, "\n".join(" ".join(note.split()) for note in [*legend, *table.notes])]) + "\n"


def _plain_columns(table: Table, category: str, marked: Mapping[tuple[int, Key], Mark]) -> list[list[str]]:
    """The column of labels and those of one category's scores, all with the same lines, scores right-aligned."""
    keys = [(category, name) for name in table.columns]
    lines = [["Method", *(column(name).head for name in table.columns)]]
    for group, rows in _groups(table):
        if group.name:
            lines.append([f"-- {group.name}", *[""] * len(keys)])
        for index, row in rows:
            cells = [_plain_cell(row.cells.get(key), key, marked.get((index, key))) for key in keys]
            lines.append([" ".join(row.label.split()), *cells])
            if any(key in row.cells and row.cells[key].paper is not None for key in keys):
                # Under the value, not under what stands behind it.
                widths = [len(_plain_rest(row.cells[key], key)) if key in row.cells else 0 for key in keys]
                for label, shown in (("paper", _paper), ("difference", _difference)):
                    texts = [shown(row.cells[key], key) if key in row.cells else "" for key in keys]
                    padded = [text + " " * width for text, width in zip(texts, widths, strict=True)]
                    lines.append([f"  {label}", *padded])
    labels, *scores = (list(lines) for lines in zip(*lines, strict=True))
    return [labels, *([text.rjust(max(map(len, texts))) for text in texts] for texts in scores)]


def _plain_cell(cell: Cell | None, key: Key, mark: Mark | None) -> str:
    if cell is None:
        return MISSING
    sign = "*" if mark == "best" else "†" if cell.significant else ""
    return sign + _value(cell, key) + _plain_rest(cell, key)


def _plain_rest(cell: Cell, key: Key) -> str:
    """What stands behind a value: the deviation and the interval."""
    sd = f" {_sd(cell, key)}" if cell.sd is not None else ""
    return f"{sd} [{', '.join(_ends(cell, key))}]"


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


def csv(table: Table) -> str:
    """One line a cell: row, group, category, column, value, low, high, paper, difference, sd, p; numbers in full
    precision."""
    names = ["value", "low", "high", "paper", "difference", "sd", "p"]
    lines = [
        [row.label, row.group, *key, *(getattr(row.cells[key], name) for name in names)]
        for row in table.rows
        for key in _keys(table)
        if key in row.cells
    ]
    return csv_text(["row", "group", "category", "column", *names], lines)


def csv_text(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Lines under their heads as CSV."""
    text = io.StringIO()
    csv_format.writer(text, lineterminator="\n").writerows([heads, *lines])
    return text.getvalue()


# ---- HTML


def html(table: Table) -> str:
    """A fragment for a page: the table with its caption, then its notes as a list. Everything in it is escaped."""
    marked = marks(table)
    heads = ["<th scope='col'></th>"]
    heads += [
        f"<th scope='colgroup' colspan='{len(table.columns)}'>{escape_html(category_name(category))}</th>"
        for category in table.categories
    ]
    names = [escape_html(f"{column(name).head} {column(name).arrow}".strip()) for _, name in _keys(table)]
    lines = [f"<table class='scores' id='{table.id}'>", f"<caption>{escape_html(table.title)}</caption>"]
    lines += ["<thead>", f"<tr>{''.join(heads)}</tr>"]
    lines += ["<tr>", *(f"<th scope='col'>{name}</th>" for name in ["Method", *names]), "</tr>", "</thead>"]
    for group, rows in _groups(table):
        lines.append("<tbody>")
        if group.name:
            span = len(names) + 1
            lines.append(f"<tr><th class='group' scope='rowgroup' colspan='{span}'>{escape_html(group.name)}</th></tr>")
        for index, row in rows:
            cells = [_html_cell(row.cells.get(key), key, marked.get((index, key))) for key in _keys(table)]
            lines.append(f"<tr><th scope='row'>{escape_html(row.label)}</th>{''.join(cells)}</tr>")
        lines.append("</tbody>")
    best = "Best value of a column in its group <b>bold</b>, second best <u>underlined</u>"
    legend = _legend(table, best, "Small figures", escape_html)
    return "\n".join([*lines, "</table>", html_notes([*legend, *map(escape_html, table.notes)])])


def html_notes(notes: Sequence[str]) -> str:
    """Notes, ready as HTML, as the list under a table."""
    return "\n".join(["<ul class='notes'>", *(f"<li>{note}</li>" for note in notes), "</ul>", ""])


def escape_html(text: str) -> str:
    """Text as HTML that shows it, also within an attribute's quotation marks."""
    return html_format.escape(" ".join(text.split()))


def _html_cell(cell: Cell | None, key: Key, mark: Mark | None) -> str:
    if cell is None:
        return f"<td>{MISSING}</td>"
    rest = [f"<small class='interval'>{MISSING.join(_ends(cell, key))}</small>"]
    rest += [f"<small class='sd'>{_sd(cell, key)}</small>"] if cell.sd is not None else []
    if cell.paper is not None:
        rest.append(f"<small class='paper'>paper {_paper(cell, key)} ({_difference(cell, key)})</small>")
    kind = f" class='{mark}'" if mark else ""
    dagger = "<sup>†</sup>" if cell.significant else ""
    return f"<td{kind}><span>{_value(cell, key)}</span>{dagger}{''.join(rest)}</td>"


# ---- files


def write(table: Table, folder: Path) -> list[Path]:
    """Write ID.tex (for \\input), ID_alone.tex (a document), ID.md, ID.html (a fragment) and ID.csv; returns their
    paths. Raises `StoreError` if one cannot be written."""
    return write_files(table.id, latex(table), markdown(table), html(table), csv(table), folder)


def write_files(table_id: str, as_latex: str, as_markdown: str, as_html: str, as_csv: str, folder: Path) -> list[Path]:
    """Write the renderings of any table, as `write` does."""
    texts = {
        f"{table_id}.tex": as_latex,
        f"{table_id}_alone.tex": _document(table_id),
        f"{table_id}.md": as_markdown,
        f"{table_id}.html": as_html,
        f"{table_id}.csv": as_csv,
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]
