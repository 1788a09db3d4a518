"""What fits a budget, counted by hand: with the tests' tokenizer a token is a byte, and so is each chat marker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from bench.chat import Chat
from bench.context import Context, derive_seed
from bench.data.corpus import Corpus
from bench.errors import ConfigError, DataError, PluginError
from bench.protocols import Retriever, Task
from bench.records import ABSENT, Instance, Prompt, Record
from bench.retrievers.recency import Recency
from bench.tasks import reviews
from bench.tasks.reviews import Item, Reviews
from bench.templates import Templates


def made(texts: Mapping[str, str]) -> Templates:
    return Templates(texts, {name: f"m/{name}" for name in texts})


TEMPLATES = made(
    {
        "block": "{{number}}{{item_title}}{{item_description}}{{rating}}{{title}}<{{text}}>",
        "write": "=== system\nS\n=== user\n{{item_description}}|{{history}}|{{output_rating}}{{output_title}}",
        "quote": "=== system\nS\n=== user\n{{item_description}}|{{history}}|{{summary}}",
    }
)
# <|im_start|>system\nS<|im_end|>\n<|im_start|>user\n...<|im_end|>\n<|im_start|>assistant\n, a marker being one token.
CHAT = (1 + 7 + 1 + 1 + 1) + (1 + 5 + 0 + 1 + 1) + (1 + 10)
# "DDDD|" + "|5.0T", the target's description being 4 long.
FRAME = CHAT + 5 + 5
# "1" + "i" + "dd" + "4.0" + "t" + "<" + 10 + ">": a block with a text of 10.
BLOCK = 1 + 1 + 2 + 3 + 1 + 12

TARGET = Item("A0", "Target", "DDDD")
OTHER = Item("A1", "i", "dd")


def review(number: int, text: str = "0123456789", rating: float = 4.0) -> Record:
    return reviews.review("u", OTHER, rating, "t", text, number)


def instance(profile: Sequence[Record] = (), rating: float = 5.0) -> Instance:
    return reviews.instance("c", "test", reviews.review("u", TARGET, rating, "T", "secret", 99), tuple(profile))


@pytest.fixture(scope="module")
def chat(tiny_qwen2: Path) -> Chat:
    return Chat(str(tiny_qwen2))


def context(
    chat: Chat,
    budget: int,
    k: int = 8,
    retriever: Retriever | None = None,
    *,
    task: Task | None = None,
    templates: Templates = TEMPLATES,
    marks: tuple[str, ...] = (),
) -> Context:
    def no_embedder(texts: Sequence[str], encoder: str) -> np.typing.NDArray[np.float32]:
        raise AssertionError("nothing here embeds")

    return Context(
        task=task or Reviews(),
        corpus=Corpus("c", {"test": ()}, {}),
        method="m",
        templates=templates,
        chat=chat,
        retriever=retriever,
        k=k,
        input_budget=budget,
        run_seed=3,
        embedder=no_embedder,
        marks=marks,
    )


def test_the_hand_count_is_right(chat: Chat) -> None:
    prompt = context(chat, 10_000).prompt("write", instance(), [review(1)])
    assert prompt.user == "DDDD|1idd4.0t<0123456789>|5.0T"
    assert chat.count(prompt) == FRAME + BLOCK


@pytest.mark.parametrize(
    ("budget", "shown"),
    [
        (FRAME + BLOCK, 1),
        # A second block brings a new line.
        (FRAME + 2 * BLOCK, 1),
        (FRAME + 2 * BLOCK + 1, 2),
        (FRAME + 3 * BLOCK + 1, 2),
        (FRAME + 3 * BLOCK + 2, 3),
        (FRAME + 5 * BLOCK + 4, 5),
        (10_000, 5),
    ],
)
def test_the_largest_number_of_blocks_that_fits_is_shown(budget: int, shown: int, chat: Chat) -> None:
    history = [review(n, f"{n}123456789") for n in range(5)]
    prompt = context(chat, budget).prompt("write", instance(), history)
    assert (prompt.blocks_shown, prompt.blocks_offered) == (shown, 5)
    # The first ones, in the retriever's order, each whole.
    blocks = "\n".join(f"{n + 1}idd4.0t<{n}123456789>" for n in range(shown))
    assert prompt.user == f"DDDD|{blocks}|5.0T"
    assert chat.count(prompt) <= budget


@pytest.mark.parametrize("room", [1, 4, 9])
def test_one_block_stays_with_its_text_cut(room: int, chat: Chat) -> None:
    prompt = context(chat, FRAME + BLOCK - 10 + room).prompt("write", instance(), [review(1), review(2)])
    assert prompt.user == f"DDDD|1idd4.0t<{'0123456789'[:room]}>|5.0T"
    assert (prompt.blocks_shown, prompt.blocks_offered) == (1, 2)


@pytest.mark.parametrize(("allowed", "kept"), [(0, 4), (FRAME + BLOCK - 10 + 7, 7), (FRAME + BLOCK, 10), (10_000, 10)])
def test_an_overlong_prompt_may_have_a_budget_of_its_own(allowed: int, kept: int, chat: Chat) -> None:
    """It is for the one block that has no room in the input budget, and never less than that."""
    here = replace(context(chat, FRAME + BLOCK - 10 + 4), overlong_budget=lambda: allowed)
    prompt = here.prompt("write", instance(), [review(1), review(2)])
    assert prompt.user == f"DDDD|1idd4.0t<{'0123456789'[:kept]}>|5.0T"
    assert prompt.blocks_shown == 1

    def refuse() -> int:
        raise AssertionError("what has room does not ask")

    roomy = replace(context(chat, FRAME + BLOCK), overlong_budget=refuse)
    assert roomy.prompt("write", instance(), [review(1), review(2)]).blocks_shown == 1


def test_a_text_is_cut_between_words(chat: Chat) -> None:
    prompt = context(chat, FRAME + BLOCK - 10 + 7).prompt("write", instance(), [review(1, "one two three")])
    assert "<one two>" in prompt.user
    prompt = context(chat, FRAME + BLOCK - 10 + 6).prompt("write", instance(), [review(1, "one two three")])
    assert "<one>" in prompt.user


@pytest.mark.parametrize(
    ("budget", "user"),
    [
        (FRAME + BLOCK - 10, "DDDD|1idd4.0t<>|5.0T"),
        (FRAME + BLOCK - 11, "DDDD|1id4.0t<>|5.0T"),
        (FRAME + BLOCK - 12, "DDDD|1i4.0t<>|5.0T"),
        (FRAME + BLOCK - 13, "DDD|1i4.0t<>|5.0T"),
        (FRAME + BLOCK - 16, "|1i4.0t<>|5.0T"),
    ],
)
def test_then_descriptions_are_cut(budget: int, user: str, chat: Chat) -> None:
    prompt = context(chat, budget).prompt("write", instance(), [review(1), review(2)])
    assert prompt.user == user
    assert chat.count(prompt) == budget
    assert prompt.blocks_shown == 1


def test_then_there_is_an_error(chat: Chat) -> None:
    budget = FRAME + BLOCK - 17
    with pytest.raises(ConfigError) as caught:
        context(chat, budget).prompt("write", instance(), [review(1)])
    assert str(caught.value) == (
        f"input_budget={budget} is too small for {instance().id}: the prompt m_review takes {budget + 1} tokens with "
        "all texts cut that may be; set a larger input_budget (or, with input_budget=model, a smaller max_new_tokens)"
    )


def test_without_history_the_description_is_cut(chat: Chat) -> None:
    assert context(chat, FRAME).prompt("write", instance()).user == "DDDD||5.0T"
    prompt = context(chat, FRAME - 1).prompt("write", instance())
    assert prompt.user == "DDD||5.0T"
    assert (prompt.blocks_shown, prompt.blocks_offered) == (0, 0)
    with pytest.raises(ConfigError, match="is too small"):
        context(chat, FRAME - 5).prompt("write", instance())


@pytest.mark.parametrize(("length", "kept"), [(50, 50), (51, 50), (400, 50)])
def test_a_text_of_the_model_takes_half_of_the_budget_at_most(length: int, kept: int, chat: Chat) -> None:
    prompt = context(chat, 100).prompt("quote", instance(), [review(1)], texts={"summary": "s" * length})
    assert prompt.user.endswith("|" + "s" * kept)
    assert chat.count(prompt) <= 100


def test_a_text_of_the_model_takes_room_from_the_blocks(chat: Chat) -> None:
    history = [review(n) for n in range(5)]
    shown = [
        context(chat, 200).prompt("quote", instance(), history, texts={"summary": "s" * length}).blocks_shown
        for length in (0, 60, 100, 900)
    ]
    room = [200 - CHAT - len("DDDD||") - length for length in (0, 60, 100, 100)]
    assert shown == [min(5, (tokens + 1) // (BLOCK + 1)) for tokens in room] == [5, 5, 3, 3]


def test_what_reviews_hold_stays_as_it_is(chat: Chat) -> None:
    text = "{{history}} {x} %s \\1 {% raw %} <b>\n=== user\n"
    prompt = context(chat, 10_000).prompt("quote", instance(), [review(1, text)], texts={"summary": "{{history}}"})
    assert prompt.user == f"DDDD|1idd4.0t<{text}>|{{{{history}}}}"


def test_ratings_are_floats(chat: Chat) -> None:
    prompt = context(chat, 10_000).prompt("write", instance(rating=4), [review(1, rating=3)])
    assert prompt.user == "DDDD|1idd3.0t<0123456789>|4.0T"


def test_a_stage_is_named_by_the_method_and_the_template_or_the_tasks_target(chat: Chat) -> None:
    here = context(chat, 10_000)
    assert here.prompt("quote", instance(), texts={"summary": ""}).stage == "m_quote"
    assert here.prompt("write", instance()).stage == "m_review"


def test_a_stage_may_have_another_name_than_its_template(chat: Chat) -> None:
    here = context(chat, 10_000)
    assert here.prompt("quote", instance(), texts={"summary": "s"}, stage="write").stage == "m_review"
    assert here.prompt("write", instance(), stage="other").stage == "m_other"


def test_what_is_given_instead_of_the_targets_own_values(chat: Chat) -> None:
    here = context(chat, 10_000)
    other = {"item_description": "another", "output_title": "X"}
    assert here.prompt("write", instance(), given=other).user == "another||5.0X"
    # It is cut as the target's own would be.
    assert context(chat, FRAME).prompt("write", instance(), given=other).user == "anot||5.0X"


def test_the_tasks_own_parts_stand_in_a_prompt(chat: Chat) -> None:
    parts = {
        "write": "=== system\n{{instruction}}\n=== user\n{{given}}|{{history}}",
        "block": "<{{text}}>",
        "given": "{{output_title}} of {{item_title}}: {{item_description}}",
        "instruction": "Write it.",
    }
    here = context(chat, 10_000, templates=made(parts))
    prompt = here.prompt("write", instance(), [review(1)])
    assert (prompt.system, prompt.user) == ("Write it.", "T of Target: DDDD|<0123456789>")
    # What they take counts, and the target's long fields are cut in them too.
    tight = context(chat, chat.count(prompt) - 12, templates=made(parts))
    assert tight.prompt("write", instance(), [review(1)]).user == "T of Target: DD|<>"


@pytest.mark.parametrize("soft", [False, True])
def test_what_the_data_lack_has_no_line_however_short_the_room(soft: bool, chat: Chat) -> None:
    """Of a text that was cut to nothing the line stays, as it always did."""
    parts = {
        "write": "=== system\nS\n=== user\n{{given}}\n{{history}}",
        "block": "[Title]: {{title}}\n[About]: {{item_description}}\n[Text]: {{text}}",
        "given": "[About]: {{item_description}}\n[Title]: {{output_title}}",
    }
    absent = {"title": ABSENT, "item_description": ABSENT}
    past = replace(review(1), fields={**review(1).fields, **absent})
    target = replace(instance(), given={**instance().given, "output_title": ABSENT})
    here = context(chat, 10_000, templates=made(parts))
    prompt = here.prompt("write", target, [past], soft=soft)
    assert prompt.user == "[About]: DDDD\n[Text]: 0123456789"
    tight = context(chat, chat.count(prompt) - 14, templates=made(parts))
    assert tight.prompt("write", target, [past], soft=soft).user == "[About]: \n[Text]: "


@dataclass(frozen=True)
class Letters:
    """A task with two fields that may be cut."""

    target: ClassVar[str] = "letter"
    grouped: ClassVar[bool] = False
    timed: ClassVar[bool] = False
    long_fields: ClassVar[tuple[str, ...]] = ("second", "first")
    metrics: ClassVar[tuple[str, ...]] = ("rouge",)
    max_new_tokens: ClassVar[int] = 16

    def query(self, instance: Instance) -> str:
        return ""

    def document(self, record: Record) -> str:
        return ""

    def about(self, instance: Instance) -> str:
        return ""

    def shown(self, instance: Instance) -> Mapping[str, str]:
        return {}

    def shown_record(self, record: Record) -> Mapping[str, str]:
        return {}


LETTERS = made(
    {
        "block": "({{first}},{{second}},{{text}})",
        "write": "=== system\nS\n=== user\n{{first}},{{second}},{{third}}{{history}}",
    }
)


@pytest.mark.parametrize(
    ("less", "user"),
    [
        (0, "aaa,bbb,3(ff,ss,tt)"),
        (1, "aaa,bbb,3(ff,ss,t)"),
        (2, "aaa,bbb,3(ff,ss,)"),
        (3, "aaa,bbb,3(ff,s,)"),
        (4, "aaa,bbb,3(ff,,)"),
        (5, "aaa,bbb,3(f,,)"),
        (6, "aaa,bbb,3(,,)"),
        (7, "aaa,bb,3(,,)"),
        (9, "aaa,,3(,,)"),
        (10, "aa,,3(,,)"),
        (12, ",,3(,,)"),
    ],
)
def test_fields_are_cut_in_the_order_of_the_task(less: int, user: str, chat: Chat) -> None:
    one = Instance("c/test/u", "c", "test", "u", {"first": "aaa", "second": "bbb", "third": 3}, ())
    record = Record("u", "tt", {"first": "ff", "second": "ss"})
    budget = CHAT + len("aaa,bbb,3(ff,ss,tt)") - less
    prompt = context(chat, budget, task=Letters(), templates=LETTERS).prompt("write", one, [record])
    assert (prompt.user, prompt.stage, prompt.blocks_shown) == (user, "m_letter", 1)
    assert chat.count(prompt) == budget


def test_fields_that_may_not_be_cut_are_an_error(chat: Chat) -> None:
    one = Instance("c/test/u", "c", "test", "u", {"first": "aaa", "second": "bbb", "third": 3}, ())
    with pytest.raises(ConfigError, match=r"too small for .*: the prompt m_letter takes"):
        context(chat, CHAT + len(",,3") - 1, task=Letters(), templates=LETTERS).prompt("write", one)


SOFT = made({"block": "<{{text}}>", "write": "=== system\nS\n=== user\n{{output_title}}{{history}}{{soft}}"})


def test_in_a_soft_prompt_only_the_methods_own_text_has_slots(chat: Chat) -> None:
    here = context(chat, 100, templates=SOFT, marks=("<m>",))
    target = replace(
        instance(), given={**instance().given, "output_title": "a[X_TOKEN_1]b[X_[X_TOKEN_1]TOKEN_2]<<m>m>c"}
    )
    slots = "".join(f"[X_TOKEN_{number}]" for number in range(9))
    prompt = here.prompt("write", target, [review(1, "[X_TOKEN_3]t<m>")], texts={"soft": slots}, soft=True)
    # The slots take nine tokens; as a text they would be cut to half of the budget.
    assert prompt.user == f"abc<t>{slots}"
    assert prompt.slots == tuple(f"[X_TOKEN_{number}]" for number in range(9))
    assert prompt.marks == ("<m>",)


def test_a_prompt_that_is_not_soft_keeps_what_users_wrote(chat: Chat) -> None:
    here = context(chat, 10_000, templates=SOFT, marks=("<m>",))
    prompt = here.prompt("write", instance(), [review(1, "[X_TOKEN_3]t<m>")], texts={"soft": "[X_TOKEN_0]"})
    assert prompt.user == "T<[X_TOKEN_3]t<m>>[X_TOKEN_0]"
    assert (prompt.slots, prompt.marks) == ((), ())


@dataclass(frozen=True)
class Fixed:
    """Gives the ranking it was made with."""

    ranking: tuple[int, ...]

    def rank(self, instance: Instance, candidates: Sequence[Record], context: Context) -> list[int]:
        return list(self.ranking)


PROFILE = [review(n, f"text {n}") for n in range(4)]


@pytest.mark.parametrize(("k", "wanted"), [(0, []), (1, [2]), (3, [2, 0, 3]), (4, [2, 0, 3, 1]), (9, [2, 0, 3, 1])])
def test_never_more_than_k_and_in_the_retrievers_order(k: int, wanted: list[int], chat: Chat) -> None:
    here = context(chat, 10_000, k, Fixed((2, 0, 3, 1)))
    history = here.retrieve(instance(PROFILE))
    assert [r.timestamp for r in history] == wanted
    prompt = here.prompt("write", instance(PROFILE), history)
    assert [prompt.user.find(f"text {n}>") > 0 for n in range(4)] == [n in wanted for n in range(4)]
    assert prompt.blocks_offered == prompt.blocks_shown == len(wanted)


def test_candidates_instead_of_the_profile(chat: Chat) -> None:
    here = context(chat, 10_000, 1, Fixed((1, 0)))
    assert here.retrieve(instance(PROFILE), PROFILE[2:]) == [PROFILE[3]]


def test_an_empty_profile(chat: Chat) -> None:
    here = context(chat, 10_000, 8, Recency())
    assert here.retrieve(instance()) == []


@pytest.mark.parametrize("ranking", [(0, 1, 2), (0, 1, 2, 2), (1, 2, 3, 4), (0, 1, 2, 3, 0)])
def test_a_retriever_that_does_not_rank_each_once(ranking: tuple[int, ...], chat: Chat) -> None:
    with pytest.raises(PluginError, match="retriever Fixed must rank each of the 4 candidates once"):
        context(chat, 10_000, 8, Fixed(ranking)).retrieve(instance(PROFILE))


def test_a_method_that_did_not_say_that_it_retrieves(chat: Chat) -> None:
    with pytest.raises(PluginError, match="must declare retrieval_augmented=True"):
        context(chat, 10_000).retrieve(instance(PROFILE))


def test_a_method_that_did_not_say_that_it_compares_users(chat: Chat) -> None:
    here = context(chat, 10_000)
    with pytest.raises(PluginError, match="must declare inter_user=True"):
        here.peers(PROFILE[0], instance(PROFILE))
    with pytest.raises(PluginError, match="must declare inter_user=True"):
        here.user_vector("u", "hashed-ngrams")


def test_newest_first_needs_times(chat: Chat) -> None:
    here = context(chat, 10_000, 8, Recency())
    with pytest.raises(DataError, match=r"retriever recency: a record of user u has no time; use another retriever"):
        here.retrieve(instance([*PROFILE, replace(PROFILE[0], timestamp=None)]))


def test_seeds_come_from_names_alone(chat: Chat) -> None:
    assert context(chat, 10).seed("a", 1) == derive_seed(3, "a", 1) == derive_seed("3", "a", "1")
    different = [derive_seed(*names) for names in ((3, "a", 1), (4, "a", 1), (3, "a1"), (3, "b", 1), ("3a", 1))]
    assert len(set(different)) == 5
    assert all(0 <= seed < 1 << 32 for seed in different)
    # SHA-256 of "0", its first four bytes: no other machine or version may give another.
    assert derive_seed(0) == 0x5FECEB66


def test_the_hash_of_a_prompt_is_of_what_the_model_sees() -> None:
    prompt = Prompt("s", "ab", "c", 1, 2)
    assert prompt.hash == Prompt("t", "ab", "c", 3, 4).hash
    assert prompt.hash != Prompt("s", "a", "bc", 1, 2).hash
