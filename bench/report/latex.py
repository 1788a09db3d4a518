"""LaTeX: its signs and floats, and a table of scores in it (booktabs, plain ASCII)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from bench.protocols import Column
from bench.report.names import category_name
from bench.report.table import MINUS, MISSING, Key, Mark, Place, Row, Shown, Table, legend, marks, shown

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
_SIGNS = {
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


def escape_latex(text: str, room: float = 200.0) -> str:
    r"""Text as LaTeX that shows it, in ASCII, on one line.

    Accented Latin letters become accents; what pdfLaTeX has no sign for is spelled as its code point (U+1F600).
    Words wider than `room` points may break anywhere, but do so only where nothing else would fit.
    """
    words = unicodedata.normalize("NFC", text).split()
    breaks = [r"\penalty5000 " if text_width(word, FOOTNOTE) > room else "" for word in words]
    return " ".join(cut.join(map(_character, word)) for word, cut in zip(words, breaks, strict=True))


def _character(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    if character.isascii() and character.isprintable():
        return character
    base, *accents = list(unicodedata.normalize("NFD", character))
    if base.isascii() and base.isalpha() and len(accents) == 1 and accents[0] in _ACCENTS:
        return f"\\{_ACCENTS[accents[0]]}{{{base}}}"
    return f"\\texttt{{U+{ord(character):04X}}}"


def text_width(text: str, digit: float) -> float:
    """About how many points a text takes, rather too many; `digit` is the width of a digit."""

    def digits(character: str) -> float:
        if _character(character).startswith(r"\texttt"):
            return 8.0
        if character in ".,:; ":
            return 0.6
        if character in "+−±":
            return 1.6
        if character in "MWm@%":
            return 2.1 if character == "W" else 1.85
        return 1.45 if character.isupper() else 1.05 if character.isalpha() else 1.0

    return digit * sum(map(digits, unicodedata.normalize("NFC", text)))


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


def document(table_id: str) -> str:
    r"""A document that consists of a table; it has to lie in the folder of the table's file, which it inputs."""
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


# ---- a table of scores

Panel = Sequence[Sequence[Place]]
"""The columns of a table environment by category."""


def latex(table: Table) -> str:
    r"""A table environment for \input: booktabs, one group of columns a category, plain ASCII.

    Each row has a second line with the 95% intervals, one with standard deviations over seeds where there are any, and
    two with the paper's scores and the differences from them where it reports any. Categories that do not fit side by
    side continue in a further table environment.
    """
    width = TEXT_WIDTH / 72.27 * 2.54
    lines = [f"% {table.id}: needs \\usepackage{{array,booktabs}} and up to {width:.1f} cm of text width."]
    parts = [("table*" if len(panel) > 1 else "table", _tabular(table, panel)) for panel in _panels(table)]
    best = r"Best value of a column in its group \textbf{bold}, second best \underline{underlined}"
    signs = legend(table, best, "Small figures", escape_latex, r"$^\dagger$")
    notes = " ".join([*signs, *map(escape_latex, [*table.notes, *table.answers])])
    return "\n".join([*lines, *latex_floats(table.id, table.title, parts, COLUMN_GAP / 2, notes), ""])


def _panels(table: Table) -> list[list[list[Place]]]:
    """The columns by table environment and, in it, by category. A category too wide by itself is cut."""
    label = min(LABEL_WIDTH, _label_width(table))
    panels: list[list[list[Place]]] = []
    for category in table.categories:
        blocks: list[list[Place]] = []
        for place in table.of_category(category):
            if blocks and label + _panel_width(table, [[*blocks[-1], place]]) <= TEXT_WIDTH:
                blocks[-1].append(place)
            else:
                blocks.append([place])
        for block in blocks:
            if panels and label + _panel_width(table, [*panels[-1], block]) <= TEXT_WIDTH:
                panels[-1].append(block)
            else:
                panels.append([block])
    return panels


def _label_width(table: Table) -> float:
    return max(text_width(label, FOOTNOTE) for label in ["Method", *(row.label for row in table.rows)]) + 6


def _panel_width(table: Table, panel: Panel) -> float:
    """About how many points the columns take without the labels."""
    widths = [sum(_column_width(table, place) for place in block) for block in panel]
    names = [text_width(category_name(block[0].category), FOOTNOTE) for block in panel]
    return sum(map(max, widths, names)) + 2 * COLUMN_GAP * (len(panel) - 1)


def _column_width(table: Table, place: Place) -> float:
    widths = [text_width(line, SCRIPT) for line in _head_lines(place.column)]
    for row in table.rows:
        if place.key in row.cells:
            cell = shown(row.cells[place.key], place.column)
            widths.append(text_width(cell.value, BOLD) + (DAGGER if cell.significant else 0))
            widths += [text_width(_interval(cell), TINY), text_width(cell.sd, TINY)]
            widths += [text_width(cell.paper, SCRIPT), text_width(_short(cell.difference), TINY)]
    return max(widths) + COLUMN_GAP


def _head_lines(column: Column) -> list[str]:
    """A column's head, a line for each word; a compound (BERTScore) breaks where its second word begins."""
    *lines, last = re.sub(r"(?<=[A-Z]{2})(?=[A-Z][a-z])", "- ", column.head).split() or [""]
    return [*lines, last + column.arrow] if lines else [last, column.arrow]


def _tabular(table: Table, panel: Panel) -> list[str]:
    places = [place for block in panel for place in block]
    room = min(_label_width(table), max(LABEL_WIDTH, TEXT_WIDTH - _panel_width(table, panel)))
    columns = f"@{{\\hspace{{{2 * COLUMN_GAP}pt}}}}".join("r" * len(block) for block in panel)
    lines = [f"\\begin{{tabular}}{{@{{}}{_ragged(room)}{columns}@{{}}}}", r"\toprule", *_heads(panel)]
    marked = marks(table)
    for group, rows in table.grouped:
        lines.append(r"\midrule")
        if group.name:
            name = escape_latex(group.name, room)
            lines.append(f"\\multicolumn{{2}}{{@{{}}{_ragged(room + 20)}}}{{\\itshape {name}}} \\\\")
        for position, (index, row) in enumerate(rows):
            if position:
                lines.append(r"\addlinespace[2pt]")
            lines.append(_row(row, room, places, {place.key: marked.get((index, place.key)) for place in places}))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _ragged(width: float) -> str:
    return f">{{\\raggedright\\arraybackslash}}p{{{width:.0f}pt}}"


def _heads(panel: Panel) -> list[str]:
    categories, rules, heads = [""], [], [r"\scriptsize Method"]
    for block in panel:
        start = len(heads) + 1
        categories.append(f"\\multicolumn{{{len(block)}}}{{c}}{{{escape_latex(category_name(block[0].category))}}}")
        rules.append(f"\\cmidrule(lr){{{start}-{start + len(block) - 1}}}")
        for place in block:
            lines = r"\\".join(map(escape_latex, _head_lines(place.column)))
            heads.append(f"\\scriptsize\\shortstack[r]{{{lines}}}")
    return [" & ".join(categories) + r" \\", "".join(rules), " & ".join(heads) + r" \\"]


def _row(row: Row, room: float, places: Sequence[Place], marked: Mapping[Key, Mark | None]) -> str:
    """A row's lines: values; intervals; deviations, the paper's values and the differences where it has any."""
    cells = [shown(row.cells[place.key], place.column) if place.key in row.cells else None for place in places]
    values = [_value(cell, marked[place.key]) for cell, place in zip(cells, places, strict=True)]
    # In braces: a label that begins with "[" or "*" would be read as an argument of the "\\" above it.
    lines = [[f"{{{escape_latex(row.label, room)}}}", *values]]
    lines.append(["", *(f"\\tiny {_number(_interval(cell))}" if cell else "" for cell in cells)])
    if row.has("sd"):
        lines.append(["", *(f"\\tiny {_number(cell.sd)}" if cell else "" for cell in cells)])
    if row.has("paper"):
        paper = [f"\\scriptsize\\itshape {_number(cell.paper)}" if cell else "" for cell in cells]
        gaps = [f"\\tiny {_number(_short(cell.difference))}" if cell else "" for cell in cells]
        lines += [[r"\scriptsize\itshape Paper", *paper], [r"\scriptsize\itshape Difference", *gaps]]
    return " \\\\[-1.5pt]\n".join(" & ".join(line) for line in lines) + r" \\"


def _value(cell: Shown | None, mark: Mark | None) -> str:
    if cell is None:
        return "--"
    value = _number(cell.value)
    marked = {"best": f"\\textbf{{{value}}}", "second": f"\\underline{{{value}}}", None: value}[mark]
    return marked + (r"$^\dagger$" if cell.significant else "")


def _number(text: str) -> str:
    return (
        text.replace("-", "$-$").replace(MINUS, "$-$").replace("+", "$+$").replace("±", r"$\pm$").replace(MISSING, "--")
    )


def _interval(cell: Shown) -> str:
    return MISSING.join([_short(cell.low), _short(cell.high)])


def _short(number: str) -> str:
    """Without the zero before the point: twelve columns fit a page only so."""
    return re.sub(r"(?<!\d)0\.", ".", number)
