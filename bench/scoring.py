"""Predictions to scores: rows of each metric over all instances, then scores and intervals by category."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from bench.batch import Background, Batch
from bench.data.corpus import Corpus
from bench.data.peers import Peers
from bench.errors import DataError, PluginError
from bench.protocols import Array, Metric, Task
from bench.records import Instance, Record
from bench.results import Prediction, Score, ScoreRow
from bench.statistics import interval
from bench.store import RunStore

Say = Callable[[str], None]
Read = Callable[[], Background]
CategoryScores = dict[str, Score]
"""Scores by column."""


@dataclass(frozen=True)
class Scored:
    """What a run's summary says of its scores: the metrics' signatures and notes, and scores by category and column."""

    signatures: dict[str, str]
    notes: dict[str, str]
    scores: dict[str, CategoryScores]


def score(
    store: RunStore,
    predictions: Sequence[Prediction],
    metrics: Mapping[str, Metric],
    resamples: int,
    say: Say,
    read: Read,
    beside: Mapping[str, Metric] | None = None,
) -> Scored:
    """Score predictions with `metrics`, and with those of `beside` whose rows are all there.

    Rows that scores.jsonl already holds for the same texts and signature are taken from there, and each metric's
    rows are stored as soon as they are there: a metric that fails costs none of the others. `read` is called once, if
    a metric reads the data. The data do not count among the texts: they are part of the run's identity, and what is
    made of them is the signature's business. Raises `PluginError` for a metric that breaks its protocol.
    """
    kept = {(row.metric, row.instance): row for row in store.scores()}
    texts = {prediction.instance: text_hash(prediction) for prediction in predictions}
    batch = batch_of(predictions, read)
    signatures: dict[str, str] = {}
    rows: dict[str, Array] = {}
    scored: dict[str, Metric] = {}
    for name, metric in {**metrics, **(beside or {})}.items():
        signature = metric.signature()
        stored = [kept.get((name, instance)) for instance in texts]
        known = [
            row.statistics
            for row, text in zip(stored, texts.values(), strict=True)
            if row is not None and row.signature == signature and row.texts == text
        ]
        complete = len(known) == len(texts)
        if not complete and name not in metrics:
            continue
        signatures[name], scored[name] = signature, metric
        if complete:
            rows[name] = np.asarray(known, dtype=np.float64)
            continue
        say(f"scoring {len(predictions)} texts with {name}")
        rows[name] = metric_rows(name, metric, batch)
        for (instance, text), statistics in zip(texts.items(), rows[name].tolist(), strict=True):
            kept[name, instance] = ScoreRow(
                instance=instance, metric=name, signature=signature, texts=text, statistics=statistics
            )
        store.write_scores(kept.values())
    categories = dict.fromkeys(prediction.category for prediction in predictions)
    return Scored(
        signatures,
        notes_of(scored, batch.references),
        {category: category_scores(category, predictions, scored, rows, resamples, say) for category in categories},
    )


def notes_of(metrics: Mapping[str, Metric], references: Sequence[str]) -> dict[str, str]:
    """What metrics have to say of the references, by metric."""
    notes = {name: metric.note(references) for name, metric in metrics.items() if hasattr(metric, "note")}
    return {name: note for name, note in notes.items() if note}


def batch_of(predictions: Sequence[Prediction], read: Read) -> Batch:
    """What metrics score of predictions."""
    return Batch([row.prediction for row in predictions], [row.reference for row in predictions], read)


def reads_data(metric: Metric) -> bool:
    """Whether the metric's class says that its rows ask the batch for more than texts."""
    return bool(getattr(type(metric), "reads_data", False))


def metric_rows(name: str, metric: Metric, batch: Batch) -> Array:
    """A metric's statistics of a batch, shape (n, s).

    Raises `PluginError` for a metric that asks for the data without saying so, and for rows of another shape or that
    are not finite.
    """

    def refuse() -> NoReturn:
        raise PluginError(
            f"metric {name} asks for more than texts; it has to declare reads_data = True in its class "
            f"({type(metric).__module__}.{type(metric).__qualname__})"
        )

    if not reads_data(metric):
        batch = Batch(batch.predictions, batch.references, refuse)
    rows = metric.rows(batch)
    expected = (len(batch.predictions), len(metric.statistics))
    if rows.shape != expected or not np.isfinite(rows).all():
        raise PluginError(f"metric {name} must give finite rows of shape {expected}, it gave {rows.shape}")
    return rows


def background_of(
    predictions: Sequence[Prediction],
    corpora: Mapping[str, Corpus],
    task: Task,
    embed: Callable[[Sequence[str], str], NDArray[np.float32]],
    folder: Path,
) -> Background:
    """The background of predictions, from the data they were made from. Raises `DataError` for an instance that is
    missing in the data.

    The pool of peers is the strict one in every configuration: a score must not change with a setting that its
    signature does not name.
    """
    wanted = {prediction.instance for prediction in predictions}
    instances = {
        instance.id: instance
        for corpus in corpora.values()
        for split in corpus.instances.values()
        for instance in split
        if instance.id in wanted
    }
    if missing := [prediction.instance for prediction in predictions if prediction.instance not in instances]:
        raise DataError(
            f"{len(missing)} of {len(predictions)} predictions are for instances that the data set does not have, "
            f"such as {missing[0]}; give the data set that they were made from"
        )
    chosen = [instances[prediction.instance] for prediction in predictions]
    pools = {category: Peers(corpora[category]) for category in {instance.category for instance in chosen}}
    return Background(
        instances=chosen,
        histories=[_histories(instance, pools[instance.category]) for instance in chosen],
        about=[task.about(instance) for instance in chosen],
        embed=embed,
        folder=folder,
    )


def _histories(instance: Instance, pool: Peers) -> dict[str, Sequence[Record]]:
    """The histories of an instance's user and of its peers, by user id."""
    shared = [] if instance.group is None else pool.of_group(instance.group, but=(instance.user_id,))
    return {user: pool.of_user(user) for user in (instance.user_id, *(record.user_id for record in shared))}


def category_scores(
    category: str,
    predictions: Sequence[Prediction],
    metrics: Mapping[str, Metric],
    rows: Mapping[str, Array],
    resamples: int,
    say: Say = lambda text: None,
) -> CategoryScores:
    """The scores of a category's predictions from all rows of each metric, the interval at 95% over users. A metric
    whose aggregate raises `DataError`, because these rows have no score, has no columns here, and that is said. Raises
    `PluginError` for a metric that leaves out one of its columns."""
    chosen = [index for index, prediction in enumerate(predictions) if prediction.category == category]
    users = [predictions[index].user for index in chosen]
    scores: CategoryScores = {}
    for name, metric in metrics.items():
        part = rows[name][chosen]
        try:
            values = metric.aggregate(part)
        except DataError as error:
            say(f"{category} has no scores of {name}: {error}")
            continue
        names = [column.name for column in metric.columns]
        if missing := set(names) - set(values):
            raise PluginError(
                f"metric {name} must give the scores {', '.join(sorted(missing))}, it gave {', '.join(values)}"
            )
        intervals = interval(metric.aggregate, part, users, resamples=resamples)
        for column in names:
            low, high = intervals[column]
            scores[column] = Score(value=float(values[column]), low=low, high=high)
    return scores


def text_hash(prediction: Prediction) -> str:
    """A hash over a prediction and its reference: what a row was made from, but for the data that a metric reads."""
    text = f"{prediction.prediction}\x1f{prediction.reference}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
