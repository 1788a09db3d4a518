"""Whose text is it: is a prediction nearer to its own user's history than to its peers' histories?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.batch import Batch
from bench.encoders import HASHED_NGRAMS, load_encoder
from bench.errors import DataError
from bench.metrics._ratios import ratio, sums
from bench.protocols import Array, Column
from bench.records import Record

_TIE = 1e-9
"""Cosines that differ by no more are equal."""
_CHUNK = 64
"""Histories, or instances with the records of their group, whose vectors are held at a time."""


@dataclass(frozen=True)
class Identification:
    """How well a prediction tells its user among those with a record of the same group (for reviews: of the same item),
    by cosine to mean history vectors.

    Candidates: the prediction's user and every peer (`Batch.histories`). A candidate's vector is the mean of the
    vectors of the texts in that history, without those of the instance's group, which peers have and the user has not:
    what the item makes everyone say must not tell anyone. Who has no other texts is not a candidate. References are
    not looked at.

    `identification_top1`: how often the user is nearest; `identification_mrr`: the mean of 1 / rank; tied candidates
    count as if their order were drawn (the expected value). `identification_chance` and `identification_chance_mrr`:
    what drawing the whole order gives. An instance with fewer than two candidates, or whose user is not among them, is
    left out of these four; `identification_share` says how many are in. Where all are left out, there is no score at
    all. An empty prediction tells nobody: 0. `encoder` is a specification of `bench.encoders`.
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column("identification_top1", "User top-1", 3),
        Column("identification_mrr", "User MRR", 3),
        Column("identification_chance", "Chance top-1", 3, better=None),
        Column("identification_chance_mrr", "Chance MRR", 3, better=None),
        Column("identification_share", "Share identified", 3, better=None),
    )
    statistics: ClassVar[tuple[str, ...]] = ("counted", "top1", "reciprocal_rank", "chance", "chance_mrr")
    reads_data: ClassVar[bool] = True
    grouped: ClassVar[bool] = True

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

    def rows(self, batch: Batch) -> Array:
        """Whether the instance counts (0 or 1) and, if so, its top-1, reciprocal rank and both by chance: shape (n, 5).
        Raises `DataError` if there are instances and none counts."""
        texts = [prediction.strip() for prediction, _ in zip(batch.predictions, batch.references, strict=True)]
        candidates = [
            _candidates(instance.user_id, instance.group, histories)
            for instance, histories in zip(batch.instances, batch.histories, strict=True)
        ]
        if texts and not any(candidates):
            raise DataError(
                f"identification: none of the {len(texts)} instances has a peer with a history of other groups; leave "
                "identification out of the metrics for this data set"
            )
        # By their identity: instances share histories, and to compare those by content would take long.
        totals = self._totals({id(one.history): one.history for users in candidates for one in users}, batch)
        rows = np.zeros((len(texts), 5))
        counted = [index for index, users in enumerate(candidates) if users]
        for chunk in _chunks(counted):
            of_groups = [text for i in chunk for one in candidates[i] for text in one.of_group]
            vectors = self._vectors([*(texts[i] for i in chunk), *of_groups], batch)
            for i in chunk:
                means = [_direction(totals[id(one.history)] - _total(one.of_group, vectors)) for one in candidates[i]]
                similarity = np.stack(means) @ _direction(_total([texts[i]], vectors))
                told = _expected(similarity) if texts[i] else (0.0, 0.0)
                rows[i] = 1.0, *told, *_expected(np.zeros(len(means)))
        return rows

    def _totals(self, histories: Mapping[int, Sequence[Record]], batch: Batch) -> dict[int, Array]:
        """The sum of the vectors of each history, shape (d,): all vectors at once would take too much memory."""
        totals: dict[int, Array] = {}
        for chunk in _chunks(list(histories)):
            vectors = self._vectors((record.text for key in chunk for record in histories[key]), batch)
            for key in chunk:
                totals[key] = _total([record.text for record in histories[key]], vectors)
        return totals

    def _vectors(self, texts: Iterable[str], batch: Batch) -> dict[str, NDArray[np.float32]]:
        distinct = list(dict.fromkeys(texts))
        return dict(zip(distinct, batch.embed(distinct, self.encoder), strict=True))

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """See `Metric.aggregate`. A resample in which no instance counts has the scores of all `rows`. Raises
        `DataError` without rows or if none of them counts."""
        totals = sums(rows, weights, "identification")
        plain = sums(rows, None, "identification")
        if plain[0] == 0:
            raise DataError(
                f"identification: none of these {len(rows)} instances has a peer with a history of other groups; take "
                "more instances, or leave identification out of the metrics for this data set"
            )
        counted = totals[..., :1]
        scores = ratio(totals[..., 1:], counted, otherwise=ratio(plain[1:], plain[:1]))
        count = len(rows) if weights is None else weights.sum(axis=1)
        return {
            **{column.name: scores[..., index] for index, column in enumerate(self.columns[:4])},
            "identification_share": counted[..., 0] / count,
        }


@dataclass(frozen=True)
class _Candidate:
    """A user whom a text may be of: the records, and the texts of those that are of the instance's group."""

    history: Sequence[Record]
    of_group: Sequence[str]


def _candidates(user: str, group: str | None, histories: Mapping[str, Sequence[Record]]) -> list[_Candidate]:
    """The candidates of an instance, its user first; empty if the user is not one or the only one."""
    known = {}
    for name, history in histories.items():
        of_group = [record.text for record in history if record.group == group]
        if len(of_group) < len(history):
            known[name] = _Candidate(history, of_group)
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
