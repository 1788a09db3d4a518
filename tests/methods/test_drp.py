"""DRP: its prompts word for word, which calls follow which answers, and who is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import registry, templates
from bench.chat import Chat
from bench.config import build, read_config
from bench.context import Context
from bench.data.corpus import Corpus
from bench.data.peers import Peers
from bench.errors import ConfigError, PluginError
from bench.job import Job
from bench.loop import replay
from bench.methods.dpl import DPL
from bench.methods.drp import DRP
from bench.protocols import Method
from bench.records import Completion, Instance, Prompt, Record
from bench.resolved import Run
from bench.results import Generation
from bench.retrievers.recency import Recency
from bench.tasks import reviews
from bench.tasks.reviews import Item, Reviews
from bench.work import Work

ITEMS = {asin: Item(asin, f"Title {asin}", f"About {asin}.") for asin in ("A0", "A1", "A2", "A3", "A4")}
OTHERS = ("ann", "bob", "cat", "dan")


def review(user: str, asin: str, timestamp: int = 1, rating: float = 4.0) -> Record:
    return reviews.review(user, ITEMS[asin], rating, f"Says {user}", f"{user} on {asin}", timestamp)


def instance(user: str, profile: Sequence[Record]) -> Instance:
    target = reviews.review(user, ITEMS["A0"], 5.0, "T", f"target of {user}", 99)
    return reviews.instance("c", "test", target, tuple(profile))


# Four others reviewed A1, A2 and A4, three of them A3.
MINE = [review("me", f"A{n}", n, float(n)) for n in (1, 2, 3, 4)]
ME = instance("me", MINE)
THEIRS = {user: [review(user, asin, 50) for asin in ("A1", "A2", "A4", "A3")] for user in OTHERS}
THEIRS["bob"].pop()


def vectors_by_name(texts: Sequence[str], encoder: str) -> NDArray[np.float32]:
    """Two lumps: the user and cat against the rest, of whom dan is nearest to the middle."""
    table = {"me": [0.0, 0.0], "cat": [0.0, 0.1], "ann": [9.0, 0.0], "bob": [9.0, 5.0], "dan": [9.0, 2.0]}
    return np.array([table[text.split()[0]] for text in texts], np.float32)


def context(
    chat: Chat,
    k: int = 2,
    me: Instance = ME,
    theirs: Mapping[str, Sequence[Record]] = THEIRS,
    budget: int = 100_000,
    method: str = "drp",
) -> Context:
    instances = (me, *(instance(user, profile) for user, profile in theirs.items()))
    corpus = Corpus("c", {"test": instances}, {one.id: f"target of {one.user_id}" for one in instances})
    return Context(
        task=Reviews(),
        corpus=corpus,
        method=method,
        templates=templates.load(registry.create("methods", method, {}), method, Reviews(), "reviews"),
        chat=chat,
        retriever=Recency(),
        k=k,
        input_budget=budget,
        run_seed=0,
        embedder=vectors_by_name,
        pool=Peers(corpus),
    )


def play(
    method: Method, here: Context, me: Instance = ME, answers: Mapping[str, Sequence[str]] | None = None
) -> tuple[list[list[Prompt]], str]:
    """All that an instance yields, and what comes of it. Each prompt is answered with what `answers` has for its stage
    and place, else with its running number."""
    steps = method.steps(me, here)
    asked = [list(next(steps))]
    number = 0
    while True:
        replies = []
        for place, prompt in enumerate(asked[-1]):
            number += 1
            given = (answers or {}).get(prompt.stage, ())
            replies.append(given[place] if place < len(given) else f"answer {number}")
        try:
            asked.append(list(steps.send(replies)))
        except StopIteration as stop:
            return asked, stop.value


def stages(asked: list[list[Prompt]]) -> list[list[str]]:
    return [[prompt.stage.removeprefix("drp_") for prompt in prompts] for prompts in asked]


def listed(asked: list[list[Prompt]]) -> str:
    """The differences in the profile's prompt."""
    (profile,) = asked[-2]
    return profile.user.partition("\n[User's Past Reviews]:\n")[0].removeprefix("[Differences]:\n")


# -- the prompts -------------------------------------------------------------------------------------------------

DIFFERENCE = (
    "Given the title and description of an item, the user's review of it and the reviews that other users wrote of the "
    "same item, find the features in which the user's review differs from the others. Look at the writing (word "
    "choice, sentence structure), at the emotion (positive, negative, neutral tone) and at the meaning (what is paid "
    "attention to, information density, coherence), and beyond these for any feature that sets this review apart. "
    "Answer with a list and nothing else, each feature in three lines: [Feature], its name; [Definition], what it is; "
    "[Difference], how the user's review differs from the others in it."
)
VALIDATE = (
    "Given the title and description of an item, the user's review of it, the reviews that other users wrote of the "
    "same item, and a list of features in which the user's review is said to differ from the others, check each "
    "feature against the reviews. Keep it if the user's review shows it and the others do not; put right what is not "
    "quite so; leave it out if the reviews do not bear it out, if it holds for the others as well, or if another "
    "feature says the same. Answer with the list that remains, in the same form, and nothing else. If nothing remains, "
    "answer with the word None."
)
PROFILE = (
    "Given items that a user reviewed, each with the features in which the user's review differs from other users' "
    "reviews of the item, along with the user's past reviews (including item title, item description, review rating, "
    "review title, review text), summarize in a few sentences how this user writes reviews: the features that return "
    "from item to item, and what sets this user apart from others."
)


def compared(asin: str) -> str:
    return (
        f"[Item Title]: Title {asin}\n[Item Description]: About {asin}.\n"
        f"[User's Review]:\n- [Review Rating]: {asin[1:]}.0\n- [Review Title]: Says me\n- [Review Text]: me on {asin}\n"
        "[Other Users' Reviews]:\n- [Review 1]:\n- [Review Rating]: 4.0\n- [Review Title]: Says dan\n"
        f"- [Review Text]: dan on {asin}"
    )


def block(number: int, asin: str) -> str:
    return (
        f"- [Review {number}]:\n- [Item Title]: Title {asin}\n- [Item Description]: About {asin}.\n"
        f"- [Review Rating]: {asin[1:]}.0\n- [Review Title]: Says me\n- [Review Text]: me on {asin}"
    )


def test_word_for_word(chat: Chat) -> None:
    asked, text = play(DRP(clusters=2), context(chat))
    assert stages(asked) == [["difference"] * 2, ["validate"] * 2, ["profile"], ["review"]]
    # A3 is newer than A2, but only three others reviewed it.
    for number, asin in enumerate(("A4", "A2")):
        found, checked = asked[0][number], asked[1][number]
        assert (found.system, found.user) == (DIFFERENCE, compared(asin))
        assert (checked.system, checked.user) == (VALIDATE, f"{compared(asin)}\n[Features]:\nanswer {number + 1}")
    (profile,), (writing,) = asked[2:]
    history = block(1, "A4") + "\n" + block(2, "A3")
    assert profile.system == PROFILE
    assert profile.user == (
        "[Differences]:\n- [Item Title]: Title A4\n- [Differences]:\nanswer 3\n"
        f"- [Item Title]: Title A2\n- [Differences]:\nanswer 4\n[User's Past Reviews]:\n{history}"
    )
    assert writing.user == (
        f"[Item Title]: Title A0\n[Item Description]: About A0.\n[User's Past Reviews]:\n{history}\n"
        "[User Profile]: answer 5\n[Output Review Rating]: 5.0\n[Output Review Title]: T"
    )
    assert text == "answer 6"
    assert (profile.blocks_shown, writing.blocks_shown, writing.blocks_offered) == (2, 2, 2)


def test_the_calls_before_the_last_know_nothing_of_the_target(chat: Chat) -> None:
    asked, _ = play(DRP(), context(chat))
    shown = "".join(prompt.system + prompt.user for prompts in asked[:-1] for prompt in prompts)
    assert "A0" not in shown
    assert "target of" not in shown + asked[-1][0].user


@pytest.mark.parametrize("options", [{}, {"clusters": 3}, {"min_peers": 3}])
@pytest.mark.parametrize("k", [0, 1, 2, 9])
def test_dpls_reviews_and_peers(k: int, options: dict[str, int], chat: Chat) -> None:
    ours, _ = play(DRP(**options), context(chat, k))  # type: ignore[arg-type]
    its, _ = play(DPL(**options), context(chat, k, method="dpl"))  # type: ignore[arg-type]
    shown = [[prompt.user for prompt in asked[0] if prompt.stage.endswith("difference")] for asked in (ours, its)]
    assert shown[0] == shown[1]
    assert bool(shown[0]) == bool(k)
    assert sum(map(len, ours)) == 2 * len(shown[0]) + 2


# -- which answers count -----------------------------------------------------------------------------------------


def test_raw_differences_are_taken_unchecked(chat: Chat) -> None:
    asked, text = play(DRP(differences="raw"), context(chat))
    assert stages(asked) == [["difference"] * 2, ["profile"], ["review"]]
    assert listed(asked) == (
        "- [Item Title]: Title A4\n- [Differences]:\nanswer 1\n- [Item Title]: Title A2\n- [Differences]:\nanswer 2"
    )
    assert text == "answer 4"


@pytest.mark.parametrize("nothing", ["", "None", "none.", "**None**"])
def test_a_list_of_nothing_is_not_checked_and_left_out(nothing: str, chat: Chat) -> None:
    asked, _ = play(DRP(), context(chat), answers={"drp_difference": [nothing, "a list"]})
    assert stages(asked) == [["difference"] * 2, ["validate"], ["profile"], ["review"]]
    assert asked[1][0].user == f"{asked[0][1].user}\n[Features]:\na list"
    assert listed(asked) == "- [Item Title]: Title A2\n- [Differences]:\nanswer 3"


@pytest.mark.parametrize("nothing", ["", "None"])
def test_what_does_not_stand_the_check_is_left_out(nothing: str, chat: Chat) -> None:
    asked, _ = play(DRP(), context(chat), answers={"drp_validate": ["what is left", nothing]})
    assert listed(asked) == "- [Item Title]: Title A4\n- [Differences]:\nwhat is left"
    asked, _ = play(DRP(), context(chat), answers={"drp_validate": [nothing, nothing]})
    assert listed(asked) == ""


def test_nothing_found_at_all(chat: Chat) -> None:
    asked, text = play(DRP(), context(chat), answers={"drp_difference": ["", "None"]})
    assert stages(asked) == [["difference"] * 2, ["profile"], ["review"]]
    assert (listed(asked), text) == ("", "answer 4")


def test_a_list_may_speak_of_none(chat: Chat) -> None:
    asked, _ = play(DRP(), context(chat), answers={"drp_validate": ["None of the others laughs.", "x"]})
    assert "None of the others laughs." in listed(asked)


def test_a_thought_is_no_difference(published: Any, run_of: Callable[..., Run]) -> None:
    """What is before </think> is not quoted; a thought that does not end says nothing, and its list is not checked."""
    run = run_of(published(1, count=12), "drp", fidelity="paper", k=2, drp={"min_peers": 1})
    answers = {
        "drp_difference": ["<think>who is it</think>short sentences", "<think>she never"],
        "drp_validate": ["<think>true?</think>\nshort sentences indeed"],
    }
    work = Work(run, run.instances[0])
    prompts: dict[str, list[str]] = {}
    while calls := work.advance():
        for call in calls:
            _, stage, index = call.key
            prompts.setdefault(stage, []).append(call.prompt.user)
            work.answer(call, Completion(answers.get(stage, ["<think>x</think>fine"])[index], 1, 1, "stop", 0.0))
    assert {stage: len(users) for stage, users in prompts.items()} == {
        "drp_difference": 2,
        "drp_validate": 1,
        "drp_profile": 1,
        "drp_review": 1,
    }
    assert prompts["drp_validate"][0].endswith("[Features]:\nshort sentences")
    assert prompts["drp_profile"][0].count("[Differences]:\nshort sentences indeed") == 1
    shown = "".join(user for users in prompts.values() for user in users)
    assert "think" not in shown
    assert "she never" not in shown
    assert work.prediction == "fine"
    assert work.row().empty == {"drp_difference": 1}


# -- edges -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("differences", ["validated", "raw"])
@pytest.mark.parametrize(
    ("me", "theirs", "k"), [(instance("me", []), THEIRS, 2), (ME, {}, 2), (ME, THEIRS, 0), (instance("me", []), {}, 8)]
)
def test_without_a_history_or_peers(
    differences: Any, me: Instance, theirs: Mapping[str, Sequence[Record]], k: int, chat: Chat
) -> None:
    asked, text = play(DRP(differences=differences), context(chat, k, me, theirs), me)
    assert stages(asked) == [["profile"], ["review"]]
    shown = min(k, len(me.profile))
    assert asked[0][0].user.startswith("[Differences]:\n\n[User's Past Reviews]:\n")
    assert [prompts[0].blocks_shown for prompts in asked] == [shown, shown]
    assert "[User Profile]: answer 1\n" in asked[1][0].user
    assert text == "answer 2"


def test_long_reviews_and_lists_leave_room_for_a_peer(chat: Chat) -> None:
    long = "word " * 1000
    me = instance("me", [replace(one, text=f"me {long}") for one in MINE])
    theirs = {user: [replace(one, text=f"{user} {long}") for one in profile] for user, profile in THEIRS.items()}
    budget = 3000
    asked, _ = play(DRP(), context(chat, 1, me, theirs, budget), me, {"drp_difference": ["list " * 1000]})
    for prompts in asked:
        assert all(chat.count(prompt) <= budget for prompt in prompts)
    (checked,) = asked[1]
    own, _, rest = checked.user.partition("[Other Users' Reviews]")
    peers, _, found = rest.partition("[Features]")
    # A token is a byte: a quarter of the budget each.
    assert own.count("word") == 149
    assert found.count("list") == 150
    assert peers.count("word") > 50
    assert (checked.blocks_shown, checked.blocks_offered) == (1, 4)


def test_a_run_is_replayed_from_its_answers(published: Any, run_of: Callable[..., Run]) -> None:
    """Also where texts are cut to the budget, which a replay leaves out at first."""
    data = published(1, count=12, words=900)
    run = run_of(data, "drp", fidelity="paper", k=2, drp={"min_peers": 1}, input_budget=1500)
    work = Work(run, run.instances[0])
    known: dict[Any, Generation] = {}
    while calls := work.advance():
        for call in calls:
            text = f"{call.key[1]} " * 200
            known[call.key] = Generation(
                **dict(zip(("instance", "stage", "index"), call.key, strict=True)),
                prompt=call.prompt.hash,
                text=text,
                prompt_tokens=1,
                completion_tokens=1,
                finish_reason="stop",
                seconds=0.0,
            )
            work.answer(call, Completion(text, 1, 1, "stop", 0.0))
    again = replay(run, run.instances[0], known)
    assert again.prediction == work.prediction
    assert [prompt.hash for prompt in again.prompts] == [prompt.hash for prompt in work.prompts]
    assert len(again.prompts) == 6
    assert again.prompts[2].user.count("drp_difference") < 200, "its list was cut"


# -- options -----------------------------------------------------------------------------------------------------


def test_options_and_fidelity() -> None:
    paper, official = (registry.create("methods", "drp", {}, fidelity) for fidelity in ("paper", "official"))
    assert registry.options_of(paper) == {
        "encoder": "BAAI/bge-m3",
        "clusters": 5,
        "min_peers": 4,
        "differences": "validated",
        "model": None,
    }
    assert official == replace(paper, differences="raw")
    own = paper.properties
    assert (own.retrieval_augmented, own.embedded, own.inter_user, own.calls_model) == (True, False, True, True)


@pytest.mark.parametrize("options", [{"clusters": 1}, {"min_peers": 0}, {"differences": "all"}, {"model": ""}])
def test_options_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"drp\.{next(iter(options))}"):
        registry.create("methods", "drp", options)


# -- the second model --------------------------------------------------------------------------------------------


def test_the_second_model_finds_and_checks(chat: Chat) -> None:
    asked, _ = play(DRP(model="reasoner"), context(chat))
    plain, _ = play(DRP(), context(chat))
    assert [{prompt.model for prompt in prompts} for prompts in asked] == [{"reasoner"}, {"reasoner"}, {None}, {None}]
    assert {prompt.model for prompts in plain for prompt in prompts} == {None}
    assert [[prompt.hash for prompt in prompts] for prompts in asked] == [
        [prompt.hash for prompt in prompts] for prompts in plain
    ]


@pytest.mark.parametrize("backend", ["vllm", "ray"])
def test_a_second_model_needs_servers(backend: str, shop_config: Path) -> None:
    settings = {"method": "drp", "drp": {"encoder": "hashed-ngrams", "model": "reasoner"}}
    with pytest.raises(
        ConfigError,
        match=rf"method drp asks a second model \('reasoner'\), and backend={backend} runs one alone; use "
        r"backend=openai, or name no second model",
    ):
        Run(build(read_config(str(shop_config)), settings, {"backend": backend}))
    assert Run(build(read_config(str(shop_config)), settings, {"backend": "openai"})).method.model == "reasoner"  # type: ignore[attr-defined]


def test_the_second_model_is_part_of_what_a_run_is(shop_config: Path) -> None:
    def job(model: str | None) -> Job:
        settings = {"method": "drp", "drp": {"encoder": "hashed-ngrams", "model": model}, "backend": "openai"}
        return Job.of(build(read_config(str(shop_config)), settings))

    jobs = [job(None), job("reasoner"), job("org/reasoner")]
    assert len({one.folder.name for one in jobs}) == 3
    for one, model in zip(jobs, (None, "reasoner", "org/reasoner"), strict=True):
        record = one.record()
        assert record.identity["method_options"]["model"] == model
        assert record.config["options"]["drp"]["model"] == model


def test_a_model_that_the_method_does_not_declare(
    published: Any, run_of: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DRP, "models", ())
    run = run_of(published(1, count=12), "drp", fidelity="paper", k=2, drp={"min_peers": 1, "model": "reasoner"})
    with pytest.raises(PluginError, match="method drp asks for model 'reasoner', which its 'models' must name"):
        Work(run, run.instances[0]).advance()
