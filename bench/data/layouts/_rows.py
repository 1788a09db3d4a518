"""Rows of published data with profiles in them, from JSON or Parquet, checked: what a layout of several tasks reads.

A row has fields with a text, and `profile`, a list of records with fields of their own. A field that is missing is one
error that names the file, the row and what was expected. A JSON file is read a few rows at a time: one list of rows, or
a row a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.origins import broken
from bench.errors import DataError
from bench.records import Record

if TYPE_CHECKING:
    import pyarrow

PROFILE = "profile"
Value = str | float
_CHUNK = 1 << 24
"""Characters of a JSON file read at a time."""
_BATCH = 64
"""Rows of a Parquet file read at a time: memory that is used again costs no page faults."""
_KINDS = {str, int, float}


@dataclass(frozen=True)
class Form:
    """The fields of a row, those of the records of its profile, and what the data are called in messages. A record
    may lack fields that are `optional`; they are None there."""

    data: str
    row: tuple[str, ...]
    record: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def expected(self) -> str:
        """What a row has, for messages."""
        return (
            f"{self.data} has rows of {', '.join(self.row)} and a list {PROFILE} of records with "
            f"{', '.join(self.record)}"
        )


@dataclass(frozen=True)
class Row:
    """A row: its number in the file, from 1, its fields, and the fields of its records, in the order of the form (the
    optional ones last)."""

    where: str
    fields: tuple[Value, ...]
    records: Sequence[tuple[Any, ...]]


def rows_of(path: Path, form: Form) -> Iterator[Row]:
    """The rows of a file, in their order. Raises `DataError`."""
    return _parquet(path, form) if path.suffix == ".parquet" else _json(path, form)


# ---- JSON


def _json(path: Path, form: Form) -> Iterator[Row]:
    for number, row in enumerate(objects(path), start=1):
        yield _checked(row, f"{path}, row {number:,}", form)


def _checked(row: Any, where: str, form: Form) -> Row:
    """A row of plain values. Raises `DataError` for one of another form."""
    if not isinstance(row, Mapping):
        raise _malformed(where, "it is not an object", form)
    fields = _values(row, form.row, (), where, form)
    profile = row.get(PROFILE)
    if not isinstance(profile, list):
        raise _malformed(where, f"{PROFILE} is {_told(profile)}, not a list", form)
    names = form.record
    try:
        records = [(*[one[name] for name in names], *[one.get(name) for name in form.optional]) for one in profile]
        kinds = set(map(type, chain.from_iterable(record[: len(names)] for record in records)))
    except (KeyError, TypeError, AttributeError):
        kinds = {object}
    if not kinds <= _KINDS:
        records = []
        for number, one in enumerate(profile, start=1):
            at = f"{where}, record {number:,} of {PROFILE}"
            if not isinstance(one, Mapping):
                raise _malformed(at, "it is not an object", form)
            records.append(_values(one, names, form.optional, at, form))
    return Row(where, fields, records)


def _values(
    row: Mapping[str, Any], names: Sequence[str], optional: Sequence[str], where: str, form: Form
) -> tuple[Any, ...]:
    for name in names:
        if type(row.get(name)) not in _KINDS:
            found = f"is {_told(row[name])}, not a text or a number" if name in row else "is missing"
            raise _malformed(where, f"{name} {found}", form)
    return (*(row[name] for name in names), *(row.get(name) for name in optional))


def _told(value: object) -> str:
    return "missing" if value is None else f"{value!r:.60}"


def _malformed(where: str, what: str, form: Form) -> DataError:
    return DataError(f"{where}: {what}; {form.expected()}")


def objects(path: Path) -> Iterator[Any]:
    """The values in a JSON file's list, or its lines, a few in memory at a time. Raises `DataError`."""
    decoder = json.JSONDecoder()
    count, place, text = 0, 0, ""
    try:
        with path.open(encoding="utf-8-sig") as file:
            more = True
            while more:
                chunk = file.read(_CHUNK)
                more = bool(chunk)
                text, place = text[place:] + chunk, 0
                if count == 0 and text.lstrip()[:1] == "[":
                    place = text.index("[") + 1
                    count = -1
                while (start := _skipped(text, place)) < len(text) and text[start] != "]":
                    try:
                        value, end = decoder.raw_decode(text, start)
                    except ValueError as error:
                        if more:
                            break
                        raise DataError(f"{path} is not valid JSON ({error.args[0]}); fetch the file again") from error
                    # A number may go on in what is not read yet.
                    if more and end == len(text):
                        break
                    place, count = end, max(count, 0) + 1
                    yield value
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise broken(path, error) from error


def _skipped(text: str, place: int) -> int:
    """Where the next value begins."""
    while place < len(text) and text[place] in " \t\r\n,":
        place += 1
    return place


# ---- Parquet


def _parquet(path: Path, form: Form) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet

    number = 1
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            have = set(file.schema_arrow.names)
            columns = [name for name in (*form.row, PROFILE) if name in have]
            for batch in file.iter_batches(_BATCH, columns=columns):
                yield from _batch_rows(batch, path, number, form)
                number += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise broken(path, error) from error


def _batch_rows(batch: pyarrow.RecordBatch, path: Path, first: int, form: Form) -> Iterator[Row]:
    columns = _columns(batch, form)
    if columns is None:
        # Row by row, which says in words what is wrong where.
        for number, row in enumerate(batch.to_pylist(), start=first):
            yield _checked(row, f"{path}, row {number:,}", form)
        return
    fields, records, offsets = columns
    for number, (values, (start, end)) in enumerate(zip(fields, pairwise(offsets), strict=True), start=first):
        yield Row(f"{path}, row {number:,}", values, records[start:end])


def _columns(batch: pyarrow.RecordBatch, form: Form) -> tuple[list[Any], list[Any], list[int]] | None:
    """The fields of a batch's rows, those of all their records, and where each row's begin; None unless all of them
    are there, of the right kind and without gaps."""
    import numpy as np
    import pyarrow.compute as pc
    import pyarrow.types as types

    if not {*form.row, PROFILE} <= set(batch.schema.names):
        return None
    profiles = batch.column(PROFILE)
    if profiles.null_count or not (types.is_list(profiles.type) or types.is_large_list(profiles.type)):
        return None
    structs = profiles.flatten()
    if structs.null_count or not types.is_struct(structs.type):
        return None
    inside = {structs.type.field(place).name for place in range(structs.type.num_fields)}
    if not set(form.record) <= inside:
        return None
    own = [batch.column(name) for name in form.row]
    parts = [structs.field(name) for name in form.record]
    if any(column.null_count or not _is_plain(column.type) for column in (*own, *parts)):
        return None
    parts += [structs.field(name) for name in form.optional if name in inside]
    lists = [part.to_pylist() for part in parts]
    lists += [[None] * len(structs) for name in form.optional if name not in inside]
    sizes = pc.list_value_length(profiles).to_numpy(zero_copy_only=False)
    offsets = [0, *np.cumsum(sizes).tolist()]
    records = list(zip(*lists, strict=True))
    return list(zip(*(column.to_pylist() for column in own), strict=True)), records, offsets


def _is_plain(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind) or types.is_floating(kind)
    )


# ---- records


@dataclass
class Shared:
    """Records, the same one only once: the splits of a user repeat nearly the whole profile."""

    seen: dict[Record, Record] = field(default_factory=dict)

    def of(self, records: Iterable[Record]) -> tuple[Record, ...]:
        """The records, equal ones the same object."""
        known = self.seen.setdefault
        return tuple(known(record, record) for record in records)
