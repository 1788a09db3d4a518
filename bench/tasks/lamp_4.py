"""lamp-4: write the headline that a journalist gave an article. (LaMP-4, personalized news headline generation)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.tasks._lamp import WRITTEN, LampTask
from bench.tasks._writers import Writer


@dataclass(frozen=True)
class Lamp4(LampTask):
    """The answer is a headline. A record is an article: its text, beside it the headline (`title`)."""

    number: ClassVar[int] = 4
    target: ClassVar[str] = "headline"
    text_field: ClassVar[str] = "text"
    other_fields: ClassVar[tuple[str, ...]] = ("title",)
    answer_field: ClassVar[str | None] = "title"
    marker: ClassVar[str] = "article:"
    metrics: ClassVar[tuple[str, ...]] = ("rouge",)
    max_new_tokens: ClassVar[int] = 64
    settings: ClassVar[Mapping[str, Any]] = WRITTEN

    def asked(self, writer: Writer) -> tuple[str, str, list[Mapping[str, Any]]]:
        """The writer's last piece."""
        *past, target = writer.pieces
        question = f"Write a headline for this article: {target.text}"
        return question, target.title, [{"text": one.text, "title": one.title} for one in past]
