"""The names a reader sees, and the numbers the paper reports under them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from bench.errors import DataError, ResourceError

PAPER = Path(__file__).parents[2] / "results" / "paper" / "numbers.yaml"

CATEGORIES = {"Movies_and_TV": "Movies & TV", "CDs_and_Vinyl": "CDs & Vinyl"}


@dataclass(frozen=True)
class Column:
    """How a score is shown: its head and the decimals of the value (those of the paper) and of its interval."""

    head: str
    decimals: int = 4
    interval_decimals: int = 3


COLUMNS = {
    "rouge1": Column("R-1"),
    "rougeL": Column("R-L"),
    "meteor": Column("METEOR"),
    "bleu": Column("BLEU", interval_decimals=2),
    "bertscore": Column("BERTScore"),
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
