"""lamp-2: which tag does a user give a film? (LaMP-2, personalized movie tagging)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.tasks._lamp import LampTask, labelled
from bench.tasks._writers import Piece, Writer

TAGS = (
    *("sci-fi", "based on a book", "comedy", "action", "twist ending", "dystopia", "dark comedy", "classic"),
    *("psychology", "fantasy", "romance", "thought-provoking", "social commentary", "violence", "true story"),
)
"""Those of the authors' evaluation."""


@dataclass(frozen=True)
class Lamp2(LampTask):
    """The answer is one of fifteen tags. A record is a film: its text the description, beside it the tag that the user
    gave it. An older LaMP-2 of the same file names has categories of news in the place of tags; it is refused."""

    number: ClassVar[int] = 2
    target: ClassVar[str] = "tag"
    text_field: ClassVar[str] = "description"
    other_fields: ClassVar[tuple[str, ...]] = ("tag",)
    answer_field: ClassVar[str | None] = "tag"
    marker: ClassVar[str] = "description:"
    labels: ClassVar[tuple[str, ...]] = TAGS
    labels_expected: ClassVar[str] = (
        f"those of LaMP-2 are the tags {', '.join(TAGS)} (the older LaMP-2, of news, is another task)"
    )
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")
    settings: ClassVar[Mapping[str, Any]] = labelled(TAGS)

    def asked(self, writer: Writer) -> tuple[str, str, list[Mapping[str, Any]]]:
        """Each user has a tag of their own for each genre, and keeps to it most of the time."""
        own = writer.dice.several(TAGS, 6)

        def tag(piece: Piece) -> str:
            return own[piece.genre] if writer.dice.chance(0.9) else writer.dice.pick(TAGS)

        *past, target = writer.pieces
        question = (
            f"Which of these tags fits the film? Answer with the tag alone. tags: [{', '.join(TAGS)}] "
            f"description: {target.about}"
        )
        return question, own[target.genre], [{"description": one.about, "tag": tag(one)} for one in past]
