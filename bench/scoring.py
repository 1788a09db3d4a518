"""Predictions to scores: rows of each metric over all instances, then scores and intervals by category."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.corpus import Corpus
from bench.data.peers import Peers
from bench.errors import DataError, PluginError
from bench.protocols import Array, BackgroundMetric, Metric
from bench.records import Background
from bench.statistics import interval
from bench.store import RunStore

AnyMetric = Metric | BackgroundMetric


def score(
    store: RunStore,
    predictions: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, AnyMetric],
    resamples: int,
    say: Callable[[str], None],
    background: Callable[[], Background],
) -> dict[str, Any]:
    """Score `predictions` (rows of predictions.jsonl) and return the summary's "signatures" and "scores".

    Rows that scores.jsonl already holds for the same texts and signature are taken from there, and each metric's
    rows are stored as soon as they are there: a metric that fails costs none of the others. `background` is called
    once, if a metric needs it. It does not count among the texts: the data behind it is part of the run's identity,
    and how it is made from the data is the signature's business. scores: see `category_scores`.
    """
    stored = store.rows("scores.jsonl")
    kept = {(row["metric"], row["instance"]): row for row in stored}
    rows: dict[str, Array] = {}
    texts = [text_hash(prediction) for prediction in predictions]
    known_background = cache(background)
    for name, metric in metrics.items():
        signature = metric.signature()
        keys = [(name, prediction["instance"]) for prediction in predictions]
        known = [
            kept[key]["statistics"]
            for key, text in zip(keys, texts, strict=True)
            if key in kept and kept[key]["signature"] == signature and kept[key]["texts"] == text
        ]
        if len(known) == len(predictions):
            rows[name] = np.asarray(known, dtype=np.float64)
            continue
        say(f"scoring {len(predictions)} texts with {name}")
        rows[name] = metric_rows(name, metric, predictions, known_background)
        for key, text, statistics in zip(keys, texts, rows[name].tolist(), strict=True):
            kept[key] = {
                "instance": key[1],
                "metric": name,
                "signature": signature,
                "texts": text,
                "statistics": statistics,
            }
        store.write_rows("scores.jsonl", kept.values())
    return {
        "signatures": {name: metric.signature() for name, metric in metrics.items()},
        "scores": {
            category: category_scores(category, predictions, metrics, rows, resamples, say)
            for category in dict.fromkeys(prediction["category"] for prediction in predictions)
        },
    }


def needs_background(metric: AnyMetric) -> bool:
    """Whether the metric's rows take a `Background`."""
    return getattr(type(metric), "background", False) is True


def check_metric(name: str, metric: AnyMetric) -> None:
    """Raise `PluginError` for a metric whose rows do not take what they would be given."""
    arguments = ["predictions", "references", *(["background"] if needs_background(metric) else [])]
    try:
        inspect.signature(metric.rows).bind(*arguments)
    except TypeError:
        raise PluginError(
            f"rows of metric {name} must take ({', '.join(arguments)}); a metric declares background = True if its "
            "rows take a background as well, and only then"
        ) from None


def metric_rows(
    name: str, metric: AnyMetric, predictions: Sequence[Mapping[str, Any]], background: Callable[[], Background]
) -> Array:
    """A metric's statistics of rows of predictions.jsonl, shape (n, s). `background` is called if the metric needs it.
    Raises `PluginError` for a metric that breaks its protocol."""
    check_metric(name, metric)
    texts = [row["prediction"] for row in predictions]
    references = [row["reference"] for row in predictions]
    third = [background()] if needs_background(metric) else []
    rows = metric.rows(texts, references, *third)
    expected = (len(predictions), len(metric.statistics))
    if rows.shape != expected or not np.isfinite(rows).all():
        raise PluginError(f"metric {name} must give finite rows of shape {expected}, it gave {rows.shape}")
    return rows


def background_of(
    predictions: Sequence[Mapping[str, Any]],
    corpora: Mapping[str, Corpus],
    embed: Callable[[Sequence[str], str], NDArray[np.float32]],
    folder: Path,
) -> Background:
    """The background of rows of predictions.jsonl, from the data they were made from. Raises `DataError` for an
    instance that is not there.

    The pool of peers is the strict one in every configuration: a score must not change with a setting that its
    signature does not name.
    """
    wanted = {prediction["instance"] for prediction in predictions}
    instances = {
        instance.id: instance
        for corpus in corpora.values()
        for split in corpus.instances.values()
        for instance in split
        if instance.id in wanted
    }
    if lacking := [prediction["instance"] for prediction in predictions if prediction["instance"] not in instances]:
        raise DataError(
            f"{len(lacking)} of {len(predictions)} predictions are for instances that the data set does not have, "
            f"such as {lacking[0]}; give the data set that they were made from"
        )
    chosen = [instances[prediction["instance"]] for prediction in predictions]
    pools = {category: Peers(corpora[category]) for category in {instance.category for instance in chosen}}
    histories = []
    for instance in chosen:
        pool = pools[instance.category]
        reviewers = [review.user_id for review in pool.of_item(instance.item.asin, but=(instance.user_id,))]
        histories.append({user: pool.of_user(user) for user in (instance.user_id, *reviewers)})
    return Background(chosen, histories, embed, folder)


def category_scores(
    category: str,
    predictions: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, AnyMetric],
    rows: Mapping[str, Array],
    resamples: int,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, dict[str, float]]:
    """The scores of a category's predictions from all rows of each metric: column -> {"value", "low", "high"}, the
    interval at 95% over users. A metric whose aggregate raises `DataError`, because these rows have no score, has no
    columns here, and that is said."""
    chosen = [index for index, row in enumerate(predictions) if row["category"] == category]
    users = [predictions[index]["user"] for index in chosen]
    scores: dict[str, dict[str, float]] = {}
    for name, metric in metrics.items():
        part = rows[name][chosen]
        try:
            values = metric.aggregate(part)
        except DataError as error:
            say(f"{category} has no scores of {name}: {error}")
            continue
        if lacking := set(metric.columns) - set(values):
            raise PluginError(
                f"metric {name} must give the scores {', '.join(sorted(lacking))}, it gave {', '.join(values)}"
            )
        intervals = interval(metric.aggregate, part, users, resamples=resamples)
        for column in metric.columns:
            low, high = intervals[column]
            scores[column] = {"value": float(values[column]), "low": low, "high": high}
    return scores


def text_hash(prediction: Mapping[str, Any]) -> str:
    """A hash over a prediction and its reference: what a row was made from, but for a metric's background."""
    text = f"{prediction['prediction']}\x1f{prediction['reference']}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
