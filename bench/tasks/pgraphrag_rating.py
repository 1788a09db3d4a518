"""pgraphrag-rating: how many stars did a user give with a review? (PGraphRAG, ordinal classification)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.tasks._pgraphrag import PGraphRAGTask


@dataclass(frozen=True)
class PGraphRAGRating(PGraphRAGTask):
    """The answer is a number from 1 to 5; the title and the text of the review are known."""

    target: ClassVar[str] = "rating"
    known: ClassVar[tuple[str, ...]] = ("title", "text")
    answer_field: ClassVar[str | None] = "rating"
    metrics: ClassVar[tuple[str, ...]] = ("mae", "rmse")
    max_new_tokens: ClassVar[int] = 8
    settings: ClassVar[Mapping[str, Any]] = {"retriever": "bm25", "train": {"select_by": "mae"}}
