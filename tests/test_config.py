"""What a configuration accepts, and which of its fields make a run another run."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml

import methods.rag
from bench import registry
from bench.config import (
    DATA,
    RETRIEVAL,
    RUNTIME,
    SCORING,
    Kind,
    RunConfig,
    Section,
    build,
    config_names,
    fields_of,
    merge,
    parse_setting,
    read_config,
    settings_of,
)
from bench.data.corpus import Corpus
from bench.data.load import load
from bench.errors import BenchError, ConfigError
from bench.runner import Run

LEAVES = {name: kind for name, _, kind in fields_of(RunConfig)}

OTHER: dict[str, Any] = {
    "method": "pag",
    "retriever": "bm25",
    "fidelity": "official",
    "seed": 1,
    "split": "val",
    "limit": 2,
    "k": 1,
    "input_budget": 999,
    "chat_template": "official",
    "temperature": 0.5,
    "top_p": 0.5,
    "max_new_tokens": 9,
    "backend": "openai",
    "vllm.dtype": "bfloat16",
    "vllm.quantization": "fp8",
    "vllm.tensor_parallel_size": 2,
    "vllm.gpu_memory_utilization": 0.5,
    "vllm.kv_cache_gib": 2,
    "vllm.max_num_seqs": 3,
    "vllm.enforce_eager": False,
    "vllm.prefix_caching": True,
    "openai.base_url": "http://127.0.0.1:9/v1",
    "openai.served_model": "other",
    "openai.concurrency": 3,
    "openai.timeout": 3.0,
    "openai.retries": 1,
    "openai.extra_body": {"top_k": 1},
    "metrics": ["bleu"],
    "resamples": 11,
    "notes": ["another"],
    "window": 3,
    "peers.before_target": True,
    "peers.unused_targets": True,
    "train.epochs": 2,
    "train.batch_size": 3,
    "train.learning_rate": 0.5,
    "train.warmup": 0.5,
    "train.weight_decay": 0.5,
    "train.clip": 0.5,
    "train.seed": 1,
    "train.k": 1,
    "train.limit": 1,
    "train.max_target_tokens": 9,
    "train.dtype": "bfloat16",
    "train.validation": 3,
    "train.select_by": "bleu",
    "train.tokens_per_batch": 9,
    "train.checkpoint_every": 9,
}
"""Another value for each field whose value itself is (or is not) part of the identity."""

BY_CONTENT = {"dataset", "revision", "categories", "model", "tokenizer", "prompts", "options", "results", "adapter"}
"""Fields that stand for something else; each has a test of its own below."""

NO_TEXT = {
    "vllm.tensor_parallel_size",
    "vllm.gpu_memory_utilization",
    "vllm.kv_cache_gib",
    "vllm.max_num_seqs",
    "vllm.enforce_eager",
    "vllm.prefix_caching",
    "openai.base_url",
    "openai.concurrency",
    "openai.timeout",
    "openai.retries",
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


def make(path: Path, *layers: Mapping[str, Any], corpora: Mapping[str, Corpus] | None = None) -> Run:
    return Run(build(read_config(str(path)), {"method": "rag"}, *layers), corpora)


def test_every_field_is_marked_nested_ones_too() -> None:
    assert {name for name, kind in LEAVES.items() if kind is None} == set()
    assert {"vllm.dtype", "openai.base_url", "seed"} <= set(LEAVES)
    assert all(isinstance(kind, Kind) for kind in LEAVES.values())


def test_a_field_without_a_mark_is_found() -> None:
    class Careless(Section):
        marked: Annotated[int, DATA] = 1
        forgotten: int = 1

    assert [(name, kind) for name, _, kind in fields_of(Careless)] == [("marked", DATA), ("forgotten", None)]


def test_every_mark_is_as_meant() -> None:
    assert {name for name, kind in LEAVES.items() if kind in (RUNTIME, SCORING)} == NO_TEXT


def test_every_field_is_tried() -> None:
    assert set(OTHER) | BY_CONTENT == set(LEAVES)


@pytest.mark.parametrize("name", sorted(OTHER))
def test_identity_covers_exactly_what_can_change_a_text(
    name: str, shop_config: Path, corpora: Mapping[str, Corpus]
) -> None:
    base: dict[str, Any] = {"backend": "openai"} if name.startswith("openai.") else {}
    if name.startswith(("train.", "peers.")):
        base = {"method": "dep", "dep": {"encoder": "hashed-ngrams"}}
    before = make(shop_config, base, corpora=corpora).folder
    after = make(shop_config, base, nested(name, OTHER[name]), corpora=corpora).folder
    assert (before == after) == (name in NO_TEXT)


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
        ("rag", {"bleu": {}}),
        ("rag", {"contriever": {"model": "org/other"}}),
        ("rag", {"peers": {"before_target": True}, "train": {"epochs": 1, "validation": 1}}),
        ("dep", {"train": {"k": 2}}),
        ("dep", {"train": {"learning_rate": 1e-5}}),
    ],
)
def test_what_cannot_matter_for_a_run_does_not_enter(
    method: str, setting: dict[str, Any], shop_config: Path, corpora: Mapping[str, Corpus]
) -> None:
    before = make(shop_config, {"method": method}, corpora=corpora)
    after = make(shop_config, {"method": method}, setting, corpora=corpora)
    assert before.identity == after.identity
    assert before.folder == after.folder


def test_vllm_settings_do_not_enter_where_a_server_answers(shop_config: Path, corpora: Mapping[str, Corpus]) -> None:
    server = {"backend": "openai"}
    other = {"vllm": {"dtype": "bfloat16"}}
    assert make(shop_config, server, corpora=corpora).folder == make(shop_config, server, other, corpora=corpora).folder


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


def test_the_wording_of_prompts_is_part_of_the_identity_their_place_is_not(
    shop_config: Path, tmp_path: Path, corpora: Mapping[str, Corpus]
) -> None:
    from bench.prompts import FOLDER

    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(FOLDER / "rag_review.txt", own)
    before = make(shop_config, corpora=corpora).folder
    assert make(shop_config, {"prompts": str(own)}, corpora=corpora).folder == before
    (own / "rag_review.txt").write_text((own / "rag_review.txt").read_text().replace("generate", "write"))
    assert make(shop_config, {"prompts": str(own)}, corpora=corpora).folder != before


def test_results_may_lie_anywhere(shop_config: Path, tmp_path: Path, corpora: Mapping[str, Corpus]) -> None:
    run = make(shop_config, {"results": str(tmp_path / "other")}, corpora=corpora)
    assert run.folder.parent == tmp_path / "other" / "runs"
    assert run.folder.name == make(shop_config, corpora=corpora).folder.name


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temprature": 1}, "'temprature' is not a configuration key; did you mean 'temperature'?"),
        ({"base_url": "x"}, "'base_url' is not a configuration key; did you mean 'openai.base_url'?"),
        ({"bertscor": {"layer": 1}}, "'bertscor' is not a configuration key; did you mean 'bertscore'?"),
        (
            {"vllm": {"dtyp": "auto"}},
            "'vllm.dtyp' is not a configuration key; did you mean 'dtype'? Keys of vllm: dtype, ",
        ),
        ({"openai": {"key": "x"}}, "'openai.key' is not a configuration key. Keys of openai: base_url, "),
        ({"bertscore": {"layr": 1}}, "bertscore.layr is not an option of bertscore; did you mean 'layer'?"),
        ({"recency": {"x": 1}}, "recency.x is not an option of recency. It has none"),
        ({"options": {"bertscore": {}}}, "'options' is not a configuration key."),
        ({"zzz": 1}, "'zzz' is not a configuration key. Keys: method, "),
        ({1: 2}, "'1' is not a configuration key. Keys: "),
        ({"bertscore": 3}, "'bertscore' is a plugin: set one of its options, bertscore.OPTION=value"),
        ({"bertscore": {"layer": "six"}}, "bertscore.layer: Input should be a valid integer"),
        ({"limit": 0}, "limit: Input should be greater than or equal to 1, got 0"),
        ({"k": -1}, "k: Input should be greater than or equal to 0, got -1"),
        ({"k": {"x": 1}}, "k: Input should be a valid integer, got {'x': 1}"),
        ({"top_p": 0}, "top_p: Input should be greater than 0, got 0"),
        ({"fidelity": "offical"}, "fidelity: Input should be 'paper' or 'official', got 'offical'"),
        ({"metrics": "rouge"}, "metrics: Input should be a valid tuple, got 'rouge'; write a list, e.g. [a, b]"),
        ({"vllm": 3}, "vllm: Input should be"),
        ({"openai": {"base_url": "localhost:8000"}}, "openai.base_url: String should match pattern"),
        ({"method": None}, "method: Input should be a valid string, got None"),
        (
            {"backend": "openai", "fidelity": "official"},
            "chat_template=official cannot be had with backend=openai, where the server applies the model's own",
        ),
    ],
)
def test_what_is_refused(setting: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build({"method": "rag"}, setting)
    assert str(caught.value).startswith(message)


def test_a_run_needs_a_method() -> None:
    with pytest.raises(ConfigError, match=r"'method' is not set: give --method"):
        build({})


def test_unknown_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration 'papr-7b'; did you mean 'paper-7b'\? Shipped: demo, "):
        read_config("papr-7b")
    with pytest.raises(ConfigError, match=r"no configuration 'xyz'\. Shipped"):
        read_config("xyz")


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("k: [1\nlimit: {")
    with pytest.raises(ConfigError, match=r"broken\.yaml cannot be read as YAML: .*line 2"):
        read_config(str(path))
    path.write_text("- k\n- limit\n")
    with pytest.raises(ConfigError, match=r"must hold a mapping of configuration keys, it holds a list"):
        read_config(str(path))
    path.write_bytes(b"notes: ['\xff\xfe']")
    with pytest.raises(ConfigError, match=r"cannot be read as YAML"):
        read_config(str(path))
    path.write_text("# nothing\n")
    assert read_config(str(path)) == {}


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("k=4", {"k": 4}),
        ("bertscore.layer=6", {"bertscore": {"layer": 6}}),
        (" k = 4", {"k": 4}),
        ("metrics=[rouge, bleu]", {"metrics": ["rouge", "bleu"]}),
        ("openai.extra_body={}", {"openai": {"extra_body": {}}}),
        ("revision=a=b", {"revision": "a=b"}),
        ("limit=", {"limit": None}),
        ("model=org/name@v1", {"model": "org/name@v1"}),
        ("model=python:bench/demo/model", {"model": "python:bench/demo/model"}),
        ("model=: [", {"model": ": ["}),
    ],
)
def test_set_syntax(text: str, parsed: dict[str, Any]) -> None:
    assert parse_setting(text) == parsed


@pytest.mark.parametrize("text", ["k", "=4", "a..b=1", ".k=1", ""])
def test_set_syntax_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write it as key=value"):
        parse_setting(text)


def test_layers_merge_section_by_section() -> None:
    base = {"k": 8, "vllm": {"dtype": "auto", "max_num_seqs": 4}, "openai": {"extra_body": {"top_k": -1}, "retries": 2}}
    over = {"k": 4, "vllm": {"dtype": "float32"}, "openai": {"extra_body": {}}}
    assert merge(base, over) == {
        "k": 4,
        "vllm": {"dtype": "float32", "max_num_seqs": 4},
        "openai": {"extra_body": {}, "retries": 2},
    }
    assert base["k"] == 8


def test_a_configuration_is_frozen() -> None:
    config = build({"method": "rag"})
    with pytest.raises(ValueError, match="frozen"):
        config.k = 3


@pytest.mark.parametrize("name", ["demo", "official-7b", "paper-32b", "paper-7b"])
def test_shipped_configurations_build_without_the_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a configuration must not need the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    config = build(read_config(name), {"method": "rag"})
    assert name in config_names()
    for group, names in (("metrics", config.metrics), ("retrievers", registry.names("retrievers"))):
        for plugin in names:
            registry.create(group, plugin, config.options.get(plugin, {}), config.fidelity)
    assert (config.budget, config.template) == {
        "demo": (1024, "model"),
        "official-7b": (3072, "official"),
    }.get(name, (2048, "model"))
    if name != "demo":
        # The paper, section 4.1 and appendix C.
        assert (config.k, config.temperature, config.top_p, config.max_new_tokens) == (8, 0.8, 0.95, 2048)
        assert config.model == f"Qwen/Qwen2.5-{name.rpartition('-')[2].upper()}-Instruct"


def test_official_7b_is_paper_7b_but_for_the_fidelity() -> None:
    assert {k: v for k, v in read_config("official-7b").items() if k != "fidelity"} == read_config("paper-7b")


def test_settings_of_takes_the_kinds_asked_for() -> None:
    config = build({"method": "rag", "k": 3})
    assert settings_of(config, [RETRIEVAL]) == {"retriever": "recency", "k": 3}
    every = settings_of(config, list(Kind))
    assert set(every) == set(LEAVES) - {"options"}


def test_round_trip_of_a_recorded_configuration() -> None:
    config = build(read_config("demo"), {"method": "pag"})
    recorded = yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))
    assert build(recorded, recorded.pop("options")) == config


def test_an_unknown_data_set_or_method_is_refused_before_anything_is_loaded(shop_config: Path) -> None:
    for setting in ({"dataset": "no-such-folder"}, {"method": "raag"}, {"retriever": "bm52"}, {"metrics": ["ruge"]}):
        with pytest.raises(BenchError):
            make(shop_config, setting)


def test_an_edited_method_is_another_run(
    shop_config: Path, corpora: Mapping[str, Corpus], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = make(shop_config, corpora=corpora).folder
    edited = tmp_path / "rag.py"
    edited.write_text(Path(methods.rag.__file__).read_text() + "# edited\n")
    monkeypatch.setattr(methods.rag, "__file__", str(edited))
    assert make(shop_config, corpora=corpora).folder != before
