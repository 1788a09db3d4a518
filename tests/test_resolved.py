"""A configuration resolved: what is refused before any work, and what runs share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import transformers

from bench.chat import Chat
from bench.config import RunConfig, Section, build, read_config
from bench.context import Context
from bench.data.corpus import Corpus
from bench.data.peers import Peers
from bench.errors import ConfigError, PluginError
from bench.execute import execute
from bench.job import Job
from bench.protocols import Properties, Steps
from bench.records import Call, Completion, Instance, Record
from bench.resolved import Inputs, Run, validation_subset
from bench.tasks.reviews import Reviews
from bench.work import first_prompt


class Echo:
    """A backend that takes vectors and answers with the seed."""

    settings: ClassVar[type[Section]] = Section
    takes_vectors: ClassVar[bool] = True
    applies_template: ClassVar[bool] = True
    timing: ClassVar[dict[str, object]] = {}

    def __init__(self, config: RunConfig, chat: Chat, vectors: bool) -> None:
        self._waiting: list[Call] = []

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """It needs nothing."""

    @classmethod
    def device(cls) -> str:
        return "paper"

    def submit(self, call: Call) -> None:
        assert call.vectors is not None
        self._waiting.append(call)

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            yield call, Completion(f"seed {call.seed}", 1, 1, "stop", 0.0)

    def close(self) -> None:
        """Nothing is open."""


def test_a_run_with_five_epochs_loads_one_tokenizer_and_builds_one_pool_a_category(
    demo: dict[str, Corpus],
    register: Callable[[str, str, type], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    register("backends", "echo", Echo)
    found: Counter[str] = Counter()
    load, build_pool = transformers.AutoTokenizer.from_pretrained, Peers.__init__

    def loaded(name: Any, **more: Any) -> Any:
        found["tokenizer"] += 1
        return load(name, **more)

    def built(pool: Peers, corpus: Corpus, *rest: Any) -> None:
        found[corpus.category] += 1
        build_pool(pool, corpus, *rest)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", loaded)
    monkeypatch.setattr(Peers, "__init__", built)
    settings = {
        "backend": "echo",
        "limit": 1,
        "metrics": ["rouge"],
        "results": str(tmp_path),
        "train": {"epochs": 5, "limit": 2, "validation": 3},
        "dep": {"latent": 8},
    }
    job = Job.of(build(read_config("demo"), {"method": "dep"}, settings))
    (summary,) = execute([job])
    assert summary.adapter is not None
    assert summary.adapter.epochs == 5
    assert found == {"tokenizer": 1, **dict.fromkeys(demo, 1)}


@dataclass(frozen=True)
class Essays(Reviews):
    """Texts of no item, at no time."""

    target: ClassVar[str] = "essay"
    grouped: ClassVar[bool] = False
    timed: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ("rouge",)
    max_new_tokens: ClassVar[int] = 7


@pytest.fixture
def essays(register: Callable[[str, str, type], None], tiny_qwen2: Path) -> Callable[..., Run]:
    register("tasks", "essays", Essays)
    past = tuple(Record("u1", text, {}) for text in ("one", "two"))
    instances = (Instance("Essays/test/u1", "Essays", "test", "u1", {}, past),)
    corpora = {"Essays": Corpus("Essays", {"test": instances}, {"Essays/test/u1": "three"})}

    def make(**settings: Any) -> Run:
        return Run(build({"task": "essays", "model": str(tiny_qwen2)}, settings), Inputs(corpora))

    return make


@pytest.mark.parametrize("method", ["dpl", "dep"])
def test_a_method_with_peers_is_refused_on_a_task_without_groups(method: str, essays: Callable[..., Run]) -> None:
    with pytest.raises(ConfigError) as refused:
        essays(method=method, retriever="bm25")
    assert str(refused.value) == (
        f"method {method} compares users by what they wrote of the same thing, and the data of task essays have "
        "nothing that users share; choose a method without peers (bench list methods)"
    )


def test_a_metric_with_peers_is_refused_on_a_task_without_groups(essays: Callable[..., Run]) -> None:
    with pytest.raises(ConfigError, match="metric identification tells users from their peers, and the data of task"):
        essays(method="nonperso", metrics=["rouge", "identification"])


def test_a_retriever_by_time_is_refused_on_a_task_without_times(essays: Callable[..., Run]) -> None:
    with pytest.raises(ConfigError, match="retriever recency needs times, which the data of task essays do not have"):
        essays(method="rag")
    assert essays(method="rag", retriever="bm25").retriever is not None
    # A method that retrieves nothing has no use for the default retriever.
    assert essays(method="nonperso").retriever is None


def test_defaults_come_from_the_task(essays: Callable[..., Run]) -> None:
    config = essays(method="nonperso").config
    assert (config.metrics, config.max_new_tokens) == (("rouge",), 7)
    assert essays(method="nonperso", metrics=["bleu"], max_new_tokens=9).config.max_new_tokens == 9
    reviews = build({"method": "rag"})
    assert (reviews.metrics, reviews.max_new_tokens) == (("rouge", "meteor", "bleu", "bertscore"), 2048)


def test_runs_share_what_they_read(shop_config: Path) -> None:
    inputs = Inputs()

    def run(**settings: Any) -> Run:
        return Run(build(read_config(str(shop_config)), {"method": "dpl"}, settings), inputs)

    first, second, official = run(), run(seed=1, method="dep"), run(fidelity="official")
    assert first.corpora["Toys"] is second.corpora["Toys"]
    assert first.chat is second.chat
    assert first.contexts["Toys"].pool is second.contexts["Toys"].pool
    assert official.chat is not first.chat, "another chat template"
    assert official.contexts["Toys"].pool is not first.contexts["Toys"].pool, "unused targets are peers there"


def test_the_validation_subset_is_the_authors_draw(demo: Mapping[str, Corpus]) -> None:
    instances = [instance for corpus in demo.values() for instance in corpus.split("val")]
    chosen = validation_subset(instances, 96)
    assert len({instance.id for instance in chosen}) == 96
    assert validation_subset(instances, 5) == chosen[:5]
    # numpy.random.default_rng(42).permutation(504)[:3]
    assert [instances.index(instance) for instance in chosen[:3]] == [280, 135, 305]
    assert len(validation_subset(instances, 10_000)) == len(instances)


def test_another_task_takes_its_own_metrics_and_length(essays: Callable[..., Run]) -> None:
    """A configuration chose both for its own task; what is said beside the task counts."""
    ours = {"metrics": ["bleu"], "max_new_tokens": 99, "k": 3, "method": "nonperso"}
    config = build(ours, {"task": "essays"})
    assert (config.metrics, config.max_new_tokens, config.k) == (("rouge",), 7, 3)
    assert build(ours, {"task": "essays", "max_new_tokens": 8}).max_new_tokens == 8
    assert build(ours, {"task": "reviews"}).metrics == ("bleu",)


def test_a_wording_without_history_shows_none(shop_config: Path, tmp_path: Path) -> None:
    place = tmp_path / "prompts" / "rag" / "write.txt"
    place.parent.mkdir(parents=True)
    place.write_text("=== system\n{{instruction}}\n=== user\n{{given}}\n")
    run = Run(build(read_config(str(shop_config)), {"method": "rag", "prompts": str(tmp_path / "prompts")}))
    prompt = first_prompt(run, run.instances[0])
    assert (prompt.blocks_shown, prompt.blocks_offered) == (0, 2)
    assert "[Item Title]: Old Map" in prompt.user
    assert "block" not in run.templates


@dataclass(frozen=True)
class Slots:
    """Soft prompts and nothing that makes their vectors."""

    properties: ClassVar[Properties] = Properties(retrieval_augmented=False, embedded=True, inter_user=False)
    prompts_of: ClassVar[str] = "pplug"

    def steps(self, instance: Instance, context: Context) -> Steps:
        (text,) = yield [context.prompt("write", instance, texts={"soft_tokens": "[USER_TOKEN_0]"}, soft=True)]
        return text


def test_a_soft_prompt_without_an_adapter_is_refused_before_any_call(
    shop_config: Path, register: Callable[[str, str, type], None]
) -> None:
    register("methods", "slots", Slots)
    job = Job.of(build(read_config(str(shop_config)), {"method": "slots"}))
    with pytest.raises(PluginError, match="method slots yields soft prompts and has no adapter"):
        job.check()


def test_a_damaged_or_newer_neighbour_does_not_stop_a_run(shop_config: Path) -> None:
    def job() -> Job:
        return Job.of(build(read_config(str(shop_config)), {"method": "copy"}))

    said: list[str] = []
    stem = job().folder.name.rpartition("-")[0]
    for name, content in (("0", '{"schema": 1,'), ("1", '{"schema": 1}'), ("4", '{"schema": 4}')):
        neighbour = job().folder.with_name(f"{stem}-{name}")
        neighbour.mkdir(parents=True)
        (neighbour / "run.json").write_text(content)
    execute([job()], said.append)
    assert [line for line in said if "schema" in line] == [
        f"{stem}-1 is of an older schema (1; this version writes 3): it can be listed, shown and compared, and its "
        "texts are made anew"
    ]
