"""Files that name their columns in another way, or lack some: what a mapping says, and what is read by it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from bench.data.manifest import Manifest, Summary
from bench.data.prepare import prepare
from bench.data.raw.columns import COLUMN_MAPS, read_column_map
from bench.data.thresholds import Thresholds
from bench.errors import ConfigError, DataError

Record = dict[str, Any]
ALL = Thresholds(4, 9, 1, 1, 11, 99, 1, 1)
START = 1_300_000_000

# What a mapping says.


def test_without_a_mapping_the_layout_is_that_of_2023() -> None:
    assert read_column_map("") == COLUMN_MAPS["amazon-2023"]
    assert read_column_map("amazon-2014") == COLUMN_MAPS["amazon-2014"]
    assert read_column_map("amazon-2018").seconds


def test_columns_after_a_name_change_its_layout() -> None:
    layout = read_column_map(" amazon-2018, text = body ,items.title=name".replace(" = ", "="))
    assert dict(layout.columns) == {**COLUMN_MAPS["amazon-2018"].columns, "text": "body", "items.title": "name"}
    assert (layout.seconds, layout.missing) == (True, frozenset({"items.rating_number"}))


def test_columns_alone_leave_the_others_with_their_own_names() -> None:
    layout = read_column_map("user_id=author,asin=isbn,items.asin=isbn", "title,items.categories", "s")
    assert layout.columns["user_id"] == "author"
    assert layout.columns["items.asin"] == "isbn"
    assert layout.columns["text"] == "text"
    assert layout.columns["items.description"] == "description"
    assert (layout.seconds, layout.missing) == (True, frozenset({"title", "items.categories"}))


def test_a_column_may_hold_any_sign_but_a_comma() -> None:
    assert read_column_map("text=the = text").columns["text"] == "the = text"


def test_a_field_without_a_column_may_be_missing() -> None:
    layout = read_column_map("amazon-2018,title=,items.description=")
    assert (layout.columns["title"], layout.columns["items.description"]) == ("", "")
    assert layout.missing == {"title", "items.description", "items.rating_number"}


def test_the_items_name_their_item_as_the_reviews_do() -> None:
    assert read_column_map("asin=isbn").columns["items.asin"] == "isbn"
    assert read_column_map("asin=isbn,items.asin=id").columns["items.asin"] == "id"
    assert read_column_map("items.asin=id,asin=isbn").columns["items.asin"] == "id"


@pytest.mark.parametrize("unit", ["s", "ms", None])
def test_the_unit_of_times(unit: str | None) -> None:
    assert read_column_map("", unit=unit).seconds == (unit == "s")
    assert read_column_map("amazon-2018", unit=unit).seconds == (unit != "ms")


@pytest.mark.parametrize(
    ("mapping", "missing", "message"),
    [
        ("amazon-2032", "", r"--map: there is no layout 'amazon-2032'; there are amazon-2023, .*or give FIELD=COLUMN"),
        ("amazon-2023,amazon-2018", "", r"--map: 'amazon-2018' is not FIELD=COLUMN with a FIELD of user_id, asin"),
        ("txt=body", "", r"--map: 'txt=body' is not FIELD=COLUMN with a FIELD of user_id, .*items\.asin"),
        ("text=body,title", "", r"--map: 'title' is not FIELD=COLUMN"),
        ("=body", "", r"--map: '=body' is not FIELD=COLUMN"),
        ("", "titel", r"--allow-missing: 'titel' is not one of title, items\.title"),
        ("", "text", r"--allow-missing: 'text' is not one of title, items\.title"),
        ("", "user_id,title", r"--allow-missing: 'user_id' is not one of"),
        ("text=", "", r"--map: 'text' needs a column; only title, items\.title, .* may have none"),
        ("items.asin=", "", r"--map: 'items\.asin' needs a column"),
    ],
)
def test_a_wrong_mapping(mapping: str, missing: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_column_map(mapping, missing)


# What is read by it.


def old_reviews(**more: Any) -> list[Record]:
    """One user with eleven reviews, oldest first, in the layout of 2014 and 2018."""
    return [
        {"reviewerID": "U", "asin": f"i{n}", "helpful": [0, 1], "reviewText": f"it's text {n}", "overall": 5.0}
        | {"summary": 'so "good"', "unixReviewTime": START + n, "reviewTime": "03 13, 2011"}
        | more
        for n in range(11)
    ]


def old_items(**more: Any) -> list[Record]:
    return [
        {"asin": f"i{n}", "title": "It's", "description": "it's it", "price": 1.5, "categories": [["Toys", "Cars"]]}
        | more
        for n in range(11)
    ]


def strict(records: list[Record]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def python(records: list[Record]) -> bytes:
    """Lines of Python dictionaries, as the item files of 2014 are."""
    return b"".join(repr(record).encode() + b"\n" for record in records)


def silent(_: str) -> None:
    return None


def run(
    folder: Path,
    reviews: bytes,
    items: bytes,
    mapping: str,
    missing: str = "",
    progress: Callable[[str], None] = silent,
    **options: Any,
) -> Summary:
    (folder / "r.json").write_bytes(reviews)
    (folder / "i.json").write_bytes(items)
    columns = read_column_map(mapping, missing)
    files = folder / "r.json", folder / "i.json"
    return prepare(*files, "Toys", folder / "out", progress, ALL, columns=columns, **options)


def tables(folder: Path) -> tuple[list[Any], list[Any]]:
    reviews = pl.read_parquet(folder / "out/Toys/reviews.parquet").drop("role").rows()
    return reviews, pl.read_parquet(folder / "out/Toys/items.parquet").rows()


OLD_TABLES = (
    [("U", f"i{n}", 5.0, 'so "good"', f"it's text {n}", 1000 * (START + n)) for n in range(11)],
    [(f"i{n}", "It's", "it's it") for n in range(11)],
)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("form", [strict, python])
def test_files_of_2014(tmp_path: Path, form: Callable[[list[Record]], bytes], pack: Callable[[bytes], bytes]) -> None:
    run(tmp_path, strict(old_reviews()), pack(form(old_items())), "amazon-2014")
    assert tables(tmp_path) == OLD_TABLES


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf", b"\n"])
def test_dictionaries_of_python_2(tmp_path: Path, begin: bytes) -> None:
    title = "It's é\U0001f600\n"
    reviews = b"".join(
        b"{"
        + b", ".join(f"u{key!r}: {'u' * isinstance(value, str)}{value!a}".encode() for key, value in row.items())
        + b"}\n"
        for row in old_reviews(more=None, on=True)
    )
    items = [record | {"title": title} for record in old_items()]
    run(tmp_path, begin + reviews, begin + python(items).replace(b": 'i", b": u'i"), "amazon-2014")
    assert tables(tmp_path) == (OLD_TABLES[0], [(f"i{n}", title, "it's it") for n in range(11)])


def test_python_dictionaries_with_blank_lines_and_other_values(tmp_path: Path) -> None:
    odd = "é\n\t\U0001f600\\'"
    items = old_items(title=odd, related={"also": ("a", "b")}, rank=None, on=True)
    run(tmp_path, strict(old_reviews()), b"\n" + python(items).replace(b"\n", b"\r\n\n")[:-3], "amazon-2014")
    assert tables(tmp_path)[1] == [(f"i{n}", odd, "it's it") for n in range(11)]


@pytest.mark.parametrize(
    "line",
    [
        "hello",
        "{'asin': 'i1'",
        "['asin']",
        "{'asin': open('x')}",
        "{'asin': {1, 2}}",
        "{'asin': b'i1'}",
        "{'asin': 5.5}",
        "{}",
    ],
)
def test_a_line_that_is_no_python_dictionary(tmp_path: Path, line: str) -> None:
    items = python(old_items())
    bad = items + b"\n" + line.encode() + b"\n"
    with pytest.raises(DataError, match=r"i\.json, line 13: .*; 1 of 12 rows are like this .*, at most 0 may be"):
        run(tmp_path, strict(old_reviews()), bad, "amazon-2014")
    assert not (tmp_path / "out").exists()
    assert run(tmp_path, strict(old_reviews()), bad, "amazon-2014", max_bad_lines=1).items["items in the file"] == 12
    assert tables(tmp_path) == OLD_TABLES


def test_files_of_2018(tmp_path: Path) -> None:
    items = [item | {"category": ["Toys"], "description": ["it's", "it"]} for item in old_items()]
    run(tmp_path, strict(old_reviews(verified=True, style={"Format:": " Hardcover"})), strict(items), "amazon-2018")
    assert tables(tmp_path) == OLD_TABLES
    layout = Manifest.read(tmp_path / "out/Toys").layout
    assert layout == json.loads(json.dumps(COLUMN_MAPS["amazon-2018"].described()))


def test_the_wrong_layout_names_a_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"i\.json.*'parent_asin'"):
        run(tmp_path, strict(old_reviews()), strict(old_items()), "amazon-2023")
    with pytest.raises(
        DataError, match=r"i\.json: no row has a value for 'category'; .*--map items\.categories=COLUMN"
    ):
        run(tmp_path, strict(old_reviews()), strict(old_items()), "amazon-2018")


def test_another_mapping_of_a_prepared_category_is_an_error(tmp_path: Path) -> None:
    run(tmp_path, strict(old_reviews()), strict(old_items()), "amazon-2014")
    with pytest.raises(DataError, match="is already prepared with another mapping of columns"):
        run(tmp_path, strict(old_reviews()), strict(old_items()), "amazon-2014", "title")


@pytest.mark.parametrize(
    "column", ["der Text", 'a "b"', "it's", "a.b", "Größe", "select", "$.a", "a[0]", "problem", "row"]
)
def test_a_column_may_have_any_name(tmp_path: Path, column: str) -> None:
    reviews = [{column: record.pop("reviewText"), **record} for record in old_reviews()]
    items = [{column: item.pop("title"), **item} for item in old_items()]
    mapping = f"amazon-2014,text={column},items.title={column}"
    run(tmp_path, strict(reviews), strict(items), mapping)
    assert tables(tmp_path) == OLD_TABLES


# Fields that may be missing.


def without(records: list[Record], name: str) -> list[Record]:
    return [{key: value for key, value in record.items() if key != name} for record in records]


def test_reviews_without_titles(tmp_path: Path) -> None:
    reviews = old_reviews()
    reviews[1:5] = [
        record | {"summary": value} for record, value in zip(reviews[1:5], ["", None, " ", "a"], strict=True)
    ]
    reviews[0].pop("summary")
    with pytest.raises(DataError, match=r"nothing is left \(11 reviews in the file, 8 reviews with a long text"):
        run(tmp_path, strict(reviews), strict(old_items()), "amazon-2014")
    run(tmp_path, strict(reviews), strict(old_items()), "amazon-2014", "title")
    assert [row[3] for row in tables(tmp_path)[0][:6]] == ["", "", "", " ", "a", 'so "good"']


@pytest.mark.parametrize("mapping", ["amazon-2014", "amazon-2014,title="])
def test_no_review_has_a_title(tmp_path: Path, mapping: str) -> None:
    missing = "" if "title=" in mapping else "title"
    said: list[str] = []
    run(tmp_path, strict(without(old_reviews(), "summary")), strict(old_items()), mapping, missing, said.append)
    # A misspelt column looks like one whose values are all missing: it is named.
    assert ("  no row has a value for 'summary', which may be missing" in said) == bool(missing)
    assert {row[3] for row in tables(tmp_path)[0]} == {""}


def test_a_title_of_a_wrong_kind_is_bad_though_it_may_be_missing(tmp_path: Path) -> None:
    reviews = old_reviews()
    reviews[4]["summary"] = 5
    with pytest.raises(DataError, match="line 5: 'summary' is not a text but 5"):
        run(tmp_path, strict(reviews), strict(old_items()), "amazon-2014", "title")


@pytest.mark.parametrize("empty", ["", [], None])
def test_items_without_a_description_but_none_of_a_wrong_length(tmp_path: Path, empty: object) -> None:
    items = old_items()
    items += [item | {"asin": f"j{n}"} for n, item in enumerate(old_items()[:6])]
    values = [empty, "abc", "abcd", ["ab", "cdefghi"], ["Product Description", "abcd"], ["ab", "cdefgh"]]
    for item, value in zip(items[11:], values, strict=True):
        item["description"] = value
    reviews = old_reviews() + [
        record | {"asin": f"j{n}", "reviewText": f"more {n}"} for n, record in enumerate(old_reviews()[:6])
    ]
    run(tmp_path, strict(reviews), strict(items), "amazon-2014", "items.description")
    found = {asin: text for asin, _, text in tables(tmp_path)[1] if asin.startswith("j")}
    assert found == {"j0": "", "j2": "abcd", "j4": "abcd", "j5": "ab cdefgh"}


@pytest.mark.parametrize("name", ["title", "description", "categories"])
def test_what_no_item_has(tmp_path: Path, name: str) -> None:
    items = without(old_items(), name)
    with pytest.raises(DataError, match=f"no row has a value for '{name}'; .*--map items.{name}=$"):
        run(tmp_path, strict(old_reviews()), strict(items), "amazon-2014")
    run(tmp_path, strict(old_reviews()), strict(items), "amazon-2014", f"items.{name}")
    title, text = ("" if name == field else value for field, value in (("title", "It's"), ("description", "it's it")))
    assert tables(tmp_path)[1] == [(f"i{n}", title, text) for n in range(11)]


@pytest.mark.parametrize("count", [0, None, "missing"])
def test_a_count_of_ratings_may_be_missing(tmp_path: Path, count: object) -> None:
    """In the layouts of 2014 and 2018 no item has one; where one has none though there is a column, that is as good."""
    items = old_items(**({} if count == "missing" else {"number": count}))
    items[3]["number"] = 7
    run(tmp_path, strict(old_reviews()), strict(items), "amazon-2014,items.rating_number=number")
    assert tables(tmp_path) == OLD_TABLES
