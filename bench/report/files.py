"""The files of a table: one of each form."""

from __future__ import annotations

from pathlib import Path

from bench.files import write_atomically
from bench.report.latex import document, latex
from bench.report.markup import html, markdown
from bench.report.table import Table
from bench.report.text import csv


def write_table(table: Table, folder: Path) -> list[Path]:
    r"""Write ID.tex (for \input), ID_alone.tex (a document), ID.md, ID.html (a fragment) and ID.csv of a table of
    scores; returns their paths. Raises `StoreError` if one cannot be written."""
    return write_files(table.id, latex(table), markdown(table), html(table), csv(table), folder)


def write_files(table_id: str, as_latex: str, as_markdown: str, as_html: str, as_csv: str, folder: Path) -> list[Path]:
    """Write the renderings of any table, as `write_table` does."""
    texts = {
        f"{table_id}.tex": as_latex,
        f"{table_id}_alone.tex": document(table_id),
        f"{table_id}.md": as_markdown,
        f"{table_id}.html": as_html,
        f"{table_id}.csv": as_csv,
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]
