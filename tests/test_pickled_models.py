"""Models whose weights are pytorch_model.bin alone: what is refused, on the hub and without it.

That they give the same as safetensors is tested where they are used: encoders, BERTScore, training.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bench.chat import Chat
from bench.cli import main
from bench.encoders import load_encoder
from bench.errors import ConfigError, ResourceError
from bench.metrics import _contextual
from bench.models import fingerprint, loadable_model, safe_copy
from bench.softprompt.importing import import_adapter
from bench.softprompt.trained import hidden_size
from bench.softprompt.trainer import frozen_model

AsPickle = Callable[..., Path]


@pytest.fixture
def pickled(tiny_qwen2: Path, as_pickle: AsPickle, tmp_path: Path) -> Path:
    return as_pickle(tiny_qwen2, tmp_path / "pickled")


# -- the copy ----------------------------------------------------------------------------------------------------


def test_the_copy_has_the_tensors_and_what_lies_beside_them(pickled: Path, tiny_qwen2: Path) -> None:
    (pickled / "modules.json").write_text('[{"path": ""}, {"path": "1_Pooling"}, {"path": "../other"}]')
    for name in ("1_Pooling", "onnx", "checkpoint-500"):
        (pickled / name).mkdir()
    (pickled / "1_Pooling" / "config.json").write_text("{}")
    for name in (
        "checkpoint-500/pytorch_model.bin",
        "onnx/model.onnx",
        "tf_model.h5",
        "training_args.bin",
        "modeling_evil.py",
        "spiece.model",
    ):
        (pickled / name).write_text("x")
    copy = safe_copy(str(pickled))
    assert copy is not None
    assert loadable_model(str(pickled)) == str(copy)
    expected, found = load_file(tiny_qwen2 / "model.safetensors"), load_file(copy / "model.safetensors")
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    names = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert names >= {"config.json", "tokenizer.json", "1_Pooling/config.json", "spiece.model"}
    assert not any(name.endswith((".bin", ".onnx", ".h5", ".py")) or "checkpoint" in name for name in names)
    assert safe_copy(str(tiny_qwen2)) is None
    assert safe_copy("python:bench/demo/model") is None


def test_tensors_that_share_memory_and_files_of_old(pickled: Path, tiny_qwen2: Path) -> None:
    """Tied weights, and the form that torch wrote before 1.6, which is no archive."""
    tensors = load_file(tiny_qwen2 / "model.safetensors")
    name = "model.embed_tokens.weight"
    tensors["lm_head.weight"] = tensors[name].view(tensors[name].shape)
    for old in (False, True):
        torch.save(tensors, pickled / "pytorch_model.bin", _use_new_zipfile_serialization=not old)
        found = load_file(Path(loadable_model(str(pickled))) / "model.safetensors")
        assert torch.equal(found["lm_head.weight"], tensors[name])


def test_the_fingerprint_covers_other_weights_where_there_are_no_safetensors(pickled: Path, tiny_qwen2: Path) -> None:
    before = fingerprint(str(pickled))
    weights = pickled / "pytorch_model.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert fingerprint(str(pickled)) != before
    both = shutil.copytree(tiny_qwen2, pickled.parent / "both")
    shutil.copy(weights, both)
    assert fingerprint(str(both)) == fingerprint(str(tiny_qwen2))


class Trap:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["a counter", "a path", "a trap", "a number beside", "nothing"])
def test_what_is_no_tensor_is_refused_and_not_loaded(
    pickled: Path, shop_config: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content: Any = {
        "a counter": collections.Counter("abc"),
        "a path": {"model.norm.weight": tmp_path},
        "a trap": {"model.norm.weight": Trap(tmp_path / "run")},
        "a number beside": {"model.norm.weight": torch.ones(3), "step": 3},
        "nothing": {},
    }[kind]
    torch.save(content, pickled / "pytorch_model.bin")
    capsys.readouterr()
    arguments = ["--config", str(shop_config), "--set", f"model={pickled}"]
    assert main(["train", "--method", "prompt_tuning", *arguments]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"pytorch_model\.bin of model '.*' holds more than tensors, .* it was not loaded\. Name", last)
    assert not (tmp_path / "run").exists()


def test_weights_that_are_torn_or_missing_are_one_line(
    pickled: Path, tiny_qwen2: Path, as_pickle: AsPickle, tmp_path: Path
) -> None:
    weights = pickled / "pytorch_model.bin"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ResourceError, match=r"pytorch_model\.bin of model '.*' cannot be read .*download it again"):
        loadable_model(str(pickled))
    sharded = as_pickle(tiny_qwen2, tmp_path / "sharded", 3)
    index = sharded / "pytorch_model.bin.index.json"
    places = json.loads(index.read_text())["weight_map"]
    for change, message in (
        ({"extra.weight": "pytorch_model-00001-of-00003.bin"}, "no shard has extra.weight"),
        ({"extra.weight": "pytorch_model-00009-of-00003.bin"}, "misses pytorch_model-00009-of-00003.bin"),
        ({"extra.weight": "../other.bin"}, "it names a file elsewhere"),
    ):
        index.write_text(json.dumps({"weight_map": places | change}))
        with pytest.raises(ResourceError, match=message):
            loadable_model(str(sharded))


def test_a_disk_without_room_is_one_line(pickled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(
            ResourceError, match=r"the copy cannot be written to .*; make room there, or set BENCH_CACHE"
        ):
            loadable_model(str(pickled))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]
    assert safe_copy(str(pickled)) is not None


# -- the hub -----------------------------------------------------------------------------------------------------

COMMIT = "a" * 40


class Handler(BaseHTTPRequestHandler):
    """Serves FOLDER/<owner>/<name> as a model's only commit, by the hub's protocol."""

    protocol_version = "HTTP/1.1"
    folder: Path
    requests: list[str]

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.requests.append(path)
        about = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/(revision|tree)/.*)?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.*)", path)
        if path in ("/", "/marker"):
            return self._answer(b"")
        if about is not None and (home := self.folder / about[1]).is_dir():
            names = sorted(one.relative_to(home).as_posix() for one in home.rglob("*") if one.is_file())
            if about[3] == "tree":
                rows = [{"type": "file", "oid": "0", "size": (home / n).stat().st_size, "path": n} for n in names]
                return self._answer(json.dumps(rows).encode())
            siblings = [{"rfilename": name} for name in names]
            return self._answer(json.dumps({"id": about[1], "sha": COMMIT, "siblings": siblings}).encode())
        if file is not None and (self.folder / file[1] / file[2]).is_file():
            return self._answer((self.folder / file[1] / file[2]).read_bytes())
        self._answer(b"", 404, {"X-Error-Code": "EntryNotFound" if file else "RepoNotFound"})

    def _answer(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """Its address, the folder of its models, and the paths that it was asked for."""
    requests: list[str] = []
    handler = type("OneHub", (Handler,), {"folder": tmp_path / "hub", "requests": requests})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", tmp_path / "hub", requests
    server.shutdown()
    server.server_close()
    thread.join()


ON_THE_HUB = """
import sys, urllib.request
import torch
from huggingface_hub import constants
from bench.encoders import load_encoder
from bench.errors import ConfigError
from bench.models import loadable_model
from bench.softprompt.trainer import frozen_model

def use():
    encoder = load_encoder("org/old?pooling=mean&normalize=false")
    vector = encoder.encode(["a good story"]).tobytes().hex()
    model = frozen_model("org/old", torch.float32, torch.device("cpu"))
    assert loadable_model("org/old") == loadable_model("org/old@main")
    frozen_model("org/new", torch.float32, torch.device("cpu"))
    assert loadable_model("org/new") == "org/new"
    return encoder.name, vector

online = use()
urllib.request.urlopen(sys.argv[1] + "/marker")
constants.HF_HUB_OFFLINE = True
assert use() == online
try:
    load_encoder("org/old")
except ConfigError as error:
    assert "no modules.json" in str(error)
print(*online)
"""


def test_a_repository_with_a_pickle_alone(
    hub: tuple[str, Path, list[str]], tiny_qwen2: Path, as_pickle: AsPickle, tmp_path: Path
) -> None:
    """Fetched, copied, and used from then on, also without the hub; nobody is asked to convert it."""
    address, folder, requests = hub
    as_pickle(tiny_qwen2, folder / "org" / "old", 2)
    for name in ("tf_model.h5", "modeling_evil.py"):
        (folder / "org" / "old" / name).write_text("x")
    shutil.copytree(tiny_qwen2, folder / "org" / "new")
    environment = os.environ | {
        "HF_ENDPOINT": address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "*",
    }
    command = [sys.executable, "-c", ON_THE_HUB, address]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    name, vector = done.stdout.rsplit(maxsplit=1)
    assert name == f"org/old|rev:{COMMIT[:12]}|pooling:mean|normalize:no"
    expected = load_encoder(f"{tiny_qwen2}?pooling=mean&normalize=false").encode(["a good story"])
    assert vector == expected.tobytes().hex()
    assert done.stderr.count("model 'org/old' has no safetensors") == 1
    assert requests[-1] == "/marker", "a cached model asks for nothing, also for what it lacks"
    asked = "\n".join(requests)
    assert "discussions" not in asked
    assert "tf_model.h5" not in asked
    assert "modeling_evil.py" not in asked


LOADS: dict[str, Callable[[Path], object]] = {
    "encoder": lambda _: load_encoder("org/none?pooling=cls&normalize=true"),
    "known encoder": lambda _: load_encoder("BAAI/bge-m3"),
    "BERTScore": lambda _: _contextual.load("org/none", 1),
    "tokenizer": lambda _: Chat("org/none").tokenizer,
    "pinned tokenizer": lambda _: Chat("org/none@v1").tokenizer,
    "language model": lambda _: frozen_model("org/none", torch.float32, torch.device("cpu")),
    "width": lambda _: hidden_size("org/none"),
    "engine": lambda _: loadable_model("org/none"),
    "adapter": lambda results: import_adapter("org/none", "dep", results),
}


@pytest.mark.parametrize("what", LOADS)
@pytest.mark.parametrize("how", ["offline", "refused"])
def test_what_is_not_cached_answers_at_once_without_the_hub(
    what: str, how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", how == "offline")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    started = time.perf_counter()
    with pytest.raises((ResourceError, ConfigError), match=r"(org/none|BAAI/bge-m3).*give a local folder") as caught:
        LOADS[what](tmp_path)
    assert time.perf_counter() - started < 2
    assert "\n" not in str(caught.value)


def test_finding_that_out_imports_no_model_library(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom bench.chat import Chat\nfrom bench.metrics import _contextual\n"
        "for load in (lambda: Chat('org/none').tokenizer, lambda: _contextual.load('org/none', 1)):\n"
        "    try: load()\n"
        "    except Exception as error: print(type(error).__name__)\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["ResourceError", "ResourceError", "set()"], done.stderr
