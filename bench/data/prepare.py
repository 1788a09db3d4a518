"""Preparing one category, whole or not at all: from raw files of reviews and items to DPL's splits."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.data.export import EXPORT
from bench.data.folders import discard, missing_folders
from bench.data.manifest import Manifest, Summary
from bench.data.raw.background import BackgroundReader
from bench.data.raw.checkpoint import SCANS
from bench.data.raw.columns import COLUMN_MAPS, ColumnMap
from bench.data.raw.file import identity
from bench.data.steps import LEFT_OUT, Progress, Steps
from bench.data.thresholds import Thresholds
from bench.errors import DataError
from bench.files import replace_content

_AMAZON_2023 = COLUMN_MAPS["amazon-2023"]


def prepare(
    reviews: Path,
    items: Path | None,
    category: str,
    out: Path,
    progress: Progress,
    thresholds: Thresholds | None = None,
    columns: ColumnMap = _AMAZON_2023,
    max_bad_lines: int = 0,
) -> Summary:
    """Prepare one category into `out`/`category` (see `bench.data.manifest`) and report what was kept.

    `reviews` and `items` are files with the columns that `columns` names; without `items` these columns are all in the
    file of reviews (`read_column_map` makes such a map), and the items come out of it. In each, up to `max_bad_lines`
    rows that cannot be used are left out, counted and reported. If the category is there already, made from the same
    files in the same way, it is reported and left alone. What was read before an interruption, also a hard one, is not
    read again. Raises `DataError` for input that cannot be read, for a category that is there from other files, and if
    nothing is left; then nothing is written.
    """
    limits = thresholds or Thresholds()
    if not re.fullmatch(r"\w[\w.-]*", category):
        raise DataError(f"category '{category}' cannot be a folder's name; use letters, digits, '_', '-' and '.'")
    if category == EXPORT:
        raise DataError(f"category '{EXPORT}': the folder of this name is for the published form; take another one")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is not a folder; choose another --out")
    paths = [reviews] if items is None else [reviews, items]
    background = BackgroundReader(paths[::-1])  # in the order in which they are needed
    how = {"thresholds": asdict(limits), "layout": columns.described()}
    try:
        if (out / category).exists():
            return _existing(out / category, background.sources()[::-1], how, max_bad_lines, progress)
        # A hash is the same within a version of DuckDB; what a scan keeps has a form of its own.
        versions = [version("personalization-bench"), version("duckdb"), SCANS]
        files = [list(identity(path)) for path in paths]
        task = {"files": files, "max_bad_lines": max_bad_lines, "versions": versions} | how
        with _workplace(out, category, task) as work:
            if (out / category).exists():  # since a moment ago
                return _existing(out / category, background.sources()[::-1], how, max_bad_lines, progress)
            result = work / "result"
            result.mkdir()
            summary = _run(
                Steps(work, background, limits, columns, max_bad_lines, progress), reviews, items, category, result
            )
            sources = background.sources()[::-1]
            if files != [list(identity(path)) for path in paths]:
                changed = " or ".join(map(str, paths))
                raise DataError(f"{changed} changed while it was read; run the same command again")
            Manifest(category, sources, how["thresholds"], summary, how["layout"]).write(result)
            result.rename(out / category)
        return summary
    except OSError as error:
        raise DataError(
            f"could not write {out / category} ({error}); choose another folder, or free space if the disk is full"
        ) from error
    finally:
        background.give_up()


def _run(steps: Steps, reviews: Path, items: Path | None, category: str, result: Path) -> Summary:
    """`Steps.run`; what is wrong with a broken gzip file is said best by who reads it to its end."""
    try:
        return steps.run(reviews, items, category, result)
    except (DataError, EOFError, zlib.error, gzip.BadGzipFile):
        steps.background.check()
        raise


def _existing(
    folder: Path, sources: list[dict[str, Any]], how: Mapping[str, Any], max_bad_lines: int, progress: Progress
) -> Summary:
    if not (folder / "manifest.json").exists():
        raise DataError(
            f"{folder} exists but `bench data prepare` did not make it; move it away or choose another --out"
        )
    found = Manifest.read(folder)
    counts = {**found.summary.items, **found.summary.reviews}
    left_out = max(counts.get(f"{noun} {LEFT_OUT}", 0) for noun in ("items", "reviews"))
    same_files = [source["sha256"] for source in found.sources] == [source["sha256"] for source in sources]
    if not same_files:
        what = "from " + " and ".join(str(source["name"]) for source in found.sources)
    elif found.thresholds != how["thresholds"]:
        what = "with other thresholds"
    elif found.layout != how["layout"]:
        what = "with another mapping of columns"
    elif left_out > max_bad_lines:
        what = f"without {left_out:,} unusable lines"
    else:
        progress(f"{folder} is already prepared from these files; nothing to do")
        return found.summary
    raise DataError(
        f"{folder} is already prepared {what}, which is not the same as asked for; remove it or choose another --out"
    )


# Unfinished work.


@contextmanager
def _workplace(out: Path, category: str, task: Mapping[str, Any]) -> Iterator[Path]:
    """A hidden folder in `out` for one process at a time. It vanishes after success and for input that cannot be used;
    otherwise it stays for the next call with the same task. Raises `DataError` if another process is at work there."""
    created = missing_folders(out)
    folder = out / f".{category}.unfinished"
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "task.json"
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock.fileno()).st_nlink == 0:  # who had it has ended and removed the folder
                raise BlockingIOError
        except BlockingIOError:
            raise DataError(f"another process is preparing {out / category}; wait for it or stop it") from None
        if _read(note) != task:
            for path in folder.iterdir():
                if path.name != "lock":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            replace_content(note, json.dumps(task))
        shutil.rmtree(folder / "result", ignore_errors=True)
        try:
            yield folder
        except DataError:
            discard(folder, created)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> Any:
    """What a JSON file holds; None if there is none that is whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
