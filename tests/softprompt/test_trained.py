"""The adapters of runs: what lies in their folders, those of an older schema, and what needs no torch."""

from __future__ import annotations

import json
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
from bench.errors import ConfigError, StoreError
from bench.execute import train_adapter
from bench.identity import readable_name
from bench.job import Job
from bench.protocols import Column
from bench.resolved import Inputs, Run
from bench.results import SCHEMA, AdapterRecord
from bench.softprompt.adapters import AdapterFiles
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


def test_methods_and_their_options_are_read_without_torch() -> None:
    code = (
        "import sys, bench.methods.dep, bench.methods.pplug, bench.methods.prompt_tuning\n"
        "from bench.config import build\n"
        "sections = {'dep': {'latent': 8}, 'pplug': {'max_history': 3}, 'prompt_tuning': {'length': 4}}\n"
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
