"""Names to plugins: built-ins by file, outsiders by entry point, and what is refused."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import ClassVar

import pytest

from bench import registry
from bench.errors import ConfigError, PluginError

EXAMPLE = Path(__file__).parent / "plugin_example"


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


def register(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
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
    ],
)
def test_built_ins_keep_their_protocol(group: str, names: set[str]) -> None:
    assert names <= set(registry.names(group))
    for name in names:
        assert registry.load(group, name).__name__.lower() == name


def test_an_unknown_name_lists_the_near_match_and_all() -> None:
    with pytest.raises(PluginError) as caught:
        registry.load("retrievers", "recensy")
    assert str(caught.value) == (
        "there is no retriever 'recensy'; did you mean 'recency'? There are: bm25, contriever, random, recency"
    )
    with pytest.raises(PluginError, match=r"no metric 'zzz'\. There are: bertscore, "):
        registry.load("metrics", "zzz")


def test_private_modules_are_no_plugins() -> None:
    assert not [name for group in registry.GROUPS for name in registry.names(group) if name.startswith("_")]
    with pytest.raises(PluginError):
        registry.load("metrics", "_words")


def test_an_outsider_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, ("shelf", f"{__name__}:Shelf"))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    assert registry.names("retrievers") == ["bm25", "contriever", "random", "recency", "shelf"]
    assert registry.load("retrievers", "shelf") is Shelf
    assert "shelf" not in registry.names("metrics")


def test_an_outsider_cannot_replace_a_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, ("bm25", "other:BM25"))
    with pytest.raises(PluginError, match=r"registers 'bm25' in bench\.retrievers, the name of a built-in"):
        registry.names("retrievers")


def test_two_outsiders_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, ("shelf", "one:Shelf"), ("shelf", "two:Shelf"))
    with pytest.raises(PluginError, match=r"two packages register 'shelf' .* \(one:Shelf and two:Shelf\)"):
        registry.names("retrievers")


def test_one_package_found_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, ("shelf", "one:Shelf"), ("shelf", "one:Shelf"))
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
    register(monkeypatch, ("shelf", value.replace("SELF", __name__)))
    with pytest.raises(PluginError, match=message):
        registry.load("retrievers", "shelf")


def test_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    register(monkeypatch, ("shelf", f"{__name__}:Shelf"))
    made = registry.create("retrievers", "shelf", {"depth": "4", "folder": "y"})
    assert made == Shelf(4, Path("y"))
    assert registry.options_of(made) == {"depth": 4, "folder": "y"}
    assert registry.create("retrievers", "shelf", {}, "official") == Shelf(9)
    assert registry.create("retrievers", "shelf", {"depth": 2}, "official") == Shelf(2)
    assert registry.create("retrievers", "shelf", {}) == Shelf(3)
    with pytest.raises(ConfigError, match=r"shelf\.dept is not .* did you mean 'depth'\? Its options: depth, folder"):
        registry.create("retrievers", "shelf", {"dept": 4})
    with pytest.raises(ConfigError, match=r"shelf\.depth: .*valid integer.*, got 'deep'"):
        registry.create("retrievers", "shelf", {"depth": "deep"})


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has the example package installed by pip."""
    work = tmp_path_factory.mktemp("plugin")
    source, target = work / "source", work / "site"
    # pip builds in place: not in the repository.
    source.mkdir()
    for path in EXAMPLE.rglob("*"):
        if path.suffix in {".toml", ".py"} and "build" not in path.parts:
            copy = source / path.relative_to(EXAMPLE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", str(target), str(source)], check=True, timeout=120
    )
    return os.environ | {"PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}


def bench(arguments: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", *arguments], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_package_is_listed(installed: dict[str, str]) -> None:
    assert bench(["list", "methods"], installed).split()[-1] == "parrot"
    assert bench(["list", "retrievers"], installed).split()[-1] == "oldest"
    assert bench(["list", "metrics"], installed).split()[-1] == "size"
    assert "parrot" not in bench(["list", "methods"], dict(os.environ))


class Server(BaseHTTPRequestHandler):
    """Answers every chat with the number of its messages: a model for a method whose texts are not the point."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"role": "assistant", "content": f"said to {len(asked['messages'])} messages"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        body = json.dumps(answer | {"usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a chat server on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/v1"
        running.shutdown()
        thread.join()


def test_an_installed_package_runs(installed: dict[str, str], server: str, shop_config: Path, tmp_path: Path) -> None:
    arguments = ["run", "--backend", "openai", "--base-url", server]
    arguments += ["--config", str(shop_config), "--method", "parrot", "--retriever", "oldest", "--limit", "2"]
    arguments += ["--set", "metrics=[size, rouge]", "--set", "size.unit=characters", "--set", "parrot.shout=true"]
    printed = bench(arguments, installed)
    assert "size" in printed
    assert "rouge1" in printed
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    assert folder.name.startswith("parrot-oldest-k2-shop-")
    from bench.store import read_json, read_rows

    rows = list(read_rows(folder / "predictions.jsonl"))
    assert [row["blocks_shown"] for row in rows] == [2, 1]
    assert [row["calls"] for row in rows] == [1, 1]
    # The oldest review comes first, in capitals by the option, then what the model said.
    assert {row["prediction"] for row in rows} == {"UP IT WENT, {{SUMMARY}} AND ALL. said to 2 messages"}
    summary = read_json(folder / "summary.json")
    assert summary["signatures"]["size"] == "size|unit:characters"
    mean = sum(len(row["prediction"]) for row in rows) / 2
    assert summary["scores"]["Toys"]["size"]["value"] == pytest.approx(mean)
    assert read_json(folder / "run.json")["identity"]["method_options"] == {"shout": True}
