"""A table of scores: its rows, which of them are ranked together, and its numbers as texts. Pure.

Among rows that are ranked together the best value of a column is marked and the second best too. What is compared are
the values as shown, so that equal figures carry equal marks. A group that is not ranked (controls) is never marked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from bench.errors import DataError
from bench.protocols import Column

Key = tuple[str, str]
"""(category, name of the column)"""
Mark = Literal["best", "second"]

MISSING = "–"
MINUS = "−"
INTERVAL_LEGEND = "95% bootstrap intervals over users"
SIGNIFICANT = 0.05
"""Adjusted p below which a cell carries a dagger."""


@dataclass(frozen=True)
class Cell:
    """A score, the ends of its 95% interval, what the paper reports there and the standard deviation over seeds, all in
    the score's own unit; `p` is that of its difference to the best row's, adjusted for the comparisons of the table. A
    `signed` cell is a difference of two rows, whose `p` is its own."""

    value: float
    low: float
    high: float
    paper: float | None = None
    sd: float | None = None
    p: float | None = None
    signed: bool = False

    @property
    def difference(self) -> float | None:
        """The value minus the paper's."""
        return None if self.paper is None else self.value - self.paper

    @property
    def significant(self) -> bool:
        """Whether the difference that `p` belongs to is more than chance."""
        return self.p is not None and self.p < SIGNIFICANT


class Place(NamedTuple):
    """A column of a category."""

    category: str
    column: Column

    @property
    def key(self) -> Key:
        """What a row's cells are found by."""
        return self.category, self.column.name


@dataclass(frozen=True)
class Row:
    """A row; `group` is the name of one of the table's groups, a key of `cells` is (category, name of the column)."""

    label: str
    group: str
    cells: Mapping[Key, Cell]

    def has(self, name: Literal["sd", "paper"]) -> bool:
        """Whether any of its cells has such a number."""
        return any(getattr(cell, name) is not None for cell in self.cells.values())


@dataclass(frozen=True)
class Group:
    """Rows that stand together. Its name is shown above them unless it is empty. Groups of one `ranking` are ranked
    together; by default each is by itself."""

    name: str
    ranked: bool
    ranking: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows by group, each with a value for every column of every category. `id` names its files.

    Raises `DataError` for an id that cannot be a file name, a row of an unknown group, a cell of an unknown
    category or column, and a number that is not finite.
    """

    id: str
    title: str
    categories: Sequence[str]
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str]
    groups: Sequence[Group]
    columns_of: Mapping[str, Sequence[Column]] = field(default_factory=dict)
    """The columns of categories that have others than `columns`."""
    answers: Sequence[str] = ()
    """What its rows tell of each other, in sentences, and what these promise."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.id):
            raise DataError(f"table id '{self.id}' cannot name a file; use letters, digits, '-' and '_' only")
        groups = [group.name for group in self.groups]
        if len(set(groups)) < len(groups):
            raise DataError(f"{self.id}: two groups have the same name; give each its own")
        keys = {place.key for place in self.places}
        for row in self.rows:
            where = f"{self.id}, row '{row.label}'"
            if row.group not in groups:
                raise DataError(f"{where}: there is no group '{row.group}'; the table has: {', '.join(groups)}")
            for key, cell in row.cells.items():
                if key not in keys:
                    raise DataError(f"{where}: the table has no column {'/'.join(key)}; add it or leave the cell out")
                numbers = [cell.value, cell.low, cell.high, cell.paper, cell.sd, cell.p]
                if not all(math.isfinite(number) for number in numbers if number is not None):
                    raise DataError(f"{where}: {'/'.join(key)} has a number that is not finite; score the run again")

    @property
    def places(self) -> list[Place]:
        """Its columns from left to right."""
        return [place for category in self.categories for place in self.of_category(category)]

    def of_category(self, category: str) -> list[Place]:
        """The columns of one category."""
        return [Place(category, column) for column in self.columns_of.get(category, self.columns)]

    @property
    def grouped(self) -> list[tuple[Group, list[tuple[int, Row]]]]:
        """The groups that have rows, each with them and their indices in the table."""
        grouped = [(g, [(i, row) for i, row in enumerate(self.rows) if row.group == g.name]) for g in self.groups]
        return [(group, rows) for group, rows in grouped if rows]


# ---- ranking


def rankings(table: Table) -> list[list[int]]:
    """The indices of the rows that are ranked together, a list for each ranking."""
    together: dict[str, set[str]] = {}
    for group in (group for group in table.groups if group.ranked):
        together.setdefault(group.name if group.ranking is None else f"\0{group.ranking}", set()).add(group.name)
    return [[i for i, row in enumerate(table.rows) if row.group in groups] for groups in together.values()]


def marks(table: Table) -> dict[tuple[int, Key], Mark]:
    """The marked cells, by (index of the row, key). Where all values of a column in a ranking look alike, or there is
    one alone, there is nothing to rank."""
    marked: dict[tuple[int, Key], Mark] = {}
    for indices in rankings(table):
        for place in table.places:
            better, key = place.column.better, place.key
            shown = {
                i: round(cell.value, place.column.decimals) for i in indices if (cell := table.rows[i].cells.get(key))
            }
            best_two = sorted(set(shown.values()), reverse=better == "higher")[:2]
            for index, value in shown.items():
                if better and len(best_two) > 1 and value in best_two:
                    marked[index, key] = "best" if value == best_two[0] else "second"
    return marked


# ---- numbers and legends as texts


@dataclass(frozen=True)
class Shown:
    """A cell's numbers as texts, with the decimals of its column; those that it does not have are empty."""

    value: str
    low: str
    high: str
    sd: str
    paper: str
    difference: str
    significant: bool


def shown(cell: Cell, column: Column) -> Shown:
    """A cell as it is shown in a column."""

    def signed(value: float) -> str:
        return f"{value:+.{column.decimals}f}".replace("-", MINUS)

    def number(value: float) -> str:
        return signed(value) if cell.signed else f"{value:.{column.decimals}f}"

    return Shown(
        value=number(cell.value),
        low=f"{cell.low:.{column.interval_decimals}f}",
        high=f"{cell.high:.{column.interval_decimals}f}",
        sd="" if cell.sd is None else f"±{cell.sd:.{column.decimals}f}",
        paper="" if cell.paper is None else number(cell.paper),
        difference="" if cell.difference is None else signed(cell.difference),
        significant=cell.significant,
    )


def head(column: Column) -> str:
    """A column's head with the sign of which way is better."""
    return f"{column.head} {column.arrow}".strip()


DAGGER_LEGEND = (
    "significantly worse than the best of its column{signed}, sign-flip test over users, p below 5% after Holm's "
    "adjustment for all tests of the table. The best was found on the same instances."
)


def legend(table: Table, marks: str, where: str, escape: Callable[[str], str], dagger: str = "†") -> list[str]:
    """What marks, brackets and signs mean, as far as they stand in the table. `marks` and `where` (the intervals
    stand) are in the words of a rendering, ready in its form."""
    cells = [cell for row in table.rows for cell in row.cells.values()]
    parts = [f"{marks}{_not_ranked(table, escape)}.", f"{where}: {escape(INTERVAL_LEGEND)}."]
    if any(cell.sd is not None for cell in cells):
        parts.append(escape("±: standard deviation over seeds; values are means over them."))
    if any(cell.p is not None for cell in cells):
        signed = " (in a row of differences: other than 0)" if any(cell.signed for cell in cells) else ""
        parts.append(f"{dagger}: {escape(DAGGER_LEGEND.format(signed=signed))}")
    if any(cell.paper is not None for cell in cells):
        parts.append(escape("Paper: what the paper reports; difference: ours minus the paper's."))
    return parts


def _not_ranked(table: Table, escape: Callable[[str], str]) -> str:
    names = [escape(group.name) for group, _ in table.grouped if group.name and not group.ranked]
    return f" (not ranked: {', '.join(names)})" if names else ""
