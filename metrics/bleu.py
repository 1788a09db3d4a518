"""Corpus BLEU (Papineni et al. 2002) of sacreBLEU (Post 2018): 13a tokens, exponential smoothing, cased."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bench.batch import Batch
from bench.errors import ResourceError
from bench.metrics._aggregate import check_rows
from bench.protocols import Array, Column

_ORDER = 4


@dataclass(frozen=True)
class Bleu:
    """Corpus BLEU in [0, 100].

    A row holds what sacreBLEU counts in one pair: matching and all n-grams of the prediction for n = 1..4, and both
    lengths in tokens. BLEU is a function of their sums, so a resample only adds rows.
    """

    columns: ClassVar[tuple[Column, ...]] = (Column("bleu", "BLEU", interval_decimals=2),)
    statistics: ClassVar[tuple[str, ...]] = (
        *(f"correct{n}" for n in range(1, _ORDER + 1)),
        *(f"total{n}" for n in range(1, _ORDER + 1)),
        "sys_len",
        "ref_len",
    )

    def check(self) -> None:
        """Raises `ResourceError` without the package sacrebleu."""
        if importlib.util.find_spec("sacrebleu") is None:
            raise ResourceError("bleu: the package sacrebleu is not installed; run: pip install sacrebleu")

    def signature(self) -> str:
        """sacreBLEU's own signature, under this metric's name."""
        version = importlib.metadata.version("sacrebleu")
        return f"bleu|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"

    def rows(self, batch: Batch) -> Array:
        """Counts of each pair, shape (n, 10), whole numbers. An empty prediction has no n-gram and adds to ref_len."""
        predictions, references = batch.predictions, batch.references
        if len(predictions) != len(references):
            raise ValueError(f"bleu: {len(predictions)} predictions but {len(references)} references")
        if not predictions:
            return np.zeros((0, len(self.statistics)))
        from sacrebleu.metrics.bleu import BLEU

        # `force` only silences sacreBLEU's guess that texts ending in " ." are tokenised already.
        scorer = BLEU(tokenize="13a", smooth_method="exp", force=True)
        stripped = [prediction.strip() for prediction in predictions]
        counts = np.array(scorer._extract_corpus_statistics(stripped, [list(references)]), dtype=np.float64)
        return np.concatenate([counts[:, 2:], counts[:, :2]], axis=1)

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """See `Metric.aggregate`. Raises `DataError` without rows."""
        check_rows(rows, weights, "bleu")
        sums = rows.sum(axis=0, keepdims=True) if weights is None else weights @ rows
        scores = _scores(sums)
        return {"bleu": scores[0] if weights is None else scores}


def _scores(sums: Array) -> Array:
    """BLEU of each row of summed statistics (b, 10): shape (b,)."""
    correct, total = sums[:, :_ORDER], sums[:, _ORDER : 2 * _ORDER]
    predicted, wanted = sums[:, -2], sums[:, -1]
    # NIST's smoothing: the k-th order without a match counts 1 / 2^k matches.
    misses = np.cumsum(correct == 0, axis=1)
    hits = np.where(correct == 0, 0.5**misses, correct)
    # An order without any n-gram (a corpus of very short texts) or no match at all makes the score 0.
    defined = (total > 0).all(axis=1) & (correct > 0).any(axis=1)
    safe_total, safe_predicted = np.maximum(total, 1.0), np.maximum(predicted, 1.0)
    brevity = np.where(predicted < wanted, np.exp(1.0 - np.maximum(wanted, 1.0) / safe_predicted), 1.0)
    score: Array = brevity * 100.0 * np.exp(np.log(hits / safe_total).mean(axis=1))
    return np.where(defined, score, 0.0)
