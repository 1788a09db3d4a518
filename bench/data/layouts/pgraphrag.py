"""pgraphrag: PGraphRAG's benchmark (Au et al., 2025, arXiv:2501.02157; the authors' repository, PGraphRAG-benchmark/
PGraphRAG, at 722a71e) as it lies in data_splits/.

    FOLDER/<category>_{train,dev,test}.json    [{"id": user, "profile": [{"rating", "title", "text", "pid"}, ...]}, ...]

A category is a source of reviews: amazon, b2w (Portuguese), gap, hotel. The first record of a profile is the target,
the others are the history, which 91 to 95% of the test users do not have. dev is "val".

Peers are the histories of other users of the same split who reviewed the same product: a record's group names both.
What anyone has to predict in any split is no peer (`bench.data.peers`), so that a method sees fewer of them than the
graph of the authors holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from bench import registry
from bench.data.corpus import Corpus, collection_paused
from bench.data.layouts._rows import Form, Shared, rows_of
from bench.errors import DataError
from bench.records import Instance, Record
from bench.tasks._pgraphrag import RECORD_FIELDS, PGraphRAGTask

SPLITS = {"train": "train", "dev": "val", "test": "test"}
"""Bench's names of PGraphRAG's splits."""
FORM = Form("PGraphRAG", ("id",), RECORD_FIELDS)


@dataclass(frozen=True)
class PGraphRAG:
    """A file a split, a row a user."""

    tasks: ClassVar[str] = "pgraphrag-*"
    form: ClassVar[str] = "<category>_test.json, as PGraphRAG's data_splits"

    task: str = ""

    @cached_property
    def _kind(self) -> PGraphRAGTask:
        kind: PGraphRAGTask = registry.create("tasks", self.task, {})
        return kind

    def categories(self, folder: Path) -> list[str]:
        """The sources with a test split, sorted; none if there is none."""
        return sorted(path.name.removesuffix("_test.json") for path in folder.glob("*_test.json") if path.is_file())

    def read(self, folder: Path, category: str) -> Corpus:
        """One category. Raises `DataError` for files that are broken or of another form."""
        shared = Shared()
        instances: dict[str, tuple[Instance, ...]] = {"train": (), "val": (), "test": ()}
        references: dict[str, str] = {}
        texts: dict[str, str] = {}
        with collection_paused():
            for theirs, ours in SPLITS.items():
                path = folder / f"{category}_{theirs}.json"
                found = list(self._split(path, category, ours, shared)) if path.is_file() else []
                instances[ours] = tuple(instance for instance, _ in found)
                for instance, target in found:
                    references[instance.id] = self._kind.answer(target)
                    texts[instance.id] = target.text
        every = [instance for split in instances.values() for instance in split]
        groups = {instance.group for instance in every} | {one.group for instance in every for one in instance.profile}
        cold = sum(not instance.profile for instance in instances["test"])
        note = (
            f"{category}: PGraphRAG, {len(instances['test']):,} test users, {cold:,} of them without a history. Peers "
            "are other users' histories of the same product and split."
        )
        return Corpus(
            category,
            instances,
            references,
            frozenset(group for group in groups if group),
            notes=(note,),
            target_texts={} if self._kind.writes_text else texts,
        )

    def _split(self, path: Path, category: str, split: str, shared: Shared) -> Iterator[tuple[Instance, Record]]:
        """The instances of a split, each with the record that is its target."""
        users: set[str] = set()
        for row in rows_of(path, FORM):
            user = str(row.fields[0])
            if user in users:
                raise DataError(f"{row.where}: user {user} has a second row; PGraphRAG has one a user and split")
            if not row.records:
                raise DataError(f"{row.where}: profile is empty; its first record is the one to predict")
            users.add(user)
            target, *history = (self._kind.record(user, values, split) for values in row.records)
            given = self._kind.given(target)
            name = f"{category}/{split}/{user}"
            yield Instance(name, category, split, user, given, shared.of(history), target.group), target
