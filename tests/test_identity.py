"""What makes a run, or an adapter, another one: all that can change a text or a weight, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest

import bench.methods
import bench.methods.dep
import bench.metrics.rouge
import bench.tasks.reviews
from bench import registry
from bench.config import RUNTIME, SCORING, RunConfig, build, fields_of, read_config
from bench.data.corpus import Corpus
from bench.data.load import load
from bench.errors import BenchError
from bench.job import Job
from bench.protocols import Properties
from bench.resolved import Inputs
from bench.results import identity_hash
from bench.tasks.reviews import Reviews

LEAVES = {name: kind for name, _, kind in fields_of(RunConfig)} | {
    name: kind
    for backend in registry.builtin_names("backends")
    for name, _, kind in fields_of(registry.load("backends", backend).settings, f"{backend}.")
}
"""The mark of every field of the configuration, those of the built-in backends' sections too."""

OTHER: dict[str, Any] = {
    "method": "pag",
    "retriever": "bm25",
    "fidelity": "official",
    "seed": 1,
    "split": "val",
    "limit": 2,
    "k": 1,
    "input_budget": 999,
    "overlong": "whole",
    "chat_template": "official",
    "chat_template_kwargs": {"enable_thinking": False},
    "temperature": 0.5,
    "top_p": 0.5,
    "max_new_tokens": 9,
    "backend": "openai",
    "vllm.dtype": "bfloat16",
    "vllm.quantization": "fp8",
    "vllm.batch_invariant": True,
    "vllm.repetition_penalty": 1.1,
    "vllm.tensor_parallel_size": 2,
    "vllm.gpu_memory_utilization": 0.5,
    "vllm.kv_cache_gib": 2,
    "vllm.max_num_seqs": 3,
    "vllm.enforce_eager": False,
    "vllm.prefix_caching": True,
    "ray.engines": 3,
    "ray.timeout": 3.0,
    "ray.restarts": 0,
    "openai.base_url": "http://127.0.0.1:9/v1",
    "openai.served_model": "other",
    "openai.concurrency": 3,
    "openai.timeout": 3.0,
    "openai.retries": 1,
    "openai.empty": "keep",
    "openai.max_tokens_field": "max_completion_tokens",
    "openai.extra_body": {"top_k": 1},
    "metrics": ["bleu"],
    "resamples": 11,
    "notes": ["another"],
    "window": 3,
    "peers.before_target": True,
    "peers.unused_targets": True,
    "peers.all_targets": True,
    "train.epochs": 2,
    "train.batch_size": 3,
    "train.learning_rate": 0.5,
    "train.warmup": 0.5,
    "train.weight_decay": 0.5,
    "train.clip": 0.5,
    "train.seed": 1,
    "train.k": 1,
    "train.limit": 1,
    "train.cross_entropy": "token",
    "train.max_target_tokens": 9,
    "train.cut_target_ends": True,
    "train.whole_batches": True,
    "train.vocabulary": "tokenizer",
    "train.loss": "history",
    "train.loss_clip": [0.1, 2],
    "train.dtype": "bfloat16",
    "train.validation": 3,
    "train.select_by": "bleu",
    "train.tokens_per_batch": 9,
    "train.checkpoint_every": 9,
}
"""Another value for each field whose value itself is (or is not) part of the identity."""

BY_CONTENT = {
    "task",
    "dataset",
    "revision",
    "categories",
    "model",
    "tokenizer",
    "prompts",
    "options",
    "results",
    "adapter",
}
"""Fields that stand for something else; each has a test of its own below."""

NO_TEXT = {
    "vllm.tensor_parallel_size",
    "vllm.gpu_memory_utilization",
    "vllm.kv_cache_gib",
    "vllm.max_num_seqs",
    "vllm.enforce_eager",
    "vllm.prefix_caching",
    "ray.engines",
    "ray.timeout",
    "ray.restarts",
    "openai.base_url",
    "openai.concurrency",
    "openai.timeout",
    "openai.retries",
    "openai.empty",
    "metrics",
    "resamples",
    "notes",
    "window",
    "results",
    "prompts",
    "adapter",
    "train.tokens_per_batch",
    "train.checkpoint_every",
}
"""Fields whose value changes no text, said here once more: a wrong mark must not pass for a right one."""


@pytest.fixture(scope="module")
def corpora(shop: Path) -> Mapping[str, Corpus]:
    return load(str(shop), None)


def nested(name: str, value: Any) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    return {name.partition(".")[0]: value[name.partition(".")[0]]}


def make(path: Path, *layers: Mapping[str, Any], corpora: Mapping[str, Corpus] | None = None) -> Job:
    return Job.of(build(read_config(str(path)), {"method": "rag"}, *layers), Inputs(corpora))


def readable(name: str) -> str:
    """A folder's name without the hash."""
    return name.rpartition("-")[0]


def test_every_mark_is_as_meant() -> None:
    assert {name for name, kind in LEAVES.items() if kind in (RUNTIME, SCORING)} == NO_TEXT


def test_every_field_is_tried() -> None:
    assert set(OTHER) | BY_CONTENT == set(LEAVES)


@pytest.mark.parametrize("name", sorted(OTHER))
def test_identity_covers_exactly_what_can_change_a_text(
    name: str, shop_config: Path, corpora: Mapping[str, Corpus]
) -> None:
    backend = name.partition(".")[0]
    base: dict[str, Any] = {"backend": backend} if backend in ("openai", "ray") else {}
    if name.startswith(("train.", "peers.")):
        base = {"method": "dep", "dep": {"encoder": "hashed-ngrams"}}
    if name == "train.loss_clip":
        base |= {"train": {"loss": "history"}}
    before = make(shop_config, base, corpora=corpora).folder
    after = make(shop_config, base, nested(name, OTHER[name]), corpora=corpora).folder
    assert (before == after) == (name in NO_TEXT)
    # What differs is in the readable part of the name, and not in the hash alone.
    assert (readable(before.name) == readable(after.name)) == (name in NO_TEXT)


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("nonperso", {"retriever": "bm25"}),
        ("nonperso", {"k": 5}),
        ("nonperso", {"contriever": {"model": "org/other"}}),
        ("copy", {"retriever": "bm25"}),
        ("copy", {"model": "org/other"}),
        ("copy", {"tokenizer": "org/other"}),
        ("copy", {"temperature": 0.1}),
        ("copy", {"max_new_tokens": 9}),
        ("copy", {"input_budget": 99}),
        ("copy", {"backend": "openai"}),
        ("rag", {"openai": {"served_model": "x", "extra_body": {}}}),
        ("rag", {"backend": "vllm"}),
        ("rag", {"backend": "ray"}),
        ("dep", {"backend": "ray", "ray": {"engines": 8}}),
        ("rag", {"bleu": {}}),
        ("rag", {"contriever": {"model": "org/other"}}),
        ("rag", {"peers": {"before_target": True}, "train": {"epochs": 1, "validation": 1}}),
        ("dep", {"train": {"k": 2}}),
        ("dep", {"train": {"learning_rate": 1e-5}}),
        ("dep", {"train": {"loss_clip": [0.1, 2]}}),
    ],
)
def test_what_cannot_matter_for_a_run_does_not_enter(
    method: str, setting: dict[str, Any], shop_config: Path, corpora: Mapping[str, Corpus]
) -> None:
    before = make(shop_config, {"method": method}, corpora=corpora)
    after = make(shop_config, {"method": method}, setting, corpora=corpora)
    assert before.identity == after.identity
    assert before.folder == after.folder


@pytest.mark.parametrize("setting", [{"overlong": "whole"}, {"overlong": "whole", "max_new_tokens": 9}])
def test_an_adapter_is_another_one_where_its_long_prompts_are(
    setting: dict[str, Any], shop_config: Path, corpora: Mapping[str, Corpus]
) -> None:
    base = {"method": "prompt_tuning"}
    adapters = [make(shop_config, base, one, corpora=corpora).trains for one in ({}, {"overlong": "whole"}, setting)]
    found = [adapter.folder for adapter in adapters if adapter is not None]
    assert found[0] not in found[1:]
    assert (found[1] == found[2]) == (len(setting) == 1)


def test_weights_of_tokens_hang_on_the_retriever_whatever_the_method(
    shop_config: Path, corpora: Mapping[str, Corpus]
) -> None:
    """E2P's prompt shows no history, the weights of its tokens come from one."""
    for loss in ("plain", "history"):
        base = {"method": "e2p", "e2p": {"encoder": "hashed-ngrams"}, "train": {"loss": loss}}
        changed = [make(shop_config, base, one, corpora=corpora).folder for one in ({}, {"retriever": "bm25"})]
        assert (changed[0] == changed[1]) == (loss == "plain")


def test_vllm_settings_do_not_enter_where_a_server_answers(shop_config: Path, corpora: Mapping[str, Corpus]) -> None:
    server = {"backend": "openai"}
    other = {"vllm": {"dtype": "bfloat16"}}
    assert make(shop_config, server, corpora=corpora).folder == make(shop_config, server, other, corpora=corpora).folder


def test_engines_side_by_side_are_those_of_their_own_section(shop_config: Path, corpora: Mapping[str, Corpus]) -> None:
    other = {"vllm": {"dtype": "bfloat16"}}
    one, several = ({"backend": name, **other} for name in ("vllm", "ray"))
    assert make(shop_config, one, corpora=corpora).folder == make(shop_config, several, corpora=corpora).folder
    assert make(shop_config, several, corpora=corpora).folder != make(shop_config, corpora=corpora).folder


def test_options_of_the_retriever_in_use_enter(shop_config: Path, corpora: Mapping[str, Corpus]) -> None:
    chosen = {"retriever": "contriever"}
    other = {"contriever": {"model": "org/other"}}
    assert make(shop_config, chosen, corpora=corpora).folder != make(shop_config, chosen, other, corpora=corpora).folder


def test_the_default_of_a_switch_is_the_same_as_its_value_set(shop_config: Path, corpora: Mapping[str, Corpus]) -> None:
    explicit = {"input_budget": 2048, "chat_template": "model"}
    assert make(shop_config, corpora=corpora).folder == make(shop_config, explicit, corpora=corpora).folder


def test_moving_the_data_changes_nothing_their_content_does(shop: Path, shop_config: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "shop"
    shutil.copytree(shop, moved)
    before, after = make(shop_config), make(shop_config, {"dataset": str(moved), "revision": "abc"})
    assert before.folder == after.folder
    items = moved / "meta" / "Toys" / "full.jsonl"
    items.write_text(items.read_text().replace("red cloth", "red paper"))
    assert make(shop_config, {"dataset": str(moved)}).folder != before.folder


def test_a_renamed_data_folder_has_the_same_identity(shop: Path, shop_config: Path, tmp_path: Path) -> None:
    shutil.copytree(shop, tmp_path / "store")
    assert make(shop_config, {"dataset": str(tmp_path / "store")}).identity == make(shop_config).identity


def test_choosing_categories_changes_the_data(shop_config: Path, shop: Path, tmp_path: Path) -> None:
    two = tmp_path / "shop"
    shutil.copytree(shop, two)
    for part in ("main", "meta"):
        shutil.copytree(two / part / "Toys", two / part / "Games")
    both = make(shop_config, {"dataset": str(two)})
    one = make(shop_config, {"dataset": str(two), "categories": ["Toys"]})
    assert both.folder != one.folder
    assert one.identity == make(shop_config).identity


@pytest.mark.parametrize("field", ["model", "tokenizer"])
def test_moving_the_model_changes_nothing_its_content_does(
    field: str, shop_config: Path, tiny_qwen2: Path, tmp_path: Path, corpora: Mapping[str, Corpus]
) -> None:
    moved = tmp_path / "elsewhere" / tiny_qwen2.name
    shutil.copytree(tiny_qwen2, moved)
    before = make(shop_config, corpora=corpora).folder
    assert make(shop_config, {field: str(moved)}, corpora=corpora).folder == before
    config = moved / "config.json"
    config.write_text(config.read_text().replace('"hidden_act": "silu"', '"hidden_act": "gelu"'))
    assert make(shop_config, {field: str(moved)}, corpora=corpora).folder != before


def test_moving_an_encoder_changes_nothing_its_content_does(
    shop_config: Path, tmp_path: Path, corpora: Mapping[str, Corpus]
) -> None:
    def folder(place: Path) -> Path:
        settings = {"contriever": {"model": f"{place}?pooling=mean&normalize=false"}}
        return make(shop_config, {"retriever": "contriever"}, settings, corpora=corpora).folder

    first, second = tmp_path / "first", tmp_path / "second"
    for place in (first, second):
        place.mkdir()
        (place / "config.json").write_text("{}")
    assert folder(first) == folder(second)
    (second / "config.json").write_text('{"hidden_size": 8}')
    assert folder(first) != folder(second)


def test_results_may_lie_anywhere(shop_config: Path, tmp_path: Path, corpora: Mapping[str, Corpus]) -> None:
    run = make(shop_config, {"results": str(tmp_path / "other")}, corpora=corpora)
    assert run.folder.parent == tmp_path / "other" / "runs"
    assert run.folder.name == make(shop_config, corpora=corpora).folder.name


def test_an_unknown_data_set_or_plugin_is_refused_before_anything_is_loaded(shop_config: Path) -> None:
    for setting in ({"dataset": "no-such-folder"}, {"method": "raag"}, {"retriever": "bm52"}, {"metrics": ["ruge"]}):
        with pytest.raises(BenchError):
            make(shop_config, setting)


def test_identity_hashes_depend_on_content_alone() -> None:
    assert identity_hash({"a": 1, "b": {"c": 2, "d": "é"}}) == identity_hash({"b": {"d": "é", "c": 2}, "a": 1})
    assert identity_hash({"a": 1}) != identity_hash({"a": 2})
    assert len(identity_hash({})) == 10


# -- code and options of plugins -----------------------------------------------------------------------------------


def copied(module: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a plugin's file lie in a folder, with the templates beside it; what was there before is there still."""
    plugin = import_module(module)
    assert plugin.__file__ is not None
    own = Path(plugin.__file__)
    if not folder.exists():
        shutil.copytree(own.parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(plugin, "__file__", str(folder / own.name))
    return folder / own.name


def edit(path: Path) -> None:
    assert path.is_file()
    path.write_text(path.read_text(encoding="utf-8").rstrip("\n") + " # edited\n", encoding="utf-8")


def test_an_edited_method_is_another_run(
    shop_config: Path, corpora: Mapping[str, Corpus], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = make(shop_config, corpora=corpora).folder
    path = copied("bench.methods.rag", tmp_path / "methods", monkeypatch)
    assert make(shop_config, corpora=corpora).folder == before
    edit(path)
    assert make(shop_config, corpora=corpora).folder != before


def test_an_edited_file_beside_a_method_is_another_run(
    shop_config: Path, corpora: Mapping[str, Corpus], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = copied("bench.methods.dep", tmp_path / "methods", monkeypatch)
    before = names(make(shop_config, {"method": "dep"}, corpora=corpora))
    edit(path.with_name("_pplug_adapter.py"))
    assert names(make(shop_config, {"method": "dep"}, corpora=corpora)) == before
    edit(path.with_name("_dep_adapter.py"))
    assert moved(before, names(make(shop_config, {"method": "dep"}, corpora=corpora)))


def test_an_edited_file_that_methods_share_is_another_run_of_each(
    shop_config: Path, corpora: Mapping[str, Corpus], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modules = ("_comparing", "dpl", "drp", "rag")
    shared, *_ = [copied(f"bench.methods.{name}", tmp_path / "methods", monkeypatch) for name in modules]
    methods = modules[1:]
    before = [make(shop_config, {"method": name}, corpora=corpora).folder for name in methods]
    edit(shared)
    after = [make(shop_config, {"method": name}, corpora=corpora).folder for name in methods]
    assert [one != two for one, two in zip(before, after, strict=True)] == [True, True, False]


def test_an_edited_retriever_counts_where_it_is_in_use(
    shop_config: Path, corpora: Mapping[str, Corpus], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    layers = [{}, {"retriever": "bm25"}, {"method": "nonperso"}]
    before = [make(shop_config, layer, corpora=corpora).folder for layer in layers]
    edit(copied("bench.retrievers.recency", tmp_path / "retrievers", monkeypatch))
    after = [make(shop_config, layer, corpora=corpora).folder for layer in layers]
    assert [one != two for one, two in zip(before, after, strict=True)] == [True, False, False]


def test_an_edited_metric_changes_no_text(
    shop_config: Path, corpora: Mapping[str, Corpus], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = make(shop_config, corpora=corpora).folder
    edit(copied("bench.metrics.rouge", tmp_path / "metrics", monkeypatch))
    assert make(shop_config, corpora=corpora).folder == before


Names = tuple[str, str | None]
"""Of a run's folder and of its adapter's."""


def names(job: Job) -> Names:
    return job.folder.name, job.trains.folder.name if job.trains else None


def moved(before: Names, after: Names) -> bool:
    """Whether the run is another one; its adapter, if it has one, has to be another one too, or both the same."""
    changed = before[0] != after[0]
    if before[1] is not None:
        assert (before[1] != after[1]) == changed
    return changed


METHODS = ("nonperso", "rag", "pag", "dpl", "drp", "dep", "pplug", "e2p", "prompt_tuning")
TRAINED = ("dep", "pplug", "e2p", "prompt_tuning")


@dataclass
class Shelf:
    """The runs of all methods that ask a model, by method."""

    config: Path
    corpora: Mapping[str, Corpus]

    def names(self, *layers: Mapping[str, Any]) -> dict[str, Names]:
        return {
            method: names(make(self.config, {"method": method}, *layers, corpora=self.corpora)) for method in METHODS
        }

    def moved(self, before: Mapping[str, Names], *layers: Mapping[str, Any]) -> set[str]:
        """The methods whose runs are others than before."""
        after = self.names(*layers)
        return {method for method in METHODS if moved(before[method], after[method])}


@pytest.fixture
def shelf(shop_config: Path, corpora: Mapping[str, Corpus]) -> Shelf:
    return Shelf(shop_config, corpora)


def test_the_trained_methods_are_those_with_an_adapter(shelf: Shelf) -> None:
    assert {method for method, (_, adapter) in shelf.names().items() if adapter} == set(TRAINED)
    assert {*METHODS, "copy"} == set(registry.builtin_names("methods"))


@pytest.mark.parametrize(
    ("method", "options", "adapter_too"),
    [
        ("dpl", {"clusters": 3}, None),
        ("dpl", {"min_peers": 1}, None),
        ("drp", {"clusters": 3}, None),
        ("drp", {"differences": "raw"}, None),
        ("dep", {"latent": 9}, True),
        ("dep", {"vectors": "shuffled"}, False),
        ("pplug", {"max_history": 3}, True),
        ("e2p", {"max_history": 3}, True),
        ("e2p", {"pooling": "unit_mean"}, True),
        ("e2p", {"vectors": "shuffled"}, False),
        ("prompt_tuning", {"length": 3}, True),
    ],
)
def test_the_options_of_a_method_count(
    method: str, options: dict[str, Any], adapter_too: bool | None, shelf: Shelf
) -> None:
    before, after = shelf.names(), shelf.names({method: options})
    assert {name for name in METHODS if before[name] != after[name]} == {method}
    assert readable(before[method][0]) != readable(after[method][0])
    assert (before[method][1] != after[method][1]) == bool(adapter_too)
    if adapter_too is not None:
        assert (readable(str(before[method][1])) != readable(str(after[method][1]))) == adapter_too


def test_the_marks_of_a_method_count(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shelf.names()
    marks = bench.methods.dep.DEP.marks
    monkeypatch.setattr(bench.methods.dep.DEP, "marks", (*marks[:-2], marks[-1], marks[-2]))
    assert shelf.moved(before) == {"dep"}


# -- templates -----------------------------------------------------------------------------------------------------

SHOWS_HISTORY = {"rag", "pag", "dpl", "drp", "dep", "prompt_tuning"}
NOTHING: set[str] = set()


def shipped(place: str) -> str:
    """The text of a shipped template."""
    home = bench.tasks if place.startswith("reviews/") else bench.methods
    return (Path(home.__path__[0]) / "prompts" / f"{place}.txt").read_text(encoding="utf-8")


def own(folder: Path, place: str, text: str) -> dict[str, str]:
    """The setting of a user's folder with one template."""
    path = folder / f"{place}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return {"prompts": str(folder)}


@pytest.mark.parametrize(
    ("place", "renamed"),
    [
        ("dpl/reviews/profile", {"dpl"}),
        ("dpl/reviews/difference", {"dpl"}),
        ("dpl/reviews/peer", {"dpl"}),
        ("dpl/reviews/item", {"dpl"}),
        ("dpl/reviews/write", {"dpl"}),
        ("drp/reviews/difference", {"drp"}),
        ("drp/reviews/validate", {"drp"}),
        ("drp/reviews/item", {"drp"}),
        ("pag/reviews/profile", {"pag"}),
        ("pag/reviews/write", {"pag"}),
        ("rag/reviews/write", {"rag"}),
        ("nonperso/reviews/write", {"nonperso"}),
        ("pplug/reviews/write", {"pplug"}),
        ("e2p/reviews/write", {"e2p"}),
        ("prompt_tuning/reviews/write", {"prompt_tuning"}),
        ("dep/reviews/write", {"dep"}),
        ("dep/reviews/guidance", {"dep"}),
        ("dep/reviews/block_without_text", NOTHING),
        ("dep/his", {"dep"}),
        ("dep/diff", {"dep"}),
        ("reviews/block", SHOWS_HISTORY),
        ("reviews/given", NOTHING),
        ("reviews/instruction", NOTHING),
    ],
)
def test_a_template_of_ones_own_renames_the_runs_that_render_it(
    place: str, renamed: set[str], shelf: Shelf, tmp_path: Path
) -> None:
    before = shelf.names()
    assert shelf.moved(before, own(tmp_path / "same", place, shipped(place))) == NOTHING
    assert shelf.moved(before, own(tmp_path / "other", place, shipped(place).rstrip("\n") + ",")) == renamed


def test_a_general_template_of_ones_own_stands_over_the_tasks(shelf: Shelf, tmp_path: Path) -> None:
    before = shelf.names()
    assert shelf.moved(before, own(tmp_path / "same", "rag/write", shipped("rag/reviews/write"))) == NOTHING
    assert shelf.moved(before, own(tmp_path / "other", "rag/write", shipped("rag/write"))) == {"rag"}


def test_a_part_of_the_task_counts_once_a_prompt_takes_it_in(shelf: Shelf, tmp_path: Path) -> None:
    text = "=== system\n{{instruction}}\n=== user\n{{given}}"
    first = own(tmp_path / "first", "nonperso/write", text)
    before = shelf.names(first)
    for part in ("given", "instruction"):
        folder = tmp_path / part
        own(folder, "nonperso/write", text)
        assert shelf.moved(before, own(folder, f"reviews/{part}", f"Other {part}.")) == {"nonperso"}


@pytest.mark.parametrize(
    ("options", "place", "counts"),
    [
        ({"guidance": True}, "dep/reviews/guidance", True),
        ({"guidance": False}, "dep/reviews/guidance", False),
        ({"text": True}, "reviews/block", True),
        ({"text": False}, "reviews/block", False),
        ({"text": True}, "dep/reviews/block_without_text", False),
        ({"text": False}, "dep/reviews/block_without_text", True),
        ({"embeddings": "his"}, "dep/diff", False),
        ({"embeddings": "his"}, "dep/his", True),
        ({"embeddings": "diff"}, "dep/his", False),
        ({"embeddings": "diff"}, "dep/diff", True),
    ],
)
def test_the_options_of_dep_say_which_templates_count(
    options: dict[str, Any], place: str, counts: bool, shop_config: Path, corpora: Mapping[str, Corpus], tmp_path: Path
) -> None:
    layers = ({"method": "dep"}, {"dep": options})
    before = names(make(shop_config, *layers, corpora=corpora))
    changed = own(tmp_path / "own", place, shipped(place).rstrip("\n") + ",")
    assert moved(before, names(make(shop_config, *layers, changed, corpora=corpora))) == counts


@pytest.fixture
def methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder of methods, whose plugins and templates are the ones in use."""
    for name in registry.builtin_names("methods"):
        copied(f"bench.methods.{name}", tmp_path / "methods", monkeypatch)
    return tmp_path / "methods"


def test_an_edited_shipped_template_renames_the_runs_that_render_it(shelf: Shelf, methods: Path) -> None:
    before = shelf.names()
    edit(methods / "prompts" / "dpl" / "reviews" / "profile.txt")
    assert shelf.moved(before) == {"dpl"}
    edit(methods / "prompts" / "dep" / "reviews" / "guidance.txt")
    assert shelf.moved(before) == {"dpl", "dep"}
    assert shelf.moved(shelf.names({"dep": {"guidance": False}}), {"dep": {"guidance": False}}) == NOTHING


def test_general_shipped_templates_do_not_count_where_the_task_has_its_own(shelf: Shelf, methods: Path) -> None:
    before = shelf.names()
    soft = ("his", "diff", "released_his", "released_diff")
    general = [path for path in (methods / "prompts").glob("*/*.txt") if path.stem not in soft]
    assert len(general) == 23
    for path in general:
        edit(path)
    assert shelf.moved(before) == NOTHING
    edit(methods / "prompts" / "dep" / "diff.txt")
    assert shelf.moved(before) == {"dep"}


# -- the task ------------------------------------------------------------------------------------------------------


def test_an_edited_task_counts_for_every_run(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copied("bench.tasks.reviews", tmp_path / "tasks", monkeypatch)
    before = shelf.names()
    copy = names(make(shelf.config, {"method": "copy"}, corpora=shelf.corpora))
    edit(path.parent / "prompts" / "reviews" / "block.txt")
    assert shelf.moved(before) == SHOWS_HISTORY
    before = shelf.names()
    edit(path)
    assert shelf.moved(before) == set(METHODS)
    assert names(make(shelf.config, {"method": "copy"}, corpora=shelf.corpora)) != copy


@dataclass(frozen=True)
class Letters(Reviews):
    """Another task with an option."""

    polite: bool = True


def test_another_task_is_another_run(shelf: Shelf, register: Callable[[str, str, type], None]) -> None:
    register("tasks", "letters", Letters)
    first = make(shelf.config, {"task": "letters"}, corpora=shelf.corpora)
    assert first.folder != make(shelf.config, corpora=shelf.corpora).folder
    polite = {"task": "letters", "letters": {"polite": True}}
    assert make(shelf.config, polite, corpora=shelf.corpora).folder == first.folder
    rude = {"task": "letters", "letters": {"polite": False}}
    assert make(shelf.config, rude, corpora=shelf.corpora).folder != first.folder


@dataclass(frozen=True)
class Echo:
    """A method that writes as RAG does."""

    properties: ClassVar[Properties] = Properties(retrieval_augmented=True, embedded=False, inter_user=False)
    prompts_of: ClassVar[str] = "rag"

    def steps(self) -> None: ...


def test_the_templates_of_another_method_count(
    shelf: Shelf, tmp_path: Path, register: Callable[[str, str, type], None]
) -> None:
    register("methods", "echo", Echo)
    before = names(make(shelf.config, {"method": "echo"}, corpora=shelf.corpora))
    for place, counts in (("rag/reviews/write", True), ("pag/reviews/write", False)):
        changed = own(tmp_path / place, place, shipped(place) + ",")
        after = names(make(shelf.config, {"method": "echo"}, changed, corpora=shelf.corpora))
        assert moved(before, after) == counts
