"""What the paper reports, by its tables: `numbers.yaml`, one record a cell; README.md says where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml

from bench.errors import DataError, ResourceError

NUMBERS = Path(__file__).parent / "numbers.yaml"

Place = tuple[str, str, str, str]
"""A cell of the paper: its table, row, data set and metric."""


def paper_value(table_id: str, row: str, category: str, column: str) -> float | None:
    """What the paper reports in a cell, e.g. ("table1", "RAG-7B", "Books", "bleu"); None where it reports nothing.

    ROUGE-1, METEOR and BERTScore lie in 0..1, BLEU in 0..100. Raises `BenchError` as `read_numbers` does.
    """
    return read_numbers().get((table_id, row, category, column))


@cache
def read_numbers(path: Path = NUMBERS) -> Mapping[Place, float]:
    """All numbers of the paper. Raises `ResourceError` if their file is missing, `DataError` if it cannot be read."""
    try:
        records = yaml.safe_load(path.read_text(encoding="utf-8"))["records"]
        return {(r["table"], r["row"], r["dataset"], r["metric"]): float(r["value"]) for r in records}
    except OSError as error:
        raise ResourceError(f"the paper's numbers cannot be read ({error}); install bench again") from error
    except (yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not the paper's numbers ({error}); install bench again") from error
