"""Scans that survive an interruption."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bench.data.raw.file import RawFile, Scanned, Selection
from bench.files import replace_content

SCANS = "scans 2"
"""The form of what is kept; what has another one is not gone on with."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder that keeps what `RawFile.scan` gave of a file: NAME.parquet, the rows, and NAME.json, the rest, which is
    written last."""

    folder: Path
    name: str

    def scan(self, file: RawFile, selection: Selection, max_bad: int) -> tuple[Scanned, bool]:
        """`RawFile.scan`, or what it gave before an interruption; and whether that was there. Raises `DataError` as
        `RawFile.scan` does."""
        import polars as pl

        table, note = self.folder / f"{self.name}.parquet", self.folder / f"{self.name}.json"
        if note.exists():
            frame = pl.read_parquet(table, glob=False)
            return Scanned(frame, **json.loads(note.read_text(encoding="utf-8"))), True
        scanned = file.scan(selection, max_bad)
        scanned.kept.write_parquet(table, compression="uncompressed", statistics=False)
        replace_content(note, json.dumps({name: value for name, value in vars(scanned).items() if name != "kept"}))
        return scanned, False
