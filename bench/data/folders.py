"""Folders that appear when they are complete."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def staging(out: Path, category: str) -> Iterator[Path]:
    """A hidden folder in `out` that becomes `out`/`category` if the block succeeds and vanishes if it does not."""
    created = missing_folders(out)
    folder = out / f".{category}.{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.rename(out / category)
    except BaseException:
        discard(folder, created)
        raise


def missing_folders(folder: Path) -> list[Path]:
    """A folder and those around it, as far as they are missing, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def discard(folder: Path, created: Sequence[Path]) -> None:
    """Remove a folder and, if they are empty then, those that were made for it."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in created:
        with suppress(OSError):
            path.rmdir()
