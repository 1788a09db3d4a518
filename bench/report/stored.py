"""The tables and figures under results/, as they were rendered, for the report's page."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.errors import StoreError
from bench.places import by_name
from bench.progress import say
from bench.report.markup import escape_html

TIMING = "timing"
"""How the ids of the tables begin that have a section of their own."""


def tables(folder: Path, places: Iterable[str] = (), timing: bool = False) -> list[str]:
    """The tables of a folder, each in a box that scrolls by itself; those of timings, or all others. Of `places`, which
    an older version wrote, their last parts are shown."""
    known = [escape_html(place) for place in places]
    paths = [path for path in folder.glob("*.html") if path.stem.startswith(TIMING) == timing]
    return _sections(paths, lambda path, name: by_name(_table(path, name), known))


def figures(folder: Path) -> list[str]:
    """The pictures of a folder, each with the numbers it shows."""
    return _sections(folder.glob("*.png"), _figure)


def _sections(paths: Iterable[Path], section: Callable[[Path, str], str]) -> list[str]:
    """Each file under its heading, or, for one that cannot be read, why: it costs no other."""
    sections = []
    for path in _in_order(paths):
        name = escape_html(_heading(path.stem))
        try:
            content = section(path, name)
        except StoreError as error:
            reason = str(error).replace(f"{path.parent}/", "")
            say(f"left out: {reason}")
            content = f"<p class='left-out'>Left out: {escape_html(reason)}</p>"
        sections.append(f"<h3>{name}</h3>\n{content}")
    return sections


def _table(path: Path, name: str) -> str:
    table = read_text(path)
    if not table.count("<table") == table.count("</table>") == 1:
        raise StoreError(f"{path} is not whole; render its table again")
    box = f"<div class='scroll' tabindex='0' role='region' aria-label='{name}'>"
    # Texts in it are escaped: what looks like a tag is one.
    return table.replace("<table", f"{box}\n<table").replace("</table>", "</table>\n</div>")


def _figure(path: Path, name: str) -> str:
    try:
        picture = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}; draw the figure again") from error
    numbers = path.with_suffix(".csv")
    table = _numbers(name, numbers) if numbers.exists() else ""
    where = "its numbers are below" if table else "its numbers were not stored"
    image = f"<img src='data:image/png;base64,{picture}' alt='{name}; {where}' loading='lazy'>"
    return f"<figure>{image}</figure>\n{table}"


def read_text(path: Path) -> str:
    """The content of a text file. Raises `StoreError`."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read: {error}; render its table or figure again") from error


def _heading(name: str) -> str:
    """ "table1-paper-7b" as "Table 1 (paper-7b)"; other names as they are, without underscores."""
    match = re.fullmatch(r"(table|figure)(\d+)[-_]?(.*)", name)
    if match is None:
        return name.replace("_", " ").capitalize()
    kind, number, rest = match.groups()
    return f"{kind.capitalize()} {number}" + (f" ({rest.replace('_', ' ')})" if rest else "")


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """By name, "table10" behind "table9"; the paper's tables first, then its figures."""

    def key(path: Path) -> tuple[int, list[str | int]]:
        # Text and numbers take turns.
        parts = re.split(r"([0-9]+)", path.stem)
        return {"table": 0, "figure": 1}.get(parts[0], 2), [
            int(part) if i % 2 else part for i, part in enumerate(parts)
        ]

    return sorted(paths, key=key)


def _numbers(name: str, path: Path) -> str:
    try:
        head, *rows = [*csv.reader(io.StringIO(read_text(path), newline=""))] or [[]]
    except csv.Error as error:
        raise StoreError(f"{path} cannot be read: {error}; draw the figure again") from error
    lines = ["<details>", f"<summary>Numbers of {name}</summary>"]
    lines += [f"<div class='scroll' tabindex='0' role='region' aria-label='Numbers of {name}'>", "<table class='grid'>"]
    heads = "".join(f"<th scope='col'>{escape_html(text)}</th>" for text in head)
    lines += [f"<thead><tr>{heads}</tr></thead>", "<tbody>"]
    for row in rows:
        cells = "".join(f"<td>{escape_html(text)}</td>" for text in row)
        lines.append(f"<tr>{cells}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>", "</div>", "</details>"])
