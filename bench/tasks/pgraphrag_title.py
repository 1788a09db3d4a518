"""pgraphrag-title: write the title of a user's review from its text. (PGraphRAG, short text generation)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.tasks._pgraphrag import PGraphRAGTask


@dataclass(frozen=True)
class PGraphRAGTitle(PGraphRAGTask):
    """The answer is the title of a review; its text is known."""

    target: ClassVar[str] = "title"
    known: ClassVar[tuple[str, ...]] = ("text",)
    answer_field: ClassVar[str | None] = "title"
    max_new_tokens: ClassVar[int] = 32
    settings: ClassVar[Mapping[str, Any]] = {"retriever": "bm25", "train": {"select_by": "rougeL"}}
