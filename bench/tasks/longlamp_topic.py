"""longlamp-topic: write a user's post from its summary. (LongLaMP, personalized topic writing)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.tasks._longlamp import LongLampTask
from bench.tasks._writers import Piece


@dataclass(frozen=True)
class LongLampTopic(LongLampTask):
    """A record is a post: its text the `content`, beside it the `summary`."""

    configuration: ClassVar[str] = "topic_writing"
    user_field: ClassVar[str] = "author"
    target: ClassVar[str] = "post"
    text_field: ClassVar[str] = "content"
    other_fields: ClassVar[tuple[str, ...]] = ("summary",)
    title_field: ClassVar[str] = "summary"

    def asked(self, target: Piece) -> tuple[str, str]:
        """What a post says in short."""
        return f"Write the post that this sums up: {target.title}. {target.plain}", target.text

    def entry(self, piece: Piece, place: int) -> Mapping[str, Any]:
        """A post."""
        return {"summary": piece.title, "content": piece.text, "id": f"{piece.thing}-{place}"}
