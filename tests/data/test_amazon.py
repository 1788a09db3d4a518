"""Raw files to splits: equality with a plain reading of the ten steps, row by row, and what bad input does."""

from __future__ import annotations

import gzip
import json
import random
import re
import statistics
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from bench.data import amazon, prepared
from bench.data.amazon import Thresholds, prepare
from bench.errors import DataError

Record = dict[str, Any]
SMALL = Thresholds(
    description_min=4,
    description_max=9,
    text_min=4,
    item_users=3,
    user_reviews_min=13,
    user_reviews_max=24,
    history_item_users=3,
    user_history=3,
)


# The ten steps, the slow way: lists and dictionaries only.


@dataclass
class Plain:
    items: list[tuple[str, str, str]]
    rows: list[tuple[Any, ...]]
    instances: dict[str, tuple[tuple[Any, ...], list[tuple[Any, ...]]]]
    raw_reviews: int


def description_text(entries: list[str] | None) -> str:
    if not entries or entries == ["Product Description"]:
        return ""
    if entries[0] == "Product Description":
        return " ".join(entries[1:])
    return " ".join(entries)


def newest_unique(rows: list[Record]) -> list[Record]:
    kept: list[Record] = []
    asins: list[str] = []
    texts: list[str] = []
    for row in sorted(rows, key=lambda row: row["timestamp"], reverse=True):
        if row["parent_asin"] not in asins and row["text"] not in texts:
            asins.append(row["parent_asin"])
            texts.append(row["text"])
            kept.append(row)
    return kept


def by_user(rows: list[Record]) -> dict[str, list[Record]]:
    grouped: dict[str, list[Record]] = {}
    for row in rows:
        grouped.setdefault(row["user_id"], []).append(row)
    return grouped


def plain(reviews: list[Record], items: list[Record], limits: Thresholds) -> Plain:
    table: dict[str, tuple[str, str, str]] = {}
    for item in items:
        text = description_text(item.get("description"))
        good = limits.description_min <= len(text) <= limits.description_max
        if good and item.get("title") and item.get("categories") and item.get("rating_number"):
            table.setdefault(item["parent_asin"], (item["parent_asin"], item["title"], text))
    rows = [
        row | {"n": n}
        for n, row in enumerate(reviews)
        if len(row.get("text") or "") >= limits.text_min
        and row.get("rating")
        and row.get("title")
        and row.get("timestamp")
        and row["parent_asin"] in table
    ]
    while True:
        users = by_user(rows)
        sizes = {user: len(newest_unique(own)) for user, own in users.items()}
        reviewers: dict[str, set[str]] = {}
        for row in rows:
            reviewers.setdefault(row["parent_asin"], set()).add(row["user_id"])
        left = [
            row
            for row in rows
            if len(reviewers[row["parent_asin"]]) >= limits.item_users
            and limits.user_reviews_min <= sizes[row["user_id"]] <= limits.user_reviews_max
        ]
        if len(left) == len(rows):
            break
        rows = left
    alive = {row["parent_asin"] for row in rows}
    histories: dict[str, list[Record]] = {}
    inputs: dict[str, list[Record]] = {}
    for user, own in by_user(rows).items():
        clean = newest_unique([row | {"text": re.sub(r"\s+", " ", row["text"]).strip()} for row in own])
        ascending = sorted(clean, key=lambda row: (row["timestamp"], row["n"]))
        histories[user], inputs[user] = ascending[:-10], ascending[-10:]
    while True:
        before = len(histories)
        counts: dict[str, int] = {}
        for own in histories.values():
            for row in own:
                counts[row["parent_asin"]] = counts.get(row["parent_asin"], 0) + 1
        for user, own in histories.items():
            histories[user] = [row for row in own if counts[row["parent_asin"]] >= limits.history_item_users]
        histories = {user: own for user, own in histories.items() if len(own) >= limits.user_history}
        if len(histories) == before:
            break
    return finished(histories, inputs, [item for asin, item in table.items() if asin in alive], len(reviews))


def finished(
    histories: dict[str, list[Record]],
    inputs: dict[str, list[Record]],
    items: list[tuple[str, str, str]],
    raw: int,
) -> Plain:
    def fields(row: Record) -> tuple[Any, ...]:
        return tuple(row[name] for name in ("user_id", "parent_asin", "rating", "title", "text", "timestamp"))

    rows, instances = [], {}
    for user in sorted(histories):
        old, new = [fields(row) for row in histories[user]], [fields(row) for row in inputs[user]]
        rows += [(*row, "history") for row in old] + [(*row, "input") for row in new]
        for k in range(8):
            instances[f"Toys/train/{user}/{k}"] = (new[k], old + new[:k])
        instances[f"Toys/val/{user}"] = (new[8], old + new[:8])
        instances[f"Toys/test/{user}"] = (new[9], old + new[:9])
    return Plain(items, rows, instances, raw)


# Random raw data, rich in the cases that matter.

SPACES = [" ", "  ", "\t", "\n", "\xa0", "\x1c", "\u3000", "\x85", " \r\n"]


def gaps(rng: random.Random, record: Record, names: tuple[str, ...], empties: tuple[Any, ...]) -> Record:
    """Now and then a field is missing, null or empty."""
    if rng.random() < 0.04:
        name = rng.choice(names)
        value = rng.choice(["missing", None, empties[names.index(name)]])
        record = {key: old for key, old in record.items() if key != name} | (
            {} if value == "missing" else {name: value}
        )
    return record


def random_item(rng: random.Random, asin: str) -> Record:
    words = rng.choice([["abcd"], ["a" * 9], ["ab", "cd"], ["é" * 9], ["ab", "", "c"], ["é" * 4]])
    words = rng.choice([["abc"], ["a" * 10], ["é" * 3], ["ab", "cdefghi"]]) if rng.random() < 0.06 else words
    heading = ["Product Description"]
    description = rng.choices([words, heading + words, words + heading, heading, []], [70, 25, 1, 1, 1])[0]
    item: Record = {"parent_asin": asin, "title": rng.choice([asin, " "]), "description": description}
    item |= {"categories": ["Toys"], "rating_number": rng.choice([1, 3, 2.5]), "price": rng.choice([None, "$3", 4])}
    return gaps(rng, item, ("title", "description", "categories", "rating_number"), ("", [], [], 0))


def random_text(rng: random.Random, pool: int) -> str:
    if rng.random() < 0.05:
        return rng.choice(["abc", "abcd", "ééé", "éééé", "   a"])
    core = [f"t{rng.randrange(pool)}", "good\u200btoy", "end"]
    return rng.choice(["", " ", "\n"]) * (rng.random() < 0.2) + rng.choice(
        SPACES if rng.random() < 0.4 else [" "]
    ).join(core)


def random_data(rng: random.Random) -> tuple[list[Record], list[Record]]:
    asins = [f"i{n}" for n in range(rng.randint(22, 30))]
    items = [random_item(rng, asin) for asin in asins]
    items += [random_item(rng, rng.choice(asins)) for _ in range(rng.choice([0, 2]))]
    span, pool = rng.choice([6, 40, 4000]), rng.choice([60, 200, 1000])
    reviews: list[Record] = []
    for user in range(rng.randint(6, 14)):
        some = rng.sample(asins, rng.randint(14, len(asins)))
        some += rng.choices(asins, k=rng.choice([0, 0, 2, 9]))
        for asin in some:
            review = {
                "user_id": f"U{user}",
                "asin": "variant",
                "parent_asin": asin,
                "rating": rng.choice([1, 4.0, 5.0]),
            }
            review |= {"title": f"title {len(reviews)}", "text": random_text(rng, pool)}
            review |= {"timestamp": 1_500_000_000_000 + rng.randrange(span), "images": rng.choice([[], [{"a": 1}]])}
            reviews.append(gaps(rng, review, ("rating", "title", "text", "timestamp"), (0.0, "", "", 0)))
    rng.shuffle(reviews)
    return reviews, items


def write(path: Path, records: list[Record]) -> Path:
    data = "".join(json.dumps(record, ensure_ascii=len(records) % 2 == 0) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def silent(_: str) -> None:
    return None


def assert_same(folder: Path, reviews: list[Record], items: list[Record], limits: Thresholds) -> bool:
    """Prepare and compare with the plain steps; whether anything was left."""
    wanted = plain(reviews, items, limits)
    raw_reviews, raw_items = write(folder / "r.jsonl", reviews), write(folder / "i.jsonl.gz", items)
    if not wanted.rows:
        with pytest.raises(DataError, match="nothing is left"):
            prepare(raw_reviews, raw_items, "Toys", folder / "out", silent, limits)
        assert not (folder / "out").exists()
        return False
    summary = prepare(raw_reviews, raw_items, "Toys", folder / "out", silent, limits)
    assert pl.read_parquet(folder / "out/Toys/items.parquet").rows() == wanted.items
    assert pl.read_parquet(folder / "out/Toys/reviews.parquet").rows() == wanted.rows
    corpus = prepared.read(folder / "out", "Toys")
    found = [instance for split in corpus.instances.values() for instance in split]
    assert {instance.id for instance in found} == set(wanted.instances)
    for instance in found:
        (user, asin, rating, title, text, timestamp), profile = wanted.instances[instance.id]
        assert (instance.user_id, instance.item.asin, instance.rating) == (user, asin, rating)
        assert (instance.title, instance.timestamp, corpus.reference(instance)) == (title, timestamp, text)
        assert [astuple(review) for review in instance.profile] == profile
    sizes = [len(profile) for name, (_, profile) in wanted.instances.items() if "/test/" in name]
    assert summary.profile_mean == pytest.approx(statistics.fmean(sizes))
    assert summary.profile_sd == pytest.approx(statistics.pstdev(sizes))
    assert summary.users == len(sizes) == summary.instances["val"] == summary.instances["test"]
    assert summary.instances["train"] == 8 * len(sizes)
    assert summary.reviews["reviews in the file"] == wanted.raw_reviews
    return True


@pytest.mark.parametrize("block", range(13))
def test_equals_the_plain_steps_on_small_thresholds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(amazon, "_BLOCK", 1 << 12 if block % 2 else 1 << 24)  # many blocks, and one
    left = 0
    for seed in range(block * 10, block * 10 + 10):
        rng = random.Random(seed)
        limits = replace(SMALL, user_reviews_min=rng.choice([11, 12, 13]), user_reviews_max=rng.choice([19, 22, 25]))
        limits = replace(limits, history_item_users=rng.choice([2, 3]), user_history=rng.choice([1, 2, 3]))
        folder = tmp_path / str(seed)
        folder.mkdir()
        left += assert_same(folder, *random_data(rng), limits)
    assert left >= 5


def edge_data(rng: random.Random) -> tuple[list[Record], list[Record]]:
    """Data for DPL's own thresholds: users at 17/18/500/501 reviews, items at 7/8 users, lengths at every limit."""
    lengths = [99, 100, 101, 1999, 2000, 2001]
    asins = [f"i{n:03}" for n in range(520)]
    items = [
        {
            "parent_asin": asin,
            "title": f"item {asin}",
            "description": ["x" * (lengths[n] if n < len(lengths) else 150)],
            "categories": ["Toys"],
            "rating_number": 9,
        }
        for n, asin in enumerate(asins)
    ]
    common, rare = asins[6:506], asins[506:]
    plans = [common] * 9 + [[*common, rare[0]]] * 2
    plans += [common[:size] for size in (17, 18, 19, 30, 40)]
    plans += [[*common[:60], *asins[:6], *rare[1 : 1 + n]] for n in range(1, 9)]
    reviews: list[Record] = []
    for user, plan in enumerate(plans):
        for asin in rng.sample(plan, len(plan)):
            length = 199 if rng.random() < 0.002 and user > 15 else 200
            review = {"user_id": f"U{user:02}", "parent_asin": asin, "rating": 5.0, "title": f"t{len(reviews)}"}
            review |= {"text": f"{len(reviews)} ".ljust(length, "y"), "timestamp": 1 + rng.randrange(40)}
            reviews.append(review)
    return reviews, items


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_plain_steps_on_the_thresholds_of_dpl(tmp_path: Path, seed: int) -> None:
    reviews, items = edge_data(random.Random(seed))
    assert assert_same(tmp_path, reviews, items, Thresholds())
    users = set(pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")["user_id"])
    assert {"U00", "U12"} <= users, "500 and 18 reviews are within the limits"
    assert not {"U09", "U10", "U11"} & users, "501 and 17 reviews are not"
    found = set(pl.read_parquet(tmp_path / "out/Toys/items.parquet")["asin"])
    assert {"i001", "i002", "i003", "i004", "i507"} <= found, "descriptions of 100 to 2,000 characters, 8 users"
    assert not {"i000", "i005", "i508"} & found, "99 and 2,001 characters, 7 users"


def test_a_dropped_review_does_not_shadow_others(tmp_path: Path) -> None:
    """Newest first: (a, X) stays; (a, Y) repeats the item; (b, Y) stays, for the review that held Y is gone; (c, X)
    repeats the text; (c, Z) stays."""
    chain = [("a", "text X"), ("a", "text Y"), ("b", "text Y"), ("c", "text X"), ("c", "text Z")]
    more = [(f"i{n}", f"text {n}") for n in range(10)]
    pairs = chain + more
    reviews = [
        {"user_id": "U", "parent_asin": asin, "rating": 5.0, "title": str(n), "text": text, "timestamp": 100 - n}
        for n, (asin, text) in enumerate(pairs)
    ]
    items = [item(asin) for asin in sorted({asin for asin, _ in pairs})]
    limits = Thresholds(4, 9, 4, 1, 13, 13, 1, 1)
    prepare(write(tmp_path / "r.jsonl", reviews), write(tmp_path / "i.jsonl", items), "Toys", tmp_path, silent, limits)
    newest = pl.read_parquet(tmp_path / "Toys/reviews.parquet").sort("timestamp", descending=True)
    assert newest["title"].to_list()[:4] == ["0", "2", "4", "5"]


def test_white_space_is_what_python_takes_for_it(tmp_path: Path) -> None:
    blanks = "".join(char for char in map(chr, range(0x110000)) if char.isspace())
    reviews, items = good_data()
    reviews[0]["text"] = f"{blanks}one{blanks}two\u200bthree{blanks}"
    prepare(write(tmp_path / "r.jsonl", reviews), write(tmp_path / "i.jsonl", items), "Toys", tmp_path, silent, ALL)
    assert pl.read_parquet(tmp_path / "Toys/reviews.parquet")["text"][0] == "one two\u200bthree"


# What is there already, and what cannot be read.

ALL = Thresholds(1, 99, 1, 1, 11, 99, 1, 1)


def item(asin: str) -> Record:
    return {"parent_asin": asin, "title": "T", "description": ["words"], "categories": ["Toys"], "rating_number": 1}


def good_data() -> tuple[list[Record], list[Record]]:
    """One user with eleven reviews, one line a review, oldest first."""
    reviews = [
        {"user_id": "U", "parent_asin": f"i{n}", "rating": 5.0, "title": "t", "text": f"text {n}", "timestamp": n + 1}
        for n in range(11)
    ]
    return reviews, [item(f"i{n}") for n in range(11)]


def good_files(folder: Path) -> tuple[Path, Path]:
    reviews, items = good_data()
    return write(folder / "r.jsonl", reviews), write(folder / "i.jsonl", items)


def test_preparing_again_reports_and_changes_nothing(tmp_path: Path) -> None:
    reviews, items = good_files(tmp_path)
    first = prepare(reviews, items, "Toys", tmp_path / "out", silent, ALL)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    said: list[str] = []
    assert prepare(reviews, items, "Toys", tmp_path / "out", said.append, ALL) == first
    assert "already prepared" in said[-1]
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert sorted(path.name for path in (tmp_path / "out/Toys").iterdir()) == [
        "items.parquet",
        "manifest.json",
        "reviews.parquet",
    ]


def test_other_sources_or_thresholds_do_not_replace_a_category(tmp_path: Path) -> None:
    reviews, items = good_files(tmp_path)
    prepare(reviews, items, "Toys", tmp_path / "out", silent, ALL)
    with pytest.raises(DataError, match="other thresholds"):
        prepare(reviews, items, "Toys", tmp_path / "out", silent, replace(ALL, text_min=2))
    write(reviews, [record | {"rating": 4.0} for record in good_data()[0]])
    with pytest.raises(DataError, match=r"from r\.jsonl and i\.jsonl.*remove it or choose another --out"):
        prepare(reviews, items, "Toys", tmp_path / "out", silent, ALL)


def test_several_categories_share_a_folder(tmp_path: Path) -> None:
    reviews, items = good_files(tmp_path)
    for name in ("Toys", "Books"):
        prepare(reviews, items, name, tmp_path / "out", silent, ALL)
    assert prepared.categories(tmp_path / "out") == ["Books", "Toys"]


def test_a_category_has_to_be_a_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'\.\./x' cannot be a folder's name"):
        prepare(*good_files(tmp_path), "../x", tmp_path / "out", silent, ALL)


def test_a_failing_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    reviews, items = good_files(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"could not write .*choose another folder"):
        prepare(reviews, items, "Toys", tmp_path / "file", silent, ALL)


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(message: str) -> None:
        if "joint k-core" in message:
            raise KeyboardInterrupt

    reviews, items = good_files(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        prepare(reviews, items, "Toys", tmp_path / "new/out", interrupt, ALL)
    assert not (tmp_path / "new").exists()


def lines(records: list[Record]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def changed(number: int, **values: Any) -> Callable[[list[Record]], bytes]:
    """The records with some fields of the line `number` (from 1) changed."""
    return lambda records: lines(
        [record | (values if n == number else {}) for n, record in enumerate(records, start=1)]
    )


def torn_gzip(records: list[Record]) -> bytes:
    return gzip.compress(lines(records))[:-20]


BAD_REVIEWS: list[tuple[Callable[[list[Record]], bytes], str]] = [
    (lambda records: b"", r"r\.jsonl is empty"),
    (lambda records: b"\n \n", r"r\.jsonl is empty"),
    (
        lambda records: lines(records[:2]) + b"hello\n" + lines(records[2:]),
        r"r\.jsonl, line 3: not valid JSON .*correct",
    ),
    (lambda records: lines(records) + b'{"user_id": "U", "par', "line 12: not valid JSON"),
    (lambda records: lines(records) + b"[1]\n", "line 12: not a JSON object"),
    (lambda records: lines(records).replace(b"text 4", b"text \xff"), "line 5: not valid JSON"),
    (
        lambda records: lines([{k: v for k, v in r.items() if k != "text"} for r in records]),
        "no line has a value for 'text'",
    ),
    (changed(3, rating="five"), "line 3: 'rating' is not a number but \"five\""),
    (changed(3, rating=float("nan")), "line 3: 'rating' is not a number but NaN"),
    (changed(4, rating=True), "line 4: 'rating' is not a number but true"),
    (changed(5, timestamp="2020-01-01"), "line 5: 'timestamp' is not a whole number"),
    (changed(5, timestamp=1.5), "line 5: 'timestamp' is not a whole number but 1.5"),
    (changed(6, text=["a"]), "line 6: 'text' is not a text but"),
    (changed(6, text="\ud83d"), "line 6: 'text' is not a text but"),
    (changed(7, user_id=None), "line 7: 'user_id' is missing or empty"),
    (changed(7, parent_asin=""), "line 7: 'parent_asin' is missing or empty"),
    (torn_gzip, r"broken gzip file, readable up to line \d+ .*fetch it again"),
    (lambda records: lines([record | {"rating": 0} for record in records]), "nothing is left .*11 reviews in the file"),
    (lambda records: lines(records[:10]), "nothing is left .*10 reviews of kept items"),
]
BAD_ITEMS: list[tuple[Callable[[list[Record]], bytes], str]] = [
    (changed(2, description="words"), "line 2: 'description' is not a list of texts but \"words\""),
    (changed(2, description=["words", None]), "line 2: 'description' is not a list of texts"),
    (changed(3, categories=[1]), "line 3: 'categories' is not a list of texts"),
    (changed(4, rating_number="3"), "line 4: 'rating_number' is not a number"),
    (lambda records: lines([record | {"title": ""} for record in records]), "nothing is left .*11 items in the file"),
]


@pytest.mark.parametrize(
    ("which", "bad", "message"), [("r", *case) for case in BAD_REVIEWS] + [("i", *case) for case in BAD_ITEMS]
)
def test_bad_input_is_one_clear_error(
    tmp_path: Path, which: str, bad: Callable[[list[Record]], bytes], message: str
) -> None:
    reviews, items = good_files(tmp_path)
    path, records = (reviews, good_data()[0]) if which == "r" else (items, good_data()[1])
    path.write_bytes(bad(records))
    with pytest.raises(DataError, match=message):
        prepare(reviews, items, "Toys", tmp_path / "out", silent, ALL)
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    reviews, _ = good_files(tmp_path)
    with pytest.raises(DataError, match=r"none\.jsonl cannot be read \(No such file.*give the path"):
        prepare(reviews, tmp_path / "none.jsonl", "Toys", tmp_path / "out", silent, ALL)
