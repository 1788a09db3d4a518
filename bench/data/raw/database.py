"""DuckDB for one file: statements that can be watched and interrupted, and its errors in words."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bench.data.raw.problems import QUOTED, QUOTES, SWALLOWS
from bench.errors import DataError, ResourceError
from bench.progress import Share

if TYPE_CHECKING:
    import duckdb
    import polars


class GzipError(DataError):
    """A gzip file that DuckDB cannot read."""


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
        connection.execute("set TimeZone = 'UTC'")
        connection.execute("set disabled_optimizers = 'join_order,build_side_probe_side'")
        yield connection


@dataclass(frozen=True)
class Database:
    """A connection, the file that it reads and a folder for what does not fit into memory."""

    connection: duckdb.DuckDBPyConnection
    path: Path
    scratch: Path

    def run(self, statement: str, label: str) -> None:
        """Run a statement in a thread, so that it can be watched and interrupted. Raises `DataError` for a file that
        cannot be read, `ResourceError` without memory or room for it."""
        import duckdb

        failed: list[duckdb.Error] = []

        def work() -> None:
            try:
                self.connection.execute(statement)
            except duckdb.Error as error:
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        progress = Share(label)
        try:
            while thread.is_alive():
                thread.join(0.2)
                progress.update(self.connection.query_progress() / 100)
        except BaseException:
            self.connection.interrupt()
            thread.join()
            raise
        finally:
            progress.close()
        if failed:
            raise self.failed(failed[0]) from failed[0]

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of a short statement."""
        return self.connection.execute(statement).fetchall()

    def frame(self, query: str) -> polars.DataFrame:
        """The rows of a query as a frame."""
        import polars as pl

        return cast(pl.DataFrame, pl.from_arrow(self.connection.sql(query).to_arrow_table()))

    def register(self, name: str, frame: polars.DataFrame) -> None:
        """Give statements a frame under a name."""
        self.connection.register(name, frame.to_arrow())

    def column_types(self, reader: str, noun: str) -> dict[str, str]:
        """The columns of a table and their types. Raises `DataError`; `noun` says what a row is about."""
        import duckdb

        try:
            rows = self.execute(f"describe select * from {reader}")
        except duckdb.Error as error:
            if self.path.stat().st_size == 0:
                raise DataError(f"{self.path} is empty; give a file that has a row for each {noun}") from error
            raise self.failed(error) from error
        return {str(row[0]): str(row[1]) for row in rows}

    def failed(self, error: duckdb.Error) -> Exception:
        """The error for a file that DuckDB cannot read, or its own for a statement that is wrong."""
        import duckdb

        of_files = (duckdb.IOException, duckdb.InvalidInputException, duckdb.DataError, duckdb.OutOfMemoryException)
        if not isinstance(error, of_files):
            return error
        reason = str(error).splitlines()[0]
        if isinstance(error, duckdb.OutOfMemoryException) or "No space left" in reason:
            return ResourceError(f"{self.path} needs more memory, or room in {self.scratch} ({reason}); free some")
        if "GZIP" in reason or "gzip stream" in reason:
            return GzipError(f"{self.path} is a broken gzip file ({reason}); fetch it again")
        if SWALLOWS.strip("'") in reason:
            return DataError(f"{self.path} cannot be read ({reason}); {QUOTES}")
        if QUOTED.strip("'") in reason:
            known = "say --quoting double if they are, --quoting none if the quotation marks are part of them"
            return DataError(f"{self.path} cannot be read ({reason}); {known}")
        return DataError(f"{self.path} cannot be read ({reason}); give a file of JSON lines, CSV or Parquet")


def sql_name(column: str) -> str:
    """A column's name in SQL."""
    return '"' + column.replace('"', '""') + '"'


def sql_text(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def sql_path(path: Path) -> str:
    """A path in SQL, not a pattern for several."""
    return sql_text("".join(f"[{sign}]" if sign in "*?[{" else sign for sign in str(path)))
