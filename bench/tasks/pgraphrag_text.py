"""pgraphrag-text: write a user's review of a product under its title. (PGraphRAG, long text generation)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.tasks._pgraphrag import PGraphRAGTask


@dataclass(frozen=True)
class PGraphRAGText(PGraphRAGTask):
    """The answer is the text of a review; its title is known."""

    target: ClassVar[str] = "review"
    known: ClassVar[tuple[str, ...]] = ("title",)
    max_new_tokens: ClassVar[int] = 512
