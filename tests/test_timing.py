"""`bench time` and the comparison of timings: the arithmetic on a scripted engine, one small timing on a real one."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml

from bench import registry
from bench.backends import Engines
from bench.backends.vllm import VLLMSettings
from bench.config import build
from bench.context import Context
from bench.encoders import HashedNgrams
from bench.errors import ConfigError, StoreError
from bench.execute import predict
from bench.job import Job
from bench.records import Call, Completion, Instance, Prompt, Record
from bench.report.timing import LIMIT, file_name, time_methods, timing_csv, timing_grids
from bench.resolved import Inputs, Run
from bench.results import AdapterRecord, Selection, TrainingRecord
from bench.softprompt.adapters import read_tensors, write_tensors
from bench.softprompt.trained import TrainedAdapter, fresh_adapter
from bench.store import RunStore
from bench.timing import SCHEMA, Spread, Timing, compare_timings, measure, memory, read_timing, spread, write_timing
from bench.timing.subjects import Subject, subjects
from bench.timing.watches import WatchedBackend, WatchedRetriever


class Clock:
    """The time that a watch sees, to be set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def settings(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def call(instance: str, stage: str) -> Call:
    return Call((instance, stage, 0), Prompt(stage, "system", "user"), 1, 0.8, 0.95, 8)


# -- arithmetic ------------------------------------------------------------------------------------------------------


def test_latency_goes_from_the_first_call_to_the_last_answer() -> None:
    clock = Clock()

    class Engine:
        def __init__(self) -> None:
            self.waiting: list[tuple[float, Call]] = []

        def submit(self, call: Call) -> None:
            self.waiting.append((clock.now + 5, call))

        def completed(self) -> Iterator[tuple[Call, Completion]]:
            clock.now, answered = self.waiting.pop(0)
            yield answered, Completion("text", 7, 3, "stop", 0.0)

    watch = WatchedBackend(Engine(), clock)
    watch.submit(call("one", "first"))
    clock.now = 1.0
    watch.submit(call("two", "first"))
    list(watch.completed())
    assert clock.now == 5.0
    watch.submit(call("one", "second"))
    list(watch.completed())
    list(watch.completed())
    # one: 0 to 10, two: 1 to 6.
    assert watch.figures(instances=2, seconds=10.0) == {
        "output_tokens_per_second": pytest.approx(0.9),
        "latency_p50": pytest.approx(7.5),
        "latency_p95": pytest.approx(9.75),
        "calls": 1.5,
        "prompt_tokens": 10.5,
        "output_tokens": 4.5,
    }


def test_a_retriever_is_timed_and_not_changed() -> None:
    clock = Clock()

    class Slow:
        def rank(self, instance: Instance, candidates: Sequence[Record], context: Context) -> list[int]:
            clock.now += 2.0
            return [2, 0, 1]

    watched = WatchedRetriever(Slow(), clock)
    nothing: Any = None
    assert watched.rank(nothing, [], nothing) == [2, 0, 1]
    watched.rank(nothing, [], nothing)
    assert watched.seconds == 4.0


def test_the_spread_of_repeats() -> None:
    assert spread([3.0, 1.0, 2.5]) == Spread(median=2.5, low=1.0, high=3.0)


def test_the_peak_of_memory_begins_anew() -> None:
    assert memory.forget_peak(), "Linux tells a process's peak and lets it begin anew"
    before = memory.peak()
    block = np.ones(40_000_000, np.float32)
    assert memory.peak() > before + 100_000_000
    del block
    assert memory.forget_peak()
    assert memory.peak() < before + 100_000_000


# -- on a scripted engine --------------------------------------------------------------------------------------------


def test_every_pass_asks_the_engine_for_every_text(shop_config: Path, scripted: Any, tmp_path: Path) -> None:
    # A finished run of the very same configuration lies there, to be taken for a pass.
    job = Job.of(build(settings(shop_config), {"method": "pag"}))
    with RunStore(job.folder, job.record()) as store, Engines() as engines:
        predict(job, store, engines, print)
    runs = sorted((tmp_path / "results").rglob("*"))
    content = (job.folder / "generations.jsonl").read_bytes()
    scripted.calls.clear()

    found = measure(settings(shop_config), ["pag", "nonperso", "copy"], limit=3, warmup=1, repeats=2)

    assert Counter(call.key[1] for call in scripted.calls) == {"pag_profile": 9, "pag_review": 9, "nonperso_review": 9}
    assert len({(call.key, call.seed, call.prompt.hash) for call in scripted.calls}) == 9
    figures = {method: part["figures"] for method, part in found["methods"].items()}
    assert list(figures) == ["pag", "nonperso", "copy"]
    assert figures["pag"]["calls"] == [2.0, 2.0]
    assert figures["pag"]["prompt_tokens"] == [14.0, 14.0]
    assert figures["nonperso"]["output_tokens"] == [3.0, 3.0]
    assert all(len(values) == 2 for part in figures.values() for values in part.values())
    assert all(speed > 0 for part in figures.values() for speed in part["instances_per_second"])
    assert "retrieval_seconds" in figures["pag"]
    assert "retrieval_seconds" not in figures["nonperso"]
    assert "latency_p50" not in figures["copy"]
    assert sorted((tmp_path / "results").rglob("*")) == runs
    assert (job.folder / "generations.jsonl").read_bytes() == content


def test_a_run_with_answers_is_refused(shop_config: Path, scripted: Any, tmp_path: Path) -> None:
    subject = Subject(Job.of(build(settings(shop_config), {"method": "nonperso"})), tmp_path)
    with RunStore(tmp_path / "run", subject.job.record()) as store, Engines() as engines:
        subject.time_pass(store, engines)
        assert store.stored() == 3
        with pytest.raises(StoreError, match="holds 3 answers already: a resumed or cached run cannot be timed"):
            subject.time_pass(store, engines)
    assert len(scripted.calls) == 3


def test_texts_are_embedded_anew_each_time(demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: Counter[str] = Counter()
    original = HashedNgrams.encode

    def encode(self: HashedNgrams, texts: Sequence[str]) -> Any:
        encoded.update(texts)
        return original(self, texts)

    monkeypatch.setattr(HashedNgrams, "encode", encode)
    base = {"k": 2, "results": str(tmp_path), "dpl": {"encoder": "hashed-ngrams"}}
    (subject,) = subjects(base, ["dpl"], 2, tmp_path / "timing", Inputs({"Books": demo["Books"]}))
    found = subject.prepare(warmup=1, repeats=3)
    assert found["embedded_texts"] == len(set(encoded) - {"how long is a vector?"}) > 10
    assert len(found["figures"]["embedding_seconds"]) == 3
    # Once for the prompts, then cold in each repeat.
    assert {encoded[text] for text in encoded if text != "how long is a vector?"} == {4}


def test_an_adapter_of_the_configuration_is_used(shop_config: Path, tmp_path: Path) -> None:
    base = settings(shop_config)
    inputs = Inputs()
    (fresh,) = subjects(base, ["pplug"], 1, tmp_path / "first", inputs)
    assert fresh.weights == "fresh"
    run = Run(build(base, {"method": "pplug"}), inputs)
    adapter = TrainedAdapter(run)
    torch.manual_seed(7)
    tensors = fresh_adapter(run, 128).state_dict()
    adapter.selection_folder.mkdir(parents=True)
    files = {"epoch-1.safetensors": write_tensors(adapter.files.weights(1), tensors)}
    adapter.files.write_record(AdapterRecord(method="pplug", identity=adapter.identity))
    adapter.files.write_training(
        TrainingRecord(epochs=1, steps=1, instances=1, parameters=1, share=0.1, processes=1, seconds=1.0, files=files)
    )
    (weights,) = files.values()
    adapter.keep(Selection(column="meteor", instances=1, scores={1: 0.5}, epoch=1, signatures={}, weights=weights))
    (trained,) = subjects(base, ["pplug"], 1, tmp_path / "second", inputs)
    assert trained.weights == "trained"
    assert fresh.job.adapter is not None
    assert trained.job.adapter is not None
    used = read_tensors(trained.job.adapter.weights())
    assert trained.job.adapter.weights() != adapter.weights()
    assert all(torch.equal(used[name], tensors[name]) for name in tensors)
    assert any(not torch.equal(used[name], one) for name, one in read_tensors(fresh.job.adapter.weights()).items())


def test_a_timings_backend_has_the_settings_that_it_needs(
    shop_config: Path, scripted: Any, register: Any, tmp_path: Path
) -> None:
    class Remembering(scripted):  # type: ignore[misc]
        """Another backend without a model, which for a timing has to answer in another way."""

        timing: ClassVar[Mapping[str, object]] = {"text": "timed"}

    register("backends", "remembering", Remembering)
    base = settings(shop_config) | {"backend": "remembering", "remembering": {"text": "remembered"}}
    found = measure(base, ["nonperso"], limit=1, warmup=0, repeats=1)
    assert found["settings"]["remembering.text"] == "timed"
    base = settings(shop_config) | {"backend": "vllm", "vllm": {"prefix_caching": True, "max_num_seqs": 7}}
    for subject in subjects(base, ["rag", "prompt_tuning"], 1, tmp_path / "timing", Inputs()):
        section = subject.job.config.backend_section
        assert isinstance(section, VLLMSettings)
        assert (section.prefix_caching, section.max_num_seqs) == (False, 7)


@pytest.mark.parametrize(("warmup", "repeats"), [(-1, 3), (1, 0), (1, 10**9)])
def test_passes_that_cannot_be_made(warmup: int, repeats: int, shop_config: Path) -> None:
    with pytest.raises(ConfigError, match="--warmup of 0 to 1000 and --repeats of 1 to 1000"):
        measure(settings(shop_config), ["rag"], 1, warmup, repeats)


# -- on a real engine ------------------------------------------------------------------------------------------------


def test_the_demo_on_its_engine(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = {
        "categories": ["Books"],
        "k": 2,
        "input_budget": 800,
        "max_new_tokens": 16,
        "vllm": {"dtype": "float32", "enforce_eager": True, "prefix_caching": True},
        "pplug": {"encoder": "hashed-ngrams"},
        "train": {"batch_size": 3, "limit": 12, "dtype": "float32", "max_target_tokens": 40},
        "results": str(tmp_path),
    }
    lines = time_methods(base, ["rag", "pplug"], limit=4, warmup=1, repeats=2, name="small")

    assert capfd.readouterr().err.count("starting vLLM with") == 1, "one engine for both, with room for soft prompts"
    path = tmp_path / "timing" / "small-rag-pplug-limit4.json"
    found = read_timing(path)
    assert found["instances"] == {"Books": 4}
    assert found["settings"]["engine for soft prompts"] is True
    assert found["settings"]["vllm.prefix_caching"] is False
    assert found["engine_start_seconds"] > 0
    for part in found["methods"].values():
        figures = part["figures"]
        assert figures["calls"] == [1.0, 1.0]
        assert figures["output_tokens"][0] == figures["output_tokens"][1] <= 16
        assert figures["memory_bytes"][0] > 100 << 20
        for speed, slowest, middle in zip(
            figures["instances_per_second"], figures["latency_p95"], figures["latency_p50"], strict=True
        ):
            assert 0 < middle <= slowest <= 4 / speed
    training = found["methods"]["pplug"]["training"]
    assert training["timed_instances"] == 6
    assert training["instances_an_epoch"] == 12
    assert len(training["instances_per_second"]) == 2
    assert found["methods"]["pplug"]["weights"] == "fresh"
    assert found["methods"]["rag"]["weights"] is None
    assert training["parameters"] == 271_616
    assert compare_timings(path, path) == []
    shown = "\n".join(lines)
    assert "pplug: with a fresh adapter" in shown
    assert f"{training['parameters']:,}" in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tables", "timing"]
    assert (tmp_path / "tables" / "timing-small-rag-pplug-limit4.tex").is_file()
    assert (tmp_path / "tables" / "timing_training-small-rag-pplug-limit4.md").is_file()


# -- the tables ------------------------------------------------------------------------------------------------------


def example(**changes: Any) -> Timing:
    """A timing of rag and dep."""
    rag = {
        "instances_per_second": [10.0, 11.0, 9.5],
        "latency_p50": [1.0, 1.1, 0.9],
        "latency_p95": [2.0, 2.2, 1.9],
        "output_tokens_per_second": [900.0, 1100.0, 1000.0],
        "calls": [1.0, 1.0, 1.0],
        "prompt_tokens": [812.0, 812.0, 812.0],
        "output_tokens": [80.0, 80.0, 80.0],
        "memory_bytes": [3 << 30, 3 << 30, 3 << 30],
    }
    training = {
        "instances_per_second": [5.0, 6.0, 5.5],
        "timed_instances": 32,
        "instances_an_epoch": 660,
        "parameters": 435_712,
        "share": 0.1674,
        "memory_bytes": 1 << 30,
        "gpu_memory_bytes": None,
    }
    made: Timing = {
        "kind": "timing",
        "schema": SCHEMA,
        "created": "2026-01-01T00:00:00Z",
        "machine": {"device": "CPU (x86_64)", "processor": "Fast 9", "cores": 2},
        "load_average": 0.1,
        "versions": {"torch": "2.13.0"},
        "settings": {
            "split": "test",
            "window": 512,
            "limit": 4,
            "warmup": 1,
            "repeats": 3,
            "engine for soft prompts": True,
            "vllm.prefix_caching": False,
        },
        "model": "a/model",
        "dataset": "demo",
        "instances": {"Books": 4},
        "calibration_seconds": [0.050, 0.051, 0.049],
        "engine_start_seconds": 12.25,
        "methods": {
            "rag": {"weights": None, "figures": rag},
            "dep": {
                "weights": "trained",
                "embedded_texts": 300,
                "figures": copy.deepcopy(rag) | {"embedding_seconds": [0.1, 0.2, 0.3]},
                "training": training,
            },
        },
    }
    return made | changes


def test_the_tables() -> None:
    generation, training = timing_grids(example(), "-mine")
    assert (generation.id, training.id) == ("timing-mine", "timing_training-mine")
    cells = {(line.label, line.minor): line.cells for line in generation.blocks[0]}
    at = generation.heads.index
    lines = list(generation.blocks[0])
    assert [line.label for line in lines] == ["rag", "range", "dep", "range"]
    assert lines[0].cells[at("Instances/s")] == "10.0"
    assert lines[1].cells[at("Instances/s")] == "9.50 to 11.0"
    assert lines[1].cells[at("LLM calls")] == ""
    assert cells["rag", False][at("Embedding (s)")] == "–"
    assert cells["dep", False][at("Embedding (s)")] == "0.200"
    assert cells["dep", False][at("Peak memory (GiB)")] == "3.00"
    notes = " ".join(generation.notes)
    for text in ("started in 12.2 s", "Prefix caching is off", "dep 300", "dep: with the adapter trained", "2 cores"):
        assert text in notes
    trained, _, paper = [line for block in training.blocks for line in block]
    # 660 instances at 5.5 a second.
    assert trained.cells == ("435,712", "16.74", "5.50", "2.00", "1.00")
    assert paper.cells == ("–", "0.4", "–", "40", "–")


def test_a_servers_cache_is_not_known() -> None:
    settings = example()["settings"] | {"openai.base_url": "http://h/v1"}
    del settings["vllm.prefix_caching"]
    notes = " ".join(timing_grids(example(settings=settings))[0].notes)
    assert "Prefix caching" not in notes
    assert "What the server keeps of prompts from one pass to the next is not known here." in notes


def test_a_timing_of_a_part_does_not_take_the_place_of_the_whole() -> None:
    assert file_name("demo", [], LIMIT) == file_name("demo", registry.names("methods"), LIMIT) == "demo"
    assert file_name("demo", ["rag", "nonperso", "rag"], 4) == "demo-rag-nonperso-limit4"
    assert file_name("paper-7b", [], 4) == "paper-7b-limit4"


def test_no_training_no_second_table() -> None:
    alone = example()
    del alone["methods"]["dep"]
    (generation,) = timing_grids(alone)
    assert generation.id == "timing"
    assert "Embedding (s)" not in generation.heads


def test_every_figure_as_csv() -> None:
    lines = timing_csv(example()).splitlines()
    assert lines[0] == "method,figure,median,low,high,repeats"
    assert "rag,instances_per_second,10.0,9.5,11.0,3" in lines
    assert "dep,training_instances_per_second,5.5,5.0,6.0,3" in lines
    assert "dep,training_parameters,435712,435712,435712,1" in lines


# -- comparing -------------------------------------------------------------------------------------------------------

Compare = Callable[..., list[str]]


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """Compares the example with a changed one."""

    def compared(change: Callable[[Timing], None], factor: float = 1.25) -> list[str]:
        new = copy.deepcopy(example())
        change(new)
        write_timing(example(), tmp_path / "old.json")
        write_timing(new, tmp_path / "new.json")
        return compare_timings(tmp_path / "old.json", tmp_path / "new.json", factor)

    return compared


def scaled(method: str, figure: str, by: float) -> Callable[[Timing], None]:
    def change(new: Timing) -> None:
        figures = new["methods"][method]["figures"]
        figures[figure] = [value * by for value in figures[figure]]

    return change


def test_equal_timings_have_no_findings(compare: Compare) -> None:
    assert compare(lambda new: None) == []


@pytest.mark.parametrize(
    ("figure", "by", "found"),
    [
        (
            "instances_per_second",
            0.5,
            "rag: 5 (4.75 to 5.5) instances a second, was 10 (9.5 to 11): 2.00 times as slow",
        ),
        ("latency_p50", 1.5, "rag: 1.5 (1.35 to 1.65) seconds of median latency, was 1 (0.9 to 1.1): 1.50 times as"),
        ("latency_p95", 2.0, "rag: 4 (3.8 to 4.4) seconds of 95th percentile latency, was 2 (1.9 to 2.2): 2.00 times"),
        ("memory_bytes", 2.0, "rag: 6 GiB of memory at most, was 3: 2.00 times as much"),
    ],
)
def test_a_slower_method_is_named(figure: str, by: float, found: str, compare: Compare) -> None:
    (finding,) = compare(scaled("rag", figure, by))
    assert finding.startswith(found)
    assert "1.25 is allowed" in finding


@pytest.mark.parametrize(("figure", "by"), [("instances_per_second", 2.0), ("latency_p50", 0.5), ("latency_p95", 0.5)])
def test_a_faster_method_is_no_finding(figure: str, by: float, compare: Compare) -> None:
    assert compare(scaled("rag", figure, by)) == []


def test_a_little_slower_is_allowed(compare: Compare) -> None:
    slower = scaled("rag", "latency_p95", 1.24)
    assert compare(slower) == []
    assert len(compare(slower, factor=1.1)) == 1


def test_repeats_that_overlap_are_no_finding(compare: Compare) -> None:
    def change(new: Timing) -> None:
        new["methods"]["rag"]["figures"]["instances_per_second"] = [5.0, 5.0, 9.5]
        new["methods"]["rag"]["figures"]["latency_p50"] = [1.1, 3.0, 3.0]

    assert compare(change) == []


def test_slower_training_is_named(compare: Compare) -> None:
    def change(new: Timing) -> None:
        new["methods"]["dep"]["training"]["instances_per_second"] = [2.0, 2.1, 2.2]

    (finding,) = compare(change)
    assert finding.startswith("training of dep: 2.1 (2 to 2.2) instances a second, was 5.5 (5 to 6): 2.62 times as")


def test_more_memory_in_training_is_named(compare: Compare) -> None:
    (finding,) = compare(lambda new: new["methods"]["dep"]["training"].update(memory_bytes=2 << 30))
    assert finding.startswith("training of dep: 2 GiB of memory at most, was 1: 2.00 times as much, 1.25 is allowed")


def test_a_slower_start_is_named(compare: Compare) -> None:
    assert compare(lambda new: new.update(engine_start_seconds=24.5)) == [
        "the engine: 24.5 seconds to start, was 12.25: 2.00 times as long, 1.25 is allowed"
    ]
    assert compare(lambda new: new.update(engine_start_seconds=15.0)) == []
    assert compare(lambda new: new.update(engine_start_seconds=None)) == []


def test_other_work_is_told_with_a_finding(compare: Compare) -> None:
    def change(new: Timing) -> None:
        scaled("rag", "latency_p50", 1.5)(new)
        scaled("rag", "prompt_tokens", 1.5)(new)

    (finding,) = compare(change)
    assert finding.endswith("(1218 prompt tokens an instance, were 812)")


def test_a_method_that_is_missing(compare: Compare, tmp_path: Path) -> None:
    def change(new: Timing) -> None:
        del new["methods"]["dep"]

    assert compare(change) == [f"dep: timed in {tmp_path}/old.json, missing in {tmp_path}/new.json"]


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("machine", "device", "NVIDIA H100", "device was 'CPU (x86_64)' and is 'NVIDIA H100'"),
        ("machine", "cores", 4, "cores was 2 and is 4"),
        ("settings", "limit", 8, "limit was 4 and is 8"),
        ("settings", "k", 8, "k was None and is 8"),
    ],
)
def test_what_cannot_be_compared(part: str, name: str, value: Any, message: str, compare: Compare) -> None:
    with pytest.raises(ConfigError) as error:
        compare(lambda new: new[part].update({name: value}))
    assert message in str(error.value)


def test_other_weights_cannot_be_compared(compare: Compare) -> None:
    with pytest.raises(ConfigError, match="the weights of dep's adapter were trained and are fresh"):
        compare(lambda new: new["methods"]["dep"].update(weights="fresh"))


def test_a_slower_machine_is_not_taken_for_slower_code(compare: Compare) -> None:
    def change(new: Timing) -> None:
        new["calibration_seconds"] = [0.1, 0.102, 0.098]
        scaled("rag", "instances_per_second", 0.5)(new)

    with pytest.raises(ConfigError, match=r"took 2.00 times as long in the second"):
        compare(change)


def test_only_timings_are_compared(tmp_path: Path) -> None:
    good, run, other = tmp_path / "good.json", tmp_path / "summary.json", tmp_path / "other.json"
    write_timing(example(), good)
    run.write_text(json.dumps({"schema": 1, "seconds": 12.0}))
    write_timing(example(schema=99), other)
    with pytest.raises(ConfigError, match="is a folder, not a timing: the seconds in a run's folder may be those of a"):
        compare_timings(tmp_path, good)
    with pytest.raises(ConfigError, match="is not a timing; make one with `bench time`"):
        compare_timings(good, run)
    with pytest.raises(StoreError, match="written by schema 99"):
        compare_timings(good, other)
    with pytest.raises(ConfigError, match="has to be 1 or more"):
        compare_timings(good, good, 0.5)
