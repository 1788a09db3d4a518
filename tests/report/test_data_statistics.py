"""The tables of `bench data stats`: every measure under its label, and no word that the task does not know."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.data.stats import Proportion, Sizes, Trust
from bench.report.data_statistics import (
    Blocks,
    SizesRow,
    Words,
    proportion_text,
    sizes_csv,
    sizes_grid,
    trust_csv,
    trust_grid,
)
from bench.report.grid import Grid, plain, write

REVIEWS = Words("review", grouped=True, timed=True)
ROW = SizesRow("test", "Toys", "Test: Toys", Sizes(3, 5.0, 0.5, 4.0, 1.0), Sizes(1317, 34.84, 22.55, 1194.9, 802.44))


def trusted() -> Trust:
    """Different values for all: none stands under another's label."""
    counts = iter(range(101, 200))
    values = {
        name: Proportion(next(counts), 1000) if "Proportion" in str(kind) else next(counts)
        for name, kind in Trust.__annotations__.items()
    }
    return Trust(**values)  # type: ignore[arg-type]


def both(words: Words) -> list[Grid]:
    """Both tables."""
    blocks = {"Toys": Blocks(1.5, 2.0, 3)}
    return [
        sizes_grid("table4", [ROW], 700, ["Generated."], words),
        trust_grid("table4_trust", {"Toys": trusted()}, blocks, "in prompts", words),
    ]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (Proportion(12, 489), "12 (2.5%)"),
        (Proportion(1, 20000), "1 (<0.1%)"),
        (Proportion(0, 7), "0 (0.0%)"),
        (Proportion(1234, 1234), "1,234 (100.0%)"),
        # Of nothing there is no share.
        (Proportion(0, 0), "0 of 0"),
    ],
)
def test_counts_stand_with_their_shares(share: Proportion, text: str) -> None:
    assert proportion_text(share) == text


def test_the_papers_sizes_stand_under_ours() -> None:
    sizes, _ = both(REVIEWS)
    lines = [" ".join(line.split()) for line in plain(sizes).splitlines()]
    at = lines.index("Test: Toys 3 5.00 0.50 4.00 1.00")
    assert lines[at + 1] == "paper 1,317 34.84 22.55 1,194.90 802.44"
    assert lines[at + 2] == "difference −1,314 −29.84 −22.05 −1,190.90 −801.44"
    assert "Profile size: reviews in the profile of an instance." in plain(sizes)
    assert "Validation: 512 of the 700 validation instances" in plain(sizes)
    (first, *_) = csv.DictReader(io.StringIO(sizes_csv([ROW])))
    assert [first[name] for name in ("figure", "value", "paper", "difference")] == ["instances", "3", "1317", "-1314"]


def test_every_measure_of_trust_is_shown() -> None:
    _, grid = both(REVIEWS)
    for name, value in vars(trusted()).items():
        text = f"  {value.count} ({value.count / 10:.1f}%)" if isinstance(value, Proportion) else f"  {value}"
        assert plain(grid).count(f"{text}\n") == 1, name
    assert "1.50 of 2.00" in plain(grid)
    rows = csv.DictReader(io.StringIO(trust_csv({"Toys": trusted()}, None, REVIEWS)))
    found = {row["measure"]: row["value"] for row in rows}
    assert found.pop("blocks") == ""
    assert found == {name: str(v.count if isinstance(v, Proportion) else v) for name, v in vars(trusted()).items()}


def test_what_the_data_of_a_task_do_not_have_is_not_asked() -> None:
    words = Words("story", grouped=False, timed=False)
    text = "".join(map(plain, both(words)))
    for word in ("review", "item", "eers", "same time", "Items"):
        assert word not in text, word
    assert "stories in the profile" in text
    measures = {row["measure"] for row in csv.DictReader(io.StringIO(trust_csv({"Toys": trusted()}, None, words)))}
    assert measures == {
        *("users", "reviews", "in_other_categories", "blocks", "repeats_by_same_user", "repeats_by_others"),
        *("exact_in_profile", "near_in_profile", "without_history"),
    }


def test_pdflatex_sets_both_tables(tmp_path: Path, pdflatex: Callable[[Path, str], str]) -> None:
    for grid in both(REVIEWS):
        write(grid, "", tmp_path)
        assert "Overfull" not in pdflatex(tmp_path, f"{grid.id}_alone.tex")
