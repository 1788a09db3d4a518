"""longlamp-abstract: write a scholar's abstract for a title and its key points. (LongLaMP, personalized abstract
generation)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.tasks._longlamp import LongLampTask
from bench.tasks._writers import Piece


@dataclass(frozen=True)
class LongLampAbstract(LongLampTask):
    """A record is a paper: its text the abstract, beside it `title` and `year`. A year alone puts no two papers of it
    in order: nothing is newest."""

    configuration: ClassVar[str] = "abstract_generation"
    user_field: ClassVar[str] = "name"
    target: ClassVar[str] = "abstract"
    text_field: ClassVar[str] = "abstract"
    other_fields: ClassVar[tuple[str, ...]] = ("title", "year")
    title_field: ClassVar[str] = "title"
    marker: ClassVar[str | None] = "items:"

    def asked(self, target: Piece) -> tuple[str, str]:
        """A title and what is to be said under it."""
        return f'Write an abstract for the title "{target.title}" from these items: {target.plain}', target.text

    def entry(self, piece: Piece, place: int) -> Mapping[str, Any]:
        """A paper, one in two a year."""
        return {"title": piece.title, "abstract": piece.text, "id": f"{piece.thing}-{place}", "year": 2000 + place // 2}
