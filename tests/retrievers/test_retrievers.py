"""The four retrievers: hand-computed rankings, ties, corner cases, and two independent references."""

from __future__ import annotations

import hashlib
import itertools
import math
import random as stdlib_random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import registry
from bench.data.corpus import Corpus
from bench.errors import DataError, PluginError
from bench.protocols import Task
from bench.records import Instance, Record
from bench.retrievers.bm25 import BM25, bm25_scores
from bench.retrievers.contriever import Contriever, inner_products
from bench.retrievers.random import Random
from bench.retrievers.recency import Recency
from bench.tasks import reviews
from bench.tasks.reviews import Item, Reviews

DIMENSION = 24


def embed(texts: Sequence[str], encoder: str) -> NDArray[np.float32]:
    """Gaussian vectors that depend on the text and the encoder only; not normalised."""
    seeds = [int.from_bytes(hashlib.sha256(f"{encoder}|{text}".encode()).digest()[:8], "big") for text in texts]
    return np.stack([np.random.default_rng(seed).normal(size=DIMENSION) for seed in seeds]).astype(np.float32)


@dataclass(frozen=True)
class StandIn:
    """What retrievers use of `bench.context.Context`."""

    corpus: Corpus
    task: Task = field(default_factory=Reviews)
    k: int = 8
    run_seed: int = 0
    embed: Callable[[Sequence[str], str], NDArray[np.float32]] = embed

    def seed(self, *names: object) -> int:
        return int.from_bytes(hashlib.sha256(repr((self.run_seed, names)).encode()).digest()[:4], "big")


def stand_in(corpus: Corpus, **options: Any) -> Any:
    return StandIn(corpus, **options)


def make(
    descriptions: Sequence[str], titles: Sequence[str] | None = None, times: Sequence[int] | None = None, **target: str
) -> tuple[Instance, Any]:
    """An instance whose profile reviews one item for each description, and a context."""
    titles = titles or [""] * len(descriptions)
    times = times or range(len(descriptions))
    profile = tuple(
        reviews.review("u", Item(f"A{i}", f"item {i}", text), 5.0, title, f"text {i}", time)
        for i, (text, title, time) in enumerate(zip(descriptions, titles, times, strict=True))
    )
    goal = Item("T", "target", target.get("description", ""))
    review = reviews.review("u", goal, 4.0, target["title"], "the answer", 99)
    instance = reviews.instance("Books", "test", review, profile)
    instance = replace(instance, id=target.get("id", instance.id))
    corpus = Corpus("Books", {"test": (instance,)}, {instance.id: "the answer"})
    return instance, stand_in(corpus)


ALL = [Recency(), Random(), BM25(), Contriever()]


def test_query_and_document_text_pair_a_review_title_with_an_item_description() -> None:
    instance, _ = make(["a long story"], ["Loved it"], title="Meh", description="a short story")
    assert Reviews().query(instance) == "Meh a short story"
    assert Reviews().document(instance.profile[0]) == "Loved it a long story"


@pytest.mark.parametrize("retriever", ALL, ids=lambda r: type(r).__name__)
def test_no_one_and_many_candidates_are_ranked_once_each_whatever_k_is(retriever: Any) -> None:
    instance, context = make([f"word{i % 5} thing" for i in range(30)], title="word3 thing")
    for count in (0, 1, 2, 30):
        ranking = retriever.rank(instance, instance.profile[:count], context)
        assert sorted(ranking) == list(range(count))
        assert all(type(index) is int for index in ranking)


@pytest.mark.parametrize("retriever", ALL, ids=lambda r: type(r).__name__)
def test_only_the_candidates_count_not_the_profile(retriever: Any) -> None:
    instance, context = make([f"word{i}" for i in range(9)], times=range(9), title="word5")
    some = instance.profile[3:7]
    other, _ = make(["x"], title="word5")
    assert retriever.rank(instance, some, context) == retriever.rank(other, some, context)


def test_recency_is_newest_first_and_a_profile_reversed() -> None:
    instance, context = make(["x"] * 5, times=[10, 20, 20, 20, 30], title="t")
    assert Recency().rank(instance, instance.profile, context) == [4, 3, 2, 1, 0]
    shuffled = [instance.profile[i] for i in (4, 0, 2, 1)]
    assert Recency().rank(instance, shuffled, context) == [0, 3, 2, 1]


def test_recency_as_released_keeps_the_order_of_one_time() -> None:
    instance, context = make(["x"] * 5, times=[10, 20, 20, 20, 30], title="t")
    released = Recency(ties="data_order")
    assert released.rank(instance, instance.profile, context) == [4, 1, 2, 3, 0]
    assert registry.create("retrievers", "recency", {}, "official") == released


def test_random_depends_on_the_seed_and_the_instance_only() -> None:
    instance, context = make(["x"] * 20, title="t")
    ranking = Random().rank(instance, instance.profile, context)
    assert ranking == Random().rank(instance, instance.profile, context)
    assert ranking != Random().rank(instance, instance.profile, stand_in(context.corpus, run_seed=1))
    other, _ = make(["x"] * 20, title="t", id="Books/test/v")
    assert ranking != Random().rank(other, instance.profile, context)
    assert ranking == Random().rank(instance, instance.profile, stand_in(context.corpus, k=1))


def test_random_leaves_the_shared_generators_alone() -> None:
    instance, context = make(["x"] * 20, title="t")
    stdlib_random.seed(5)
    np.random.seed(5)
    expected = stdlib_random.random(), np.random.random()
    stdlib_random.seed(5)
    np.random.seed(5)
    Random().rank(instance, instance.profile, context)
    assert (stdlib_random.random(), np.random.random()) == expected


def test_random_is_uniform_over_orders() -> None:
    _, context = make(["x"] * 3, title="t")
    counts: Counter[tuple[int, ...]] = Counter()
    for number in range(3000):
        instance, _ = make(["x"] * 3, title="t", id=str(number))
        counts[tuple(Random().rank(instance, instance.profile, context))] += 1
    assert set(counts) == set(itertools.permutations(range(3)))
    chi_square = sum((count - 500) ** 2 / 500 for count in counts.values())
    assert chi_square < 20.5  # the 99.9th percentile at 5 degrees of freedom


def test_bm25_equals_a_computation_by_hand() -> None:
    # Three documents of 1, 2 and 3 words: mean length 2. "a" is in one, so idf = ln(2.5 / 1.5); "b" is in two, so
    # ln(1.5 / 2.5) < 0 becomes a quarter of the mean idf over a, b, c, d.
    rare, common = math.log(2.5 / 1.5), math.log(1.5 / 2.5)
    floor = 0.25 * (3 * rare + common) / 4

    def part(idf: float, frequency: int, length: int) -> float:
        return idf * frequency * 2.5 / (frequency + 1.5 * (0.25 + 0.75 * length / 2))

    scores = bm25_scores("a b zebra", ["a", "b c", "b b d"])
    assert scores == pytest.approx([part(rare, 1, 1), part(floor, 1, 2), part(floor, 2, 3)], abs=1e-12)


def test_bm25_keeps_case_and_splits_at_any_whitespace() -> None:
    instance, context = make(["dog cat", "Dog\n\tcat", "bird", "fish"], title="Dog")
    assert BM25().rank(instance, instance.profile, context) == [1, 0, 2, 3]


def test_bm25_breaks_ties_by_position() -> None:
    instance, context = make(["b a", "z", "a b", "z", "a b", "z", "z", "z"], title="a")
    assert BM25().rank(instance, instance.profile, context) == [0, 2, 4, 1, 3, 5, 6, 7]


@pytest.mark.parametrize("documents", [["", " ", "\n"], [""], []])
def test_bm25_scores_nothing_but_empty_documents_zero(documents: list[str]) -> None:
    assert bm25_scores("a b", documents).tolist() == [0.0] * len(documents)


def test_bm25_ranks_empty_titles_and_descriptions_in_order() -> None:
    instance, context = make(["", "", ""], title="")
    assert BM25().rank(instance, instance.profile, context) == [0, 1, 2]


def test_bm25_equals_rank_bm25_on_random_documents() -> None:
    from rank_bm25 import BM25Okapi

    generator = np.random.default_rng(0)
    for _ in range(60):
        count = int(generator.integers(1, 12))
        documents = [" ".join(generator.choice(list("abcdEF"), generator.integers(0, 9))) for _ in range(count)]
        titles = [str(generator.choice(["", "a", "E E"])) for _ in range(count)]
        instance, context = make(documents, titles, title="a E", description="b q b")
        texts = [f"{title} {text}" for title, text in zip(titles, documents, strict=True)]
        if not any(text.split() for text in texts):
            continue
        expected = BM25Okapi([text.split() for text in texts]).get_scores(["a", "E", "b", "q", "b"])
        assert bm25_scores(Reviews().query(instance), texts).tolist() == expected.tolist()
        order = sorted(range(count), key=lambda i: (-expected[i], i))
        assert BM25().rank(instance, instance.profile, context) == order


def test_bm25_scores_are_rank_bm25s_to_the_last_bit() -> None:
    """Long texts with words in more than half of the documents, doubled words in queries, empty documents."""
    from rank_bm25 import BM25Okapi

    draw = stdlib_random.Random(3)
    words = [f"w{number}" for number in range(400)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    floored = 0
    for count in [1, 2, 3, 5, 8, 13, 40, 80] * 4:
        documents = [" ".join(draw.choices(words, cum_weights=weights, k=draw.randint(0, 120))) for _ in range(count)]
        query = " ".join([*draw.choices(words, cum_weights=weights, k=draw.randint(1, 60)), "unheard"])
        if not any(documents):
            continue
        reference = BM25Okapi([document.split() for document in documents])
        expected = np.asarray(reference.get_scores(query.split()), np.float64)
        floored += 0.25 * reference.average_idf in reference.idf.values()
        assert bm25_scores(query, documents).tobytes() == expected.tobytes()
    assert floored > 10


def test_contriever_equals_brute_force() -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        words = [f"w{generator.integers(40)}" for _ in range(int(generator.integers(1, 60)))]
        instance, context = make(words, title=f"q{seed}")
        query = embed([f"q{seed} "], "facebook/contriever")[0].tolist()
        vectors = embed([f" {word}" for word in words], "facebook/contriever").tolist()
        scores = [math.fsum(a * b for a, b in zip(query, vector, strict=True)) for vector in vectors]
        order = sorted(range(len(words)), key=lambda i: (-scores[i], i))
        assert Contriever().rank(instance, instance.profile, context) == order


def test_contriever_ranks_by_inner_product_and_not_by_cosine() -> None:
    table = {"q ": [1.0, 0.0], " near": [1.0, 0.0], " long": [3.0, 4.0], " back": [-1.0, 0.0]}
    instance, context = make(["near", "back", "long"], title="q")
    fixed = stand_in(context.corpus, embed=lambda texts, encoder: np.array([table[t] for t in texts], np.float32))
    assert Contriever().rank(instance, instance.profile, fixed) == [2, 0, 1]


def test_contriever_breaks_ties_by_position_whatever_faiss_adds_up_first() -> None:
    for count in range(1, 40):
        instance, context = make(["same"] * count + ["other"], title="q")
        ranking = Contriever().rank(instance, instance.profile, context)
        assert [i for i in ranking if i < count] == list(range(count))


def test_contriever_asks_for_the_encoder_of_its_option() -> None:
    asked: list[str] = []

    def spy(texts: Sequence[str], encoder: str) -> NDArray[np.float32]:
        asked.append(encoder)
        return embed(texts, encoder)

    instance, context = make(["a", "b"], title="q")
    spying = stand_in(context.corpus, embed=spy)
    Contriever().rank(instance, instance.profile, spying)
    Contriever(model="hashed-ngrams").rank(instance, instance.profile, spying)
    assert asked == ["facebook/contriever", "hashed-ngrams"]


def test_inner_products_refuses_what_is_no_number() -> None:
    with pytest.raises(PluginError, match=r"not a finite number.*contriever\.model"):
        inner_products(np.array([1.0, np.nan], np.float32), np.ones((3, 2), np.float32))


@dataclass(frozen=True)
class Plain(Reviews):
    """A task whose queries and documents are other texts."""

    def query(self, instance: Instance) -> str:
        return "2"

    def document(self, record: Record) -> str:
        return record.text


def test_the_task_says_what_is_looked_for_and_where() -> None:
    asked: list[str] = []

    def spy(texts: Sequence[str], encoder: str) -> NDArray[np.float32]:
        asked.extend(texts)
        return embed(texts, encoder)

    instance, context = make(["a", "b", "c", "d"], title="b")
    plain = stand_in(context.corpus, task=Plain(), embed=spy)
    assert BM25().rank(instance, instance.profile, context) == [1, 0, 2, 3]
    assert BM25().rank(instance, instance.profile, plain) == [2, 0, 1, 3]
    Contriever().rank(instance, instance.profile, plain)
    assert asked == ["2", "text 0", "text 1", "text 2", "text 3"]


def test_recency_refuses_a_record_without_a_time() -> None:
    instance, context = make(["a", "b"], title="q")
    stray = [instance.profile[0], replace(instance.profile[1], timestamp=None)]
    with pytest.raises(DataError, match=r"retriever recency: a record of user u has no time; use another retriever"):
        Recency().rank(instance, stray, context)
    for retriever in (BM25(), Contriever(), Random()):
        assert sorted(retriever.rank(instance, stray, context)) == [0, 1]


def test_only_recency_says_that_it_needs_times() -> None:
    assert [type(one).__name__ for one in ALL if getattr(one, "timed", False)] == ["Recency"]
