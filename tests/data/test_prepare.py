"""Raw files to splits: equality with a plain reading of the ten steps, row by row; interruptions; what is there."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.data import kcore, steps
from bench.data.layouts.prepared import Prepared
from bench.data.prepare import prepare
from bench.data.raw.columns import ITEM_FIELDS, REVIEW_FIELDS, read_column_map
from bench.data.thresholds import Thresholds
from bench.errors import DataError

Record = dict[str, Any]
START = 1_500_000_000_000
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
FACE = "\U0001f600"
CURIOUS = ["true", "null", "[12]", "1234", '{"a": 1}', '"abc"', "-1.5e3", 'a"b\\c/d\b', FACE * 4, f"  {FACE * 3}\n"]
SHORT = ["abc", "ééé", FACE * 3, "nul", "[1]", "123"]


def gaps(rng: random.Random, record: Record, names: tuple[str, ...], empties: tuple[Any, ...]) -> Record:
    """Now and then a field is missing, null or empty."""
    if rng.random() < 0.04:
        name = rng.choice(names)
        value = rng.choice(["missing", None, empties[names.index(name)]])
        record = {key: old for key, old in record.items() if key != name} | (
            {} if value == "missing" else {name: value}
        )
    return record


def random_item(rng: random.Random, asin: str, good: float = 0.94) -> Record:
    words = rng.choice([["abcd"], ["a" * 9], ["ab", "cd"], ["é" * 9], ["ab", "", "c"], ["é" * 4], [FACE * 9]])
    if rng.random() > good:
        words = rng.choice([["abc"], ["a" * 10], ["é" * 3], ["ab", "cdefghi"], [FACE * 10], [FACE * 3]])
    heading = ["Product Description"]
    description = rng.choices([words, heading + words, words + heading, heading, []], [70, 25, 1, 1, 1])[0]
    title = rng.choice([asin, " ", "0", f"{asin} \u2028\\"])
    item: Record = {"parent_asin": asin, "title": title, "description": description}
    item |= {"categories": ["Toys"], "rating_number": rng.choice([1, 3, 2.5]), "price": rng.choice([None, "$3", 4])}
    return gaps(rng, item, ("title", "description", "categories", "rating_number"), ("", [], [], 0))


def random_text(rng: random.Random, pool: int) -> str:
    if rng.random() < 0.08:
        return rng.choice(CURIOUS + SHORT)
    core = [f"t{rng.randrange(pool)}", rng.choice(["good\u200btoy", f"{FACE}\\n"]), "end"]
    return rng.choice(["", " ", "\n"]) * (rng.random() < 0.2) + rng.choice(
        SPACES if rng.random() < 0.4 else [" "]
    ).join(core)


def random_data(rng: random.Random) -> tuple[list[Record], list[Record]]:
    asins = [f"i{n}" for n in range(rng.randint(22, 30))]
    items = [random_item(rng, asin) for asin in asins]
    items += [random_item(rng, rng.choice(asins), 0.5) for _ in range(rng.choice([0, 2, 12]))]
    if rng.random() < 0.5:
        rng.shuffle(items)
    span, pool = rng.choice([6, 40, 4000]), rng.choice([60, 200, 1000])
    reviews: list[Record] = []
    for user in range(rng.randint(6, 14)):
        some = rng.sample(asins, rng.randint(14, len(asins)))
        some += rng.choices(asins, k=rng.choice([0, 0, 2, 9]))
        for asin in some:
            review: Record = {"user_id": f"U{user}é", "asin": "variant", "parent_asin": asin}
            review |= {"rating": rng.choice([1, 4.0, 5.0, 2.7]), "title": f'title "{len(reviews)}"'}
            review |= {"text": random_text(rng, pool), "timestamp": START + rng.randrange(span)}
            review |= {"images": rng.choice([[], [{"text": "x", "user_id": 'a"}'}]])}
            reviews.append(gaps(rng, review, ("rating", "title", "text", "timestamp"), (0.0, "", "", 0)))
    rng.shuffle(reviews)
    return reviews, items


# The same records in several formats.


def json_lines(records: list[Record], rng: random.Random) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=rng.random() < 0.5) + "\n" for record in records).encode()


def mixed_lines(records: list[Record], rng: random.Random) -> bytes:
    """Blank lines, both line ends, keys in any order, further fields, white space, and no line end after the last."""
    data = ""
    for record in records:
        more = record | {"TEXT": "none", " text": 5, "nested": {"text": ["a", {"timestamp": 1}]}}
        names = rng.sample(sorted(more), len(more))
        separators = rng.choice([(",", ":"), (" ,\t", " : ")])
        data += json.dumps({name: more[name] for name in names}, separators=separators).replace("/", "\\/")
        data += rng.choice(["\n", "\r\n", "\n\n", "\n \t\r\n"])
    return data.rstrip().encode()


def two_members(records: list[Record], rng: random.Random) -> bytes:
    """Two gzip files in one, which breaks within a line."""
    data = json_lines(records, rng)
    middle = len(data) // 2
    return gzip.compress(data[:middle]) + gzip.compress(data[middle:])


def fields_of(records: list[Record]) -> list[str]:
    names = ITEM_FIELDS if any("description" in record for record in records) else REVIEW_FIELDS
    return ["parent_asin" if name == "asin" else name for name in names]


def csv_table(records: list[Record], rng: random.Random) -> bytes:
    file = io.StringIO()
    names = rng.sample(fields_of(records), len(fields_of(records)))
    writer = csv.DictWriter(file, names, extrasaction="ignore", quoting=rng.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
    writer.writeheader()
    for record in records:
        lists = {name: json.dumps(value) for name, value in record.items() if isinstance(value, list)}
        writer.writerow(record | lists)
    return file.getvalue().encode()


def parquet_table(records: list[Record], rng: random.Random) -> bytes:
    types = {"rating": pa.float64(), "rating_number": pa.float32(), "timestamp": pa.int64()}
    types |= dict.fromkeys(("description", "categories"), pa.list_(pa.string()))
    schema = pa.schema([(name, types.get(name, pa.string())) for name in fields_of(records)])
    rows = [{name: record.get(name) for name in schema.names} for record in records]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), file, row_group_size=rng.choice([7, 100, 1000]))
    return file.getvalue()


FORMATS: dict[str, Callable[[list[Record], random.Random], bytes]] = {
    "plain.jsonl": json_lines,
    "packed.jsonl.gz": lambda records, rng: gzip.compress(json_lines(records, rng)),
    "mixed.jsonl": mixed_lines,
    "mixed.json.gz": lambda records, rng: gzip.compress(mixed_lines(records, rng)),
    "members.jsonl.gz": two_members,
    "table.csv": csv_table,
    "table.csv.gz": lambda records, rng: gzip.compress(csv_table(records, rng)),
    "table.parquet": parquet_table,
}


def write(path: Path, records: list[Record], kind: str = "plain.jsonl", seed: int = 0) -> Path:
    path.write_bytes(FORMATS[kind](records, random.Random(seed)))
    return path


def silent(_: str) -> None:
    return None


def assert_same(
    folder: Path,
    reviews: list[Record],
    items: list[Record],
    limits: Thresholds,
    kinds: tuple[str, str] = ("plain.jsonl", "packed.jsonl.gz"),
) -> bool:
    """Prepare and compare with the plain steps; whether anything was left."""
    wanted = plain(reviews, items, limits)
    raw_reviews = write(folder / f"r-{kinds[0]}", reviews, kinds[0])
    raw_items = write(folder / f"i-{kinds[1]}", items, kinds[1])
    if not wanted.rows:
        with pytest.raises(DataError, match="nothing is left"):
            prepare(raw_reviews, raw_items, "Toys", folder / "out", silent, limits)
        assert not (folder / "out").exists()
        return False
    summary = prepare(raw_reviews, raw_items, "Toys", folder / "out", silent, limits)
    assert pl.read_parquet(folder / "out/Toys/items.parquet").rows() == wanted.items
    assert pl.read_parquet(folder / "out/Toys/reviews.parquet").rows() == wanted.rows
    corpus = Prepared().read(folder / "out", "Toys")
    found = [instance for split in corpus.instances.values() for instance in split]
    assert {instance.id for instance in found} == set(wanted.instances)
    for instance in found:
        (user, asin, rating, title, text, timestamp), profile = wanted.instances[instance.id]
        assert (instance.user_id, instance.group, instance.timestamp) == (user, asin, timestamp)
        assert (instance.given["output_rating"], instance.given["output_title"]) == (rating, title)
        assert corpus.reference(instance) == text
        assert [
            (old.user_id, old.group, old.fields["rating"], old.fields["title"], old.text, old.timestamp)
            for old in instance.profile
        ] == profile
    sizes = [len(profile) for name, (_, profile) in wanted.instances.items() if "/test/" in name]
    assert summary.profile_mean == pytest.approx(statistics.fmean(sizes))
    assert summary.profile_sd == pytest.approx(statistics.pstdev(sizes))
    assert summary.users == len(sizes) == summary.instances["val"] == summary.instances["test"]
    assert summary.instances["train"] == 8 * len(sizes)
    assert summary.reviews["reviews in the file"] == wanted.raw_reviews
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["Toys"]
    return True


def random_limits(rng: random.Random) -> Thresholds:
    limits = replace(SMALL, user_reviews_min=rng.choice([11, 12, 13]), user_reviews_max=rng.choice([19, 22, 25]))
    return replace(limits, history_item_users=rng.choice([2, 3]), user_history=rng.choice([1, 2, 3]))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("block", range(3))
def test_equals_the_plain_steps_on_small_thresholds(tmp_path: Path, kind: str, block: int) -> None:
    left = 0
    for seed in range(block * 10, block * 10 + 10):
        rng = random.Random(f"{kind} {seed}")
        folder = tmp_path / str(seed)
        folder.mkdir()
        limits = random_limits(rng)
        left += assert_same(folder, *random_data(rng), limits, (kind, rng.choice(list(FORMATS))))
    assert left >= 4


def test_the_same_records_give_the_same_folder_in_all_formats(tmp_path: Path) -> None:
    reviews, items = random_data(random.Random(0))
    folders = []
    for n, kind in enumerate(FORMATS):
        raw = write(tmp_path / f"r-{kind}", reviews, kind, n), write(tmp_path / f"i-{kind}", items, kind, n)
        prepare(*raw, "Toys", tmp_path / str(n), silent, replace(SMALL, user_reviews_min=11, user_history=1))
        folders.append([(tmp_path / f"{n}/Toys/{name}.parquet").read_bytes() for name in ("reviews", "items")])
    assert folders == folders[:1] * len(FORMATS)


def few(texts: pl.Series) -> pl.Series:
    return (texts.str.len_bytes() % 3).cast(pl.UInt64)


@pytest.mark.parametrize("where", ["as read", "normalised", "mixed with users", "everywhere"])
def test_texts_with_equal_hashes_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    used: set[str] = set()
    mixed, hashed = kcore.mixed, pl.Series.hash

    def hash_with_few_values(self: pl.Series, *arguments: Any, **options: Any) -> pl.Series:
        if self.dtype != pl.String or where not in ("normalised", "everywhere"):
            return hashed(self, *arguments, **options)
        used.add("normalised")
        return few(self)

    def mixed_to_few_values(users: Any, texts: Any) -> Any:
        if where not in ("mixed with users", "everywhere"):
            return mixed(users, texts)
        used.add("mixed with users")
        return mixed(users, texts) % 5

    if where in ("as read", "everywhere"):
        used.add("as read")
        monkeypatch.setattr(steps, "TEXT_HASH", "(strlen(text) % 3)::ubigint")
    monkeypatch.setattr(pl.Series, "hash", hash_with_few_values)
    monkeypatch.setattr(kcore, "mixed", mixed_to_few_values)
    left = 0
    for seed in range(12):
        rng = random.Random(f"collisions {seed}")
        folder = tmp_path / str(seed)
        folder.mkdir()
        limits = random_limits(rng)
        left += assert_same(folder, *random_data(rng), limits, (rng.choice(list(FORMATS)), "plain.jsonl"))
    assert left >= 5
    assert used == ({"as read", "normalised", "mixed with users"} if where == "everywhere" else {where})


def edge_data(rng: random.Random) -> tuple[list[Record], list[Record]]:
    """Data for DPL's own thresholds: users at 17/18/500/501 reviews, items at 7/8 users, lengths at every limit."""
    lengths = [99, 100, 101, 1999, 2000, 2001]
    asins = [f"i{n:03}" for n in range(520)]
    sign = rng.choice(["x", "é", FACE])
    items = [
        {
            "parent_asin": asin,
            "title": f"item {asin}",
            "description": [sign * (lengths[n] if n < len(lengths) else 150)],
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
            review |= {"text": f"{len(reviews)} ".ljust(length, sign), "timestamp": START + rng.randrange(40)}
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


def history_data(rng: random.Random) -> tuple[list[Record], list[Record]]:
    """Data for the limits of step 9: items that 4 or 5 users have in their histories, users with 7 or 8 reviews there.

    Each plan is a history, oldest first, and ten inputs. Items "four" and "five" have eight users, but four and five
    in the histories; so has "chain" five, until a user without "four" is too small.
    """
    common = [f"c{n:02}" for n in range(30)]
    newest = [f"n{n}" for n in range(10)]
    plans = {f"base{n}": (common, newest) for n in range(10)}
    for n in range(4):
        plans[f"base{n}"] = ([*common, "n0"], [*newest[1:], "four"])
    for n in range(4, 7):
        plans[f"base{n}"] = ([*common, "n0"], [*newest[1:], "five"])
    for n in range(7, 10):
        plans[f"base{n}"] = ([*common, "n0"], [*newest[1:], "chain"])
    plans |= {f"seven{n}": (["four", *common[:7]], newest) for n in range(1)}
    plans |= {f"eight{n}": (["four", *common[:8]], newest) for n in range(2)}
    plans |= {f"five{n}": (["five", *common[:7]], newest) for n in range(5)}
    plans |= {"link": (["four", "chain", *common[:6]], newest)}
    plans |= {f"chain{n}": (["chain", *common[:7]], newest) for n in range(4)}
    reviews: list[Record] = []
    for user, (history, inputs) in plans.items():
        for place, asin in enumerate([*history, *inputs]):
            review = {"user_id": user, "parent_asin": asin, "rating": 5.0, "title": f"t{len(reviews)}"}
            reviews.append(review | {"text": f"{len(reviews)} ".ljust(200, "y"), "timestamp": START + place})
    rng.shuffle(reviews)
    items = [item(asin) | {"description": ["x" * 150]} for asin in [*common, *newest, "four", "five", "chain"]]
    return reviews, items


@pytest.mark.parametrize("seed", range(2))
def test_the_limits_of_the_histories(tmp_path: Path, seed: int) -> None:
    assert assert_same(tmp_path, *history_data(random.Random(seed)), Thresholds())
    frame = pl.read_parquet(tmp_path / "out/Toys/reviews.parquet").filter(role="history")
    sizes = dict(frame.group_by("user_id").len().iter_rows())
    assert {name: size for name, size in sizes.items() if size < 20} == {
        f"{name}{n}": 8 for name, count in (("eight", 2), ("five", 5)) for n in range(count)
    }
    assert frame.filter(pl.col("asin").is_in(["four", "five", "chain"]))["asin"].unique().to_list() == ["five"]


def test_a_dropped_review_does_not_shadow_others(tmp_path: Path) -> None:
    """Newest first: (a, X) stays; (a, Y) repeats the item; (b, Y) stays, for the review that held Y is gone; (c, X)
    repeats the text; (c, Z) stays."""
    chain = [("a", "text X"), ("a", "text Y"), ("b", "text Y"), ("c", "text X"), ("c", "text Z")]
    more = [(f"i{n}", f"text {n}") for n in range(10)]
    pairs = chain + more
    reviews = [
        {
            "user_id": "U",
            "parent_asin": asin,
            "rating": 5.0,
            "title": str(n),
            "text": text,
            "timestamp": START + 100 - n,
        }
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
        {
            "user_id": "U",
            "parent_asin": f"i{n}",
            "rating": 5.0,
            "title": "t",
            "text": f"text {n}",
            "timestamp": START + n,
        }
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
    assert Prepared().categories(tmp_path / "out") == ["Books", "Toys"]


def test_a_category_has_to_be_a_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'\.\./x' cannot be a folder's name"):
        prepare(*good_files(tmp_path), "../x", tmp_path / "out", silent, ALL)


def test_a_failing_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    reviews, items = good_files(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file is not a folder; choose another --out"):
        prepare(reviews, items, "Toys", tmp_path / "file", silent, ALL)


def same_tables(one: Path, two: Path) -> bool:
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in ("reviews.parquet", "items.parquet"))


@pytest.mark.parametrize("seed", range(10))
def test_bad_rows_are_left_out_and_the_rest_equals_the_plain_steps(tmp_path: Path, seed: int) -> None:
    rng = random.Random(f"bad {seed}")
    limits = replace(SMALL, user_reviews_min=11, user_reviews_max=25, history_item_users=2, user_history=1)
    reviews, items = random_data(rng)
    wanted = plain(reviews, items, limits)
    assert wanted.rows
    good = rng.choice(reviews)
    bad = [b"no json", b"[]", b"7", b"null", b"{}", b'{"user_id": "U1", "par', b'"\xff"', json.dumps([good]).encode()]
    wrong: Record
    for wrong in (
        {"user_id": ""},
        {"parent_asin": None},
        {"rating": "four"},
        {"title": ["good"]},
        {"text": {"a": "good"}},
        {"text": 1234567},
        {"timestamp": -1},
    ):
        bad.append(json.dumps(good | wrong).encode())
    bad = rng.sample(bad, rng.randint(1, len(bad)))
    rows = json_lines(reviews, rng).splitlines(keepends=True)
    places = sorted(rng.sample(range(len(rows)), len(bad)), reverse=True)
    for place, line in zip(places, bad, strict=True):
        rows.insert(place, line + rng.choice([b"\n", b"\r\n", b"\n\n"]))
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\n" * (seed % 2) + b"".join(rows))
    item_path = write(tmp_path / "i.jsonl", items)
    with pytest.raises(DataError) as caught:
        prepare(path, item_path, "Toys", tmp_path / "out", silent, limits, max_bad_lines=len(bad) - 1)
    message = str(caught.value)
    assert f"r.jsonl, line {places[-1] + 1 + seed % 2:,}: " in message
    assert f"; {len(bad)} of {len(reviews) + len(bad)} rows are like this or otherwise unusable" in message
    assert f", at most {len(bad) - 1} may be" in message
    assert f"--max-bad-lines {len(bad)}" in message
    assert not (tmp_path / "out").exists()
    said: list[str] = []
    summary = prepare(path, item_path, "Toys", tmp_path / "out", said.append, limits, max_bad_lines=len(bad))
    assert pl.read_parquet(tmp_path / "out/Toys/items.parquet").rows() == wanted.items
    assert pl.read_parquet(tmp_path / "out/Toys/reviews.parquet").rows() == wanted.rows
    assert summary.reviews["reviews in the file"] == len(reviews) + len(bad)
    assert summary.reviews["reviews left out, unusable"] == len(bad)
    assert "items left out, unusable" not in summary.items
    (reason,) = [line for line in said if "the first of them" in line]
    assert f"line {places[-1] + 1 + seed % 2:,}: " in reason


# Interruptions.

HALTING = """
import sys, time
from pathlib import Path
from bench.data.prepare import prepare
from bench.data.thresholds import Thresholds

def progress(message):
    print(message, flush=True)
    if "after the joint k-core" in message:
        time.sleep(120)

reviews, items, out, *limits = sys.argv[1:]
prepare(Path(reviews), Path(items), "Toys", Path(out), progress, Thresholds(*map(int, limits)))
"""


@contextmanager
def halting(reviews: Path, items: Path, out: Path) -> Iterator[None]:
    """Another process, which halts in the joint k-core and is killed after the block."""
    arguments = [str(reviews), str(items), str(out), *map(str, astuple(ALL))]
    process = subprocess.Popen([sys.executable, "-c", HALTING, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        assert any("after the joint k-core" in line for line in process.stdout)
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


READ_BEFORE = ["i.jsonl was read before the interruption", "r.jsonl was read before the interruption"]


def test_a_killed_process_does_not_read_again_what_it_read(tmp_path: Path) -> None:
    raw = good_files(tmp_path)
    first = prepare(*raw, "Toys", tmp_path / "whole", silent, ALL)
    with halting(*raw, tmp_path / "out"):
        pass
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".Toys.unfinished"]
    assert Prepared().categories(tmp_path / "out") == []
    said: list[str] = []
    assert prepare(*raw, "Toys", tmp_path / "out", said.append, ALL) == first
    assert [line for line in said if "interruption" in line] == READ_BEFORE
    assert same_tables(tmp_path / "out/Toys", tmp_path / "whole/Toys")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["Toys"]


def test_two_processes_at_once_are_one_clear_error(tmp_path: Path) -> None:
    raw = good_files(tmp_path)
    with halting(*raw, tmp_path / "out"):
        with pytest.raises(DataError, match=r"another process is preparing .*out/Toys; wait for it or stop it"):
            prepare(*raw, "Toys", tmp_path / "out", silent, ALL)
        assert (tmp_path / "out/.Toys.unfinished/task.json").exists(), "the other one's work is left alone"
        prepare(*raw, "Books", tmp_path / "out", silent, ALL)
    prepare(*raw, "Toys", tmp_path / "out", silent, ALL)
    assert same_tables(tmp_path / "out/Toys", tmp_path / "out/Books")


def interrupt_at(step: str) -> Callable[[str], None]:
    def progress(message: str) -> None:
        if step in message:
            raise KeyboardInterrupt

    return progress


def interrupted(folder: Path, step: str = "reviews after the joint k-core") -> tuple[Path, Path]:
    """Good files, and in "out" what an interruption in preparing them left."""
    raw = good_files(folder)
    with pytest.raises(KeyboardInterrupt):
        prepare(*raw, "Toys", folder / "out", interrupt_at(step), ALL)
    assert (folder / "out/.Toys.unfinished").is_dir()
    return raw


@pytest.mark.parametrize(
    ("step", "found"),
    [
        ("items in the file", READ_BEFORE[:1]),
        ("items with a title", READ_BEFORE[:1]),
        ("reviews in the file", READ_BEFORE),
        ("reviews of kept items", READ_BEFORE),
        ("items after the joint k-core", READ_BEFORE),
        ("reviews after the core of the histories", READ_BEFORE),
    ],
)
def test_an_interruption_keeps_what_was_read(tmp_path: Path, step: str, found: list[str]) -> None:
    raw = interrupted(tmp_path, step)
    said: list[str] = []
    summary = prepare(*raw, "Toys", tmp_path / "out", said.append, ALL)
    assert [line for line in said if "interruption" in line] == found
    assert summary == prepare(*raw, "Toys", tmp_path / "whole", silent, ALL)
    assert same_tables(tmp_path / "out/Toys", tmp_path / "whole/Toys")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["Toys"]


@pytest.mark.parametrize("kind", ["a key twice", "dictionaries", "an odd gzip file", "a table in one"])
def test_a_copy_that_it_took_is_there_after_an_interruption(tmp_path: Path, kind: str) -> None:
    reviews, items = good_files(tmp_path)
    data = reviews.read_bytes()
    if kind == "a key twice":
        reviews.write_bytes(data.replace(b'"title"', b'"title": "first", "title"').replace(b"text 3", b"text\\n3"))
    elif kind == "dictionaries":
        reviews.write_text("".join(f"{json.loads(line)!r}\n" for line in data.splitlines()))
    else:
        reviews = tmp_path / ("r.csv.gz" if "table" in kind else "r.jsonl.gz")
        rows = [json.loads(line) for line in data.splitlines()]
        reviews.write_bytes(gzip.compress(csv_table(rows, random.Random(0)) if "table" in kind else data) + bytes(9))
    with pytest.raises(KeyboardInterrupt):
        prepare(reviews, items, "Toys", tmp_path / "out", interrupt_at("of kept items"), ALL)
    said: list[str] = []
    prepare(reviews, items, "Toys", tmp_path / "out", said.append, ALL)
    assert READ_BEFORE[1].replace("r.jsonl", reviews.name) in said
    prepare(reviews, items, "Toys", tmp_path / "whole", silent, ALL)
    assert same_tables(tmp_path / "out/Toys", tmp_path / "whole/Toys")
    assert "first" not in pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")["title"].to_list()


def test_bad_rows_are_counted_after_an_interruption_too(tmp_path: Path) -> None:
    reviews, items = good_files(tmp_path)
    reviews.write_bytes(b"hello\n" + reviews.read_bytes())
    with pytest.raises(KeyboardInterrupt):
        prepare(reviews, items, "Toys", tmp_path / "out", interrupt_at("of kept items"), ALL, max_bad_lines=1)
    said: list[str] = []
    summary = prepare(reviews, items, "Toys", tmp_path / "out", said.append, ALL, max_bad_lines=1)
    assert READ_BEFORE[1] in said
    assert summary.reviews["reviews left out, unusable"] == 1
    assert "  the first of them: line 1: not valid JSON (Expecting value: line 1 column 1 (char 0))" in said


def test_another_task_starts_anew_after_an_interruption(tmp_path: Path) -> None:
    raw = interrupted(tmp_path)
    written = raw[0].read_bytes()
    said: list[str] = []
    prepare(*raw, "Toys", tmp_path / "other", said.append, ALL)
    assert not any("interruption" in line for line in said), "another folder"
    interrupted(tmp_path)
    raw[0].write_bytes(written.replace(b"text 3", b"text 33"))
    said.clear()
    prepare(*raw, "Toys", tmp_path / "out", said.append, ALL)
    assert not any("interruption" in line for line in said), "another file"
    texts = pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")["text"].to_list()
    assert texts == [f"text {n}" if n != 3 else "text 33" for n in range(11)]


@pytest.mark.parametrize(
    "options",
    [
        {"thresholds": replace(ALL, text_min=2)},
        {"max_bad_lines": 1},
        {"columns": read_column_map("amazon-2023", "title")},
    ],
)
def test_another_way_starts_anew_after_an_interruption(tmp_path: Path, options: dict[str, Any]) -> None:
    raw = interrupted(tmp_path)
    said: list[str] = []
    prepare(*raw, "Toys", tmp_path / "out", said.append, **{"thresholds": ALL} | options)
    assert not any("interruption" in line for line in said)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["Toys"]


def test_a_note_that_was_torn_starts_anew(tmp_path: Path) -> None:
    raw = interrupted(tmp_path)
    (tmp_path / "out/.Toys.unfinished/task.json").write_text('{"files": [["/')
    said: list[str] = []
    prepare(*raw, "Toys", tmp_path / "out", said.append, ALL)
    assert not any("interruption" in line for line in said)


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda data: data.replace(b"text 3", b"text 4"),
    "time": lambda data: data.replace(f"{START + 3}".encode(), f"{START + 5}".encode()),
    "rating": lambda data: data.replace(b"5.0", b"4.0"),
    "order": lambda data: b"".join(data.splitlines(keepends=True)[::-1]),
    "shorter": lambda data: b"".join(data.splitlines(keepends=True)[:-1]),
    "shorter, from the middle": lambda data: data[: len(data) // 2],
    "a line first": lambda data: data.splitlines(keepends=True)[4] + data,
    "a line last": lambda data: data + data.splitlines(keepends=True)[4],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("kind", ["plain.jsonl", "mixed.jsonl", "packed.jsonl.gz", "table.csv"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path, kind: str, change: str) -> None:
    reviews = write(tmp_path / f"r-{kind}", good_data()[0], kind)
    items = write(tmp_path / "i.jsonl", good_data()[1])

    def meddle(message: str) -> None:
        if "reviews of kept items" in message:
            data = gzip.decompress(reviews.read_bytes()) if kind.endswith(".gz") else reviews.read_bytes()
            new = CHANGES[change](data)
            assert new != data
            reviews.write_bytes(gzip.compress(new) if kind.endswith(".gz") else new)

    with pytest.raises(DataError, match=r"r-.* (changed while it was read; run the same command again|is empty)"):
        prepare(reviews, items, "Toys", tmp_path / "out", meddle, ALL)
    assert not (tmp_path / "out").exists()


def test_an_item_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    reviews, items = good_files(tmp_path)

    def meddle(message: str) -> None:
        if "items after the joint k-core" in message:
            items.write_bytes(b"".join(items.read_bytes().splitlines(keepends=True)[::-1]))

    with pytest.raises(DataError, match=r"i\.jsonl changed while it was read; run the same command again"):
        prepare(reviews, items, "Toys", tmp_path / "out", meddle, ALL)
    assert not (tmp_path / "out").exists()


def test_a_file_that_changed_after_an_interruption_though_it_looks_the_same(tmp_path: Path) -> None:
    reviews, items = interrupted(tmp_path)
    status = reviews.stat()
    reviews.write_bytes(CHANGES["text"](reviews.read_bytes()))
    os.utime(reviews, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match=r"r\.jsonl changed while it was read; run the same command again"):
        prepare(reviews, items, "Toys", tmp_path / "out", silent, ALL)
    with pytest.raises(DataError, match=r"nothing is left"):
        prepare(reviews, items, "Toys", tmp_path / "out", silent, ALL)
