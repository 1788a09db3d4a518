"""The formats of raw files: each becomes rows of texts and JSON tokens, a column a field (`bench.data.raw.fields`)."""

from __future__ import annotations

import ast
import csv
import json
import re
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from bench.data.raw.background import gzipped, lines
from bench.data.raw.columns import ANY, ID, LONG, NUMBER, RATING, TEXT, TEXTS, TIME
from bench.data.raw.database import Database, GzipError, sql_name, sql_path, sql_text
from bench.data.raw.fields import Fields
from bench.data.raw.problems import QUOTED, QUOTES, SWALLOWS
from bench.errors import DataError
from bench.files import replacing
from bench.progress import Share

_LONGEST_LINE = 1 << 24
"""Bytes, of a table; DuckDB allows as many in a line of JSON."""
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

    def rows(self, extract: Path | None = None, exact: bool = False, strict: bool = False) -> str:
        """SQL for its rows, or those of some of its lines in a file `extract`; `exact` has tokens for long texts too.
        With `strict` a row that DuckDB may misread is an error of its. Raises `DataError`."""
        ...

    def mend(self, error: DataError) -> None:
        """Make a copy of a file that DuckDB refused or may misread, where it takes one, to be read from now on. Raises
        `error` if nothing can be done about it, and what `gzip` raises for a broken file."""
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
    match _ending(fields.path):
        case ".csv" | ".tsv":
            return Csv(database, fields)
        case ".parquet" | ".pq":
            return Parquet(database, fields)
    return JsonLines(database, fields)


def _ending(path: Path) -> str:
    """What the name of a file, or of one that is packed in it, ends with, e.g. ".csv"."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    return suffixes[-1] if suffixes else ""


def column_names(path: Path, quoting: str = "") -> list[str]:
    """The columns of a file, or the keys on its first line of JSON; none of one that cannot be read, which is said when
    it is read."""
    import polars as pl

    try:
        match _ending(path):
            case ".csv" | ".tsv":
                return _header(path, _is_quoted(path, quoting))[0]
            case ".parquet" | ".pq":
                return list(pl.read_parquet_schema(path))
        first = json.loads(_first_line(path))
        return list(first) if isinstance(first, dict) else []
    except (OSError, EOFError, zlib.error, ValueError, TypeError, DataError, pl.exceptions.PolarsError):
        return []


def _first_line(path: Path) -> bytes:
    """The first line that is not blank. Raises what `gzip` raises for a broken file."""
    return next((line for line in lines(path) if line.strip()), b"")


def _is_quoted(path: Path, quoting: str) -> bool:
    """Whether a quotation mark at the beginning of a table's value is not part of it."""
    # The public dumps of reviews that are tables with tabs quote nothing.
    return quoting == "double" if quoting else _ending(path) != ".tsv"


def _header(path: Path, quoted: bool) -> tuple[list[str], str]:
    """The names of a table's columns and what separates them. Raises `DataError`."""
    first = next(lines(path), b"")
    if first.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise DataError(f"{path} is UTF-16; save it as UTF-8")
    header = first.decode("utf-8-sig", "replace")
    separator = max(",;\t|", key=header.count)
    try:
        as_they_are = header.rstrip("\r\n").split(separator) if header.strip() else []
        names = next(csv.reader([header], delimiter=separator), []) if quoted else as_they_are
    except csv.Error as error:
        raise DataError(f"{path}: its first line is not a line of column names ({error})") from error
    if not quoted and any(name.startswith('"') and name.endswith('"') for name in names):
        raise DataError(f"{path}: its column names are quoted; say that its values are too with --quoting double")
    if not names:
        raise DataError(f"{path} is empty or does not begin with a line of column names; add one")
    for name in names:
        if name and names.count(name) > 1:
            raise DataError(f"{path}: the column name '{name}' occurs twice; change it")
    # Numbers of rows are often written into a column without a name.
    return [name or f"(column {place})" for place, name in enumerate(names, start=1)], separator


def _select(fields: Fields, reader: str, field: Callable[[str, str], str]) -> str:
    """SQL for all fields of a reader's rows; `field` gives that of one with a column, by name and kind."""
    columns = ", ".join(
        f"{field(name, kind) if fields.column(name) else 'null::varchar'} as {name}"
        for name, kind in fields.kinds.items()
    )
    return f"(select {columns} from {reader})"


def _unpack(path: Path, copy: Path) -> None:
    """Write a copy without compression and byte order mark: DuckDB refuses gzip files with some headers and with zeros
    at the end, and takes the mark for a part of the first line. Raises what `gzip` raises for a broken file."""
    with replacing(copy) as file:
        for number, line in enumerate(lines(path)):
            file.write(line if number else line.removeprefix(BOM_UTF8))


def _unit(fields: Fields) -> int:
    return 1000 if fields.columns.seconds and fields.of_kind(TIME) else 1


@dataclass(frozen=True)
class JsonLines:
    """A JSON object on each line, gzipped or not."""

    database: Database
    fields: Fields

    @property
    def _copy(self) -> Path:
        """Takes the file's place once it is there, also after an interruption."""
        return self.database.scratch / f"{self.fields.noun}s-as.jsonl"

    @property
    def unit(self) -> int:
        """See `Format`."""
        return _unit(self.fields)

    def rows(self, extract: Path | None = None, exact: bool = False, strict: bool = False) -> str:
        """See `Format`."""
        path = extract or self.plain
        kinds = dict.fromkeys(self.fields.used_columns(), "varchar")
        for name, kind in self.fields.kinds.items():
            if self.fields.column(name) and (kind != LONG or exact):
                kinds[self.fields.column(name)] = "json"

        def field(name: str, kind: str) -> str:
            column = self.fields.column(name)
            # A column that holds another field too is read as tokens for both.
            if kind == LONG and not exact and kinds[column] == "json":
                return f"{sql_name(column)} ->> '$'"
            token = f"{sql_name(column)}::varchar"
            if kind != ID:
                return token
            whole = f"not starts_with({token}, '\"') and regexp_full_match({token}, '-?[0-9]+')"
            return f"case when {whole} then '\"' || {token} || '\"' else {token} end"

        columns = ", ".join(f"{sql_text(column)}: '{kind}'" for column, kind in kinds.items())
        return _select(self.fields, _json_reader(path, columns, strict), field)

    @property
    def plain(self) -> Path:
        """The file, or a copy in its place."""
        if not self._copy.exists():
            if re.match(rb"\{\s*u?'|\{\s*u\"", self._beginning.removeprefix(BOM_UTF8)):
                self._rewrite()  # Python dictionaries, as in the item files of 2014
            elif self._beginning.startswith(BOM_UTF8):
                _unpack(self.fields.path, self._copy)
        return self._copy if self._copy.exists() else self.fields.path

    @cached_property
    def _beginning(self) -> bytes:
        """The first line that is not blank."""
        try:
            return _first_line(self.fields.path)
        except (OSError, EOFError, zlib.error):
            return b""  # a broken file: others say so

    def mend(self, error: DataError) -> None:
        """See `Format`. Of a key that is twice in a line Python's `json`, which DPL's authors used, takes the last
        value, DuckDB the first."""
        if isinstance(error, GzipError):
            _unpack(self.fields.path, self._copy)
        lines_ = _json_reader(self.plain, "json: 'json'", records=False)
        twice = "len(json_keys(json)) > len(list_distinct(json_keys(json)))"
        self.database.run(
            f"create or replace temp table doubled as select coalesce(bool_or({twice}), false) from {lines_}",
            f"looking for keys that are twice in a line of {self.fields.path.name}",
        )
        ((doubled,),) = self.database.execute("from doubled")
        if doubled:
            self._rewrite()

    def _rewrite(self) -> None:
        """Copy the fields' columns as Python reads them, as JSON or else as dictionaries."""
        path, columns = self.fields.path, self.fields.used_columns()
        done, size = 0, 0 if gzipped(path) else path.stat().st_size
        progress = Share(f"reading {path.name} line by line")
        with replacing(self._copy) as file:
            for number, line in enumerate(lines(path)):
                done += len(line)
                if line.strip():
                    file.write(_rewritten(line if number else line.removeprefix(BOM_UTF8), columns))
                    progress.update(done / size if size else -1)
        progress.close()

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
        line = line.removeprefix(BOM_UTF8) if row == 0 else line
        where = f"line {number:,}"
        try:
            value = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            seems = "; is it a Parquet file? Then its name has to end in .parquet" if line.startswith(b"PAR1") else ""
            seems = "; is the file an array? There has to be an object on each line" if line.startswith(b"[") else seems
            seems = "; is it a table? Then its name has to end in .tsv or .csv" if line.count(b"\t") > 1 else seems
            return f"{where}: not valid JSON ({error}{seems})"
        if not isinstance(value, dict):
            return f"{where}: not a JSON object"
        columns = self.fields.used_columns()
        if any(value.get(column) is not None for column in columns):
            return f"{where}: not valid JSON (it holds half a character, or what no parser agrees on)"
        return f"{where}: it has no value for any of {', '.join(columns)}"


def _json_reader(path: Path, columns: str, strict: bool = False, records: bool = True) -> str:
    """SQL for the lines of a file of JSON, as objects with these columns or as they are."""
    compression = "gzip" if gzipped(path) else "none"
    return (
        f"read_json({sql_path(path)}, format = 'newline_delimited', columns = {{{columns}}}, records = {records}, "
        f"ignore_errors = {not strict}, compression = '{compression}')"
    )


def _rewritten(line: bytes, columns: Sequence[str]) -> bytes:
    """Some columns of the object on a line, of JSON or of Python's literals, as a line of JSON; a line that is no JSON
    for one that is neither."""
    try:
        text = line.decode().strip()
        try:
            record = json.loads(text)
        except ValueError:
            record = ast.literal_eval(text)
        return json.dumps({column: record.get(column) for column in columns}).encode() + b"\n"
    except (ValueError, TypeError, SyntaxError, AttributeError, RecursionError, MemoryError):
        return b"unreadable\n"


@dataclass(frozen=True)
class Csv:
    """A table of values with a line of column names."""

    database: Database
    fields: Fields

    @property
    def _copy(self) -> Path:
        """Takes the file's place once it is there."""
        return self.database.scratch / f"{self.fields.noun}s-as.csv"

    @property
    def plain(self) -> None:
        """See `Format`."""

    @property
    def unit(self) -> int:
        """See `Format`."""
        return _unit(self.fields)

    @cached_property
    def _quoted(self) -> bool:
        """Whether a quotation mark at the beginning of a value is not part of it."""
        return _is_quoted(self.fields.path, self.fields.columns.quoting)

    def mend(self, error: DataError) -> None:
        """See `Format`."""
        if isinstance(error, GzipError):
            _unpack(self.fields.path, self._copy)
        elif self._quoted or "invalid state" not in str(error):
            raise error
        else:  # DuckDB takes no carriage returns in values
            with replacing(self._copy) as file:
                for line in lines(self.fields.path):
                    file.write(line.rstrip(b"\r\n").replace(b"\r", b" ") + b"\n")

    def rows(self, extract: Path | None = None, exact: bool = False, strict: bool = False) -> str:
        """See `Format`."""
        names, separator = self._header
        columns = ", ".join(f"{sql_text(name)}: 'varchar'" for name in names)
        quote = '"' if self._quoted else ""
        path = self._copy if self._copy.exists() else self.fields.path
        # DuckDB would guess all this from the first rows, and from broken ones wrongly.
        reader = (
            f"read_csv({sql_path(path)}, columns = {{{columns}}}, auto_detect = false, header = true, "
            f"delim = '{separator}', quote = '{quote}', escape = '{quote}', store_rejects = true, "
            f"max_line_size = {_LONGEST_LINE}, compression = '{'gzip' if gzipped(path) else 'none'}')"
        )
        self.fields.check_columns(list(self.database.column_types(reader, self.fields.noun)))

        def field(name: str, kind: str) -> str:
            column = sql_name(self.fields.column(name))
            token = f"to_json({column})::varchar"
            if kind in (TEXTS, ANY):
                return f"case when starts_with({column}, '[') and json_valid({column}) then {column} else {token} end"
            if kind in (NUMBER, RATING, TIME):
                return f"case when try_cast({column} as double) is null then {token} else {column} end"
            if name == next(iter(self.fields.kinds)) and self._quoted:  # once a row
                swallowing = _swallowing(names, separator, self._kinds)
                return f"case when {swallowing} is null then {token} else error({SWALLOWS} || {swallowing}) end"
            plain = column if kind == LONG else token
            if kind in (LONG, TEXT) and not self.fields.columns.quoting and not self._quoted:
                # As no one writes who does not quote.
                doubled = f"""regexp_full_match({column}, '"([^"]|"")*""([^"]|"")*"')"""
                seems = f"case when starts_with({column}, '\"') then {doubled} end"
                return f"case when {seems} then error({QUOTED} || left({column}, 40)) else {plain} end"
            return plain

        return _select(self.fields, reader, field)

    @cached_property
    def _kinds(self) -> dict[str, str]:
        """The columns that hold fields and the kinds of these."""
        return {self.fields.column(name): kind for name, kind in self.fields.kinds.items()}

    @cached_property
    def _header(self) -> tuple[list[str], str]:
        """The names of the columns and what separates them."""
        return _header(self.fields.path, self._quoted)

    def rejected(self) -> tuple[int, str]:
        """See `Format`."""
        rows = self.database.execute(
            "select line, any_value(error_message), max(error_type = 'UNQUOTED VALUE' or contains(csv_line, chr(10))), "
            "max(error_type in ('MISSING COLUMNS', 'TOO MANY COLUMNS')) from reject_errors group by line order by line"
        )
        reasons = []
        for line, message, swallows, has_others in rows:
            hint = "; are its values quoted? --quoting double" if has_others and not self._quoted else ""
            reasons.append(f"line {line:,}: {message.splitlines()[0]}{hint}")
            if self._quoted and swallows:  # maybe many a row
                mend = "save it as UTF-8" if "utf-8" in reasons[-1].lower() else QUOTES
                raise DataError(f"{self.fields.path}, {reasons[-1]}; {mend}")
        return len(rows), reasons[0] if reasons else ""

    def where(self, row: int) -> str:
        """See `Format`."""
        return f"row {row + 1:,} after the header"

    def unreadable(self, row: int) -> str:
        """See `Format`."""
        return f"{self.where(row)}: it has no value for any of {', '.join(self.fields.used_columns())}"


def _swallowing(names: Sequence[str], separator: str, kinds: Mapping[str, str]) -> str:
    """The beginning of a value, null if there is none, that holds the end of its line, maybe whole lines, and the
    beginning of another up to the same column: it was read from a quotation mark that quotes nothing to another one."""
    sign = "\\t" if separator == "\t" else f"\\{separator}"
    text = f"[^{sign}\\n]*"
    forms = {NUMBER: " *-?[0-9][0-9.eE+-]* *", RATING: " *-?[0-9][0-9.eE+/ -]*"}
    forms |= {TIME: f"{text}[0-9]{text}", ID: f"[^{sign}\\s]+"}

    def line(some: Sequence[str]) -> str:
        return sign.join(forms.get(kinds.get(name, ""), text) for name in some)

    found = []
    for place, name in enumerate(names):
        first, last = line(["", *names[place + 1 :]]), line([*names[:place], ""])
        pattern = sql_text(f"{first}\\r?\\n({line(names)}\\r?\\n)*{last}")
        column = sql_name(name)
        # Most values have no line end, which is found fastest.
        swallows = f"case when contains({column}, chr(10)) then regexp_full_match({column}, {pattern}) end"
        found.append(f"case when {swallows} then left(split_part({column}, chr(10), 1), 40) end")
    return f"coalesce({', '.join(found)})"


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

    def mend(self, error: DataError) -> None:
        """See `Format`."""
        raise error

    def rows(self, extract: Path | None = None, exact: bool = False, strict: bool = False) -> str:
        """See `Format`."""
        return _select(self.fields, self._reader, self._field)

    def _field(self, name: str, kind: str) -> str:
        column, type_ = sql_name(self.fields.column(name)), self._types[self.fields.column(name)]
        if kind == LONG and type_ != "VARCHAR":
            raise DataError(f"{self.fields.path}: column '{self.fields.column(name)}' holds {type_}, not texts")
        if kind == ID and type_ in _INTEGERS:
            return f"to_json({column}::varchar)::varchar"
        if kind == TIME and type_ == "TIMESTAMPTZ_NS":  # for which there is no epoch_ms
            column = f"{column}::timestamptz"
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
