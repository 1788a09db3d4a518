"""`bench data stats`: the paper's figures beside ours, the files, and what bad input is answered with."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from bench.cli import main
from bench.data.corpus import Corpus
from bench.data.stats import Share, Sizes, Trust
from bench.errors import ConfigError, DataError
from bench.records import Instance, Item, Review
from bench.report.data_statistics import _cell, data_statistics, load_all, table4
from bench.report.grid import Grid, Line, html, latex, markdown, plain, write
from bench.report.tables import TERMINAL_WIDTH

ENDS = (".tex", "_alone.tex", ".md", ".html", ".csv")
PAPER = ("Books", "Movies_and_TV", "CDs_and_Vinyl")
ITEM = Item("A", "Title", "About.")


def category(name: str, users: int, history: int = 2) -> Corpus:
    """Users with two training instances, of `history` and one more reviews, and a val and a test instance after them.
    The n-th user's validation text is n characters long."""
    instances: dict[str, list[Instance]] = {"train": [], "val": [], "test": []}
    references: dict[str, str] = {}
    for user in range(users):
        told = tuple(Review(f"u{user}", "A", 5.0, "t", f"{name} {user} {n}", n) for n in range(history + 3))
        for split, size in (("train", 0), ("train", 1), ("val", 2), ("test", 3)):
            identity = f"{name}/{split}/u{user}/{size}"
            profile = told[: history + size]
            instances[split].append(Instance(identity, name, split, f"u{user}", ITEM, 5.0, "t", 99, profile))
            references[identity] = "x" * user if split == "val" else "y" * (size + 1)
    return Corpus(name, {"A": ITEM}, {split: tuple(rows) for split, rows in instances.items()}, references)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# -- Table 4


def test_the_splits_are_those_of_the_paper() -> None:
    corpora = {"Books": category("Books", 3), "Toys": category("Toys", 2, history=4)}
    train, val, books, toys = table4(corpora)
    # Of each user the training instance with the longest profile: 3 x 3 and 2 x 5 reviews.
    assert train.ours == Sizes(5, 3.8, pytest.approx(np.sqrt(0.96)), 2.0, 0.0)  # type: ignore[arg-type]
    assert (val.ours.instances, val.ours.profile_mean, val.ours.length_mean) == (5, 4.8, 0.8)
    assert books.ours == Sizes(3, 5.0, 0.0, 4.0, 0.0)
    assert toys.ours == Sizes(2, 7.0, 0.0, 4.0, 0.0)
    assert [row.label for row in (train, val, books, toys)] == [
        "Training",
        "Validation",
        "Test: Books",
        "Test: Toys",
    ]


def test_the_validation_instances_are_the_512_that_are_drawn() -> None:
    corpora = {"Books": category("Books", 400), "Toys": category("Toys", 300, history=4)}
    lengths = np.asarray([*range(400), *range(300)])[np.random.default_rng(42).permutation(700)[:512]]
    _, val, *_ = table4(corpora)
    assert val.ours.instances == 512
    assert val.ours.length_mean == pytest.approx(lengths.mean())
    assert val.ours.length_sd == pytest.approx(lengths.std())


def test_the_papers_figures_stand_where_the_paper_has_them() -> None:
    train, val, books, movies, cds = table4({name: category(name, 1) for name in PAPER})
    assert train.paper == Sizes(3996, 37.47, 33.53, 1608.82, 1476.99)
    assert val.paper == Sizes(512, 39.14, 36.01, 1557.29, 1378.43)
    assert books.paper == Sizes(317, 34.84, 22.55, 1194.90, 802.44)
    assert movies.paper == Sizes(1925, 41.11, 35.90, 1704.61, 1752.44)
    assert cds.paper == Sizes(1754, 38.50, 32.37, 1600.04, 1419.89)


def test_merged_rows_of_other_categories_have_no_paper() -> None:
    for names in (("Books", "Movies_and_TV"), (*PAPER, "Toys")):
        train, val, books, *others = table4({name: category(name, 1) for name in names})
        assert train.paper is None
        assert val.paper is None
        assert books.paper is not None
        assert (others[-1].paper is None) == (names[-1] == "Toys")


# -- the command


def test_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str], pdflatex: Callable[[Path, str], str]) -> None:
    assert main(["data", "stats", "--config", "demo", "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    at = lines.index("Test: Books 168 20.11 2.04 271.58 81.10")
    assert lines[at + 1] == "paper 317 34.84 22.55 1,194.90 802.44"
    assert lines[at + 2] == "difference −149 −14.73 −20.51 −923.32 −721.34"
    assert "History blocks that fit the input budget, mean 3.00 of 3.00 3.00 of 3.00 3.00 of 3.00" in lines
    assert "ROUGE-1 without a model on the test split: the user's last review" in printed
    assert "no real user wrote these reviews" in printed
    names = [f"{name}{end}" for name in ("table4", "table4_trust") for end in ENDS]
    assert [line for line in lines if line.startswith("wrote")] == [f"wrote {tmp_path / 'tables' / n}" for n in names]
    rows = {(row["split"], row["category"], row["figure"]): row for row in read_csv(tmp_path / "tables" / "table4.csv")}
    assert len(rows) == 25
    test = rows["test", "Books", "profile_mean"]
    assert float(test["value"]) - float(test["paper"]) == pytest.approx(float(test["difference"]))
    assert float(test["paper"]) == 34.84
    trust = read_csv(tmp_path / "tables" / "table4_trust.csv")
    for name in ("table4", "table4_trust"):
        assert "Overfull" not in pdflatex(tmp_path / "tables", f"{name}_alone.tex")
    blocks = {row["category"]: (row["value"], row["of"]) for row in trust if row["measure"] == "blocks"}
    assert blocks == dict.fromkeys(PAPER, ("3.0", "3.0"))
    assert {row["value"] for row in trust if row["measure"] == "users"} == {"168"}


def test_a_folder_and_a_configuration(shop: Path, shop_config: Path, tmp_path: Path) -> None:
    """Both mark the files, and blocks are counted only for a configuration."""
    without = data_statistics([str(shop)], None, tmp_path)
    assert (tmp_path / "tables" / "table4-shop.tex").is_file()
    assert "History blocks that fit the input budget, mean  not asked" in without[1]
    budget = data_statistics([str(shop)], str(shop_config), tmp_path)
    assert (tmp_path / "tables" / "table4_trust-shop-shop.csv").is_file()
    # K is 2: two, one and no review of profiles of three, one and none.
    assert "History blocks that fit the input budget, mean  1.00 of 1.00" in budget[1]
    assert "K=2 of the recency retriever and 2048 tokens" in budget[1]
    small = tmp_path / "small.yaml"
    small.write_text(shop_config.read_text() + "input_budget: 620\n")
    shown = data_statistics([str(shop)], str(small), tmp_path)
    assert "0.67 of 1.00" in shown[1], shown[1]
    assert "620 tokens" in shown[1]


def test_several_data_sets(shop: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.set"
    for part in ("main", "meta"):
        shutil.copytree(shop / part / "Toys", other / part / "Games")
    shown = data_statistics([str(shop), str(other)], None, tmp_path / "results")
    assert (tmp_path / "results" / "tables" / "table4-shop-other_set.md").is_file()
    assert "Users of other categories too" in shown[1]
    assert "3 (100.0%)  3 (100.0%)" in shown[1]


def test_one_category_in_two_data_sets(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shop, copy)
    with pytest.raises(DataError) as error:
        load_all([str(shop), str(copy)])
    assert str(error.value) == f"category Toys is in data set {shop} and in data set {copy}; give only one of the two"
    assert main(["data", "stats", str(shop), str(shop), "--results", str(tmp_path)]) == 2
    assert f"category Toys is in data set {shop} and in data set {shop}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demmo"], "there is no data set 'demmo' (did you mean demo?)"),
        (["nowhere/at_all", "demo"], "there is no data set 'nowhere/at_all'"),
        (["--config", "dmo"], "there is no configuration 'dmo'; did you mean 'demo'?"),
    ],
)
def test_bad_input(arguments: Sequence[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "stats", *arguments, "--results", str(tmp_path / "results")]) == 2
    caught = capsys.readouterr()
    assert message in caught.err
    assert caught.err.startswith("bench: ")
    assert caught.err.count("\n") == 1
    assert caught.out == ""
    assert not (tmp_path / "results").exists()


def test_a_configuration_is_refused_before_the_data_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no configuration"):
        data_statistics(["nowhere"], "nothing", tmp_path)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (Share(12, 489), "12 (2.5%)"),
        (Share(1, 20000), "1 (<0.1%)"),
        (Share(0, 7), "0 (0.0%)"),
        (Share(1234, 1234), "1,234 (100.0%)"),
        # Of nothing there is no share.
        (Share(0, 0), "0 of 0"),
    ],
)
def test_counts_stand_with_their_shares(share: Share, text: str) -> None:
    assert _cell(share) == text


# -- the renderings


def grid(columns: int, rows: int = 3) -> Grid:
    heads = tuple(f"A category_with [50%] a long #name {n}" for n in range(columns))
    cells = tuple(f"{123456 + n:,} (100.0%)" for n in range(columns))
    labels = ["[label] with & signs", "*", "A label that takes more than the width that labels are given in a table"]
    line = [Line(labels[n % 3], cells) for n in range(rows)]
    return Grid("grid", "A 100% title", heads, [line, [Line("paper", cells, minor=True)]], ["A note_1.", "Its 2nd."])


@pytest.mark.parametrize(("columns", "parts"), [(1, 1), (4, 1), (5, 2), (9, 3)])
def test_pdflatex_sets_the_table_without_a_box_too_wide(
    columns: int, parts: int, tmp_path: Path, pdflatex: Callable[[Path, str], str]
) -> None:
    write(grid(columns), "", tmp_path)
    log = pdflatex(tmp_path, f"{grid(columns).id}_alone.tex")
    assert "Overfull" not in log
    assert "pk>" not in log, "a font was drawn as a bitmap"
    assert latex(grid(columns)).isascii()
    assert latex(grid(columns)).count(r"\begin{tabular}") == parts
    assert latex(grid(columns)).count(r"\label{") == 1


def test_html_shows_every_cell_and_no_markup_from_outside() -> None:
    shown = dataclasses.replace(grid(2), title="<b>T</b>", notes=["<i>"])
    page = html(shown)
    assert page.count("<td>") == sum(len(line.cells) for block in shown.blocks for line in block)
    assert "<b>" not in page
    assert "<i>" not in page
    assert "<caption>&lt;b&gt;T&lt;/b&gt;</caption>" in page


def test_text_stays_within_the_terminal_and_shows_every_cell() -> None:
    shown = grid(9)
    tables = plain(shown).split("\n\nA note")[0]
    assert max(map(len, tables.splitlines())) <= TERMINAL_WIDTH
    for cell in shown.blocks[0][0].cells:
        assert tables.count(f"  {cell}") == 4
    assert plain(shown).endswith("A note_1.\nIts 2nd.\n")


def test_markdown_has_the_same_cells_in_every_line() -> None:
    lines = [line for line in markdown(grid(3)).splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in lines} == {3}
    assert lines[-1].startswith("| *paper* | *123,456 (100.0%)* |")
    assert r"| \[label\] with & signs | 123,456 (100.0%) |" in lines[2]


def test_every_measure_of_trust_is_shown(shop: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Different values for all: none stands under another's label."""
    counts = iter(range(101, 200))
    values: Mapping[str, int | Share] = {
        name: Share(next(counts), 1000) if "Share" in str(kind) else next(counts)
        for name, kind in Trust.__annotations__.items()
    }
    monkeypatch.setattr("bench.report.data_statistics.trust", lambda *_: Trust(**values))  # type: ignore[arg-type]
    shown = data_statistics([str(shop)], None, tmp_path)[1]
    for name, value in values.items():
        text = f"  {value.count} ({value.count / 10:.1f}%)" if isinstance(value, Share) else f"  {value}"
        assert shown.count(text) == 1, name
    rows = read_csv(tmp_path / "tables" / "table4_trust-shop.csv")
    found = {row["measure"]: row["value"] for row in rows if row["category"] == "Toys"}
    assert found.pop("blocks") == ""
    assert found == {name: str(v.count if isinstance(v, Share) else v) for name, v in values.items()}
