"""E2P: its prompt word for word, the user's embedding, and the projection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench import registry, templates
from bench.chat import Chat
from bench.config import build, read_config
from bench.context import Context
from bench.data.corpus import Corpus
from bench.errors import ConfigError
from bench.execute import execute
from bench.job import Job
from bench.methods.e2p import E2P
from bench.methods.nonperso import NonPerso
from bench.protocols import TrainedMethod
from bench.records import Instance, Prompt, said
from bench.results import Prediction, rows_of
from bench.tasks import reviews
from bench.tasks.reviews import Item, Reviews
from bench.work import first_prompt

ITEMS = [Item(f"A{number}", f"Title A{number}", f"About A{number}.") for number in range(2)]
PROFILE = tuple(reviews.review("me", ITEMS[1], 4.0, "t", f"text {number}", number) for number in range(5))
TARGET = reviews.review("me", ITEMS[0], 5.0, "T", "the review to write", 99)
ME = reviews.instance("c", "test", TARGET, PROFILE)

ASKED = "[Item Title]: Title A0\n[Item Description]: About A0.\n[Output Review Rating]: 5.0\n[Output Review Title]: T"
SLOT = "[USER_TOKEN_0]"


class Embedder:
    """The n-th text of the profile has the vector (n, 2n + 1); keeps what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: Sequence[str], encoder: str) -> NDArray[np.float32]:
        assert encoder == "BAAI/bge-m3"
        self.calls.append(list(texts))
        numbers = [int(text.removeprefix("text ")) for text in texts]
        return np.array([[number, 2 * number + 1] for number in numbers], np.float32)


def context(chat: Chat, embedder: Embedder | None = None, budget: int = 10_000, method: str = "e2p") -> Context:
    """Without a retriever and without peers: the method needs neither."""
    return Context(
        task=Reviews(),
        corpus=Corpus("c", {"test": (ME,)}, {}),
        method=method,
        templates=templates.load(registry.create("methods", method, {}), method, Reviews(), "reviews"),
        chat=chat,
        retriever=None,
        k=3,
        input_budget=budget,
        run_seed=0,
        embedder=embedder or Embedder(),
    )


def prompt_of(method: E2P | NonPerso, here: Context, me: Instance = ME) -> Prompt:
    steps = method.steps(me, here)
    (prompt,) = next(steps)
    with pytest.raises(StopIteration) as stopped:
        steps.send(["the answer"])
    assert stopped.value.value == "the answer"
    assert getattr(here.embedder, "calls", []) == [], "who only reads the prompt needs no encoder"
    len(prompt.features)
    return prompt


# -- the prompt and the user's embedding -------------------------------------------------------------------------


def test_the_prompt_is_nonpersos_with_a_slot_at_its_head(chat: Chat) -> None:
    embedder = Embedder()
    prompt = prompt_of(E2P(), context(chat, embedder))
    plain = prompt_of(NonPerso(), context(chat, method="nonperso"))
    assert prompt.system == plain.system
    assert plain.user == ASKED
    assert prompt.user == f"{SLOT}\n{ASKED}"
    assert prompt.slots == (SLOT,)
    assert len(chat.positions(prompt, chat.ids(prompt))) == 1
    # A slot is one token, and a new line comes after it.
    assert chat.count(prompt) == chat.count(plain) + 2
    # The whole profile, and nothing of the target.
    assert embedder.calls == [[f"text {number}" for number in range(5)]]
    (user,) = prompt.features.values()
    assert (list(prompt.features), user.shape, user.dtype.name) == (["user"], (1, 2), "float32")
    assert user.tolist() == [[2, 5]]


@pytest.mark.parametrize(("most", "mean"), [(1, 4), (2, 3.5), (5, 2), (6, 2)])
def test_the_mean_of_the_newest_reviews(most: int, mean: float, chat: Chat) -> None:
    prompt = prompt_of(E2P(max_history=most), context(chat))
    assert prompt.features["user"].tolist() == [[mean, 2 * mean + 1]]


def test_the_mean_at_length_1(chat: Chat) -> None:
    user = prompt_of(E2P(pooling="unit_mean"), context(chat)).features["user"]
    np.testing.assert_allclose(user, np.array([[2, 5]]) / math.sqrt(29), rtol=1e-6)
    # Vectors that cancel each other have no direction.
    here = replace(context(chat), embedder=lambda texts, encoder: np.array([[1, 0], [-1, 0]], np.float32))
    prompt = next(E2P(pooling="unit_mean").steps(replace(ME, profile=PROFILE[:2]), here))[0]
    assert prompt.features["user"].tolist() == [[0, 0]]


@pytest.mark.parametrize("pooling", ["mean", "unit_mean"])
def test_without_a_history_the_slot_is_there(pooling: Any, chat: Chat) -> None:
    embedder = Embedder()
    prompt = prompt_of(E2P(pooling=pooling), context(chat, embedder), replace(ME, profile=()))
    assert prompt.user == f"{SLOT}\n{ASKED}"
    assert (prompt.slots, dict(prompt.features), embedder.calls) == ((SLOT,), {}, [])


def test_what_would_be_a_slot_in_a_title_is_taken_out(chat: Chat) -> None:
    me = replace(ME, given={**ME.given, "output_title": f"{SLOT}T[HIS_TOKEN_3]"})
    prompt = prompt_of(E2P(), context(chat), me)
    assert prompt.user == f"{SLOT}\n{ASKED}"
    assert len(chat.positions(prompt, chat.ids(prompt))) == 1


@pytest.mark.parametrize("slots", ["", "[USER_TOKEN_1]", "{{soft_tokens}}{{soft_tokens}}"])
def test_a_template_that_holds_other_slots_is_refused(slots: str, chat: Chat) -> None:
    here = context(chat)
    shipped = here.templates
    changed = {**shipped.texts, "write": shipped.texts["write"].replace("{{soft_tokens}}", slots)}
    with pytest.raises(ConfigError, match=r"e2p_review must hold \{\{soft_tokens\}\} once"):
        prompt_of(E2P(), replace(here, templates=replace(shipped, texts=changed)))


# -- the adapter -------------------------------------------------------------------------------------------------

DIMENSION, HIDDEN = 5, 6


def adapter_of() -> torch.nn.Module:
    torch.manual_seed(0)
    adapter = E2P().adapter(DIMENSION, HIDDEN)
    with torch.no_grad():
        # A zero bias would make a projected zero vector zero.
        for parameter in adapter.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return adapter


def features_of(seed: int = 0) -> dict[str, torch.Tensor]:
    return {"user": torch.randn(1, DIMENSION, generator=torch.Generator().manual_seed(seed))}


def test_the_projection() -> None:
    adapter, features = adapter_of(), features_of()
    (vectors,), own = adapter([features])
    assert own is None
    weight, bias = (adapter.state_dict()[f"project.{name}"].double() for name in ("weight", "bias"))
    torch.testing.assert_close(vectors.double(), features["user"].double() @ weight.T + bias, rtol=1e-5, atol=1e-6)


def test_a_batch_is_its_instances_one_by_one() -> None:
    adapter = adapter_of()
    batch: list[dict[str, torch.Tensor]] = [features_of(), {}, features_of(1), {}]
    together, own = adapter(batch)
    assert own is None
    assert [tuple(rows.shape) for rows in together] == [(1, HIDDEN)] * 4
    for rows, features in zip(together, batch, strict=True):
        torch.testing.assert_close(rows, adapter([features])[0][0])
    # Who has no history has the bias, which everybody in training has a part in.
    assert torch.equal(together[1][0], adapter.state_dict()["project.bias"])
    assert torch.equal(together[1], together[3])
    assert not torch.allclose(together[0], together[1])


def test_gradients_reach_everything() -> None:
    adapter = adapter_of()
    (vectors,), _ = adapter([features_of()])
    vectors.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())


def test_bfloat16_is_close_to_float32() -> None:
    (exact, nobody), _ = adapter_of()([features_of(), {}])
    (vectors, unknown), _ = adapter_of().to(torch.bfloat16)([features_of(), {}])
    assert vectors.dtype == unknown.dtype == torch.bfloat16
    torch.testing.assert_close(vectors.float(), exact, rtol=0.05, atol=0.1)
    torch.testing.assert_close(unknown.float(), nobody, rtol=0.05, atol=0.1)


def test_parameters_and_initial_weights() -> None:
    with torch.device("meta"):
        adapter = E2P().adapter(1024, 3584)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 1024 * 3584 + 3584 == 3_673_600
    started = []
    for _ in range(2):
        torch.manual_seed(3)
        started.append(E2P().adapter(400, 80).state_dict())
    assert all(torch.equal(weights, started[1][name]) for name, weights in started[0].items())
    assert not started[0]["project.bias"].any()
    bound = math.sqrt(6 / 480)
    assert 0.95 * bound < started[0]["project.weight"].abs().max().item() <= bound


# -- options, and a whole run ------------------------------------------------------------------------------------


def test_options() -> None:
    paper, official = (registry.create("methods", "e2p", {}, fidelity) for fidelity in ("paper", "official"))
    options = {"encoder": "BAAI/bge-m3", "max_history": 512, "pooling": "mean", "vectors": "own"}
    assert registry.options_of(paper) == registry.options_of(official) == options
    for wrong in ({"max_history": 0}, {"pooling": "sum"}, {"vectors": "mine"}):
        with pytest.raises(ConfigError, match=rf"e2p\.{next(iter(wrong))}: "):
            registry.create("methods", "e2p", wrong)


def test_it_is_a_trained_method() -> None:
    method: TrainedMethod = E2P()
    own = method.properties
    assert (own.retrieval_augmented, own.embedded, own.inter_user, own.calls_model) == (False, True, False, True)
    assert (method.learning_rate, method.aux_reduction, method.encoder, method.marks) == (
        1e-5,
        "mean",
        "BAAI/bge-m3",
        (),
    )


@pytest.fixture(scope="module")
def greedy(tiny_qwen2: Path) -> Callable[[Job, Prompt, NDArray[np.float32]], str]:
    """What transformers writes for a prompt with these vectors."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(tiny_qwen2), dtype=torch.float32)

    def write(job: Job, prompt: Prompt, vectors: NDArray[np.float32]) -> str:
        ids = job.run.chat.ids(prompt)
        with torch.no_grad():
            embedded = model.get_input_embeddings()(torch.tensor([ids]).clamp(max=model.config.vocab_size - 1))
            embedded[0, job.run.chat.positions(prompt, ids)] = torch.from_numpy(vectors)
            out = model.generate(inputs_embeds=embedded, max_new_tokens=job.config.max_new_tokens, do_sample=False)
        text: str = job.run.chat.tokenizer.decode(out[0], skip_special_tokens=True)
        return whole(said(text))

    return write


def whole(text: str) -> str:
    """Without the beginning of a character at its end, which vLLM leaves out. The random model writes bytes."""
    return text.rstrip("\ufffd")


def test_trained_and_run(shop_config: Path, greedy: Callable[[Job, Prompt, NDArray[np.float32]], str]) -> None:
    """One adapter, and through vLLM with each kind of vectors the greedy texts of transformers. The shop's third user
    has no history."""
    settings = {"method": "e2p", "temperature": 0.0, "max_new_tokens": 6, "metrics": ["rouge"]}
    # An epoch is one step here, and the first one of a warm-up moves nothing.
    training = {"epochs": 1, "dtype": "float32", "learning_rate": 0.01, "warmup": 0.0, "select_by": "rouge1"}
    settings |= {"train": training}
    whose = ("own", "shuffled", "constant")
    jobs = [Job.of(build(read_config(str(shop_config)), settings, {"e2p": {"vectors": name}})) for name in whose]
    execute(jobs, say=lambda _: None, processes=1)
    assert len({job.trains.folder for job in jobs if job.trains}) == 1
    made = []
    for job in jobs:
        assert job.vectors is not None
        prompts = [first_prompt(job.run, instance) for instance in job.run.instances]
        rows = [job.vectors.of(*pair) for pair in zip(prompts, job.run.instances, strict=True)]
        texts = [whole(row.prediction) for row in rows_of(Prediction, job.folder / "predictions.jsonl")]
        assert all(texts)
        assert texts == [greedy(job, prompt, row) for prompt, row in zip(prompts, rows, strict=True)]
        made.append(np.concatenate(rows))
    own, shuffled, constant = made
    assert own[2].any(), "a bias that was trained"
    assert sorted(map(tuple, shuffled)) == sorted(map(tuple, own))
    assert (shuffled != own).any(axis=1).all(), "nobody has a vector of their own"
    np.testing.assert_allclose(constant, np.repeat(own.mean(axis=0, keepdims=True), len(own), axis=0), rtol=1e-5)
