"""`bench data stats`: the paper's figures beside ours, the files, and what bad input is answered with."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bench.cli import main
from bench.data.corpus import Corpus
from bench.data.stats import Sizes
from bench.errors import ConfigError, DataError
from bench.experiments.data import data_statistics, load_all, table4
from bench.records import Instance, Record
from bench.tasks.reviews import Item, instance, review

ENDS = (".tex", "_alone.tex", ".md", ".html", ".csv")
PAPER = ("Books", "Movies_and_TV", "CDs_and_Vinyl")
ITEM = Item("A", "Title", "About.")


def category(name: str, users: int, history: int = 2) -> Corpus:
    """Users with two training instances, of `history` and one more reviews, and a val and a test instance after them.
    The n-th user's validation text is n characters long."""
    instances: dict[str, list[Instance]] = {"train": [], "val": [], "test": []}
    references: dict[str, str] = {}
    for user in range(users):
        told = tuple(_review(user, f"{name} {user} {n}", n) for n in range(history + 3))
        for split, size in (("train", 0), ("train", 1), ("val", 2), ("test", 3)):
            text = "x" * user if split == "val" else "y" * (size + 1)
            made = instance(name, split, _review(user, text, 99), told[: history + size], f"/{size}")
            instances[split].append(made)
            references[made.id] = text
    return Corpus(name, {split: tuple(rows) for split, rows in instances.items()}, references, frozenset(["A"]))


def _review(user: int, text: str, time: int) -> Record:
    return review(f"u{user}", ITEM, 5.0, "t", text, time)


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


def test_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
        (["demmo"], "there is no data set 'demmo'; did you mean 'demo'?"),
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
