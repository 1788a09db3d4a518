"""DPL's thresholds, and what each is called where a user changes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from bench.errors import ConfigError

INPUTS = 10
"""Reviews of a user that become targets: eight for training, one for validation, one for the test."""


@dataclass(frozen=True)
class Thresholds:
    """DPL's limits; lengths in characters. Each is the smallest or largest value that is kept."""

    description_min: int = 100
    description_max: int = 2000
    text_min: int = 200
    item_users: int = 8
    """Users an item needs in the joint k-core."""
    user_reviews_min: int = 18
    user_reviews_max: int = 500
    history_item_users: int = 5
    """Users an item needs among the histories."""
    user_history: int = 8
    """History reviews a user needs."""

    def check(self) -> None:
        """Raise `ConfigError` for values that can leave nothing, or of which one makes another pointless."""
        values = asdict(self)
        for name, option in OPTIONS.items():
            if values[name] < 1:
                raise ConfigError(f"{option} {values[name]}: give 1 or more")
        for low, high in (("description_min", "description_max"), ("user_reviews_min", "user_reviews_max")):
            if values[low] > values[high]:
                raise ConfigError(
                    f"{OPTIONS[low]} {values[low]} is more than {OPTIONS[high]} {values[high]}, which leaves nothing; "
                    "lower the one or raise the other"
                )
        if self.user_reviews_min < INPUTS + self.user_history:
            raise ConfigError(
                f"--min-user-reviews {self.user_reviews_min} with --min-history {self.user_history}: the {INPUTS} "
                "newest reviews of a user are what is written, and the history is what is older: give "
                f"--min-user-reviews {INPUTS + self.user_history} or more"
                + (
                    f", or --min-history {self.user_reviews_min - INPUTS} or less"
                    if self.user_reviews_min > INPUTS
                    else ""
                )
            )


OPTIONS = {
    "text_min": "--min-text",
    "description_min": "--min-description",
    "description_max": "--max-description",
    "item_users": "--min-item-users",
    "user_reviews_min": "--min-user-reviews",
    "user_reviews_max": "--max-user-reviews",
    "history_item_users": "--min-item-histories",
    "user_history": "--min-history",
}
"""The options of `bench data prepare`, by threshold."""
HELP = {
    "text_min": "characters in a review's text, at least",
    "description_min": "characters in an item's description, at least",
    "description_max": "characters in an item's description, at most",
    "item_users": "users who reviewed an item, at least",
    "user_reviews_min": f"reviews of a user, at least; {INPUTS} and the history",
    "user_reviews_max": "reviews of a user, at most",
    "history_item_users": "users in whose history an item is, at least",
    "user_history": f"reviews in a user's history, which is all but the {INPUTS} newest, at least",
}


def changed(values: Mapping[str, int]) -> str:
    """What differs from DPL's thresholds, as options, e.g. "--min-text 60 (200)"; "" if nothing does."""
    dpls = asdict(Thresholds())
    own = dpls | dict(values)
    return ", ".join(
        f"{option} {own[name]} ({dpls[name]})" for name, option in OPTIONS.items() if own[name] != dpls[name]
    )
