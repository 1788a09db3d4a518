"""The columns of raw files: which column of a user's files holds which field of a review or an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.data.scale import STARS, Scale, read_scale
from bench.errors import ConfigError

ID, TEXT, LONG, NUMBER, TIME, TEXTS, ANY = "id", "text", "long text", "number", "time", "list of texts", "any"
RATING = "rating"
REVIEW_FIELDS = {"user_id": ID, "asin": ID, "rating": RATING, "title": TEXT, "text": LONG, "timestamp": TIME}
ITEM_FIELDS = {"asin": ID, "title": TEXT, "description": TEXTS, "categories": ANY, "rating_number": NUMBER}
OPTIONAL = ("title", "items.title", "items.description", "items.categories", "items.rating_number")
"""What may be missing in a review or an item, if a column map allows it."""
TIMES = ("s", "ms", "month-first", "day-first")
"""What can be said of times: the unit of numbers, or what comes first in dates like 05/06/2015."""
SCALE = "rating_scale"
"""What a description of a column map calls the scale of its ratings, if it is not that of stars."""
QUOTING = ("double", "none")
"""How the values of tables are quoted: with a quotation mark on both sides, doubled inside, or not at all."""


@dataclass(frozen=True)
class ColumnMap:
    """Which column holds a field of a review or an item ("" if none does), whether times are in seconds (else in
    milliseconds), and which of `OPTIONAL` may be missing; an item's field has the prefix "items.".

    `dates` says what comes first in dates like 05/06/2015, "month-first" or "day-first" ("": unknown); `quoting` how
    the values of tables are quoted, one of `QUOTING` ("": as their names tell); ratings are on a `scale`."""

    columns: Mapping[str, str]
    seconds: bool = False
    missing: frozenset[str] = frozenset()
    dates: str = ""
    quoting: str = ""
    scale: Scale = STARS

    def described(self) -> dict[str, Any]:
        """As plain values, for a manifest."""
        told = {name: value for name in ("dates", "quoting") if (value := getattr(self, name))}
        told |= {} if self.scale == STARS else {SCALE: str(self.scale)}
        return {"columns": dict(self.columns), "seconds": self.seconds, "missing": sorted(self.missing)} | told


_OLD = {
    "user_id": "reviewerID",
    "asin": "asin",
    "rating": "overall",
    "title": "summary",
    "text": "reviewText",
    "timestamp": "unixReviewTime",
    "items.asin": "asin",
    "items.title": "title",
    "items.description": "description",
    "items.rating_number": "",
}
COLUMN_MAPS = {
    "amazon-2023": ColumnMap(
        {name: name for name in REVIEW_FIELDS}
        | {f"items.{name}": name for name in ITEM_FIELDS}
        | {"asin": "parent_asin", "items.asin": "parent_asin"}
    ),
    "amazon-2018": ColumnMap(
        _OLD | {"items.categories": "category"}, seconds=True, missing=frozenset({"items.rating_number"})
    ),
    "amazon-2014": ColumnMap(
        _OLD | {"items.categories": "categories"}, seconds=True, missing=frozenset({"items.rating_number"})
    ),
}
"""The columns of the Amazon data sets of these years, by name."""


IN_REVIEWS = {
    "items.title": ("item_title", "item_name", "product_title", "product_name"),
    "items.description": ("item_description", "product_description"),
}
"""Columns of a file of reviews that tell of their items, where no file of items is given: the first that is there."""


LIKELY = {
    "user_id": ("user", "userid", "username", "user_name", "reviewerid", "reviewer", "author", "profilename"),
    "asin": ("item_id", "item", "itemid", "product_id", "productid", "parent_asin", "asin", "beer_id", "business_id"),
    "rating": ("overall", "stars", "score", "points", "review_overall", "review_score"),
    "text": ("review_text", "reviewtext", "review", "body", "comment", "content"),
    "title": ("review_title", "summary", "headline"),
    "timestamp": ("time", "unixreviewtime", "review_time", "date", "created_at", "review_date"),
    "items.asin": ("item_id", "item", "id", "product_id", "parent_asin", "asin"),
    "items.title": ("name", "item_name", "item_title", "product_name"),
    "items.description": ("text", "about"),
    "items.categories": ("category", "genre"),
}
"""Names that columns have elsewhere, which an error about missing ones proposes; nothing is read by them."""


def read_column_map(
    mapping: str,
    missing: str = "",
    unit: str | None = None,
    quoting: str = "",
    scale: str | None = None,
    found: Sequence[str] | None = None,
) -> ColumnMap:
    """A column map from what a user says. Raises `ConfigError`.

    `mapping` is the name of one of `COLUMN_MAPS`, "FIELD=COLUMN,..." or both, the name first. A field that is not
    mentioned is in the column of its own name, an item's "asin" in that of the reviews'; "FIELD=" says that there is
    none. `missing` names fields that may be missing, separated by commas; `unit` is that of times, one of `TIMES`,
    if not the map's; `quoting` one of `QUOTING`; `scale` that of ratings, e.g. "0-20". Where there is no file of items
    `found` are the columns of the reviews: what the items have stands there, in the columns of `IN_REVIEWS` if the
    mapping names no other.
    """
    parts = [part.strip() for part in mapping.split(",") if part.strip()]
    if parts and "=" not in parts[0]:
        name = parts.pop(0)
        if name not in COLUMN_MAPS:
            raise ConfigError(
                f"--map: there is no layout '{name}'; there are {', '.join(COLUMN_MAPS)}, or give FIELD=COLUMN"
            )
        base = COLUMN_MAPS[name]
    elif parts:
        base = ColumnMap({name: name for name in REVIEW_FIELDS} | {f"items.{name}": name for name in ITEM_FIELDS})
    else:
        base = COLUMN_MAPS["amazon-2023"]
    columns = dict(base.columns)
    if found is not None:
        columns |= {f"items.{name}": "" for name in ITEM_FIELDS} | {"items.asin": columns["asin"]}
        columns |= {name: next((one for one in known if one in found), "") for name, known in IN_REVIEWS.items()}
    for part in parts:
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or name not in columns:
            raise ConfigError(f"--map: '{part}' is not FIELD=COLUMN with a FIELD of {', '.join(columns)}")
        columns[name] = column
        if name == "asin" and not any(other.startswith("items.asin=") for other in parts):
            columns["items.asin"] = column
    allowed = {part.strip() for part in missing.split(",") if part.strip()}
    for name in sorted(allowed - set(OPTIONAL)):
        raise ConfigError(f"--allow-missing: '{name}' is not one of {', '.join(OPTIONAL)}")
    allowed |= base.missing
    if found is not None:
        # A review without the title of its item says nothing against the item.
        allowed |= {name for name in OPTIONAL if name.startswith("items.")}
        if columns["items.asin"] != columns["asin"]:
            raise ConfigError("--map: without --items, items.asin is the reviews' asin; give asin=COLUMN alone")
    for name in (name for name, column in columns.items() if not column):
        if name not in OPTIONAL:
            raise ConfigError(f"--map: '{name}' needs a column; only {', '.join(OPTIONAL)} may have none")
        allowed.add(name)
    seconds = unit == "s" if unit in ("s", "ms") else base.seconds
    dates = unit if unit is not None and unit.endswith("-first") else ""
    return ColumnMap(
        columns, seconds, frozenset(allowed), dates, quoting, STARS if scale is None else read_scale(scale)
    )
