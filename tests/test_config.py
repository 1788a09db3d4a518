"""What a configuration accepts and refuses, and the marks on its fields."""

from __future__ import annotations

import json
import math
import socket
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml

from bench import registry
from bench.config import (
    DATA,
    GENERATION,
    RETRIEVAL,
    RUNTIME,
    SWITCHES,
    Kind,
    RunConfig,
    Section,
    backend_settings_of,
    build,
    config_names,
    fields_of,
    merge,
    parse_setting,
    read_config,
    settings_of,
)
from bench.errors import ConfigError, PluginError

ENDLESS: dict[str, Any] = {}
ENDLESS["a"] = ENDLESS


def test_a_field_without_a_mark_is_found() -> None:
    class Careless(Section):
        marked: Annotated[int, DATA] = 1
        forgotten: int = 1

    assert [(name, kind) for name, _, kind in fields_of(Careless)] == [("marked", DATA), ("forgotten", None)]


def test_every_field_is_marked_nested_ones_too() -> None:
    marks = {name: kind for name, _, kind in fields_of(RunConfig)}
    assert {"train.seed", "peers.before_target", "seed"} <= set(marks)
    assert [name for name, kind in marks.items() if not isinstance(kind, Kind)] == []


@pytest.mark.parametrize("backend", registry.builtin_names("backends"))
def test_every_field_of_a_backend_is_marked(backend: str) -> None:
    marks = {name: kind for name, _, kind in fields_of(registry.load("backends", backend).settings)}
    assert marks
    assert [name for name, kind in marks.items() if not isinstance(kind, Kind)] == []


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
        ({"bm25": {"x": 1}}, "bm25.x is not an option of bm25. It has none"),
        ({"recency": {"tie": 1}}, "recency.tie is not an option of recency; did you mean 'ties'? Its options: ties"),
        ({"options": {"bertscore": {}}}, "'options' is not a configuration key."),
        ({"zzz": 1}, "'zzz' is not a configuration key. Keys: task, method, "),
        ({1: 2}, "'1' is not a configuration key. Keys: "),
        ({"bertscore": 3}, "'bertscore' is a plugin: set one of its options, bertscore.OPTION=value"),
        ({"bertscore": {"layer": "six"}}, "bertscore.layer: must be a whole number, got 'six'"),
        ({"limit": 0}, "limit: must be at least 1, got 0"),
        ({"k": -1}, "k: must be at least 0, got -1"),
        ({"k": {"x": 1}}, "k: must be a whole number, got {'x': 1}"),
        ({"top_p": 0}, "top_p: must be more than 0, got 0"),
        ({"fidelity": "offical"}, "fidelity: must be 'paper' or 'official', got 'offical'"),
        ({"metrics": 3}, "metrics: must be a list, e.g. [a, b], got 3"),
        ({"vllm": 3}, "'vllm' is a plugin: set one of its options, vllm.OPTION=value"),
        ({"vllm": {"max_num_seqs": 0}}, "vllm.max_num_seqs: must be at least 1, got 0"),
        ({"openai": {"base_url": "localhost:8000"}}, "openai.base_url must be the address of a server"),
        ({"openai": {"retries": -1}, "backend": "vllm"}, "openai.retries: must be at least 0"),
        ({"train": {"epoch": 1}}, "'train.epoch' is not a configuration key; did you mean 'epochs'? Keys of train: "),
        ({"dtype": "auto"}, "'dtype' is not a configuration key; did you mean 'vllm.dtype'?"),
        (
            {"method": None},
            "method: must be text (a name that looks like a number or a truth value needs quotes), got None",
        ),
        ({"peers": True}, "peers: must be a mapping, e.g. {key: value}, got True"),
        ({"peer_weights": "mean"}, "'peer_weights' is not a configuration key; did you mean 'dep.peer_weights'?"),
        ({"k": True}, "k: must be a number, got True"),
        ({"dep": {"latent": True}}, "dep.latent: must be a finite number, got True"),
        ({"dep": {"recon_weight": "inf"}}, "dep.recon_weight: must be a finite number, got 'inf'"),
        ({"dep": {1: 2}}, "dep: the key 1 is not text; write it in quotes"),
        ({"vllm": {None: 2}}, "vllm: the key None is not text; write it in quotes"),
        ({"openai": {"extra_body": [1]}}, "openai.extra_body: must be a mapping, e.g. {key: value}, got [1]"),
        ({"openai": {"extra_body": {"a": {2: 1}}}}, "openai.extra_body.a: the key 2 is not text"),
        ({"openai": {"extra_body": {"a": [math.nan]}}}, "openai.extra_body.a: must be a finite number, got nan"),
        ({"openai": {"extra_body": {"a": {"b"}}}}, "openai.extra_body.a: cannot be a set; write text, a number, "),
        ({"openai": {"extra_body": {"a": b"b"}}}, "openai.extra_body.a: cannot be a bytes; write text, a number, "),
        ({"openai": {"extra_body": {"a": date(2020, 1, 1)}}}, "openai.extra_body.a: cannot be a date; write text, "),
        ({"openai": {"extra_body": {"a": "\ud800"}}}, "openai.extra_body.a: '\\ud800' holds a character that no text"),
        ({"openai": {"extra_body": ENDLESS}}, "openai.extra_body.a.a.a.a.a.a.a"),
        ({"openai": {"timeout": math.inf}}, "openai.timeout: must be a finite number, got inf"),
        ({"temperature": "nan"}, "temperature: must be a finite number, got 'nan'"),
        ({"temperature": 2.5}, "temperature: must be at most 2, got 2.5"),
        (
            {"temperature": 0.001},
            "temperature: must be 0, which is greedy, or at least 0.01: vLLM samples at 0.01 for ",
        ),
        ({"judge": {"temperature": 0.001}}, "judge.temperature: must be 0, which is greedy, or at least 0.01: "),
        ({"seed": 2**63}, "seed: must be a whole number of at most 63 bits, got one of 64"),
        ({"judge": {"seed": -1}}, "judge.seed: must be at least 0, got -1"),
        ({"k": 10**8}, "k: must be at most 1,000,000: no user has so many reviews, got 100000000"),
        ({"train": {"loss_clip": [0, 1]}}, "train.loss_clip: write two numbers above 0, the smaller one first"),
        ({"train": {"k": 10**8}}, "train.k: must be at most 1,000,000: no user has so many reviews, got 100000000"),
        ({"max_new_tokens": 10**9}, "max_new_tokens: must be at most 10,000,000: no model takes so many tokens, got"),
        ({"input_budget": 10**9}, "input_budget: must be at most 10,000,000: no model takes so many tokens, got"),
        (
            {"openai": {"concurrency": 10**6}},
            "openai.concurrency: must be at most 4,096: each has a connection of its own",
        ),
        ({"vllm": {"max_num_seqs": 10**6}}, "vllm.max_num_seqs: must be at most 65,536: the engine has memory for "),
        ({"window": 10**6}, "window: must be at most 100,000: each is held in memory, got 1000000"),
        (
            {"resamples": 10**9},
            "resamples: must be at most 1,000,000: so many take about 11.1 hours and 8 GB for each ",
        ),
        ({"results": "~nosuchuser/x"}, "results: path '~nosuchuser/x': this machine knows no home folder ~nosuchuser"),
        ({"adapter": ""}, "adapter: a path must not be empty; write . for the folder you are in"),
        ({"prompts": "x" * 256}, "prompts: path 'xxx"),
        ({"notes": {"a": "b"}}, "notes: must be a list, e.g. [a, b], got {'a': 'b'}"),
        (
            {"categories": [1]},
            "categories.0: must be text (a name that looks like a number or a truth value needs quotes)",
        ),
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


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"backend": "vlm"}, "there is no backend 'vlm'; did you mean 'vllm'? There are: openai, ray, vllm, scripted"),
        ({"backend": "vlm", "chat_template": "official"}, "there is no backend 'vlm'; did you mean 'vllm'?"),
        ({"task": "review"}, "there is no task 'review'; did you mean 'reviews'? There are: lamp-1, "),
    ],
)
def test_a_task_or_a_backend_that_is_not_there(setting: dict[str, str], message: str) -> None:
    with pytest.raises(PluginError) as caught:
        build({"method": "rag"}, setting)
    assert str(caught.value).startswith(message)


def test_defaults_of_the_task() -> None:
    config = build({"method": "rag"})
    assert (config.metrics, config.max_new_tokens) == (("rouge", "meteor", "bleu", "bertscore"), 2048)
    config = build({"method": "rag", "metrics": ["bleu"], "max_new_tokens": 5})
    assert (config.metrics, config.max_new_tokens) == (("bleu",), 5)


def test_a_backends_settings_are_read_from_its_section() -> None:
    config = build({"method": "rag", "vllm": {"dtype": "float32"}, "openai": {"retries": 2}})
    assert config.backend_section == registry.load("backends", "vllm").settings(dtype="float32")
    server = build({"method": "rag", "openai": {"retries": 2}, "backend": "openai"})
    assert server.backend_section == registry.load("backends", "openai").settings(retries=2)
    assert build({"method": "rag"}).backend_section == registry.load("backends", "vllm").settings()


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
        ("model=*x", {"model": "*x"}),
        ("dataset=on", {"dataset": "on"}),
        ("dep.sparsity_weight=1e-2", {"dep": {"sparsity_weight": 0.01}}),
        ("openai.extra_body={min_p: 1e-2, no: 1}", {"openai": {"extra_body": {"min_p": 0.01, "no": 1}}}),
    ],
)
def test_set_syntax(text: str, parsed: dict[str, Any]) -> None:
    assert parse_setting(text) == parsed


@pytest.mark.parametrize("text", ["k=!!int x", "dep={a: 1, a: 2}", "notes=&a [*a]", f"{'a.' * 5000}b=1"])
def test_values_that_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set .*: .*") as caught:
        parse_setting(text)
    assert len(str(caught.value)) < 300


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


@pytest.mark.parametrize("name", ["demo", "official-7b", "paper-32b", "paper-7b", "smollm2"])
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
        "smollm2": (1024, "model"),
        "official-7b": (3072, "official"),
    }.get(name, (2048, "model"))
    if name not in ("demo", "smollm2"):
        # The paper, section 4.1 and appendix C.
        assert (config.k, config.temperature, config.top_p, config.max_new_tokens) == (8, 0.8, 0.95, 2048)
        assert config.model == f"Qwen/Qwen2.5-{name.rpartition('-')[2].upper()}-Instruct"


def test_a_switch_is_as_set_or_as_the_fidelity_says() -> None:
    paper, official = (build({"method": "dep", "fidelity": fidelity}) for fidelity in ("paper", "official"))
    for name, switch in SWITCHES.items():
        assert (paper.switch(name), official.switch(name)) == (switch.paper, switch.official)
        chosen = build({"method": "dep", "fidelity": "official"}, parse_setting(f"{name}={json.dumps(switch.paper)}"))
        assert chosen.switch(name) == switch.paper
    assert paper.training.max_target_tokens == 2048
    assert official.training == official.train.model_copy(
        update={
            "cross_entropy": "token",
            "max_target_tokens": 3072,
            "cut_target_ends": True,
            "whole_batches": True,
            "vocabulary": "tokenizer",
        }
    )


def test_a_method_has_its_own_values_of_the_released_code() -> None:
    """DPL's pool is of all profiles and its prompts have no budget: what the model holds."""
    paper, official = (build({"method": "dpl", "fidelity": fidelity}) for fidelity in ("paper", "official"))
    assert (paper.switch("peers.all_targets"), official.switch("peers.all_targets")) == (False, True)
    assert (paper.budget, paper.longest_prompt) == (2048, 2048)
    chosen = build({"method": "dpl", "fidelity": "official", "max_new_tokens": 48})
    assert (chosen.budget, chosen.longest_prompt) == (2000, 2000)
    assert build({"method": "dpl", "fidelity": "official", "input_budget": 700}).budget == 700
    # A prompt without room for a block may be longer than the budget, as long as the model holds it.
    assert (
        build({"method": "rag", "input_budget": 700, "overlong": "whole", "max_new_tokens": 48}).longest_prompt == 2000
    )
    assert (
        build({"method": "rag", "input_budget": 2040, "overlong": "whole", "max_new_tokens": 48}).longest_prompt == 2040
    )
    with pytest.raises(
        ConfigError, match=r"input_budget=model \(official for dpl\): max_new_tokens=2048 leaves nothing of"
    ):
        _ = official.budget


def test_a_run_needs_to_know_the_context_that_bounds_its_prompts(tmp_path: Path) -> None:
    """Reading prompts does not."""
    known = build({"method": "dpl", "fidelity": "official", "max_new_tokens": 48})
    known.check_context()
    unknown = build({"method": "dpl", "fidelity": "official", "model": str(tmp_path)})
    assert unknown.budget > 10**9
    with pytest.raises(ConfigError, match=r"input_budget=model needs the model's config\.json"):
        unknown.check_context()
    build({"method": "dpl", "fidelity": "official", "model": str(tmp_path), "input_budget": 900}).check_context()


def test_what_is_no_budget() -> None:
    for value in ("all", "Model", 0, -5, 3.5, True):
        with pytest.raises(
            ConfigError, match=r"^input_budget: write a number of tokens, at least 1, or the word model, g"
        ):
            build({"method": "rag", "input_budget": value})


def test_official_7b_is_paper_7b_but_for_the_fidelity() -> None:
    assert {k: v for k, v in read_config("official-7b").items() if k != "fidelity"} == read_config("paper-7b")


def test_settings_of_takes_the_kinds_asked_for() -> None:
    config = build({"method": "rag", "k": 3})
    assert settings_of(config, [RETRIEVAL]) == {"retriever": "recency", "k": 3}
    every = settings_of(config, list(Kind))
    assert set(every) == {name for name, _, _ in fields_of(RunConfig)} - {"options"}


def test_backend_settings_of_takes_the_kinds_asked_for() -> None:
    config = build({"method": "rag", "vllm": {"dtype": "float32"}, "openai": {"retries": 2}})
    wanted = {"vllm.dtype": "float32", "vllm.quantization": None, "vllm.repetition_penalty": 1.0}
    wanted["vllm.batch_invariant"] = False
    assert backend_settings_of(config, [GENERATION]) == wanted
    server = build({"method": "rag", "backend": "openai", "openai": {"base_url": "http://me:pass@host/v1"}})
    assert backend_settings_of(server, [RUNTIME])["openai.base_url"] == "http://host/v1"
    assert backend_settings_of(server, [DATA, RETRIEVAL]) == {}


def test_round_trip_of_a_recorded_configuration() -> None:
    config = build(read_config("demo"), {"method": "pag"})
    recorded = yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))
    assert build(recorded, recorded.pop("options")) == config
