"""Where the files in a folder come from: FOLDER/fetched.json, which `bench data fetch` writes, and
FOLDER/exported.json, which `bench data prepare --layout dpl` writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import DataError
from bench.files import dump, replace_content
from bench.hub import first_line

HUB = "SnowCharmQ/DPL-main"
"""Where DPL's authors published their splits."""
FETCHED = "fetched.json"
EXPORTED = "exported.json"


def read_origin(path: Path) -> dict[str, Any]:
    """What fetched.json or exported.json holds; empty if there is none. Raises `DataError` for a broken file."""
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise broken(path, error) from error
    if not isinstance(record, dict) or record.get("schema") != 1:
        raise DataError(f"{path} is not of schema 1, which this version reads; fetch or export the data again")
    return record


def write_origin(path: Path, record: Mapping[str, Any]) -> None:
    """Write fetched.json or exported.json; whoever reads it at the same time sees the old or the new one."""
    replace_content(path, dump({"schema": 1, **record}))


def hub_origin(main: str, meta: str, main_commit: str, meta_commit: str) -> str:
    """Where a corpus of the hub comes from, for its note: commits by their first twelve digits."""
    commits = dict.fromkeys((main_commit[:12], meta_commit[:12]))
    return f"{main} and {meta} on the Hugging Face hub at revision {','.join(commits)}"


def broken(path: Path, error: Exception) -> DataError:
    """The error of a file that cannot be read."""
    return DataError(f"{path} cannot be read ({first_line(error)}); fetch the file again")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns an error of the file system in the block into a `DataError` that names the folder."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({first_line(error)}); see to the space and the rights there and try again"
        ) from error
