"""longlamp-review: write a user's review of a product, from its description, the rating and a summary. (LongLaMP,
personalized product review writing)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.tasks._longlamp import LongLampTask
from bench.tasks._writers import Piece


@dataclass(frozen=True)
class LongLampReview(LongLampTask):
    """A record is a review: its text, beside it the rating (`overall`), the `summary` and the product's `description`.
    Records name no product and no time: no user has peers, and nothing is newest."""

    configuration: ClassVar[str] = "product_review"
    user_field: ClassVar[str] = "reviewerId"
    target: ClassVar[str] = "review"
    text_field: ClassVar[str] = "reviewText"
    other_fields: ClassVar[tuple[str, ...]] = ("overall", "summary", "description")
    title_field: ClassVar[str] = "summary"

    def asked(self, target: Piece) -> tuple[str, str]:
        """What a review is written from."""
        given = (
            f"Write the review of a product that a user rates {target.rating}.0 of 5 and sums up as "
            f'"{target.title}". The product is described so: {target.about}'
        )
        return given, target.text

    def entry(self, piece: Piece, place: int) -> Mapping[str, Any]:
        """A review."""
        return {
            "overall": float(piece.rating),
            "summary": piece.title,
            "description": piece.about,
            "reviewText": piece.text,
        }
