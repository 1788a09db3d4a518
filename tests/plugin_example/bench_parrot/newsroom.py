"""newsroom: a layout of data for the task headline."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.data.corpus import SPLITS, Corpus
from bench.errors import DataError
from bench.records import Instance, Record


@dataclass(frozen=True)
class Newsroom:
    """A file a category, in it a line a journalist: {"name": ..., "work": [[headline, article], ...]}, in the order of
    writing. The last three headlines are the targets of training, validation and test."""

    task: ClassVar[str] = "headline"
    form: ClassVar[str] = "<category>.newsroom, a line of JSON a journalist"

    def categories(self, folder: Path) -> list[str]:
        """The names of the files."""
        return sorted(path.stem for path in folder.glob("*.newsroom"))

    def read(self, folder: Path, category: str) -> Corpus:
        """One category. Raises `DataError` for a journalist with too few headlines."""
        instances: dict[str, list[Instance]] = {split: [] for split in SPLITS}
        references: dict[str, str] = {}
        path = folder / f"{category}.newsroom"
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            name, work = row["name"], row["work"]
            if len(work) < len(SPLITS):
                raise DataError(f"{path}: {name} has {len(work)} headlines; the splits need {len(SPLITS)}")
            records = tuple(Record(name, headline, {"article": article}) for headline, article in work)
            for place, split in enumerate(SPLITS, len(records) - len(SPLITS)):
                target = records[place]
                made = Instance(f"{category}/{split}/{name}", category, split, name, {**target.fields}, records[:place])
                instances[split].append(made)
                references[made.id] = target.text
        return Corpus(category, {split: tuple(made) for split, made in instances.items()}, references)
