"""One's own reviews, from a file to a table: the page that says how, letter by letter, and what it promises."""

from __future__ import annotations

import csv
import json
import random
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

import bench.methods
import bench.tasks
from bench.cli import main
from bench.data.load import load
from bench.data.manifest import Manifest
from bench.data.thresholds import OPTIONS, Thresholds
from bench.records import ABSENT
from bench.templates import fill

ADJECTIVES = ("pale", "dark", "hazy", "golden", "bitter", "sweet", "flat", "sour", "thin", "creamy")
NOUNS = ("hops", "malt", "foam", "finish", "nose", "body", "citrus", "caramel", "smoke", "yeast")
ENDS = ("I would drink it again.", "Not for me, thanks.", "Fine with cheese, less so alone.")


def beer_rows() -> list[list[str]]:
    """4,000 invented reviews of beers: short, without titles, 13/20 for a rating, times in seconds; of 150 users who
    write much, with a rare beer now and then, and of 25 who do not."""
    rng = random.Random(0)
    rows: list[list[str]] = []
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
    assert "10 of 10 runs are to do" in planned
    # What the page says of prompts.
    assert main(["run", "--method", "rag", "--dataset", "my_beers", "--limit", "1", "--dry-run"]) == 0
    first, last = prompt.split("\n...\n")
    asked = capsys.readouterr().out
    assert f"--- user\n{first}\n- [Review 2]:\n- [Review Rating]: " in asked
    assert f"{last}\n\n1 instances" in asked


def regular(users: int = 9, beers: int = 12, text: str = "A beer of which I say {n}.") -> list[list[str]]:
    """Each user reviews each beer once."""
    return [
        [f"b{beer}", f"u{user}", text.format(n=f"{user} {beer}"), "13/20", str(1_400_000_000 + 100 * user + beer)]
        for user in range(users)
        for beer in range(beers)
    ]


SMALL = "--min-text 10 --min-user-reviews 11 --min-history 1 --rating-scale 0-20 --timestamps s"


def prepare(folder: Path, rows: Sequence[Sequence[str]], options: str = SMALL, header: Sequence[str] = HEADER) -> int:
    """`bench data prepare` of rows, a file called ale.csv."""
    write(folder / "ale.csv", rows, header)
    given = ["--reviews", str(folder / "ale.csv"), "--out", str(folder / "out"), *options.split()]
    return main(["data", "prepare", *given, *([] if "--map" in options else ["--map", MAP])])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--rating-scale 5", r"--rating-scale: '5' is not MIN-MAX, .* e\.g\. 0-20"),
        ("--rating-scale 20-0", "'20-0' is not MIN-MAX"),
        (
            "--rating-scale 0-10",
            r"'overall' is not a rating of 0 to 10 but \"13/20\"; .* from 13 to 13, like 13/20: .*",
        ),
        (
            "",
            r"'overall' is not a rating of 0\.5 to 5 but \"13/20\"; .* e\.g\. --rating-scale 0-20$",
        ),
        ("--min-text -1", "--min-text -1: give 1 or more"),
        ("--min-user-reviews 12", "--min-user-reviews 18 or more, or --min-history 2 or less$"),
        ("--min-user-reviews 9 --min-history 1", "give --min-user-reviews 11 or more$"),
        ("--min-description 50 --max-description 40", "--min-description 50 is more than --max-description 40"),
        ("--rating-scale 0-20 --layout dpl", "the published form knows ratings of up to 5 stars alone"),
        ("--map text=text", "--map user_id=user,asin=beer_id,rating=overall,title=,timestamp=time "),
        ("--map user_id=user,asin=beer_id,items.asin=user,title=", "without --items, items.asin is the reviews' asin"),
        ("--rating-scale 0-20", r"'time' is not a time in milliseconds .* --timestamps s\)"),
        (
            "--rating-scale 0-20 --timestamps s",
            r"nothing is left \(108 reviews in the file, .*\); left out were 108 with a text of fewer than 200 "
            r"characters \(--min-text\) \(half of the texts have 26 characters or more, the longest has 27\)",
        ),
        (
            f"{SMALL} --min-item-users 10",
            r"; left out were 108 of items with fewer than 10 users \(--min-item-users\) \(before that, no user had "
            r"reviews of more than 12 items, and no item had more than 9 users\)",
        ),
    ],
)
def test_what_cannot_be_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    assert prepare(tmp_path, regular(), options) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(message, said), said
    assert not (tmp_path / "out").exists()


def test_the_help_groups_the_thresholds_with_their_values(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "prepare", "--help"])
    thresholds = re.sub(r"\s+", " ", capsys.readouterr().out.partition("\nthresholds:\n")[2])
    told = re.findall(r"(--[a-z-]+) N .*?\(default: (\d+)\)", thresholds)
    assert told == [(option, str(getattr(Thresholds, name))) for name, option in OPTIONS.items()]


def test_each_threshold_tells_what_it_left_out(tmp_path: Path) -> None:
    rows = regular()
    rows[5][2], rows[20][3] = "Short.", ""
    rows += [["b99", "u0", "A beer that nobody else had.", "2/20", "1400000999"]]
    rows += [[f"b{n}", "seldom", f"A beer of my own, {n}", "1", "1400000999"] for n in range(3)]
    assert prepare(tmp_path, rows) == 0
    found = Manifest.read(tmp_path / "out/ale")
    assert [dict(reasons) for reasons in found.summary.removed.values()] == [
        {"with a text of fewer than 10 characters (--min-text)": 1, "without a rating": 1},
        {
            "of items with fewer than 8 users (--min-item-users)": 1,
            "of users with fewer than 11 reviews (--min-user-reviews)": 3,
        },
    ]


def test_ratings_on_another_scale(tmp_path: Path) -> None:
    rows = regular()
    for row, rating in zip(rows, ["13/20", " 6.5 / 20", "7", "0/20", "0", "20"], strict=False):
        row[3] = rating
    # With the numbers of the rows, as pandas writes them.
    assert prepare(tmp_path, [[str(n), *row] for n, row in enumerate(rows)], header=["", *HEADER]) == 0
    ratings = pl.read_parquet(tmp_path / "out/ale/reviews.parquet").filter(pl.col("user_id") == "u0")["rating"]
    assert ratings[:6].to_list() == [13, 6.5, 7, 0, 0, 20]
    written = json.loads((tmp_path / "out/ale/manifest.json").read_text())
    assert (written["dpl_thresholds"], written["layout"]["rating_scale"]) == (False, "0-20")
    corpus = load(str(tmp_path / "out"), None)["ale"]
    test = corpus.split("test")[0]
    assert [record.fields["rating"] for record in test.profile[:6]] == [
        "13/20",
        "6.5/20",
        "7/20",
        "0/20",
        "0/20",
        "20/20",
    ]
    assert test.given["output_rating"] == "13/20"


def test_items_come_out_of_the_reviews_as_out_of_a_file(tmp_path: Path) -> None:
    about = (
        "A beer of which much can be said in a description of a hundred characters, and it is said here: number {n}."
    )
    rows = [[*row, f"Beer {row[0]}", about.format(n=row[0])] for row in regular()]
    assert prepare(tmp_path, rows, header=[*HEADER, "item_name", "item_description"]) == 0
    items = {row[0]: row for row in rows}
    table = [[asin, row[5], row[6]] for asin, row in items.items()]
    write(tmp_path / "items.csv", table, ["beer_id", "title", "description"])
    more = "items.title=title,items.categories=,items.rating_number="
    assert prepare(tmp_path, regular(), f"{SMALL} --items {tmp_path}/items.csv --category two --map {MAP},{more}") == 0
    for name in ("items", "reviews"):
        one, two = (pl.read_parquet(tmp_path / "out" / category / f"{name}.parquet") for category in ("ale", "two"))
        assert one.equals(two)
    assert [source["name"] for source in Manifest.read(tmp_path / "out/ale").sources] == ["ale.csv"]


PROMPTS = sorted(path for path in Path(bench.methods.__path__[0]).glob("prompts/*/reviews/*.txt"))


def test_no_prompt_has_a_line_for_what_the_data_lack() -> None:
    fields = ("item_title", "item_description", "title", "output_title")
    templates = [path.read_text() for path in PROMPTS] + [
        (Path(bench.tasks.__path__[0]) / f"prompts/reviews/{name}.txt").read_text() for name in ("block", "given")
    ]
    assert len(templates) > 25
    for template in templates:
        names = re.findall(r"\{\{[#/]?(\w+)\}\}", template)
        whole = fill(template, {name: f"<{name}>" for name in names}, "here")
        lacking = fill(template, {name: ABSENT if name in fields else f"<{name}>" for name in names}, "here")
        assert not re.search(r"\[(Item|Review|Output Review) (Title|Description)\]", lacking)
        assert lacking.split("\n") == [
            line for line in whole.split("\n") if not re.search(f"<({'|'.join(fields)})>", line)
        ]
    # A text that was cut to nothing is another thing than none, and so is a value within a sentence.
    assert fill("- [Title]: {{title}}\n{{title}}: {{text}}", {"title": "", "text": "t"}, "here") == "- [Title]: \n: t"
    assert fill("Of {{title}}: {{text}}", {"title": ABSENT, "text": "t"}, "here") == "Of : t"
