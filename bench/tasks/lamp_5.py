"""lamp-5: write the title that a scholar gave a paper. (LaMP-5, personalized scholarly title generation)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.tasks._lamp import WRITTEN, LampTask
from bench.tasks._writers import Writer


@dataclass(frozen=True)
class Lamp5(LampTask):
    """The answer is a title. A record is a paper: its text the abstract, beside it the title."""

    number: ClassVar[int] = 5
    target: ClassVar[str] = "title"
    text_field: ClassVar[str] = "abstract"
    other_fields: ClassVar[tuple[str, ...]] = ("title",)
    answer_field: ClassVar[str | None] = "title"
    metrics: ClassVar[tuple[str, ...]] = ("rouge",)
    max_new_tokens: ClassVar[int] = 64
    settings: ClassVar[Mapping[str, Any]] = WRITTEN

    def asked(self, writer: Writer) -> tuple[str, str, list[Mapping[str, Any]]]:
        """What the writer's last piece is about, and what it is called."""
        *past, target = writer.pieces
        question = f"Write a title for a paper with this abstract: {target.about}"
        return question, target.title, [{"title": one.title, "abstract": one.about} for one in past]
