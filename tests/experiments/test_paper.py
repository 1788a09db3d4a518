"""The numbers that the paper reports."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bench.errors import DataError, ResourceError
from bench.paper import NUMBERS, paper_value, read_numbers


def test_every_record_of_the_paper_is_there_once() -> None:
    records = yaml.safe_load(NUMBERS.read_text(encoding="utf-8"))["records"]
    assert len(records) == 369
    assert len({(r["table"], r["row"], r["dataset"], r["metric"]) for r in records}) == 369
    assert sum(r["table"] == "table1" for r in records) == 120


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (("table1", "Non-Perso-32B", "Books", "rouge1"), 0.3025),
        (("table1", "RAG-7B", "Movies_and_TV", "bleu"), 1.3021),
        (("table1", "PAG-7B", "CDs_and_Vinyl", "meteor"), 0.1979),
        (("table1", "DPL-32B", "CDs_and_Vinyl", "bertscore"), 0.4910),
        (("table1", "DEP-7B", "Books", "bleu"), 13.53),
        (("table1", "DEP-7B", "Toys", "bleu"), None),
        (("table1", "copy", "Books", "bleu"), None),
    ],
)
def test_cells_of_the_papers_first_table(cell: tuple[str, str, str, str], value: float | None) -> None:
    assert paper_value(*cell) == value


def test_lost_or_broken_numbers_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "numbers.yaml"
    with pytest.raises(ResourceError, match=r"the paper's numbers cannot be read .*; install bench again"):
        read_numbers(path)
    path.write_text("records: [{table: table1}]")
    with pytest.raises(DataError, match="not the paper's numbers"):
        read_numbers(path)
