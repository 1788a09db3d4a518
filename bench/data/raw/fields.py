"""The fields of a raw file: which column holds each, and what its values mean in SQL.

In the rows of `bench.data.raw.formats` a field of kind LONG stands for its text, any other for its JSON token (`"abc"`,
`5.0`, `["a", "b"]`), whatever the file's format. Numbers, times and lists of texts are found once a row and stand in
columns of their own, `<field>_value`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.data.raw.columns import ANY, ID, LIKELY, LONG, NUMBER, OPTIONAL, RATING, TEXT, TEXTS, TIME, ColumnMap
from bench.errors import DataError

EARLIEST, LATEST = 631_152_000_000, 4_102_444_800_000  # milliseconds: the years 1990 and 2100
UNREADABLE = 1
"""The problem of a row that is not a JSON object, or has none of the fields; n + 2 is that of field n."""


@dataclass(frozen=True)
class Fields:
    """The fields of a file of reviews or, with the prefix "items.", of items: name -> kind."""

    path: Path
    kinds: Mapping[str, str]
    columns: ColumnMap
    prefix: str

    @property
    def noun(self) -> str:
        """What a row is about."""
        return "item" if self.prefix else "review"

    def column(self, name: str) -> str:
        """The column that holds a field; empty if none does."""
        return self.columns.columns[self.prefix + name]

    def used_columns(self) -> list[str]:
        """The columns that hold fields."""
        return [column for column in map(self.column, self.kinds) if column]

    def of_kind(self, kind: str) -> list[str]:
        """The names of the fields of a kind."""
        return [name for name, own in self.kinds.items() if own == kind]

    def may_be_missing(self, name: str) -> bool:
        """Whether a review or an item may be without this field."""
        return self.prefix + name in self.columns.missing

    def check_present(self, found: int) -> list[str]:
        """The columns that no row has a value for, and that may be missing; bit n of `found` says whether field n has
        some. Raises `DataError` for a field that has to be there."""
        absent = [name for n, name in enumerate(self.kinds) if not found >> n & 1 and self.column(name)]
        if needed := [name for name in absent if not self.may_be_missing(name)]:
            raise self._absent(needed, [])
        return [self.column(name) for name in absent]

    def check_columns(self, columns: Sequence[str]) -> None:
        """Raise `DataError` if some of the fields' columns are not among those of the file."""
        if absent := [name for name in self.kinds if self.column(name) and self.column(name) not in columns]:
            raise self._absent(absent, columns)

    def check_any(self, columns: Sequence[str]) -> None:
        """Raise `DataError` if none of the fields' columns is among those of the file."""
        if columns and not set(self.used_columns()) & set(columns):
            self.check_columns(columns)

    def _absent(self, names: Sequence[str], columns: Sequence[str]) -> DataError:
        listed, sought = ", ".join(columns), ", ".join(f"'{self.column(name)}'" for name in names)
        has = f", which has: {listed if len(listed) <= 200 else listed[:200] + '...'}" if columns else ""
        if len(names) == 1 and not columns:
            (name,) = names
            none = f", or that there is none with --map {self.prefix}{name}="
            return DataError(
                f"{self.path}: no row has a value for {sought}; say which column holds the {self.noun}'s {name} with "
                f"--map {self.prefix}{name}=COLUMN" + (none if self.prefix + name in OPTIONAL else "")
            )
        told = ",".join(self._told(name, names, columns) for name in self.kinds if self._is_told(name, names))
        return DataError(
            f"{self.path}: no row has a value for {sought}{has}; say which column holds what with --map {told}"
            + (f" ({self.prefix}FIELD= for one that the file lacks)" if self._optional(names) else "")
        )

    def _optional(self, names: Sequence[str]) -> bool:
        return any(self.prefix + name in OPTIONAL for name in names)

    def _is_told(self, name: str, missing: Sequence[str]) -> bool:
        """Whether a mapping that is right for this file has to name a field's column."""
        return name in missing or self.column(name) != name

    def _told(self, name: str, missing: Sequence[str], columns: Sequence[str]) -> str:
        """What a mapping says of a field: the column that it has, or the one that seems to be meant."""
        if name not in missing:
            return f"{self.prefix}{name}={self.column(name)}"
        free = {column.lower(): column for column in columns if column not in self.used_columns()}
        near = next((free[other] for other in LIKELY.get(self.prefix + name, ()) if other in free), None)
        none = "" if columns and self.prefix + name in OPTIONAL else "COLUMN"
        return f"{self.prefix}{name}={none if near is None else near}"


@dataclass(frozen=True)
class FieldSql:
    """SQL for what fields mean; `unit` gives the milliseconds in the unit of the file's times."""

    fields: Fields
    unit: int

    def text(self, name: str) -> str:
        """A text; null if it is missing."""
        return name if self.fields.kinds[name] == LONG else f"{name} ->> '$'"

    def number(self, name: str) -> str:
        """A number; null if it is missing."""
        return f"{name}_value"

    def milliseconds(self, name: str) -> str:
        """A time in milliseconds since 1970; null if it is missing."""
        return f"{name}_value::bigint"

    def texts(self, name: str) -> str:
        """A list of texts, also of a single text; null if it is missing."""
        return f"{name}_value"

    def true(self, name: str) -> str:
        """Whether Python would take a value for true."""
        # No "in": for a list DuckDB makes a join, which gives up the order of the rows.
        unequal = (f"{name} <> '{value}'" for value in ('""', "[]", "{}", "false", "0", "0.0"))
        return f"coalesce({' and '.join(unequal)}, false)"

    def given(self, name: str, condition: str) -> str:
        """`condition`, or that the field is missing, where the column map allows it."""
        if self.fields.may_be_missing(name):
            return f"(coalesce({condition}, false) or not {self.true(name)})"
        return f"({condition})"

    def with_values(self, rows: str, derived: Mapping[str, str]) -> str:
        """SQL for rows with the values that are found once a row, and with `derived` ones (name -> SQL)."""
        values = []
        for name, kind in self.fields.kinds.items():
            if kind in (NUMBER, RATING, TIME):
                value = {TIME: self._time, RATING: self._rating, NUMBER: _number}[kind]
                of_text = value(f"({name} ->> '$')")
                values.append(
                    f", case when starts_with({name}, '\"') then {of_text} else {value(name)} end as {name}_value"
                )
            elif kind == TEXTS:
                others = f"list_filter(json_type({name}, '$[*]'), lambda kind: kind <> 'VARCHAR')"
                values.append(
                    f", case when starts_with({name}, '[') then case when len({others}) = 0 then {name} ->> '$[*]' end "
                    f"when starts_with({name}, '\"') then [{name} ->> '$'] end as {name}_value"
                )
        more = "".join(f", {sql} as {name}" for name, sql in derived.items())
        return f"(select *{more} from (select *{''.join(values)} from {rows}))"

    def rated(self, name: str) -> str:
        """Whether a review has a rating: 0 is none, but on a scale that begins there."""
        value = f"{name}_value"
        return f"{value} is not null" if self.fields.columns.scale.low <= 0 else f"{value} <> 0"

    def _rating(self, text: str) -> str:
        """The rating in a text, a number or, like 13/20, one with the highest of the scale behind it."""
        number, of = (f"try_cast(split_part({text}, '/', {place}) as double)" for place in (1, 2))
        fraction = f"case when contains({text}, '/') and {of} = {self.fields.columns.scale.high} then {number} end"
        return f"coalesce({_number(text)}, {fraction})"

    def _time(self, text: str) -> str:
        """The milliseconds since 1970 that a text says, as a number in the file's unit or as a date."""
        number = _number(text)
        date = f"epoch_ms({_date(text, self.fields.columns.dates)})::double"
        return f"coalesce(case when trunc({number}) = {number} then {number} * {self.unit} end, {date})"

    def judged(self, rows: str, unpacked: bool) -> str:
        """SQL for rows with what is wrong with each ("problem", 0 if nothing) and, if their long texts were `unpacked`
        by DuckDB, whether one of these may not be a text ("odd")."""
        kinds = self.fields.kinds
        right = " and ".join(self._right(name, kind) for name, kind in kinds.items() if self.fields.column(name))
        nothing = " and ".join(f"{name} is null" for name in kinds)
        wrong = " ".join(
            f"when {name} is null or not {right_} then {n}" if kind == ID else f"when not {right_} then {n}"
            for n, (name, kind) in enumerate(kinds.items(), start=2)
            for right_ in [self._right(name, kind)]
        )
        # Most rows are right in all fields, which is found fastest.
        problem = f"case when {right} then 0 when {nothing} then {UNREADABLE} {wrong} else 0 end"
        odd = " or ".join(_odd(name) for name in self.fields.of_kind(LONG)) if unpacked else ""
        return f"(select *, ({problem})::utinyint as problem, coalesce({odd or 'false'}, false) as odd from {rows})"

    def _right(self, name: str, kind: str) -> str:
        """The condition that a field is of its kind; for a missing value it is not false."""
        value = f"{name}_value"
        scale = self.fields.columns.scale
        if kind == RATING:
            return f"coalesce({value} between {scale.low} and {scale.high} or {value} = 0, {name} is null)"
        if kind == TIME:
            return f"coalesce({value} between {EARLIEST} and {LATEST} or {value} = 0, {name} is null)"
        return {
            ID: f"(starts_with({name}, '\"') and strlen({name}) > 2)",
            TEXT: f"coalesce(starts_with({name}, '\"'), true)",
            LONG: "true",
            NUMBER: f"coalesce(isfinite({value}), {name} is null)",
            TEXTS: f"({value} is not null or {name} is null)",
            ANY: "true",
        }[kind]


def _number(text: str) -> str:
    """The number in a text; null if it is none."""
    return f"case when not contains({text}, '_') then try_cast({text} as double) end"


def _date(text: str, dates: str) -> str:
    """The date in a text, with or without a time, in UTC where it names no zone; null if it is none, or if it is like
    05/06/2015 and `dates` does not tell what comes first."""
    zoned = f"regexp_replace({text}, ' ([+-]\\d\\d:?\\d\\d)$', '\\1')"
    iso = f"case when regexp_matches({text}, '^ *\\d{{4}}-\\d') then try_cast({zoned} as timestamptz) end"
    named = f"try_strptime({text}, {_formats('%Y/%m/%d', '%m %d, %Y', *_WITH_NAMES)})"
    month_first, day_first = (
        f"try_strptime({text}, {_formats(*(order.replace('/', sign) for sign in '/.-'))})"
        for order in ("%m/%d/%Y", "%d/%m/%Y")
    )
    if dates:
        numbers = month_first if dates == "month-first" else day_first
    else:
        same = f"coalesce({month_first} = {day_first}, true)"
        numbers = f"case when {same} then coalesce({month_first}, {day_first}) end"
    return f"coalesce({iso}, {named}, {numbers})"


_WITH_NAMES = [
    date for month in "bB" for date in (f"%{month} %d, %Y", f"%{month} %d %Y", f"%d %{month} %Y", f"%d-%{month}-%Y")
]
"""Dates with the name of a month, in English."""


_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")


def _formats(*dates: str) -> str:
    """Formats of dates with or without a time of the day, in SQL."""
    return str([date + time for date in dates for time in _CLOCKS])


def _odd(name: str) -> str:
    """The condition that a text looks like a JSON value that is not a text."""
    starts = [f"starts_with({name}, '{sign}')" for sign in "[{"] + [f"{name} >= '-' and {name} < ':'"]
    # A "case", unlike an "and", looks at nothing that it need not.
    return f"case when {' or '.join(starts)} or {name} = 'true' or {name} = 'false' then json_valid({name}) end"
