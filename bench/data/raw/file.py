"""Reading one raw file, in two goes: `RawFile.scan` looks at all rows and takes of those that meet a condition what is
needed to choose among them; `RawFile.fetch` brings the texts of the chosen ones.

Both have the rows in the order of the file, by which ties break. A row that cannot be used is counted, named and left
out, if as many may be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.raw.background import BackgroundReader, gzipped
from bench.data.raw.columns import LONG, RATING, TIME
from bench.data.raw.database import Database
from bench.data.raw.fields import UNREADABLE, Fields, FieldSql
from bench.data.raw.formats import Format, column_names, format_of
from bench.data.raw.problems import expected, off_scale, told_otherwise, too_many
from bench.errors import DataError

if TYPE_CHECKING:
    import duckdb
    import polars


_RATING = re.compile(r'"?\s*\d{1,9}(\.\d*)?\s*(/\s*\d{1,9}(\.\d*)?\s*)?"?')
"""The token of a value that may be a rating on some scale."""


@dataclass(frozen=True)
class Selection:
    """What is wanted of a file: `values` (name -> SQL) of rows that meet all conditions in `keep`. Those named in
    `scanned` are found for all such rows, the others for chosen ones. Conditions and values are in SQL over the names
    of the fields (see `FieldSql`) and over `derived` ones (name -> SQL), which are found once a row."""

    keep: Sequence[str]
    values: Mapping[str, str]
    scanned: Sequence[str]
    derived: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scanned:
    """What a file holds: a frame of the rows that are kept, how many rows there are, how many of these are bad, what is
    wrong with the first bad one, or "", the columns that may be missing and that no row has, and how many good rows
    each condition of the selection left out, the first that a row did not meet."""

    kept: polars.DataFrame
    rows: int
    bad: int
    reason: str
    absent: list[str]
    unmet: list[int]


class RawFile:
    """A raw file of reviews or of items. `background` reads it too; `scratch` is a folder for what is in between."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, fields: Fields, background: BackgroundReader, scratch: Path
    ) -> None:
        self.path = fields.path
        self._fields = fields
        self._database = Database(connection, fields.path, scratch)
        self._background = background
        self._scratch = scratch
        self._identity = identity(fields.path)
        self._table = f"scanned_{fields.noun}s"
        self._holds_all = False

    @cached_property
    def _format(self) -> Format:
        return format_of(self._database, self._fields)

    @cached_property
    def sql(self) -> FieldSql:
        """SQL for what the fields mean. Raises `DataError` for a file that cannot be read."""
        return FieldSql(self._fields, self._format.unit)

    def scan(self, selection: Selection, max_bad: int) -> Scanned:
        """The selection's scanned values of the rows that it keeps, with their positions ("row", from 0), in the order
        of the file.

        Raises `DataError` for a file that cannot be read, that is empty, in which no row has a value for a field that
        is needed, or of which more than `max_bad` rows are bad, or all.
        """
        # A gzip file can only be read from its beginning, which takes long: what `fetch` may want stays in memory.
        holds_all = gzipped(self.path)
        names = selection.values if holds_all else selection.scanned
        try:
            self._read(selection, names, strict=True)
        except DataError as error:
            self._format.mend(error)
            self._read(selection, names)
        self._settle_odd_ones()
        ((rows, bad, first, gaps, whole),) = self._database.execute(
            "select count(*), count(*) filter (problem > 0), min(rowid) filter (problem > 0), "
            "coalesce(bit_or(gaps), 0), count(*) filter (gaps is null) from " + self._table
        )
        rejected, reason = self._format.rejected()
        if first is not None:
            reason = self._explained(first, rows)
        if rows + rejected == 0:
            named = column_names(self.path, self._fields.columns.quoting)
            what = "has columns and no row" if named else "is empty"
            raise DataError(f"{self.path} {what}; give a file that has a row for each {self._fields.noun}")
        absent = self._fields.check_present(gaps) if gaps and not whole else []
        if bad == rows:  # maybe since its columns have other names
            self._fields.check_any(column_names(self.path, self._fields.columns.quoting))
        if bad == rows or bad + rejected > max_bad:
            self._check_scale(first, reason, bad + rejected, rows)
            raise too_many(self.path, reason, bad + rejected, rows + rejected, max_bad)
        counts = dict(
            self._database.execute(f"select unmet, count(*) from {self._table} where problem = 0 group by unmet")
        )
        names = ", ".join(selection.scanned)
        frame = self._database.frame(f"select rowid as row, {names} from {self._table} where kept")
        self._holds_all = holds_all
        if not holds_all:
            self._database.execute(f"drop table {self._table}")
        unmet = [counts.get(number, 0) for number in range(1, len(selection.keep) + 1)]
        return Scanned(frame, rows + rejected, bad + rejected, reason, absent, unmet)

    def _read(self, selection: Selection, names: Iterable[str], strict: bool = False) -> None:
        """Make the table of all rows: what is wrong with each, whether it is kept, which fields it has if not all, and
        the values of these names if it is kept. Raises `DataError`, if `strict` also for some that `Format.mend` and a
        second reading can do something about."""
        kinds = self._fields.kinds
        present = " | ".join(f"(({name} is not null)::utinyint << {n})" for n, name in enumerate(kinds))
        # Most rows have all fields; which one no row has is found from the others.
        gaps = f"case when {present} <> {(1 << len(kinds)) - 1} then {present} end"
        chosen = ", ".join(f"case when kept then {selection.values[name]} end as {name}" for name in names)
        rows = self.sql.with_values(self._format.rows(strict=strict), selection.derived)
        # DuckDB unpacks long texts fastest when it need not keep their tokens.
        judged = self.sql.judged(rows, unpacked=self._format.plain is not None)
        self._database.run(
            f"create temp table {self._table} as select problem, unmet, kept, odd, {gaps} as gaps, {chosen} "
            f"from (select *, problem = 0 and unmet = 0 as kept from (select *, "
            f"(case when problem = 0 then {_unmet(selection.keep)} end)::utinyint as unmet from {judged}))",
            f"reading {self.path.name}",
        )

    def _settle_odd_ones(self) -> None:
        """DuckDB makes a text of what is not one, `["a"]` of a list: look at the tokens of the few that may be such."""
        rows = self._database.frame(f"select rowid as row from {self._table} where odd and problem = 0")["row"]
        if rows.is_empty():
            return
        ((total,),) = self._database.execute(f"select count(*) from {self._table}")
        texts = self._fields.of_kind(LONG)
        tokens = self._some(rows, total, "select " + ", ".join(texts), exact=True)
        for name in texts:
            wrong = rows.filter(~tokens[name].str.starts_with('"').fill_null(True))
            self._wanted_rows(wrong)
            change = f"problem = {list(self._fields.kinds).index(name) + 2}, kept = false"
            self._database.execute(
                f"update {self._table} as held set {change} from wanted where held.rowid = wanted.row"
            )

    def _explained(self, row: int, total: int) -> str:
        """What is wrong with a row, given by its position in the file."""
        import polars as pl

        ((problem,),) = self._database.execute(f"select problem from {self._table} where rowid = {row}")
        if problem == UNREADABLE:
            return self._format.unreadable(row)
        name = list(self._fields.kinds)[problem - 2]
        kind, columns = self._fields.kinds[name], self._fields.columns
        token = self._some(pl.Series([row]), total, f"select {name}", exact=True)[name][0]
        value = "missing" if token is None else token if len(token) <= 60 else token[:60] + "..."
        hint = told_otherwise(token, columns.seconds, columns.dates) if kind == TIME else ""
        where, column = self._format.where(row), self._fields.column(name)
        return f"{where}: '{column}' is not {expected(kind, columns)} but {value}{hint}"

    def _check_scale(self, row: int | None, reason: str, bad: int, total: int) -> None:
        """Raise the `DataError` of another scale if the first bad row has a rating on one."""
        import polars as pl

        name = next((name for name, kind in self._fields.kinds.items() if kind == RATING), None)
        if row is None or name is None:
            return
        ((problem,),) = self._database.execute(f"select problem from {self._table} where rowid = {row}")
        token = self._some(pl.Series([row]), total, f"select {name}", exact=True)[name][0] or ""
        if problem != list(self._fields.kinds).index(name) + 2 or not _RATING.fullmatch(token):
            return
        number, of = (f"try_cast(split_part({name} ->> '$', '/', {place}) as double)" for place in (1, 2))
        rows = f"(select {number} as number, {of} as of from {self._format.rows()})"
        ((lowest, highest, most),) = self._database.execute(
            f"select min(number), max(number), max(of) from {rows} where isfinite(number)"
        )
        raise off_scale(self.path, reason, bad, total, lowest, highest, most)

    def median_and_longest(self, text: str, derived: Mapping[str, str] | None = None) -> tuple[int, int] | None:
        """The median and the largest length in characters of a text, in SQL, over all rows; None if none has one."""
        rows = self.sql.with_values(self._format.rows(), derived or {})
        ((median, longest),) = self._database.execute(
            f"select quantile_disc(length({text}), 0.5), max(length({text})) from {rows}"
        )
        return None if median is None else (median, longest)

    def fetch(self, selection: Selection, rows: polars.Series, total: int) -> polars.DataFrame:
        """All values of some of the file's `total` rows, given by their positions, ascending. Raises `DataError` if the
        file does not have these rows."""
        self._check_unchanged()
        if self._holds_all:
            held = f"(select rowid as row, * from {self._table})"
            return self._collected(rows, f"select {', '.join(selection.values)} from {held} {self._wanted_rows(rows)}")
        values = ", ".join(f"{sql} as {name}" for name, sql in selection.values.items())
        return self._some(rows, total, f"select {values}", selection.derived)

    def _some(
        self,
        rows: polars.Series,
        total: int,
        select: str,
        derived: Mapping[str, str] | None = None,
        exact: bool = False,
    ) -> polars.DataFrame:
        """What a selection gives of some rows; `exact` has tokens for texts too."""
        picked, plain = self._scratch / f"{self._fields.noun}s-picked.jsonl", self._format.plain
        if plain is not None and self._background.pick(plain, rows.to_list(), total, picked):
            source = self.sql.with_values(self._format.rows(picked, exact), derived or {})
        else:
            every = self.sql.with_values(self._format.rows(exact=exact), derived or {})
            source = f"(select row_number() over () - 1 as row, * from {every}) {self._wanted_rows(rows)}"
        found = self._collected(rows, f"{select} from {source}")
        picked.unlink(missing_ok=True)
        return found

    def _wanted_rows(self, rows: polars.Series) -> str:
        """SQL that picks rows by their positions, and puts them in order."""
        import polars as pl

        self._database.register("wanted", pl.DataFrame({"row": rows.cast(pl.Int64)}))
        return "semi join wanted using (row) order by row"

    def _collected(self, rows: polars.Series, query: str) -> polars.DataFrame:
        """The result of a query, which is to have a row for each of `rows`."""
        self._database.run(f"create or replace temp table fetched as {query}", f"fetching from {self.path.name}")
        found = self._database.frame("from fetched")
        self._database.execute("drop table fetched")
        if found.height != len(rows):
            raise self.changed()
        return found

    def _check_unchanged(self) -> None:
        if identity(self.path) != self._identity:
            raise self.changed()

    def changed(self) -> DataError:
        """The error for a file that is not what it was a moment ago."""
        return DataError(f"{self.path} changed while it was read; run the same command again")


def identity(path: Path) -> tuple[str, int, int]:
    """What another content of a file would hardly have in common with it: path, size and time of the last change."""
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _unmet(conditions: Sequence[str], number: int = 1) -> str:
    """The number of the first condition that is not met, from 1, or 0; the later ones are not looked at."""
    if not conditions:
        return "0"
    return f"case when {conditions[0]} then {_unmet(conditions[1:], number + 1)} else {number} end"
