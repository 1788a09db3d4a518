"""The names a reader sees, and the numbers the paper reports under them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

from bench.errors import DataError, ResourceError

PAPER = Path(__file__).parents[2] / "results" / "paper" / "numbers.yaml"

CATEGORIES = {"Movies_and_TV": "Movies & TV", "CDs_and_Vinyl": "CDs & Vinyl"}


@dataclass(frozen=True)
class Column:
    """How a score is shown: its head, the decimals of the value (those of the paper) and of its interval, and which
    values are better; of a score that is neither good nor bad (None) no value is marked as the best."""

    head: str
    decimals: int = 4
    interval_decimals: int = 3
    better: Literal["higher", "lower"] | None = "higher"

    @property
    def arrow(self) -> str:
        """Which way is better, as a sign; empty for neither."""
        return {"higher": "↑", "lower": "↓", None: ""}[self.better]


COLUMNS = {
    "rouge1": Column("R-1"),
    "rougeL": Column("R-L"),
    "meteor": Column("METEOR"),
    "bleu": Column("BLEU", interval_decimals=2),
    "bertscore": Column("BERTScore"),
    "length_ratio": Column("Length ratio", 3, better=None),
    "brevity_penalty": Column("Brevity penalty", 3, better=None),
    "distinct1": Column("Distinct-1", 3, better=None),
    "distinct2": Column("Distinct-2", 3, better=None),
    "copy_rate": Column("Copy rate", 3, better=None),
    "copied_run": Column("Longest copy", 3, better=None),
    "identification_top1": Column("User top-1", 3),
    "identification_mrr": Column("User MRR", 3),
    "identification_chance": Column("Chance top-1", 3, better=None),
    "identification_chance_mrr": Column("Chance MRR", 3, better=None),
    "identification_share": Column("Share identified", 3, better=None),
    "judge": Column("Judge", 2, 2),
    "judge_unparsed": Column("Unparsed", 3, better="lower"),
}


def category_name(category: str) -> str:
    """The name of a category in a table: the paper's for its three, else its own with spaces for underscores."""
    return CATEGORIES.get(category, category.replace("_", " "))


def column(name: str) -> Column:
    """How a score is shown; one without an entry here gets its own name with spaces for underscores."""
    return COLUMNS.get(name, Column(name.replace("_", " ")))


def paper_value(table_id: str, row: str, category: str, column: str) -> float | None:
    """What the paper reports in a cell, e.g. ("table1", "RAG-7B", "Books", "bleu"); None where it reports nothing.

    ROUGE-1, METEOR and BERTScore lie in 0..1, BLEU in 0..100. Raises `ResourceError` if the file of its numbers
    is missing and `DataError` if it cannot be read.
    """
    return _paper_values().get((table_id, row, category, column))


@cache
def _paper_values() -> Mapping[tuple[str, str, str, str], float]:
    try:
        records = yaml.safe_load(PAPER.read_text(encoding="utf-8"))["records"]
        return {(r["table"], r["row"], r["dataset"], r["metric"]): float(r["value"]) for r in records}
    except OSError as error:
        raise ResourceError(f"the paper's numbers cannot be read ({error}); restore it with git checkout") from error
    except (yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{PAPER}: not the paper's numbers ({error}); restore it with git checkout") from error
