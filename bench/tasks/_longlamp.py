"""What the tasks of LongLaMP have in common (Kumar et al., 2024, arXiv:2407.11016).

A row's `input` is a whole instruction, which is what is given of the target. [Names of fields: a third party's code.]
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bench.records import Fields, Instance, Record
from bench.tasks._writers import Piece, Writer, write_parquet, writers


@dataclass(frozen=True)
class LongLampTask:
    """A task of LongLaMP. A record's text is the profile entry's field `text_field`, the like of which is to be
    written; its other fields are those of `other_fields`. An instance's `given` is `input`."""

    configuration: ClassVar[str]
    """How the names of the task's configurations begin."""
    user_field: ClassVar[str]
    """The field of a row that names the user."""
    target: ClassVar[str]
    text_field: ClassVar[str]
    other_fields: ClassVar[tuple[str, ...]]
    title_field: ClassVar[str]
    """The field of a record that is its title."""
    marker: ClassVar[str | None] = None
    """What stands before the query in an input; None where the query is the whole input."""
    grouped: ClassVar[bool] = False
    timed: ClassVar[bool | None] = False
    long_fields: ClassVar[tuple[str, ...]] = ("description", "input")
    metrics: ClassVar[tuple[str, ...]] = ("rouge", "meteor")
    max_new_tokens: ClassVar[int] = 1024
    settings: ClassVar[Mapping[str, Any]] = {"retriever": "bm25"}

    @property
    def record_fields(self) -> tuple[str, ...]:
        """The fields of a profile entry that are read."""
        return (self.text_field, *self.other_fields)

    def record(self, user: str, values: Sequence[Any]) -> Record:
        """A profile entry from its `record_fields`."""
        fields: Fields = dict(zip(self.other_fields, values[1:], strict=True))
        return Record(user, str(values[0]), fields)

    def query(self, instance: Instance) -> str:
        """What stands behind the marker in the input, where there is one; else the whole input."""
        given = str(instance.given["input"])
        return (self.marker and given.partition(self.marker)[2].strip()) or given

    def document(self, record: Record) -> str:
        """The title, a space, the text."""
        return f"{record.fields[self.title_field]} {record.text}"

    def about(self, instance: Instance) -> str:
        """The whole instruction."""
        return str(instance.given["input"])

    def shown(self, instance: Instance) -> Mapping[str, str]:
        """The whole instruction."""
        return {"Instruction": str(instance.given["input"])}

    def shown_record(self, record: Record) -> Mapping[str, str]:
        """The fields of a record beside its text."""
        return {name.capitalize(): str(value) for name, value in record.fields.items()}

    @abstractmethod
    def asked(self, target: Piece) -> tuple[str, str]:
        """An invented row's input and output."""

    @abstractmethod
    def entry(self, piece: Piece, place: int) -> Mapping[str, Any]:
        """An invented profile entry; `place` counts from 0."""

    def sample(self, folder: Path) -> None:
        """Rows of 50 invented users, 26, 8 and 16 in the three splits, in LongLaMP's layout."""
        home = folder / f"{self.configuration}_user"
        home.mkdir(parents=True)
        everybody = writers(f"longlamp/{self.configuration}", 50)
        for split, chosen in {"train": everybody[:26], "val": everybody[26:34], "test": everybody[34:]}.items():
            write_parquet(home / f"{split}-00000-of-00001.parquet", [self._row(writer) for writer in chosen])

    def _row(self, writer: Writer) -> Mapping[str, Any]:
        *past, target = writer.pieces
        given, answer = self.asked(target)
        profile = [self.entry(piece, place) for place, piece in enumerate(past)]
        return {self.user_field: writer.id, "input": given, "output": answer, "profile": profile}
