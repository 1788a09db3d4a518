"""DPL: its prompts word for word, and its representative peers against scikit-learn's clusters, searched by hand."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from bench import registry, templates
from bench.chat import Chat
from bench.context import Context, derive_seed
from bench.data.corpus import Corpus
from bench.data.peers import Peers
from bench.errors import ConfigError
from bench.methods._comparing import representatives
from bench.methods.dpl import DPL
from bench.protocols import Method, Retriever
from bench.records import Instance, Prompt, Record
from bench.retrievers.recency import Recency
from bench.tasks import reviews
from bench.tasks.reviews import Item, Reviews

Floats = NDArray[np.float32]

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


def vectors_by_name(texts: Sequence[str], encoder: str) -> Floats:
    """Two lumps: the user and cat against the rest, of whom dan is nearest to the middle."""
    table = {"me": [0.0, 0.0], "cat": [0.0, 0.1], "ann": [9.0, 0.0], "bob": [9.0, 5.0], "dan": [9.0, 2.0]}
    return np.array([table[text.split()[0]] for text in texts], np.float32)


def random_vectors(texts: Sequence[str], encoder: str) -> Floats:
    """The same vector for the same text."""
    rows = [np.random.default_rng(derive_seed(text)).normal(size=6) for text in texts]
    return np.array(rows, np.float32)


class Embedder:
    """Keeps what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], str]] = []

    def __call__(self, texts: Sequence[str], encoder: str) -> Floats:
        self.calls.append((list(texts), encoder))
        return vectors_by_name(texts, encoder)


class Oldest:
    """A retriever that prefers what recency shows last."""

    def rank(self, instance: Instance, candidates: Sequence[Record], context: Context) -> list[int]:
        return list(range(len(candidates)))


def context(
    chat: Chat,
    k: int = 2,
    me: Instance = ME,
    theirs: Mapping[str, Sequence[Record]] = THEIRS,
    budget: int = 100_000,
    embedder: Callable[[Sequence[str], str], Floats] = vectors_by_name,
    retriever: Retriever | None = None,
    before_target: bool = False,
) -> Context:
    instances = (me, *(instance(user, profile) for user, profile in theirs.items()))
    corpus = Corpus("c", {"test": instances}, {one.id: f"target of {one.user_id}" for one in instances})
    return Context(
        task=Reviews(),
        corpus=corpus,
        method="dpl",
        templates=templates.load(DPL(), "dpl", Reviews(), "reviews"),
        chat=chat,
        retriever=retriever or Recency(),
        k=k,
        input_budget=budget,
        run_seed=0,
        embedder=embedder,
        pool=Peers(corpus),
        before_target=before_target,
    )


def play(method: DPL, here: Context, me: Instance = ME, answer: str = "answer {}") -> tuple[list[list[Prompt]], str]:
    """All that an instance yields, each prompt answered with its running number, and what comes of it."""
    steps = method.steps(me, here)
    asked = [list(next(steps))]
    number = 0
    while True:
        replies = []
        for _ in asked[-1]:
            number += 1
            replies.append(answer.format(number))
        try:
            asked.append(list(steps.send(replies)))
        except StopIteration as stop:
            return asked, stop.value


# -- the prompts -------------------------------------------------------------------------------------------------

DIFFERENCE = (
    "Given the title and description of an item, the user's review of it and the reviews that other users wrote of the "
    "same item, describe how the user's review differs from the others in writing style (word choice, sentence "
    "structure), emotional style (positive, negative, neutral tone) and semantic style (information density, "
    "contextual coherence)."
)
PROFILE = (
    "Given items that a user reviewed, each with a description of how the user's review differs from other users' "
    "reviews of the item, along with the user's past reviews (including item title, item description, review rating, "
    "review title, review text), summarize in a few sentences how this user writes reviews and what sets them apart "
    "from other users."
)
REVIEW = (
    "Given the title and description of an item, along with the user's past reviews (including item title, item "
    "description, review rating, review title, review text), a summary of how the user writes, and the output review "
    "rating and review title, generate a personalized item review for the user."
)


def block(number: int, asin: str) -> str:
    return (
        f"- [Review {number}]:\n- [Item Title]: Title {asin}\n- [Item Description]: About {asin}.\n"
        f"- [Review Rating]: {asin[1:]}.0\n- [Review Title]: Says me\n- [Review Text]: me on {asin}"
    )


def test_word_for_word(chat: Chat) -> None:
    asked, text = play(DPL(clusters=2), context(chat))
    assert [[prompt.stage for prompt in prompts] for prompts in asked] == [
        ["dpl_difference", "dpl_difference"],
        ["dpl_profile"],
        ["dpl_review"],
    ]
    # A3 is newer than A2, but only three others reviewed it.
    for prompt, asin in zip(asked[0], ("A4", "A2"), strict=True):
        assert prompt.system == DIFFERENCE
        assert prompt.user == (
            f"[Item Title]: Title {asin}\n[Item Description]: About {asin}.\n"
            f"[User's Review]:\n- [Review Rating]: {asin[1:]}.0\n- [Review Title]: Says me\n"
            f"- [Review Text]: me on {asin}\n"
            "[Other Users' Reviews]:\n- [Review 1]:\n- [Review Rating]: 4.0\n- [Review Title]: Says dan\n"
            f"- [Review Text]: dan on {asin}"
        )
    (profile,), (writing,) = asked[1:]
    # The K blocks are chosen from all reviews, A3 too.
    history = block(1, "A4") + "\n" + block(2, "A3")
    assert profile.system == PROFILE
    assert profile.user == (
        "[Differences]:\n- [Item Title]: Title A4\n- [Difference]: answer 1\n"
        "- [Item Title]: Title A2\n- [Difference]: answer 2\n"
        f"[User's Past Reviews]:\n{history}"
    )
    assert writing.system == REVIEW
    assert writing.user == (
        f"[Item Title]: Title A0\n[Item Description]: About A0.\n[User's Past Reviews]:\n{history}\n"
        "[User Profile]: answer 3\n[Output Review Rating]: 5.0\n[Output Review Title]: T"
    )
    assert text == "answer 4"
    assert (profile.blocks_shown, writing.blocks_shown, writing.blocks_offered) == (2, 2, 2)


def test_the_calls_before_the_last_know_nothing_of_the_target(chat: Chat) -> None:
    asked, _ = play(DPL(), context(chat))
    shown = "".join(prompt.system + prompt.user for prompts in asked[:-1] for prompt in prompts)
    assert "A0" not in shown
    assert "target of" not in shown + asked[-1][0].user


def test_braces_in_what_users_and_the_model_wrote_stay(chat: Chat) -> None:
    me = instance(
        "me", [replace(one, fields={**one.fields, "title": "{{history}}"}, text="{{rating}} {x}") for one in MINE]
    )
    asked, _ = play(DPL(), context(chat, me=me, embedder=random_vectors), me, "{{{{difference}}}} {}")
    assert "- [Review Title]: {{history}}\n- [Review Text]: {{rating}} {x}\n" in asked[0][0].user
    assert "- [Difference]: {{difference}} 1\n" in asked[1][0].user


# -- whom a review is compared with ------------------------------------------------------------------------------


def test_what_is_embedded(chat: Chat) -> None:
    embedder = Embedder()
    play(DPL(encoder="some encoder"), context(chat, embedder=embedder))
    # The own text first, then the others' in the order of their ids.
    assert embedder.calls == [
        ([f"{user} on {asin}" for user in ("me", *OTHERS)], "some encoder") for asin in ("A4", "A2")
    ]


@pytest.mark.parametrize(
    ("min_peers", "k", "asins"),
    [
        (4, 9, ["A4", "A2", "A1"]),
        (3, 9, ["A4", "A3", "A2", "A1"]),
        (3, 2, ["A4", "A3"]),
        (4, 1, ["A4"]),
        (5, 9, []),
    ],
)
def test_candidates(min_peers: int, k: int, asins: list[str], chat: Chat) -> None:
    asked, _ = play(DPL(min_peers=min_peers), context(chat, k))
    compared = [prompt for prompt in asked[0] if prompt.stage == "dpl_difference"]
    assert [prompt.user.splitlines()[0] for prompt in compared] == [f"[Item Title]: Title {asin}" for asin in asins]
    assert len(asked) == (3 if asins else 2)


def test_the_retriever_chooses_both(chat: Chat) -> None:
    mine = [MINE[2], MINE[0], MINE[1], MINE[3]]
    me = instance("me", mine)
    asked, _ = play(DPL(), context(chat, me=me, retriever=Oldest()), me)
    assert [prompt.user.splitlines()[0][-2:] for prompt in asked[0]] == ["A1", "A2"]
    assert [line[-2:] for line in asked[2][0].user.splitlines() if "Review Text" in line] == ["A3", "A1"]


def test_peers_before_the_target_only(chat: Chat) -> None:
    late = {user: [replace(one, timestamp=99 if user == "ann" else 98) for one in THEIRS[user]] for user in OTHERS}
    asked, _ = play(DPL(), context(chat, theirs=late, before_target=True))
    assert [prompts[0].stage for prompts in asked] == ["dpl_profile", "dpl_review"]
    asked, _ = play(DPL(min_peers=3), context(chat, k=1, theirs=late, before_target=True))
    assert "ann on" not in asked[0][0].user
    assert "dan on" in asked[0][0].user


def test_every_text_a_cluster_of_its_own(chat: Chat) -> None:
    asked, _ = play(DPL(), context(chat, k=1))
    ((prompt,), _, _) = asked
    assert (prompt.blocks_shown, prompt.blocks_offered) == (4, 4)
    texts = ["me on A4", *(f"{user} on A4" for user in OTHERS)]
    labels = KMeans(n_clusters=5, random_state=42).fit(vectors_by_name(texts, "").astype(np.float64)).labels_
    wanted = [texts[row] for row in np.argsort(labels) if row]
    assert [line.partition(": ")[2] for line in prompt.user.splitlines() if "Review Text" in line][1:] == wanted


def by_hand(vectors: Floats, clusters: int) -> list[int]:
    """Every cluster's member nearest to its centroid, with one loop for each word of that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = KMeans(n_clusters=clusters, random_state=42).fit(vectors.astype(np.float64))
    best: dict[int, tuple[float, int]] = {}
    for row, label in enumerate(fitted.labels_.tolist()):
        distance = math.dist(vectors[row].astype(float).tolist(), fitted.cluster_centers_[label].tolist())
        if label not in best or distance < best[label][0] - 1e-9:
            best[label] = (distance, row)
    return [best[label][1] for label in sorted(best) if label != fitted.labels_[0]]


@pytest.mark.parametrize("size", [5, 6, 9, 17, 60])
@pytest.mark.parametrize("seed", range(8))
def test_representatives_are_those_of_scikit_learns_clusters(seed: int, size: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(size, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = representatives(vectors, 5)
    assert found == by_hand(vectors, 5)
    assert len(found) == 4
    assert 0 not in found


def test_of_two_members_the_first() -> None:
    """They are as near to their middle as each other; rounding errors must not choose."""
    generator = np.random.default_rng(0)
    for _ in range(40):
        one, two = generator.normal(size=(2, 30)).astype(np.float32)
        far = np.float32(100)
        vectors = np.stack([np.zeros(30, np.float32), one + far, two - far, -two - far, one * 2 + far])
        assert sorted(representatives(vectors, 3)) == [1, 2]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_fewer_texts_than_clusters(size: int) -> None:
    vectors = np.random.default_rng(size).normal(size=(size, 3)).astype(np.float32)
    assert sorted(representatives(vectors, 5)) == list(range(1, size))


def test_texts_that_occur_twice() -> None:
    points = np.eye(3, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Rows 0 and 2 are one point, 1 and 4 another; two clusters stay empty.
        found = representatives(points[[0, 1, 0, 2, 1]], 5)
        assert sorted(found) == [1, 3]
        assert found == by_hand(points[[0, 1, 0, 2, 1]], 5)
        assert representatives(points[[0] * 6], 5) == []


def test_a_review_that_all_repeat_is_compared_with_nobody(chat: Chat) -> None:
    me = instance("me", [replace(one, text="so so") if one.group == "A4" else one for one in MINE])
    theirs = {
        user: [replace(one, text="so so") if one.group == "A4" else one for one in profile]
        for user, profile in THEIRS.items()
    }
    asked, _ = play(DPL(), context(chat, k=2, me=me, theirs=theirs, embedder=random_vectors), me)
    assert [prompt.user.splitlines()[0] for prompt in asked[0]] == ["[Item Title]: Title A2"]
    assert "- [Difference]: answer 1\n[User's Past Reviews]" in asked[1][0].user


# -- edges -------------------------------------------------------------------------------------------------------


def test_without_candidates_the_list_is_empty(chat: Chat) -> None:
    asked, text = play(DPL(), context(chat, theirs={}))
    ((profile,), (writing,)) = asked
    assert profile.user.startswith("[Differences]:\n\n[User's Past Reviews]:\n- [Review 1]:\n")
    assert "[User Profile]: answer 1\n" in writing.user
    assert text == "answer 2"


@pytest.mark.parametrize(("me", "k"), [(instance("me", []), 2), (ME, 0)])
def test_without_history(me: Instance, k: int, chat: Chat) -> None:
    asked, text = play(DPL(), context(chat, k=k, me=me), me)
    ((profile,), (writing,)) = asked
    assert profile.user == "[Differences]:\n\n[User's Past Reviews]:\n"
    assert (writing.blocks_shown, writing.blocks_offered, text) == (0, 0, "answer 2")


def test_long_differences_leave_room_for_the_history(chat: Chat) -> None:
    budget = 1500
    here = context(chat, k=2, budget=budget)
    asked, _ = play(DPL(), here, answer="word " * 100 + "{}")
    (profile,) = asked[1]
    lines = profile.user.partition("[User's Past Reviews]")[0].splitlines()[1:]
    # A token is a byte. Half of the budget: the first whole, the second cut.
    assert len("\n".join(lines)) <= budget // 2
    assert [line[:30] for line in lines] == [
        "- [Item Title]: Title A4",
        "- [Difference]: word word word",
        "- [Item Title]: Title A2",
        "- [Difference]: word word word",
    ]
    assert lines[1].endswith("word 1")
    assert 0 < lines[3].count("word") < 100
    assert profile.blocks_shown >= 1
    for prompts in asked:
        assert all(chat.count(prompt) <= budget for prompt in prompts)


def test_a_long_review_leaves_room_for_a_peer(chat: Chat) -> None:
    long = "word " * 1000
    me = instance("me", [replace(one, text=f"me {long}") for one in MINE])
    theirs = {user: [replace(one, text=f"{user} {long}") for one in profile] for user, profile in THEIRS.items()}
    asked, _ = play(DPL(), context(chat, me=me, theirs=theirs, budget=2000), me)
    for prompt in asked[0]:
        own, _, peers = prompt.user.partition("[Other Users' Reviews]")
        assert (prompt.blocks_shown, prompt.blocks_offered) == (1, 4)
        assert own.count("word") == 199
        assert peers.count("word") > 50
        assert chat.count(prompt) <= 2000


def test_properties_are_those_of_table_5() -> None:
    method: Method = registry.create("methods", "dpl", {})
    own = method.properties
    assert (own.retrieval_augmented, own.embedded, own.inter_user, own.calls_model) == (True, False, True, True)
    assert method == DPL(encoder="BAAI/bge-m3", clusters=5, min_peers=4)


@pytest.mark.parametrize("options", [{"clusters": 1}, {"min_peers": 0}])
def test_options_that_cannot_work(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        registry.create("methods", "dpl", options)
