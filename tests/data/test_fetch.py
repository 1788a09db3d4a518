"""Fetching with the real clients of the hub, from a small server on this machine that speaks its protocol.

The hub's address is read when `huggingface_hub` is imported, so every call is a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from bench.data.load import load, write_sample

TOKEN = "hf_abcdefghijklmnopqrstuvwxyzSECRET"
MAIN, META, RAW = "owner/DPL-main", "owner/DPL-meta", "McAuley-Lab/Amazon-Reviews-2023"
GATED = "owner/gated-main"
OLD = {MAIN: "a" * 40, META: "b" * 40, RAW: "c" * 40}
NEW = {MAIN: "d" * 40, META: "e" * 40}


@dataclass
class Hub:
    """Serves FOLDER/<owner>/<name>/<commit>/...; the branch "main" of a data set is its commit in `head`."""

    folder: Path
    head: dict[str, str] = field(default_factory=lambda: dict(OLD))
    address: str = ""
    cut: str | None = None
    """Downloads of paths that contain this are cut off in the middle, every time."""
    requests: list[str] = field(default_factory=list)
    authorizations: set[str] = field(default_factory=set)

    def commit(self, repository: str, revision: str) -> Path | None:
        home = self.folder / repository / (self.head[repository] if revision == "main" else revision)
        return home if home.is_dir() else None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        form = self.rfile.read(length).decode()
        self.hub.authorizations.add(self.headers.get("Authorization", ""))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        match = re.fullmatch(
            r"/(?:api/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?"
            r"|datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.*))",
            path,
        )
        if match is None:
            return self._fail(404, "EntryNotFound")
        repository = match[1] or match[5]
        if repository == GATED:
            return self._fail(403, "GatedRepo")
        if not (self.hub.folder / repository).is_dir():
            return self._fail(401, "RepoNotFound")
        home = self.hub.commit(repository, match[3] or match[6] or "main")
        if home is None:
            return self._fail(404, "RevisionNotFound")
        if match[5]:
            return self._file(home, home / match[7])
        if match[2] in (None, "revision"):
            siblings = [{"rfilename": str(path.relative_to(home))} for path in files(home)]
            return self._json({"_id": "0", "id": repository, "sha": home.name, "siblings": siblings})
        if match[2] == "paths-info":
            asked = re.findall(r"paths=([^&]*)", form)
            known = {str(path.relative_to(home)): path for path in [*files(home), *folders(home)]}
            return self._json([entry(home, known[name]) for name in map(unquote, asked) if name in known])
        root = home / (match[4] or "")
        if not root.is_dir():
            return self._fail(404, "EntryNotFound")
        deep = re.search(r"recursive=(true|1)", self.path, re.I)
        found = [*files(root), *folders(root)] if deep else sorted(root.iterdir())
        return self._json([entry(home, path) for path in found])

    def _file(self, home: Path, path: Path) -> None:
        if not path.is_file():
            return self._fail(404, "EntryNotFound")
        content = path.read_bytes()
        first = int(re.findall(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[0])
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", home.name)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - first))
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.cut and self.hub.cut in str(path):
            self.wfile.write(content[first : first + (len(content) - first) // 2])
            self.close_connection = True
            return
        self.wfile.write(content[first:])

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def files(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_file())


def folders(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_dir())


def entry(home: Path, path: Path) -> dict[str, Any]:
    name = str(path.relative_to(home))
    if path.is_dir():
        return {"type": "directory", "oid": "0" * 40, "size": 0, "path": name}
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if name.endswith(".wrong.jsonl"):
        sha256 = "0" * 64
    lfs = {"oid": sha256, "size": len(content), "pointerSize": 130}
    return {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": name, "lfs": lfs}


def review(category: str, n: int) -> dict[str, Any]:
    text = f"{category} {n} 😀"
    return {"rating": 1.0 + n % 5, "title": f"t{n}", "text": text, "asin": f"i{n % 3}", "timestamp": 1000 + n}


def content(category: str, users: int) -> dict[str, list[dict[str, Any]]]:
    splits = {}
    for size, split in enumerate(("train", "val", "test"), start=3):
        profile = [review(category, n) for n in range(size)]
        splits[split] = [{"user_id": f"U{n}", "profile": profile, "data": review(category, size)} for n in range(users)]
    return splits | {"full": [{"title": f"Item {n}", "description": category, "asin": f"i{n}"} for n in range(3)]}


def publish(folder: Path, commits: dict[str, str], users: int) -> None:
    """One commit of main and meta, in Parquet files that a README tells `datasets` of."""
    for repository, splits in ((MAIN, ("train", "val", "test")), (META, ("full",))):
        home = folder / repository / commits[repository]
        card = "---\nconfigs:\n"
        for name in ("Books", "CDs_and_Vinyl"):
            (home / name).mkdir(parents=True)
            card += f"- config_name: {name}\n  data_files:\n"
            for split in splits:
                card += f"  - split: {split}\n    path: {name}/{split}.parquet\n"
                table = pa.Table.from_pylist(content(name, users)[split])
                pyarrow.parquet.write_table(table, home / name / f"{split}.parquet")
        (home / "README.md").write_text(card + "---\n")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path / "hub")
    publish(hub.folder, OLD, users=2)
    publish(hub.folder, NEW, users=3)
    raw = hub.folder / RAW / OLD[RAW] / "raw"
    for folder, prefix in (("review_categories", ""), ("meta_categories", "meta_")):
        (raw / folder).mkdir(parents=True)
        for name in ("Books", "Toys", "Toys.wrong"):
            (raw / folder / f"{prefix}{name}.jsonl").write_text(f'{{"what": "{folder} of {name}"}}\n' * 50)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def bench(hub: Hub, *arguments: str) -> subprocess.CompletedProcess[str]:
    home = hub.folder.parent / "home"
    environment = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_ETAG_TIMEOUT": "5",
        "NO_PROXY": "*",
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", "data", "fetch", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert TOKEN not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def fails(hub: Hub, *arguments: str) -> str:
    done = bench(hub, *arguments)
    assert done.returncode == 2, done
    return done.stderr.strip().splitlines()[-1]


def succeeds(hub: Hub, *arguments: str) -> str:
    done = bench(hub, *arguments)
    assert done.returncode == 0, done
    return done.stdout + done.stderr


def left(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in files(folder)]


BOOKS = [
    "fetched.json",
    *(f"main/Books/{split}.parquet" for split in ("test", "train", "val")),
    "meta/Books/full.parquet",
]


def test_all_categories_and_what_is_written_down(hub: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert f"use it: bench run --dataset {out}" in succeeds(hub, MAIN, "--out", str(out))
    assert len(left(out)) == 9
    record = json.loads((out / "fetched.json").read_text())
    assert record["sources"] == {
        "main": {"id": MAIN, "commit": OLD[MAIN]},
        "meta": {"id": META, "commit": OLD[META]},
    }
    described = {name: wanted for files_ in record["categories"].values() for name, wanted in files_.items()}
    assert sorted(described) == [name for name in left(out) if name != "fetched.json"]
    for name, wanted in described.items():
        data = (out / name).read_bytes()
        assert wanted == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert {"datasets", "huggingface-hub"} <= set(record["packages"])
    assert f"Bearer {TOKEN}" in hub.authorizations, "the token is used ..."
    assert not any(TOKEN.encode() in path.read_bytes() for path in files(out)), "... and never kept"

    splits = {split: str(out / "main" / "Books" / f"{split}.parquet") for split in ("train", "val", "test")}
    again = datasets.load_dataset("parquet", data_files=splits, cache_dir=tmp_path / "cache")
    assert {split: rows.to_list() for split, rows in again.items()} | {"full": []} == content("Books", 2) | {"full": []}

    corpora = load(str(out), None)
    assert list(corpora) == ["Books", "CDs_and_Vinyl"]
    for name, corpus in corpora.items():
        assert corpus.notes == (
            f"{name}: 2 test users, from {MAIN} and {META} on the Hugging Face hub at revision {'a' * 12},{'b' * 12}.",
        )
        test = corpus.split("test")[1]
        assert (test.user_id, corpus.reference(test)) == ("U1", f"{name} 5 😀")
        assert [old.text for old in test.profile] == [f"{name} {n} 😀" for n in range(5)]
        assert test.profile[2].fields["item_description"] == name


def test_only_what_is_asked_for_and_only_once(hub: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"
    succeeds(hub, MAIN, "--category", "Books", "--out", str(out))
    assert left(out) == BOOKS
    assert not any("CDs_and_Vinyl" in request for request in hub.requests)
    before = {path: path.stat().st_mtime_ns for path in files(out)}

    hub.requests.clear()
    assert "Books: already there" in succeeds(hub, MAIN, "--category", "Books", "--out", str(out))
    assert not any("/resolve/" in request for request in hub.requests)
    # With the commits themselves the hub is not even asked.
    hub.requests.clear()
    commits = f"{OLD[MAIN]},{OLD[META]}"
    succeeds(hub, MAIN, "--category", "Books", "--revision", commits, "--out", str(out))
    assert hub.requests == []
    assert {path: path.stat().st_mtime_ns for path in files(out)} == before

    hub.head |= NEW
    message = fails(hub, MAIN, "--category", "CDs_and_Vinyl", "--out", str(out))
    assert f"holds {MAIN} at revision {'a' * 12} and {META} at revision {'b' * 12}, not {MAIN} at revision" in message
    assert f"--revision {commits}" in message
    assert {path: path.stat().st_mtime_ns for path in files(out)} == before
    succeeds(hub, MAIN, "--category", "CDs_and_Vinyl", "--revision", commits, "--out", str(out))
    assert [len(corpus.split("test")) for corpus in load(str(out), None).values()] == [2, 2]


def test_a_folder_that_was_changed(hub: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"
    books = (MAIN, "--category", "Books", "--out", str(out))
    (out / "main" / "Books").mkdir(parents=True)
    assert f"{out}/main/Books exists but was not fetched" in fails(hub, *books)
    (out / "main" / "Books").rmdir()
    succeeds(hub, *books)
    (out / "main" / "Books" / "val.parquet").write_bytes(b"PAR1")
    assert "main/Books/val.parquet is not as it was fetched; remove" in fails(hub, *books)
    # Broken off between the renames of meta and main.
    for path in (out / "main" / "Books").iterdir():
        path.unlink()
    (out / "main" / "Books").rmdir()
    succeeds(hub, *books)
    assert left(out) == BOOKS


@pytest.mark.parametrize("where", ["main/", "meta/"])
def test_a_connection_that_breaks(hub: Hub, tmp_path: Path, where: str) -> None:
    out = tmp_path / "out"
    hub.cut = "full.parquet" if where == "meta/" else "test.parquet"
    message = fails(hub, MAIN, "--category", "Books", "--out", str(out))
    assert "could not be fetched from the Hugging Face hub" in message
    assert left(tmp_path / "out") == []
    hub.cut = None
    succeeds(hub, MAIN, "--category", "Books", "--out", str(out))
    assert left(out) == BOOKS
    assert len(load(str(out), None)["Books"].split("test")) == 2


def test_what_the_hub_does_not_have(hub: Hub, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    message = fails(hub, MAIN, "--category", "Bocks", "--out", out)
    assert "has no category 'Bocks'; did you mean 'Books'? It has: Books, CDs_and_Vinyl" in message
    assert "the hub has no data set owner/other-main" in fails(hub, "owner/other-main", "--out", out)
    assert "is gated: ask for access" in fails(hub, GATED, "--out", out)
    assert "has no revision 'v9'; give a branch" in fails(hub, MAIN, "--revision", "v9", "--out", out)
    assert "the hub has no data set owner/DPL" in fails(hub, "owner/DPL", "--out", out)
    assert "'a b-main' is not the id of a data set" in fails(hub, "a b-main", "--out", out)
    assert not Path(out).exists()


def test_files_at_their_own_places(hub: Hub, tmp_path: Path) -> None:
    """A data set of another form, LongLaMP's, is brought as it lies on the hub, and read."""
    other, commit = "owner/LongLaMP", "9" * 40
    hub.head[other] = commit
    home = hub.folder / other / commit
    write_sample("longlamp-topic", home)
    (home / "README.md").write_text("# It\n")
    (home / "product_review_user").mkdir()
    (home / "product_review_user" / "test.jsonl").write_text("{}\n")
    out = tmp_path / "out"
    hub.cut = "test-00000"
    assert "could not be fetched" in fails(hub, other, "--category", "topic_writing_user", "--out", str(out))
    assert not (out / "topic_writing_user").exists()
    hub.cut = None
    told = succeeds(hub, other, "--category", "topic_writing_user", "--out", str(out))
    assert f"topic_writing_user: fetching {other} at revision {commit[:12]}" in told
    names = [f"topic_writing_user/{split}-00000-of-00001.parquet" for split in ("test", "train", "val")]
    assert left(out) == ["fetched.json", *names]
    record = json.loads((out / "fetched.json").read_text())
    assert record["sources"] == {"files": {"id": other, "commit": commit}}
    assert set(record["categories"]["topic_writing_user"]) == set(names)
    assert "already there" in succeeds(hub, other, "--category", "topic_writing_user", "--out", str(out))
    assert len(load(str(out), None, task="longlamp-topic")["topic_writing_user"].split("test")) == 16
    assert "has no category 'topic_user'; did you mean" in fails(
        hub, other, "--category", "topic_user", "--out", str(out)
    )
    for path in files(home):
        path.rename(path.with_suffix(".csv"))
    assert "has no .parquet, .json or .jsonl file" in fails(hub, other, "--out", str(tmp_path / "more"))


def test_a_hub_that_cannot_be_reached(hub: Hub, tmp_path: Path) -> None:
    hub.address = "http://127.0.0.1:9"
    out = str(tmp_path / "out")
    for arguments in ([MAIN], ["--raw", "Books"]):
        message = fails(hub, *arguments, "--out", out)
        assert "could not be fetched from the Hugging Face hub" in message
        assert "check the name" in message
    assert not Path(out).exists()


def test_data_of_another_form(hub: Hub, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    table = pa.table({"user_id": ["U"], "text": ["x"]})
    # What is at a commit does not change: each case has one of its own.
    cases = [(["val"], f"{MAIN} cannot be read as category Books: Couldn't cast")]
    cases.append((["train", "val", "test"], "Books, split train: there is no column data; this is not the form of"))
    for number, (splits, message) in enumerate(cases):
        home = hub.folder / MAIN / (f"{number}" * 40)
        shutil.copytree(hub.folder / MAIN / OLD[MAIN], home)
        for split in splits:
            pyarrow.parquet.write_table(table, home / "Books" / f"{split}.parquet")
        assert message in fails(hub, MAIN, "--revision", f"{home.name},{OLD[META]}", "--out", out)
    card = home / "README.md"
    card.write_text(card.read_text().replace("split: train", "split: other"))
    home = home.rename(home.with_name("f" * 40))
    message = fails(hub, MAIN, "--revision", f"{home.name},{OLD[META]}", "--out", out)
    assert "Books, split train: there is no such split" in message
    assert not Path(out).exists()


def test_raw_files(hub: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"
    hub.cut = "meta_Books"
    message = fails(hub, "--raw", "Books", "--out", str(out))
    assert "could not be fetched" in message
    assert not list(out.glob("*.jsonl")), "no file that is not whole"
    hub.cut = None
    hub.requests.clear()
    told = succeeds(hub, "--raw", "Books", "--out", str(out))
    assert f"bench data prepare --reviews {out}/Books.jsonl --items {out}/meta_Books.jsonl --category Books" in told
    assert not any(request.startswith("GET") and "review_categories/Books" in request for request in hub.requests)
    assert left(out) == ["Books.jsonl", "fetched.json", "meta_Books.jsonl"]
    assert (out / "meta_Books.jsonl").read_text().startswith('{"what": "meta_categories of Books"}')
    record = json.loads((out / "fetched.json").read_text())
    assert record["sources"] == {"raw": {"id": RAW, "commit": OLD[RAW]}}
    assert set(record["categories"]["Books"]) == {"Books.jsonl", "meta_Books.jsonl"}

    assert "Books: already there" in succeeds(hub, "--raw", "Books", "--out", str(out))
    assert "did you mean 'Books'?" in fails(hub, "--raw", "Boks", "--out", str(out))
    assert "came damaged" in fails(hub, "--raw", "Toys.wrong", "--out", str(out))
    assert [name for name in left(out) if not name.startswith(".Toys")] == [
        "Books.jsonl",
        "fetched.json",
        "meta_Books.jsonl",
    ]
    assert f"holds {RAW} at revision" in fails(hub, MAIN, "--out", str(out))
    assert "leave out ID and --category" in fails(hub, MAIN, "--raw", "Books", "--out", str(out))
