"""A text whose tokens count unlike in training, as a heat map: shades under its lines for a terminal, behind its words
on a page."""

from __future__ import annotations

import bisect
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bench.report.markup import escape_spaced
from bench.report.text import TERMINAL_WIDTH

if TYPE_CHECKING:
    from bench.softprompt.influence import Piece

BOUNDS = (0.75, 1.25, 2.0, 3.0)
"""Weights at which the next shade begins."""
SHADES = " ░▒▓█"
_FROM = [f"{bound:.2f}".lstrip("0") for bound in BOUNDS]
LEGEND = (
    f"weight of a token, 1 on average: {', '.join(f'{a} from {b}' for a, b in zip(SHADES[1:], _FROM, strict=True))}"
)


def shade(weight: float | None) -> int:
    """The number of a weight's shade, 0 to 4."""
    return 0 if weight is None else bisect.bisect_right(BOUNDS, weight)


def terminal(pieces: Sequence[Piece]) -> str:
    """The text, and under each of its lines the shades of what stands above them; the legend last."""
    lines = []
    for line in _lines(pieces):
        text = "".join(character for character, _ in line)
        shades = "".join(SHADES[number] * _columns(character) for character, number in line)
        lines += [text, shades.rstrip()]
    return "\n".join([*lines, LEGEND])


def _lines(pieces: Sequence[Piece]) -> Iterator[list[tuple[str, int]]]:
    """Characters with their shades, by line of the terminal; lines break behind words."""
    line: list[tuple[str, int]] = []
    width = breaks = 0
    for text, weight in pieces:
        for character in text.expandtabs(1):
            if character in "\r\n":
                yield line
                line, width, breaks = [], 0, 0
                continue
            if width + _columns(character) > TERMINAL_WIDTH and line:
                cut = breaks or len(line)
                yield line[:cut]
                line, breaks = line[cut:], 0
                width = sum(_columns(one) for one, _ in line)
            line.append((character, shade(weight)))
            width += _columns(character)
            if character.isspace():
                breaks = len(line)
    yield line


def _columns(character: str) -> int:
    """How many columns of a terminal a character takes."""
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def html_legend() -> str:
    """A line that tells what the shades on a page mean."""
    shades = [f"<span class='heat{number}'>from {bound}</span>" for number, bound in enumerate(_FROM, 1)]
    return f"<p class='heat legend'>Weight of a token, 1 on average: below {_FROM[0]}, {', '.join(shades)}</p>"


def html(pieces: Sequence[Piece]) -> str:
    """A paragraph in which each token has its shade behind it and its weight as a title."""
    spans = [
        escape_spaced(text)
        if weight is None
        else f"<span class='heat{shade(weight)}' title='{weight:.2f}'>{escape_spaced(text)}</span>"
        for text, weight in pieces
    ]
    return f"<p class='heat' dir='auto'>{''.join(spans)}</p>"
