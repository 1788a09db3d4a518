"""The trainer against a plain loop over torch's own parts; kills, restarts, several processes."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.backends import Engines
from bench.cli import main
from bench.commands.options import add_settings, settings_of
from bench.config import TrainConfig, build
from bench.data.corpus import Corpus
from bench.errors import ConfigError, DataError, StoreError
from bench.execute import execute, train_adapter
from bench.files import content_hash
from bench.job import Job
from bench.records import Call, Instance, Prompt
from bench.resolved import Inputs, Run
from bench.results import Selection, TrainingStep
from bench.softprompt import processes, trainer
from bench.softprompt.adapters import AdapterFiles, read_checkpoint
from bench.softprompt.objective import Example
from bench.softprompt.trained import TrainedAdapter
from bench.softprompt.trainer import TrainingJob, learning_rate_at
from bench.work import first_prompt

DEMO_MODEL = "python:bench/demo/model"
BOOKS = {"dataset": "demo", "categories": ["Books"], "model": DEMO_MODEL, "k": 2, "input_budget": 400}
ENCODER = {"encoder": "hashed-ngrams"}
WIDTH = 192
"""Of the demo model's embeddings."""

VOCABULARY = 260
"""Rows of the tiny model's vocabulary that the made-up examples' tokenizer would have a token for."""

Weights = dict[str, Tensor]


def config(**changes: Any) -> TrainConfig:
    settings = {"epochs": 2, "batch_size": 4, "dtype": "float32", "learning_rate": 0.01, "warmup": 0.2}
    return TrainConfig(**{**settings, **changes})


@pytest.fixture
def job(tiny_qwen2: Path, tmp_path: Path, projection: Any, made_up: Any) -> Callable[..., TrainingJob]:
    """A training of the made-up adapter on ten made-up examples: job(folder, **settings)."""
    examples = [
        made_up(seed, 10 + 3 * seed, 1 + seed, (0, 4) if seed % 3 else (7,), loud=seed == 2) for seed in range(10)
    ]

    def make(folder: str = "one", reduction: str = "mean", **settings: Any) -> TrainingJob:
        chosen = config(**settings)
        return TrainingJob(
            label="projection",
            folder=tmp_path / folder,
            model=str(tiny_qwen2),
            config=chosen,
            learning_rate=chosen.learning_rate or 0.0,
            aux_reduction=reduction,
            adapter=projection,
            examples=lambda: examples,
            vocabulary=lambda: VOCABULARY,
            marks=lambda rows: {},
        )

    return make


def weights(job: TrainingJob, epoch: int) -> Weights:
    return load_file(AdapterFiles(job.folder).weights(epoch))


def log(job: TrainingJob) -> list[TrainingStep]:
    return AdapterFiles(job.folder).steps()


def farthest(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_model_with_pickled_weights_trains_the_same(
    job: Callable[..., TrainingJob],
    tiny_qwen2: Path,
    as_pickle: Callable[..., Path],
    tmp_path: Path,
    shards: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One step."""
    one = job("one", epochs=1, batch_size=16)
    pickled = replace(job("two", epochs=1, batch_size=16), model=str(as_pickle(tiny_qwen2, tmp_path / "lm", shards)))
    trainer.train(one)
    trainer.train(pickled)
    assert same_bits(weights(one, 1), weights(pickled, 1))
    assert "has no safetensors" in capsys.readouterr().err
    trainer.train(replace(pickled, folder=tmp_path / "three"))
    assert "has no safetensors" not in capsys.readouterr().err, "the copy is used"


# -- what is trained on ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def books(demo: dict[str, Corpus]) -> dict[str, Corpus]:
    return {"Books": demo["Books"]}


def run_of(method: str, results: Path, books: dict[str, Corpus], **settings: Any) -> Run:
    options = {method: ENCODER} if method in ("dep", "pplug", "e2p") else {}
    return Run(build(BOOKS, {"method": method, "results": str(results)}, options, settings), Inputs(books))


EngineInput = Callable[[Run, Prompt], dict[str, Any]]


@pytest.fixture
def engine_input(books: dict[str, Corpus], tmp_path: Path) -> Iterator[EngineInput]:
    """What vLLM is given for a run's prompt, the vector of its n-th slot full of n."""
    from vllm.v1.engine.llm_engine import LLMEngine

    given: list[dict[str, Any]] = []
    quick = {"vllm": {"dtype": "float32", "enforce_eager": True}, "max_new_tokens": 1}
    run = run_of("prompt_tuning", tmp_path, books, **quick)
    with pytest.MonkeyPatch.context() as patch, Engines(vectors=True) as engines:
        backend = engines.get(run.config, run.chat, vectors=True)
        add = LLMEngine.add_request

        def watched(engine: LLMEngine, request: str, prompt: Any, *rest: Any) -> Any:
            given.append(prompt)
            return add(engine, request, prompt, *rest)

        patch.setattr(LLMEngine, "add_request", watched)

        def submitted(run: Run, prompt: Prompt) -> dict[str, Any]:
            rows = np.repeat(np.arange(1, len(prompt.slots) + 1, dtype=np.float32)[:, None], WIDTH, axis=1)
            backend.submit(Call((str(len(given)), prompt.stage, 0), prompt, 0, 0.0, 1.0, 1, vectors=rows))
            return given[-1]

        yield submitted


def test_training_sees_the_tokens_of_inference_then_the_real_review(
    tmp_path: Path, books: dict[str, Corpus], engine_input: EngineInput
) -> None:
    for method in ("dep", "pplug", "e2p", "prompt_tuning"):
        run = run_of(method, tmp_path, books, split="train")
        for instance in run.instances[7:40:8]:
            prompt = first_prompt(run, instance)
            reference = books["Books"].reference(instance)
            made = trainer.example(run.chat, prompt, f" {reference}\n", 2048)
            tokenizer = run.chat.tokenizer
            answer = tokenizer(reference, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
            assert tokenizer.decode(answer) == f"{reference}<|im_end|>"
            asked = run.chat.ids(prompt)
            assert made.ids.tolist() == asked + answer
            assert made.targets == len(asked)
            assert all(made.features[name] is values for name, values in prompt.features.items())
            assert len(made.slots) == len(prompt.slots) > 0
            is_what_the_engine_gets(made, engine_input(run, prompt))


def is_what_the_engine_gets(made: Example, engine: Mapping[str, Any]) -> None:
    slots = set(made.slots.tolist())
    assert [place for place, is_id in enumerate(engine["prompt_is_token_ids"]) if not is_id] == sorted(slots)
    for place, token in enumerate(engine["prompt_token_ids"]):
        assert place in slots or token == made.ids[place]
    assert len(engine["prompt_token_ids"]) == made.targets
    for row, place in enumerate(made.slots):
        assert torch.equal(engine["prompt_embeds"][place], torch.full((WIDTH,), float(row + 1)))


def test_a_long_review_is_cut(tmp_path: Path, books: dict[str, Corpus]) -> None:
    run = run_of("prompt_tuning", tmp_path, books, split="train")
    prompt = first_prompt(run, run.instances[0])
    reference = books["Books"].reference(run.instances[0])
    whole = trainer.example(run.chat, prompt, reference, 2048)
    cut = trainer.example(run.chat, prompt, reference, 11)
    assert cut.ids.tolist() == whole.ids[: whole.targets + 11].tolist()
    ended = trainer.example(run.chat, prompt, reference, 11, ends=True)
    assert ended.ids.tolist() == [*cut.ids.tolist(), run.chat.tokenizer.eos_token_id]
    assert trainer.example(run.chat, prompt, reference, 2048, ends=True).ids.tolist() == whole.ids.tolist()


def test_training_takes_of_each_user_the_instance_with_the_longest_profile(
    tmp_path: Path, books: dict[str, Corpus]
) -> None:
    run = run_of("prompt_tuning", tmp_path, books, train={"limit": 3})
    by_user: dict[str, list[Instance]] = {}
    for instance in books["Books"].split("train"):
        by_user.setdefault(instance.user_id, []).append(instance)
    assert min(map(len, by_user.values())) > 1
    wanted = [max(instances, key=lambda one: len(one.profile)) for instances in list(by_user.values())[:3]]
    found = TrainedAdapter(run).examples()
    for made, instance in zip(found, wanted, strict=True):
        text = run.chat.tokenizer.decode(made.ids[made.targets :])
        assert text == f"{books['Books'].reference(instance)}<|im_end|>"


def test_without_a_soft_token_there_is_nothing_to_learn(job: Callable[..., TrainingJob]) -> None:
    none = replace(job(), examples=lambda: [Example(np.arange(5, dtype=np.int32), np.zeros(0, np.int32), 3, {})])
    with pytest.raises(DataError, match="no training instance has a prompt with a soft token"):
        trainer.train(none)


# -- the optimiser -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (10, 0.0), (10, 0.01), (37, 0.1), (1250, 0.01), (5, 0.9)])
def test_the_learning_rate_is_that_of_transformers_schedule(steps: int, warmup: float) -> None:
    from transformers import get_linear_schedule_with_warmup

    peak = 3e-4
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    # The Trainer rounds the share of the steps up.
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(steps * warmup), steps)
    for step in range(steps):
        assert learning_rate_at(step, steps, peak, warmup) == pytest.approx(schedule.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        schedule.step()


def weights_of(one: Example) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Made-up weights of an example's target tokens."""
    drawn = np.random.default_rng(one.ids[:4].tolist()).random(one.target_tokens) + 0.1
    return (drawn / drawn.mean()).astype(np.float32)


def plain_loop(job: TrainingJob) -> list[Weights]:
    """The same training one example at a time, with transformers' schedule and torch's clipping; the weights after each
    epoch. The switches are read as the released code has them: the cross-entropy is a sum over the targets of a step,
    divided by their number; the schedule counts whole batches, and training ends with it; the model's output has as
    many rows as the tokenizer has tokens."""
    from torch.nn import functional
    from transformers import AutoModelForCausalLM, get_linear_schedule_with_warmup

    settings, examples = job.config, job.examples()
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32).eval()
    if settings.vocabulary == "tokenizer":
        model.resize_token_embeddings(VOCABULARY, mean_resizing=False)
    torch.manual_seed(settings.seed)
    adapter = job.adapter(model.config.hidden_size)
    groups = [
        {
            "params": [p for n, p in adapter.named_parameters() if n == "linear.weight"],
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for n, p in adapter.named_parameters() if n != "linear.weight"], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=job.learning_rate, betas=(0.9, 0.999), eps=1e-8)
    whole, rest = divmod(len(examples), settings.batch_size)
    steps = (whole if settings.whole_batches or not rest else whole + 1) * settings.epochs
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(steps * settings.warmup), steps)
    epochs: list[Weights] = []
    done = 0
    for epoch in range(settings.epochs):
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(examples))
        for start in range(0, len(examples), settings.batch_size):
            if done == steps:
                break
            chosen = [examples[index] for index in order[start : start + settings.batch_size]]
            targets = sum(len(one.ids) - one.targets for one in chosen)
            total = torch.zeros(())
            for one in chosen:
                (vectors,), own = adapter([{name: torch.from_numpy(value) for name, value in one.features.items()}])
                ids = torch.from_numpy(one.ids.astype(np.int64))
                ids[one.slots.tolist()] = 0
                embedded = model.get_input_embeddings()(ids).detach()
                embedded = embedded.index_put((torch.from_numpy(one.slots.astype(np.int64)),), vectors)
                logits = model(inputs_embeds=embedded[None]).logits[0]
                each = functional.cross_entropy(logits[one.targets - 1 : -1], ids[one.targets :], reduction="none")
                if job.token_weights is not None:
                    each = each * torch.from_numpy(weights_of(one))
                loss = each.sum() / targets if settings.cross_entropy == "token" else each.mean() / len(chosen)
                total = total + loss + own[0] * (1 if job.aux_reduction == "sum" else 1 / len(chosen))
            optimizer.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(adapter.parameters(), settings.clip)
            optimizer.step()
            schedule.step()
            done += 1
        epochs.append({name: value.clone() for name, value in adapter.state_dict().items()})
    return epochs


@pytest.mark.parametrize(
    ("reduction", "clip", "weighted"),
    [("mean", 0.05, False), ("mean", 100.0, False), ("sum", 100.0, False), ("mean", 100.0, True)],
)
def test_weights_are_those_of_a_plain_loop(
    job: Callable[..., TrainingJob], reduction: str, clip: float, weighted: bool
) -> None:
    made = job(reduction=reduction, clip=clip, weight_decay=0.3)
    if weighted:
        made = replace(made, token_weights=lambda model: list(map(weights_of, made.examples())))
    trainer.train(made)
    expected = plain_loop(made)
    start = made.adapter(128).state_dict()
    for epoch, wanted in enumerate(expected, 1):
        assert farthest(weights(made, epoch), wanted) < 2e-5
    assert farthest(expected[1], expected[0]) > 1e-3, "there was something to learn"
    assert start.keys() == expected[0].keys()
    rows = log(made)
    assert [row.step for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row.instances for row in rows] == [4, 4, 2, 4, 4, 2]
    clipped = [row.gradient_norm > clip for row in rows]
    assert all(clipped) if clip < 1 else not any(clipped)
    for row in rows:
        assert row.loss == pytest.approx(row.generation + row.own)
        assert math.isfinite(row.loss)


OFFICIAL = {"cross_entropy": "token", "whole_batches": True, "vocabulary": "tokenizer"}


@pytest.mark.parametrize("switches", [*({name: value} for name, value in OFFICIAL.items()), OFFICIAL], ids=str)
def test_each_switch_of_the_released_training(job: Callable[..., TrainingJob], switches: dict[str, Any]) -> None:
    made = job(reduction="sum", clip=100.0, **switches)
    trainer.train(made)
    expected = plain_loop(made)
    for epoch, wanted in enumerate(expected, 1):
        assert farthest(weights(made, epoch), wanted) < 2e-5
    paper = job("paper", reduction="sum", clip=100.0)
    trainer.train(paper)
    assert farthest(weights(made, 2), weights(paper, 2)) > 1e-3, "it changes what is learnt"
    rows = log(made)
    # Ten examples are two batches of four, and two more.
    assert [row.instances for row in rows] == ([4, 4, 2, 4] if "whole_batches" in switches else [4, 4, 2, 4, 4, 2])
    assert [row.epoch for row in rows] == ([1, 1, 1, 2] if "whole_batches" in switches else [1, 1, 1, 2, 2, 2])


def test_the_cross_entropy_of_a_step_by_hand(job: Callable[..., TrainingJob]) -> None:
    """Reviews of 1 to 10 tokens: the mean of their means, or the mean over their 55 tokens."""
    means = {}
    for how in ("review", "token"):
        made = job(how, batch_size=10, epochs=1, cross_entropy=how)
        trainer.train(made)
        means[how] = log(made)[0].generation
    examples = job().examples()
    own = []
    for number, one in enumerate(examples):
        alone = replace(job(f"alone{number}", batch_size=1, epochs=1), examples=lambda one=one: [one])  # type: ignore[misc]
        trainer.train(alone)
        own.append(log(alone)[0].generation)
    lengths = [len(one.ids) - one.targets for one in examples]
    assert lengths == list(range(1, 11))
    assert means["review"] == pytest.approx(sum(own) / 10, rel=1e-5)
    assert means["token"] == pytest.approx(np.dot(own, lengths) / 55, rel=1e-5)
    assert abs(means["token"] - means["review"]) > 1e-3


def test_a_schedule_of_whole_batches_that_ends_before_the_last_epoch(job: Callable[..., TrainingJob]) -> None:
    """Ten examples are one batch of nine and one more: four epochs have four steps of the schedule, which are two
    epochs. Of the others there are no weights, and none is validated."""
    made = job(batch_size=9, epochs=4, whole_batches=True)
    trainer.train(made)
    files = AdapterFiles(made.folder)
    assert [row.epoch for row in log(made)] == [1, 1, 2, 2]
    assert log(made)[-1].learning_rate < log(made)[1].learning_rate
    record = files.training()
    assert record is not None
    assert (record.epochs, record.steps) == (2, 4)
    assert sorted(path.name for path in made.folder.glob("epoch-*")) == ["epoch-1.safetensors", "epoch-2.safetensors"]
    # Fewer examples than a batch holds: still a step an epoch.
    few = replace(job("few", epochs=2, whole_batches=True), examples=lambda: made.examples()[:3])
    trainer.train(few)
    assert [row.instances for row in log(few)] == [3, 3]


def test_the_papers_schedule(job: Callable[..., TrainingJob]) -> None:
    """3,996 instances, batches of 16, 5 epochs: 1,250 steps, or 1,245 of the released code."""
    for whole, steps in ((False, 1250), (True, 1245)):
        many = replace(job(batch_size=16, epochs=5, whole_batches=whole), examples=lambda: job().examples()[:1] * 3996)
        assert trainer._Training(many, processes.accelerator(1.0)).steps == steps


class Idle(nn.Module):
    """Its matrix and its bias have gradients, all of them 0."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(2, hidden_size))
        self.bias = nn.Parameter(torch.ones(hidden_size))

    def forward(self, features: Sequence[Mapping[str, Tensor]]) -> tuple[list[Tensor], None]:
        row = 0 * (self.matrix.sum() + self.bias)
        return [torch.stack([row] * len(one["x"])) for one in features], None


def test_weights_decay_in_matrices_and_not_in_biases(job: Callable[..., TrainingJob]) -> None:
    made = replace(job(weight_decay=0.5), adapter=Idle)
    trainer.train(made)
    after = weights(made, 2)
    assert torch.equal(after["bias"], torch.ones(128))
    kept = 1.0
    for step in range(6):
        kept *= 1 - 0.5 * learning_rate_at(step, 6, 0.01, 0.2)
    assert 0.9 < kept < 0.99
    torch.testing.assert_close(after["matrix"], torch.full((2, 128), kept), rtol=0, atol=1e-6)


def test_parts_of_a_batch_add_up_to_the_batch(job: Callable[..., TrainingJob]) -> None:
    whole, parts = job("whole", "sum"), job("parts", "sum", tokens_per_batch=40)
    trainer.train(whole)
    trainer.train(parts)
    for epoch in (1, 2):
        assert farthest(weights(whole, epoch), weights(parts, epoch)) < 1e-6


def test_a_small_step_reaches_the_weights_under_a_bfloat16_model(job: Callable[..., TrainingJob]) -> None:
    made = job(dtype="bfloat16", learning_rate=1e-5, warmup=0.0, weight_decay=0.0, epochs=1, batch_size=10)
    trainer.train(made)
    torch.manual_seed(made.config.seed)
    before = made.adapter(128).state_dict()
    after = weights(made, 1)
    for name, start in before.items():
        assert after[name].dtype == torch.float32
        moved = (after[name] - start).abs()
        # Adam's first step moves every number that has a gradient by the learning rate.
        assert float((moved > 0.9e-5).float().mean()) > 0.9, name
        assert float(moved.max()) < 1.1e-5
        # What a bfloat16 copy would have made of it.
        if name != "scale":
            assert float((start.bfloat16() - (start + 1e-5).bfloat16()).abs().gt(0).float().mean()) < 0.5
    assert all(math.isfinite(row.loss) and row.loss > 0 for row in log(made))


class Broken(nn.Module):
    """From the second step on its loss, or the gradient alone, is not finite."""

    def __init__(self, hidden_size: int, where: str) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(hidden_size))
        self.where = where
        self.calls = 0

    def forward(self, features: Sequence[Mapping[str, Tensor]]) -> tuple[list[Tensor], None]:
        self.calls += 1
        row = self.vector
        if self.calls > 1:
            # The root's slope at 0 is infinite.
            row = row * math.nan if self.where == "loss" else row + (row * 0).abs().sqrt()
        return [torch.stack([row] * len(one["x"])) for one in features], None


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_ends_the_training_and_spoils_no_checkpoint(
    where: str, job: Callable[..., TrainingJob]
) -> None:
    made = replace(job(checkpoint_every=1), adapter=lambda hidden_size: Broken(hidden_size, where))
    with pytest.raises(StoreError, match=r"step 2 is not finite.*lower train\.learning_rate"):
        trainer.train(made)
    kept = load_file(made.folder / "checkpoint.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())
    assert [row.step for row in log(made)] == [1]
    assert not AdapterFiles(made.folder).is_trained
    assert not list(made.folder.glob("epoch-*"))


# -- stops and restarts ------------------------------------------------------------------------------------------


def stopped_after(step: int, made: TrainingJob) -> None:
    """Train until the checkpoint of a step is written, no further."""
    checkpoint = AdapterFiles(made.folder).checkpoint

    def stop(*_: Any) -> None:
        if checkpoint.exists() and read_checkpoint(checkpoint)[1]["step"] == step:
            raise KeyboardInterrupt

    def adapter(hidden_size: int) -> nn.Module:
        module = made.adapter(hidden_size)
        module.register_forward_pre_hook(stop)
        return module

    with pytest.raises(KeyboardInterrupt):
        trainer.train(replace(made, adapter=adapter))


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_stopped_training_ends_with_the_same_bits(
    step: int, job: Callable[..., TrainingJob], capsys: pytest.CaptureFixture[str]
) -> None:
    through, stopped = job("through", checkpoint_every=1), job("stopped", checkpoint_every=1)
    trainer.train(through)
    stopped_after(step, stopped)
    assert not AdapterFiles(stopped.folder).is_trained
    capsys.readouterr()
    trainer.train(stopped)
    assert f"training projection: going on after step {step} of 6" in capsys.readouterr().err
    for epoch in (1, 2):
        assert same_bits(weights(through, epoch), weights(stopped, epoch))
    timeless = [[row.model_copy(update={"seconds": 0.0}) for row in log(one)] for one in (through, stopped)]
    assert timeless[0] == timeless[1]
    assert AdapterFiles(stopped.folder).is_trained


def test_a_parameter_without_a_gradient_so_far_is_no_obstacle(job: Callable[..., TrainingJob]) -> None:
    # One example a step: the one that gives `scale`, the first parameter, a gradient does not come first.
    through, stopped = (job(name, batch_size=1, checkpoint_every=1) for name in ("through", "stopped"))
    order = np.random.default_rng([42, 0]).permutation(10).tolist()
    loud = order.index(2)
    assert 1 < loud < 9
    trainer.train(through)
    stopped_after(1, stopped)
    kept = load_file(stopped.folder / "checkpoint.safetensors")
    assert {name for name in kept if name.startswith("step")} == {"step.1", "step.2"}
    stopped_after(loud + 2, stopped)
    trainer.train(stopped)
    assert same_bits(weights(through, 2), weights(stopped, 2))


def test_rows_beyond_the_checkpoint_are_dropped(job: Callable[..., TrainingJob]) -> None:
    made = job(checkpoint_every=1)
    stopped_after(3, made)
    with (made.folder / "log.jsonl").open("a") as file:
        beyond = log(made)[-1].model_copy(update={"step": 4})
        file.write(json.dumps(beyond.json_object()) + "\n" + '{"step": 5, "lo')
    trainer.train(made)
    assert [row.step for row in log(made)] == [1, 2, 3, 4, 5, 6]


def flip(path: Path, share: float = 0.5) -> None:
    """Change a bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("checkpoint.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-100])),
        ("checkpoint.safetensors", lambda path: path.write_bytes(b"")),
        ("checkpoint.safetensors", flip),
        ("checkpoint.safetensors", lambda path: flip(path, 0.001)),
        ("checkpoint.safetensors", Path.unlink),
        ("checkpoint.safetensors", lambda path: (path.unlink(), path.mkdir())),
        ("checkpoint.safetensors", "another's"),
        ("checkpoint.safetensors", lambda path: shutil.copy(path.with_name("epoch-1.safetensors"), path)),
        ("epoch-1.safetensors", flip),
        ("epoch-1.safetensors", Path.unlink),
        ("log.jsonl", flip),
        ("log.jsonl", "another's"),
        ("log.jsonl", lambda path: path.write_bytes(b"")),
    ],
)
def test_after_damage_a_training_starts_over(
    name: str,
    damage: str | Callable[[Path], Any],
    job: Callable[..., TrainingJob],
    capsys: pytest.CaptureFixture[str],
) -> None:
    through, made = job("through"), job("made", checkpoint_every=1)
    trainer.train(through)
    stopped_after(4, made)
    path = made.folder / name
    if isinstance(damage, str):
        shutil.copy(through.folder / name, path)
    else:
        damage(path)
    gone = not path.exists()
    capsys.readouterr()
    trainer.train(made)
    said = capsys.readouterr().err
    assert f"{name} is damaged: " in said or (gone and "checkpoint" in name)
    assert ("training projection starts over" in said) == (f"{name} is damaged: " in said)
    record = AdapterFiles(made.folder).training()
    assert record is not None
    assert set(record.files) == {"epoch-1.safetensors", "epoch-2.safetensors", "log.jsonl"}
    for epoch in (1, 2):
        assert same_bits(weights(through, epoch), weights(made, epoch))
        assert record.files[f"epoch-{epoch}.safetensors"] == content_hash(AdapterFiles(made.folder).weights(epoch))
    assert [row.step for row in log(made)] == [1, 2, 3, 4, 5, 6]


def test_a_folder_that_is_gone_stops_the_training(job: Callable[..., TrainingJob]) -> None:
    made = job(checkpoint_every=1)

    def adapter(hidden_size: int) -> nn.Module:
        shutil.rmtree(made.folder)
        return made.adapter(hidden_size)

    with pytest.raises(StoreError, match=r"was removed or moved while this command wrote to it\. .* then run again"):
        trainer.train(replace(made, adapter=adapter))
    assert not made.folder.exists()
    trainer.train(made)
    assert AdapterFiles(made.folder).is_trained


def cli_arguments(results: Path, **settings: Any) -> list[str]:
    """`bench train` on a few instances."""
    chosen = {
        "results": results,
        "categories": "[Books]",
        "k": 1,
        "input_budget": 400,
        "max_new_tokens": 4,
        "train.batch_size": 3,
        "train.epochs": 2,
        "train.learning_rate": 0.001,
        "train.validation": 2,
        "train.checkpoint_every": 1,
        **settings,
    }
    return ["--config", "demo", *(part for key, value in chosen.items() for part in ("--set", f"{key}={value}"))]


def built(method: str, arguments: Sequence[str], books: dict[str, Corpus]) -> TrainedAdapter:
    """The adapter that a command line trains."""
    parser = argparse.ArgumentParser()
    add_settings(parser)
    settings = settings_of(parser.parse_args(arguments))
    adapter = Job.of(build(settings, {"method": method}), Inputs(books)).trains
    assert adapter is not None
    return adapter


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_a_killed_training_goes_on_and_ends_with_the_same_bits(
    tmp_path: Path, books: dict[str, Corpus], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"train.limit": 16, "train.epochs": 3}
    through = built("prompt_tuning", cli_arguments(tmp_path / "through", **settings), books)
    train_adapter(through)

    arguments = cli_arguments(tmp_path / "killed", **settings)
    killed = built("prompt_tuning", arguments, books)
    assert killed.folder.name == through.folder.name
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.cli", "train", "--method", "prompt_tuning", *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoint = killed.files.checkpoint
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.kill()
    process.communicate()
    done = read_checkpoint(checkpoint)[1]["step"]
    assert 1 <= done < 18, "it was killed in the middle"
    assert not killed.is_trained

    capsys.readouterr()
    train_adapter(killed)
    assert f"training prompt_tuning: going on after step {done} of 18" in capsys.readouterr().err
    for epoch in (1, 2, 3):
        assert killed.weights(epoch).read_bytes() == through.weights(epoch).read_bytes()


# -- several processes -------------------------------------------------------------------------------------------


def test_two_processes_give_the_weights_of_one_and_the_first_chooses_the_epoch(
    tmp_path: Path, books: dict[str, Corpus]
) -> None:
    # 7 instances: the last step of an epoch has one, and so the second process none.
    # Without the sparsity term: its slope where a unit is nearly off turns rounding into whole per milles of the
    # gradient's norm, also between two ways to split a batch in one process.
    settings = {"train.limit": 7, "train.tokens_per_batch": 700, "dep.sparsity_weight": 0.0}
    one = built("dep", cli_arguments(tmp_path / "one", **settings), books)
    train_adapter(one)
    arguments = cli_arguments(tmp_path / "two", **settings)
    process = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
            *("-m", "bench.cli", "train", "--method", "dep", *arguments),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    two = built("dep", arguments, books)
    assert two.folder.name == one.folder.name
    for epoch in (1, 2):
        found, wanted = load_file(two.weights(epoch)), load_file(one.weights(epoch))
        assert farthest(found, wanted) < 1e-5
    assert farthest(load_file(one.weights(1)), wanted) > 1e-3
    record, training = two.files.record(), two.files.training()
    assert record is not None
    assert training is not None
    assert record.identity == two.identity
    assert training.processes == 2
    for row, wanted_row in zip(two.files.steps(), one.files.steps(), strict=True):
        for name in ("step", "instances", "tokens", "loss", "generation", "own", "gradient_norm", "learning_rate"):
            assert getattr(row, name) == pytest.approx(getattr(wanted_row, name), rel=1e-5)
    # vLLM ran in the first process, the second said nothing.
    (chosen,) = two.folder.glob("validation-*/selection.json")
    assert Selection.read(chosen).instances == 2
    assert process.stdout.count("kept in") == 1
    assert process.stderr.count("training dep: 2 epochs of 7 instances") == 1
    assert process.stderr.count("texts with hashed-ngrams") == 1
    assert process.stderr.count("kept epoch") == 1


def test_texts_are_not_made_by_several_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], books: dict[str, Corpus]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    advice = "one of 2 processes.*accelerate launch ... -m bench.cli train"
    with pytest.raises(ConfigError, match=advice):
        execute([Job(run_of("prompt_tuning", tmp_path, books), None)])
    assert main(["run", "--method", "rag", "--limit", "1", "--set", f"results={tmp_path}"]) == 2
    assert "for training, then run this command without the launcher" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/*"))


def test_a_launcher_that_did_not_launch_is_found_out(
    monkeypatch: pytest.MonkeyPatch, job: Callable[..., TrainingJob]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="speaks of 2 processes"):
        trainer.train(job())
    with pytest.raises(ConfigError, match="speaks of 2 processes"):
        processes.as_the_first(lambda: True)


def test_deepspeed_is_stage_1_with_the_configurations_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.utils.is_deepspeed_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    with pytest.raises(ConfigError, match="--use_deepspeed --zero_stage 1"):
        processes.accelerator(1.0)


def test_the_launchers_variables_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    launchers = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "TORCHELASTIC_USE_AGENT_STORE", "ACCELERATE_X"]
    for name in launchers:
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("MY_RANK", "0")
    processes.leave()
    assert not set(launchers) & os.environ.keys()
    assert os.environ["MY_RANK"] == "0"
