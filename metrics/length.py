"""How long predictions are beside their references, which BLEU and METEOR reward: length ratio and brevity penalty."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bench.batch import Batch
from bench.errors import ResourceError
from bench.metrics._ratios import ratio, sums
from bench.protocols import Array, Column


@dataclass(frozen=True)
class Length:
    """Tokens of all predictions over tokens of all references, and BLEU's brevity penalty, in [0, 1].

    Both are of the whole corpus, from sums over its texts, in sacreBLEU's 13a tokens: those of `bleu`. References
    without any token give the ratio 0, as in sacreBLEU.
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column("length_ratio", "Length ratio", 3, better=None),
        Column("brevity_penalty", "Brevity penalty", 3, better=None),
    )
    statistics: ClassVar[tuple[str, ...]] = ("sys_len", "ref_len")

    def check(self) -> None:
        """Raises `ResourceError` without the package sacrebleu."""
        if importlib.util.find_spec("sacrebleu") is None:
            raise ResourceError("length: the package sacrebleu is not installed; run: pip install sacrebleu")

    def signature(self) -> str:
        """The tokens are sacreBLEU's, so its version counts."""
        return f"length|level:corpus|tok:13a|sacrebleu:{importlib.metadata.version('sacrebleu')}"

    def rows(self, batch: Batch) -> Array:
        """Both lengths of each pair in tokens, shape (n, 2)."""
        from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

        tokenize = Tokenizer13a()  # type: ignore[no-untyped-call]
        pairs = zip(batch.predictions, batch.references, strict=True)
        lengths = [[len(tokenize(text.strip()).split()) for text in pair] for pair in pairs]
        return np.array(lengths, dtype=np.float64).reshape(-1, 2)

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """See `Metric.aggregate`. Raises `DataError` without rows."""
        totals = sums(rows, weights, "length")
        predicted, wanted = totals[..., 0], totals[..., 1]
        # Papineni et al. 2002, section 2.2.2; nothing predicted is the limit of ever shorter texts.
        penalty = np.exp(np.minimum(0.0, 1.0 - ratio(wanted, predicted, otherwise=np.inf)))
        penalty = np.where(predicted < wanted, penalty, 1.0)
        return {"length_ratio": ratio(predicted, wanted), "brevity_penalty": penalty}
