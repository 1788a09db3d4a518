"""Whose text is it: is a prediction nearer to its own user's history than to those of others who reviewed the item?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.embedding import HASHED_NGRAMS, load_encoder
from bench.errors import DataError
from bench.protocols import Array
from bench.records import Background, Review
from metrics._ratios import ratio, sums

_TIE = 1e-9
"""Cosines that differ by no more are equal."""
_CHUNK = 64
"""Histories, or instances with their item's reviews, whose vectors are held at a time."""


@dataclass(frozen=True)
class Identification:
    """How well a prediction tells its user among those who reviewed the same item, by cosine to mean history vectors.

    Candidates: the prediction's user and every peer (`Background.histories`). A candidate's vector is the mean of the
    vectors of the reviews in that history, without the review of the item itself, which peers have and the user has
    not: what the item makes everyone say must not tell anyone. A candidate without other reviews is none. References
    are not looked at.

    `identification_top1`: how often the user is nearest; `identification_mrr`: the mean of 1 / rank; tied candidates
    count as if their order were drawn (the expected value). `identification_chance` and `identification_chance_mrr`:
    what drawing the whole order gives. An instance with fewer than two candidates, or whose user is none, is left out
    of these four; `identification_share` says how many are in. Where none is, there is no score at all. An empty
    prediction tells nobody: 0. `encoder` is a specification of `bench.embedding`.
    """

    columns: ClassVar[tuple[str, ...]] = (
        "identification_top1",
        "identification_mrr",
        "identification_chance",
        "identification_chance_mrr",
        "identification_share",
    )
    statistics: ClassVar[tuple[str, ...]] = ("counted", "top1", "reciprocal_rank", "chance", "chance_mrr")
    background: ClassVar[bool] = True

    encoder: str = HASHED_NGRAMS

    def check(self) -> None:
        """Raises `ConfigError` or `ResourceError` for an encoder that cannot be used."""
        load_encoder(self.encoder)

    def signature(self) -> str:
        """The encoder by what it is, not where it lies."""
        return (
            "identification|candidates:reviewers of the item|history:mean, without the item|similarity:cosine"
            f"|ties:expected|encoder:[{_encoder_name(self.encoder)}]"
        )

    def rows(self, predictions: Sequence[str], references: Sequence[str], background: Background) -> Array:
        """Whether the instance counts (0 or 1) and, if so, its top-1, reciprocal rank and both by chance: shape (n, 5).
        Raises `DataError` if there are instances and none counts."""
        texts = [prediction.strip() for prediction, _ in zip(predictions, references, strict=True)]
        candidates = [
            _candidates(instance.user_id, instance.item.asin, histories)
            for instance, histories in zip(background.instances, background.histories, strict=True)
        ]
        if texts and not any(candidates):
            raise DataError(
                f"identification: no other user with a history reviewed any of the {len(texts)} items; "
                "leave identification out of the metrics for this data set"
            )
        # By their identity: instances share histories, and to compare those by content would take long.
        totals = self._totals({id(one.history): one.history for users in candidates for one in users}, background)
        rows = np.zeros((len(texts), 5))
        counted = [index for index, users in enumerate(candidates) if users]
        for chunk in _chunks(counted):
            of_items = [text for i in chunk for one in candidates[i] for text in one.of_item]
            vectors = self._vectors([*(texts[i] for i in chunk), *of_items], background)
            for i in chunk:
                means = [_direction(totals[id(one.history)] - _total(one.of_item, vectors)) for one in candidates[i]]
                similarity = np.stack(means) @ _direction(_total([texts[i]], vectors))
                told = _expected(similarity) if texts[i] else (0.0, 0.0)
                rows[i] = 1.0, *told, *_expected(np.zeros(len(means)))
        return rows

    def _totals(self, histories: Mapping[int, Sequence[Review]], background: Background) -> dict[int, Array]:
        """The sum of the vectors of each history, shape (d,): all vectors at once would take too much memory."""
        totals: dict[int, Array] = {}
        for chunk in _chunks(list(histories)):
            vectors = self._vectors((review.text for key in chunk for review in histories[key]), background)
            for key in chunk:
                totals[key] = _total([review.text for review in histories[key]], vectors)
        return totals

    def _vectors(self, texts: Iterable[str], background: Background) -> dict[str, NDArray[np.float32]]:
        distinct = list(dict.fromkeys(texts))
        return dict(zip(distinct, background.embed(distinct, self.encoder), strict=True))

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """See `Metric.aggregate`. A resample in which no instance counts has the scores of all `rows`. Raises
        `DataError` without rows or if none of them counts."""
        totals = sums(rows, weights, "identification")
        plain = sums(rows, None, "identification")
        if plain[0] == 0:
            raise DataError(
                f"identification: no other user with a history reviewed the items of these {len(rows)} instances; take "
                "more instances, or leave identification out of the metrics for this data set"
            )
        counted = totals[..., :1]
        scores = ratio(totals[..., 1:], counted, otherwise=ratio(plain[1:], plain[:1]))
        count = len(rows) if weights is None else weights.sum(axis=1)
        return {
            **{name: scores[..., column] for column, name in enumerate(self.columns[:4])},
            "identification_share": counted[..., 0] / count,
        }


@dataclass(frozen=True)
class _Candidate:
    """A user whom a text may be of: the reviews, and the texts of those that are of the item."""

    history: Sequence[Review]
    of_item: Sequence[str]


def _candidates(user: str, asin: str, histories: Mapping[str, Sequence[Review]]) -> list[_Candidate]:
    """The candidates of an instance, its user first; none if the user is no candidate or the only one."""
    known = {}
    for name, history in histories.items():
        of_item = [review.text for review in history if review.asin == asin]
        if len(of_item) < len(history):
            known[name] = _Candidate(history, of_item)
    peers = [candidate for name, candidate in known.items() if name != user]
    return [known[user], *peers] if peers and user in known else []


def _chunks(keys: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(keys), _CHUNK):
        yield keys[start : start + _CHUNK]


def _total(texts: Sequence[str], vectors: Mapping[str, NDArray[np.float32]]) -> Array:
    """Sum of the texts' vectors, shape (d,); 0 without texts."""
    total: Array = np.sum([vectors[text] for text in texts], axis=0, dtype=np.float64)
    return total


def _direction(vector: Array) -> Array:
    return vector / (np.linalg.norm(vector) or 1.0)


def _expected(similarity: Array) -> tuple[float, float]:
    """Expected top-1 and reciprocal rank of the first of some candidates, the order of equal ones being drawn."""
    above = int((similarity > similarity[0] + _TIE).sum())
    tied = int((np.abs(similarity - similarity[0]) <= _TIE).sum())
    reciprocal = sum(1 / rank for rank in range(above + 1, above + tied + 1)) / tied
    return (1 / tied if above == 0 else 0.0), reciprocal


@lru_cache
def _encoder_name(spec: str) -> str:
    """Told once in a process: it may hash a model's files."""
    return load_encoder(spec).name
