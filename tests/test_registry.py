"""Names to plugins: built-ins by file, outsiders by entry point, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import ClassVar

import pytest

from bench import registry
from bench.config import Section, build, read_config
from bench.errors import ConfigError, PluginError
from bench.execute import execute
from bench.job import Job
from bench.results import Prediction, RunRecord, rows_of

Register = Callable[[str, str, type], None]


@dataclass(frozen=True)
class Shelf:
    """A retriever with options, one of them a switch between paper and released code."""

    official: ClassVar[dict[str, object]] = {"depth": 9}

    depth: int = 3
    folder: Path = Path("x")

    def rank(self) -> None: ...


class NoDataclass:
    def rank(self) -> None: ...


@dataclass(frozen=True)
class NoRank:
    depth: int = 3


INSTANCE = Shelf()


def only(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    """Let these retrievers, by name and place, be all that other packages register."""
    found = EntryPoints(EntryPoint(name, value, "bench.retrievers") for name, value in points)

    def entry_points(group: str) -> EntryPoints:
        return found.select(group=group)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("methods", {"copy", "nonperso", "pag", "rag"}),
        ("retrievers", {"bm25", "contriever", "random", "recency"}),
        ("metrics", {"bertscore", "bleu", "meteor", "rouge"}),
        ("tasks", {"reviews"}),
    ],
)
def test_built_ins_keep_their_protocol(group: str, names: set[str]) -> None:
    assert names <= set(registry.names(group))
    for name in names:
        assert registry.load(group, name).__name__.lower() == name


@pytest.mark.parametrize("group", registry.GROUPS)
def test_every_built_in_loads(group: str) -> None:
    assert registry.builtin_names(group)
    for name in registry.builtin_names(group):
        plugin = registry.load(group, name)
        assert plugin.__module__ == f"{registry.HOMES[group]}.{name.replace('-', '_')}"


def test_an_unknown_name_lists_the_near_match_and_all() -> None:
    with pytest.raises(PluginError) as caught:
        registry.load("retrievers", "recensy")
    assert str(caught.value) == (
        "there is no retriever 'recensy'; did you mean 'recency'? There are: bm25, contriever, random, recency"
    )
    with pytest.raises(PluginError, match=r"no metric 'zzz'\. There are: accuracy, "):
        registry.load("metrics", "zzz")


def test_private_modules_are_no_plugins() -> None:
    assert not [name for group in registry.GROUPS for name in registry.names(group) if name.startswith("_")]
    with pytest.raises(PluginError):
        registry.load("metrics", "_words")


def test_an_outsider_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, ("shelf", f"{__name__}:Shelf"))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    assert registry.names("retrievers") == ["bm25", "contriever", "random", "recency", "shelf"]
    assert registry.load("retrievers", "shelf") is Shelf
    assert "shelf" not in registry.names("metrics")


def test_an_outsider_cannot_replace_a_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, ("bm25", "other:BM25"))
    with pytest.raises(PluginError, match=r"registers 'bm25' in bench\.retrievers, the name of a built-in"):
        registry.names("retrievers")


def test_two_outsiders_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, ("shelf", "one:Shelf"), ("shelf", "two:Shelf"))
    with pytest.raises(PluginError, match=r"two packages register 'shelf' .* \(one:Shelf and two:Shelf\)"):
        registry.names("retrievers")


def test_one_package_found_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, ("shelf", "one:Shelf"), ("shelf", "one:Shelf"))
    assert registry.names("retrievers")[-1] == "shelf"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:X", r"'shelf' \(no_such_module:X\) cannot be imported: No module named"),
        ("SELF:Missing", "cannot be imported: .*Missing"),
        ("SELF:NoDataclass", r"lacks @dataclass\(frozen=True\)"),
        ("SELF:NoRank", r"NoRank\) lacks rank"),
        ("SELF:INSTANCE", "must be a class, it is Shelf"),
        ("SELF", "must be a class, it is <module"),
    ],
)
def test_an_outsider_that_breaks_the_protocol(value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    only(monkeypatch, ("shelf", value.replace("SELF", __name__)))
    with pytest.raises(PluginError, match=message):
        registry.load("retrievers", "shelf")


def test_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    only(monkeypatch, ("shelf", f"{__name__}:Shelf"))
    made = registry.create("retrievers", "shelf", {"depth": "4", "folder": "y"})
    assert made == Shelf(4, Path("y"))
    assert registry.options_of(made) == {"depth": 4, "folder": "y"}
    assert registry.create("retrievers", "shelf", {}, "official") == Shelf(9)
    assert registry.create("retrievers", "shelf", {"depth": 2}, "official") == Shelf(2)
    assert registry.create("retrievers", "shelf", {}) == Shelf(3)
    with pytest.raises(ConfigError, match=r"shelf\.dept is not .* did you mean 'depth'\? Its options: depth, folder"):
        registry.create("retrievers", "shelf", {"dept": 4})
    with pytest.raises(ConfigError, match=r"shelf\.depth: must be a whole number, got 'deep'"):
        registry.create("retrievers", "shelf", {"depth": "deep"})


class Engine:
    """A backend is an engine that runs, not a set of options: it need not be a dataclass."""

    settings: ClassVar[type[Section]] = Section
    takes_vectors: ClassVar[bool] = False
    applies_template: ClassVar[bool] = True
    timing: ClassVar[dict[str, object]] = {}

    def check(self) -> None: ...

    def device(self) -> None: ...

    def submit(self) -> None: ...

    def completed(self) -> None: ...

    def close(self) -> None: ...


def test_a_backend_of_an_outsider(register: Register) -> None:
    register("backends", "engine", Engine)
    assert registry.load("backends", "engine") is Engine
    register("backends", "shelf", Shelf)
    with pytest.raises(
        PluginError, match=r"backend 'shelf' \(.*Shelf\) lacks settings, takes_vectors, applies_template, "
    ):
        registry.load("backends", "shelf")


@dataclass(frozen=True)
class HalfATask:
    target: ClassVar[str] = "note"
    grouped: ClassVar[bool] = False

    def query(self) -> None: ...


@pytest.mark.parametrize(
    ("group", "lacks"),
    [
        (
            "tasks",
            "timed, long_fields, metrics, max_new_tokens, document, about, shown, shown_record",
        ),
        ("layouts", "task, form, categories, read"),
        ("methods", "properties, steps"),
        ("metrics", "columns, statistics, check, signature, rows, aggregate"),
    ],
)
def test_what_a_plugin_lacks_is_named(group: str, lacks: str, register: Register) -> None:
    register(group, "half", HalfATask)
    with pytest.raises(PluginError) as caught:
        registry.load(group, "half")
    assert str(caught.value).endswith(f"HalfATask) lacks {lacks}")


@dataclass(frozen=True)
class NamesForColumns:
    """As metrics were before a score said which way is better."""

    columns: ClassVar[tuple[str, ...]] = ("size",)
    statistics: ClassVar[tuple[str, ...]] = ("size",)
    check = signature = rows = aggregate = lambda self: None


def test_a_metric_whose_columns_are_names_is_refused(register: Register) -> None:
    register("metrics", "old", NamesForColumns)
    with pytest.raises(PluginError, match=r"its columns must be bench\.protocols\.Column, e\.g\. Column\(.size.\)"):
        registry.load("metrics", "old")


def test_options_are_read_anew_from_each_class(register: Register) -> None:
    """Two tests, or two packages, may name their classes alike."""
    for default in (1, 2):
        plugin = dataclasses.make_dataclass(
            "Rack", [("depth", int, dataclasses.field(default=default))], namespace={"rank": Shelf.rank}, frozen=True
        )
        register("retrievers", f"rack{default}", plugin)
        made = registry.create("retrievers", f"rack{default}", {})
        assert (type(made), registry.options_of(made)) == (plugin, {"depth": default})


def test_where_the_templates_of_a_plugin_lie() -> None:
    rag = registry.load("methods", "rag")
    folder = registry.templates_folder(rag, "rag")
    assert folder is not None
    assert (folder / "write.txt").is_file()
    assert registry.templates_folder(Shelf, "shelf") == Path(__file__).parent / "prompts" / "shelf"


@pytest.mark.usefixtures("example", "scripted")
def test_outsiders_with_their_options_in_a_run(shop_config: Path) -> None:
    """Of each kind one; `test_extending.py` shows what else they can do."""
    chosen = {"method": "parrot", "retriever": "oldest", "metrics": ["size", "rouge"], "limit": 2}
    options = {"size": {"unit": "characters"}, "parrot": {"shout": True}, "scripted": {"text": "said of {instance}"}}
    job = Job.of(build(read_config(str(shop_config)), chosen, options))
    assert job.folder.name.startswith("parrot-oldest-k2-shop-")
    (summary,) = execute([job], processes=1)
    rows = list(rows_of(Prediction, job.folder / "predictions.jsonl"))
    assert [(row.blocks_shown, row.calls) for row in rows] == [(2, 1), (1, 1)]
    # The oldest review comes first, in capitals by the option, then what the model said.
    assert [row.prediction for row in rows] == [
        f"UP IT WENT, {{{{SUMMARY}}}} AND ALL. said of Toys/test/{user}" for user in ("u1", "u2")
    ]
    assert summary.signatures["size"] == "size|unit:characters"
    mean = sum(len(row.prediction) for row in rows) / 2
    assert summary.scores["Toys"]["size"].value == pytest.approx(mean)
    identity = RunRecord.read(job.folder / "run.json").identity
    assert identity["method_options"] == {"shout": True}
    assert set(identity["prompts"]) == {"write", "block", "instruction", "given"}
