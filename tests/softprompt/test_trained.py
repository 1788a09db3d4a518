"""The adapters of runs: what lies in their folders, those of an older schema, and what needs no torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from bench.config import build, read_config
from bench.data.corpus import Corpus
from bench.errors import ConfigError, DamagedError, StoreError
from bench.execute import execute, train_adapter
from bench.job import Job
from bench.naming import readable_name
from bench.protocols import Column
from bench.resolved import Inputs, Run
from bench.results import SCHEMA, AdapterRecord, RunRecord, Selection, Summary
from bench.softprompt.adapters import AdapterFiles, read_tensors
from bench.softprompt.trained import ImportedAdapter, TrainedAdapter

SETTINGS = {
    "method": "prompt_tuning",
    "dataset": "demo",
    "categories": ["Books"],
    "k": 1,
    "input_budget": 400,
    "meteor": {"tokenizer": "treebank"},
    "train": {"epochs": 2, "limit": 2, "validation": 2, "dtype": "float32"},
}


@pytest.fixture
def adapter(demo: dict[str, Corpus], tmp_path: Path) -> TrainedAdapter:
    config = build(SETTINGS, {"results": str(tmp_path)})
    return TrainedAdapter(Run(config, Inputs({"Books": demo["Books"]})))


def older(folder: Path, name: str, **content: Any) -> dict[str, bytes]:
    """Write a file as the first schema had it; the folder's content."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"schema": 1, "method": "prompt_tuning", **content}))
    return content_of(folder)


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_what_a_training_leaves(adapter: TrainedAdapter) -> None:
    assert not adapter.is_trained
    train_adapter(adapter)
    assert adapter.is_trained
    assert sorted(content_of(adapter.folder)) == [
        *("adapter.json", "checkpoint.safetensors", "epoch-1.safetensors", "epoch-2.safetensors"),
        *("log.jsonl", "loss.png", "training.json"),
    ]
    record, training, steps = adapter.files.record(), adapter.files.training(), adapter.files.steps()
    assert record is not None
    assert training is not None
    assert (record.schema_version, record.method, record.identity) == (SCHEMA, "prompt_tuning", adapter.identity)
    assert (training.epochs, training.steps, training.instances) == (2, 2, 2)
    assert [(step.step, step.epoch, step.instances) for step in steps] == [(1, 1, 2), (2, 2, 2)]
    assert training.seconds == pytest.approx(sum(step.seconds for step in steps))
    assert adapter.selection is None
    with pytest.raises(StoreError, match="has no chosen epoch yet; run `bench train`"):
        adapter.weights()
    assert adapter.weights(2).is_file()


def test_an_adapter_of_an_older_version_is_told_of_and_not_used(adapter: TrainedAdapter) -> None:
    name = f"{readable_name(adapter.training)}-0123456789"
    before = older(adapter.folder.parent / name, "adapter.json")
    said: list[str] = []
    train_adapter(adapter, said.append)
    assert said == [
        f"{name} is of an older schema (1; this version writes {SCHEMA}): it is not used, and the adapter is trained "
        "anew"
    ]
    assert content_of(adapter.folder.parent / name) == before
    train_adapter(adapter, said.append)
    assert len(said) == 1, "there is nothing to train"


@pytest.mark.parametrize("name", ["adapter.json", "training.json"])
def test_a_folder_of_an_older_schema_is_neither_used_nor_gone_on_with(adapter: TrainedAdapter, name: str) -> None:
    complete = dict.fromkeys(("epochs", "steps", "instances", "parameters", "share", "processes", "seconds"), 1)
    before = older(adapter.folder, name, **complete)
    with pytest.raises(StoreError, match=r"was written by schema 1 of bench.*Move the folder away to train again"):
        train_adapter(adapter)
    assert content_of(adapter.folder) == before
    adapter.folder.rename(adapter.folder.with_name("away"))
    train_adapter(adapter)
    assert adapter.is_trained, "the advice works"


def test_an_imported_adapter_of_an_older_schema_is_used(tmp_path: Path) -> None:
    adapter = ImportedAdapter.write(tmp_path / "one", "dep", {"weight": torch.ones(2)})
    same = adapter.run_identity
    older(tmp_path / "one", "adapter.json", method="dep", source="released", weights="", tensors={"weight": [2]})
    assert ImportedAdapter(tmp_path / "one", "dep").run_identity == same
    with pytest.raises(ConfigError, match="is of method dep, not of pplug"):
        ImportedAdapter(tmp_path / "one", "pplug")


def test_what_is_written_of_an_imported_adapter(tmp_path: Path) -> None:
    ImportedAdapter.write(tmp_path, "dep", {"b": torch.ones(2), "a": torch.zeros(1, 3)}, "released")
    record = AdapterRecord.read(tmp_path / "adapter.json")
    assert (record.method, record.source, record.tensors) == ("dep", "released", {"a": [1, 3], "b": [2]})
    assert not AdapterFiles(tmp_path).is_trained


# -- what is damaged is found and mended -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Lab:
    """A trained adapter and a run with it, without an engine, in a folder of the test's own."""

    results: Path
    books: dict[str, Corpus]

    def job(self) -> Job:
        settings = {"results": str(self.results), "backend": "scripted", "metrics": ["rouge"], "limit": 2}
        return Job.of(build(SETTINGS, settings), Inputs(self.books))

    @property
    def adapter(self) -> TrainedAdapter:
        adapter = self.job().trains
        assert adapter is not None
        return adapter

    def execute(self) -> list[str]:
        """What is said."""
        said: list[str] = []
        execute([self.job()], said.append, processes=1)
        return said


@pytest.fixture(scope="module")
def whole(demo: dict[str, Corpus], tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("whole"), {"Books": demo["Books"]})
    lab.execute()
    return lab


@pytest.fixture
def lab(whole: Lab, tmp_path: Path) -> Lab:
    return Lab(shutil.copytree(whole.results, tmp_path / "results"), whole.books)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def of_epoch_2(path: Path) -> None:
    shutil.copy(path.with_name(path.name.replace("1", "2")), path)


VALIDATION = "validation-*/epoch-1"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(("adapter.json", damage) for damage in (flip, Path.unlink, folder_instead)),
        *(("training.json", damage) for damage in (flip, Path.unlink, folder_instead)),
        *(("epoch-1.safetensors", damage) for damage in (flip, of_epoch_2)),
        *(("validation-*/selection.json", damage) for damage in (flip, Path.unlink, folder_instead)),
        *((f"{VALIDATION}/predictions.jsonl", damage) for damage in (flip, Path.unlink)),
        *((f"{VALIDATION}/{name}", flip) for name in ("run.json", "generations.jsonl")),
    ],
)
def test_a_damaged_file_of_an_adapter_is_mended(
    name: str, damage: Callable[[Path], None], lab: Lab, whole: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = lab.adapter.folder.glob(name)
    before = path.read_bytes()
    if name.startswith(("epoch", "validation-*/epoch")):
        # With a chosen epoch nobody looks at the others.
        (lab.adapter.selection_folder / "selection.json").unlink()
    damage(path)
    missing = not path.exists()
    shutil.rmtree(lab.job().folder)
    said = lab.execute()
    assert missing or any(path.name in line and "damaged" in line for line in said), said
    assert Summary.read(lab.job().folder / "summary.json").scores == scores_of(whole)
    assert lab.adapter.is_trained
    assert lab.adapter.selection == whole.adapter.selection
    assert lab.adapter.files.training().files.keys() == whole.adapter.files.training().files.keys()  # type: ignore[union-attr]
    for epoch in (1, 2):
        assert lab.adapter.weights(epoch).read_bytes() == whole.adapter.weights(epoch).read_bytes()
    if path.name in ("selection.json", "predictions.jsonl") or path.suffix == ".safetensors":
        assert path.read_bytes() == before
    assert lab.execute() == [], "it is whole again"


def scores_of(lab: Lab) -> Any:
    return Summary.read(lab.job().folder / "summary.json").scores


def test_damaged_weights_make_no_text(lab: Lab) -> None:
    epoch = lab.adapter.selection.epoch  # type: ignore[union-attr]
    flip(lab.adapter.files.weights(epoch))
    with pytest.raises(
        DamagedError, match=rf"epoch-{epoch}\.safetensors is damaged: it is not as it was after the tra"
    ):
        _ = lab.job().vectors


def test_a_selection_of_other_weights_is_not_believed(lab: Lab) -> None:
    path = lab.adapter.selection_folder / "selection.json"
    path.write_text(Selection.read(path).model_copy(update={"weights": "0" * 64}).text())
    with pytest.raises(DamagedError, match="it was chosen among other weights than the adapter has now"):
        _ = lab.adapter.selection
    shutil.rmtree(lab.job().folder)
    assert any("the epoch is chosen again" in line for line in lab.execute())


def with_other_weights(folder: Path) -> None:
    path = folder / "run.json"
    path.write_text(RunRecord.read(path).model_copy(update={"weights": "0" * 64}).text())


@pytest.mark.parametrize("kind", ["run", "validation"])
def test_texts_of_other_weights_are_not_mixed_and_the_advice_works(kind: str, lab: Lab, whole: Lab) -> None:
    folder = lab.job().folder if kind == "run" else lab.adapter.selection_folder
    if kind == "run":
        with_other_weights(folder)
        (folder / "predictions.jsonl").unlink()
    else:
        shutil.rmtree(lab.job().folder)
        (folder / "selection.json").unlink()
        with_other_weights(folder / "epoch-2")
    before = content_of(folder if kind == "run" else folder / "epoch-2")
    with pytest.raises(StoreError) as caught:
        lab.execute()
    assert str(caught.value).startswith(f"the texts in {folder} were made with other weights than the adapter has now.")
    assert "Move the folder away, then run again" in str(caught.value)
    assert content_of(folder if kind == "run" else folder / "epoch-2") == before
    folder.rename(lab.results / "away")
    lab.execute()
    assert scores_of(lab) == scores_of(whole)


def test_an_adapter_that_is_gone_after_the_texts(lab: Lab, whole: Lab) -> None:
    away = lab.results / "away"
    adapter = lab.adapter.folder.rename(away)
    (lab.job().folder / "summary.json").unlink()
    with pytest.raises(StoreError, match=r"is gone or not complete.*bring it back, or move their run's folder away"):
        lab.execute()
    adapter.rename(lab.adapter.folder)
    lab.execute()
    assert scores_of(lab) == scores_of(whole)
    shutil.rmtree(lab.adapter.folder)
    lab.job().folder.rename(away)
    lab.execute()
    assert scores_of(lab) == scores_of(whole)


@pytest.mark.parametrize("what", ["adapter", "results"])
def test_a_folder_that_is_gone_during_validation_stops_it(
    what: str, lab: Lab, whole: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench_parrot.scripted import Scripted

    taken = lab.adapter.folder if what == "adapter" else lab.results
    shutil.rmtree(lab.job().folder)
    shutil.rmtree(lab.adapter.selection_folder)
    submit = Scripted.submit

    def take(backend: Scripted, call: Any) -> None:
        submit(backend, call)
        shutil.rmtree(taken, ignore_errors=True)

    with monkeypatch.context() as patch:
        patch.setattr(Scripted, "submit", take)
        with pytest.raises(StoreError, match=r"was removed or moved while this command wrote to it"):
            lab.execute()
    assert not taken.exists()
    lab.execute()
    assert scores_of(lab) == scores_of(whole)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(number: float, tmp_path: Path) -> None:
    ImportedAdapter.write(tmp_path / "one", "dep", {"a": torch.ones(2), "b": torch.tensor([1.0, number])})
    with pytest.raises(DamagedError, match=r"adapter\.safetensors is damaged: b holds numbers that are not finite"):
        read_tensors(tmp_path / "one" / "adapter.safetensors", "Mend it")


def test_a_damaged_imported_adapter_says_to_import_it_again(tmp_path: Path) -> None:
    for name in ("adapter.json", "adapter.safetensors"):
        ImportedAdapter.write(tmp_path / "one", "dep", {"a": torch.ones(2)})
        flip(tmp_path / "one" / name)
        with pytest.raises(DamagedError, match=rf"{name} is damaged: .*\. Import it again: bench adapter import"):
            ImportedAdapter(tmp_path / "one", "dep")
    ImportedAdapter.write(tmp_path / "one", "dep", {"a": torch.ones(2)})
    assert (
        ImportedAdapter(tmp_path / "one", "dep").weights_hash()
        == ImportedAdapter(tmp_path / "one", "dep").run_identity["imported"]
    )


def test_methods_and_their_options_are_read_without_torch() -> None:
    code = (
        "import sys, bench.methods.dep, bench.methods.e2p, bench.methods.pplug, bench.methods.prompt_tuning\n"
        "from bench.config import build\n"
        "sections = {'dep': {'latent': 8}, 'pplug': {'max_history': 3}, 'prompt_tuning': {'length': 4}}\n"
        "sections |= {'e2p': {'max_history': 3}}\n"
        "for method in sections: build({'method': method}, sections)\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "set()\n", done.stderr


def test_of_a_score_that_is_better_lower_the_lowest_epoch_is_best(
    shop_config: Path, register: Callable[[str, str, type], None]
) -> None:
    @dataclass(frozen=True)
    class Distance:
        columns: ClassVar[tuple[Column, ...]] = (Column("distance", better="lower"),)
        statistics: ClassVar[tuple[str, ...]] = ("distance",)
        check = signature = rows = aggregate = lambda self: None

    register("metrics", "distance", Distance)
    settings = {"method": "prompt_tuning", "metrics": ["distance"]}

    def best(column: str) -> int:
        job = Job.of(build(read_config(str(shop_config)), settings, {"train": {"select_by": column}}))
        assert job.trains is not None
        return job.trains.best({1: 0.3, 2: 0.1, 3: 0.3, 4: 0.1})

    assert best("distance") == 2
    assert best("meteor") == 1
