"""The report, opened and clicked through in a real headless Chromium; its texts are hostile."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import yaml
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from bench.chat import Chat
from bench.config import RunConfig, Section, build, read_config
from bench.errors import ConfigError, StoreError
from bench.execute import execute
from bench.files import content_hash, read_rows, sealed_lines
from bench.finished import FinishedRun, finished, run_folders
from bench.job import Job
from bench.protocols import Column
from bench.records import Call, Completion
from bench.report.files import write_table
from bench.report.html import write_report
from bench.report.labels import labels
from bench.report.leaderboard import leaderboard
from bench.report.names import category_name
from bench.report.table import MISSING, Cell, Group, Row, Table, head
from bench.results import SCHEMA, RunRecord, Summary
from bench.store import Generations, read_generations

SCRIPT = "</script><img src=x onerror=window.injected=1>"
COMMENT = "<!--<script>"
ENTITY = "&lt;b&gt; &amp;"
SEPARATOR, TO_THE_LEFT, NUL, SURROGATE = "\u2028", "\u202e", "\0", "\ud800"
HOSTILE = f"{SCRIPT}{COMMENT}{ENTITY}{SEPARATOR}{TO_THE_LEFT}"
CATEGORY = "Toys<img src=x onerror=window.injected=1>"
REFERENCE = f"The kite flew over the old barn, and “nobody’s dog” barked. {HOSTILE}{NUL}"
HISTORY = "My sister laughed out loud when it sank."
ANSWER = f"Yes: THE KITE flew over a fence; my sister laughed. Nobody's dog barked? Never. {HOSTILE}{NUL}{SURROGATE}"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415478da63606060000000040001"
    "c8eae5f90000000049454e44ae426082"
)


class Answers:
    """A backend without a model: the hostile text, the stage's name, and more words the later the instance; PAG's
    profile is harmless, as it is quoted."""

    settings: ClassVar[type[Section]] = Section
    takes_vectors: ClassVar[bool] = False
    applies_template: ClassVar[bool] = True
    timing: ClassVar[Mapping[str, object]] = {}

    def __init__(self, config: RunConfig, chat: Chat, vectors: bool) -> None:
        self._waiting: list[Call] = []

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """It needs nothing."""

    @classmethod
    def device(cls) -> str:
        """It runs on nothing."""
        return "nothing"

    def submit(self, call: Call) -> None:
        self._waiting.append(call)

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            user = re.search(r"/u(\d+)", call.key[0])
            assert user is not None
            text = f"{ANSWER} {call.prompt.stage}" + " more" * int(user[1])
            text = "A short profile." if call.prompt.stage == "pag_profile" else text
            yield call, Completion(text, 7, 3, "length" if call.prompt.stage == "rag_review" else "stop", 0.0)

    def close(self) -> None:
        pass


def review(asin: str, text: str, time: int) -> dict[str, Any]:
    return {"asin": asin, "rating": 4.0, "title": f"Title {HOSTILE}", "text": text, "timestamp": time}


def write_data(folder: Path) -> None:
    """Test users u0 to u11; u1 reviewed in the past what u0 is asked about."""
    rows = []
    for number in range(12):
        past = [
            review("A2", f"{HISTORY} {number}", 100),
            review("A1" if number == 1 else "A3", f"Fine, {HOSTILE}", 200),
        ]
        target = review("A1", f"{REFERENCE} {number}", 10**12)
        rows.append({"user_id": f"u{number}<b>", "profile": past, "data": target})
    for split in ("train", "val", "test"):
        path = folder / "main" / CATEGORY / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows if split == "test"), encoding="utf-8")
    path = folder / "meta" / CATEGORY / "full.jsonl"
    path.parent.mkdir(parents=True)
    items = [{"asin": f"A{n}", "title": f"Item {n} {HOSTILE}", "description": HOSTILE} for n in (1, 2, 3)]
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    """`Answers` and a metric of which less is better are installed."""
    from bench_parrot.size import Size

    package = ModuleType("bench_of_the_report")
    found = []
    for group, name, plugin in (("backends", "hostile", Answers), ("metrics", "small", Size)):
        setattr(package, plugin.__name__, plugin)
        found.append(importlib.metadata.EntryPoint(name, f"{package.__name__}:{plugin.__name__}", f"bench.{group}"))

    known = importlib.metadata.entry_points

    def entry_points(group: str) -> list[importlib.metadata.EntryPoint]:
        return [*known(group=group), *(point for point in found if point.group == group)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, package.__name__, package)
        patch.setattr(importlib.metadata, "entry_points", entry_points)
        yield


@pytest.fixture(scope="module")
def results(plugins: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four finished runs, one that is not, two tables and a figure."""
    folder = tmp_path_factory.mktemp("report")
    write_data(folder / "data")
    config = folder / "report.yaml"
    settings = {
        "dataset": str(folder / "data"),
        "k": 2,
        "backend": "hostile",
        "metrics": ["rouge", "small", "bleu"],
        "resamples": 20,
        "results": str(folder / "results"),
        "notes": [f"A note {HOSTILE}"],
    }
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    wanted: list[dict[str, Any]] = [{"method": "rag"}, {"method": "rag", "k": 1}, {"method": "pag"}]
    wanted += [{"method": "copy"}]
    execute([Job.of(build(read_config(str(config)), run)) for run in wanted], lambda _: None)
    half = folder / "results" / "runs" / "half<i>"
    half.mkdir()
    shutil.copy(run_folders(folder / "results")[0] / "run.json", half)
    for number in (10, 2):
        cells = {("Books", "bleu"): Cell(7.5, 7.0, 8.0)}
        rows = [Row(f"Row {HOSTILE}", "", cells)]
        groups = [Group("", True)]
        bleu = Column("bleu", "BLEU")
        write_table(
            Table(f"table{number}", f"Title {number}", ["Books"], [bleu], rows, [HOSTILE], groups),
            folder / "results/tables",
        )
    for name in ("my_table", "timing"):
        shutil.copy(folder / "results/tables/table2.html", folder / f"results/tables/{name}.html")
    figures = folder / "results" / "figures"
    figures.mkdir()
    (figures / "figure3.png").write_bytes(PIXEL)
    (figures / "figure3.csv").write_text(f'row,value\n"{HOSTILE}",1.25\n', encoding="utf-8")
    return folder / "results"


@pytest.fixture(scope="module")
def report(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(results, tmp_path_factory.mktemp("out") / "report.html", instances=9)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.fail("the report is tested in Chromium: install Debian's packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        f"--disable-component-update --disable-sync --user-data-dir={tmp_path_factory.mktemp('chromium')}"
    ).split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        yield chrome


def resize(chrome: webdriver.Chrome, width: int, height: int = 900) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def emulate(chrome: webdriver.Chrome, **media: Any) -> None:
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def wait(chrome: webdriver.Chrome, condition: Callable[[], Any]) -> Any:
    return WebDriverWait(chrome, 20, poll_frequency=0.05).until(lambda _: condition())


def requests(chrome: webdriver.Chrome) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def open_page(chrome: webdriver.Chrome, path: Path) -> None:
    chrome.get(path.as_uri())
    wait(chrome, lambda: chrome.find_elements(By.CSS_SELECTOR, "#viewer article"))


@pytest.fixture
def page(chromium: webdriver.Chrome, report: Path) -> Iterator[webdriver.Chrome]:
    """The report, opened anew; when a test is done, nothing was injected and nothing asked for beyond the file."""
    chromium.get("about:blank")
    chromium.get_log("performance")
    resize(chromium, 1300)
    emulate(chromium, features=[])
    open_page(chromium, report)
    yield chromium
    assert chromium.execute_script("return window.injected") is None
    assert chromium.find_elements(By.CSS_SELECTOR, "img[src='x'], b i, [onerror]") == []
    assert {url for url in requests(chromium) if not url.startswith("data:")} == {report.as_uri()}
    assert chromium.get_log("browser") == []


def all_of(page: webdriver.Chrome, selector: str) -> list[WebElement]:
    return page.find_elements(By.CSS_SELECTOR, selector)


def one(page: webdriver.Chrome, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def content(element: WebElement) -> str:
    """An element's text as it is, not as it is shown; the driver cannot tell of lone surrogates."""
    return str(element.parent.execute_script("return arguments[0].textContent.toWellFormed()", element))


def card(page: webdriver.Chrome, label: str) -> WebElement:
    (found,) = [card for card in all_of(page, "#viewer article") if content(one(card, "h4")) == label]
    return found


def position(page: webdriver.Chrome, wanted: str) -> None:
    wait(page, lambda: content(one(page, "#position")) == wanted)


def asked(page: webdriver.Chrome) -> str:
    """Whom the instance that is shown asks about."""
    return content(one(page, "#viewer h3 + p bdi"))


def test_the_parts_of_the_page(page: webdriver.Chrome) -> None:
    assert page.title.startswith("Personalization benchmark: ")
    assert one(page, "html").get_attribute("lang") == "en"
    headings = [content(heading) for heading in all_of(page, "h2")]
    assert headings == ["Leaderboard", "Tables", "Figures", "Timing", "Instances"]
    assert [content(link) for link in all_of(page, "nav a")] == headings
    assert [content(heading) for heading in all_of(page, "#tables h3")] == ["Table 2", "Table 10", "My table"]
    assert len(all_of(page, "#tables .scroll > table.scores")) == 3
    assert HOSTILE.replace(SEPARATOR, " ") in content(one(page, "#tables .notes"))
    assert len(all_of(page, "#timing table")) == 1
    one(page, "#figures summary").click()
    assert [content(cell) for cell in all_of(page, "#figures td")] == [HOSTILE.replace(SEPARATOR, " "), "1.25"]
    image = one(page, "#figures img")
    page.execute_script("arguments[0].loading = 'eager'", image)
    assert wait(page, lambda: image.get_property("naturalWidth")) == 1
    assert content(one(page, ".left-out li")).startswith("half<i>: it is not complete")


def ordered(page: webdriver.Chrome) -> list[str]:
    return [content(row) for row in all_of(page, ".leaderboard tbody tr:not([hidden]) th")]


def test_the_leaderboard_is_sorted_by_click_and_by_key(page: webdriver.Chrome, results: Path) -> None:
    runs = [finished(folder) for folder in run_folders(results) if (folder / "summary.json").exists()]
    values = dict(zip(labels(runs), [run.summary.scores[CATEGORY]["bleu"].value for run in runs], strict=True))
    heads = all_of(page, ".leaderboard thead tr:last-child th")
    assert [content(head) for head in heads] == ["Run", "R-1 ↑", "BLEU ↑", "R-L ↑", "Size ↓"]
    assert CATEGORY in content(one(page, ".leaderboard th[scope=colgroup]"))
    # As it is opened: by the first score, controls behind the others.
    first = dict(zip(labels(runs), [run.summary.scores[CATEGORY]["rouge1"].value for run in runs], strict=True))
    ranked = [first[label] for label in ordered(page)[:-1]]
    assert ranked == sorted(ranked, reverse=True)
    assert ordered(page)[-1] == "copy"
    one(heads[2], "button").click()
    assert heads[2].get_attribute("aria-sort") == "descending"
    assert [values[label] for label in ordered(page)] == sorted(values.values(), reverse=True)
    one(heads[2], "button").send_keys(Keys.ENTER)
    assert heads[2].get_attribute("aria-sort") == "ascending"
    assert [values[label] for label in ordered(page)] == sorted(values.values())
    one(heads[0], "button").send_keys(Keys.SPACE)
    assert ordered(page) == sorted(values)
    assert [head.get_attribute("aria-sort") for head in heads] == ["ascending", None, None, None, None]


def test_the_best_of_the_rows_shown_is_bold(page: webdriver.Chrome) -> None:
    def best() -> list[str]:
        rows = all_of(page, ".leaderboard tbody tr")
        return [content(one(row, "th")) for row in rows if all_of(row, "td.best:last-child")]

    # The control is shown and not ranked.
    assert set(ordered(page)) - {"copy"} >= set(best()) > set()
    one(page, "[data-filter=run]").send_keys("K=2")
    assert ordered(page) == ["pag, recency, K=2", "rag, recency, K=2"]
    assert set(best()) <= set(ordered(page))
    assert int(one(page, ".leaderboard td.best").value_of_css_property("font-weight")) >= 700


def test_of_a_score_that_should_be_low_the_lowest_is_best_and_stands_first(
    page: webdriver.Chrome, results: Path
) -> None:
    runs = [finished(folder) for folder in run_folders(results) if (folder / "summary.json").exists()]
    values = dict(zip(labels(runs), [run.summary.scores[CATEGORY]["size"].value for run in runs], strict=True))
    (head,) = [head for head in all_of(page, ".leaderboard thead th") if content(head) == "Size ↓"]
    one(head, "button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert [values[label] for label in ordered(page)] == sorted(values.values())
    rows = all_of(page, ".leaderboard tbody tr")
    best = {content(one(row, "th")) for row in rows if all_of(row, "td.best:last-child")}
    ranked = values.keys() - {"copy"}
    assert best == {label for label in ranked if values[label] == min(values[other] for other in ranked)}


def pictured(page: webdriver.Chrome, name: str) -> list[WebElement]:
    """The rows of the picture of a score, as they are shown."""
    (figure,) = [found for found in all_of(page, ".forest figure") if content(one(found, "figcaption")) == name]
    return [row for row in figure.find_elements(By.CSS_SELECTOR, "li") if row.is_displayed()]


def test_each_score_is_drawn_with_its_interval(page: webdriver.Chrome, results: Path) -> None:
    assert [content(name) for name in all_of(page, ".forest figcaption")] == ["R-1 ↑", "BLEU ↑", "R-L ↑", "Size ↓"]
    rows = pictured(page, "BLEU ↑")
    assert [content(one(row, "bdi")) for row in rows] == ordered(page)
    runs = [finished(folder) for folder in run_folders(results) if (folder / "summary.json").exists()]
    scores = dict(zip(labels(runs), [run.summary.scores[CATEGORY]["bleu"] for run in runs], strict=True))

    def place(row: WebElement, shape: str, end: str) -> float:
        return float(str(one(row, shape).get_attribute(end)).rstrip("%"))

    for row in rows:
        score = scores[content(one(row, "bdi"))]
        told = f"{score.value:.4f}, 95% interval {score.low:.2f} to {score.high:.2f}"
        assert one(row, "svg").get_attribute("aria-label") == told
        low, value, high = place(row, ".interval", "x1"), place(row, "circle", "cx"), place(row, ".interval", "x2")
        assert 0 < low <= value <= high < 100
        assert (value - low) * (score.high - score.low) == pytest.approx(
            (high - low) * (score.value - score.low), abs=1
        )
    # What looks equal is marked alike.
    best = {place(row, "circle", "cx") for row in rows if "best" in str(row.get_attribute("class"))}
    assert {place(row, ".reference", "x1") for row in rows} == best
    # The control stands below the others and is not ranked, however good it is.
    assert [content(one(row, "bdi")) for row in rows if "control" in str(row.get_attribute("class"))] == ["copy"]
    assert len(one(page, ".forest .axis").find_elements(By.CSS_SELECTOR, "text")) >= 2


def test_the_pictures_follow_the_leaderboard(page: webdriver.Chrome) -> None:
    heads = all_of(page, ".leaderboard thead tr:last-child th")
    for _ in range(2):
        one(heads[4], "button").click()
        order = [label for label in ordered(page) if label != "copy"]
        assert [content(one(row, "bdi")) for row in pictured(page, "R-1 ↑")] == [*order, "copy"]
    one(page, "[data-filter=run]").send_keys("K=1")
    (row,) = pictured(page, "R-1 ↑")
    assert row.get_attribute("class") == "best"
    assert one(row, ".reference").get_attribute("x1") == one(row, "circle").get_attribute("cx")
    one(page, "[data-filter=run]").send_keys(Keys.BACKSPACE * 3, "copy")
    (row,) = pictured(page, "R-1 ↑")
    assert not one(row, ".reference").is_displayed()


def test_an_instance_is_shown_word_for_word(page: webdriver.Chrome) -> None:
    position(page, "1 of 9")
    assert asked(page) == "u0<b>"
    assert content(one(page, "#viewer h3")) == f"Item 1 {HOSTILE}"
    facts = f"User: u0<b> · Rating: 4.0 · Review title: Title {HOSTILE} · Group: A1"
    assert content(one(page, "#viewer h3 + p")) == facts
    assert content(one(page, "#viewer p + details summary")) == "Item description"
    assert content(one(page, "#viewer p + details .text")) == HOSTILE
    assert content(one(page, ".real h4")) == "The real review"
    assert content(one(page, ".real .text")) == f"{REFERENCE} 0"
    assert content(one(card(page, "rag, recency, K=2"), ".text")) == f"{ANSWER} rag_review".replace(SURROGATE, "\ufffd")
    assert "Cut off" in content(card(page, "rag, recency, K=2"))
    assert "Cut off" not in content(card(page, "pag, recency, K=2"))
    assert content(one(card(page, "copy"), ".text")) == f"Fine, {HOSTILE}"
    history, peers = all_of(page, ".records")
    assert [content(text) for text in all_of(history, ".text")] == [f"Fine, {HOSTILE}", f"{HISTORY} 0"]
    assert [content(text) for text in all_of(peers, ".text")] == [f"Fine, {HOSTILE}"]
    head = f"Item 3 {HOSTILE} · 1970-01-01 · Rating: 4.0 · Review title: Title {HOSTILE}"
    assert content(all_of(history, ".head")[0]) == head
    # All that a peer shares with the instance is left out: the item.
    assert content(one(peers, ".head")) == f"u1<b> · 1970-01-01 · Rating: 4.0 · Review title: Title {HOSTILE}"


def test_scores_are_those_of_the_text(page: webdriver.Chrome, results: Path) -> None:
    (folder,) = (results / "runs").glob("pag-*")
    run = finished(folder)
    row = run.rows("rouge")[2]
    Select(one(page, "#instance")).select_by_index(2)
    wait(page, lambda: asked(page) == "u2<b>")
    expected = {"R-1": f"{row[0]:.4f}", "R-L": f"{row[1]:.4f}"}
    shown = {
        content(one(div, "dt")): content(one(div, "dd")) for div in all_of(card(page, "pag, recency, K=2"), "dl div")
    }
    assert shown | expected == shown
    assert set(shown) == {"R-1", "R-L", "Size", "BLEU"}


def test_shared_phrases_are_marked(page: webdriver.Chrome) -> None:
    marks = {
        kind: [content(mark) for mark in all_of(card(page, "rag, recency, K=2"), f"mark.{kind}")]
        for kind in ("reference", "history")
    }
    # Case, the kind of apostrophe and punctuation do not count; of the hostile text its words are shared.
    assert marks["reference"][:2] == ["THE KITE flew over", "Nobody's dog barked"]
    assert marks["history"] == ["my sister laughed"]
    assert "fence" not in " ".join(marks["reference"])


def test_phrases_of_two_words_are_none_and_overlapping_ones_are_one(page: webdriver.Chrome) -> None:
    script = """
        const [text, ...sources] = arguments;
        const element = marked("p", text, {reference: phrasesOf(sources)});
        return [...element.querySelectorAll("mark")].map((mark) => mark.textContent);
    """

    def shared(text: str, *sources: str) -> list[str]:
        found: list[str] = page.execute_script(script, text, *sources)
        return found

    assert shared("a b x", "a b y") == []
    assert shared("a, B c!", "x a b C y") == ["a, B c"]
    assert shared("a b c d e", "a b c", "b c d e") == ["a b c d e"]
    # Two phrases side by side stay two; none reaches over the end of a text.
    assert shared("a b c d e f", "d e f a b c") == ["a b c", "d e f"]
    assert shared("a b c d", "a b", "c d") == []
    assert shared("Über alle Maße über ALLE maße", "über alle maße") == ["Über alle Maße", "über ALLE maße"]


def test_prompts_are_shown_on_demand(page: webdriver.Chrome) -> None:
    pag = card(page, "pag, recency, K=2")
    assert all_of(pag, "pre") == []
    assert content(one(pag, "summary")) == "Prompts (2)"
    one(pag, "summary").click()
    wait(page, lambda: all_of(pag, "pre"))
    assert [content(stage) for stage in all_of(pag, "h5")] == ["pag_profile", "pag_review"]
    system, user, answer, _, second, written = [content(text) for text in all_of(pag, "pre")]
    assert system.startswith("Given a user's")
    assert f"Fine, {HOSTILE}" in user
    assert answer == "A short profile."
    assert "[User Profile]: A short profile." in second
    assert written.endswith("pag_review")
    assert content(one(card(page, "copy"), ".none")) == "Asks no language model."


def test_instances_are_chosen_by_step_search_and_category(page: webdriver.Chrome) -> None:
    previous, following = one(page, "#previous"), one(page, "#next")
    assert not previous.is_enabled()
    following.click()
    position(page, "2 of 9")
    wait(page, lambda: asked(page) == "u1<b>")
    # The user's own review of the item is no peer's.
    assert content(all_of(page, ".records summary")[1]) == "What peers wrote (0)"
    # The limit leaves out u9 to u11.
    Select(one(page, "#instance")).select_by_index(8)
    wait(page, lambda: asked(page) == "u8<b>")
    assert not following.is_enabled()
    one(page, "#search").send_keys("test/U3")
    position(page, "1 of 1")
    wait(page, lambda: asked(page) == "u3<b>")
    one(page, "#search").send_keys("nosuch")
    position(page, "none found")
    assert all_of(page, "#viewer *") == []
    one(page, "#search").clear()
    one(page, "#search").send_keys(Keys.SPACE, Keys.BACKSPACE)
    assert [content(option) for option in all_of(page, "#category option")] == ["all", CATEGORY]
    Select(one(page, "#category")).select_by_visible_text(CATEGORY)
    position(page, "1 of 9")


def test_runs_are_chosen(page: webdriver.Chrome) -> None:
    one(page, "#instances > details > summary").click()
    boxes = all_of(page, "#runs label")
    assert len(boxes) == 4
    boxes[0].click()
    wait(page, lambda: len(all_of(page, "#viewer article")) == 4)
    assert content(boxes[0]).strip() not in [content(head) for head in all_of(page, "#viewer h4")]


def test_a_task_without_peers_and_times(chromium: webdriver.Chrome, tmp_path: Path, example: None) -> None:
    work = [[f"Headline {n}", f"Article {n}."] for n in range(5)]
    (tmp_path / "City.newsroom").write_text(json.dumps({"name": "ann", "work": work}) + "\n")
    settings = {"task": "headline", "dataset": str(tmp_path), "method": "rag", "retriever": "random"}
    settings |= {"backend": "scripted", "results": str(tmp_path / "results"), "resamples": 10}
    execute([Job.of(build(settings))], lambda _: None)
    open_page(chromium, write_report(tmp_path / "results", tmp_path / "report.html"))
    assert content(one(chromium, "#viewer h3")) == "Article 4."
    assert content(one(chromium, "#viewer h3 + p")) == "User: ann"
    assert [content(head) for head in all_of(chromium, "#viewer article h4")] == [
        "The real headline",
        "rag, random, K=8",
    ]
    assert [content(head) for head in all_of(chromium, ".records summary")] == ["The user's history (4)"]
    assert content(one(chromium, ".records .head")) == "Article 3."
    assert one(chromium, "#search").get_attribute("placeholder") == "article, user or id"
    assert "review" not in content(one(chromium, "#instances")).lower()


def test_the_policy_lets_nothing_else_run_or_load(chromium: webdriver.Chrome, report: Path) -> None:
    open_page(chromium, report)
    refused = chromium.execute_async_script("""
        const done = arguments[0];
        const refused = [];
        document.addEventListener("securitypolicyviolation", (event) => {
          refused.push(event.effectiveDirective);
          if (refused.length === 3) done(refused.sort());
        });
        document.body.append(Object.assign(document.createElement("script"), {textContent: "window.ran = 1"}));
        document.body.append(Object.assign(document.createElement("img"), {src: "http://127.0.0.1:9/"}));
        fetch("http://127.0.0.1:9/").catch(() => {});
    """)
    assert refused == ["connect-src", "img-src", "script-src-elem"]
    assert chromium.execute_script("return window.ran") is None
    assert len(chromium.get_log("browser")) >= 3


def test_on_a_phone_only_tables_scroll_sideways(page: webdriver.Chrome) -> None:
    resize(page, 360)
    one(page, "#viewer .prompts summary").click()
    width, boxes = page.execute_script("""
        const boxes = [...document.querySelectorAll(".leaderboard, .scores")].map(({parentElement: box}) =>
            [box.scrollWidth > box.clientWidth, getComputedStyle(box).overflowX]);
        return [document.documentElement.scrollWidth, boxes];
    """)
    assert width == 360
    assert boxes[0] == [True, "auto"]


CONTRASTS = """
    const number = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => {
      const [r, g, b] = number(color).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
      const color = getComputedStyle(element).backgroundColor;
      return number(color)[3] === 0 && element.parentElement ? ground(element.parentElement) : color;
    };
    const all = [...document.querySelectorAll("body *:not(script, option, button:disabled)")];
    const texts = all.filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
    return texts.map((element) => {
      const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.outerHTML.slice(0, 80)];
    });
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_contrast(page: webdriver.Chrome, scheme: str) -> None:
    emulate(page, features=[{"name": "prefers-color-scheme", "value": scheme}])
    ground = one(page, "body").value_of_css_property("background-color")
    assert (int(re.findall(r"\d+", ground)[0]) < 50) == (scheme == "dark")
    contrasts = page.execute_script(CONTRASTS)
    assert len(contrasts) > 100
    assert [found for found in contrasts if found[0] < 4.5] == []


def test_printed_without_controls(page: webdriver.Chrome) -> None:
    emulate(page, media="print")
    assert not one(page, ".controls").is_displayed()
    assert one(page, ".leaderboard").is_displayed()


# ---- tables that are put together from runs of unlike metrics

UNDER = """
    // Each number with the heads that it stands under, by where the browser draws them.
    const over = (heads, cell) => {
      const [box, middle] = [cell.getBoundingClientRect(), (box) => (box.left + box.right) / 2];
      const [head] = [...heads].filter((head) => {
        const { left, right } = head.getBoundingClientRect();
        return left <= middle(box) && middle(box) < right;
      });
      return head.textContent;
    };
    return [...document.querySelectorAll(arguments[0])].map((table) =>
      [...table.querySelectorAll("tbody .interval")].map((interval) => {
        const cell = interval.parentElement;
        const row = cell.parentElement.cells[0];
        const heads = [...table.tHead.rows].map(({ cells }) => over(cells, cell));
        return [row.title || row.textContent, ...heads, cell.firstElementChild.textContent, interval.textContent];
      }),
    );
"""
AVERAGED = """
    return [...document.querySelectorAll(".leaderboard td.average[data-value]")].map((cell) => {
      const middle = (cell.getBoundingClientRect().left + cell.getBoundingClientRect().right) / 2;
      const heads = [...cell.closest("table").tHead.rows].map(({ cells }) => [...cells].find((head) => {
        const { left, right } = head.getBoundingClientRect();
        return left <= middle && middle < right;
      }).textContent);
      return [cell.parentElement.cells[0].title, ...heads, cell.textContent];
    });
"""
DRAWN = """
    return [...document.querySelectorAll(".forest li")].map((row) => [
      row.closest(".board").querySelector(`[data-run='${row.dataset.run}'] th`).title,
      row.closest(".forest").querySelector("summary").textContent.replace(": scores and intervals", ""),
      row.closest("figure").querySelector("figcaption").textContent,
      row.lastElementChild.textContent,
    ]);
"""


@pytest.fixture(scope="module")
def shelves(plugins: None, results: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FinishedRun]:
    """Makes a run on data of three categories: shelves(results, method, metrics, seed)."""
    folder = tmp_path_factory.mktemp("shelves") / "data"
    for part in ("main", "meta"):
        for category in (CATEGORY, "Books", "CDs_and_Vinyl"):
            shutil.copytree(results.parent / "data" / part / CATEGORY, folder / part / category)

    def make(results: Path, method: str, metrics: list[str], seed: int = 0) -> FinishedRun:
        settings = {"dataset": str(folder), "backend": "hostile", "resamples": 20, "results": str(results)}
        settings |= {"method": method, "metrics": metrics, "seed": seed, "limit": 2 + seed % 2}
        job = Job.of(build(settings))
        execute([job], lambda _: None)
        return finished(job.folder)

    return make


MIXTURES: dict[str, list[tuple[str, list[str], int]]] = {
    "a metric less": [("rag", ["rouge", "small", "bleu"], 0), ("copy", ["rouge"], 0)],
    "the one with fewer first": [("copy", ["rouge"], 0), ("rag", ["small", "bleu", "rouge"], 0)],
    "none in common": [("copy", ["bleu"], 0), ("copy", ["small"], 2), ("rag", ["rouge"], 0)],
    "two boards": [("copy", ["bleu"], 0), ("copy", ["rouge", "bleu"], 1), ("rag", ["rouge"], 1), ("rag", ["small"], 0)],
}


@pytest.mark.parametrize("name", [*MIXTURES, "a category without a score"])
def test_each_number_stands_under_its_own_heads(
    name: str, chromium: webdriver.Chrome, shelves: Callable[..., FinishedRun], tmp_path: Path, rewrite: Any
) -> None:
    mixture = MIXTURES.get(name, MIXTURES["a metric less"])
    runs = [shelves(tmp_path / "results", *one) for one in mixture]
    if name not in MIXTURES:
        # As a metric does that finds nothing to count there.
        first = {run.folder: next(iter(run.summary.scores)) for run in runs}
        for folder, category in first.items():
            rewrite(folder / "summary.json", lambda summary, at=category: summary["scores"][at].pop("rouge1") and None)
        runs = [finished(run.folder) for run in runs]
    resize(chromium, 1300)
    open_page(chromium, write_report(tmp_path / "results", tmp_path / "report.html"))
    boards = chromium.execute_script(UNDER, ".leaderboard")
    expected = {
        (run.name, category_name(category), head(column), f"{score.value:.{column.decimals}f}"): MISSING.join(
            f"{end:.{column.interval_decimals}f}" for end in (score.low, score.high)
        )
        for run in runs
        for category, scores in run.summary.scores.items()
        for column, score in ((run.columns[name][1], score) for name, score in scores.items())
    }
    assert len(boards) == (2 if name == "two boards" else 1)
    assert sorted(tuple(cell) for board in boards for cell in board) == sorted(
        (*place, ends) for place, ends in expected.items()
    )
    assert sorted(map(tuple, chromium.execute_script(DRAWN))) == sorted(expected)
    means = []
    for run in runs:
        for name, (_, column) in run.columns.items():
            values = [scores[name].value for scores in run.summary.scores.values() if name in scores]
            if len(values) == 3:
                mean = f"{sum(values) / 3:.{column.decimals}f}"
                means.append((run.name, "Average (of 3 categories)", head(column), mean))
    assert sorted(map(tuple, chromium.execute_script(AVERAGED))) == sorted(means)
    for board in all_of(chromium, ".leaderboard"):
        first = content(all_of(board, "thead th[scope=colgroup]")[0])
        assert first.startswith("Average") == bool(all_of(board, "td.average")), "what sums up stands first"


def test_tasks_with_scores_of_their_own_stand_under_their_own_heads(
    chromium: webdriver.Chrome, results: Path, tmp_path: Path
) -> None:
    copy = copied(results, tmp_path)
    bleu, rouge, size = Column("bleu", "BLEU", 2), Column("rouge1", "R-1"), Column("size", "Size", 1, better="lower")
    columns = {"lamp-4": [rouge, bleu], "lamp-3": [size], "Books": [bleu, size, rouge]}
    places = [(category, column) for category, own in columns.items() for column in own]
    # Each number is of one place; the second row lacks every other one.
    cells = {(at, column.name): Cell(n + 0.5, n, n + 1) for n, (at, column) in enumerate(places)}
    rows = [Row("all", "", cells), Row("some", "", dict(list(cells.items())[::2]))]
    table = Table("mixed", "Mixed", list(columns), [], rows, [], [Group("", True)], columns)
    write_table(table, copy / "tables")
    resize(chromium, 1300)
    open_page(chromium, write_report(copy, tmp_path / "report.html"))
    numbers = [(at, head(column), f"{n + 0.5:.{column.decimals}f}") for n, (at, column) in enumerate(places)]
    (shown,) = chromium.execute_script(UNDER, "#mixed")
    assert [tuple(cell[:4]) for cell in shown] == [
        *(("all", *number) for number in numbers),
        *(("some", *number) for number in numbers[::2]),
    ]


def test_each_data_set_has_its_texts(
    chromium: webdriver.Chrome, results: Path, shelves: Callable[..., FinishedRun], tmp_path: Path
) -> None:
    copy = copied(results, tmp_path)
    shelves(copy, "copy", ["rouge"])
    emulate(chromium, features=[])
    resize(chromium, 1300)
    open_page(chromium, write_report(copy, tmp_path / "report.html", instances=9))
    wait(chromium, lambda: all_of(chromium, "#viewer-2 article"))
    heads = [content(head) for head in all_of(chromium, "#instances > h3")]
    assert heads == [f"data, test: {CATEGORY}", f"data, test: Books, CDs & Vinyl, {CATEGORY}"]
    assert len(all_of(chromium, "#viewer article")) == 5
    assert [content(head) for head in all_of(chromium, "#viewer-2 article h4")] == ["The real review", "copy"]
    one(chromium, "#next-2").click()
    wait(chromium, lambda: content(one(chromium, "#viewer-2 h3 + p bdi")) == "u1<b>")
    assert content(one(chromium, "#position-2")) == "2 of 6"
    position(chromium, "1 of 9")
    assert asked(chromium) == "u0<b>"
    assert len(all_of(chromium, "#category-2 option")) == 4


# ---- without a browser


def copied(results: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(results, tmp_path / "results"))


def test_the_same_results_give_the_same_file(results: Path, report: Path, tmp_path: Path) -> None:
    assert write_report(results, tmp_path / "new" / "again.html", instances=9).read_bytes() == report.read_bytes()


def test_labels(results: Path) -> None:
    runs = [finished(folder) for folder in run_folders(results) if (folder / "summary.json").exists()]
    assert sorted(labels(runs)) == ["copy", "pag, recency, K=2", "rag, recency, K=1", "rag, recency, K=2"]
    run = runs[-1]

    def changed(name: str, **settings: Any) -> FinishedRun:
        own = run.record.identity
        changes = {"identity": own | {"settings": own["settings"] | settings}}
        return FinishedRun(run.folder.with_name(name), run.record.model_copy(update=changes), run.summary)

    method = run.record.identity["settings"]["method"]
    first, *rest = labels([run, changed("a-1", seed=3), changed("b-2", seed=3), changed("c-3", temperature=0.5)])
    assert first.startswith(method)
    # Most have the temperature 0.8: only another one is told.
    assert first.endswith(", seed=0")
    assert [label.partition(", seed=")[2] for label in rest] == ["3 (1)", "3 (2)", "0, temperature=0.5"]


def test_a_metric_that_is_not_the_same_measure_in_all_runs_is_told(results: Path) -> None:
    runs = [finished(next((results / "runs").glob(f"{name}-*"))) for name in ("copy", "pag")]
    assert "is not the same measure" not in leaderboard(runs, "data")
    signatures = runs[1].summary.signatures | {"small": "size|unit:characters"}
    other = FinishedRun(runs[1].folder, runs[1].record, runs[1].summary.model_copy(update={"signatures": signatures}))
    told = "which do not compare: size|unit:characters in pag, recency, K=2; size|unit:words in copy."
    assert f"small is not the same measure in all rows, {told}" in leaderboard([runs[0], other], "data")


def test_only_the_runs_that_are_named(results: Path, tmp_path: Path) -> None:
    written = write_report(results, tmp_path / "report.html", ["k1", "copy"]).read_text()
    assert "2 finished runs" in written
    assert "pag-recency" not in written
    # Of a part that several names contain, all that are finished.
    assert "3 finished runs" in write_report(results, tmp_path / "report.html", ["recency"]).read_text()
    with pytest.raises(ConfigError, match=r"is called 'nosuch'\. See: bench list runs"):
        write_report(results, tmp_path / "report.html", ["nosuch"])


def test_nothing_to_show(results: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no finished run in .*runs; make one with: bench run --method rag"):
        write_report(tmp_path, tmp_path / "report.html")
    with pytest.raises(ConfigError, match="--instances is 0; show at least 1 of each category"):
        write_report(results, tmp_path / "report.html", instances=0)
    with pytest.raises(StoreError, match=r"cannot be written to .*: Is a directory; choose another file: --out"):
        write_report(results, tmp_path)


def index(report: Path) -> dict[str, Any]:
    """What the page knows before an instance is unpacked."""
    match = re.search(r"<script type='application/json' id='index'>(.*?)</script>", report.read_text())
    assert match is not None
    found: dict[str, Any] = json.loads(match[1])
    return found


def test_prompts_that_cannot_be_rebuilt_are_explained(results: Path, tmp_path: Path, rewrite: Any) -> None:
    copy = copied(results, tmp_path)
    (folder,) = (copy / "runs").glob("pag-*")
    rewrite(folder / "run.json", lambda record: record["config"].update(prompts=str(tmp_path / "gone")))
    problems = {run["label"]: run["problem"] for run in index(write_report(copy, tmp_path / "report.html"))["runs"]}
    assert problems.pop("pag, recency, K=2").startswith("prompts: ")
    assert set(problems.values()) == {""}


def test_a_run_that_cannot_be_read_is_named_and_costs_no_other(results: Path, tmp_path: Path, rewrite: Any) -> None:
    copy = copied(results, tmp_path)
    (torn,), (foreign,) = ([*(copy / "runs").glob(f"{name}-*")] for name in ("pag", "copy"))
    (torn / "scores.jsonl").write_bytes((torn / "scores.jsonl").read_bytes()[:-5])
    rewrite(foreign / "summary.json", lambda summary: summary["signatures"].update(gone="gone|v:1"))
    written = write_report(copy, tmp_path / "report.html").read_text()
    assert "2 finished runs" in written
    assert f"<li><bdi>{torn.name}</bdi>: scores.jsonl is damaged: it is not as it was when " in written
    assert f"<li><bdi>{foreign.name}</bdi>: there is no metric &#x27;gone&#x27;" in written
    with pytest.raises(StoreError, match=r"scores\.jsonl is damaged: it is not as it was when the run was completed"):
        write_report(copy, tmp_path / "report.html", ["pag"])


def test_a_table_or_a_figure_that_cannot_be_read_costs_no_other(results: Path, tmp_path: Path) -> None:
    copy = copied(results, tmp_path)
    (copy / "tables" / "table2.html").write_text("<table><tr><td>torn")
    (copy / "tables" / "timing.html").write_bytes(b"\xff")
    (copy / "figures" / "figure3.csv").write_text("x" * 200_000)
    written = write_report(copy, tmp_path / "report.html").read_text()
    for reason in ("table2.html is not whole; ", "timing.html cannot be read: ", "figure3.csv cannot be read: "):
        assert f"<p class='left-out'>Left out: {reason}" in written
    assert "<caption>Title 10</caption>" in written
    assert str(tmp_path) not in written


def test_generations_that_cannot_be_read_cost_only_the_prompts(results: Path, tmp_path: Path, rewrite: Any) -> None:
    copy = copied(results, tmp_path)
    (folder,) = (copy / "runs").glob("pag-*")
    path = folder / "generations.jsonl"
    path.write_text("torn\n" + path.read_text())
    # The summary is of the torn file.
    rewrite(folder / "summary.json", lambda summary: summary["files"].update({path.name: content_hash(path)}))
    problems = {run["label"]: run["problem"] for run in index(write_report(copy, tmp_path / "report.html"))["runs"]}
    assert "line 1 is damaged: it has no checksum" in problems.pop("pag, recency, K=2")
    assert set(problems.values()) == {""}


def test_only_generations_of_the_instances_shown_are_kept(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[set[str]] = []
    real = read_generations

    def read(*arguments: Any) -> Generations:
        rows = real(*arguments)
        kept.append({instance for instance, _, _ in rows})
        return rows

    monkeypatch.setattr("bench.report.instances.read_generations", read)
    report = write_report(results, tmp_path / "report.html", ["pag", "rag-recency-k2"], instances=3)
    assert kept == [{instance["id"] for instance in index(report)["instances"]}] * 2


def with_other_data(path: Path) -> None:
    """Change the identity in a run.json, and with it whom the rows belong to."""
    record, folder = RunRecord.read(path), path.parent
    other = record.model_copy(update={"identity": record.identity | {"data": {CATEGORY: "0" * 64}}})
    path.write_text(other.text())
    for name in ("generations.jsonl", "predictions.jsonl", "scores.jsonl"):
        rows = list(read_rows(folder / name, record.owner))
        (folder / name).write_bytes(sealed_lines(rows, other.owner or ""))
    summary = Summary.read(folder / "summary.json")
    files = {name: content_hash(folder / name) for name in summary.files}
    (folder / "summary.json").write_text(summary.model_copy(update={"files": files}).text())


def test_data_that_changed_are_not_shown(results: Path, tmp_path: Path) -> None:
    copy = copied(results, tmp_path)
    for path in (copy / "runs").glob("*/summary.json"):
        with_other_data(path.with_name("run.json"))
    written = write_report(copy, tmp_path / "report.html").read_text()
    assert "No instances can be shown, for their data cannot be read: data set " in written
    assert "was changed since" in written
    assert "class='leaderboard'" in written


def test_runs_of_an_older_schema_are_reported(results: Path, tmp_path: Path, age: Any) -> None:
    """Their data had other fingerprints: what they had to predict tells whether the data are still the same."""
    copy = copied(results, tmp_path)
    for path in (copy / "runs").glob("*/summary.json"):
        with_other_data(path.with_name("run.json"))
        age(path.parent, 1)
    written = write_report(copy, tmp_path / "report.html")
    assert f"4 of these 4 runs are of an older schema (1; this version writes {SCHEMA})." in written.read_text()
    assert [run["problem"] for run in index(written)["runs"]] == [""] * 4
    assert len(index(written)["instances"]) == 12
    path = next((copy / "runs").glob("pag-*")) / "predictions.jsonl"
    path.write_text(path.read_text().replace("The kite flew", "The kite fell"))
    labels_shown = [run["label"] for run in index(write_report(copy, tmp_path / "report.html"))["runs"]]
    assert labels_shown == ["copy", "rag, recency, K=1", "rag, recency, K=2"]
