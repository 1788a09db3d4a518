"""BERTScore (Zhang et al. 2020): greedy matching of contextual token vectors by cosine, F1 of its mean over the
prediction's and over the reference's tokens."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bench.batch import Batch
from bench.errors import ResourceError
from bench.metrics import _contextual
from bench.metrics._aggregate import means
from bench.metrics._contextual import TokenEncoder, TokenVectors
from bench.models import PACKAGE_PREFIX, check_model, fingerprint, local_folder
from bench.protocols import Array, Column

_PAIRS = 128
"""Pairs whose vectors are held at a time: about 400 MB at 500 tokens of 768 dimensions a text."""


@dataclass(frozen=True)
class BERTScore:
    """Mean F1 of BERTScore, in [0, 1] for the usual models; no idf weights, no rescaling with a baseline.

    `model` is a name as in `bench.models`, `layer` the layer whose output is compared, 1 the lowest. Texts longer than
    the model and its tokenizer allow are cut. Equal to bert_score 0.3.13 on whole numbers of tokens, except that a
    cosine below 0 stays what it is, where bert_score makes it 0 in the shorter texts of a batch. A side without a token
    gives 0. The vectors of references are remembered, up to 1 GiB in a process.
    """

    columns: ClassVar[tuple[Column, ...]] = (Column("bertscore", "BERTScore"),)
    statistics: ClassVar[tuple[str, ...]] = ("bertscore",)

    model: str = "allenai/led-base-16384"
    layer: int = 6

    def check(self) -> None:
        """Raises `ResourceError` without torch, transformers or the model."""
        for package in ("torch", "transformers"):
            if importlib.util.find_spec(package) is None:
                raise ResourceError(f"bertscore: the package {package} is not installed; run: pip install {package}")
        check_model(self.model, "bertscore")

    def signature(self) -> str:
        """A folder is named by its content: the same model elsewhere is the same model."""
        model = fingerprint(self.model)
        folder = local_folder(self.model)
        if folder is not None:
            name = self.model if self.model.startswith(PACKAGE_PREFIX) else folder.resolve().name
            model = f"{name}[{model[:19]}]"
        version = importlib.metadata.version("transformers")
        settings = f"layer:{self.layer}|idf:no|rescale:no|like:bert_score-0.3.13"
        return f"bertscore|model:{model}|{settings}|transformers:{version}"

    def rows(self, batch: Batch) -> Array:
        """F1 of each pair, shape (n, 1). Raises `ResourceError` or `ConfigError` if the model cannot be used."""
        stripped = [prediction.strip() for prediction in batch.predictions]
        pairs = list(zip(stripped, batch.references, strict=True))
        scores = np.zeros((len(pairs), 1))
        full = [i for i, (prediction, reference) in enumerate(pairs) if prediction and reference.strip()]
        if full:
            encoder = _contextual.load(self.model, self.layer)
            # Alike lengths meet in a block, so little is padded, and equal predictions are neighbours.
            full.sort(key=lambda i: (len(pairs[i][0]), pairs[i][0]))
            for start in range(0, len(full), _PAIRS):
                block = full[start : start + _PAIRS]
                scores[block, 0] = _f1([pairs[i] for i in block], encoder)
        return scores

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """See `Metric.aggregate`. Raises `DataError` without rows."""
        return {"bertscore": means(rows, weights, "bertscore")[..., 0]}


def _f1(pairs: Sequence[tuple[str, str]], encoder: TokenEncoder) -> list[float]:
    predictions, references = zip(*pairs, strict=True)
    known = encoder.vectors(references, remember=True) | encoder.vectors(predictions)
    return [_pair_f1(known[prediction], known[reference]) for prediction, reference in pairs]


def _pair_f1(prediction: TokenVectors, reference: TokenVectors) -> float:
    """Equations of section 3 of the paper; special tokens can be matched but are not averaged over."""
    cosines = prediction.vectors @ reference.vectors.T
    precision = float(cosines.amax(dim=1) @ prediction.weights)
    recall = float(cosines.amax(dim=0) @ reference.weights)
    # No weight at all: a text of nothing but special tokens, e.g. of control characters.
    if not prediction.weights.any() or not reference.weights.any() or precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)
