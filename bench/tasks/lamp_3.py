"""lamp-3: how many stars did a user give with a review? (LaMP-3, personalized product rating)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.tasks._lamp import LampTask
from bench.tasks._writers import Writer

SCORES = ("1", "2", "3", "4", "5")


@dataclass(frozen=True)
class Lamp3(LampTask):
    """The answer is a number from 1 to 5. A record is a review: its text, beside it the score."""

    number: ClassVar[int] = 3
    target: ClassVar[str] = "score"
    text_field: ClassVar[str] = "text"
    other_fields: ClassVar[tuple[str, ...]] = ("score",)
    answer_field: ClassVar[str | None] = "score"
    marker: ClassVar[str] = "review:"
    labels: ClassVar[tuple[str, ...]] = SCORES
    labels_expected: ClassVar[str] = "those of LaMP-3 are 1, 2, 3, 4 and 5"
    metrics: ClassVar[tuple[str, ...]] = ("mae", "rmse")
    settings: ClassVar[Mapping[str, Any]] = {"retriever": "bm25", "train": {"select_by": "mae"}}

    def asked(self, writer: Writer) -> tuple[str, str, list[Mapping[str, Any]]]:
        """The writer's last review."""
        *past, target = writer.pieces
        question = (
            f"How many points from 1 to 5 go with this review? Answer with 1, 2, 3, 4 or 5 alone. review: {target.text}"
        )
        return question, str(target.rating), [{"text": one.text, "score": str(one.rating)} for one in past]
