"""What the tasks of LaMP have in common (Salemi et al., 2024, https://aclanthology.org/2024.acl-long.399; the authors'
code, LaMP-Benchmark/LaMP, was read at de78cdb).

A question's `input` is a whole instruction, which is what is given of the target. Retrievers look for the part of it
that the authors' `rank_profiles.py` cuts out. BM25 there is rank_bm25 on words split at white space, as bench's is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bench.records import Fields, Instance, Record
from bench.tasks._writers import Writer, write_json, writers

SHORT = 8
"""New tokens of an answer that is a label or a number."""


@dataclass(frozen=True)
class LampTask:
    """A task of LaMP. A record's text is the profile entry's field `text_field`; its other fields are the entry's
    others but for the id. An instance's `given` is `input`."""

    number: ClassVar[int]
    """Of the task: 3 of LaMP-3."""
    target: ClassVar[str]
    text_field: ClassVar[str]
    other_fields: ClassVar[tuple[str, ...]] = ()
    answer_field: ClassVar[str | None] = None
    """The field of a record that holds what the user answered there, where it is not the text."""
    answered: ClassVar[bool] = True
    marker: ClassVar[str] = ":"
    """What stands before the query in an input."""
    asks_for_text: ClassVar[bool] = True
    """Whether what is asked about is what is a record's text in a profile."""
    labels: ClassVar[tuple[str, ...]] = ()
    """The answers that there can be, where they are few."""
    labels_expected: ClassVar[str] = ""
    """What an answer has to be, for a message."""
    grouped: ClassVar[bool] = False
    timed: ClassVar[bool | None] = None
    long_fields: ClassVar[tuple[str, ...]] = ("input",)
    metrics: ClassVar[tuple[str, ...]]
    max_new_tokens: ClassVar[int] = SHORT
    settings: ClassVar[Mapping[str, Any]]

    @property
    def record_fields(self) -> tuple[str, ...]:
        """The fields of a profile entry that are read."""
        return (self.text_field, *self.other_fields)

    def record(self, user: str, values: Sequence[Any], time: int | None) -> Record:
        """A profile entry from its `record_fields`."""
        fields: Fields = dict(zip(self.other_fields, values[1:], strict=True))
        return Record(user, str(values[0]), fields, None, time)

    def answer(self, record: Record) -> str:
        """What the user answered in a record."""
        return record.text if self.answer_field is None else str(record.fields[self.answer_field])

    def query(self, instance: Instance) -> str:
        """What stands behind the marker in the input; all of an input without it."""
        given = str(instance.given["input"])
        return given.partition(self.marker)[2].strip() or given

    def document(self, record: Record) -> str:
        """The title, where there is one, a space, the text."""
        return " ".join([*(str(record.fields[name]) for name in ("title",) if name in record.fields), record.text])

    def about(self, instance: Instance) -> str:
        """The whole question."""
        return str(instance.given["input"])

    def shown(self, instance: Instance) -> Mapping[str, str]:
        """The whole question."""
        return {"Question": str(instance.given["input"])}

    def shown_record(self, record: Record) -> Mapping[str, str]:
        """The fields of a record beside its text."""
        return {name.capitalize(): str(value) for name, value in record.fields.items()}

    @abstractmethod
    def asked(self, writer: Writer) -> tuple[str, str, list[Mapping[str, Any]]]:
        """An invented question of a writer: input, output and profile."""

    def sample(self, folder: Path) -> None:
        """Questions of 50 invented users, 32 to train with and 18 to be scored, in LaMP's layout."""
        home = folder / f"LaMP_{self.number}"
        home.mkdir(parents=True)
        everybody = writers(f"lamp-{self.number}", 50)
        for split, chosen in (("train", everybody[:32]), ("dev", everybody[32:])):
            questions, golds = [], []
            for place, writer in enumerate(chosen):
                name = f"{self.number}{'12'[split == 'dev']}{place:03}"
                question, answer, profile = self.asked(writer)
                entries = [{"id": f"{name}{index:02}", **entry} for index, entry in enumerate(profile)]
                questions.append({"id": name, "input": question, "profile": entries})
                golds.append({"id": name, "output": answer})
            write_json(home / f"{split}_questions.json", questions)
            write_json(home / f"{split}_outputs.json", {"task": f"LaMP_{self.number}", "golds": golds})


def labelled(labels: Sequence[str]) -> Mapping[str, Any]:
    """The settings of a task whose answers are labels."""
    listed = {"labels": list(labels)}
    return {"retriever": "bm25", "train": {"select_by": "accuracy"}, "accuracy": listed, "macro_f1": listed}


WRITTEN: Mapping[str, Any] = {"retriever": "bm25", "train": {"select_by": "rougeL"}}
"""The settings of a task whose answers are texts."""
