"""The tasks of LaMP, LongLaMP and PGraphRAG: their invented data, what a question is cut into, what a record answers,
and every method on them."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

import bench
from bench import registry
from bench.cli import main
from bench.config import build
from bench.data.load import load, write_sample
from bench.errors import ConfigError, DataError, MisfitError
from bench.records import Instance
from bench.resolved import Inputs, Run
from bench.results import Prediction, rows_of

FAMILIES = ("lamp", "longlamp", "pgraphrag")
TASKS = [name for name in registry.builtin_names("tasks") if name.partition("-")[0] in FAMILIES]
TREEBANK = {"tokenizer": "treebank"}
METHODS = ["nonperso", "rag", "pag", "dpl", "pplug", "dep", "copy", "prompt_tuning"]


def made(task: str, given: str) -> Any:
    """What retrievers look for in a question."""
    kind = registry.create("tasks", task, {})
    return kind.query(Instance("C/test/u", "C", "test", "u", {"input": given}, ()))


def test_the_tasks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "tasks"]) == 0
    wanted = [*(f"lamp-{number}" for number in (1, 2, 3, 4, 5, 7)), "longlamp-abstract", "longlamp-review"]
    wanted += ["longlamp-topic", "pgraphrag-rating", "pgraphrag-text", "pgraphrag-title", "reviews"]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == wanted
    assert len(TASKS) == 12


@pytest.mark.parametrize("task", TASKS)
def test_a_sample_is_fifty_users_read_by_the_layout_of_the_task(task: str, tmp_path: Path) -> None:
    folder = write_sample(task, tmp_path / "sample")
    (category,) = corpora = load(str(folder), None, task=task)
    corpus = corpora[category]
    instances = [instance for split in corpus.instances.values() for instance in split]
    assert len(instances) == 50 == len({instance.id for instance in instances})
    assert set(corpus.references) == {instance.id for instance in instances}
    assert min(len(corpus.split(split)) for split in ("train", "val", "test")) >= 4
    # The same wherever it is made, and the task's "demo".
    demo = load("demo", None, task=task)
    assert demo[category].fingerprint == corpus.fingerprint
    assert any("Invented data" in note for note in demo[category].notes)
    kind = registry.create("tasks", task, {})
    labels = getattr(kind, "labels", ())
    for instance in instances:
        assert kind.query(instance)
        assert kind.about(instance)
        assert kind.shown(instance)
        assert not labels or corpus.reference(instance) in labels
        for record in instance.profile[:2]:
            assert kind.document(record)
            assert "id" not in record.fields
    with pytest.raises(DataError, match="exists already"):
        write_sample(task, folder)


def test_what_a_question_is_cut_into() -> None:
    assert made("lamp-3", "What is the score? review: Fine: a review: of sorts") == "Fine: a review: of sorts"
    assert made("lamp-2", "tags: [a, b] description: A film.") == "A film."
    assert made("lamp-4", "Generate a headline for the following article: So: it is") == "So: it is"
    assert made("lamp-5", "Generate a title for the following abstract of a paper: We") == "We"
    assert made("lamp-7", "Paraphrase the following tweet without any explanation before or after it: hi") == "hi"
    assert made("lamp-1", 'By the author of "A", which? [1]: "B b" [2]: "C"') == "B b C"
    assert made("longlamp-abstract", "Write for the title T using the following items: one, two") == "one, two"
    assert made("longlamp-review", "Write: this") == "Write: this"
    # An input of another form is looked for as a whole.
    for task in ("lamp-1", "lamp-2", "lamp-4", "lamp-7", "longlamp-abstract"):
        assert made(task, "nothing to cut") == "nothing to cut"


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("lamp-2", lambda record: record.fields["tag"]),
        ("lamp-3", lambda record: record.fields["score"]),
        ("lamp-4", lambda record: record.fields["title"]),
        ("lamp-5", lambda record: record.fields["title"]),
        ("lamp-7", lambda record: record.text),
        ("longlamp-topic", lambda record: record.text),
        ("pgraphrag-text", lambda record: record.text),
        ("pgraphrag-title", lambda record: record.fields["title"]),
        ("pgraphrag-rating", lambda record: record.fields["rating"]),
    ],
)
def test_copy_repeats_the_last_answer(task: str, answer: Any, tmp_path: Path) -> None:
    summary = bench.run("copy", {"task": task, "results": str(tmp_path), "resamples": 10, "meteor": TREEBANK})
    (corpus,) = load("demo", None, task=task).values()
    texts = {
        row.instance: row.prediction
        for row in rows_of(Prediction, tmp_path / "runs" / summary.name / "predictions.jsonl")
    }
    for instance in corpus.split("test"):
        assert texts[instance.id] == (answer(instance.profile[-1]) if instance.profile else "")


def test_a_task_s_settings_stand_where_the_configuration_says_nothing() -> None:
    config = build({"task": "lamp-2", "method": "rag"})
    assert (config.retriever, config.metrics, config.max_new_tokens) == ("bm25", ("accuracy", "macro_f1"), 8)
    assert config.train.select_by == "accuracy"
    assert len(config.options["macro_f1"]["labels"]) == 15
    own = build({"task": "lamp-2", "method": "rag", "retriever": "random", "train": {"select_by": "macro_f1"}})
    assert (own.retriever, own.train.select_by, own.train.epochs) == ("random", "macro_f1", 5)
    assert build({"method": "rag"}).retriever == "recency"
    # A task that is chosen over another's settings keeps its own defaults.
    assert build({"metrics": ["bleu"], "max_new_tokens": 99}, {"task": "lamp-3", "method": "rag"}).metrics == (
        "mae",
        "rmse",
    )


@pytest.mark.parametrize(
    ("task", "method", "options", "message"),
    [
        ("lamp-4", "dpl", {}, "method dpl compares users by what they wrote of the same thing, and the data of task"),
        ("longlamp-review", "dep", {}, "method dep compares users by what they wrote of the same thing"),
        (
            "lamp-1",
            "copy",
            {},
            "method copy repeats what the user answered before, and the records of task lamp-1 hold",
        ),
        ("longlamp-topic", "rag", {"retriever": "recency"}, "retriever recency needs times, which the data of task"),
        # Whether LaMP's records have a date is seen in them.
        ("lamp-4", "rag", {"retriever": "recency"}, "retriever recency needs times, which the data of task lamp-4"),
        ("lamp-4", "rag", {"metrics": ["identification"]}, "metric identification tells users from their peers"),
    ],
)
def test_what_a_task_cannot_have_is_said_before_anything_runs(
    task: str, method: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(MisfitError, match=message):
        Run(build({"task": task, "method": method}, options))


def test_the_default_retriever_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench import resolved

    resolved._tell.cache_clear()
    settings = {"task": "lamp-4", "results": str(tmp_path)}
    for _ in range(2):
        resolved.tell_defaults(Run(build(settings, {"method": "rag"})))
    assert capsys.readouterr().err == "task lamp-4: bm25 chooses the history, the task's default (--retriever)\n"
    resolved.tell_defaults(Run(build(settings, {"method": "nonperso"})))
    resolved.tell_defaults(Run(build(settings, {"method": "rag", "retriever": "random"})))
    assert capsys.readouterr().err == ""


# ---- prompts, and users without a history


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    """Each task's data are made once."""
    return Inputs()


def prompts(task: str, method: str, cold: bool, config: Path, inputs: Inputs) -> list[Any]:
    """The prompts of the first test instance with a history, which it loses if `cold`."""
    run = Run(build(yaml.safe_load(config.read_text()), {"task": task, "dataset": "demo", "method": method}), inputs)
    instance = next(one for one in run.instances if one.profile)
    if cold:
        instance = dataclasses.replace(instance, profile=())
    steps = run.method.steps(instance, run.contexts[instance.category])
    asked: list[Any] = []
    try:
        found = next(steps)
        while True:
            asked += found
            found = steps.send(["(an answer)"] * len(found))
    except StopIteration as end:
        asked.append(end.value)
    return asked


def fits(task: str, method: str) -> bool:
    """Whether the task's data can serve the method."""
    kind, properties = registry.load("tasks", task), registry.load("methods", method).properties
    return not (properties.inter_user and not kind.grouped) and not (
        properties.repeats and not getattr(kind, "answered", True)
    )


@pytest.mark.parametrize("task", TASKS)
def test_every_method_on_every_task(task: str, shop_config: Path, inputs: Inputs) -> None:
    """No prompt has a heading over nothing, with a history and without, and without one nothing of it is said."""
    for method in (name for name in METHODS if fits(task, name)):
        for cold in (False, True):
            *asked, text = prompts(task, method, cold, shop_config, inputs)
            if method == "copy":
                assert (asked, bool(text)) == ([], not cold)
                continue
            assert text == "(an answer)"
            for prompt in asked:
                whole = f"{prompt.system}\n{prompt.user}"
                lines = whole.splitlines()
                assert "{{" not in whole
                assert prompt.user
                for line, after in zip(lines, [*lines[1:], ""], strict=True):
                    headed = line.startswith("[") and line.endswith("]:")
                    assert not headed or (after and not after.startswith("[")), whole
                assert ("Written by the User" in whole) == (
                    not cold and method != "nonperso" and method != "pplug" and prompt.stage != "dpl_difference"
                )
            if cold:
                # One call, and of the user nothing: the question as Non-Perso asks it, and the vectors for everybody.
                (prompt,) = asked
                (bare, _) = prompts(task, "nonperso", True, shop_config, inputs)
                assert prompt.system == bare.system
                said = prompt.user
                for slot in prompt.slots:
                    said = said.replace(slot, "")
                assert said.strip() == bare.user
                assert len(prompt.slots) == {"prompt_tuning": 16, "pplug": 1}.get(method, 0)


def test_a_reviewer_without_a_history_is_asked_for_as_ever(shop_config: Path) -> None:
    """The paper's own prompts of reviews stay as they are."""
    run = Run(build(yaml.safe_load(shop_config.read_text()), {"method": "pag"}))
    cold = next(one for one in run.instances if not one.profile)
    (profile,) = next(run.method.steps(cold, run.contexts[cold.category]))
    assert profile.user == "[User's Past Reviews]:\n"


# ---- peers of PGraphRAG


def test_peers_are_histories_of_the_split_and_the_product() -> None:
    (corpus,) = load("demo", None, task="pgraphrag-rating").values()
    run = Run(build({"task": "pgraphrag-rating", "method": "dpl", "dpl": {"encoder": "hashed-ngrams"}}))
    targets = {corpus.target_text(instance) for split in corpus.instances.values() for instance in split}
    histories = {
        split: {record.text for instance in instances for record in instance.profile}
        for split, instances in corpus.instances.items()
    }
    found = 0
    for split, instances in corpus.instances.items():
        for instance in instances:
            for record in instance.profile:
                for peer in run.contexts["books"].peers(record, instance):
                    found += 1
                    assert peer.user_id != instance.user_id
                    assert peer.group == record.group
                    assert peer.text in histories[split]
                    assert peer.text not in targets
    assert found > 50
    # What a rating is given for is known; no method or retriever can reach another's.
    assert run.contexts["books"].corpus.references == run.contexts["books"].corpus.target_texts == {}


def test_a_target_s_review_is_nobody_s_peer_whatever_is_to_be_predicted() -> None:
    from bench.data.peers import Peers

    (corpus,) = load("demo", None, task="pgraphrag-rating").values()
    first, second = [one for one in corpus.split("test") if one.profile][:2]
    record = second.profile[-1]
    texts = {**corpus.target_texts, first.id: record.text}
    assert record in Peers(corpus).of_group(record.group)
    assert record not in Peers(dataclasses.replace(corpus, target_texts=texts)).of_group(record.group)


# ---- plugins


def test_a_task_s_code_counts_with_what_it_is_built_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bench.tasks import _lamp

    before = registry.code_of(registry.create("tasks", "lamp-3", {}))
    other = registry.code_of(registry.create("tasks", "longlamp-topic", {}))
    edited = tmp_path / "_lamp.py"
    edited.write_text(inspect.getsource(_lamp) + "# edited\n")
    monkeypatch.setattr(_lamp, "__file__", str(edited))
    assert registry.code_of(registry.create("tasks", "lamp-3", {})) != before
    assert registry.code_of(registry.create("tasks", "longlamp-topic", {})) == other


def test_a_task_without_invented_data() -> None:
    with pytest.raises(DataError, match="task reviews has no invented data; tasks that have: lamp-1"):
        write_sample("reviews", Path("nowhere"))


def test_options_of_a_task_s_metrics_can_be_replaced() -> None:
    with pytest.raises(ConfigError, match=r"accuracy\.label is not an option"):
        build({"task": "lamp-1", "method": "rag", "accuracy": {"label": []}})
    config = build({"task": "lamp-1", "method": "rag", "accuracy": {"labels": ["yes", "no"]}})
    assert config.options["accuracy"]["labels"] == ["yes", "no"]
