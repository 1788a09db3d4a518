"""How much the history changes the probability of each token, against transformers' own forward pass."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.cli import main
from bench.config import build, read_config
from bench.data.corpus import Corpus
from bench.job import Job
from bench.records import Instance
from bench.report import heat
from bench.report.weighed import page
from bench.resolved import Inputs, Run
from bench.softprompt.influence import Influence, token_weights
from bench.softprompt.trained import TrainedAdapter
from bench.store import RunStore
from bench.work import first_prompt

CLIP = (0.5, 5.0)
MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(demo: dict[str, Corpus], tmp_path: Path) -> MakeRun:
    """A run over some of the demo's books whose adapter learns with weights: make_run(method, empty=1, **settings), the
    profiles of the first `empty` training instances emptied."""
    base = read_config("demo") | {"results": str(tmp_path), "categories": ["Books"], "k": 2, "limit": 1}

    def make(method: str = "prompt_tuning", empty: int = 0, **settings: Any) -> Run:
        corpus = demo["Books"]
        if empty:
            first = {one.user_id for one in corpus.longest_profiles("train")[:empty]}
            cold = [replace(one, profile=()) if one.user_id in first else one for one in corpus.split("train")]
            corpus = replace(corpus, instances={**corpus.instances, "train": cold})
        train = {"loss": "history", "limit": 3, "dtype": "float32"} | settings.pop("train", {})
        return Run(build(base, {"method": method, "train": train}, settings), Inputs({"Books": corpus}))

    return make


def log_probabilities(model: Any, run: Run, instance: Instance) -> np.ndarray[Any, Any]:
    """Of the reference's tokens and of the end of the turn, behind the prompt."""
    before = run.chat.ids(first_prompt(run, instance))
    text = run.corpora["Books"].reference(instance).strip()
    tokenizer = run.chat.tokenizer
    after = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        found = model(torch.tensor([[*before, *after]])).logits[0].double().log_softmax(-1)
    return np.array([found[len(before) + n - 1, token] for n, token in enumerate(after)])


def test_influence_is_a_difference_of_log_probabilities(make_run: MakeRun, frozen: Any) -> None:
    """With and without the history; where none is shown it is 0, and nothing is asked."""
    model = frozen("demo")
    run = make_run(empty=1)
    adapter = TrainedAdapter(run)
    assert adapter.influence is not None
    cold, *warm = adapter.instances
    assert not cold.profile
    assert all(one.profile for one in warm)
    nats = adapter.influence.of(adapter.instances, model, 700)
    found = {instance.id: row for instance, row in zip(adapter.instances, nats, strict=True)}
    assert not found[cold.id].any()
    shown, bare = (
        Run(run.config.model_copy(update={"method": "rag", "k": k, "seed": run.config.train.seed}), run.inputs)
        for k in (2, 0)
    )
    for instance in warm:
        assert first_prompt(shown, instance).blocks_shown
        wanted = log_probabilities(model, shown, instance) - log_probabilities(model, bare, instance)
        np.testing.assert_allclose(found[instance.id], wanted, atol=2e-3)
        assert np.abs(wanted).max() > 1


def test_weights_are_clipped_and_one_on_average() -> None:
    nats = np.array([-3.0, 0.2, 1.0, 9.0], np.float32)
    assert token_weights(nats, CLIP).tolist() == pytest.approx([0.5 / 1.75, 0.5 / 1.75, 1 / 1.75, 5 / 1.75])
    assert token_weights(np.zeros(3, np.float32), CLIP).tolist() == [1, 1, 1], "no history: all tokens count alike"


class NoModel:
    """A model that nobody may ask."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the model was asked for {name}")


def test_what_is_kept_is_computed_once_for_all_methods(
    make_run: MakeRun, frozen: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (TrainedAdapter(make_run(method)) for method in ("prompt_tuning", "e2p"))
    assert one.influence is not None
    assert other.influence is not None
    assert one.folder != other.folder
    assert one.influence.path == other.influence.path
    found = one.influence.of(one.instances[:2], frozen("demo"), 700)
    again = other.influence.of(other.instances[:2], NoModel(), 700)
    assert [row.tolist() for row in again] == [row.tolist() for row in found]
    # A kill leaves a torn line, a disk another number.
    path = one.influence.path
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0].replace(b"nats", b"mats") + lines[1] + lines[1][:20])
    capsys.readouterr()
    mended = one.influence.of(one.instances, frozen("demo"), 700)
    assert "1 of 2 rows are damaged" in capsys.readouterr().err
    for row, wanted in zip(mended, found, strict=False):
        np.testing.assert_allclose(row, wanted, atol=1e-3)
    assert set(one.influence.kept()) == {instance.id for instance in one.instances}


def test_the_trainer_is_given_the_weights(make_run: MakeRun, frozen: Any) -> None:
    adapter = TrainedAdapter(make_run())
    job = adapter.job()
    assert job.token_weights is not None
    found = job.token_weights(frozen("demo"))
    for weights, made in zip(found, job.examples(), strict=True):
        assert weights.shape == (made.target_tokens,)
        assert weights.mean() == pytest.approx(1, abs=1e-5)
        assert weights.std() > 0.1
    assert TrainedAdapter(make_run(train={"loss": "plain"})).job().token_weights is None


def test_the_retriever_has_to_fit(make_run: MakeRun) -> None:
    """The weights come from a history even where the method shows none."""
    plain = Influence(TrainedAdapter(make_run()).training)
    assert plain.path != Influence(TrainedAdapter(make_run(retriever="bm25")).training).path
    assert plain.path != Influence(TrainedAdapter(make_run(k=1)).training).path
    assert plain.path == Influence(TrainedAdapter(make_run(temperature=0.1)).training).path


# ---- what a person sees of it


def test_the_heat_map_stands_under_the_text() -> None:
    pieces = [("The", 0.4), (" kite", 3.2), (" naïve", 1.5), (" 風", 2.0), ("!\nNext", 0.8), (" cut off", None)]
    assert heat.terminal(pieces).splitlines()[:-1] == [
        "The kite naïve 風!",
        "   █████▒▒▒▒▒▒▓▓▓░",
        "Next cut off",
        "░░░░",
    ]
    long = heat.terminal([(f" word{n}", 3.0) for n in range(60)]).splitlines()[:-1]
    assert "".join(long[::2]) == "".join(f" word{n}" for n in range(60))
    assert all(len(line) <= 120 for line in long)
    assert all(shades == "█" * len(text) for text, shades in zip(long[::2], long[1::2], strict=True))


def test_a_page_shows_what_is_written_as_text() -> None:
    shown = heat.html([("<img src=x>", 3.5), (" &  'b'", None)])
    assert shown == (
        "<p class='heat' dir='auto'><span class='heat4' title='3.50'>&lt;img src=x&gt;</span> &amp;  &#x27;b&#x27;</p>"
    )


def test_show_and_report_have_the_heat_map_of_a_training_text(
    make_run: MakeRun, frozen: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    job = Job.of(run.config, run.inputs)
    assert job.trains is not None
    assert job.trains.influence is not None
    with RunStore(job.folder, job.record(), print, job.places):
        pass
    first, second, *_ = job.trains.instances
    job.trains.influence.of([first], frozen("demo"), 700)
    at = ["--results", str(run.config.results)]
    main(["show", job.folder.name, *at])
    assert f"bench show {job.folder.name} --instance {first.id}" in capsys.readouterr().out
    main(["show", job.folder.name, "--instance", first.id, *at])
    _, facts, rest = capsys.readouterr().out.partition("=== trained on, with the weights of its tokens\n")
    assert facts
    lines = rest.splitlines()[:-1]
    assert "".join(lines[::2]) == run.corpora["Books"].reference(first)
    assert set("".join(lines[1::2])) > {" ", "█"}
    (introduction, legend, heading, *texts) = page([("<b>", run.config)] * 2, ())
    assert "log-probability" in introduction
    assert "from 3.00" in legend
    assert heading == "<h3>&lt;b&gt;</h3>", "once for runs of the same adapter"
    assert len(texts) == 2
    spoken = html.unescape(re.sub("<[^>]*>", "", texts[1]))
    assert spoken == run.corpora["Books"].reference(first)
    assert main(["show", job.folder.name, "--instance", second.id, *at]) == 2, "nothing is kept of it"
