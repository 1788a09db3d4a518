"""What is wrong with a row, in words."""

from __future__ import annotations

import re
from pathlib import Path

from bench.data.raw.columns import ID, NUMBER, RATING, TEXTS, TIME, ColumnMap
from bench.data.raw.fields import EARLIEST, LATEST
from bench.errors import DataError

QUOTES = "correct the quotation marks, by doubling those in a value, or say --quoting none if they quote nothing"
"""What to do about a table whose quotation marks do not fit."""
SWALLOWS = "'a quotation mark that quotes nothing swallows the end of its line and the beginning of another: '"
"""What is wrong with a table that can be read so, in SQL."""
QUOTED = "'values seem to be quoted, such as '"


def expected(kind: str, columns: ColumnMap) -> str:
    """What a field of a kind has to hold."""
    return {
        ID: "a text of at least one character",
        NUMBER: "a finite number",
        RATING: f"a rating of {columns.scale.low:g} to {columns.scale.high:g}",
        TIME: f"a time in {'seconds' if columns.seconds else 'milliseconds'} between 1990 and 2100",
        TEXTS: "a text or a list of texts",
    }.get(kind, "a text")


_DAY_OR_MONTH = re.compile(r"\d{1,2}([/.-])\d{1,2}\1\d{4}\b")


def told_otherwise(token: str | None, seconds: bool, dates: str) -> str:
    """What to say of a wrong time that would be right in another unit or, where `dates` says none, in one of two orders
    of day and month."""
    text = (token or "").strip('"')
    if not dates and _DAY_OR_MONTH.match(text):
        return " (which comes first in it? --timestamps month-first or --timestamps day-first)"
    try:
        value = float(text) * (1 if seconds else 1000)
    except ValueError:
        return ""
    for unit, parts in (("micro", 1e3), ("nano", 1e6)):
        if EARLIEST <= float(text) / parts <= LATEST:
            return f" (in {unit}seconds? give milliseconds or, in Parquet, a column of times)"
    return f" (in the other unit? --timestamps {'ms' if seconds else 's'})" if EARLIEST <= value <= LATEST else ""


def off_scale(
    path: Path, reason: str, bad: int, rows: int, lowest: float, highest: float, of: float | None
) -> DataError:
    """The error of a file of which ratings are on another scale; `reason` says what is wrong with the first of the
    `bad` rows. The file's ratings go from `lowest` to `highest`, and end in "/`of`" if that is given."""
    ends = "" if of is None else f", like {highest:g}/{of:g}"
    leave = f", or leave such rows out with --max-bad-lines {bad}" if bad < rows else ""
    return DataError(
        f"{path}, {reason}; the ratings in this file go from {lowest:g} to {highest:g}{ends}: say what their scale is "
        f"with --rating-scale MIN-MAX, e.g. --rating-scale {int(lowest == 1)}-{of or highest:g}{leave}"
    )


def too_many(path: Path, reason: str, bad: int, rows: int, limit: int) -> DataError:
    """The error of a file with more bad rows than may be left out; `reason` says what is wrong with the first."""
    if bad == rows:
        return DataError(f"{path}, {reason}; no row is usable, at most {limit:,} may be: correct the file")
    return DataError(
        f"{path}, {reason}; {bad:,} of {rows:,} rows are like this or otherwise unusable, at most {limit:,} may be: "
        f"correct the file or leave such rows out with --max-bad-lines {bad}"
    )
