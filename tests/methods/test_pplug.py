"""PPlug: its prompt word for word, its user vector against the formula with all rows materialised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import erf, softmax

from bench import registry, templates
from bench.chat import Chat
from bench.context import Context
from bench.data.corpus import Corpus
from bench.errors import ConfigError
from bench.methods.nonperso import NonPerso
from bench.methods.pplug import PPlug
from bench.protocols import TrainedMethod
from bench.records import Instance, Prompt
from bench.tasks import reviews
from bench.tasks.reviews import Item, Reviews

ITEMS = [Item(f"A{number}", f"Title A{number}", f"About A{number}.") for number in range(2)]
PROFILE = tuple(reviews.review("me", ITEMS[1], 4.0, "t", f"text {number}", number) for number in range(5))
TARGET = reviews.review("me", ITEMS[0], 5.0, "T", "the review to write", 99)
ME = reviews.instance("c", "test", TARGET, PROFILE)

SYSTEM = (
    "Given the title and description of an item, along with the output review rating and review title, generate a "
    "review of the item."
)
ASKED = "[Item Title]: Title A0\n[Item Description]: About A0.\n[Output Review Rating]: 5.0\n[Output Review Title]: T"


class Embedder:
    """A text's vector holds its place among all texts asked for so far; keeps what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: Sequence[str], encoder: str) -> NDArray[np.float32]:
        assert encoder == "BAAI/bge-m3"
        self.calls.append(list(texts))
        return np.array([[number, len(text)] for number, text in enumerate(texts)], np.float32)


def context(chat: Chat, embedder: Embedder | None = None, budget: int = 10_000, method: str = "pplug") -> Context:
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


def prompt_of(method: PPlug | NonPerso, here: Context, me: Instance = ME) -> Prompt:
    steps = method.steps(me, here)
    (prompt,) = next(steps)
    with pytest.raises(StopIteration) as stopped:
        steps.send(["the answer"])
    assert stopped.value.value == "the answer"
    assert getattr(here.embedder, "calls", []) == [], "who only reads the prompt needs no encoder"
    len(prompt.features)
    return prompt


# -- the prompt --------------------------------------------------------------------------------------------------


def test_the_prompt_is_nonpersos_with_two_slots_at_its_head(chat: Chat) -> None:
    embedder = Embedder()
    prompt = prompt_of(PPlug(), context(chat, embedder))
    plain = prompt_of(NonPerso(), context(chat, method="nonperso"))
    assert prompt.system == plain.system == SYSTEM
    assert plain.user == ASKED
    assert prompt.user == f"[INSTRUCTION_TOKEN_0][USER_TOKEN_0]\n{ASKED}"
    assert prompt.slots == ("[INSTRUCTION_TOKEN_0]", "[USER_TOKEN_0]")
    first, second = chat.positions(prompt, chat.ids(prompt))
    assert second == first + 1
    # The whole profile, and what the model is asked.
    assert embedder.calls == [[ASKED, *(f"text {number}" for number in range(5))]]
    assert {name: (value.shape, value.dtype.name) for name, value in prompt.features.items()} == {
        "input": ((1, 2), "float32"),
        "history": ((5, 2), "float32"),
    }
    assert prompt.features["input"][0].tolist() == [0, len(ASKED)]
    assert prompt.features["history"][:, 0].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("most", "numbers"), [(1, [4]), (3, [2, 3, 4]), (5, [0, 1, 2, 3, 4]), (6, [0, 1, 2, 3, 4])])
def test_the_newest_reviews(most: int, numbers: list[int], chat: Chat) -> None:
    embedder = Embedder()
    prompt_of(PPlug(max_history=most), context(chat, embedder))
    assert embedder.calls[0][1:] == [f"text {number}" for number in numbers]


@pytest.mark.parametrize("mask_padding", [True, False])
def test_without_a_history_there_is_the_instruction_alone(mask_padding: bool, chat: Chat) -> None:
    embedder = Embedder()
    prompt = prompt_of(PPlug(mask_padding=mask_padding), context(chat, embedder), replace(ME, profile=()))
    assert prompt.user == f"[INSTRUCTION_TOKEN_0]\n{ASKED}"
    assert (prompt.slots, dict(prompt.features), embedder.calls) == (("[INSTRUCTION_TOKEN_0]",), {}, [])


def test_what_would_be_a_slot_in_a_title_is_taken_out(chat: Chat) -> None:
    embedder = Embedder()
    prompt = prompt_of(
        PPlug(),
        context(chat, embedder),
        replace(ME, given={**ME.given, "output_title": "[USER_TOKEN_0]T[HIS_TOKEN_3]"}),
    )
    assert prompt.user == f"[INSTRUCTION_TOKEN_0][USER_TOKEN_0]\n{ASKED}"
    assert len(chat.positions(prompt, chat.ids(prompt))) == 2
    assert embedder.calls[0][0] == ASKED


def test_a_description_that_is_cut_is_cut_for_the_encoder_too(chat: Chat) -> None:
    embedder = Embedder()
    whole = prompt_of(PPlug(), context(chat))
    prompt = prompt_of(PPlug(), context(chat, embedder, chat.count(whole) - 4))
    cut = ASKED.replace("About A0.", "About")
    assert prompt.user == f"[INSTRUCTION_TOKEN_0][USER_TOKEN_0]\n{cut}"
    assert embedder.calls[0][0] == cut


@pytest.mark.parametrize("slots", ["", "[USER_TOKEN_0]", "{{soft_tokens}}{{soft_tokens}}"])
def test_a_template_that_holds_other_slots_is_refused(slots: str, chat: Chat) -> None:
    here = context(chat)
    shipped = here.templates
    changed = {**shipped.texts, "write": shipped.texts["write"].replace("{{soft_tokens}}", slots)}
    with pytest.raises(ConfigError, match=r"pplug_review must hold \{\{soft_tokens\}\} once"):
        prompt_of(PPlug(), replace(here, templates=replace(shipped, texts=changed)))


# -- the adapter -------------------------------------------------------------------------------------------------

DIMENSION, HIDDEN = 5, 6


def adapter_of(**options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    adapter = PPlug(**options).adapter(DIMENSION, HIDDEN)
    with torch.no_grad():
        # Zero biases would make a projected zero vector zero.
        for parameter in adapter.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return adapter


def features_of(rows: int, seed: int = 0) -> dict[str, torch.Tensor]:
    dice = torch.Generator().manual_seed(seed)
    return {
        "input": torch.randn(1, DIMENSION, generator=dice),
        "history": torch.randn(rows, DIMENSION, generator=dice),
    }


def formula(adapter: torch.nn.Module, features: Mapping[str, torch.Tensor], fill: int = 0) -> NDArray[np.float64]:
    """Instruction and user vector in float64, each of at least `fill` rows projected and then weighted."""
    w = {name: value.double().numpy() for name, value in adapter.state_dict().items()}

    def project(name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
        inner = x @ w[f"{name}.0.weight"].T + w[f"{name}.0.bias"]
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        outer: NDArray[np.float64] = inner @ w[f"{name}.2.weight"].T + w[f"{name}.2.bias"]
        return outer

    history = features["history"].double().numpy()
    history = np.concatenate([history, np.zeros((max(fill - len(history), 0), DIMENSION))])
    weights = softmax(history @ features["input"].double().numpy()[0])
    user = (weights[:, None] * project("project_user", history)).sum(axis=0)
    return np.stack([project("project_instruction", w["instruction"])[0], user])


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize(
    ("options", "fill"),
    [
        ({}, 0),
        ({"max_history": 7}, 0),
        ({"mask_padding": False}, 512),
        ({"mask_padding": False, "max_history": 7}, 7),
    ],
)
def test_the_formula(options: dict[str, Any], fill: int, rows: int) -> None:
    adapter, features = adapter_of(**options), features_of(rows)
    (vectors,), own = adapter([features])
    assert own is None
    np.testing.assert_allclose(vectors.detach().numpy(), formula(adapter, features, fill), rtol=1e-4, atol=1e-5)


def test_padding_drowns_the_history() -> None:
    """With 512 rows a user of three reviews is nearly the projected zero vector; with the mask he is not."""
    nobody = {name: torch.zeros_like(value) for name, value in features_of(3).items()}
    one, other = ([adapter_of(**o)([f])[0][0][1] for f in (features_of(3), nobody)] for o in ({}, {"mask_padding": 0}))
    assert (other[0] - other[1]).norm() < 0.1 * (one[0] - one[1]).norm()


@pytest.mark.parametrize("mask_padding", [True, False])
def test_a_batch_is_its_instances_one_by_one(mask_padding: bool) -> None:
    adapter = adapter_of(mask_padding=mask_padding)
    batch: list[dict[str, torch.Tensor]] = [features_of(3), {}, features_of(1, 1), features_of(5, 2), {}]
    together, _ = adapter(batch)
    assert [tuple(rows.shape) for rows in together] == [(2, HIDDEN), (1, HIDDEN), (2, HIDDEN), (2, HIDDEN), (1, HIDDEN)]
    for rows, features in zip(together, batch, strict=True):
        torch.testing.assert_close(rows, adapter([features])[0][0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(rows[0], together[0][0])


def test_users_without_a_history_only() -> None:
    together, own = adapter_of()([{}, {}])
    assert [tuple(rows.shape) for rows in together] == [(1, HIDDEN)] * 2
    assert own is None


@pytest.mark.parametrize("mask_padding", [True, False])
def test_gradients_reach_everything(mask_padding: bool) -> None:
    adapter = adapter_of(mask_padding=mask_padding)
    (vectors,), _ = adapter([features_of(3)])
    vectors.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())


@pytest.mark.parametrize("mask_padding", [True, False])
def test_bfloat16_is_close_to_float32(mask_padding: bool) -> None:
    features = features_of(3)
    (exact,), _ = adapter_of(mask_padding=mask_padding)([features])
    (vectors,), _ = adapter_of(mask_padding=mask_padding).to(torch.bfloat16)([features])
    assert vectors.dtype == torch.bfloat16
    torch.testing.assert_close(vectors.float(), exact, rtol=0.05, atol=0.1)


def test_parameters_at_the_papers_size() -> None:
    with torch.device("meta"):
        adapter = PPlug().adapter(1024, 3584)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 33_045_504


def test_initial_weights() -> None:
    torch.manual_seed(3)
    adapter = PPlug().adapter(400, 80)
    for name, parameter in adapter.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif name == "instruction":
            assert parameter.norm().item() == pytest.approx(1, rel=0.15)
        else:
            bound = math.sqrt(6 / sum(parameter.shape))
            assert 0.95 * bound < parameter.abs().max().item() <= bound
    torch.manual_seed(3)
    again = PPlug().adapter(400, 80)
    assert all(torch.equal(a, b) for a, b in zip(adapter.parameters(), again.parameters(), strict=True))


# -- options -----------------------------------------------------------------------------------------------------


def test_fidelity() -> None:
    paper, official = (registry.create("methods", "pplug", {}, fidelity) for fidelity in ("paper", "official"))
    assert registry.options_of(paper) == {
        "encoder": "BAAI/bge-m3",
        "max_history": 512,
        "mask_padding": True,
        "init_instruction": "normal",
        "vectors": "own",
    }
    assert official == replace(paper, mask_padding=False, init_instruction="uniform")


def test_the_instruction_alone_starts_otherwise() -> None:
    """Uniform in [0, 1): a mean of 1/2 and a norm of sqrt(1024 / 3), about 18; the projectors start as they did."""
    started = []
    for how in ("normal", "uniform"):
        torch.manual_seed(1)
        started.append(PPlug(init_instruction=how).adapter(1024, 6).state_dict())  # type: ignore[arg-type]
    normal, uniform = (one.pop("instruction") for one in started)
    assert all(torch.equal(weights, started[1][name]) for name, weights in started[0].items())
    assert normal.norm().item() == pytest.approx(1, abs=0.1)
    assert uniform.norm().item() == pytest.approx(math.sqrt(1024 / 3), abs=0.5)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.05)


def test_no_history_at_all_is_not_an_option() -> None:
    with pytest.raises(ConfigError, match=r"pplug\.max_history: "):
        registry.create("methods", "pplug", {"max_history": 0})


def test_it_is_a_trained_method() -> None:
    method: TrainedMethod = PPlug()
    own = method.properties
    # Table 5: an embedded representation, and neither of the others.
    assert (own.retrieval_augmented, own.embedded, own.inter_user, own.calls_model) == (False, True, False, True)
    assert (method.learning_rate, method.aux_reduction, method.encoder) == (1e-5, "mean", "BAAI/bge-m3")
