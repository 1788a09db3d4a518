"""Tables: what is marked, that all renderings carry the same numbers, that pdflatex sets them within the page."""

from __future__ import annotations

import csv as csv_format
import dataclasses
import io
import math
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.errors import DataError, StoreError
from bench.protocols import Column
from bench.report.files import write_table
from bench.report.latex import document, escape_latex, latex
from bench.report.markup import escape_markdown, html, markdown
from bench.report.names import category_name
from bench.report.table import Cell, Group, Row, Table, marks
from bench.report.text import csv, csv_text, plain

PAPER_CATEGORIES = ("Books", "Movies_and_TV", "CDs_and_Vinyl")
METRICS = ("rouge1", "meteor", "bleu", "bertscore")
SCORES = {
    "rouge1": Column("rouge1", "R-1"),
    "meteor": Column("meteor", "METEOR"),
    "bleu": Column("bleu", "BLEU", interval_decimals=2),
    "bertscore": Column("bertscore", "BERTScore"),
}
NASTY = (
    r"[50%_of] #1 & {2} ~3^4 \par $x$ <i>|`\\ -- --set k=4 "
    + '"q" naïve Žižek Łódź “x” λ≥0 § · … – — ß ş 漢字 😀\n new_line'
)


def scores(*names: str) -> list[Column]:
    """Columns by their names; those of `SCORES` or with nothing but a name."""
    return [SCORES.get(name, Column(name)) for name in names]


def number(category: str, metric: str, row: int) -> Cell:
    value = (math.sin(row * 7.3 + len(category) + len(metric)) + 2) / 6
    value *= 30 if metric == "bleu" else 1
    return Cell(value, value * 0.93, value * 1.08, value * 0.9 if row % 2 else None)


def table(categories: Sequence[str] = PAPER_CATEGORIES, columns: Sequence[str] = METRICS, **other: object) -> Table:
    """Six ranked rows and two controls; every row lacks one cell and one row lacks all."""
    labels = ["Non-Perso", "RAG", "PAG", "DPL", "PPlug", "DEP", "copy", "DEP, shuffled vectors"]
    keys = [(category, column) for category in categories for column in columns]
    rows = []
    for index, label in enumerate(labels):
        shown = [key for position, key in enumerate(keys) if position != index and index != 3]
        cells = {(c, m): number(c, m, index) for c, m in shown}
        rows.append(Row(label, "Methods" if index < 6 else "Controls", cells))
    groups = [Group("Methods", ranked=True), Group("Controls", ranked=False)]
    values = {"id": "table1", "title": "Scores", "notes": ["Tiny model."], "rows": rows, "groups": groups}
    return Table(categories=categories, columns=scores(*columns), **(values | other))  # type: ignore[arg-type]


def column_of(*values: float, ranked: bool = True, column: Column = SCORES["rouge1"]) -> Table:
    rows = [Row(f"r{i}", "g", {("Books", column.name): Cell(v, v, v, None)}) for i, v in enumerate(values)]
    return Table("t", "T", ["Books"], [column], rows, [], [Group("g", ranked)])


def marked(values: Table) -> list[str | None]:
    found = marks(values)
    return [found.get((i, ("Books", values.columns[0].name))) for i in range(len(values.rows))]


# ---- marks


def test_best_and_second_best_by_hand() -> None:
    assert marked(column_of(0.2, 0.4, 0.1, 0.3)) == [None, "best", None, "second"]
    assert marked(column_of(-0.2, -0.4, -0.1)) == ["second", None, "best"]
    assert marked(column_of(9.5, 13.2, column=SCORES["bleu"])) == ["second", "best"]


def test_ties_share_a_mark_and_are_judged_by_what_is_shown() -> None:
    assert marked(column_of(0.30001, 0.30004, 0.2, 0.2, 0.1)) == ["best", "best", "second", "second", None]
    assert marked(column_of(0.30001, 0.30006)) == ["second", "best"]
    assert marked(column_of(0.5, 0.5, 0.1)) == ["best", "best", "second"]


def test_nothing_to_rank_is_not_marked() -> None:
    assert marked(column_of(0.5)) == [None]
    assert marked(column_of(0.5, 0.5)) == [None, None], "all are alike"
    assert marked(column_of(0.5, 0.6, ranked=False)) == [None, None]


def test_groups_are_ranked_apart_and_controls_take_no_mark() -> None:
    key = ("Books", "rouge1")
    rows = [
        Row(f"{group}{value}", group, {key: Cell(value, value, value)})
        for group, value in [("7B", 0.1), ("32B", 0.3), ("7B", 0.2), ("32B", 0.4), ("Controls", 0.9), ("Controls", 0.8)]
    ]
    groups = [Group("7B", True), Group("32B", True), Group("Controls", False)]
    shown = Table("t", "T", ["Books"], scores("rouge1"), rows, [], groups)
    assert {index: mark for (index, _), mark in marks(shown).items()} == {
        0: "second",
        1: "second",
        2: "best",
        3: "best",
    }
    tex = latex(shown)
    assert [tex.count(mark) for mark in (r"\textbf{0.", r"\underline{0.")] == [2, 2]
    assert r"\textbf{0.4000}" in tex
    assert r"\underline{0.3000}" in tex
    # Head, and a rule above each group: the last one sets the controls apart.
    assert tex.index("0.4000") < tex.rindex(r"\midrule") < tex.index("Controls}") < tex.index("0.9000")
    text = markdown(shown)
    assert "**0.4000** [" in text
    assert "<u>0.3000</u> [" in text
    assert "| 0.9000 [" in text
    assert re.findall(r"\*0\.\d+", plain(shown)) == ["*0.2000", "*0.4000"]


def test_groups_may_be_ranked_together() -> None:
    shown = column_of(0.1, 0.3, 0.2)
    rows = [Row(row.label, group, row.cells) for row, group in zip(shown.rows, ("", "w/o", "w/"), strict=True)]
    groups = [Group("", True, "all"), Group("w/o", True, "all"), Group("w/", True, "all")]
    together = Table("t", "T", ["Books"], scores("rouge1"), rows, [], groups)
    assert marked(together) == [None, "best", "second"]
    assert marked(dataclasses.replace(together, groups=[Group(group.name, True) for group in groups])) == [None] * 3


def test_lower_may_be_better_and_neither() -> None:
    errors, length = Column("errors", "Mistakes", 1, better="lower"), Column("length_of_it", better=None)
    shown = column_of(0.2, 0.4, 0.1, column=errors)
    assert marked(shown) == ["second", None, "best"]
    assert marked(column_of(0.2, 0.4, 0.1, column=length)) == [None, None, None]
    assert "Mistakes ↓ |" in markdown(shown)
    assert ">Mistakes ↓</th>" in html(shown)
    assert r"\shortstack[r]{Mistakes\\$\downarrow$}" in latex(shown)
    for rendered, best in ((markdown(shown), "**0.1**"), (latex(shown), r"\textbf{0.1}"), (plain(shown), "*0.1")):
        assert best in rendered
    # Without a head of its own a column shows its name.
    assert "length of it |" in markdown(column_of(0.2, column=length))


# ---- spread, significance, differences

RICH = {
    "best": Cell(0.5, 0.4, 0.6, paper=0.45, sd=0.01234),
    "worse": Cell(0.25, 0.2, 0.3, paper=0.3, sd=0.02, p=0.01),
    "alike": Cell(0.49, 0.4, 0.6, sd=0.02, p=0.05),
    "gain": Cell(0.25, 0.1, 0.4, paper=0.15, p=0.001, signed=True),
}


def rich() -> Table:
    rows = [Row(name, "d" if cell.signed else "", {("Books", "meteor"): cell}) for name, cell in RICH.items()]
    return Table("rich", "Rich", ["Books"], scores("meteor"), rows, [], [Group("", True), Group("d", False)])


def test_every_rendering_tells_spread_significance_and_differences() -> None:
    tex, text, marked_down, page = latex(rich()), plain(rich()), markdown(rich()), html(rich())
    for shown, dagger in ((tex, r"0.2500$^\dagger$"), (text, "†0.2500"), (marked_down, "0.2500†")):
        assert dagger in shown
        assert shown.count("agger" if shown is tex else "†") == 3, "two cells and the legend"
    assert "<span>0.2500</span><sup>†</sup>" in page
    assert all("0.0123" in shown and "±" in shown.replace(r"$\pm$", "±") for shown in (tex, text, marked_down, page))
    # Ours minus the paper's, and the sign of a difference of two rows.
    for shown in (text, marked_down, page):
        assert shown.count("−0.0500") == shown.count("+0.0500") == 1
        assert shown.count("+0.2500") == shown.count("+0.1500") == 1
        assert "+0.1000" in shown
    assert r"\tiny $-$.0500" in tex
    lines = list(csv_format.DictReader(io.StringIO(csv(rich()))))
    assert [line["p"] for line in lines] == ["", "0.01", "0.05", "0.001"]
    assert [float(line["sd"] or 0) for line in lines] == [0.01234, 0.02, 0.02, 0]


def test_what_a_table_does_not_show_its_legend_does_not_explain() -> None:
    bare = column_of(0.2, 0.1)
    for shown in (latex(bare), plain(bare), markdown(bare), html(bare)):
        assert not re.search("dagger|†|±|pm|aper", shown)


class Reader(HTMLParser):
    """Texts of cells and notes, and every tag."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.data: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.data.append(data)


def test_html_holds_every_number_and_no_markup_from_outside() -> None:
    shown = table(title=NASTY, notes=[NASTY])
    reader = Reader()
    reader.feed(html(shown))
    allowed = {"table", "caption", "thead", "tbody", "tr", "th", "td", "span", "small", "sup", "b", "u", "ul", "li"}
    assert set(reader.tags) <= allowed
    assert reader.tags.count("td") == len(shown.rows) * 12
    for row in shown.rows:
        for cell in row.cells.values():
            assert f"{cell.value:.4f}" in reader.data
            assert cell.paper is None or any(text.startswith(f"paper {cell.paper:.4f} (") for text in reader.data)
    assert reader.data.count(" ".join(NASTY.split())) == 2


# ---- renderings against each other


def test_markdown_holds_the_numbers_of_the_table() -> None:
    shown = table()
    found: dict[tuple[str, str, str], tuple[float, float, float, float | None]] = {}
    for section in re.split(r"^#### ", markdown(shown), flags=re.MULTILINE)[1:]:
        category, *lines = section.splitlines()
        for line in lines:
            label, *cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
            for metric, cell in zip(METRICS, cells, strict=False):
                pattern = r"(?:\*\*|<u>)?(-?[\d.]+)(?:\*\*|</u>)? \[(.+), (.+)\](?:<br>paper (.+) \((.+)\))?"
                if match := re.fullmatch(pattern, cell):
                    value, low, high, paper, difference = match.groups()
                    assert paper is None or float(value) - float(paper) == pytest.approx(
                        float(difference.replace("−", "-")), abs=2e-4
                    )
                    found[category, label, metric] = float(value), float(low), float(high), paper and float(paper)
                else:
                    assert cell in ("", "–") or "---" in cell or "--:" in cell or "↑" in cell
    expected = {
        (category_name(category), row.label, metric): cell
        for row in shown.rows
        for (category, metric), cell in row.cells.items()
    }
    assert found.keys() == expected.keys()
    for key, (value, low, high, paper) in found.items():
        cell, ends = expected[key], 0.005 if key[2] == "bleu" else 0.0005
        assert (value, paper) == pytest.approx((cell.value, cell.paper), abs=5.1e-5)
        assert (low, high) == pytest.approx((cell.low, cell.high), abs=ends * 1.01)


def test_latex_and_text_hold_every_number() -> None:
    shown = table()
    tex, text = latex(shown), plain(shown)
    for row in shown.rows:
        for (_, metric), cell in row.cells.items():
            decimals = 2 if metric == "bleu" else 3
            low, high = f"{cell.low:.{decimals}f}", f"{cell.high:.{decimals}f}"
            assert f"{cell.value:.4f}" in tex
            assert f"\\tiny {re.sub('^0', '', low)}--{re.sub('^0', '', high)}" in tex
            assert f"{cell.value:.4f} [{low}, {high}]" in text
            assert cell.paper is None or f"\\itshape {cell.paper:.4f}" in tex


def test_csv_is_long_and_exact() -> None:
    shown = table()
    lines = list(csv_format.DictReader(io.StringIO(csv(shown))))
    assert list(lines[0]) == [
        *("row", "group", "category", "column", "value", "low", "high", "paper", "difference", "sd", "p")
    ]
    assert len(lines) == sum(len(row.cells) for row in shown.rows)
    for line in lines:
        (row,) = [row for row in shown.rows if row.label == line["row"]]
        cell = row.cells[line["category"], line["column"]]
        assert (line["group"], float(line["value"]), float(line["low"])) == (row.group, cell.value, cell.low)
        assert float(line["high"]) == cell.high
        assert (float(line["paper"]) if line["paper"] else None) == cell.paper
        assert (float(line["difference"]) if line["difference"] else None) == cell.difference
        assert (line["sd"], line["p"]) == ("", "")


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_text_in_a_csv_is_a_formula(sign: str) -> None:
    text = csv_text(["a", "b"], [[f"{sign}cmd|'/C calc'!A0", f"fine{sign}"], [-0.3, "-0.3"], ["+1e5", None]])
    assert list(csv_format.reader(io.StringIO(text, newline=""))) == [
        ["a", "b"],
        [cell.replace("\r", "\n") for cell in (f"'{sign}cmd|'/C calc'!A0", f"fine{sign}")],
        ["-0.3", "-0.3"],
        ["+1e5", ""],
    ]


@pytest.mark.parametrize("render", [html, markdown, latex])
def test_control_characters_are_in_no_rendering(render: Callable[[Table], str]) -> None:
    steering = "a\ud800\x00\x07\x08\x1b[31m\x7f\x9b31m"
    rows = [Row(steering, steering, {("Books", "bleu"): Cell(1, 0, 2)})]
    rendered = render(Table("t", steering, ["Books"], scores("bleu"), rows, [steering], [Group(steering, True)]))
    assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", rendered) == []
    assert "31m" in rendered
    assert rendered.encode()
    assert csv_text(["a"], [[steering]]).encode()


def test_text_by_hand() -> None:
    cells = {("Books", "rouge1"): Cell(0.25, 0.2, 0.3, 0.3149), ("Books", "bleu"): Cell(12, 11, 13.5)}
    rows = [Row("RAG", "", cells), Row("DEP", "", {("Books", "rouge1"): Cell(0.5, 0.4, 0.6)})]
    answers = ["DEP is better\nthan RAG.", "5% at most."]
    shown = Table(
        "t", "Title", ["Books"], scores("rouge1", "bleu"), rows, ["A note."], [Group("", True)], answers=answers
    )
    assert plain(shown) == (
        "Title\n\nBooks\n"
        "Method                           R-1                    BLEU\n"
        "RAG            0.2500 [0.200, 0.300]  12.0000 [11.00, 13.50]\n"
        "  paper        0.3149\n"
        "  difference  −0.0649\n"
        "DEP           *0.5000 [0.400, 0.600]                       –\n\n"
        "* best of the column in its group.\nIn brackets: 95% bootstrap intervals over users.\n"
        "Paper: what the paper reports; difference: ours minus the paper's.\nA note.\n\n"
        "DEP is better than RAG.\n5% at most.\n"
    )
    assert markdown(shown).endswith(
        "- A note.\n\n#### What the rows tell\n\n- DEP is better than RAG.\n- 5% at most.\n"
    )
    assert "<h4>What the rows tell</h4>\n<ul class='notes'>\n<li>DEP is better than RAG.</li>\n" in html(shown)
    assert r"A note. DEP is better than RAG. 5\% at most." in latex(shown)


@pytest.mark.parametrize("columns", range(1, 14))
def test_text_fits_the_terminal_and_fills_it(columns: int) -> None:
    widths = list(map(len, plain(table(["Books"], [f"m{i}" for i in range(columns)])).splitlines()))
    assert max(widths) <= 120
    assert columns < 5 or max(widths) > 96


def test_a_name_of_its_own_for_the_papers_categories_only() -> None:
    assert [category_name(category) for category in PAPER_CATEGORIES] == ["Books", "Movies & TV", "CDs & Vinyl"]
    assert category_name("Cell_Phones") == "Cell Phones"
    assert r"\multicolumn{4}{c}{Movies \& TV}" in latex(table())
    assert "#### Movies & TV\n" in markdown(table())


# ---- escaping


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100%_&#{}$", r"100\%\_\&\#\{\}$\mathdollar$"),
        ("\\~^", r"\textbackslash{}\textasciitilde{}\textasciicircum{}"),
        ("<|>", r"\textless{}\textbar{}\textgreater{}"),
        ("a--b", "a-{}-{}b"),
        ("é ñ Ž", r"\'{e} \~{n} \v{Z}"),
        ("e\u0301", r"\'{e}"),
        ("λ≥0", r"$\lambda$$\geq$0"),
        ("漢😀", r"\texttt{U+6F22}\texttt{U+1F600}"),
        ("two\n lines\t", "two lines"),
        ("\x00", r"\texttt{U+0000}"),
    ],
)
def test_latex_escapes(text: str, expected: str) -> None:
    assert escape_latex(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b_c*d", r"a\|b\_c\*d"),
        ("<br> [x](y) `z`", r"\<br\> \[x\](y) \`z\`"),
        ("Movies & TV &amp; x", r"Movies & TV \&amp; x"),
        ("- item\n1. two", r"\- item 1. two"),
        ("1. one", r"1\. one"),
        ("\\", r"\\"),
    ],
)
def test_markdown_escapes(text: str, expected: str) -> None:
    assert escape_markdown(text) == expected


def test_markdown_columns_survive_bars_in_labels() -> None:
    rows = [Row("a | b", "x|y", {("Books", "rouge1"): Cell(0.1, 0.1, 0.1)})]
    text = markdown(Table("t", "T", ["Books"], scores("rouge1"), rows, [], [Group("x|y", False)]))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}


# ---- pdflatex


LONG = "A_label_without_any_space_that_is_longer_than_a_column_" + "W" * 30
CASES: dict[str, Callable[[], Table]] = {
    "one category": lambda: table(["Books"]),
    "three categories": table,
    "one cell": lambda: column_of(0.5),
    "spread, significance, differences": rich,
    "all of it in twelve columns": lambda: table(
        rows=[
            Row(row.label, row.group, {k: dataclasses.replace(c, sd=0.01, p=0.01) for k, c in row.cells.items()})
            for row in table().rows
        ]
    ),
    "no rows": lambda: table(rows=[]),
    "seven categories": lambda: table([f"A_Category_of_Products_{i}" for i in range(7)]),
    "many columns": lambda: table(["Books"], [f"metric_with_a_long_name_{i}" for i in range(14)]),
    "wide numbers": lambda: column_of(-123456.5, 1.0, column=SCORES["bleu"]),
    "nasty": lambda: table(
        title=NASTY,
        notes=[NASTY, LONG * 3],
        rows=[Row(label, NASTY, table().rows[0].cells) for label in (NASTY, LONG, "*star", "[x]", "")],
        groups=[Group(NASTY, True)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_pdflatex_sets_the_table_without_a_box_too_wide(
    case: str, tmp_path: Path, pdflatex: Callable[[Path, str], str]
) -> None:
    write_table(CASES[case](), tmp_path)
    log = pdflatex(tmp_path, f"{CASES[case]().id}_alone.tex")
    assert "Overfull" not in log
    assert "Float too large" not in log
    assert "pk>" not in log, "a font was drawn as a bitmap"
    assert (tmp_path / (CASES[case]().id + "_alone.pdf")).stat().st_size > 1000


def test_three_categories_stand_side_by_side_and_more_continue() -> None:
    assert latex(table()).count(r"\begin{tabular}") == 1
    assert r"\cmidrule(lr){2-5}\cmidrule(lr){6-9}\cmidrule(lr){10-13}" in latex(table())
    many = latex(table([f"C{i}" for i in range(7)]))
    assert many.count(r"\begin{tabular}") == many.count(r"\begin{table") == 3
    assert many.count(r"\label{") == 1
    assert many.count("(continued)") == 2


def test_latex_is_ascii_and_a_float_of_its_own_width() -> None:
    assert latex(CASES["nasty"]()).isascii()
    assert document("table1").count(r"\input{table1.tex}") == 1
    assert r"\setcounter{table}{8}" in document("table9-paper-7b")
    assert "setcounter" not in document("style")
    assert r"\begin{table*}" in latex(table())
    assert r"\begin{table}" in latex(table(["Books"]))


# ---- files and errors


def test_write_gives_the_same_files_twice(tmp_path: Path) -> None:
    paths = write_table(table(), tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [
        *("table1.tex", "table1_alone.tex", "table1.md", "table1.html", "table1.csv")
    ]
    texts = [path.read_bytes() for path in paths]
    assert texts[2].decode() == markdown(table())
    assert [path.read_bytes() for path in write_table(table(), tmp_path / "new" / "folder")] == texts


def test_write_says_where_it_failed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/table1\.tex cannot be written"):
        write_table(table(), tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "../x"}, "'../x' cannot name a file"),
        ({"groups": [Group("Methods", True)]}, "row 'copy': there is no group 'Controls'; the table has: Methods"),
        ({"groups": [Group("Methods", True)] * 2}, "two groups have the same name"),
        (
            {"rows": [Row("r", "Methods", {("Toys", "bleu"): Cell(1, 1, 1)})]},
            "row 'r': the table has no column Toys/bleu",
        ),
        (
            {"rows": [Row("r", "Methods", {("Books", "bleu"): Cell(math.nan, 1, 1)})]},
            "Books/bleu has a number that is not",
        ),
    ],
)
def test_a_table_that_cannot_be_shown_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        table(**change)
