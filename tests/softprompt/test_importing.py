"""Adapters out of checkpoints of whole models: what is read of them, what is refused, and a run with one."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from bench.cli import main
from bench.config import build, read_config
from bench.errors import StoreError
from bench.files import content_hash
from bench.job import Job
from bench.records import Call
from bench.results import AdapterRecord, Summary
from bench.softprompt.trained import ImportedAdapter

DIMENSION, LATENT, HIDDEN = 512, 16, 128
SHAPES = {
    "sae.encoder.0": (LATENT, DIMENSION),
    "sae.decoder.0": (DIMENSION, LATENT),
    "align_mlp_his.0": (HIDDEN, LATENT),
    "align_mlp_his.2": (HIDDEN, HIDDEN),
    "align_mlp_diff.0": (HIDDEN, LATENT),
    "align_mlp_diff.2": (HIDDEN, HIDDEN),
}
"""Of the weights, by layer, as the released checkpoint names them; each layer has a bias too."""
INDEX = "model.safetensors.index.json"

Tensors = dict[str, torch.Tensor]


def published(seed: int = 0) -> Tensors:
    """The tensors of an adapter, bfloat16 as those that were released."""
    generator = torch.Generator().manual_seed(seed)
    tensors: Tensors = {}
    for name, (rows, columns) in SHAPES.items():
        tensors[f"{name}.weight"] = torch.randn(rows, columns, generator=generator) / math.sqrt(columns)
        tensors[f"{name}.bias"] = torch.randn(rows, generator=generator) / 10
    return {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def language_model(tiny_qwen2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random Qwen2 with spare embeddings for DEP's marks, in several shards."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("language_model")
    shutil.copytree(tiny_qwen2, folder, dirs_exist_ok=True)
    (folder / "model.safetensors").unlink()
    config = Qwen2Config.from_pretrained(tiny_qwen2)
    config.vocab_size = 320
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder, max_shard_size="200KB")  # type: ignore[no-untyped-call]
    assert len(list(folder.glob("*.safetensors"))) > 3
    return folder


@pytest.fixture
def checkpoint(language_model: Path, tmp_path: Path) -> Path:
    """As released: the whole model, the adapter's tensors among its own in the second and the last shard."""
    folder = tmp_path / "released"
    shutil.copytree(language_model, folder)
    index = json.loads((folder / INDEX).read_text())
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    for number, (name, tensor) in enumerate(published().items()):
        shard = shards[1] if number < 5 else shards[-1]
        save_file(load_file(folder / shard) | {name: tensor}, folder / shard, {"format": "pt"})
        index["weight_map"][name] = shard
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def shards_of_adapter(checkpoint: Path) -> set[str]:
    places = json.loads((checkpoint / INDEX).read_text())["weight_map"]
    return {places[name] for name in published()}


def bring(source: Path | str, results: Path, method: str = "dep") -> int:
    return main(["adapter", "import", str(source), "--method", method, "--results", str(results)])


def only_adapter(results: Path) -> Path:
    (folder,) = (results / "adapters").iterdir()
    return folder


def refusal(capsys: pytest.CaptureFixture[str], results: Path) -> str:
    """The one line on stderr; nothing else was printed, and nothing kept."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("bench: ")
    assert printed.err.count("\n") == 1, printed.err
    assert not (results / "adapters").exists()
    return printed.err


def holds_the_adapter_alone(folder: Path, wanted: Mapping[str, torch.Tensor]) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["adapter.json", "adapter.safetensors"]
    kept = load_file(folder / "adapter.safetensors")
    assert kept.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert kept[name].dtype == tensor.dtype
        assert torch.equal(kept[name], tensor), name


def test_the_adapter_alone_is_taken_out(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The other shards are broken: an import that read them would fail.
    others = {path.name for path in checkpoint.glob("*.safetensors")} - shards_of_adapter(checkpoint)
    assert len(shards_of_adapter(checkpoint)) == 2
    assert others
    for name in others:
        (checkpoint / name).write_bytes(b"torn")
    assert bring(checkpoint, tmp_path / "results") == 0
    folder = only_adapter(tmp_path / "results")
    holds_the_adapter_alone(folder, published())
    assert f"use it: bench run --method dep --config official-7b --set adapter={folder} " in capsys.readouterr().out
    record = AdapterRecord.read(folder / "adapter.json")
    assert (record.method, record.source) == ("dep", "released")
    assert record.tensors == {name: list(tensor.shape) for name, tensor in published().items()}
    assert record.weights == content_hash(folder / "adapter.safetensors")
    assert str(tmp_path) not in (folder / "adapter.json").read_text()


def test_importing_again_gives_the_same_folder_and_other_weights_another(checkpoint: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert bring(checkpoint, results) == 0
    first = only_adapter(results)
    assert bring(checkpoint, results) == 0
    assert only_adapter(results) == first
    single = tmp_path / "elsewhere" / "released"
    single.mkdir(parents=True)
    save_file(published(seed=1), single / "model.safetensors")
    assert bring(single, results) == 0
    assert len(list((results / "adapters").iterdir())) == 2


def test_a_single_file_without_an_index(language_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "single"
    folder.mkdir()
    whole: Tensors = {}
    for path in language_model.glob("*.safetensors"):
        whole |= load_file(path)
    save_file(whole | published(), folder / "model.safetensors")
    assert bring(folder, tmp_path / "results") == 0
    holds_the_adapter_alone(only_adapter(tmp_path / "results"), published())


def test_a_tensor_that_is_missing(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = json.loads((checkpoint / INDEX).read_text())
    del index["weight_map"]["align_mlp_diff.2.bias"]
    (checkpoint / INDEX).write_text(json.dumps(index))
    assert bring(checkpoint, tmp_path / "results") == 2
    assert "misses 1 of the adapter's 12 tensors, such as align_mlp_diff.2.bias" in refusal(
        capsys, tmp_path / "results"
    )


@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_a_number_that_is_not_finite(number: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = published()
    tensors["align_mlp_diff.2.bias"][3] = number
    (tmp_path / "released").mkdir()
    save_file(tensors, tmp_path / "released" / "model.safetensors")
    assert bring(tmp_path / "released", tmp_path / "results") == 2
    assert "align_mlp_diff.2.bias holds numbers that are not finite; fetch it again" in refusal(
        capsys, tmp_path / "results"
    )


def test_a_plain_language_model(language_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bring(language_model, tmp_path / "results") == 2
    assert "misses 12 of the adapter's 12 tensors" in refusal(capsys, tmp_path / "results")


def test_an_index_that_promises_too_much(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = json.loads((checkpoint / INDEX).read_text())
    other = min({path.name for path in checkpoint.glob("*.safetensors")} - shards_of_adapter(checkpoint))
    index["weight_map"]["sae.encoder.0.weight"] = other
    (checkpoint / INDEX).write_text(json.dumps(index))
    assert bring(checkpoint, tmp_path / "results") == 2
    said = refusal(capsys, tmp_path / "results")
    assert other in said
    assert "sae.encoder.0.weight" in said


class Trap:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter.pt", "model.safetensors"])
def test_a_pickle_is_never_read(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, sprung = tmp_path / "pickled", tmp_path / "sprung"
    folder.mkdir()
    (folder / name).write_bytes(pickle.dumps(Trap(sprung)))
    (folder / "modeling_dep.py").write_text(f"import pathlib; pathlib.Path({str(sprung)!r}).touch()")
    (folder / "config.json").write_text('{"auto_map": {"AutoModelForCausalLM": "modeling_dep.DEP"}}')
    assert bring(folder, tmp_path / "results") == 2
    said = refusal(capsys, tmp_path / "results")
    wanted = f"{name} cannot be read" if name == "model.safetensors" else "holds no safetensors checkpoint"
    assert wanted in said
    assert not sprung.exists()
    pickle.loads((folder / name).read_bytes())
    assert sprung.exists(), "the trap works"


@pytest.mark.parametrize("place", ["../outside.safetensors", "ABSOLUTE", "..", ""])
def test_an_index_that_leads_elsewhere(
    place: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside.safetensors"
    save_file(published(), outside)
    index = json.loads((checkpoint / INDEX).read_text())
    index["weight_map"] |= dict.fromkeys(published(), place.replace("ABSOLUTE", str(outside)))
    (checkpoint / INDEX).write_text(json.dumps(index))
    assert bring(checkpoint, tmp_path / "results") == 2
    assert "is missing, though the index names it" in refusal(capsys, tmp_path / "results")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": null}', '{"weight_map": "a"}', "\udcff"])
def test_an_index_that_is_none(
    content: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoint / INDEX).write_bytes(content.encode("utf-8", "surrogateescape"))
    assert bring(checkpoint, tmp_path / "results") == 2
    said = refusal(capsys, tmp_path / "results")
    assert "released" in said
    assert f"{INDEX} cannot be read" in said


def test_a_torn_shard(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = checkpoint / max(shards_of_adapter(checkpoint))
    shard.write_bytes(shard.read_bytes()[:-100])
    assert bring(checkpoint, tmp_path / "results") == 2
    assert f"released: {shard.name} cannot be read" in refusal(capsys, tmp_path / "results")
    shard.unlink()
    assert bring(checkpoint, tmp_path / "results") == 2
    assert f"released: {shard.name} is missing" in refusal(capsys, tmp_path / "results")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("pplug", "tensors, such as "),
        ("rag", "method rag has no adapter"),
        ("deb", "'deb'; did you mean 'dep'"),
    ],
)
def test_the_wrong_method(
    method: str, message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bring(checkpoint, tmp_path / "results", method) == 2
    assert message in refusal(capsys, tmp_path / "results")


def test_the_hub_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert bring("org/name@v1", tmp_path / "results") == 2
    said = refusal(capsys, tmp_path / "results")
    assert "model org/name could not be fetched from the Hugging Face hub (" in said
    assert "give a local folder" in said
    assert bring("no-such-folder", tmp_path / "results") == 2
    assert "neither a folder that exists nor a hub id" in refusal(capsys, tmp_path / "results")


def test_of_a_hub_checkpoint_only_the_shards_that_matter_are_fetched(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None, str]] = []

    def download(repository: str, file: str, revision: str | None = None, **_: Any) -> str:
        asked.append((repository, revision, file))
        return str(checkpoint / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    # The hub itself need not be there.
    monkeypatch.setattr("bench.hub.is_offline", lambda: False)
    assert bring("org/name@v1", tmp_path / "results") == 0
    holds_the_adapter_alone(only_adapter(tmp_path / "results"), published())
    assert {(repository, revision) for repository, revision, _ in asked} == {("org/name", "v1")}
    assert {file for *_, file in asked} == {INDEX, *shards_of_adapter(checkpoint)}


# -- a run with an imported adapter ----------------------------------------------------------------------------------


@pytest.fixture
def adapter(checkpoint: Path, tmp_path: Path) -> Path:
    assert bring(checkpoint, tmp_path / "imports") == 0
    return only_adapter(tmp_path / "imports")


def test_importing_says_how_the_adapter_is_decoded(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bring(checkpoint, tmp_path) == 0
    kept, use, why = capsys.readouterr().out.splitlines()
    assert kept == f"kept in {only_adapter(tmp_path)}"
    assert use == f"use it: bench run --method dep --config official-7b --set adapter={only_adapter(tmp_path)} ..."
    assert "any other configuration makes others" in why


@pytest.mark.parametrize(("fidelity", "told"), [("paper", True), ("official", False)])
def test_a_run_that_decodes_it_otherwise_says_so(
    fidelity: str, told: bool, config: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--set", f"adapter={adapter}", "--set", f"fidelity={fidelity}", "--limit", "1"]
    assert main(["run", "--method", "dep", "--config", str(config), *settings]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "fidelity is paper" in line]
    assert len(said) == told
    assert not told or f"dep: the adapter {adapter.name} is imported and " in said[0]


@pytest.fixture
def config(shop_config: Path, language_model: Path) -> Path:
    """The shop with a model that has embeddings for DEP's marks, and an encoder that needs no model."""
    settings = yaml.safe_load(shop_config.read_text())
    settings |= {"model": str(language_model), "dep": {"encoder": "hashed-ngrams", "latent": LATENT}}
    shop_config.write_text(yaml.safe_dump(settings))
    return shop_config


def run(config: Path, adapter: Path, **settings: Any) -> Job:
    return Job.of(build(read_config(str(config)), {"method": "dep", "adapter": str(adapter), **settings}))


def gelu(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * values * (1 + np.vectorize(math.erf)(values / math.sqrt(2))))


def vectors_by_hand(features: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    """Eq. 5 and 6 with the published tensors."""
    weights = {name: tensor.double().numpy() for name, tensor in published().items()}

    def layer(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])

    rows = []
    for embedding, is_diff in zip(features["embeddings"], features["is_diff"], strict=True):
        kind = "align_mlp_diff" if is_diff else "align_mlp_his"
        latent = gelu(layer("sae.encoder.0", embedding.astype(np.float64)))
        rows.append(layer(f"{kind}.2", gelu(layer(f"{kind}.0", latent))))
    return np.stack(rows)


def test_a_run_through_vllm_with_the_adapters_vectors(
    config: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.backends.vllm import VLLMBackend

    calls: list[Call] = []
    submit = VLLMBackend.submit

    def watched(self: VLLMBackend, call: Call) -> None:
        calls.append(call)
        submit(self, call)

    monkeypatch.setattr(VLLMBackend, "submit", watched)
    arguments = ["run", "--method", "dep", "--config", str(config), "--set", f"adapter={adapter}"]
    assert main(arguments) == 0
    slots = {call.key[0]: call.prompt.slots for call in calls}
    assert slots["Toys/test/u1"] == ("[HIS_TOKEN_0]", "[HIS_TOKEN_1]"), "nobody else reviewed these items"
    assert slots["Toys/test/u2"] == ("[HIS_TOKEN_0]", "[DIFF_TOKEN_0]")
    assert slots["Toys/test/u3"] == ()
    for call in calls:
        if call.prompt.slots:
            assert call.vectors is not None
            np.testing.assert_allclose(call.vectors, vectors_by_hand(call.prompt.features), rtol=1e-4, atol=1e-5)
    # Nothing was trained, and no more is kept than was: of the language model not a tensor.
    assert not (tmp_path / "results" / "adapters").exists()
    assert list((tmp_path / "results").rglob("*.safetensors")) == []
    (summary,) = (tmp_path / "results" / "runs").glob("*/summary.json")
    used = Summary.read(summary).adapter
    assert used is not None
    assert used.name == adapter.name
    assert len(calls) == 3
    capsys.readouterr()
    assert main(arguments) == 0
    assert len(calls) == 3, "a complete run is not made again"


def test_identity_is_of_the_weights_not_of_their_place(config: Path, adapter: Path, tmp_path: Path) -> None:
    before = run(config, adapter)
    moved = tmp_path / "moved"
    shutil.copytree(adapter, moved)
    after = run(config, moved)
    assert after.identity == before.identity
    assert after.folder == before.folder
    assert run(config, moved, train={"epochs": 9}).identity == before.identity, "it is not trained here"
    tensors = load_file(moved / "adapter.safetensors")
    tensors["sae.encoder.0.bias"][0] += 1
    save_file(tensors, moved / "adapter.safetensors")
    with pytest.raises(StoreError, match=r"it is not as it was imported\. Import it again: bench adapter import"):
        run(config, moved)
    ImportedAdapter.write(moved, "dep", tensors)
    changed = run(config, moved)
    assert changed.identity != before.identity
    assert changed.folder != before.folder
    trained = Job.of(build(read_config(str(config)), {"method": "dep"}))
    assert trained.identity != before.identity
    assert before.trains is None
    assert trained.trains is not None


@pytest.mark.parametrize("latent", [LATENT // 2, 512])
def test_an_adapter_of_other_sizes(
    latent: int, config: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--method", "dep", "--config", str(config), "--set", f"adapter={adapter}"]
    capsys.readouterr()
    assert main([*arguments, "--set", f"dep.latent={latent}"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"bench: the adapter {adapter / 'adapter.safetensors'} does not fit this configuration")
    for name in ("sae.encoder.0.weight", "sae.encoder.0.bias"):
        assert name in said
    assert list((tmp_path / "results").rglob("summary.json")) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("adapter.json", "does not hold an imported adapter"),
        ("adapter.safetensors", "does not hold an imported adapter"),
        ("method", "is of method pplug, not of dep"),
    ],
)
def test_a_folder_that_holds_no_such_adapter(
    damage: str, message: str, config: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if damage == "method":
        record = AdapterRecord.read(adapter / "adapter.json")
        (adapter / "adapter.json").write_text(record.model_copy(update={"method": "pplug"}).text())
    else:
        (adapter / damage).unlink()
    capsys.readouterr()
    assert main(["run", "--method", "dep", "--config", str(config), "--set", f"adapter={adapter}"]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
