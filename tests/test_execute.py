"""Trained methods from end to end with a real engine, what is done again and what is not, and that nothing leaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bench import registry
from bench.backends import Engines
from bench.backends.vllm import VLLMBackend
from bench.cli import main
from bench.config import build
from bench.data.corpus import Corpus
from bench.encoders import HashedNgrams
from bench.errors import StoreError
from bench.execute import embed_ahead, execute, train
from bench.job import Job
from bench.records import Completion, Instance, Prompt, Record
from bench.resolved import Inputs, Run
from bench.results import Prediction, Selection, Summary, rows_of
from bench.softprompt import trainer
from bench.softprompt.trained import TrainedAdapter, fresh_adapter
from bench.work import Work, first_prompt

SETTINGS = {
    "dataset": "demo",
    "categories": ["Books"],
    "model": "python:bench/demo/model",
    "limit": 3,
    "k": 2,
    "input_budget": 800,
    "max_new_tokens": 16,
    "vllm": {"dtype": "float32", "enforce_eager": True},
    "metrics": ["rouge"],
    "resamples": 10,
    "meteor": {"tokenizer": "treebank"},
    "dep": {"encoder": "hashed-ngrams", "latent": 16},
    "pplug": {"encoder": "hashed-ngrams"},
    "e2p": {"encoder": "hashed-ngrams"},
    "dpl": {"encoder": "hashed-ngrams"},
    "drp": {"encoder": "hashed-ngrams"},
    "train": {
        "epochs": 3,
        "batch_size": 3,
        "limit": 6,
        "validation": 4,
        "learning_rate": 0.03,
        "dtype": "float32",
        "max_target_tokens": 60,
    },
}


@dataclass
class Lab:
    """Runs on one engine, which outlives them, in one folder; what was asked of it."""

    results: Path
    books: dict[str, Corpus]
    engines: Engines
    trained: list[Path] = field(default_factory=list)
    asked: dict[tuple[str, str, int], dict[str, Any]] = field(default_factory=dict)
    """What went into vLLM for each soft prompt, by call."""
    started: int = 0

    def job(self, *settings: dict[str, Any]) -> Job:
        return Job.of(build(SETTINGS, {"method": "dep", "results": str(self.results)}, *settings), Inputs(self.books))

    def adapter(self, *settings: dict[str, Any]) -> TrainedAdapter:
        return adapter_of(self.job(*settings))


def adapter_of(job: Job) -> TrainedAdapter:
    assert job.trains is not None
    return job.trains


@pytest.fixture(scope="module")
def books(demo: dict[str, Corpus]) -> dict[str, Corpus]:
    return {"Books": demo["Books"]}


@pytest.fixture(scope="module")
def lab(books: dict[str, Corpus], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from vllm.v1.engine.llm_engine import LLMEngine

    class Shared(Engines):
        """Stays open when a run is done with it."""

        def __exit__(self, *_: object) -> None:
            pass

    lab = Lab(tmp_path_factory.mktemp("results"), books, Shared(vectors=True))
    add, train_job, init = LLMEngine.add_request, trainer.train, VLLMBackend.__init__

    def record(engine: LLMEngine, request: str, prompt: Any, *rest: Any) -> Any:
        if "prompt_embeds" in prompt:
            instance, stage, index = request.split("\x1f")
            lab.asked[instance, stage, int(index)] = prompt
        return add(engine, request, prompt, *rest)

    def count(job: Any) -> None:
        lab.trained.append(job.folder)
        train_job(job)

    def start(*arguments: Any) -> None:
        lab.started += 1
        init(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.execute.Engines", lambda vectors=False: lab.engines)
        patch.setattr(trainer, "train", count)
        patch.setattr(LLMEngine, "add_request", record)
        patch.setattr(VLLMBackend, "__init__", start)
        yield lab
        lab.engines.close()


@pytest.fixture(scope="module")
def first(lab: Lab) -> tuple[Job, Summary]:
    """DEP's job and its summary, the adapter trained and its epoch chosen on the way."""
    job = lab.job()
    (summary,) = execute([job])
    return job, summary


def rows(folder: Path) -> list[Prediction]:
    return list(rows_of(Prediction, folder / "predictions.jsonl"))


def selection(job: Job) -> Selection:
    chosen = adapter_of(job).selection
    assert chosen is not None
    return chosen


@pytest.fixture
def wordnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """NLTK's reader of WordNet, with made-up files for what a system's WordNet lacks and METEOR does not read."""
    import nltk.data
    from nltk.corpus.reader import WordNetCorpusReader

    from bench.metrics import _wordnet

    source = _wordnet.find(nltk.data.path)
    assert source is not None
    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    for name in _wordnet.NEEDED:
        (folder / name).write_bytes(source.read(name))
    (folder / "lexnames").write_text("".join(f"{number:02d}\tname{number}\t1\n" for number in range(45)))
    (folder / "index.sense").write_text("")
    # NLTK reads only below this.
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    return WordNetCorpusReader(str(folder), None)


# -- one run -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The multilingual functions")
def test_the_best_epoch_by_nltks_meteor_is_kept(first: tuple[Job, Summary], lab: Lab, wordnet: Any) -> None:
    from nltk.tokenize import word_tokenize
    from nltk.translate.meteor_score import meteor_score

    job, summary = first
    drawn = np.random.default_rng(42).permutation(len(lab.books["Books"].split("val")))[:4]
    instances = [lab.books["Books"].split("val")[index] for index in drawn]
    chosen = selection(job)
    scores = {}
    for epoch in (1, 2, 3):
        found = rows(adapter_of(job).selection_folder / f"epoch-{epoch}")
        assert [row.instance for row in found] == [instance.id for instance in instances]
        assert [row.reference for row in found] == [lab.books["Books"].reference(one) for one in instances]
        each = [
            meteor_score(
                [word_tokenize(row.reference, preserve_line=True)],
                word_tokenize(row.prediction, preserve_line=True),
                wordnet=wordnet,
            )
            for row in found
        ]
        scores[epoch] = float(np.mean(each))
        assert chosen.scores[epoch] == pytest.approx(scores[epoch], abs=1e-9)
    assert len(set(scores.values())) > 1, "the epochs differ"
    assert chosen.epoch == max(scores, key=lambda epoch: scores[epoch])
    assert chosen.instances == 4
    assert summary.adapter.epoch == chosen.epoch
    assert summary.adapter.name == adapter_of(job).folder.name
    assert adapter_of(job).weights() == adapter_of(job).folder / f"epoch-{chosen.epoch}.safetensors"
    assert {path.name for path in adapter_of(job).folder.iterdir()} >= {
        "adapter.json",
        "checkpoint.safetensors",
        "log.jsonl",
        "loss.png",
        "training.json",
    }


def test_every_text_is_asked_for_with_the_vectors_of_its_epoch(first: tuple[Job, Summary], lab: Lab) -> None:
    job, summary = first
    assert summary.instances == {"Books": 3}
    hidden = next(iter(lab.asked.values()))["prompt_embeds"].shape[1]
    for one in (job, job.validation(3)):
        adapter = fresh_adapter(one.run, hidden)
        adapter.load_state_dict(load_file(adapter_of(one).weights(one.epoch)))
        for instance in one.run.instances:
            prompt = first_prompt(one.run, instance)
            given = lab.asked[instance.id, "dep_review", 0]
            with torch.inference_mode():
                (wanted,), _ = adapter([{name: torch.from_numpy(values) for name, values in prompt.features.items()}])
            made = trainer.example(one.run.chat, prompt, "answer", 60)
            assert [place for place, is_id in enumerate(given["prompt_is_token_ids"]) if not is_id] == list(made.slots)
            torch.testing.assert_close(given["prompt_embeds"][made.slots], wanted, rtol=0, atol=1e-6)
            kept = [
                token
                for token, is_id in zip(given["prompt_token_ids"], given["prompt_is_token_ids"], strict=True)
                if is_id
            ]
            assert kept == [
                int(token) for place, token in enumerate(made.ids[: made.targets]) if place not in made.slots
            ]


def test_a_finished_run_is_left_alone(first: tuple[Job, Summary], lab: Lab) -> None:
    def stamps() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in lab.results.rglob("*") if path.is_file()}

    job, summary = first
    before, trained, asked = stamps(), len(lab.trained), len(lab.asked)
    assert execute([lab.job()]) == [summary]
    assert stamps() == before
    assert (len(lab.trained), len(lab.asked)) == (trained, asked)
    assert job.folder == lab.job().folder


def test_training_alone_finds_what_is_done(first: tuple[Job, Summary], lab: Lab) -> None:
    job, _ = first
    trained = len(lab.trained)
    assert train(lab.job()) == selection(job)
    assert len(lab.trained) == trained


# -- runs that share an adapter ------------------------------------------------------------------------------------


def test_an_adapter_is_decoded_with_fewer_blocks(first: tuple[Job, Summary], lab: Lab) -> None:
    job, _ = first
    fewer = lab.job({"k": 1, "train": {"k": 2}})
    assert adapter_of(fewer).folder == adapter_of(job).folder
    assert adapter_of(fewer).selection_folder == adapter_of(job).selection_folder
    assert fewer.folder != job.folder
    trained = len(lab.trained)
    execute([fewer])
    assert len(lab.trained) == trained
    assert [row.blocks_shown for row in rows(fewer.folder)] == [1, 1, 1]
    assert [row.blocks_shown for row in rows(job.folder)] == [2, 2, 2]
    assert lab.adapter({"k": 1}).folder != adapter_of(job).folder


def test_without_blocks_there_is_no_adapter(first: tuple[Job, Summary], lab: Lab) -> None:
    none = lab.job({"k": 0})
    assert none.adapter is None
    trained, asked = len(lab.trained), len(lab.asked)
    (summary,) = execute([none])
    assert (len(lab.trained), len(lab.asked)) == (trained, asked)
    assert summary.adapter is None
    assert [row.blocks_shown for row in rows(none.folder)] == [0, 0, 0]
    # Settings of training are none of its own.
    assert lab.job({"k": 0, "train": {"epochs": 9}}).folder == none.folder
    assert lab.job({"k": 0, "train": {"k": 2}}).trains is None


@pytest.mark.parametrize("whose", ["shuffled", "constant"])
def test_other_vectors_come_from_the_same_adapter(whose: str, first: tuple[Job, Summary], lab: Lab) -> None:
    job, _ = first
    other = lab.job({"dep": {"vectors": whose}})
    assert adapter_of(other).folder == adapter_of(job).folder
    assert adapter_of(other).selection_folder == adapter_of(job).selection_folder
    assert other.folder != job.folder
    given = {key: lab.asked[key]["prompt_embeds"] for key in lab.asked}
    trained = len(lab.trained)
    execute([other])
    assert len(lab.trained) == trained
    for instance in other.run.instances:
        key = (instance.id, "dep_review", 0)
        assert not torch.equal(lab.asked[key]["prompt_embeds"], given[key])
        assert other.vectors is not None
        assert job.vectors is not None
        vectors = other.vectors.of(first_prompt(other.run, instance), instance)
        own = job.vectors.of(first_prompt(job.run, instance), instance)
        assert vectors.shape == own.shape
        assert not np.isclose(vectors, own).all(axis=1).any()


def test_another_temperature_chooses_again_and_does_not_train(first: tuple[Job, Summary], lab: Lab) -> None:
    job, _ = first
    trained = len(lab.trained)
    cold = lab.job({"temperature": 0.1})
    colder = adapter_of(cold)
    assert colder.folder == adapter_of(job).folder
    assert colder.selection_folder != adapter_of(job).selection_folder
    with pytest.raises(StoreError, match="no chosen epoch yet; run `bench train`"):
        colder.weights()
    execute([cold])
    assert len(lab.trained) == trained
    assert selection(cold).scores != selection(job).scores
    assert sorted(path.name for path in adapter_of(job).folder.glob("validation-*")) == sorted(
        [adapter_of(job).selection_folder.name, colder.selection_folder.name]
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"train": {"epochs": 4}},
        {"train": {"seed": 1}},
        {"train": {"learning_rate": 0.1}},
        {"train": {"limit": 7}},
        {"dep": {"latent": 8}},
        {"dep": {"guidance": False}},
        {"retriever": "random"},
        {"input_budget": 700},
        {"k": 3},
    ],
)
def test_what_changes_the_weights_gets_an_adapter_of_its_own(changed: dict[str, Any], lab: Lab) -> None:
    assert lab.adapter(changed).folder != lab.adapter().folder


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 5},
        {"limit": 2},
        {"split": "val"},
        {"top_p": 0.5},
        {"max_new_tokens": 9},
        {"train": {"tokens_per_batch": 100}},
        {"train": {"checkpoint_every": 1}},
        {"train": {"validation": 2}},
        {"window": 7},
        {"metrics": ["bleu"]},
    ],
)
def test_what_does_not_change_the_weights_shares_the_adapter(changed: dict[str, Any], lab: Lab) -> None:
    assert lab.adapter(changed).folder == lab.adapter().folder


def test_one_engine_did_for_all(lab: Lab, first: tuple[Job, Summary]) -> None:
    assert lab.started == 1
    assert len(set(lab.trained)) == len(lab.trained)


def test_nothing_to_train_is_said(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--method", "rag", "--set", f"results={lab.results}"]) == 2
    assert "nothing to train: method rag has no adapter in this configuration" in capsys.readouterr().err


# -- nothing leaks -------------------------------------------------------------------------------------------------


def phrase(instance: Instance) -> str:
    """Stands in an instance's target text and nowhere else. Of letters: no tokenizer, no cleaning changes it."""
    letters = "".join(chr(ord("a") + int(digit, 16)) for digit in instance.user_id.encode().hex()[-12:])
    return f"zyzzyva {instance.split} {letters}"


def planted(corpora: dict[str, Corpus]) -> dict[str, Corpus]:
    """The data with a phrase of its own in every target text of every split, also where that text stands in a profile
    of a later split."""
    result = {}
    for category, corpus in corpora.items():
        marked: dict[str, str] = {}
        references: dict[str, str] = {}
        for split in ("test", "val"):
            for instance in corpus.split(split):
                text = corpus.reference(instance)
                references[instance.id] = marked[text] = f"{text} {phrase(instance)}"
        for instance in corpus.split("train"):
            references[instance.id] = corpus.reference(instance)

        def mark(record: Record, marked: dict[str, str] = marked) -> Record:
            return replace(record, text=marked.get(record.text, record.text))

        instances = {
            split: tuple(replace(one, profile=tuple(map(mark, one.profile))) for one in found)
            for split, found in corpus.instances.items()
        }
        result[category] = replace(corpus, instances=instances, references=references)
    return result


METHODS = registry.builtin_names("methods")


@pytest.fixture(scope="module")
def marked(demo: dict[str, Corpus]) -> dict[str, Corpus]:
    return planted({"Movies_and_TV": demo["Movies_and_TV"]})


def exchanged(run: Run) -> Iterator[tuple[Instance, Prompt | None, str | None]]:
    """Every prompt of a run, with a made-up answer to each, and the predictions."""
    for instance in run.instances:
        work = Work(run, instance)
        while calls := work.advance():
            for call in calls:
                len(call.prompt.features)  # made now
                yield instance, call.prompt, None
                work.answer(call, Completion(f"answer {call.key[1:]}", 1, 1, "stop", 0.0))
        yield instance, None, work.prediction


def test_the_phrase_is_where_it_should_be(marked: dict[str, Corpus]) -> None:
    corpus = marked["Movies_and_TV"]
    for instance in corpus.split("test"):
        assert phrase(instance) in corpus.reference(instance)
        assert not any("zyzzyva test" in review.text for review in instance.profile)
    # A validation target is part of the history at test time: that it is in no prompt then would be an accident.
    later = {one.user_id: one for one in corpus.split("test")}
    for instance in corpus.split("val"):
        assert phrase(instance) in later[instance.user_id].profile[-1].text
        assert not any("zyzzyva" in review.text for review in instance.profile)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("split", "fidelity"), [("test", "paper"), ("test", "official"), ("val", "paper")])
def test_no_target_reaches_a_prompt_or_an_encoder(
    method: str, split: str, fidelity: str, marked: dict[str, Corpus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    encode = HashedNgrams.encode

    def listen(encoder: HashedNgrams, texts: Sequence[str]) -> Any:
        encoded.extend(texts)
        return encode(encoder, texts)

    monkeypatch.setattr(HashedNgrams, "encode", listen)
    settings = {"method": method, "results": str(tmp_path), "split": split, "fidelity": fidelity}
    run = Run(
        build(SETTINGS, settings, {"limit": 12, "k": 4, "input_budget": 1500, "categories": None}), Inputs(marked)
    )
    (corpus,) = marked.values()
    secrets = {phrase(one): one for name in ("test", "val") for one in corpus.split(name)}
    assert len(secrets) == len(corpus.split("test")) + len(corpus.split("val"))

    def check(text: str, users: set[str]) -> None:
        """At test time a user's own validation target is history, and to DPL's released code everybody's; every other
        target is a secret."""
        for secret, owner in secrets.items():
            known = owner.user_id in users or run.config.switch("peers.all_targets")
            assert secret not in text or (split == "test" and owner.split == "val" and known)

    asked = 0
    for instance, prompt, prediction in exchanged(run):
        check(prompt.system + prompt.user if prompt is not None else str(prediction), {instance.user_id})
        asked += prompt is not None
        assert phrase(instance) in run.corpora[instance.category].reference(instance)
    assert (asked > 0) == run.method.properties.calls_model
    assert bool(encoded) == (getattr(run.method, "encoder", None) is not None)
    for text in encoded:
        check(text, {instance.user_id for instance in run.instances})
    # Ahead of everything come the reviews of all profiles, of all splits: no test target is among them.
    embed_ahead(run)
    assert not any("zyzzyva test" in text for text in encoded)


def test_training_sees_no_target_but_its_own(marked: dict[str, Corpus], tmp_path: Path) -> None:
    settings = {"results": str(tmp_path), "categories": None, "train": {"limit": 12}}
    trained = []
    for method in METHODS:
        job = Job.of(build(SETTINGS, settings, {"method": method}), Inputs(marked))
        if job.trains is None:
            continue
        trained.append(method)
        examples = job.trains.examples()
        assert len(examples) == 12
        for made in examples:
            ids = [int(token) for place, token in enumerate(made.ids) if place not in made.slots]
            assert "zyzzyva" not in job.run.chat.tokenizer.decode(ids)
    assert trained == ["dep", "e2p", "pplug", "prompt_tuning"]
