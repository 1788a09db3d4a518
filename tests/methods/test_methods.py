"""What the methods ask and answer, word for word, and that no prompt ever shows what is to be predicted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from bench import registry
from bench.config import build, read_config
from bench.data.corpus import Corpus
from bench.data.load import load
from bench.protocols import Method
from bench.records import Instance, Prompt
from bench.resolved import Inputs, Run

SECRET = "zyzzyva quux"

KITE = """- [Review {}]:
- [Item Title]: Red Kite
- [Item Description]: A kite of red cloth.
- [Review Rating]: 5.0
- [Review Title]: Flies high
- [Review Text]: Up it went, {{{{summary}}}} and all."""
BOAT = """- [Review {}]:
- [Item Title]: Blue Boat
- [Item Description]: A boat that floats.
- [Review Rating]: 2.0
- [Review Title]: Leaks
- [Review Text]: It sank at once."""
DRUM = """- [Review {}]:
- [Item Title]: Green Drum
- [Item Description]: A drum with two sticks.
- [Review Rating]: 4.0
- [Review Title]: Loud
- [Review Text]: The whole street heard my drum."""
ITEM = "[Item Title]: Old Map\n[Item Description]: A map of {{history}} and {braces} {% if %}.\n"
OUTPUT = "[Output Review Rating]: 5.0\n[Output Review Title]: Lovely map"


@pytest.fixture(scope="module")
def corpora(shop: Path) -> Mapping[str, Corpus]:
    return load(str(shop), None)


def make(shop_config: Path, corpora: Mapping[str, Corpus], **settings: object) -> Run:
    return Run(build(read_config(str(shop_config)), settings), Inputs(corpora))


def play(run: Run, instance: Instance, answers: str = "answer") -> tuple[list[Prompt], str]:
    """All prompts of an instance, each answered "<answers> <number>", and what the method returns."""
    steps = run.method.steps(instance, run.contexts[instance.category])
    prompts: list[Prompt] = []
    replies: list[str] | None = None
    while True:
        try:
            asked = next(steps) if replies is None else steps.send(replies)
        except StopIteration as stop:
            return prompts, stop.value
        replies = [f"{answers} {len(prompts) + n}" for n, _ in enumerate(asked, 1)]
        prompts += asked


def test_nonperso(shop_config: Path, corpora: Mapping[str, Corpus]) -> None:
    run = make(shop_config, corpora, method="nonperso")
    (prompt,), text = play(run, run.instances[0])
    assert prompt.user == ITEM + OUTPUT
    assert prompt.system == (
        "Given the title and description of an item, along with the output review rating and review title, generate a "
        "review of the item."
    )
    assert (text, prompt.blocks_shown, prompt.blocks_offered) == ("answer 1", 0, 0)


def test_rag(shop_config: Path, corpora: Mapping[str, Corpus]) -> None:
    run = make(shop_config, corpora, method="rag")
    (prompt,), text = play(run, run.instances[0])
    # K = 2 of three reviews, the newest first.
    history = DRUM.format(1) + "\n" + BOAT.format(2)
    assert prompt.user == f"{ITEM}[User's Past Reviews]:\n{history}\n{OUTPUT}"
    assert (text, prompt.blocks_shown, prompt.blocks_offered) == ("answer 1", 2, 2)


def test_pag(shop_config: Path, corpora: Mapping[str, Corpus]) -> None:
    run = make(shop_config, corpora, method="pag", k=3)
    (profile, review), text = play(run, run.instances[0], "{{item_title}}")
    history = "\n".join(block.format(n) for n, block in enumerate((DRUM, BOAT, KITE), 1))
    # The first call sees the reviews and nothing of the target.
    assert profile.user == f"[User's Past Reviews]:\n{history}"
    assert "summarize" in profile.system
    assert review.user == (f"{ITEM}[User's Past Reviews]:\n{history}\n[User Profile]: {{{{item_title}}}} 1\n{OUTPUT}")
    assert text == "{{item_title}} 2"
    assert [prompt.stage for prompt in (profile, review)] == ["pag_profile", "pag_review"]
    assert profile.blocks_shown == review.blocks_shown == 3


def test_copy_is_the_newest_review(shop_config: Path, corpora: Mapping[str, Corpus]) -> None:
    run = make(shop_config, corpora, method="copy")
    assert [play(run, instance) for instance in run.instances] == [
        ([], "The whole street heard my drum."),
        ([], "Up it went, {{summary}} and all."),
        ([], ""),
    ]


@pytest.mark.parametrize("method", ["rag", "pag"])
def test_without_history(method: str, shop_config: Path, corpora: Mapping[str, Corpus]) -> None:
    run = make(shop_config, corpora, method=method)
    prompts, _ = play(run, run.instances[2])
    nothing, _ = play(make(shop_config, corpora, method=method, k=0), run.instances[0])
    for prompt in (*prompts, *nothing):
        assert (prompt.blocks_shown, prompt.blocks_offered) == (0, 0)
        assert "[Review " not in prompt.user


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("retriever", ["bm25", "random", "recency"])
@pytest.mark.parametrize("method", registry.builtin_names("methods"))
def test_no_prompt_holds_the_text_to_predict(
    method: str, retriever: str, split: str, shop_config: Path, corpora: Mapping[str, Corpus]
) -> None:
    run = make(shop_config, corpora, method=method, retriever=retriever, split=split)
    for instance in run.instances:
        assert SECRET in run.corpora["Toys"].reference(instance)
        prompts, text = play(run, instance)
        assert SECRET not in "".join([text, *(prompt.system + prompt.user for prompt in prompts)])


def test_contriever_does_not_show_it_either(shop_config: Path, corpora: Mapping[str, Corpus]) -> None:
    stand_in = {"model": "hashed-ngrams"}
    run = make(shop_config, corpora, method="pag", retriever="contriever", contriever=stand_in)
    for instance in run.instances:
        prompts, _ = play(run, instance)
        assert SECRET not in "".join(prompt.user for prompt in prompts)
        assert prompts[0].blocks_shown == min(2, len(instance.profile))


PROPERTIES = {
    "nonperso": (False, False, False, True),
    "rag": (True, False, False, True),
    "pag": (True, False, False, True),
    "copy": (False, False, False, False),
}
"""Table 5 of the paper, and whether a model is asked."""


@pytest.mark.parametrize("name", sorted(PROPERTIES))
def test_properties_are_those_of_table_5(name: str) -> None:
    method: Method = registry.create("methods", name, {})
    own = method.properties
    assert (own.retrieval_augmented, own.embedded, own.inter_user, own.calls_model) == PROPERTIES[name]
