"""The formats of raw files: each becomes rows of texts and JSON tokens, a column a field (`bench.data.raw.fields`)."""

from __future__ import annotations

import ast
import csv
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from bench.data.raw.background import gzipped, lines
from bench.data.raw.columns import ANY, ID, LONG, NUMBER, TEXTS, TIME
from bench.data.raw.database import Database, sql_name, sql_path, sql_text
from bench.data.raw.fields import Fields
from bench.errors import DataError
from bench.progress import Share

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")


class Format(Protocol):
    """A file of one format."""

    @property
    def plain(self) -> Path | None:
        """The file in which each row is a line, if there is one."""
        ...

    @property
    def unit(self) -> int:
        """Milliseconds in the unit of its times."""
        ...

    def rows(self, extract: Path | None = None, exact: bool = False) -> str:
        """SQL for its rows, or those of some of its lines in a file `extract`; `exact` has tokens for long texts too.
        Raises `DataError`."""
        ...

    def rejected(self) -> tuple[int, str]:
        """How many rows of a file that was read could not be split into columns, and what was wrong with the first.
        Raises `DataError` if such a row may have swallowed others."""
        ...

    def where(self, row: int) -> str:
        """The place of a row, given by its position, for people."""
        ...

    def unreadable(self, row: int) -> str:
        """What is wrong with a row that has no value for any field, and where."""
        ...


def format_of(database: Database, fields: Fields) -> Format:
    """The format that a file's name tells: CSV, Parquet or JSON lines."""
    suffixes = [suffix.lower() for suffix in fields.path.suffixes if suffix.lower() != ".gz"]
    match suffixes[-1:]:
        case [".csv" | ".tsv"]:
            return Csv(database, fields)
        case [".parquet" | ".pq"]:
            return Parquet(database, fields)
    return JsonLines(database, fields)


def _select(fields: Fields, reader: str, field: Callable[[str, str], str]) -> str:
    """SQL for all fields of a reader's rows; `field` gives that of one with a column, by name and kind."""
    columns = ", ".join(
        f"{field(name, kind) if fields.column(name) else 'null::varchar'} as {name}"
        for name, kind in fields.kinds.items()
    )
    return f"(select {columns} from {reader})"


def _unit(fields: Fields) -> int:
    return 1000 if fields.columns.seconds and fields.of_kind(TIME) else 1


@dataclass(frozen=True)
class JsonLines:
    """A JSON object on each line, gzipped or not."""

    database: Database
    fields: Fields

    @property
    def unit(self) -> int:
        """See `Format`."""
        return _unit(self.fields)

    def rows(self, extract: Path | None = None, exact: bool = False) -> str:
        """See `Format`."""
        path = extract or self.plain
        kinds = dict.fromkeys(self.fields.used_columns(), "varchar")
        for name, kind in self.fields.kinds.items():
            if self.fields.column(name) and (kind != LONG or exact):
                kinds[self.fields.column(name)] = "json"

        def field(name: str, kind: str) -> str:
            column = self.fields.column(name)
            # A column that holds another field too is read as tokens for both.
            unpacked = kind == LONG and not exact and kinds[column] == "json"
            return f"{sql_name(column)} ->> '$'" if unpacked else f"{sql_name(column)}::varchar"

        columns = ", ".join(f"{sql_text(column)}: '{kind}'" for column, kind in kinds.items())
        compression = "gzip" if gzipped(path) else "none"
        reader = (
            f"read_json({sql_path(path)}, format = 'newline_delimited', columns = {{{columns}}}, "
            f"ignore_errors = true, compression = '{compression}')"
        )
        return _select(self.fields, reader, field)

    @cached_property
    def plain(self) -> Path:
        """The file, or, if its lines are Python dictionaries as in the item files of 2014, a copy that is JSON."""
        path = self.fields.path
        try:
            first = next((line for line in lines(path) if line.strip()), b"")
        except (OSError, EOFError, zlib.error):
            first = b""  # a broken file: others say so
        return self._from_dictionaries() if first.startswith(b"{'") else path

    def _from_dictionaries(self) -> Path:
        path, columns = self.fields.path, self.fields.used_columns()
        copy = self.database.scratch / f"{self.fields.noun}s-as.jsonl"
        done, size = 0, 0 if gzipped(path) else path.stat().st_size
        progress = Share(f"reading {path.name} as Python dictionaries")
        with copy.open("w", encoding="utf-8") as file:
            for line in (line for line in lines(path) if line.strip()):
                try:
                    record = ast.literal_eval(line.decode("utf-8"))
                    file.write(json.dumps({column: record.get(column) for column in columns}) + "\n")
                except (ValueError, TypeError, SyntaxError, AttributeError, RecursionError, MemoryError):
                    file.write("unreadable\n")
                done += len(line)
                progress.update(done / size if size else -1)
        progress.close()
        return copy

    def rejected(self) -> tuple[int, str]:
        """See `Format`."""
        return 0, ""

    def where(self, row: int) -> str:
        """See `Format`."""
        return f"line {self._line(row)[0]:,}"

    def _line(self, row: int) -> tuple[int, bytes]:
        """A row's number among all lines, and the line."""
        numbered = ((number, line) for number, line in enumerate(lines(self.fields.path), start=1) if line.strip())
        return next(pair for n, pair in enumerate(numbered) if n == row)

    def unreadable(self, row: int) -> str:
        """See `Format`."""
        number, line = self._line(row)
        where = f"line {number:,}"
        try:
            value = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            seems = "; is it a Parquet file? Then its name has to end in .parquet" if line.startswith(b"PAR1") else ""
            seems = "; is the file an array? There has to be an object on each line" if line.startswith(b"[") else seems
            return f"{where}: not valid JSON ({error}{seems})"
        if not isinstance(value, dict):
            return f"{where}: not a JSON object"
        columns = self.fields.used_columns()
        if any(value.get(column) is not None for column in columns):
            return f"{where}: not valid JSON (it holds half a character, or what no parser agrees on)"
        return f"{where}: it has no value for any of {', '.join(columns)}"


@dataclass(frozen=True)
class Csv:
    """A table of values with a line of column names."""

    database: Database
    fields: Fields

    @property
    def plain(self) -> None:
        """See `Format`."""

    @property
    def unit(self) -> int:
        """See `Format`."""
        return _unit(self.fields)

    def rows(self, extract: Path | None = None, exact: bool = False) -> str:
        """See `Format`."""
        return self._rows

    @cached_property
    def _rows(self) -> str:
        names, separator = self._header()
        columns = ", ".join(f"{sql_text(name)}: 'varchar'" for name in names)
        # DuckDB would guess all this from the first rows, and from broken ones wrongly.
        reader = (
            f"read_csv({sql_path(self.fields.path)}, columns = {{{columns}}}, auto_detect = false, header = true, "
            f"delim = '{separator}', quote = '\"', escape = '\"', store_rejects = true)"
        )
        self.fields.check_columns(list(self.database.column_types(reader, self.fields.noun)))

        def field(name: str, kind: str) -> str:
            column = sql_name(self.fields.column(name))
            token = f"to_json({column})::varchar"
            if kind in (TEXTS, ANY):
                return f"case when starts_with({column}, '[') and json_valid({column}) then {column} else {token} end"
            return column if kind in (LONG, NUMBER, TIME) else token

        return _select(self.fields, reader, field)

    def _header(self) -> tuple[list[str], str]:
        """The names of the columns and what separates them."""
        path = self.fields.path
        header = next(lines(path), b"").decode("utf-8-sig", "replace")
        separator = max(",;\t|", key=header.count)
        try:
            names = next(csv.reader([header], delimiter=separator), [])
        except csv.Error as error:
            raise DataError(f"{path}: its first line is not a line of column names ({error})") from error
        if not names:
            raise DataError(f"{path} is empty or does not begin with a line of column names; add one")
        for name in names:
            if not name or names.count(name) > 1:
                raise DataError(f"{path}: the column name '{name}' is empty or occurs twice; change it")
        return names, separator

    def rejected(self) -> tuple[int, str]:
        """See `Format`."""
        rows = self.database.execute(
            "select line, any_value(error_message), max(error_type = 'UNQUOTED VALUE') from reject_errors "
            "group by line order by line"
        )
        reasons = [f"line {line:,}: {message.splitlines()[0]}" for line, message, _ in rows]
        for reason, (_, _, unquoted) in zip(reasons, rows, strict=True):
            if unquoted:  # it may have swallowed many a row
                raise DataError(
                    f"{self.fields.path}, {reason}; correct the quotation marks, by doubling those in a value"
                )
        return len(rows), reasons[0] if reasons else ""

    def where(self, row: int) -> str:
        """See `Format`."""
        return f"row {row + 1:,} after the header"

    def unreadable(self, row: int) -> str:
        """See `Format`."""
        return f"{self.where(row)}: it has no value for any of {', '.join(self.fields.used_columns())}"


@dataclass(frozen=True)
class Parquet:
    """A Parquet file, whose columns have types."""

    database: Database
    fields: Fields

    @property
    def plain(self) -> None:
        """See `Format`."""

    @cached_property
    def _reader(self) -> str:
        return f"read_parquet({sql_path(self.fields.path)})"

    @cached_property
    def _types(self) -> dict[str, str]:
        types = self.database.column_types(self._reader, self.fields.noun)
        self.fields.check_columns(list(types))
        return types

    @property
    def unit(self) -> int:
        """See `Format`. A column of times may say itself what its times are."""
        if _unit(self.fields) == 1:
            return 1
        column = self.fields.column(self.fields.of_kind(TIME)[0])
        return 1 if self._types[column].startswith(("TIMESTAMP", "DATE")) else 1000

    def rows(self, extract: Path | None = None, exact: bool = False) -> str:
        """See `Format`."""
        return _select(self.fields, self._reader, self._field)

    def _field(self, name: str, kind: str) -> str:
        column, type_ = sql_name(self.fields.column(name)), self._types[self.fields.column(name)]
        if kind == LONG and type_ != "VARCHAR":
            raise DataError(f"{self.fields.path}: column '{self.fields.column(name)}' holds {type_}, not texts")
        if kind == ID and type_ in _INTEGERS:
            return f"to_json({column}::varchar)::varchar"
        if kind == TIME and type_.startswith("TIMESTAMP"):
            return f"epoch_ms({column})::varchar"
        if kind == TIME and type_ == "DATE":
            return f"epoch_ms({column}::timestamp)::varchar"
        return f"{column}::varchar" if kind == LONG or type_ in ("FLOAT", "DOUBLE") else f"to_json({column})::varchar"

    def rejected(self) -> tuple[int, str]:
        """See `Format`."""
        return 0, ""

    def where(self, row: int) -> str:
        """See `Format`."""
        return f"row {row + 1:,}"

    def unreadable(self, row: int) -> str:
        """See `Format`."""
        return f"{self.where(row)}: it has no value for any of {', '.join(self.fields.used_columns())}"
