"""Reading raw files of reviews and of items with DuckDB.

A file may be JSON lines (.gz too), CSV or Parquet, and call its columns what it likes (`bench.data.layouts`). A row
that cannot be used is counted, named and left out, if as many may be. A file is read twice: `RawFile.scan` looks at
all rows and takes of those that meet a condition what is needed to choose among them; `fetch` brings the texts of the
chosen ones. Both have the rows in the order of the file, by which ties break.
"""

from __future__ import annotations

import ast
import csv
import json
import os
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bench.data.layouts import ANY, ID, LONG, NUMBER, OPTIONAL, TEXT, TEXTS, TIME, Layout
from bench.data.survey import Survey, gzipped, lines
from bench.errors import DataError, ResourceError
from bench.progress import Share

if TYPE_CHECKING:
    import duckdb
    import polars

_EARLIEST, _LATEST = 631_152_000_000, 4_102_444_800_000  # milliseconds: the years 1990 and 2100
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_UNREADABLE = 1  # the problem of a row that is no JSON object, or has none of the fields; n + 2 is that of field n


@contextmanager
def connect(scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB in memory, on the processors that this process may use; beyond half of the machine's memory, and beyond
    8 GiB, it goes on in files under `scratch`."""
    import duckdb

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": len(os.sched_getaffinity(0)),
        "memory_limit": f"{min(memory // 2, 8 << 30) >> 20}MiB",
        "temp_directory": str(scratch / "spilled"),
        "autoinstall_known_extensions": False,
    }
    with duckdb.connect(":memory:", config=settings) as connection:
        # For `query_progress`, not for printing. And a join is to build on its right side, the smaller one.
        connection.execute("set enable_progress_bar = true; set enable_progress_bar_print = false")
        connection.execute("set disabled_optimizers = 'join_order,build_side_probe_side'")
        yield connection


@dataclass(frozen=True)
class Scanned:
    """What a file holds: a frame of the rows that are kept, how many rows there are, how many of these are bad, what is
    wrong with the first bad one, or "", and the columns that may be missing and that no row has."""

    kept: polars.DataFrame
    rows: int
    bad: int
    reason: str
    absent: list[str]


class RawFile:
    """A raw file of reviews, or, with the prefix "items.", of items.

    Conditions and `values` (name -> SQL) are over the names of the fields and over `derived` ones (name -> SQL), which
    are found once a row. A field of kind LONG stands for its text, any other for its JSON token (`"abc"`, `5.0`,
    `["a", "b"]`), whatever the file's format; `text`, `number`, `milliseconds` and `texts` give what a field means.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        path: Path,
        fields: Mapping[str, str],
        layout: Layout,
        prefix: str,
        survey: Survey,
        scratch: Path,
    ) -> None:
        self._connection = connection
        self.path = path
        self._fields = fields
        self._layout = layout
        self._prefix = prefix
        self._survey = survey
        self._scratch = scratch
        self._noun = "item" if prefix else "review"
        self._identity = identity(path)
        self._table = f"scanned_{self._noun}s"
        self._holds_all = False
        self.rows = 0
        self.derived: dict[str, str] = {}
        self.values: dict[str, str] = {}

    @cached_property
    def _unit(self) -> int:
        """Milliseconds in the unit of the file's times; a Parquet column may say itself what its times are."""
        times = [self._column(name) for name, kind in self._fields.items() if kind == TIME]
        if not self._layout.seconds or not times:
            return 1
        if self._format != "parquet":
            return 1000
        types = self._described(f"read_parquet({_file(self.path)})")
        return 1 if types[times[0]].startswith(("TIMESTAMP", "DATE")) else 1000

    # SQL for values. Numbers, times and lists of texts are found once a row and stand in columns of their own.

    def text(self, name: str) -> str:
        """A text; null if it is missing."""
        return name if self._fields[name] == LONG else f"{name} ->> '$'"

    @staticmethod
    def number(name: str) -> str:
        """A number; null if it is missing."""
        return f"{name}_value"

    def milliseconds(self, name: str) -> str:
        """A time in milliseconds since 1970; null if it is missing."""
        return f"{name}_value::bigint * {self._unit}"

    @staticmethod
    def texts(name: str) -> str:
        """A list of texts, also of a single text; null if it is missing."""
        return f"{name}_value"

    @staticmethod
    def true(name: str) -> str:
        """Whether Python would take a value for true."""
        # No "in": for a list DuckDB makes a join, which gives up the order of the rows.
        unequal = (f"{name} <> '{value}'" for value in ('""', "[]", "{}", "false", "0", "0.0"))
        return f"coalesce({' and '.join(unequal)}, false)"

    def given(self, name: str, condition: str) -> str:
        """`condition`, or that the field is missing, where the layout allows it."""
        if self._prefix + name in self._layout.missing:
            return f"(coalesce({condition}, false) or not {self.true(name)})"
        return f"({condition})"

    # Reading.

    def scan(self, keep: Sequence[str], names: Sequence[str], max_bad: int) -> Scanned:
        """The `values` of these names, of the rows that meet all conditions in `keep`, with their positions ("row",
        from 0), in the order of the file.

        Raises `DataError` for a file that cannot be read, that is empty, in which no row has a value for a field that
        is needed, or of which more than `max_bad` rows are bad, or all.
        """
        import polars as pl

        # A gzip file can only be read from its beginning, which takes long: what `fetch` may want stays in memory.
        holds_all = gzipped(self.path)
        values = self.values if holds_all else {name: self.values[name] for name in names}
        present = " | ".join(f"(({name} is not null)::utinyint << {n})" for n, name in enumerate(self._fields))
        # Most rows have all fields; which one no row has is found from the others.
        gaps = f"case when {present} <> {(1 << len(self._fields)) - 1} then {present} end"
        chosen = ", ".join(f"case when kept then {sql} end as {name}" for name, sql in values.items())
        self._run(
            f"create temp table {self._table} as select problem, kept, odd, {gaps} as gaps, {chosen} "
            f"from (select *, coalesce(case when problem = 0 then {_all(keep)} end, false) as kept "
            f"from {self._judged(self._derived())})",
            f"reading {self.path.name}",
        )
        self._settle_odd_ones()
        rows, bad, first, gaps, whole = self._connection.execute(
            "select count(*), count(*) filter (problem > 0), min(rowid) filter (problem > 0), "
            "coalesce(bit_or(gaps), 0), count(*) filter (gaps is null) from " + self._table
        ).fetchall()[0]
        rejected, reason = self._rejected()
        if first is not None:
            ((problem,),) = self._connection.execute(
                f"select problem from {self._table} where rowid = {first}"
            ).fetchall()
            reason = self._explained(first, problem)
        if rows + rejected == 0:
            raise DataError(f"{self.path} is empty; give a file that has a row for each {self._noun}")
        absent = self._check_columns(gaps) if gaps and not whole else []
        if bad == rows or bad + rejected > max_bad:
            raise DataError(self._too_bad(reason, bad + rejected, rows + rejected, max_bad))
        query = f"select rowid as row, {', '.join(names)} from {self._table} where kept"
        frame = cast(pl.DataFrame, pl.from_arrow(self._connection.sql(query).to_arrow_table()))
        self._holds_all = holds_all
        if not holds_all:
            self._connection.execute(f"drop table {self._table}")
        return Scanned(frame, rows + rejected, bad + rejected, reason, absent)

    def _settle_odd_ones(self) -> None:
        """DuckDB makes a text of what is none, `["a"]` of a list: look at the tokens of the few that may be such."""
        import polars as pl

        ((self.rows,),) = self._connection.execute(f"select count(*) from {self._table}").fetchall()
        odd = self._connection.sql(f"select rowid as row from {self._table} where odd and problem = 0").to_arrow_table()
        if odd.num_rows == 0:
            return
        rows = cast(pl.DataFrame, pl.from_arrow(odd))["row"]
        texts = [name for name, kind in self._fields.items() if kind == LONG]
        tokens = self._some(rows, "select " + ", ".join(texts), exact=True)
        for name in texts:
            wrong = rows.filter(~tokens[name].str.starts_with('"').fill_null(True))
            self._wanted_rows(wrong)
            change = f"problem = {list(self._fields).index(name) + 2}, kept = false"
            self._connection.execute(
                f"update {self._table} as held set {change} from wanted where held.rowid = wanted.row"
            )

    def fetch(self, rows: polars.Series) -> polars.DataFrame:
        """All `values` of some rows, given by their positions, ascending. Raises `DataError` if the file does not have
        these rows."""
        self.check_unchanged()
        if self._holds_all:
            held = f"(select rowid as row, * from {self._table})"
            return self._collected(rows, f"select {', '.join(self.values)} from {held} {self._wanted_rows(rows)}")
        return self._some(rows, "select " + ", ".join(f"{sql} as {name}" for name, sql in self.values.items()))

    def _some(self, rows: polars.Series, select: str, exact: bool = False) -> polars.DataFrame:
        """What a selection gives of some rows; `exact` has tokens for texts too."""
        picked = self._scratch / f"{self._noun}s-picked.jsonl"
        if self._format == "json" and self._survey.pick(self._plain_json, rows.to_list(), self.rows, picked):
            source = self._derived(picked, exact)
        else:
            numbered = f"(select row_number() over () - 1 as row, * from {self._derived(exact=exact)})"
            source = f"{numbered} {self._wanted_rows(rows)}"
        found = self._collected(rows, f"{select} from {source}")
        picked.unlink(missing_ok=True)
        return found

    def _wanted_rows(self, rows: polars.Series) -> str:
        """SQL that picks rows by their positions, and puts them in order."""
        import polars as pl

        self._connection.register("wanted", pl.DataFrame({"row": rows.cast(pl.Int64)}).to_arrow())
        return "semi join wanted using (row) order by row"

    def _collected(self, rows: polars.Series, query: str) -> polars.DataFrame:
        """The result of a query, which is to have a row for each of `rows`."""
        import polars as pl

        self._run(f"create or replace temp table fetched as {query}", f"fetching from {self.path.name}")
        found = cast(pl.DataFrame, pl.from_arrow(self._connection.sql("from fetched").to_arrow_table()))
        self._connection.execute("drop table fetched")
        if found.height != len(rows):
            raise self.changed()
        return found

    def check_unchanged(self) -> None:
        """Raise `DataError` if the file is not what it was when this object was made."""
        if identity(self.path) != self._identity:
            raise self.changed()

    def changed(self) -> DataError:
        """The error for a file that is not what it was a moment ago."""
        return DataError(f"{self.path} changed while it was read; run the same command again")

    def _run(self, statement: str, label: str) -> None:
        """Run a statement in a thread, so that it can be watched and interrupted."""
        import duckdb

        failed: list[duckdb.Error] = []

        def work() -> None:
            try:
                self._connection.execute(statement)
            except duckdb.Error as error:
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        progress = Share(label)
        try:
            while thread.is_alive():
                thread.join(0.2)
                progress.update(self._connection.query_progress() / 100)
        except BaseException:
            self._connection.interrupt()
            thread.join()
            raise
        finally:
            progress.close()
        if failed:
            raise self._failed(failed[0]) from failed[0]

    def _failed(self, error: duckdb.Error) -> Exception:
        """The error for a file that DuckDB cannot read, or its own for a statement that is wrong."""
        import duckdb

        of_files = (duckdb.IOException, duckdb.InvalidInputException, duckdb.DataError, duckdb.OutOfMemoryException)
        if not isinstance(error, of_files):
            return error
        reason = str(error).splitlines()[0]
        if isinstance(error, duckdb.OutOfMemoryException) or "No space left" in reason:
            return ResourceError(f"{self.path} needs more memory, or room in {self._scratch} ({reason}); free some")
        if "GZIP" in reason:
            return DataError(f"{self.path} is a broken gzip file ({reason}); fetch it again")
        return DataError(f"{self.path} cannot be read ({reason}); give a file of JSON lines, CSV or Parquet")

    # Formats: each becomes rows of texts and JSON tokens.

    @cached_property
    def _format(self) -> str:
        suffixes = [suffix.lower() for suffix in self.path.suffixes if suffix.lower() != ".gz"]
        return {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".pq": "parquet"}.get(
            "".join(suffixes[-1:]), "json"
        )

    def _derived(self, path: Path | None = None, exact: bool = False) -> str:
        """SQL for the rows, or those of an extract: the fields, and the values that are found once a row."""
        if self._format == "json":
            rows = self._json(path or self._plain_json, exact)
        else:
            rows = self._csv if self._format == "csv" else self._parquet
        values = []
        for name, kind in self._fields.items():
            if kind in (NUMBER, TIME):
                values.append(f", try_cast({name} as double) as {name}_value")
            elif kind == TEXTS:
                others = f"list_filter(json_type({name}, '$[*]'), lambda kind: kind <> 'VARCHAR')"
                values.append(
                    f", case when starts_with({name}, '[') then case when len({others}) = 0 then {name} ->> '$[*]' end "
                    f"when starts_with({name}, '\"') then [{name} ->> '$'] end as {name}_value"
                )
        derived = "".join(f", {sql} as {name}" for name, sql in self.derived.items())
        return f"(select *{derived} from (select *{''.join(values)} from {rows}))"

    def _judged(self, rows: str) -> str:
        """SQL for rows with what is wrong with each ("problem", 0 if nothing) and whether one of its texts may be none
        ("odd")."""
        right = " and ".join(self._right(name, kind) for name, kind in self._fields.items() if self._column(name))
        nothing = " and ".join(f"{name} is null" for name in self._fields)
        wrong = " ".join(
            f"when {name} is null or not {right_} then {n}" if kind == ID else f"when not {right_} then {n}"
            for n, (name, kind) in enumerate(self._fields.items(), start=2)
            for right_ in [self._right(name, kind)]
        )
        # Most rows are right in all fields, which is found fastest.
        problem = f"case when {right} then 0 when {nothing} then {_UNREADABLE} {wrong} else 0 end"
        odd = "false"
        if self._format == "json":
            # DuckDB unpacks long texts fastest when it need not keep their tokens.
            odd = " or ".join(_odd(name) for name, kind in self._fields.items() if kind == LONG) or "false"
        return f"(select *, ({problem})::utinyint as problem, coalesce({odd}, false) as odd from {rows})"

    def _right(self, name: str, kind: str) -> str:
        """The condition that a field is of its kind; for a missing value it is not false."""
        value = f"{name}_value"
        if kind == TIME:
            limits = f"{value} between {_EARLIEST // self._unit} and {_LATEST // self._unit}"
            return f"coalesce(({limits} or {value} = 0) and trunc({value}) = {value}, {name} is null)"
        return {
            ID: f"(starts_with({name}, '\"') and strlen({name}) > 2)",
            TEXT: f"coalesce(starts_with({name}, '\"'), true)",
            LONG: "true",
            NUMBER: f"coalesce(isfinite({value}), {name} is null)",
            TEXTS: f"({value} is not null or {name} is null)",
            ANY: "true",
        }[kind]

    def _column(self, name: str) -> str:
        return self._layout.columns[self._prefix + name]

    def _check_columns(self, found: int) -> list[str]:
        """The columns that no row has a value for, and that may be missing; bit n of `found` says whether field n has
        some. Raises `DataError` for a field that has to be there."""
        absent: list[str] = []
        for n, name in enumerate(self._fields):
            if not found >> n & 1 and self._column(name):
                if self._prefix + name not in self._layout.missing:
                    raise self._lacking(name, [])
                absent.append(self._column(name))
        return absent

    def _lacking(self, name: str, columns: Sequence[str]) -> DataError:
        listed = ", ".join(columns)
        has = f", which has: {listed if len(listed) <= 200 else listed[:200] + '...'}" if columns else ""
        none = f", or that there is none with --map {self._prefix}{name}="
        return DataError(
            f"{self.path}: no row has a value for '{self._column(name)}'{has}; say which column holds the "
            f"{self._noun}'s {name} with --map {self._prefix}{name}=COLUMN"
            + (none if self._prefix + name in OPTIONAL else "")
        )

    def _json(self, path: Path, exact: bool) -> str:
        kinds = dict.fromkeys(filter(None, map(self._column, self._fields)), "varchar")
        for name, kind in self._fields.items():
            if self._column(name) and (kind != LONG or exact):
                kinds[self._column(name)] = "json"

        def field(name: str, kind: str) -> str:
            if not self._column(name):
                return "null::varchar"
            column = _name(self._column(name))
            # A column that holds another field too is read as tokens for both.
            unpacked = kind == LONG and not exact and kinds[self._column(name)] == "json"
            return f"{column} ->> '$'" if unpacked else f"{column}::varchar"

        fields = ", ".join(f"{field(name, kind)} as {name}" for name, kind in self._fields.items())
        columns = ", ".join(f"{_string(column)}: '{kind}'" for column, kind in kinds.items())
        compression = "gzip" if gzipped(path) else "none"
        return (
            f"(select {fields} from read_json({_file(path)}, format = 'newline_delimited', columns = {{{columns}}}, "
            f"ignore_errors = true, compression = '{compression}'))"
        )

    @cached_property
    def _plain_json(self) -> Path:
        """The file, or, if its lines are Python dictionaries as in the item files of 2014, a copy that is JSON."""
        try:
            first = next((line for line in lines(self.path) if line.strip()), b"")
        except (OSError, EOFError, zlib.error):
            first = b""  # a broken file: others say so
        if not first.startswith(b"{'"):
            return self.path
        columns = [column for column in map(self._column, self._fields) if column]
        copy = self._scratch / f"{self._noun}s-as.jsonl"
        done, size = 0, 0 if gzipped(self.path) else self.path.stat().st_size
        progress = Share(f"reading {self.path.name} as Python dictionaries")
        with copy.open("w", encoding="utf-8") as file:
            for line in (line for line in lines(self.path) if line.strip()):
                try:
                    record = ast.literal_eval(line.decode("utf-8"))
                    file.write(json.dumps({column: record.get(column) for column in columns}) + "\n")
                except (ValueError, TypeError, SyntaxError, AttributeError, RecursionError, MemoryError):
                    file.write("unreadable\n")
                done += len(line)
                progress.update(done / size if size else -1)
        progress.close()
        return copy

    @cached_property
    def _csv(self) -> str:
        # DuckDB would guess all this from the first rows, and from broken ones wrongly.
        header = next(lines(self.path), b"").decode("utf-8-sig", "replace")
        separator = max(",;\t|", key=header.count)
        try:
            names = next(csv.reader([header], delimiter=separator), [])
        except csv.Error as error:
            raise DataError(f"{self.path}: its first line is no line of column names ({error})") from error
        if not names:
            raise DataError(f"{self.path} is empty or does not begin with a line of column names; add one")
        for name in names:
            if not name or names.count(name) > 1:
                raise DataError(f"{self.path}: the column name '{name}' is empty or occurs twice; change it")
        columns = ", ".join(f"{_string(name)}: 'varchar'" for name in names)
        reader = (
            f"read_csv({_file(self.path)}, columns = {{{columns}}}, auto_detect = false, header = true, "
            f"delim = '{separator}', quote = '\"', escape = '\"', store_rejects = true)"
        )
        self._described(reader)

        def field(name: str, kind: str) -> str:
            if not self._column(name):
                return "null::varchar"
            column = _name(self._column(name))
            token = f"to_json({column})::varchar"
            if kind in (TEXTS, ANY):
                return f"case when starts_with({column}, '[') and json_valid({column}) then {column} else {token} end"
            return column if kind in (LONG, NUMBER, TIME) else token

        fields = ", ".join(f"{field(name, kind)} as {name}" for name, kind in self._fields.items())
        return f"(select {fields} from {reader})"

    @cached_property
    def _parquet(self) -> str:
        reader = f"read_parquet({_file(self.path)})"
        types = self._described(reader)

        def field(name: str, kind: str) -> str:
            if not self._column(name):
                return "null::varchar"
            column, type_ = _name(self._column(name)), types[self._column(name)]
            if kind == LONG and type_ != "VARCHAR":
                raise DataError(f"{self.path}: column '{self._column(name)}' holds {type_}, not texts")
            if kind == ID and type_ in _INTEGERS:
                return f"to_json({column}::varchar)::varchar"
            if kind == TIME and type_.startswith("TIMESTAMP"):
                return f"epoch_ms({column})::varchar"
            if kind == TIME and type_ == "DATE":
                return f"epoch_ms({column}::timestamp)::varchar"
            return (
                f"{column}::varchar" if kind == LONG or type_ in ("FLOAT", "DOUBLE") else f"to_json({column})::varchar"
            )

        fields = ", ".join(f"{field(name, kind)} as {name}" for name, kind in self._fields.items())
        return f"(select {fields} from {reader})"

    def _described(self, reader: str) -> dict[str, str]:
        """The columns of a table and their types. Raises `DataError` if one is missing."""
        import duckdb

        try:
            rows = self._connection.execute(f"describe select * from {reader}").fetchall()
        except duckdb.Error as error:
            if self.path.stat().st_size == 0:
                raise DataError(f"{self.path} is empty; give a file that has a row for each {self._noun}") from error
            raise self._failed(error) from error
        types = {str(row[0]): str(row[1]) for row in rows}
        for name in self._fields:
            if self._column(name) and self._column(name) not in types:
                raise self._lacking(name, list(types))
        return types

    # Rows that cannot be used.

    def _rejected(self) -> tuple[int, str]:
        """How many rows of a CSV file could not be split into columns, and what was wrong with the first."""
        if self._format != "csv":
            return 0, ""
        rows = self._connection.execute(
            "select line, any_value(error_message), max(error_type = 'UNQUOTED VALUE') from reject_errors "
            "group by line order by line"
        ).fetchall()
        reasons = [f"line {line:,}: {message.splitlines()[0]}" for line, message, _ in rows]
        for reason, (_, _, unquoted) in zip(reasons, rows, strict=True):
            if unquoted:  # it may have swallowed many a row
                raise DataError(f"{self.path}, {reason}; correct the quotation marks, by doubling those in a value")
        return len(rows), reasons[0] if reasons else ""

    def _explained(self, row: int, problem: int) -> str:
        """What is wrong with a row, given by its position in the file, where that is "problem"."""
        import polars as pl

        names = list(self._fields)
        columns = ", ".join(column for column in map(self._column, names) if column)
        where, line = f"row {row + 1:,}" + (" after the header" if self._format == "csv" else ""), b""
        if self._format == "json":
            numbered = ((number, line) for number, line in enumerate(lines(self.path), start=1) if line.strip())
            number, line = next(pair for n, pair in enumerate(numbered) if n == row)
            where = f"line {number:,}"
        if problem != _UNREADABLE:
            name = names[problem - 2]
            token = self._some(pl.Series([row]), f"select {name}", exact=True)[name][0]
            value = "missing" if token is None else token if len(token) <= 60 else token[:60] + "..."
            unit = self._other_unit(token) if self._fields[name] == TIME else ""
            return f"{where}: '{self._column(name)}' is not {self._wanted(self._fields[name])} but {value}{unit}"
        if self._format != "json":
            return f"{where}: it has no value for any of {columns}"
        try:
            value = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            seems = "; is it a Parquet file? Then its name has to end in .parquet" if line.startswith(b"PAR1") else ""
            seems = "; is the file an array? There has to be an object on each line" if line.startswith(b"[") else seems
            return f"{where}: not valid JSON ({error}{seems})"
        if not isinstance(value, dict):
            return f"{where}: not a JSON object"
        if any(value.get(self._column(name)) is not None for name in names):
            return f"{where}: not valid JSON (it holds half a character, or what no parser agrees on)"
        return f"{where}: it has no value for any of {columns}"

    def _other_unit(self, token: str | None) -> str:
        """What to say of a wrong time that would be right in the other unit."""
        try:
            value = float(token or "") * (1 if self._layout.seconds else 1000)
        except ValueError:
            return ""
        fits = _EARLIEST <= value <= _LATEST
        return f" (in the other unit? --timestamps {'ms' if self._layout.seconds else 's'})" if fits else ""

    def _wanted(self, kind: str) -> str:
        unit = "seconds" if self._layout.seconds else "milliseconds"
        return {
            ID: "a text of at least one character",
            NUMBER: "a finite number",
            TIME: f"a time in {unit} between 1990 and 2100",
            TEXTS: "a text or a list of texts",
        }.get(kind, "a text")

    def _too_bad(self, reason: str, bad: int, rows: int, limit: int) -> str:
        count = "no row is usable" if bad == rows else f"{bad:,} of {rows:,} rows are like this or otherwise unusable"
        return f"{self.path}, {reason}; {count}, at most {limit:,} may be: correct the file" + (
            "" if bad == rows else f" or leave such rows out with --max-bad-lines {bad}"
        )


def identity(path: Path) -> tuple[str, int, int]:
    """What another content of a file would hardly have in common with it: path, size and time of the last change."""
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _all(conditions: Sequence[str]) -> str:
    """That all conditions are met, where a later one is looked at if the earlier ones are met."""
    first, *rest = conditions
    return f"case when {first} then {_all(rest)} end" if rest else f"({first})"


def _odd(name: str) -> str:
    """The condition that a text looks like a JSON value that is no text."""
    starts = [f"starts_with({name}, '{sign}')" for sign in "[{"] + [f"{name} >= '-' and {name} < ':'"]
    # A "case", unlike an "and", looks at nothing that it need not.
    return f"case when {' or '.join(starts)} or {name} = 'true' or {name} = 'false' then json_valid({name}) end"


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _string(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _file(path: Path) -> str:
    """A path, not a pattern for several."""
    return _string("".join(f"[{sign}]" if sign in "*?[{" else sign for sign in str(path)))
