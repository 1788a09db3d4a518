"""One's own reviews, from a file to a table: the page that says how, letter by letter, and what it promises."""

from __future__ import annotations

import csv
import random
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.cli import main

ADJECTIVES = ("pale", "dark", "hazy", "golden", "bitter", "sweet", "flat", "sour", "thin", "creamy")
NOUNS = ("hops", "malt", "foam", "finish", "nose", "body", "citrus", "caramel", "smoke", "yeast")
ENDS = ("I would drink it again.", "Not for me, thanks.", "Fine with cheese, less so alone.")


def beer_rows() -> list[list[str]]:
    """4,000 invented reviews of beers: short, without titles, 13/20 for a rating, times in seconds; of 150 users who
    write much, with a rare beer now and then, and of 25 who do not."""
    rng = random.Random(0)
    rows = []
    for user in range(175):
        liked = rng.sample(ADJECTIVES, 3)
        beers = [*rng.sample(range(110), 24), rng.randrange(110, 170)] if user < 150 else rng.sample(range(110), 10)
        for beer in beers:
            text = f"{rng.choice(liked).capitalize()} {rng.choice(NOUNS)}, {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"
            text = "Nice." if rng.random() < 0.02 else f"{text}, glass {len(rows)}. {rng.choice(ENDS)}"
            time = 1_400_000_000 + rng.randrange(10**8)
            rows.append([str(10_000 + beer), f"drinker{user}", text, f"{rng.randint(0, 20)}/20", str(time)])
    return rows


PAGE = (Path(__file__).parents[2] / "docs" / "your-reviews.md").read_text(encoding="utf-8")
HEADER = ["beer_id", "user", "text", "overall", "time"]
MAP = "user_id=user,asin=beer_id,rating=overall,title=,timestamp=time"


def blocks(language: str) -> list[str]:
    """The page's code blocks in a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [block.rstrip("\n") for of, block in found if of == language]


def write(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with beers.csv, as the page has it."""
    folder = tmp_path_factory.mktemp("own")
    write(folder / "beers.csv", beer_rows())
    return folder


def test_the_page_goes_from_a_file_to_a_table_in_three_commands(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    file, summary, floors, prompt = blocks("")
    assert Path("beers.csv").read_text(encoding="utf-8").startswith(file + "\n")
    commands = [shlex.split(block.replace("\\\n", "")) for block in blocks("bash")]
    assert [command[:3] for command in commands] == [
        ["bench", "data", "prepare"],
        ["bench", "data", "stats"],
        ["bench", "table", "table1"],
    ]
    said = []
    for command in commands:
        # A table takes minutes; what it would ask the model is made all the same.
        dry = ["--dry-run"] if command[1] == "table" else []
        assert main([*command[1:], *dry]) == 0
        said.append(capsys.readouterr().out)
    prepared, looked, planned = said
    assert summary in prepared
    assert floors in looked.splitlines()
    assert "but not with their thresholds: --min-text 40 (200). Ratings are on a scale of 0 to 20. " in looked
    assert "The data have no review titles and no item titles and no item descriptions." in looked
    assert "9 of 9 runs are to do" in planned
    # What the page says of prompts.
    assert main(["run", "--method", "rag", "--dataset", "my_beers", "--limit", "1", "--dry-run"]) == 0
    first, last = prompt.split("\n...\n")
    asked = capsys.readouterr().out
    assert f"--- user\n{first}\n- [Review 2]:\n- [Review Rating]: " in asked
    assert f"{last}\n\n1 instances" in asked
