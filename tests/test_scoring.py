"""Scores from texts: what is computed again and what is not, values per category, a metric that fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from bench import registry
from bench.batch import Background, Batch
from bench.config import build
from bench.data.corpus import Corpus
from bench.errors import DataError, PluginError
from bench.execute import execute
from bench.finished import finished
from bench.job import Job
from bench.protocols import Array, Column, Metric
from bench.results import Prediction, RunRecord
from bench.scoring import Scored, background_of, batch_of, metric_rows, reads_data, score
from bench.store import RunStore
from bench.tasks.reviews import Reviews


@dataclass
class Length:
    """Mean length of the prediction; its rows cost something, so it counts how often they are asked for."""

    columns: ClassVar[tuple[Column, ...]] = (Column("length"),)
    statistics: ClassVar[tuple[str, ...]] = ("characters",)

    version: int = 1
    scored: list[int] = field(default_factory=list)
    fails: bool = False

    def check(self) -> None:
        pass

    def signature(self) -> str:
        return f"length|version:{self.version}"

    def rows(self, batch: Batch) -> Array:
        if self.fails:
            raise RuntimeError("out of memory")
        self.scored.append(len(batch.predictions))
        return np.array([[float(len(text))] for text in batch.predictions])

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        if weights is None:
            return {"length": rows[:, 0].mean()}
        return {"length": weights @ rows[:, 0] / weights.sum(axis=1)}


def prediction_of(instance: str, category: str, user: str, text: str, reference: str) -> Prediction:
    return Prediction(
        instance=instance,
        category=category,
        user=user,
        prediction=text,
        reference=reference,
        blocks_shown=0,
        blocks_offered=0,
        calls=1,
        prompt_tokens=5,
        completion_tokens=5,
        cut_off=False,
    )


def prediction(number: int, category: str = "Books", text: str | None = None, reference: str = "ref") -> Prediction:
    text = "x" * number if text is None else text
    return prediction_of(f"{category}/test/u{number}", category, f"u{number}", text, reference)


PREDICTIONS = [*(prediction(number) for number in (1, 2, 6)), *(prediction(number, "Music") for number in (0, 40))]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with RunStore(tmp_path / "run", RunRecord(name="run", identity={}, config={})) as store:
        yield store


def run(store: RunStore, metrics: Mapping[str, Metric], predictions: Sequence[Prediction] = PREDICTIONS) -> Scored:
    def none() -> Background:
        raise AssertionError("no metric asked for it")

    return score(store, predictions, metrics, 200, lambda text: None, none)


def test_scores_are_those_of_each_category_and_lie_in_their_intervals(store: RunStore) -> None:
    result = run(store, {"length": Length()})
    assert result.signatures == {"length": "length|version:1"}
    books, music = result.scores["Books"]["length"], result.scores["Music"]["length"]
    assert list(result.scores) == ["Books", "Music"]
    assert (books.value, music.value) == (3.0, 20.0)
    assert 1.0 <= books.low < books.value < books.high <= 6.0
    assert (music.low, music.high) == (0.0, 40.0), "two users: a quarter of all resamples draws one twice"


def test_rows_of_the_same_texts_and_signature_are_taken_from_the_file(store: RunStore) -> None:
    metric = Length()
    first = run(store, {"length": metric})
    assert run(store, {"length": metric}) == first
    assert metric.scored == [5]
    rows = store.scores()
    assert [(row.instance, row.metric, row.statistics) for row in rows[:2]] == [
        ("Books/test/u1", "length", [1.0]),
        ("Books/test/u2", "length", [2.0]),
    ]


def test_a_changed_signature_is_scored_again(store: RunStore) -> None:
    run(store, {"length": Length()})
    metric = Length(version=2)
    run(store, {"length": metric})
    assert metric.scored == [5]
    assert {row.signature for row in store.scores()} == {"length|version:2"}
    assert len(store.scores()) == 5


@pytest.mark.parametrize("changed", [{"text": "longer than it was"}, {"reference": "another reference"}])
def test_a_changed_text_is_scored_again(store: RunStore, changed: dict[str, str]) -> None:
    metric = Length()
    run(store, {"length": metric})
    texts = [prediction(1, **changed), *PREDICTIONS[1:]]
    run(store, {"length": metric}, texts)
    run(store, {"length": metric}, texts)
    assert metric.scored == [5, 5]


def test_one_failing_metric_costs_the_others_nothing(store: RunStore) -> None:
    good, bad = Length(), Length(fails=True)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(store, {"length": good, "other": bad})
    assert {row.metric for row in store.scores()} == {"length"}
    bad.fails = False
    run(store, {"length": good, "other": bad})
    assert good.scored == [5]
    assert bad.scored == [5]
    assert {row.metric for row in store.scores()} == {"length", "other"}


class NoNumber(Length):
    def rows(self, batch: Batch) -> Array:
        return np.full((len(batch.predictions), 1), np.nan)


class TooFew(Length):
    def rows(self, batch: Batch) -> Array:
        return np.zeros((len(batch.predictions) - 1, 1))


class NoColumn(Length):
    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        return {"lenght": rows.mean(axis=0)}


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (NoNumber(), r"metric length must give finite rows of shape \(5, 1\)"),
        (TooFew(), r"metric length must give finite rows of shape \(5, 1\), it gave \(4, 1\)"),
        (NoColumn(), r"metric length must give the scores length, it gave lenght"),
    ],
)
def test_a_metric_that_breaks_its_protocol_is_told(store: RunStore, metric: Metric, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        run(store, {"length": metric})


TEXTS = [
    ("the red kite flies high above the hill", "the red kite flew high over the hill today"),
    ("a boat that floats and does not leak", "a boat that sinks and leaks a lot, sadly"),
    ("", "nothing was said about this drum at all"),
    ("The drum is loud!", "The drum is loud!"),
]


def test_real_metrics_agree_with_their_packages_category_by_category(store: RunStore) -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU

    predictions = [
        prediction(number, category, text, reference)
        for category, texts in (("Books", TEXTS), ("Music", TEXTS[1:3]))
        for number, (text, reference) in enumerate(texts)
    ]
    metrics = {name: registry.create("metrics", name, {}) for name in ("rouge", "bleu")}
    scores = run(store, metrics, predictions).scores
    scorer = RougeScorer(["rouge1", "rougeL"])
    for category, texts in (("Books", TEXTS), ("Music", TEXTS[1:3])):
        pairs = [scorer.score(reference, text) for text, reference in texts]
        for column in ("rouge1", "rougeL"):
            cell = scores[category][column]
            assert cell.value == pytest.approx(np.mean([pair[column].fmeasure for pair in pairs]), abs=1e-12)
            assert cell.low <= cell.value <= cell.high
        corpus = BLEU().corpus_score([text for text, _ in texts], [[reference for _, reference in texts]])
        assert scores[category]["bleu"].value == pytest.approx(corpus.score, abs=1e-9)


# Metrics that read the data


@dataclass
class Profile(Length):
    """Scores the length of the user's profile."""

    reads_data: ClassVar[bool] = True

    def rows(self, batch: Batch) -> Array:
        self.scored.append(len(batch.predictions))
        return np.array([[float(len(instance.profile))] for instance in batch.instances])


class Silent(Profile):
    """Reads the data without saying so."""

    reads_data = False


def embed(texts: Sequence[str], encoder: str) -> Any:
    raise AssertionError("nothing here is embedded")


@pytest.fixture(scope="module")
def books(demo: dict[str, Corpus]) -> tuple[list[Prediction], dict[str, Corpus]]:
    """Predictions of a few of the demo's books, and all of the data."""
    corpus = demo["Books"]
    predictions = [
        prediction_of(instance.id, "Books", instance.user_id, instance.profile[-1].text, corpus.reference(instance))
        for instance in corpus.split("test")[:12]
    ]
    return predictions, {"Books": corpus}


def test_the_data_are_read_once_and_only_for_who_says_so(store: RunStore, books: Any) -> None:
    predictions, corpora = books
    read: list[int] = []

    def background() -> Background:
        read.append(1)
        return background_of(predictions, corpora, Reviews(), embed, store.folder)

    def go(metrics: Mapping[str, Metric]) -> Scored:
        return score(store, predictions, metrics, 50, lambda text: None, background)

    go({"length": Length()})
    assert read == []
    result = go({"length": Length(), "profile": Profile(), "other": Profile()})
    assert read == [1]
    mean = np.mean([len(instance.profile) for instance in corpora["Books"].split("test")[:12]])
    assert result.scores["Books"]["length"].value == pytest.approx(mean)


def test_known_rows_need_no_data(store: RunStore, books: Any) -> None:
    predictions, corpora = books
    read: list[int] = []

    def background() -> Background:
        read.append(1)
        return background_of(predictions, corpora, Reviews(), embed, store.folder)

    profile = Profile()
    first = score(store, predictions, {"profile": profile}, 50, lambda text: None, background)
    assert score(store, predictions, {"profile": profile}, 50, lambda text: None, background) == first
    assert (read, profile.scored) == ([1], [12]), "the data is the run's, by its identity: only the texts can be others"


@pytest.mark.parametrize("question", ["instances", "histories", "about", "folder", "embed"])
def test_a_metric_that_does_not_say_what_it_reads_is_refused(books: Any, question: str) -> None:
    """In one sentence that says what to do, whatever it asks for, and without reading the data."""
    predictions, _ = books

    class Asks(Length):
        def rows(self, batch: Batch) -> Array:
            answer = getattr(batch, question)
            return np.array([[float(len(answer(["a"], "hashed-ngrams")))]] if callable(answer) else [])

    def never() -> Background:
        raise AssertionError("it was refused")

    assert not reads_data(Asks())
    with pytest.raises(PluginError, match=r"^metric asks asks for more than texts; .* reads_data = True in its class"):
        metric_rows("asks", Asks(), batch_of(predictions, never))


def test_a_class_that_takes_back_what_its_base_says(store: RunStore, books: Any) -> None:
    predictions, _ = books
    with pytest.raises(PluginError, match=r"^metric silent asks for more than texts"):
        run(store, {"silent": Silent()}, predictions)
    assert store.scores() == []


class OnlyLong(Length):
    """Has no score where nothing is longer than 9 characters."""

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        if rows.max() < 10:
            raise DataError("only: nothing here is long; take longer texts")
        return super().aggregate(rows, weights)


def test_a_category_without_a_score_has_none_and_the_others_have_theirs(store: RunStore) -> None:
    said: list[str] = []
    metrics = {"length": OnlyLong(), "bleu": registry.create("metrics", "bleu", {})}
    result = score(store, PREDICTIONS, metrics, 50, said.append, lambda: None)  # type: ignore[arg-type, return-value]
    assert set(result.scores["Books"]) == {"bleu"}
    assert set(result.scores["Music"]) == {"length", "bleu"}
    assert said[-1] == "Books has no scores of length: only: nothing here is long; take longer texts"


def test_histories_are_those_of_the_user_and_of_who_else_is_of_the_group(books: Any, tmp_path: Path) -> None:
    predictions, corpora = books
    corpus = corpora["Books"]
    background = background_of(list(reversed(predictions)), corpora, Reviews(), embed, tmp_path)
    assert [instance.id for instance in background.instances] == [row.instance for row in reversed(predictions)]
    assert list(background.about) == [Reviews().about(instance) for instance in background.instances]
    targets = set(corpus.references.values())
    for instance, histories in zip(background.instances, background.histories, strict=True):
        own, *peers = histories
        assert own == instance.user_id
        assert peers == sorted(peers)
        for peer in peers:
            assert instance.group in {record.group for record in histories[peer]}
        assert instance.group not in {record.group for record in histories[own]}
        assert not targets & {record.text for history in histories.values() for record in history}
    assert any(len(histories) > 2 for histories in background.histories)


def test_without_groups_nobody_has_peers(books: Any, tmp_path: Path) -> None:
    predictions, corpora = books
    alone = {
        split: tuple(replace(instance, group=None) for instance in instances)
        for split, instances in corpora["Books"].instances.items()
    }
    corpus = replace(corpora["Books"], instances=alone)
    background = background_of(predictions, {"Books": corpus}, Reviews(), embed, tmp_path)
    assert [list(histories) for histories in background.histories] == [[row.user] for row in predictions]


def test_predictions_of_other_data_are_refused(books: Any, tmp_path: Path) -> None:
    predictions, corpora = books
    other = prediction(1).model_copy(update={"instance": "Books/test/nobody"})
    with pytest.raises(DataError, match=r"1 of 13 predictions are for instances .* such as Books/test/nobody; give"):
        background_of([*predictions, other], corpora, Reviews(), embed, tmp_path)


def test_a_run_scores_with_its_data_behind_it(shop: Path, tmp_path: Path) -> None:
    metrics = ["length", "distinct", "copying", "identification"]
    config = build({"method": "copy", "dataset": str(shop), "metrics": metrics, "results": str(tmp_path)})
    (summary,) = execute([Job.of(config)], lambda text: None)
    scores = {column: cell.value for column, cell in summary.scores["Toys"].items()}
    # u1 and u2 repeat themselves; u3 has no history and an empty text. Only u2's item has another reviewer: u1.
    assert (scores["copy_rate"], scores["copied_run"]) == (1.0, pytest.approx(2 / 3))
    assert (scores["identification_share"], scores["identification_chance"]) == (pytest.approx(1 / 3), 0.5)
    assert scores["identification_top1"] == 1.0
    run = finished(next((tmp_path / "runs").iterdir()))
    assert [run.rows(name).shape for name in metrics] == [(3, 2), (3, 2), (3, 3), (3, 5)]
