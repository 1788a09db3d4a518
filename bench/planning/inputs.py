"""What a plan gives runs in the place of tokenizers that are missing and of encoders, which it does not load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench.chat import Chat, Estimated
from bench.encoders import HASHED_NGRAMS, EmbeddingCache, HashedNgrams
from bench.errors import ResourceError
from bench.resolved import Inputs
from bench.vector_file import Vectors

OPTION = "--estimate-tokens"


class Needed(Chat):
    """A chat whose tokenizer has to be at hand; where it is not, the error names the way without."""

    @cached_property
    def tokenizer(self) -> Any:
        """Raises `ResourceError`."""
        try:
            return super().tokenizer
        except ResourceError as error:
            raise ResourceError(
                f"{error} Or give {OPTION}: a plan by characters, {Estimated.CHARACTERS} a token"
            ) from None


class StandIns(EmbeddingCache):
    """Hashed n-grams for the vectors of every encoder, in memory. `stood_in` are the encoders that are asked for and
    are others: what hangs on their vectors, such as a ranking, is another one than the run's."""

    def __init__(self) -> None:
        self.stood_in: set[str] = set()
        self._known: dict[str, Vectors] = {}

    def embed(self, texts: Sequence[str], spec: str, progress: Callable[[int, int], None] | None = None) -> Vectors:
        """Vectors of `texts`, shape (n, 512), whatever the encoder."""
        if spec != HASHED_NGRAMS:
            self.stood_in.add(spec)
        if missing := [text for text in dict.fromkeys(texts) if text not in self._known]:
            self._known.update(zip(missing, HashedNgrams().encode(missing), strict=True))
        return np.stack([self._known[text] for text in texts]) if texts else np.zeros((0, 512), np.float32)


class PlanInputs(Inputs):
    """What planned runs share. With `estimate` no tokenizer is loaded: a token is a number of characters."""

    def __init__(self, estimate: bool = False) -> None:
        super().__init__(chat=Estimated if estimate else Needed)
        self.estimate = estimate
        self.stand_ins = StandIns()

    def embeddings(self, results: Path) -> EmbeddingCache:
        """The stand-ins, whatever the folder."""
        return self.stand_ins
