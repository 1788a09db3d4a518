"""Raw files as people have them: what is read of each format, what is a bad row, and in which order rows come."""

from __future__ import annotations

import csv
import datetime
import gzip
import json
import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from bench.data.prepare import prepare
from bench.data.raw.columns import read_column_map
from bench.data.thresholds import Thresholds
from bench.errors import DataError

Record = dict[str, Any]
ALL = Thresholds(1, 99, 1, 1, 11, 99, 1, 1)
START = 1_500_000_000_000


def good_reviews() -> list[Record]:
    """One user with eleven reviews, oldest first."""
    return [
        {"user_id": "U", "parent_asin": f"i{n}", "rating": 5.0, "title": "t", "text": f"text {n}"}
        | {"timestamp": START + 1000 * n}
        for n in range(11)
    ]


def good_items() -> list[Record]:
    return [
        {"parent_asin": f"i{n}", "title": "T", "description": ["words"], "categories": ["Toys"], "rating_number": 1}
        for n in range(11)
    ]


def lines(records: Iterable[Record]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def packed(data: bytes) -> bytes:
    """A gzip file of the same bytes at any time: a header holds the clock otherwise."""
    return gzip.compress(data, mtime=0)


def silent(_: str) -> None:
    return None


def prepared_texts(folder: Path, reviews: bytes | Path, items: bytes | Path | None = None, **options: Any) -> list[str]:
    """The texts that are left of the reviews, oldest first; files of bytes are written first."""
    if isinstance(reviews, bytes):
        (folder / "r.jsonl").write_bytes(reviews)
        reviews = folder / "r.jsonl"
    if not isinstance(items, Path):
        (folder / "i.jsonl").write_bytes(lines(good_items()) if items is None else items)
        items = folder / "i.jsonl"
    prepare(reviews, items, "Toys", folder / "out", silent, ALL, **options)
    found: list[str] = pl.read_parquet(folder / "out/Toys/reviews.parquet")["text"].to_list()
    return found


TEXTS = [f"text {n}" for n in range(11)]


# What is no error.


@pytest.mark.parametrize(
    "reviews",
    [
        lines(good_reviews())[:-1],
        lines(good_reviews()).replace(b"\n", b"\r\n"),
        b"\n \n" + lines(good_reviews()).replace(b"\n", b"\n\n\t\r\n"),
        packed(b"") + packed(lines(good_reviews())),
        b"\xef\xbb\xbf" + lines(good_reviews()),
        b"\xef\xbb\xbf\r\n" + lines(good_reviews()),
    ],
    ids=["no last line end", "CRLF", "blank lines", "an empty gzip member", "a BOM", "a BOM on a blank line"],
)
def test_harmless_oddities(tmp_path: Path, reviews: bytes) -> None:
    assert prepared_texts(tmp_path, reviews) == TEXTS


@pytest.mark.parametrize("name", ["r.jsonl.gz", "r.json", "reviews", 'it\'s "all".jsonl', "a b.JSONL", "ré\U0001f600"])
def test_a_file_of_json_lines_may_have_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(lines(good_reviews()))
    assert prepared_texts(tmp_path, path) == TEXTS


def test_a_file_name_is_no_pattern(tmp_path: Path) -> None:
    """Another file is not read because its name fits."""
    path = tmp_path / "r[1]*.jsonl"
    path.write_bytes(lines(good_reviews()))
    (tmp_path / "r1-other.jsonl").write_bytes(lines(good_reviews()))
    (tmp_path / "r[1]-other.jsonl").write_bytes(lines(good_reviews()))
    assert prepared_texts(tmp_path, path) == TEXTS
    folder = tmp_path / "sub[a]{b}?"
    folder.mkdir()
    prepare(path, tmp_path / "i.jsonl", "Toys", folder / "out", silent, ALL)
    assert (folder / "out/Toys/reviews.parquet").exists()


LOOKS_LIKE_JSON = [
    "5",
    "-1.5e3",
    "0",
    "[1]",
    '["a"]',
    "{}",
    '{"a": 1}',
    "true",
    "false",
    "null",
    '"quoted"',
    "NaN",
    "a\0b",
]


@pytest.mark.parametrize("text", LOOKS_LIKE_JSON)
def test_a_text_that_looks_like_a_value_is_a_text(tmp_path: Path, text: str) -> None:
    reviews, items = good_reviews(), good_items()
    reviews[3] |= {"text": text, "title": text, "user_id": "U"}
    items[3] |= {"title": text, "description": [text]}
    assert prepared_texts(tmp_path, lines(reviews), lines(items))[3] == text
    frame = pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")
    assert frame["title"][3] == text
    assert pl.read_parquet(tmp_path / "out/Toys/items.parquet").row(3) == ("i3", text, text)


def test_ids_are_kept_as_they_are(tmp_path: Path) -> None:
    names = ['a"b\\', "é\U0001f600", "007", "[1]", "true", " x ", "null"] + [f"i{n}" for n in range(4)]
    reviews = [
        record | {"parent_asin": name, "user_id": "Ü/1"} for record, name in zip(good_reviews(), names, strict=True)
    ]
    items = [record | {"parent_asin": name} for record, name in zip(good_items(), names, strict=True)]
    assert prepared_texts(tmp_path, lines(reviews), lines(items)) == TEXTS
    frame = pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")
    assert frame["asin"].to_list() == names
    assert set(frame["user_id"]) == {"Ü/1"}


@pytest.mark.parametrize("rating", [1, 4.3, 1.0000000000000002, 5])
def test_ratings_are_read_exactly(tmp_path: Path, rating: float) -> None:
    prepared_texts(tmp_path, lines([record | {"rating": rating} for record in good_reviews()]))
    assert set(pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")["rating"]) == {float(rating)}


@pytest.mark.parametrize("value", ["Toys", ["Toys"], [["Toys", "Cars"]], {"a": "b"}, 7, True, [None]])
def test_categories_of_any_kind_count(tmp_path: Path, value: object) -> None:
    items = [record | {"categories": value} for record in good_items()]
    assert prepared_texts(tmp_path, lines(reviews := good_reviews()), lines(items)) == TEXTS, reviews


@pytest.mark.parametrize("value", ["", [], {}, 0, 0.0, False, None])
def test_categories_without_a_value_do_not(tmp_path: Path, value: object) -> None:
    items = [record | {"categories": value} for record in good_items()[:1]] + good_items()[1:]
    with pytest.raises(DataError, match=r"nothing is left \(.*, 10 reviews of kept items"):
        prepared_texts(tmp_path, lines(good_reviews()), lines(items))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("words", "words"),
        (["more", "words"], "more words"),
        (["Product Description", "words"], "words"),
        (["é\n", '"b"'], 'é\n "b"'),
    ],
)
def test_descriptions_are_joined(tmp_path: Path, value: object, text: str) -> None:
    items = [record | {"description": value} for record in good_items()]
    prepared_texts(tmp_path, lines(good_reviews()), lines(items))
    assert set(pl.read_parquet(tmp_path / "out/Toys/items.parquet")["description"]) == {text}


def test_whole_numbers_for_ids_and_numbers_as_texts(tmp_path: Path) -> None:
    reviews = [
        record | {"user_id": 17, "parent_asin": n, "rating": "4.5", "timestamp": str(record["timestamp"])}
        for n, record in enumerate(good_reviews())
    ]
    items = [record | {"parent_asin": str(n), "rating_number": "3"} for n, record in enumerate(good_items())]
    assert prepared_texts(tmp_path, lines(reviews), lines(items)) == TEXTS
    frame = pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")
    assert frame.select("user_id", "asin", "rating").rows() == [("17", str(n), 4.5) for n in range(11)]
    assert frame["timestamp"].to_list() == [record["timestamp"] for record in good_reviews()]


@pytest.mark.parametrize("twice", ["before", "after"])
def test_of_a_key_that_is_twice_in_a_line_the_last_counts(tmp_path: Path, twice: str) -> None:
    """As for Python's json, which DPL's authors used; also where a line before cannot be used."""
    first = [record | {"text": "first", "title": None, "user_id": "X"} for record in good_reviews()]
    doubled = [
        json.dumps(one)[:-1] + ", " + json.dumps(other)[1:] for one, other in zip(first, good_reviews(), strict=True)
    ]
    rows = [json.dumps(record) for record in good_reviews()[:5]] + doubled[5:]
    rows.insert(0 if twice == "before" else 8, "hello")
    data = "\n".join(rows).encode()
    assert_refused(tmp_path, rf"line {1 if twice == 'before' else 9}: not valid JSON", data)
    items = lines(good_items()).replace(b'"title": "T"', b'"title": "S", "title": "T"')
    assert prepared_texts(tmp_path, data, items, max_bad_lines=1) == TEXTS
    frame = pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")
    assert set(frame.select("user_id", "title").rows()) == {("U", "t")}
    assert set(pl.read_parquet(tmp_path / "out/Toys/items.parquet")["title"]) == {"T"}


DATES = [
    "2015-08-31",
    "2015-08-31 00:00",
    "2015-08-31T00:00:00",
    "08/31/2015 12:00:00 AM",
    "Aug 31, 2015 12:00 am",
    "2015-08-31T00:00:00.000Z",
    "2015-08-31T02:00:00+02:00",
    "2015-08-30 20:00:00 -0400",
    "2015/08/31",
    "08 31, 2015",
    "Aug 31, 2015",
    "August 31, 2015 00:00:00",
    "31 Aug 2015",
    "31 August 2015",
    "31-Aug-2015",
    "08/31/2015",
    "31.08.2015",
    "31/8/2015 00:00",
]


@pytest.mark.parametrize(("kind", "unit"), [("jsonl", "ms"), ("jsonl", "s"), ("csv", "ms"), ("parquet", "s")])
def test_dates(tmp_path: Path, kind: str, unit: str) -> None:
    reviews = [
        good_reviews()[0] | {"parent_asin": f"i{n}", "text": date, "timestamp": date} for n, date in enumerate(DATES)
    ]
    items = lines([good_items()[0] | {"parent_asin": f"i{n}"} for n in range(len(DATES))])
    path = tmp_path / f"r.{kind}"
    if kind == "jsonl":
        path.write_bytes(lines(reviews))
    else:
        (csv_file if kind == "csv" else parquet_file)(path, reviews)
    assert prepared_texts(tmp_path, path, items, columns=read_column_map("", unit=unit)) == DATES
    assert set(pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")["timestamp"]) == {1_440_979_200_000}


@pytest.mark.parametrize(("unit", "month"), [("month-first", 5), ("day-first", 6)])
def test_what_comes_first_in_a_date_is_asked(tmp_path: Path, unit: str, month: int) -> None:
    reviews = lines([record | {"timestamp": "05/06/2015"} for record in good_reviews()])
    assert_refused(tmp_path, r"line 1: .* \(which comes first in it\? --timestamps month-first or", reviews)
    assert prepared_texts(tmp_path, reviews, columns=read_column_map("", unit=unit)) == TEXTS
    (time,) = set(pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")["timestamp"])
    assert time == datetime.datetime(2015, month, 11 - month, tzinfo=datetime.UTC).timestamp() * 1000


# Broken files.


def assert_refused(
    folder: Path, message: str, reviews: bytes | Path, items: bytes | Path | None = None, **options: Any
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepared_texts(folder, reviews, items, **options)
    assert "\n" not in str(caught.value)
    assert not (folder / "out").exists()


def big_gzip() -> bytes:
    rng = random.Random(0)
    return packed(lines([*good_reviews()] + [good_reviews()[0] | {"text": rng.random()} for _ in range(4000)]))


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


GZIPPED = packed(lines(good_reviews()))


def member(data: bytes, flags: int = 0, more: bytes = b"") -> bytes:
    """A gzip file with these flags and fields in its header (RFC 1952)."""
    body = zlib.compress(data, wbits=-15)
    header = bytes([0x1F, 0x8B, 8, flags]) + bytes(4) + b"\0\xff" + more
    return header + body + struct.pack("<II", zlib.crc32(data), len(data))


HEADER_CHECKSUM = struct.pack("<H", zlib.crc32(member(b"", flags=2)[:10]) & 0xFFFF)
ODD_GZIP = {
    "a zero after it": GZIPPED + bytes(1),
    "zeros after it": GZIPPED + bytes(512),
    "zeros between members": packed(lines(good_reviews()[:4])) + bytes(9) + packed(lines(good_reviews()[4:])),
    "a header checksum": member(lines(good_reviews()), 2, HEADER_CHECKSUM),
    "a name": member(lines(good_reviews()), 8, b"r.jsonl\0"),
    "a name and a comment": member(lines(good_reviews()), 24, b"r.jsonl\0some words\0"),
    "an extra field": member(lines(good_reviews()), 4, b"\4\0abcd"),
    "a text flag": member(lines(good_reviews()), 1),
    "a header checksum in the second": packed(lines(good_reviews()[:4]))
    + member(lines(good_reviews()[4:]), 2, HEADER_CHECKSUM),
    "a byte order mark": packed(b"\xef\xbb\xbf" + lines(good_reviews())),
}


@pytest.mark.parametrize("kind", ODD_GZIP)
def test_an_odd_gzip_file(tmp_path: Path, kind: str) -> None:
    """What `gzip -t` takes is read."""
    assert prepared_texts(tmp_path, ODD_GZIP[kind]) == TEXTS


def test_a_bad_row_in_an_odd_gzip_file(tmp_path: Path) -> None:
    odd = member(lines(good_reviews()) + b"hello\n", 16, b"a comment\0")
    assert_refused(tmp_path, r"r\.jsonl, line 12: not valid JSON", odd)
    assert prepared_texts(tmp_path, odd, max_bad_lines=1) == TEXTS


def test_an_odd_gzip_file_that_is_a_table(tmp_path: Path) -> None:
    table = csv_file(tmp_path / "r.csv", good_reviews()).read_bytes()
    (tmp_path / "r.csv.gz").write_bytes(member(table, 16, b"a comment\0") + bytes(20))
    assert prepared_texts(tmp_path, tmp_path / "r.csv.gz") == TEXTS


BROKEN_GZIP = {
    "torn at the end": GZIPPED[:-4],
    "torn in the end": GZIPPED[:-20],
    "torn early": GZIPPED[:30],
    "a header alone": GZIPPED[:10],
    "two bytes": GZIPPED[:2],
    "torn in the middle of much": big_gzip()[:30_000],
    "a wrong checksum": flipped(GZIPPED, len(GZIPPED) - 8),
    "a wrong size": flipped(GZIPPED, len(GZIPPED) - 4),
    "a wrong byte": flipped(GZIPPED, len(GZIPPED) // 2),
    "a wrong first block": flipped(GZIPPED, 10),
    "a wrong byte in much": flipped(big_gzip(), 30_000),
    "something after it": GZIPPED + b"something",
    "a comment and a wrong checksum": flipped(member(lines(good_reviews()), 16, b"a comment\0"), -8),
    "a comment and no end": member(lines(good_reviews()), 16, b"a comment\0")[:-20],
    "a torn second member": GZIPPED + GZIPPED[:40],
}


@pytest.mark.parametrize("kind", BROKEN_GZIP)
@pytest.mark.parametrize("which", ["r", "i"])
def test_a_broken_gzip_file(tmp_path: Path, kind: str, which: str) -> None:
    broken = BROKEN_GZIP[kind]
    files = (broken, None) if which == "r" else (lines(good_reviews()), broken)
    assert_refused(tmp_path, rf"{which}\.jsonl is a broken gzip file .*; fetch it again", *files)


@pytest.mark.parametrize("kind", ["a wrong checksum", "torn in the middle of much"])
def test_a_broken_gzip_file_is_not_made_good_by_leaving_lines_out(tmp_path: Path, kind: str) -> None:
    assert_refused(tmp_path, "is a broken gzip file", BROKEN_GZIP[kind], max_bad_lines=10_000)


EMPTY = {
    "no byte": b"",
    "blank lines": b"\n \n",
    "blank CRLF lines": b"\r\n\r\n",
    "a gzip file of no byte": packed(b""),
    "a gzip file of blank lines": packed(b"\n\n"),
}


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("which", ["r", "i"])
def test_an_empty_file(tmp_path: Path, kind: str, which: str) -> None:
    data = EMPTY[kind]
    files = (data, None) if which == "r" else (lines(good_reviews()), data)
    assert_refused(tmp_path, rf"{which}\.jsonl is empty; give a file that has a row for each", *files)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "none.jsonl"
    assert_refused(tmp_path, r"none\.jsonl cannot be read \(No such file.*give the path", missing)
    assert_refused(tmp_path, r"none\.jsonl cannot be read \(No such file.*give the path", b"{}", missing)


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    assert_refused(tmp_path, r"cannot be read \(it is a folder or a pipe\); give the path of a file", tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (json.dumps(good_reviews()).encode(), "line 1: not a JSON object; no row is usable"),
        (json.dumps(good_reviews(), indent=1).encode(), "line 1: not valid JSON .*; no row is usable"),
        (lines(good_reviews()).replace(b"\n", b"\r"), "line 1: not valid JSON .*; no row is usable"),
        (lines(good_reviews()).decode().encode("utf-16"), "line 1: not valid JSON .*; no row is usable"),
        (b"PK\x03\x04" + bytes(range(256)), "line 1: not valid JSON .*; no row is usable"),
    ],
    ids=["one array", "indented", "CR alone", "UTF-16", "a zip file"],
)
def test_another_kind_of_file(tmp_path: Path, data: bytes, message: str) -> None:
    assert_refused(tmp_path, message, data)
    assert_refused(tmp_path, message, data, max_bad_lines=10_000)


@pytest.mark.parametrize("name", ["user_id", "parent_asin", "rating", "title", "text", "timestamp"])
@pytest.mark.parametrize("value", ["missing", None])
def test_a_column_that_no_review_has(tmp_path: Path, name: str, value: str | None) -> None:
    field = "asin" if name == "parent_asin" else name
    records = [{k: v for k, v in r.items() if k != name} | ({} if value else {name: None}) for r in good_reviews()]
    message = f"r.jsonl: no row has a value for '{name}'; say which column .* --map {field}=COLUMN"
    assert_refused(tmp_path, message + (", or .* --map title=$" if name == "title" else ""), lines(records))


@pytest.mark.parametrize("name", ["title", "description", "categories", "rating_number"])
def test_a_column_that_no_item_has(tmp_path: Path, name: str) -> None:
    items = [{key: value for key, value in record.items() if key != name} for record in good_items()]
    message = rf"i\.jsonl: no row has a value for '{name}'; .*--map items\.{name}=COLUMN, or .* --map items\.{name}=$"
    assert_refused(tmp_path, message, lines(good_reviews()), lines(items))


# Bad rows.


def inserted(line: bytes, records: list[Record]) -> bytes:
    """Good lines and a bad one, which is the third; before it is a blank one, so its number is 4."""
    good = [lines([record]) for record in records]
    return b"".join([*good[:2], b"\n", line + b"\n", *good[2:]])


def changed(**values: Any) -> bytes:
    return json.dumps(good_reviews()[2] | values).encode()


def changed_item(**values: Any) -> bytes:
    return json.dumps(good_items()[2] | values).encode()


def replaced(old: str, new: str) -> bytes:
    assert old in changed().decode()
    return changed().decode().replace(old, new).encode("utf-8", "surrogateescape")


TIME = "'timestamp' is not a time in milliseconds between 1990 and 2100 but "
NO_ID = "is not a text of at least one character but "
DEEP = b'{"user_id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BAD_REVIEWS: list[tuple[bytes, str]] = [
    (b"hello", "not valid JSON"),
    (b"[1]", "not a JSON object"),
    (b"5", "not a JSON object"),
    (b"null", "not a JSON object"),
    (b'"a"', "not a JSON object"),
    (b"{}", "it has no value for any of user_id, parent_asin, rating, title, text, timestamp"),
    (b'{"a": 1}', "it has no value for any of user_id"),
    (b'{"user_id": "U", "par', "not valid JSON"),
    (b"\0", "not valid JSON"),
    (changed() + changed(), "not valid JSON .Extra data"),
    (changed() + b" x", "not valid JSON .Extra data"),
    (changed(rating="five")[:-1] + b",}", "'rating' is not a rating of 0.5 to 5 but \"five\""),
    (b"[" * 100_000, "not valid JSON"),
    (DEEP, ""),
    (replaced("text 2", "text \udcff"), "not valid JSON .'utf-8' codec"),
    (replaced("text 2", "text \0"), "not valid JSON"),
    (changed(text="\ud83d"), "not valid JSON .it holds half a character"),
    (changed(user_id=None), f"'user_id' {NO_ID}missing"),
    (changed(user_id=""), f"'user_id' {NO_ID}\"\""),
    (changed(user_id=5.5), f"'user_id' {NO_ID}5.5"),
    (changed(user_id=["a"]), rf"'user_id' {NO_ID}\[\"a\"\]"),
    (changed(parent_asin=""), f"'parent_asin' {NO_ID}\"\""),
    (changed(parent_asin=True), f"'parent_asin' {NO_ID}true"),
    (changed(rating="five"), "'rating' is not a rating of 0.5 to 5 but \"five\""),
    (changed(rating="5_0"), "'rating' is not a rating of 0.5 to 5 but \"5_0\""),
    (changed(rating="nan"), "'rating' is not a rating of 0.5 to 5 but \"nan\""),
    (changed(rating=" "), "'rating' is not a rating of 0.5 to 5 but \" \""),
    (changed(rating=""), "'rating' is not a rating of 0.5 to 5 but \"\""),
    (changed(rating=float("nan")), "'rating' is not a rating of 0.5 to 5 but NaN"),
    (changed(rating=float("-inf")), "'rating' is not a rating of 0.5 to 5 but -Infinity"),
    (replaced("5.0", "1e999"), "'rating' is not a rating of 0.5 to 5 but 1e999"),
    (replaced("5.0", "9" * 5000), "'rating' is not a rating of 0.5 to 5"),
    (changed(rating=True), "'rating' is not a rating of 0.5 to 5 but true"),
    (changed(rating=[5]), r"'rating' is not a rating of 0.5 to 5 but \[5\]"),
    (changed(rating={"a": 1}), "'rating' is not a rating of 0.5 to 5 but {"),
    (changed(timestamp="2020-01-32"), f'{TIME}"2020-01-32"'),
    (changed(timestamp="2120-01-01"), f'{TIME}"2120-01-01"'),
    (changed(timestamp="soon"), f'{TIME}"soon"'),
    (changed(timestamp="08/31/15"), f'{TIME}"08/31/15"'),
    (changed(timestamp="05/06/2015"), rf'{TIME}"05/06/2015" \(which comes first in it\? --timestamps month-first or'),
    (changed(timestamp="5.6.2015 10:00"), f'{TIME}"5.6.2015 10:00" .which comes first'),
    (changed(timestamp=f"{START}.5"), f'{TIME}"{START}.5"'),
    (changed(timestamp=float("nan")), f"{TIME}NaN"),
    (changed(timestamp=float("inf")), f"{TIME}Infinity"),
    (changed(timestamp="nan"), f'{TIME}"nan"'),
    (changed(timestamp=f"{START // 1000}"), f'{TIME}"{START // 1000}" .*--timestamps s'),
    (changed(timestamp=START + 0.5), f"{TIME}{START}.5"),
    (changed(timestamp=-5), f"{TIME}-5"),
    (changed(timestamp=START // 1000), f"{TIME}{START // 1000} .*--timestamps s"),
    (changed(timestamp=32_503_680_000_000), f"{TIME}32503680000000"),
    (changed(timestamp=10**30), f"{TIME}1000"),
    (changed(timestamp=True), f"{TIME}true"),
    (changed(timestamp=[START]), rf"{TIME}\["),
]
for name in ("title", "text"):
    for value in (["a"], [], {}, {"a": "b"}, 5, 0, -3, 1.5, 1e300, True, False, [["a"]]):
        BAD_REVIEWS.append((changed(**{name: value}), f"'{name}' is not a text but "))
LIST = "'description' is not a text or a list of texts but "
BAD_ITEMS: list[tuple[bytes, str]] = [
    (b"hello", "not valid JSON"),
    (b"{}", "it has no value for any of parent_asin, title, description, categories, rating_number"),
    (changed_item(parent_asin=None), f"'parent_asin' {NO_ID}missing"),
    (changed_item(title=["T"]), r"'title' is not a text but \[\"T\"\]"),
    (changed_item(title=4), "'title' is not a text but 4"),
    (changed_item(description=5), f"{LIST}5"),
    (changed_item(description={"a": 1}), f"{LIST}{{"),
    (changed_item(description=["words", None]), rf"{LIST}\[\"words\","),
    (changed_item(description=["words", 5]), rf"{LIST}\["),
    (changed_item(description=[["words"]]), rf"{LIST}\["),
    (changed_item(rating_number="3+"), "'rating_number' is not a finite number but \"3\\+\""),
    (changed_item(rating_number=float("nan")), "'rating_number' is not a finite number but NaN"),
    (changed_item(rating_number=[3]), r"'rating_number' is not a finite number but \[3\]"),
]


@pytest.mark.parametrize(
    ("which", "line", "message"), [("r", *c) for c in BAD_REVIEWS] + [("i", *c) for c in BAD_ITEMS]
)
def test_a_bad_row(tmp_path: Path, which: str, line: bytes, message: str) -> None:
    """Is an error that names it, or is left out; other rows are what they were."""
    bad = inserted(line, good_reviews() if which == "r" else good_items())
    files = (bad, None) if which == "r" else (lines(good_reviews()), bad)
    count = "; 1 of 12 rows are like this or otherwise unusable, at most 0 may be: correct the file"
    assert_refused(tmp_path, rf"(?s){which}\.jsonl, line 4: {message}.*{count}", *files)
    assert prepared_texts(tmp_path, *files, max_bad_lines=1) == TEXTS


def test_lines_of_white_space_alone_are_blank(tmp_path: Path) -> None:
    """Form feeds and the like are white space for one reader and an error for another: their count must not differ."""
    for n, blank in enumerate([b"\x0b", b"\x0c", b"\x0c \t", b"\xc2\xa0", b"\x1c"]):
        folder = tmp_path / str(n)
        folder.mkdir()
        assert_refused(folder, r"line (4|5): .*", inserted(blank + b"\n{}", good_reviews()))


def test_how_many_bad_rows_there_are_is_said_first(tmp_path: Path) -> None:
    reviews = lines(good_reviews()) + b"hello\n" * 3 + changed(rating="five") + b"\n"
    message = r"line 12: not valid JSON .*; 4 of 15 rows are .*, at most 2 may be: correct .* --max-bad-lines 4$"
    assert_refused(tmp_path, message, reviews, max_bad_lines=2)
    assert prepared_texts(tmp_path, reviews, max_bad_lines=4) == TEXTS


def test_times_in_another_unit_are_an_error_that_says_so(tmp_path: Path) -> None:
    seconds = lines([record | {"timestamp": record["timestamp"] // 1000} for record in good_reviews()])
    assert_refused(
        tmp_path, r"line 1: .* \(in the other unit\? --timestamps s\); no row is usable, at most 0 may be", seconds
    )
    assert prepared_texts(tmp_path, seconds, columns=read_column_map("", unit="s")) == TEXTS
    times = pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")["timestamp"].to_list()
    assert times == [record["timestamp"] for record in good_reviews()]
    (tmp_path / "ms").mkdir()
    message = r"line 1: 'timestamp' is not a time in seconds .*\(in the other unit\? --timestamps ms\)"
    assert_refused(tmp_path / "ms", message, lines(good_reviews()), columns=read_column_map("", unit="s"))


def test_one_column_may_hold_two_fields(tmp_path: Path) -> None:
    columns = read_column_map("amazon-2023,items.title=parent_asin,title=text")
    assert prepared_texts(tmp_path, lines(good_reviews()), columns=columns) == TEXTS
    assert pl.read_parquet(tmp_path / "out/Toys/items.parquet")["title"].to_list() == [f"i{n}" for n in range(11)]
    assert pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")["title"].to_list() == TEXTS


# CSV.


def csv_file(path: Path, records: list[Record], **options: Any) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]), **options)
        writer.writeheader()
        writer.writerows(records)
    return path


def csv_items(path: Path) -> Path:
    return csv_file(path, [item | {"description": "words", "categories": "Toys"} for item in good_items()])


@pytest.mark.parametrize("options", [{}, {"quoting": csv.QUOTE_ALL}, {"lineterminator": "\n"}, {"delimiter": ";"}])
def test_csv(tmp_path: Path, options: dict[str, Any]) -> None:
    odd = ["a, b; c", 'a "b"', "a\nb", '"', "[1]", "true", "-1", "é\U0001f600", " a ", "'a", "a\\"]
    wanted = ["a, b; c", 'a "b"', "a b", '"', "[1]", "true", "-1", "é\U0001f600", "a", "'a", "a\\"]
    reviews = [record | {"text": text} for record, text in zip(good_reviews(), odd, strict=True)]
    path = csv_file(tmp_path / "r.csv", reviews, **options)
    assert prepared_texts(tmp_path, path, csv_items(tmp_path / "i.csv")) == wanted


def test_a_table_with_tabs(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "r.tsv", good_reviews(), delimiter="\t")
    assert prepared_texts(tmp_path, path, csv_items(tmp_path / "i.csv")) == TEXTS


def table(records: list[Record], ending: str = "\n") -> str:
    """A table with tabs and no quotes, as the public dumps are."""
    rows = [list(records[0]), *([str(value) for value in record.values()] for record in records)]
    return "".join("\t".join(row) + ending for row in rows)


@pytest.mark.parametrize("name", ["r.tsv", "r.TSV", "r.tsv.gz", "r.csv"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_table_without_quotes(tmp_path: Path, name: str, ending: str) -> None:
    odd = ['"opens', 'closes"', '"Wow" it is', '""', '"', 'a "b" c', "it's", '"all"', "text 8", "a\\", '"\\"']
    reviews = [record | {"text": text, "title": text} for record, text in zip(good_reviews(), odd, strict=True)]
    data = table(reviews, ending).encode("utf-8-sig")
    path = tmp_path / name
    path.write_bytes(packed(data) if name.endswith(".gz") else data)
    columns = read_column_map("", quoting="none" if name == "r.csv" else "")
    assert prepared_texts(tmp_path, path, columns=columns) == odd
    assert pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")["title"].to_list() == odd


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_table_with_carriage_returns_in_it(tmp_path: Path, ending: str) -> None:
    reviews = [record | {"text": f"a\rb {n}\r"} for n, record in enumerate(good_reviews())]
    (tmp_path / "r.tsv").write_bytes(table(reviews, ending).encode())
    assert prepared_texts(tmp_path, tmp_path / "r.tsv") == [f"a b {n}" for n in range(11)]


def test_a_table_with_tabs_and_quotes(tmp_path: Path) -> None:
    reviews = [record | {"text": f'"b"\n{n}'} for n, record in enumerate(good_reviews())]
    path = csv_file(tmp_path / "r.tsv", reviews, delimiter="\t", lineterminator="\n")
    assert_refused(tmp_path, r"r\.tsv, line \d+: .*; are its values quoted\? --quoting double", path)
    wanted = [f'"b" {n}' for n in range(11)]
    assert prepared_texts(tmp_path, path, columns=read_column_map("", quoting="double")) == wanted
    (tmp_path / "some").mkdir()
    reviews = [record | {"text": f'a "{n}"'} for n, record in enumerate(good_reviews())]
    csv_file(path, reviews, delimiter="\t")
    assert_refused(tmp_path / "some", r'seem to be quoted, such as "a ""0""".; say --quoting double if they', path)
    wanted = [f'"a ""{n}"""' for n in range(11)]
    assert prepared_texts(tmp_path / "some", path, columns=read_column_map("", quoting="none")) == wanted
    (tmp_path / "all").mkdir()
    csv_file(path, good_reviews(), delimiter="\t", quoting=csv.QUOTE_ALL)
    assert_refused(tmp_path / "all", r"its column names are quoted; say .* --quoting double$", path)


@pytest.mark.parametrize(
    ("separator", "column", "opens", "closes"),
    [
        ("\t", "title", 3, 4),
        (",", "text", 2, 9),
        (",", "other", 0, 1),
        ("|", "text", 9, 10),
        (";", "last", 3, 4),
        ("\t", "last", 0, 9),
    ],
)
def test_a_quotation_mark_that_swallows_lines(
    tmp_path: Path, separator: str, column: str, opens: int, closes: int
) -> None:
    """Is an error, though what is left looks like rows; however many bad rows there may be."""
    reviews = [{"other": "x"} | record | {"last": "y"} for record in good_reviews()]
    reviews[opens] |= {column: '"Wow'}
    reviews[closes] |= {column: 'So it is"'}
    path = tmp_path / "r.csv"
    path.write_text(table(reviews).replace("\t", separator))
    message = (
        r"r\.csv cannot be read .*a quotation mark that quotes nothing swallows .*: Wow.*; correct .*--quoting none"
    )
    assert_refused(tmp_path, message, path, max_bad_lines=100)


def test_a_quotation_mark_that_swallows_lines_up_to_another_column(tmp_path: Path) -> None:
    reviews = good_reviews()
    reviews[3] |= {"title": '"Wow'}
    reviews[7] |= {"text": 'So it is"'}
    path = tmp_path / "r.csv"
    path.write_text(table(reviews).replace("\t", ","))
    assert_refused(tmp_path, r"r\.csv, line 5: .*; correct the quotation marks", path, max_bad_lines=100)


def test_a_text_of_several_lines_with_separators_is_a_text(tmp_path: Path) -> None:
    odd = ["a,b\nc,d", "one, two\nU, i1, 5.0, so,", ",\n,,,,", "a, 5\nb", '"q", 5\n', "1,2,3,4,5,6\n1,2,3,4,5,6"]
    reviews = [record | {"text": odd[n % 6] + f" {n}"} for n, record in enumerate(good_reviews())]
    path = csv_file(tmp_path / "r.csv", reviews)
    assert prepared_texts(tmp_path, path) == [" ".join(record["text"].split()) for record in reviews]


def test_a_csv_cell_may_hold_a_list(tmp_path: Path) -> None:
    items = [item | {"description": '["more", "words"]', "categories": '["Toys"]'} for item in good_items()]
    items[0]["description"] = "[sic] words"
    assert prepared_texts(tmp_path, lines(good_reviews()), csv_file(tmp_path / "i.csv", items)) == TEXTS
    found = pl.read_parquet(tmp_path / "out/Toys/items.parquet")["description"].to_list()
    assert found == ["[sic] words"] + ["more words"] * 10


def test_an_empty_list_in_a_csv_cell_is_none(tmp_path: Path) -> None:
    items = [item | {"description": "words", "categories": "[]"} for item in good_items()]
    assert_refused(
        tmp_path, "nothing is left .*11 items in the file", lines(good_reviews()), csv_file(tmp_path / "i.csv", items)
    )


def test_a_csv_file_lacks_a_column(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "r.csv", [{k: v for k, v in record.items() if k != "text"} for record in good_reviews()])
    message = r"r\.csv: no row has a value for 'text', which has: user_id, .*timestamp; .*asin=parent_asin,text=COLUMN$"
    assert_refused(tmp_path, message, path)


@pytest.mark.parametrize("data", [b"", b"\n\n"])
def test_an_empty_csv_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "r.csv").write_bytes(data)
    assert_refused(tmp_path, r"r\.csv(:| is empty| cannot be read)", tmp_path / "r.csv")


def test_a_csv_file_with_a_header_alone(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(",".join(good_reviews()[0]) + "\n")
    assert_refused(tmp_path, r"r\.csv has columns and no row; give a file that has a row for each", tmp_path / "r.csv")


@pytest.mark.parametrize(
    "row",
    [
        "U,i1,5.0,t,text,1500000000000,more",
        "U,i1,5.0,t,a,b,c,d,1500000000000",
        "U,i1,5.0",
        "U,i1,five,t,text,1500000000000",
        "U,i1,nan,t,text,1500000000000",
        "U,i1,5.0,t,text,1500000000",
        ",i1,5.0,t,text,1500000000000",
        ",,,,,",
    ],
)
def test_a_bad_csv_row(tmp_path: Path, row: str) -> None:
    path = csv_file(tmp_path / "r.csv", good_reviews(), lineterminator="\n")
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows[:3], row, *rows[3:]]) + "\n")
    assert_refused(tmp_path, r"r\.csv, (line 4|row 3 after the header): .*; 1 of 12 rows are .*0 may be", path)
    assert prepared_texts(tmp_path, path, max_bad_lines=1) == TEXTS


@pytest.mark.parametrize("row", ['U,i1,5.0,t,"a" b,1500000000000', 'U,i1,5.0,t,"text,1500000000000'])
@pytest.mark.parametrize("place", [1, 4, 12])
def test_a_csv_file_with_a_broken_quote(tmp_path: Path, row: str, place: int) -> None:
    """Is refused, however many bad rows there may be: how many rows the quote swallowed is not known."""
    path = csv_file(tmp_path / "r.csv", good_reviews(), lineterminator="\n")
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows[:place], row, *rows[place:]]) + "\n")
    for allowed in (0, 100):
        message = rf"r\.csv, line {place + 1}: .*quote.*; correct the quotation marks"
        assert_refused(tmp_path, message, path, max_bad_lines=allowed)


@pytest.mark.parametrize("text", ["a, b", 'a "b"', "a\nb"])
def test_a_csv_file_whose_first_rows_have_no_quotes(tmp_path: Path, text: str) -> None:
    """How the first rows look does not settle how the others are read."""
    padding = [good_reviews()[0] | {"user_id": "V", "text": f"text {n}"} for n in range(25_000)]
    reviews = [record | {"text": f"{text} {n}"} for n, record in enumerate(good_reviews())]
    path = csv_file(tmp_path / "r.csv", [*padding, *reviews])
    assert prepared_texts(tmp_path, path) == [f"{' '.join(text.split())} {n}" for n in range(11)]


def test_a_csv_file_with_a_very_long_line(tmp_path: Path) -> None:
    reviews = good_reviews()
    reviews[3]["text"] = "long " * 2_000_000
    assert prepared_texts(tmp_path, csv_file(tmp_path / "r.csv", reviews))[3] == reviews[3]["text"].strip()


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_table_in_utf_16(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"r.{kind}"
    path.write_bytes(table(good_reviews()).encode("utf-16"))
    assert_refused(tmp_path, rf"r\.{kind} is UTF-16; save it as UTF-8", path)


def test_a_csv_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "r.csv", good_reviews())
    path.write_bytes(path.read_bytes().replace(b"text 3", b"text \xff"))
    assert_refused(tmp_path, r"r\.csv", path)


# Parquet.


def parquet_file(path: Path, records: list[Record], **types: pa.DataType) -> Path:
    table = pa.Table.from_pylist(records)
    for name, kind in types.items():
        place = table.schema.get_field_index(name)
        column = table.column(name)
        if pa.types.is_timestamp(kind):
            column = column.cast(pa.timestamp("ms"))
        table = table.set_column(place, name, column.cast(kind))
    pq.write_table(table, path)
    return path


def test_parquet(tmp_path: Path) -> None:
    files = parquet_file(tmp_path / "r.parquet", good_reviews()), parquet_file(tmp_path / "i.pq", good_items())
    assert prepared_texts(tmp_path, *files) == TEXTS
    files[0].write_bytes(files[0].read_bytes()[:-100])
    (tmp_path / "torn").mkdir()
    message = r"r\.parquet cannot be read \(.*\); give a file of JSON lines, CSV or Parquet"
    assert_refused(tmp_path / "torn", message, files[0], files[1])


@pytest.mark.parametrize(
    "types",
    [
        {"text": pa.large_string(), "title": pa.dictionary(pa.int32(), pa.string())},
        {"timestamp": pa.timestamp("ms")},
        {"timestamp": pa.timestamp("us")},
        {"timestamp": pa.timestamp("ns")},
        {"timestamp": pa.timestamp("ms", tz="UTC")},
        {"timestamp": pa.timestamp("us", tz="America/New_York")},
        {"timestamp": pa.timestamp("ns", tz="UTC")},
        {"timestamp": pa.timestamp("ns", tz="Asia/Tokyo")},
        {"timestamp": pa.timestamp("s")},
        {"timestamp": pa.timestamp("s", tz="UTC")},
        {"timestamp": pa.string()},
        {"rating": pa.string()},
        {"timestamp": pa.float64()},
        {"timestamp": pa.uint64()},
        {"rating": pa.int8()},
        {"rating": pa.float32()},
        {"rating": pa.decimal128(5, 2)},
        {"user_id": pa.dictionary(pa.int8(), pa.string())},
    ],
    ids=str,
)
def test_parquet_types(tmp_path: Path, types: dict[str, pa.DataType]) -> None:
    path = parquet_file(tmp_path / "r.parquet", good_reviews(), **types)
    assert prepared_texts(tmp_path, path) == TEXTS
    frame = pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")
    assert frame["timestamp"].to_list() == [record["timestamp"] for record in good_reviews()]
    assert frame["rating"].to_list() == [5.0] * 11


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_parquet_times_do_not_depend_on_where_one_is(tmp_path: Path, zone: str) -> None:
    path = parquet_file(tmp_path / "r.parquet", good_reviews(), timestamp=pa.timestamp("ms", tz="UTC"))
    (tmp_path / "i.jsonl").write_bytes(lines(good_items()))
    code = (
        "import sys; from pathlib import Path\n"
        "from bench.data.prepare import prepare; from bench.data.thresholds import Thresholds\n"
        "files = map(Path, sys.argv[1:3])\n"
        f"prepare(*files, 'Toys', Path(sys.argv[3]), print, Thresholds{(1, 99, 1, 1, 11, 99, 1, 1)})"
    )
    arguments = [str(path), str(tmp_path / "i.jsonl"), str(tmp_path / "out")]
    subprocess.run([sys.executable, "-c", code, *arguments], env=os.environ | {"TZ": zone}, check=True)
    frame = pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")
    assert frame["timestamp"].to_list() == [record["timestamp"] for record in good_reviews()]


def test_parquet_dates_and_numbers_for_ids(tmp_path: Path) -> None:
    days = [datetime.date(2017, 7, 1 + n) for n in range(11)]
    reviews = [
        record | {"user_id": 17, "parent_asin": n, "timestamp": day}
        for n, (record, day) in enumerate(zip(good_reviews(), days, strict=True))
    ]
    items = [record | {"parent_asin": n} for n, record in enumerate(good_items())]
    files = parquet_file(tmp_path / "r.parquet", reviews), parquet_file(tmp_path / "i.parquet", items)
    assert prepared_texts(tmp_path, *files) == TEXTS
    frame = pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")
    assert frame.select("user_id", "asin").rows() == [("17", str(n)) for n in range(11)]
    assert frame["timestamp"][0] == 1_498_867_200_000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": 5}, r"r\.parquet: column 'text' holds BIGINT, not texts"),
        ({"title": ["a"]}, r"row 1: 'title' is not a text but \[.*; no row is usable"),
        ({"rating": "five"}, "row 1: 'rating' is not a rating of 0.5 to 5 but .*; no row is usable"),
        ({"rating": float("inf")}, "row 1: 'rating' is not a rating of 0.5 to 5 but .*; no row is usable"),
        ({"timestamp": float("nan")}, "row 1: 'timestamp' is not a time in milliseconds .*; no row is usable"),
        ({"timestamp": -1e300}, "row 1: 'timestamp' is not a time in milliseconds .*; no row is usable"),
        ({"timestamp": 1_500_000_000_000_000_000}, r"'timestamp' is not .* \(in nanoseconds\? give milli.*"),
        ({"rating": True}, "row 1: 'rating' is not a rating of 0.5 to 5 but .*; no row is usable"),
        ({"rating": float("nan")}, "row 1: 'rating' is not a rating of 0.5 to 5 but .*; no row is usable"),
        ({"timestamp": "2020"}, "row 1: 'timestamp' is not a time in milliseconds .*; no row is usable"),
        ({"user_id": 5.5}, "row 1: 'user_id' is not a text of at least one character but .*; no row is usable"),
        ({"user_id": [5]}, "row 1: 'user_id' is not a text of at least one character but .*; no row is usable"),
        ({"user_id": {"a": 5}}, "row 1: 'user_id' is not a text of at least one character but .*; no row is usable"),
        ({"user_id": None}, "'user_id'"),
        ({"rating": None}, r"r\.parquet: no row has a value for 'rating'.*--map rating=COLUMN"),
        ({"text": None}, r"'text'.*"),
    ],
    ids=str,
)
def test_a_parquet_column_of_a_wrong_type(tmp_path: Path, values: Record, message: str) -> None:
    path = parquet_file(tmp_path / "r.parquet", [record | values for record in good_reviews()])
    assert_refused(tmp_path, message, path)


def test_a_parquet_column_is_missing(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(good_reviews())
    pq.write_table(table.drop_columns(["text"]), tmp_path / "r.parquet")
    message = r"no row has a value for 'text', which has: user_id, parent_asin, rating, title, timestamp; .*,text=COL"
    assert_refused(tmp_path, message, tmp_path / "r.parquet")


@pytest.mark.parametrize("name", ["user_id", "rating", "title", "text", "timestamp"])
def test_a_missing_value_in_parquet(tmp_path: Path, name: str) -> None:
    """A null is a missing value; only without a user or an item is a row unusable."""
    records = good_reviews()
    records.append(records[0] | {"text": "one more", name: None})
    path = parquet_file(tmp_path / "r.parquet", records)
    if name == "user_id":
        assert_refused(tmp_path, "row 12: 'user_id' is not a text of at least one character but .*; 1 of 12 rows", path)
    assert prepared_texts(tmp_path, path, max_bad_lines=int(name == "user_id")) == TEXTS


# Order, with several threads.


def many_records(blank: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Lines of 300,000 reviews of one moment, 100 MB, and each user with its texts in the order of the file."""
    rng = random.Random(0)
    pairs = [(user, item) for user in range(3000) for item in range(100)]
    rng.shuffle(pairs)
    padding = "x" * 200
    rows = [
        f'{{"user_id": "U{user:04}", "parent_asin": "i{item}", "rating": 5.0, "title": "t", "text": "{n}", '
        f'"timestamp": {START}, "more": "{padding}"}}\n'
        for n, (user, item) in enumerate(pairs)
    ]
    rows.insert(1, "\n" * blank)
    return rows, sorted(((f"U{user:04}", str(n)) for n, (user, _) in enumerate(pairs)), key=lambda row: row[0])


@pytest.mark.parametrize("kind", ["plain", "blank lines", "csv", "parquet"])
def test_ties_keep_the_order_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})  # four threads, on any machine
    rows, wanted = many_records(int(kind == "blank lines"))
    path = tmp_path / {"csv": "r.csv", "parquet": "r.parquet"}.get(kind, "r.jsonl")
    if kind in ("csv", "parquet"):
        table = pl.read_ndjson("".join(rows).encode()).drop("more" if kind == "parquet" else []).to_arrow()
        if kind == "csv":
            pyarrow.csv.write_csv(table, path)
        else:
            pq.write_table(table, path, row_group_size=5000)
    else:
        path.write_text("".join(rows))
    items = [item | {"parent_asin": f"i{n}"} for n in range(100) for item in good_items()[:1]]
    (tmp_path / "i.jsonl").write_bytes(lines(items))
    limits = Thresholds(1, 99, 1, 1, 11, 100, 1, 1)
    prepare(path, tmp_path / "i.jsonl", "Toys", tmp_path / "out", silent, limits)
    path.unlink()
    frame = pl.read_parquet(tmp_path / "out/Toys/reviews.parquet")
    assert frame.select("user_id", "text").rows() == wanted
