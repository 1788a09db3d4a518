"""Names of folders: they tell what differs, stay names of files, and a folder of an older name is found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.config import DATA, RETRIEVAL, build, read_config, settings_of
from bench.data.corpus import Corpus
from bench.data.load import load
from bench.job import Job
from bench.naming import differences, older_names, readable_name, run_name, told_by_content
from bench.resolved import Inputs


@pytest.fixture(scope="module")
def corpora(shop: Path) -> Mapping[str, Corpus]:
    return load(str(shop), None)


def make(config: str, corpora: Mapping[str, Corpus], **settings: Any) -> Job:
    return Job.of(build(read_config(config), {"dataset": "shop", "method": "rag"}, settings), Inputs(corpora))


@pytest.mark.parametrize(
    ("settings", "name", "told"),
    [
        ({}, "rag-recency-k3-shop-model-seed0", "demo"),
        ({"method": "copy"}, "copy-shop-seed0", ""),
        ({"limit": 1, "seed": 4, "k": 2}, "rag-recency-k2-shop-model-first1-seed4", "demo, k=2, seed=4, limit=1"),
        ({"temperature": 0}, "rag-recency-k3-shop-model-temperature0-seed0", "demo, temperature=0.0"),
        ({"fidelity": "official"}, "rag-recency-k3-shop-model-official-seed0", "demo, fidelity=official"),
        ({"input_budget": 1024, "overlong": "cut"}, "rag-recency-k3-shop-model-seed0", "demo"),
        (
            {"method": "dep", "dep": {"vectors": "shuffled"}, "train": {"epochs": 3, "limit": None}, "vllm": {}},
            "dep-recency-k3-shop-model-vectors_shuffled-train.epochs3-train.limit_all-seed0",
            "demo, dep.vectors=shuffled, train.epochs=3, train.limit=all",
        ),
        (
            {"method": "nonperso", "retriever": "bm25", "chat_template_kwargs": {"enable_thinking": False}},
            "nonperso-shop-model-chat_template_kwargs_enable_thinking_false-seed0",
            'demo, chat_template_kwargs={"enable_thinking": false}',
        ),
    ],
)
def test_what_differs_from_the_shipped_configuration_is_told(
    settings: dict[str, Any], name: str, told: str, corpora: Mapping[str, Corpus]
) -> None:
    job = make("demo", corpora, **settings)
    assert job.folder.name.rpartition("-")[0] == run_name(job.run, job.identity) == name
    assert str(differences(job.identity, job.config)) == told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("paper-7b", "paper-7b"),
        ("official-7b", "official-7b, fidelity=official"),
        ("paper-32b", "paper-32b, top_p=0.5"),
        ("smollm2", "smollm2"),
    ],
)
def test_a_run_goes_back_to_the_shipped_configuration_of_its_model(name: str, told: str) -> None:
    over = {"top_p": 0.5} if "top_p" in told else {}
    config = build(read_config(name), {"method": "rag"}, over)
    settings = settings_of(config, [DATA, RETRIEVAL]) | {"fidelity": config.fidelity, "top_p": config.top_p}
    for place in ("dataset", "revision", "categories"):
        del settings[place]
    data = dict.fromkeys(config.categories or (), "")
    identity = {"settings": settings, "data": data, "model": config.model, "tokenizer": config.model}
    assert str(differences(identity, config)) == told


def test_templates_of_ones_own_are_told(corpora: Mapping[str, Corpus], tmp_path: Path) -> None:
    path = tmp_path / "nonperso" / "write.txt"
    path.parent.mkdir()
    path.write_text("=== system\n{{instruction}}\n=== user\n{{given}}")
    job = make("demo", corpora, method="nonperso", prompts=str(tmp_path))
    assert re.fullmatch(r"nonperso-shop-model-prompts_[0-9a-f]{6}-seed0", run_name(job.run, job.identity))


def test_a_long_name_stays_a_name_of_a_file(corpora: Mapping[str, Corpus], tmp_path: Path) -> None:
    odd = {"chat_template_kwargs": {"../a": "\n*?" * 50, "b": ["é" * 99]}}
    many = {"temperature": 0.1, "top_p": 0.123456789, "max_new_tokens": 1_234_567, "input_budget": 7_654_321}
    many |= {"vllm": {"dtype": "bfloat16", "repetition_penalty": 1.0000000001, "batch_invariant": True}}
    many |= {"seed": 2**62, "limit": 2**62}
    names = []
    for last in ("x", "y"):
        dataset = str(tmp_path / ("é" * 120 + last))
        for settings in ({**odd, "dataset": dataset}, {**odd, **many, "dataset": dataset}):
            job = make("demo", corpora, **settings)
            names.append(job.folder.name)
            assert len(names[-1].encode()) <= 255
            assert re.fullmatch(r"[\w.-]+", names[-1])
            assert make("demo", corpora, **settings).folder.name == names[-1]
    assert re.search(r"and\dmore", names[1])
    # The same data: the hash is the same, too, and so is the run.
    assert names[:2] == names[2:]


def test_a_run_and_an_adapter_of_an_older_name_are_gone_on_with(
    shop_config: Path, tmp_path: Path, scripted: Any, corpora: Mapping[str, Corpus]
) -> None:
    given = {"temperature": 0.5, "results": str(tmp_path / "results")}
    summary = bench.run("rag", str(shop_config), **given)
    assert "-temperature0.5-" in summary.name
    calls = len(scripted.calls)
    job = Job.of(build(read_config(str(shop_config)), {"method": "rag"}, given))
    old = job.folder.with_name(f"{older_names(job.run)}-{summary.name.rpartition('-')[2]}")
    job.folder.rename(old)
    assert bench.run("rag", str(shop_config), **given) == summary
    assert len(scripted.calls) == calls
    assert [path.name for path in old.parent.iterdir()] == [old.name]
    # What lies there under another beginning was moved away on purpose.
    old.rename(old.with_name(f"old-{old.name}"))
    assert Job.of(job.config).folder.name == summary.name

    other = {"method": "dep", "dep": {"latent": 9}, "results": str(tmp_path / "adapters")}
    new = make("demo", corpora, **other).trains
    assert new is not None
    assert "-latent9-" in new.folder.name
    older = new.folder.with_name(f"{readable_name(new.training)}-{new.folder.name.rpartition('-')[2]}")
    older.mkdir(parents=True)
    again = make("demo", corpora, **other).trains
    assert again is not None
    assert again.folder == older


def test_runs_of_the_same_settings_are_told_by_their_content() -> None:
    one = {"settings": {"k": 1}, "method_code": "a" * 64, "data": {"Toys": "b"}}
    first, second = told_by_content([one, one | {"method_code": "c" * 64}])
    assert re.fullmatch("method code [0-9a-f]{6}", first)
    assert first != second
    assert told_by_content([one]) == [""]
