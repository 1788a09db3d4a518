"""The scale of a data set's ratings."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bench.errors import ConfigError


@dataclass(frozen=True)
class Scale:
    """Ratings from `low` to `high`, both included."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g}-{self.high:g}"

    def shown(self, rating: float) -> str | float:
        """A rating as a prompt shows it: "13/20", but one of up to 5 stars as the number that the paper shows."""
        stars = self.low > 0 and self.high == STARS.high
        return rating if stars else f"{rating:g}/{self.high:g}"


STARS = Scale(0.5, 5)
"""That of Amazon's reviews, and of the paper's; some shops have half stars."""


def read_scale(text: str) -> Scale:
    """A scale from MIN-MAX, e.g. "0-20". Raises `ConfigError`."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*", text)
    if found is None or float(found[1]) >= float(found[2]):
        raise ConfigError(
            f"--rating-scale: '{text}' is not MIN-MAX, the lowest and the highest rating there can be, e.g. 0-20"
        )
    return Scale(float(found[1]), float(found[2]))
