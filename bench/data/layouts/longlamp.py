"""longlamp: LongLaMP (Kumar et al., 2024, arXiv:2407.11016) as its data set on the hub, LongLaMP/LongLaMP, holds it.

    FOLDER/<configuration>/{train,val,test}*.{parquet,jsonl,json}
    FOLDER/<configuration>/{train,val,test}/*.{parquet,jsonl,json}

A category is a configuration, e.g. product_review_user or product_review_temporal, which begins with its task's name. A
row has `input` (a whole instruction), `output`, a list `profile` and the user under a name of the task's own. A split
may lie in several files, as train-00000-of-00002.parquet and train-00001-of-00002.parquet.

[The names of configurations and fields were read in a third party's code and card, not in the data: a field that is
missing is an error that names it.]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from bench import registry
from bench.data.corpus import SPLITS, Corpus, collection_paused
from bench.data.layouts._rows import Form, Shared, rows_of
from bench.errors import DataError
from bench.records import Instance
from bench.tasks._longlamp import LongLampTask

_FORMS = ("parquet", "jsonl", "json")


@dataclass(frozen=True)
class LongLamp:
    """Rows of an input, an output and a profile."""

    tasks: ClassVar[str] = "longlamp-*"
    form: ClassVar[str] = "<configuration>/test*.parquet, as LongLaMP lies on the hub"

    task: str = ""

    @cached_property
    def _kind(self) -> LongLampTask:
        kind: LongLampTask = registry.create("tasks", self.task, {})
        return kind

    def categories(self, folder: Path) -> list[str]:
        """The configurations of the task, sorted; none if there is none."""
        homes = folder.glob(f"{self._kind.configuration}_*")
        return sorted(home.name for home in homes if home.is_dir() and any(_files(home, split) for split in SPLITS))

    def read(self, folder: Path, category: str) -> Corpus:
        """One category. Raises `DataError` for files that are missing, broken or of another form."""
        shared = Shared()
        instances: dict[str, tuple[Instance, ...]] = {}
        references: dict[str, str] = {}
        with collection_paused():
            for split in SPLITS:
                found = list(self._split(folder / category, split, shared))
                instances[split] = tuple(instance for instance, _ in found)
                references |= {instance.id: answer for instance, answer in found}
        if not instances["test"]:
            raise DataError(f"{folder / category} has no rows of the split test; a split lies in test*.parquet")
        counts = ", ".join(f"{len(rows):,} {split}" for split, rows in instances.items())
        note = f"{category}: LongLaMP, {counts} instances, from folder {folder.name}."
        return Corpus(category, instances, references, notes=(note,))

    def _split(self, home: Path, split: str, shared: Shared) -> Iterator[tuple[Instance, str]]:
        """The instances of a split with their real texts."""
        kind, counts = self._kind, dict[str, int]()
        form = Form(f"LongLaMP {kind.configuration}", (kind.user_field, "input", "output"), kind.record_fields)
        for path in _files(home, split):
            for row in rows_of(path, form):
                user, given, answer = map(str, row.fields)
                k = counts[user] = counts.get(user, -1) + 1
                profile = shared.of(kind.record(user, values) for values in row.records)
                name = f"{home.name}/{split}/{user}{f'/{k}' if k else ''}"
                yield Instance(name, home.name, split, user, {"input": given}, profile), answer


def _files(home: Path, split: str) -> list[Path]:
    """The files of a split, of the first form that there is."""
    for form in _FORMS:
        # Not those of a split whose name merely begins so.
        own = [home / f"{split}.{form}", *home.glob(f"{split}-*.{form}"), *(home / split).glob(f"*.{form}")]
        if found := sorted(path for path in own if path.is_file() and not path.name.startswith(".")):
            return found
    return []
