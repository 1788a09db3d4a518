"""lamp: LaMP's questions and answers (Salemi et al., 2024; data CC BY-NC-SA 4.0), as its authors give them out.

    FOLDER/<category>/{train,dev}_questions.json    [{"id", "input", "profile": [{"id", ...}, ...]}, ...]
    FOLDER/<category>/{train,dev}_outputs.json      {"task": "LaMP_3", "golds": [{"id", "output"}, ...]}

A category is a folder of one task, which its outputs name, in one of LaMP's separations, such as LaMP_3; its files may
lie a level deeper, in train/ and dev/ [that LaMP's downloads come so is not verified]. FOLDER may itself be the
category. The outputs of LaMP's test split are withheld: the dev split is what is scored, as "test". To choose an epoch
of an adapter, "val" is the last tenth of the training questions, which are not trained on.

LaMP names no users: each question is taken as a user of its own. The time-based separation has a date in its records.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from bench import registry
from bench.data.corpus import Corpus, collection_paused
from bench.data.layouts._rows import Form, Row, objects, rows_of
from bench.data.origins import broken
from bench.errors import DataError
from bench.records import Instance
from bench.tasks._lamp import LampTask

SCORED = {"train": "train", "dev": "test"}
"""Bench's names of LaMP's splits."""
_NAMED = re.compile(r'"task"\s*:\s*"LaMP_(\d)')
_LOOKED_AT = 4096
"""Characters at both ends of a file of outputs in which its task is looked for."""


@dataclass(frozen=True)
class Lamp:
    """Questions with profiles, and their answers beside them."""

    tasks: ClassVar[str] = "lamp-*"
    form: ClassVar[str] = "<category>/dev_questions.json and dev_outputs.json, as LaMP gives them out"

    task: str = ""

    @cached_property
    def _kind(self) -> LampTask:
        kind: LampTask = registry.create("tasks", self.task, {})
        return kind

    def categories(self, folder: Path) -> list[str]:
        """The folders whose outputs are of the task, sorted; none if there is none."""
        homes = [folder, *sorted(path for path in folder.glob("*") if path.is_dir() and path.name not in SCORED)]
        return [home.name for home in homes if any(self._is_of_task(home, split) for split in SCORED)]

    def _is_of_task(self, home: Path, split: str) -> bool:
        path = _file(home, split, "outputs")
        return path is not None and _number(path) == self._kind.number

    def read(self, folder: Path, category: str) -> Corpus:
        """One category. Raises `DataError` for files that are missing, broken or not of a pair."""
        home = folder if folder.name == category and any(_file(folder, split, "outputs") for split in SCORED) else None
        home = home or folder / category
        instances: dict[str, list[Instance]] = {"train": [], "val": [], "test": []}
        references: dict[str, str] = {}
        with collection_paused():
            for lamps, ours in SCORED.items():
                for instance, answer in self._split(home, category, lamps, ours):
                    instances[ours].append(instance)
                    references[instance.id] = answer
        if not instances["test"]:
            raise DataError(f"{home} has no dev_questions.json with dev_outputs.json, the split of LaMP that is scored")
        instances["train"], instances["val"] = _parted(instances["train"], references)
        every = [instance for split in instances.values() for instance in split]
        texts = {one.id: self._kind.query(one) for one in every} if self._kind.asks_for_text else {}
        counts = ", ".join(f"{len(split):,} {name}" for name, split in instances.items())
        note = (
            f"{category}: LaMP-{self._kind.number}, {counts} questions; test is LaMP's dev split, whose answers are "
            "public, val the last tenth of its training questions. Each question counts as a user of its own."
        )
        return Corpus(
            category,
            {name: tuple(split) for name, split in instances.items()},
            references,
            notes=(note,),
            target_texts=texts,
        )

    def _split(self, home: Path, category: str, lamps: str, ours: str) -> Iterator[tuple[Instance, str]]:
        questions, outputs = _file(home, lamps, "questions"), _file(home, lamps, "outputs")
        if questions is None and outputs is None:
            return
        if questions is None or outputs is None:
            missing = f"{lamps}_{'questions' if questions is None else 'outputs'}.json"
            raise DataError(f"{home} has no {missing}, the other half of a pair of files")
        answers = _answers(outputs, self._kind)
        form = Form(f"LaMP-{self._kind.number}", ("id", "input"), self._kind.record_fields, ("date",))
        for row in rows_of(questions, form):
            name = str(row.fields[0])
            if name not in answers:
                raise _other_ids(questions, outputs, f"{row.where}: id {name} has no output")
            yield self._instance(category, ours, row), answers.pop(name)
        if answers:
            raise _other_ids(questions, outputs, f"id {next(iter(answers))} has an output, once more than questions")

    def _instance(self, category: str, split: str, row: Row) -> Instance:
        user, given = str(row.fields[0]), str(row.fields[1])
        dated = [(_time(date, row.where), values) for *values, date in row.records]
        if all(time is not None for time, _ in dated):
            dated.sort(key=lambda one: one[0] or 0)
        profile = tuple(self._kind.record(user, values, time) for time, values in dated)
        return Instance(f"{category}/{split}/{user}", category, split, user, {"input": given}, profile)


def _file(home: Path, split: str, kind: str) -> Path | None:
    """The file of a split's questions or outputs, if there is one."""
    name = f"{split}_{kind}.json"
    return next((path for path in (home / name, home / split / name) if path.is_file()), None)


def _number(path: Path) -> int | None:
    """The number of the task in a file of outputs, without a look at all of it."""
    try:
        with path.open("rb") as file:
            start = file.read(_LOOKED_AT)
            file.seek(max(path.stat().st_size - _LOOKED_AT, 0))
            found = _NAMED.search((start + b"\n" + file.read()).decode("utf-8", "replace"))
    except OSError as error:
        raise broken(path, error) from error
    return None if found is None else int(found[1])


def _answers(path: Path, kind: LampTask) -> dict[str, str]:
    """The outputs by the ids of their questions. Raises `DataError`."""
    content: Any = next(objects(path), None)
    golds = content.get("golds") if isinstance(content, dict) else None
    if not isinstance(golds, list):
        raise DataError(f'{path} has no list "golds"; LaMP\'s outputs are {{"task": ..., "golds": [...]}}')
    answers: dict[str, str] = {}
    for number, gold in enumerate(golds, start=1):
        where = f"{path}, gold {number:,}"
        if not isinstance(gold, dict) or not isinstance(gold.get("output"), str) or "id" not in gold:
            raise DataError(f'{where}: it is {gold!r:.60}; a gold of LaMP is {{"id": ..., "output": a text}}')
        name, answer = str(gold["id"]), gold["output"]
        if name in answers:
            raise DataError(f"{where}: id {name} has a second output")
        if kind.labels and answer not in kind.labels:
            raise DataError(f"{where}: the output is '{answer[:60]}'; {kind.labels_expected}")
        answers[name] = answer
    return answers


def _other_ids(questions: Path, outputs: Path, what: str) -> DataError:
    return DataError(f"{what}; the ids of {questions} and {outputs.name} must be the same: fetch both again")


def _parted(train: list[Instance], references: dict[str, str]) -> tuple[list[Instance], list[Instance]]:
    """The training questions without their last tenth, and that as validation instances under their own ids."""
    kept = len(train) - -(-len(train) // 10)
    held = []
    for instance in train[kept:]:
        name = instance.id.replace("/train/", "/val/", 1)
        references[name] = references.pop(instance.id)
        held.append(Instance(name, instance.category, "val", instance.user_id, instance.given, instance.profile))
    return train[:kept], held


def _time(date: object, where: str) -> int | None:
    """Milliseconds since 1970 of a date, "Y-M-D" with or without leading zeros; None without one."""
    if date is None:
        return None
    try:
        year, month, day = map(int, str(date).split("-"))
        return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1000
    except ValueError:
        raise DataError(f"{where}: date is {date!r:.60}; LaMP's are year-month-day") from None
