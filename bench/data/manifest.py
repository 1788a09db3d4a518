"""What a prepared category is: the folder that `bench data prepare` writes, and the manifest in it.

    OUT/<category>/reviews.parquet   user_id, asin, rating, title, text, timestamp, role; by user, then time
    OUT/<category>/items.parquet     asin, title, description
    OUT/<category>/manifest.json     {"schema": 2, "category": ..., "sources": ..., "thresholds": ..., ...}

A review's role is "history" or "input"; each user has ten inputs, the newest reviews of all. A category folder is
renamed into place when it is complete, so one that exists is whole; folders whose name starts with a dot are not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from bench.data.thresholds import changed
from bench.errors import DataError

SCHEMA = 2
REVIEW_COLUMNS = ("user_id", "asin", "rating", "title", "text", "timestamp")
ITEM_COLUMNS = ("asin", "title", "description")


@dataclass(frozen=True)
class Summary:
    """What preparing a category kept. `reviews` and `items` give the rows left after each step, in order, and
    `removed` the rows that a step left out, by reason, the option that changes it included; profile sizes are those of
    the test split, in reviews (`profile_sd` is the population's)."""

    category: str
    reviews: Mapping[str, int]
    items: Mapping[str, int]
    users: int
    instances: Mapping[str, int]
    profile_mean: float
    profile_sd: float
    removed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The summary as text for a terminal."""
        steps = []
        for step, count in chain(self.items.items(), self.reviews.items()):
            steps.append(f"  {count:>11,}  {step}")
            steps += [f"  {'':>11}  - {left:,} {reason}" for reason, left in self.removed.get(step, {}).items()]
        return [
            f"{self.category}",
            *steps,
            f"  {self.users:>11,}  users",
            f"  {'':>11}  instances: " + ", ".join(f"{split} {count:,}" for split, count in self.instances.items()),
            f"  {'':>11}  test profile: {self.profile_mean:.2f} reviews on average (sd {self.profile_sd:.2f})",
        ]


@dataclass(frozen=True)
class Manifest:
    """Where a prepared category comes from. A source is {"name", "bytes", "sha256"}; thresholds are DPL's or others,
    which the file says too ("dpl_thresholds"); the layout says which columns of the raw files hold what."""

    category: str
    sources: Sequence[Mapping[str, Any]]
    thresholds: Mapping[str, int]
    summary: Summary
    layout: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Write manifest.json into `folder`."""
        told = {"schema": SCHEMA, **asdict(self), "dpl_thresholds": not changed(self.thresholds)}
        text = json.dumps(told, indent=2, ensure_ascii=False)
        (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a category folder's manifest. Raises `DataError` if it is missing, broken or of another schema."""
        path = folder / "manifest.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8-sig"))
            schema = values.pop("schema")
            values.pop("dpl_thresholds", None)  # the thresholds tell
            if schema != SCHEMA:
                raise DataError(
                    f"{path} has schema {schema}, this version reads {SCHEMA}; prepare the category again with "
                    "`bench data prepare`"
                )
            return cls(**(values | {"summary": Summary(**values["summary"])}))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} cannot be read ({error}); remove {folder} and run `bench data prepare` again"
            ) from error
