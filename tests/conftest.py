"""What several tests need: tiny real models in the layouts of the hub, and small data."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import absl.logging
import pytest
import yaml

from bench import registry
from bench.data.corpus import Corpus
from bench.files import as_lines, content_hash, dump, object_hash, read_line, sealed_lines
from bench.results import SCHEMA

if TYPE_CHECKING:
    from bench_parrot.scripted import Scripted

# absl, which rouge_score brings, keeps the stream that stands for standard error when it is imported. When vLLM then
# configures logging, absl closes it, unless it is standard error still: under capture pytest would lose its file.
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


LONG = (
    "test_ray",
    "test_resume",
    "test_wheel",
    "test_gpu_check",
    "test_marks",
    "test_openai",
    "test_trainer",
    "test_worker",
)
"""Files that take minutes. Begun last, one of them would go on alone while the other core has nothing to do. Ray's
is the first: it reads its settings when it is imported, and vLLM, in the files after it, imports it too."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take long first; everything else keeps its order."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 with a byte-level tokenizer and ChatML template, as a hub model's folder would hold it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("qwen2")
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: index for index, token in enumerate(special + sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    wrapped.chat_template = CHATML
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        # Spare rows, as Qwen2.5 has them, for the marks around soft tokens.
        vocab_size=len(vocabulary) + 21,
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        # Ten times the usual: with less a random model says one letter over and over.
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=vocabulary["<|im_end|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def as_pickle() -> Callable[..., Path]:
    """Copies a model's folder with its weights as pytorch_model.bin alone, as older ones lie on the hub:
    as_pickle(source, target, shards=1)."""

    def write(source: Path, target: Path, shards: int = 1) -> Path:
        import torch
        from safetensors.torch import load_file

        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors*"))
        tensors = load_file(source / "model.safetensors")
        names = sorted(tensors)
        files = [f"pytorch_model-{n + 1:05d}-of-{shards:05d}.bin" for n in range(shards)]
        if shards == 1:
            torch.save({name: tensors[name] for name in names}, target / "pytorch_model.bin")
            return target
        for number, file in enumerate(files):
            torch.save({name: tensors[name] for name in names[number::shards]}, target / file)
        places = {name: files[place % shards] for place, name in enumerate(names)}
        (target / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
        return target

    return write


@pytest.fixture(scope="session")
def demo() -> dict[str, Corpus]:
    """The embedded demo's data."""
    from bench.data.demo import generate

    return generate()


SECRET = "zyzzyva quux"
"""Stands in every reference text of the shop and nowhere else."""

GOODS = {
    "A1": ("Red Kite", "A kite of red cloth."),
    "A2": ("Blue Boat", "A boat that floats."),
    "A3": ("Green Drum", "A drum with two sticks."),
    "A4": ("Old Map", "A map of {{history}} and {braces} {% if %}."),
}


def _review(asin: str, rating: float, title: str, text: str, timestamp: int) -> dict[str, Any]:
    return {"asin": asin, "rating": rating, "title": title, "text": text, "timestamp": timestamp}


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in the published layout, one category "Toys": test users u1, u2, u3 with 3, 1 and 0 past reviews."""
    folder = tmp_path_factory.mktemp("data") / "shop"
    past = [
        _review("A1", 5.0, "Flies high", "Up it went, {{summary}} and all.", 100),
        _review("A2", 2.0, "Leaks", "It sank at once.", 200),
        _review("A3", 4.0, "Loud", "The whole street heard my drum.", 300),
    ]
    rows: list[dict[str, Any]] = [
        {"user_id": "u1", "profile": past, "data": _review("A4", 5.0, "Lovely map", f"The map is {SECRET} one.", 400)},
        {"user_id": "u2", "profile": past[:1], "data": _review("A2", 1.0, "No", f"It {SECRET} sank.", 400)},
        {"user_id": "u3", "profile": [], "data": _review("A3", 3.0, "Hm", f"A drum, {SECRET}.", 400)},
    ]
    for split in ("train", "val", "test"):
        path = folder / "main" / "Toys" / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        chosen = rows if split == "test" else [rows[0] | {"data": _review("A4", 4.0, split, f"{SECRET} {split}", 350)}]
        path.write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
    path = folder / "meta" / "Toys" / "full.jsonl"
    path.parent.mkdir(parents=True)
    items = [{"asin": asin, "title": title, "description": about} for asin, (title, about) in GOODS.items()]
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return folder


@pytest.fixture
def chinese_shop(shop: Path, tmp_path: Path) -> Path:
    """The shop, but u1 and u2 wrote in Chinese what has to be predicted."""
    data = shutil.copytree(shop, tmp_path / "chinese")
    path = data / "main" / "Toys" / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows[:2]:
        row["data"]["text"] = "\u6211\u975e\u5e38\u559c\u6b22"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return data


@pytest.fixture
def shop_config(shop: Path, tiny_qwen2: Path, tmp_path: Path) -> Path:
    """A configuration file: the shop, the random model, results in a folder of the test's own."""
    path = tmp_path / "shop.yaml"
    settings = {
        "dataset": str(shop),
        "model": str(tiny_qwen2),
        "k": 2,
        "max_new_tokens": 8,
        "vllm": {"dtype": "float32", "enforce_eager": True},
        "metrics": ["rouge", "bleu"],
        "resamples": 10,
        "meteor": {"tokenizer": "treebank"},
        "dpl": {"encoder": "hashed-ngrams"},
        "drp": {"encoder": "hashed-ngrams"},
        "pplug": {"encoder": "hashed-ngrams"},
        "e2p": {"encoder": "hashed-ngrams"},
        "dep": {"encoder": "hashed-ngrams", "latent": 8},
        "train": {"epochs": 1, "dtype": "float32"},
        "results": str(tmp_path / "results"),
        "notes": ["A random model stands in for Qwen."],
    }
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


EXAMPLE = Path(__file__).parent / "plugin_example"
"""A package of plugins as an outsider would write it."""


def install_example(patch: pytest.MonkeyPatch, folder: Path, name: str, *kinds: str) -> None:
    """Put the example on the path of this process and of those it starts, as a package `name` that registers its
    plugins of these kinds."""
    points = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    lines = []
    for kind in kinds:
        lines += [f"[bench.{kind}]", *(f"{key} = {value}" for key, value in points[f"bench.{kind}"].items())]
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for path in (EXAMPLE, folder):
        patch.syspath_prepend(str(path))
        patch.setenv("PYTHONPATH", str(path), prepend=os.pathsep)


@pytest.fixture(scope="session", autouse=True)
def model_copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Copies of models are made in a folder of the tests' own, also by the processes that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("bench-cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def scripted_backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The backend `scripted`, which answers without a model: any configuration can name it."""
    with pytest.MonkeyPatch.context() as patch:
        install_example(patch, tmp_path_factory.mktemp("scripted"), "bench-scripted", "backends")
        yield


@pytest.fixture
def example(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """All plugins of the example."""
    folder = tmp_path_factory.mktemp("example")
    install_example(monkeypatch, folder, "bench-parrot", *registry.GROUPS)


@pytest.fixture
def scripted(shop_config: Path) -> type[Scripted]:
    """Turns `shop_config` into a configuration without a model; `calls` are those that the backend got."""
    from bench_parrot.scripted import Scripted

    settings = yaml.safe_load(shop_config.read_text(encoding="utf-8"))
    shop_config.write_text(yaml.safe_dump(settings | {"backend": "scripted"}), encoding="utf-8")
    Scripted.calls.clear()
    return Scripted


Rewrite = Callable[[Path, Callable[[Any], Any]], None]


@pytest.fixture(scope="session")
def rewrite() -> Rewrite:
    """Changes a stored file, a JSON object or a list of rows, as if bench had written it so: its checksums, and the
    summary's of it, are those of the new content. rewrite(path, change): `change` changes it in place or returns it."""

    def write(path: Path, change: Callable[[Any], Any]) -> None:
        lines = path.read_bytes().splitlines()
        rows: Any = json.loads(path.read_bytes()) if path.suffix == ".json" else [read_line(line)[0] for line in lines]
        changed = change(rows)
        rows = rows if changed is None else changed
        if path.suffix != ".json":
            owner = str(json.loads(lines[0]).get("sum", "")).rpartition(".")[0]
            path.write_bytes(sealed_lines(rows, owner))
        else:
            rows.pop("sha256", None)
            path.write_text(dump(rows | ({"sha256": object_hash(rows)} if rows["schema"] == SCHEMA else {})))
        summary = path.with_name("summary.json")
        if path != summary and summary.exists() and json.loads(summary.read_text())["schema"] == SCHEMA:
            write(summary, lambda content: content["files"].update({path.name: content_hash(path)}))

    return write


@pytest.fixture(scope="session")
def age() -> Callable[[Path, int], None]:
    """Makes a run's files those of an older schema, without checksums: age(folder, schema)."""

    def write(folder: Path, schema: int) -> None:
        for name in ("run.json", "summary.json"):
            content = json.loads((folder / name).read_text()) | {"schema": schema}
            for new in ("sha256", "files", "weights"):
                content.pop(new, None)
            (folder / name).write_text(dump(content))
        for path in folder.glob("*.jsonl"):
            path.write_text(as_lines(read_line(line)[0] for line in path.read_bytes().splitlines()))

    return write


Register = Callable[[str, str, type], None]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Makes a class a plugin for the time of a test, as if an installed package registered it: group (without
    "bench."), name, class."""
    package = ModuleType("bench_of_a_test")
    monkeypatch.setitem(sys.modules, package.__name__, package)
    points: list[importlib.metadata.EntryPoint] = []
    known = importlib.metadata.entry_points

    def entry_points(**wanted: Any) -> Any:
        return [*known(**wanted), *(point for point in points if wanted.get("group") == point.group)]

    def add(group: str, name: str, plugin: type) -> None:
        setattr(package, plugin.__name__, plugin)
        points.append(importlib.metadata.EntryPoint(name, f"{package.__name__}:{plugin.__name__}", f"bench.{group}"))
        # Another function each time: what is registered is looked up again.
        monkeypatch.setattr(importlib.metadata, "entry_points", functools.partial(entry_points))

    return add


def resident() -> int:
    """Bytes of memory that this process holds."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Fails a test that leaves the process 2 GB larger: a machine without memory kills a worker with all its tests.

    A model counts where the test or a fixture of its own loads it, not where a module's or the session's fixture does.
    """
    before = resident()
    yield
    growth = resident() - before
    assert growth < 2e9, f"the test left the process {growth / 1e9:.1f} GB larger"
