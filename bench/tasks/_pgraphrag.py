"""What the tasks of PGraphRAG have in common (Au et al., 2025, arXiv:2501.02157): reviews of products by users most of
whom wrote a single one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bench.data.demo import Dice
from bench.records import Fields, Instance, Record
from bench.tasks._writers import Piece, write_json, writers

RECORD_FIELDS = ("text", "title", "rating", "pid")
USERS = {"train": 22, "dev": 8, "test": 20}
"""Invented users of each split."""
WITH_HISTORY = 0.3
"""Share of the invented users who have a history: more than in the real data, so that there is something to look at."""


@dataclass(frozen=True)
class PGraphRAGTask:
    """A task of PGraphRAG. A record's text is the review's, its fields are `title` and `rating`, its group the split
    and the product. An instance's `given` are those of its target's `title`, `rating` and `text` that are in
    `known`."""

    target: ClassVar[str]
    known: ClassVar[tuple[str, ...]]
    answer_field: ClassVar[str | None] = None
    """The field of a record that the user answered; None: the text."""
    grouped: ClassVar[bool] = True
    timed: ClassVar[bool | None] = False
    long_fields: ClassVar[tuple[str, ...]] = ("text",)
    metrics: ClassVar[tuple[str, ...]] = ("rouge", "meteor")
    max_new_tokens: ClassVar[int]
    settings: ClassVar[Mapping[str, Any]] = {"retriever": "bm25"}

    @property
    def writes_text(self) -> bool:
        """Whether what is to be written is a review's text."""
        return self.answer_field is None

    def record(self, user: str, values: Sequence[Any], split: str) -> Record:
        """A review from its `RECORD_FIELDS`."""
        text, title, rating, product = values
        return Record(user, str(text), {"title": str(title), "rating": stars(rating)}, f"{split}/{product}")

    def given(self, target: Record) -> Fields:
        """What is known of a target."""
        every: Fields = {**target.fields, "text": target.text}
        return {name: every[name] for name in self.known}

    def answer(self, record: Record) -> str:
        """What the user answered in a record."""
        return record.text if self.answer_field is None else str(record.fields[self.answer_field])

    def query(self, instance: Instance) -> str:
        """All that is known but for the rating."""
        return " ".join(str(instance.given[name]) for name in self.known if name != "rating")

    def document(self, record: Record) -> str:
        """The title, a space, the text."""
        return f"{record.fields['title']} {record.text}"

    def about(self, instance: Instance) -> str:
        """All that is known, a line each."""
        return "\n".join(str(value) for value in instance.given.values())

    def shown(self, instance: Instance) -> Mapping[str, str]:
        """All that is known."""
        return {f"Review {name}": str(value) for name, value in instance.given.items()}

    def shown_record(self, record: Record) -> Mapping[str, str]:
        """Rating and title of a review."""
        return {"Rating": str(record.fields["rating"]), "Review title": str(record.fields["title"])}

    def sample(self, folder: Path) -> None:
        """50 invented users, in PGraphRAG's layout."""
        for split, count in USERS.items():
            dice = Dice(f"sample/pgraphrag/{split}")
            rows = []
            for writer in writers(f"pgraphrag/{split}", count):
                *past, target = map(_review, writer.pieces)
                rows.append({"id": writer.id, "profile": [target, *(past if dice.chance(WITH_HISTORY) else ())]})
            write_json(folder / f"books_{split}.json", rows)


def _review(piece: Piece) -> Mapping[str, Any]:
    return {"rating": float(piece.rating), "title": piece.title, "text": piece.text, "pid": piece.thing}


def stars(rating: object) -> str:
    """A rating as a number without needless decimals: "5" for 5.0; what is no number stays as it is."""
    try:
        return f"{float(str(rating)):g}"
    except ValueError:
        return str(rating)
