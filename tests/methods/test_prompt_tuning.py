"""prompt_tuning: RAG's prompt with learned vectors at its end, the same for everyone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench import registry, templates
from bench.chat import Chat
from bench.context import Context
from bench.data.corpus import Corpus
from bench.errors import ConfigError
from bench.methods.prompt_tuning import PromptTuning
from bench.methods.rag import RAG
from bench.protocols import TrainedMethod
from bench.records import Instance, Prompt
from bench.retrievers.recency import Recency
from bench.tasks import reviews
from bench.tasks.reviews import Item, Reviews

ITEMS = {asin: Item(asin, f"Title {asin}", f"About {asin}.") for asin in ("A0", "A1")}
PROFILE = tuple(reviews.review("me", ITEMS["A1"], 4.0, "t", f"text {number}", number) for number in range(5))
TARGET = reviews.review("me", ITEMS["A0"], 5.0, "T", "the review to write", 99)
ME = reviews.instance("c", "test", TARGET, PROFILE)


def context(chat: Chat, k: int = 2, budget: int = 10_000, method: str = "prompt_tuning") -> Context:
    def no_embedder(texts: Sequence[str], encoder: str) -> NDArray[np.float32]:
        raise AssertionError("nothing here embeds")

    return Context(
        task=Reviews(),
        corpus=Corpus("c", {"test": (ME,)}, {}),
        method=method,
        templates=templates.load(registry.create("methods", method, {}), method, Reviews(), "reviews"),
        chat=chat,
        retriever=Recency(),
        k=k,
        input_budget=budget,
        run_seed=0,
        embedder=no_embedder,
    )


def prompt_of(method: PromptTuning | RAG, here: Context, me: Instance = ME) -> Prompt:
    steps = method.steps(me, here)
    (prompt,) = next(steps)
    with pytest.raises(StopIteration) as stopped:
        steps.send(["the answer"])
    assert stopped.value.value == "the answer"
    return prompt


def slots_of(length: int) -> tuple[str, ...]:
    return tuple(f"[PROMPT_TOKEN_{number}]" for number in range(length))


SYSTEM = (
    "Given the title and description of an item, along with the user's past reviews (including item title, item "
    "description, review rating, review title, review text), and the output review rating and review title, generate "
    "a personalized item review for the user."
)
USER = """[Item Title]: Title A0
[Item Description]: About A0.
[User's Past Reviews]:
- [Review 1]:
- [Item Title]: Title A1
- [Item Description]: About A1.
- [Review Rating]: 4.0
- [Review Title]: t
- [Review Text]: text 4
[Output Review Rating]: 5.0
[Output Review Title]: T
[PROMPT_TOKEN_0][PROMPT_TOKEN_1][PROMPT_TOKEN_2]"""


def test_the_prompt(chat: Chat) -> None:
    prompt = prompt_of(PromptTuning(length=3), context(chat, k=1))
    assert prompt.system == SYSTEM
    assert prompt.user == USER
    assert (prompt.slots, dict(prompt.features)) == (slots_of(3), {})


@pytest.mark.parametrize("length", [1, 16, 40])
@pytest.mark.parametrize("k", [0, 2, 9])
def test_it_is_rags_with_slots_at_the_end(k: int, length: int, chat: Chat) -> None:
    prompt = prompt_of(PromptTuning(length=length), context(chat, k))
    plain = prompt_of(RAG(), context(chat, k, method="rag"))
    assert prompt.system == plain.system
    assert prompt.user == plain.user + "\n" + "".join(slots_of(length))
    assert (prompt.blocks_shown, prompt.blocks_offered) == (plain.blocks_shown, plain.blocks_offered)
    places = chat.positions(prompt, chat.ids(prompt))
    assert places == list(range(places[0], places[0] + length))
    # A slot is one token, however long its name, and a new line comes before them.
    assert chat.count(prompt) == chat.count(plain) + length + 1


def test_sixteen_by_default(chat: Chat) -> None:
    assert prompt_of(PromptTuning(), context(chat)).slots == slots_of(16)


def test_what_would_be_a_slot_in_a_review_is_taken_out(chat: Chat) -> None:
    me = replace(ME, profile=(replace(PROFILE[4], text="[PROMPT_TOKEN_1]text 4"),))
    prompt = prompt_of(PromptTuning(length=3), context(chat), me)
    assert prompt.user == USER
    assert len(chat.positions(prompt, chat.ids(prompt))) == 3


@pytest.mark.parametrize("slots", ["", "{{soft_tokens}}{{soft_tokens}}", "[PROMPT_TOKEN_0]"])
def test_a_template_that_holds_other_slots_is_refused(slots: str, chat: Chat) -> None:
    here = context(chat)
    shipped = here.templates
    changed = {**shipped.texts, "write": shipped.texts["write"].replace("{{soft_tokens}}", slots)}
    with pytest.raises(ConfigError, match=r"its template must hold \{\{soft_tokens\}\} once"):
        prompt_of(PromptTuning(), replace(here, templates=replace(shipped, texts=changed)))


def test_the_vectors_are_the_same_for_everyone() -> None:
    adapter = PromptTuning(length=3).adapter(0, 8)
    (first, second), own = adapter([{}, {}])
    assert own is None
    assert first.shape == (3, 8)
    assert torch.equal(first, second)
    (first.sum() + 2 * second.sum()).backward()
    (parameter,) = adapter.parameters()
    assert parameter.grad is not None
    assert torch.equal(parameter.grad, torch.full((3, 8), 3.0))


def test_parameters() -> None:
    torch.manual_seed(3)
    (parameter,) = PromptTuning().adapter(0, 3584).parameters()
    assert parameter.shape == (16, 3584)
    assert parameter.std().item() == pytest.approx(0.02, rel=0.02)
    torch.manual_seed(3)
    (again,) = PromptTuning().adapter(0, 3584).parameters()
    assert torch.equal(parameter, again)


def test_options() -> None:
    assert registry.options_of(registry.create("methods", "prompt_tuning", {}, "official")) == {"length": 16}
    with pytest.raises(ConfigError, match=r"prompt_tuning\.vectors is not an option"):
        registry.create("methods", "prompt_tuning", {"vectors": "shuffled"})
    with pytest.raises(ConfigError, match=r"prompt_tuning\.length: "):
        registry.create("methods", "prompt_tuning", {"length": 0})


def test_it_is_a_trained_method() -> None:
    method: TrainedMethod = PromptTuning()
    own = method.properties
    # No user is represented by a vector.
    assert (own.retrieval_augmented, own.embedded, own.inter_user, own.calls_model) == (True, False, False, True)
    assert (method.learning_rate, method.aux_reduction) == (1e-3, "mean")
    assert (method.encoder, method.vectors) == (None, "own")
