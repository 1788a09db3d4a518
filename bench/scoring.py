"""Predictions to scores: rows of each metric over all instances, then scores and intervals by category."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bench.errors import PluginError
from bench.protocols import Array, Metric
from bench.statistics import interval
from bench.store import RunStore


def score(
    store: RunStore,
    predictions: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Metric],
    resamples: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Score `predictions` (rows of predictions.jsonl) and return the summary's "signatures" and "scores".

    Rows that scores.jsonl already holds for the same texts and signature are taken from there, and each metric's
    rows are stored as soon as they are there: a metric that fails costs none of the others. scores:
    category -> column -> {"value", "low", "high"}, the interval at 95% over users.
    """
    stored = store.rows("scores.jsonl")
    kept = {(row["metric"], row["instance"]): row for row in stored}
    rows: dict[str, Array] = {}
    for name, metric in metrics.items():
        signature = metric.signature()
        keys = [(name, prediction["instance"]) for prediction in predictions]
        texts = [_text_hash(prediction) for prediction in predictions]
        known = [
            kept[key]["statistics"]
            for key, text in zip(keys, texts, strict=True)
            if key in kept and kept[key]["signature"] == signature and kept[key]["texts"] == text
        ]
        if len(known) == len(predictions):
            rows[name] = np.asarray(known, dtype=np.float64)
            continue
        say(f"scoring {len(predictions)} texts with {name}")
        rows[name] = _rows(name, metric, predictions)
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
            category: _scores(category, predictions, metrics, rows, resamples)
            for category in dict.fromkeys(prediction["category"] for prediction in predictions)
        },
    }


def _rows(name: str, metric: Metric, predictions: Sequence[Mapping[str, Any]]) -> Array:
    rows = metric.rows([row["prediction"] for row in predictions], [row["reference"] for row in predictions])
    expected = (len(predictions), len(metric.statistics))
    if rows.shape != expected or not np.isfinite(rows).all():
        raise PluginError(f"metric {name} must give finite rows of shape {expected}, it gave {rows.shape}")
    return rows


def _scores(
    category: str,
    predictions: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Metric],
    rows: Mapping[str, Array],
    resamples: int,
) -> dict[str, dict[str, float]]:
    chosen = [index for index, row in enumerate(predictions) if row["category"] == category]
    users = [predictions[index]["user"] for index in chosen]
    scores: dict[str, dict[str, float]] = {}
    for name, metric in metrics.items():
        part = rows[name][chosen]
        values = metric.aggregate(part)
        if lacking := set(metric.columns) - set(values):
            raise PluginError(
                f"metric {name} must give the scores {', '.join(sorted(lacking))}, it gave {', '.join(values)}"
            )
        intervals = interval(metric.aggregate, part, users, resamples=resamples)
        for column in metric.columns:
            low, high = intervals[column]
            scores[column] = {"value": float(values[column]), "low": low, "high": high}
    return scores


def _text_hash(prediction: Mapping[str, Any]) -> str:
    pair = f"{prediction['prediction']}\x1f{prediction['reference']}"
    return hashlib.sha256(pair.encode("utf-8", "surrogatepass")).hexdigest()[:16]
