"""User identification: by hand with vectors that can be counted on fingers, and what it finds in the demo."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.batch import Background, Batch
from bench.data.corpus import Corpus
from bench.encoders import load_encoder
from bench.errors import ConfigError, DataError
from bench.metrics.identification import Identification
from bench.records import Instance, Record
from bench.results import Prediction
from bench.scoring import background_of
from bench.tasks.reviews import Reviews

LETTERS = "xyz"
Vector = NDArray[np.float32]


def by_letters(texts: Sequence[str], encoder: str) -> NDArray[np.float32]:
    """How often each of three letters stands in a text: vectors that are not of length 1."""
    assert len(set(texts)) == len(texts), "each distinct text once"
    return np.array([[text.count(letter) for letter in LETTERS] for text in texts], np.float32).reshape(-1, 3)


def record(user: str, text: str, group: str = "A9") -> Record:
    return Record(user, text, {}, group)


def case(histories: Mapping[str, Sequence[str | Record]]) -> Background:
    """One instance of user "me", of group A1; a text is a record of another group."""
    made = {
        user: [record(user, text) if isinstance(text, str) else text for text in texts]
        for user, texts in histories.items()
    }
    instance = Instance("C/test/me", "C", "test", "me", {}, (), "A1")
    return Background([instance], [made], ["A kite."], by_letters, Path("unused"))


@pytest.mark.parametrize(
    ("text", "histories", "expected"),
    [
        # Nearest; second; third of three.
        ("x", {"me": ["x"], "a": ["y"], "b": ["z"]}, [1, 1, 1, 1 / 3, (1 + 1 / 2 + 1 / 3) / 3]),
        ("xxy", {"me": ["y"], "a": ["x"], "b": ["z"]}, [1, 0, 1 / 2, 1 / 3, 11 / 18]),
        ("xxxyyz", {"me": ["z"], "a": ["x"], "b": ["y"]}, [1, 0, 1 / 3, 1 / 3, 11 / 18]),
        # The mean counts, and its direction, not its length: (x + y) / 2 against x.
        ("xy", {"me": ["x", "y"], "a": ["xxxx"]}, [1, 1, 1, 1 / 2, 3 / 4]),
        # Ties: with one of two, behind one and with one of three.
        ("x", {"me": ["x", "x"], "a": ["xx"]}, [1, 1 / 2, 3 / 4, 1 / 2, 3 / 4]),
        ("x", {"me": ["y"], "a": ["x"], "b": ["yy"]}, [1, 0, (1 / 2 + 1 / 3) / 2, 1 / 3, 11 / 18]),
        # What peers wrote of the group itself does not count, and who wrote nothing else is not a candidate.
        ("x", {"me": ["xy"], "a": ["y", record("a", "xxxx", "A1")], "b": [record("b", "x", "A1")]},
         [1, 1, 1, 1 / 2, 3 / 4]),
        # An empty text tells nobody.
        (" \n", {"me": ["x"], "a": ["y"]}, [1, 0, 0, 1 / 2, 3 / 4]),
    ],
)  # fmt: skip
def test_by_hand(text: str, histories: Mapping[str, Sequence[str | Record]], expected: list[float]) -> None:
    rows = Identification().rows(Batch([text], ["z"], lambda: case(histories)))
    np.testing.assert_allclose(rows, [expected], atol=1e-12)


def joined(*cases: Background) -> Background:
    return replace(
        cases[0],
        instances=[instance for one in cases for instance in one.instances],
        histories=[histories for one in cases for histories in one.histories],
    )


@pytest.mark.parametrize(
    "histories",
    [
        {"me": ["x"]},
        {"me": [], "a": ["x"]},
        {"me": ["x"], "a": []},
        {"me": ["x"], "a": [record("a", "x", "A1")]},
        {"me": [record("me", "x", "A1")], "a": ["y"]},
    ],
)
def test_who_cannot_be_told_from_anyone_is_left_out_and_said_to_be(histories: dict[str, list[str | Record]]) -> None:
    good = case({"me": ["x"], "a": ["y"]})
    rows = Identification().rows(Batch(["x", "x", "y"], [""] * 3, lambda: joined(good, case(histories), good)))
    assert rows.tolist() == [[1, 1, 1, 0.5, 0.75], [0] * 5, [1, 0, 0.5, 0.5, 0.75]]
    scores = {name: float(value) for name, value in Identification().aggregate(rows).items()}
    assert scores == {
        "identification_top1": 0.5,
        "identification_mrr": 0.75,
        "identification_chance": 0.5,
        "identification_chance_mrr": 0.75,
        "identification_share": pytest.approx(2 / 3),
    }
    with pytest.raises(DataError, match="none of the 1 instances has a peer with a history of other groups; leave"):
        Identification().rows(Batch(["x"], [""], lambda: case(histories)))


def test_a_resample_in_which_nobody_counts_has_the_plain_scores() -> None:
    rows = np.array([[1, 1, 1, 0.5, 0.75], [0, 0, 0, 0, 0], [1, 0, 0.5, 0.5, 0.75]])
    scores = Identification().aggregate(rows, np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 1.0]]))
    assert scores["identification_top1"].tolist() == [0.5, 0.0]
    assert scores["identification_mrr"].tolist() == [0.75, 0.5]
    assert scores["identification_share"].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("weights", [None, 1.0])
def test_where_nobody_counts_there_is_no_score(count: int, weights: float | None) -> None:
    with pytest.raises(
        DataError, match=rf"none of these {count} instances has a peer with a history of other groups; take more"
    ):
        Identification().aggregate(np.zeros((count, 5)), None if weights is None else np.full((2, count), weights))


def random_case(size: int, generator: np.random.Generator, held: list[int]) -> tuple[Background, dict[str, Vector]]:
    """Instances of users with histories of several groups, repeated texts among them, and vectors of all texts. How
    many are asked for at a time is noted in `held`."""
    vectors = {f"text {number}": generator.normal(size=8).astype(np.float32) for number in range(3 * size)}
    groups = [f"A{number}" for number in range(size // 2)]

    def drawn(user: str) -> tuple[Record, ...]:
        count = int(generator.integers(0, 7))
        texts = generator.choice(list(vectors), count)
        return tuple(record(user, str(text), str(generator.choice(groups))) for text in texts)

    histories = {f"u{number}": drawn(f"u{number}") for number in range(size)}
    instances, known = [], []
    for number, user in enumerate(histories):
        group = groups[number % len(groups)]
        instances.append(Instance(f"C/test/{user}", f"C{number % 3}", "test", user, {}, (), group))
        peers = [name for name, past in histories.items() if name != user and any(one.group == group for one in past)]
        known.append({name: histories[name] for name in (user, *peers)})

    def embed(texts: Sequence[str], encoder: str) -> Vector:
        held.append(len(texts))
        return np.stack([vectors[text] for text in texts])

    return Background(instances, known, [""] * size, embed, Path("unused")), vectors


def straight(
    prediction: str, instance: Instance, histories: Mapping[str, Sequence[Record]], vectors: Any
) -> list[float]:
    """The row of an instance, from the mean of each candidate's vectors."""
    means = {}
    for user, past in histories.items():
        if others := [vectors[one.text].astype(float) for one in past if one.group != instance.group]:
            mean = np.mean(others, axis=0)
            means[user] = float(mean @ vectors[prediction] / np.linalg.norm(mean) / np.linalg.norm(vectors[prediction]))
    if len(means) < 2 or instance.user_id not in means:
        return [0.0] * 5
    own = means[instance.user_id]
    rank = sum(value > own + 1e-9 for value in means.values()) + 1
    tied = sum(abs(value - own) <= 1e-9 for value in means.values())
    chance = sum(1 / place for place in range(1, len(means) + 1)) / len(means)
    reciprocal = sum(1 / place for place in range(rank, rank + tied)) / tied
    return [1.0, 1 / tied if rank == 1 else 0.0, reciprocal, 1 / len(means), chance]


def test_sums_of_histories_give_the_rows_of_their_means_without_holding_all_vectors() -> None:
    held: list[int] = []
    background, vectors = random_case(400, np.random.default_rng(0), held)
    predictions = [str(text) for text in np.random.default_rng(1).choice(list(vectors), 400)]
    rows = Identification().rows(Batch(predictions, [""] * 400, lambda: background))
    expected = [
        straight(*one, vectors) for one in zip(predictions, background.instances, background.histories, strict=True)
    ]
    np.testing.assert_allclose(rows, expected, atol=1e-12)
    assert 0.3 < rows[:, 0].mean() < 1
    assert len(held) > 4
    assert max(held) < len(vectors) / 2


def test_in_the_demo_real_reviews_tell_their_users_and_another_users_are_at_chance(demo: dict[str, Corpus]) -> None:
    corpora = {"Books": demo["Books"]}
    instances = demo["Books"].split("test")
    real = [demo["Books"].reference(instance) for instance in instances]
    predictions = [
        Prediction(
            instance=instance.id,
            category="Books",
            user=instance.user_id,
            prediction=text,
            reference=text,
            blocks_shown=0,
            blocks_offered=0,
            calls=0,
            prompt_tokens=0,
            completion_tokens=0,
            cut_off=False,
        )
        for instance, text in zip(instances, real, strict=True)
    ]
    encoder = load_encoder("hashed-ngrams")
    background = background_of(predictions, corpora, Reviews(), lambda texts, _: encoder.encode(texts), Path("unused"))
    metric = Identification()
    own = metric.aggregate(metric.rows(Batch(real, real, lambda: background)))
    others = random.Random(0).sample(real, len(real))
    shuffled = metric.aggregate(metric.rows(Batch(others, real, lambda: background)))
    assert own["identification_top1"] > 0.75
    assert abs(shuffled["identification_top1"] - shuffled["identification_chance"]) < 0.08
    assert abs(shuffled["identification_mrr"] - shuffled["identification_chance_mrr"]) < 0.06


def test_the_signature_names_the_encoder_by_what_it_is() -> None:
    assert Identification().signature().endswith(f"|encoder:[{load_encoder('hashed-ngrams').name}]")
    with pytest.raises(ConfigError, match="hashed-ngrams has no settings"):
        Identification(encoder="hashed-ngrams?pooling=cls").check()
