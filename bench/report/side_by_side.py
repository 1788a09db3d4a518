"""One instance: what methods wrote beside the user's real text (the paper's Table 10 and Figure 7)."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.report.files import write_files
from bench.report.latex import TEXT_WIDTH, escape_latex, latex_floats
from bench.report.markup import escape_html, escape_markdown, html_notes
from bench.report.text import TERMINAL_WIDTH, csv_text

EMPTY = "(empty)"

Segment = tuple[str, bool]
"""A piece of a text, and whether it is emphasised."""


@dataclass(frozen=True)
class Text:
    """A text under its source's name, cut into segments that make it up."""

    label: str
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(text for text, _ in self.segments)


@dataclass(frozen=True)
class SideBySide:
    r"""The texts of one instance, the real one last. `facts` are what a person is shown of it (`Task.shown`), by label.
    `id` names the files and, as tab:ID, what \ref refers to."""

    id: str
    title: str
    facts: Mapping[str, str]
    texts: tuple[Text, ...]
    notes: tuple[str, ...]


def _rendered(segments: Sequence[Segment], escape: Callable[[str], str], mark: tuple[str, str], seam: str = "") -> str:
    """Segments escaped and marked, on one line; `seam` stands where two of them touch."""
    rendered, spaced = "", True
    for text, bold in segments:
        gap = " " if spaced or text[:1].isspace() else seam
        spaced = text[-1:].isspace()
        if shown := escape(text.strip()):
            rendered += (gap if rendered else "") + (f"{mark[0]}{shown}{mark[1]}" if bold else shown)
        else:
            spaced = True
    return rendered or escape(EMPTY)


# ---- LaTeX

LABEL_SHARE, TEXT_SHARE = 0.16, 0.82
"""Of the width of the page's text: the column of the sources and that of the texts."""
PAGE_LINES, PART_LINES = 56, 20
"""Lines that a page takes beside the caption, and those after which a text may go on on the next page."""


@dataclass(frozen=True)
class _Row:
    """A row of the LaTeX table: its label, None where it goes on with the text above; its text as LaTeX; what separates
    it from the row above; how many lines it takes, about."""

    label: str | None
    text: str
    rule: str
    lines: float


def latex(shown: SideBySide) -> str:
    r"""A table environment for \input: booktabs, plain ASCII, as wide as the text of the page. What does not fit a page
    continues in a further environment."""
    lines = [f"% {shown.id}: needs \\usepackage{{array,booktabs}}; as wide as the text, of at least 11 cm."]
    columns = [f">{{\\raggedright\\arraybackslash}}p{{{share}\\linewidth}}" for share in (LABEL_SHARE, TEXT_SHARE)]
    notes = r"\par ".join(map(escape_latex, shown.notes))
    pages = _pages(_latex_rows(shown), sum(map(_lines, shown.notes)))
    parts = []
    for rows in pages:
        tabular = [f"\\begin{{tabular}}{{@{{}}{''.join(columns)}@{{}}}}", r"\toprule"]
        for position, row in enumerate(rows):
            label = row.label if row.label is not None else "" if position else "(continued)"
            # In braces: a label that begins with "[" or "*" would be read as an argument of the "\\" above it.
            tabular.append(f"{row.rule if position else ''}{{{escape_latex(label, 55)}}} & {row.text} \\\\")
        parts.append(("table*", [*tabular, r"\bottomrule", r"\end{tabular}"]))
    return "\n".join([*lines, *latex_floats(shown.id, shown.title, parts, 3.0, notes), ""])


def _latex_rows(shown: SideBySide) -> list[_Row]:
    rows = [_latex_row(name, ((value, False),), "") for name, value in shown.facts.items()]
    for index, text in enumerate(shown.texts):
        rule = "\\midrule\n" if index in (0, len(shown.texts) - 1) else "\\addlinespace[3pt]\n"
        first, *others = _parts(text.segments)
        rows += [_latex_row(text.label, first, rule), *(_latex_row(None, part, "") for part in others)]
    return rows


def _latex_row(label: str | None, segments: Sequence[Segment], rule: str) -> _Row:
    # Short words may break, too: emphasis can cut a long one into pieces.
    text = _rendered(segments, lambda piece: escape_latex(piece, 55), (r"\textbf{", "}"), seam=r"\penalty5000 ")
    taken = sum(_lines(piece) for piece, _ in segments)
    return _Row(label, text, rule, max(taken, _lines(label or "") * TEXT_SHARE / LABEL_SHARE) + 0.6)


def _parts(segments: Sequence[Segment]) -> list[list[Segment]]:
    """The segments in parts of at most `PART_LINES`, cut between words where there are any."""
    parts: list[list[Segment]] = [[]]
    taken = 0.0
    for text, bold in segments:
        begun = False
        for piece in re.findall(r"\S{1,60}\s*|\s+", text):
            need = _lines(piece)
            if taken + need > PART_LINES:
                parts.append([])
                taken, begun = 0.0, False
            taken += need
            if begun:
                parts[-1][-1] = (parts[-1][-1][0] + piece, bold)
            else:
                parts[-1].append((piece, bold))
                begun = True
    return parts


def _pages(rows: Sequence[_Row], notes: float) -> list[list[_Row]]:
    """The rows by page; the notes take lines beside the last of them."""
    pages: list[list[_Row]] = [[]]
    left = float(PAGE_LINES)
    for number, row in enumerate(rows):
        need = row.lines + (notes if number == len(rows) - 1 else 0)
        if need > left and pages[-1]:
            pages.append([])
            left = PAGE_LINES
        pages[-1].append(row)
        left -= need
    return pages


def _lines(text: str) -> float:
    """About how many lines of the column of texts a text takes, rather too many."""
    points = 0.0
    for character in text:
        if character.isascii():
            points += 8.5 if character in "MWmw@%" else 6.5 if character.isupper() else 4.7
        else:
            points += 34 if escape_latex(character).startswith(r"\texttt") else 8.5
    return points / (0.95 * TEXT_SHARE * TEXT_WIDTH)


# ---- Markdown, HTML, text, CSV


def markdown(shown: SideBySide) -> str:
    """GitHub Markdown: what was given as a list, the texts as a table, notes as a list."""
    lines = [f"### {escape_markdown(shown.title)}", ""]
    lines += [f"- {name}: {_escape_markdown(value)}" for name, value in shown.facts.items()]
    lines += ["", "| Source | Text |", "| :-- | :-- |"]
    for text in shown.texts:
        lines.append(f"| {_escape_markdown(text.label)} | {_rendered(text.segments, _escape_markdown, ('**', '**'))} |")
    return "\n".join([*lines, "", *(f"- {escape_markdown(note)}" for note in shown.notes), ""])


def _escape_markdown(text: str) -> str:
    """Text within a line, where "2." begins no list."""
    return escape_markdown(f"x{text}")[1:]


def html(shown: SideBySide) -> str:
    """A fragment for a page: the table with its caption, then its notes as a list. Everything in it is escaped; shared
    phrases are in <mark>."""
    lines = [f"<table class='texts' id='{shown.id}'>", f"<caption>{escape_html(shown.title)}</caption>", "<tbody>"]
    for name, value in shown.facts.items():
        lines.append(f"<tr><th scope='row'>{escape_html(name)}</th><td dir='auto'>{escape_html(value)}</td></tr>")
    lines += ["</tbody>", "<tbody>"]
    for text in shown.texts:
        cell = _rendered(text.segments, escape_html, ("<mark>", "</mark>"))
        lines.append(f"<tr><th scope='row'>{escape_html(text.label)}</th><td dir='auto'>{cell}</td></tr>")
    return "\n".join([*lines, "</tbody>", "</table>", html_notes([escape_html(note) for note in shown.notes])])


def plain(shown: SideBySide) -> str:
    """Text for a terminal; asterisks around shared phrases."""
    blocks = [shown.title, "\n".join(f"{name}: {value}" for name, value in shown.facts.items())]
    for text in shown.texts:
        words = _rendered(text.segments, str, ("*", "*"))
        blocks.append(f"{text.label}\n{textwrap.indent(textwrap.fill(words, TERMINAL_WIDTH - 2), '  ')}")
    return "\n\n".join([*blocks, "\n".join(shown.notes)]) + "\n"


def csv(shown: SideBySide) -> str:
    """One line a text: its source, the text, the emphasised phrases by " | "; before them what was given."""
    given = [[name, value, ""] for name, value in shown.facts.items()]
    shared = [" | ".join(piece for piece, bold in own.segments if bold) for own in shown.texts]
    texts = [[own.label, own.text, phrases] for own, phrases in zip(shown.texts, shared, strict=True)]
    return csv_text(["source", "text", "shared"], [*given, *texts])


def write(shown: SideBySide, folder: Path) -> list[Path]:
    """Write ID.tex (for \\input), ID_alone.tex (a document), ID.md, ID.html (a fragment) and ID.csv; returns their
    paths. Raises `StoreError` if one cannot be written."""
    return write_files(shown.id, latex(shown), markdown(shown), html(shown), csv(shown), folder)
