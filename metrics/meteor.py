"""METEOR (Lavie and Agarwal 2007) as NLTK computes it: exact, stemmed and WordNet-synonym matches, alpha 0.9, beta 3,
gamma 0.5."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import ClassVar, Literal

import numpy as np

from bench.batch import Batch
from bench.errors import ResourceError
from bench.metrics import _wordnet
from bench.metrics._aggregate import means
from bench.metrics._words import Punkt, TreebankWords, find_punkt
from bench.protocols import Array, Column

_ALPHA, _BETA, _GAMMA = 0.9, 3.0, 0.5
_REFERENCES = 8192
"""Reference texts to remember, about 20 kB each."""
_UNMATCHED = -2


@dataclass(frozen=True)
class Meteor:
    """METEOR in [0, 1], the mean over pairs.

    `tokenizer="word_tokenize"`, NLTK's, splits sentences first and needs its punkt_tab data. "treebank" is the same
    without that split: a period inside a text stays on its word, the scores are lower and not comparable. It is for
    machines that cannot have punkt_tab and is never chosen unasked.
    """

    columns: ClassVar[tuple[Column, ...]] = (Column("meteor", "METEOR"),)
    statistics: ClassVar[tuple[str, ...]] = ("meteor",)

    tokenizer: Literal["word_tokenize", "treebank"] = "word_tokenize"

    def check(self) -> None:
        """Raises `ResourceError` with the one command that brings whatever is missing."""
        self._resources()

    def signature(self) -> str:
        """Raises `ResourceError` as `check` does: what is missing decides the number."""
        wordnet, punkt = self._resources()
        model = f"[punkt_tab:{punkt.digest()}]" if punkt else ""
        version = importlib.metadata.version("nltk")
        return (
            f"meteor|alpha:{_ALPHA}|beta:{_BETA:g}|gamma:{_GAMMA}|tok:{self.tokenizer}{model}|stem:porter"
            f"|wordnet:{_wordnet.VERSION}[{wordnet.kind}]|nltk:{version}"
        )

    def rows(self, batch: Batch) -> Array:
        """METEOR of each pair, shape (n, 1); 0 without a match. Raises `ResourceError` as `check` does."""
        scorer = matcher(*self._resources())
        pairs = zip(batch.predictions, batch.references, strict=True)
        scores = [scorer.score(prediction.strip(), reference) for prediction, reference in pairs]
        return np.array(scores, dtype=np.float64).reshape(-1, 1)

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """See `Metric.aggregate`. Raises `DataError` without rows."""
        return {"meteor": means(rows, weights, "meteor")[..., 0]}

    def _resources(self) -> tuple[_wordnet.Source, Punkt | None]:
        if importlib.util.find_spec("nltk") is None:
            raise ResourceError("meteor: the package nltk is not installed; run: pip install nltk")
        folders = _wordnet.nltk_path()
        wordnet = _wordnet.find(folders)
        punkt = find_punkt(folders) if self.tokenizer == "word_tokenize" else None
        missing = [] if wordnet else ["wordnet"]
        if self.tokenizer == "word_tokenize" and punkt is None:
            missing.append("punkt_tab")
        if wordnet is None or missing:
            also = ", or ask for another tokenizer with meteor.tokenizer=treebank" if missing == ["punkt_tab"] else ""
            raise ResourceError(
                f"meteor: {' and '.join(missing)} of NLTK's data are not on this machine; "
                f"run: python -m nltk.downloader {' '.join(missing)}{also}"
            )
        return wordnet, punkt


@dataclass(frozen=True, slots=True)
class _Reference:
    """The stem of each word of a reference, where each word stands, ascending, and how often."""

    stems: list[str]
    positions: dict[str, list[int]]
    counts: dict[str, int]


class _Stems(dict[str, str]):
    """Porter's stem by word, found on first use."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        super().__init__()
        self._stem: Callable[[str], str] = PorterStemmer().stem

    def __missing__(self, word: str) -> str:
        self[word] = stem = self._stem(word)
        return stem


class _Matcher:
    """Scores pairs; remembers what it learns about words and references."""

    def __init__(self, wordnet: _wordnet.Source, punkt: Punkt | None) -> None:
        self._sentences: Callable[[str], list[str]] | None = punkt.splitter() if punkt else None
        self._words = TreebankWords()
        self._stems = _Stems()
        self._synonyms = _wordnet.load(wordnet)
        self._reference = lru_cache(maxsize=_REFERENCES)(self._read_reference)

    def score(self, prediction: str, reference: str) -> float:
        """METEOR of one pair (Lavie and Agarwal 2007, section 2), the arithmetic in NLTK's order."""
        words, target = self._tokens(prediction), self._reference(reference)
        found = self._align(words, target)
        matches = len(found) - found.count(_UNMATCHED)
        if matches == 0:
            return 0.0
        precision, recall = matches / len(words), matches / len(target.stems)
        f_mean = (precision * recall) / (_ALPHA * precision + (1 - _ALPHA) * recall)
        # A chunk is a run of matches that are neighbours on both sides.
        chunks = sum(j not in (_UNMATCHED, before + 1) for before, j in zip([_UNMATCHED, *found], found, strict=False))
        return float((1 - _GAMMA * (chunks / matches) ** _BETA) * f_mean)

    def _align(self, words: list[str], target: _Reference) -> list[int]:
        """For each word the position of its match in the reference, or `_UNMATCHED`.

        Like NLTK, each stage goes through the words from the last to the first and takes the last free position, and
        the synonyms are those of the stem: once the stems are compared, NLTK does not return to the words.
        """
        found = [_UNMATCHED] * len(words)
        free = target.counts.copy()
        left = []
        for i in range(len(words) - 1, -1, -1):
            count = free.get(words[i])
            if count:
                found[i] = target.positions[words[i]][count - 1]
                free[words[i]] = count - 1
            else:
                left.append(i)
        unmatched = [target.positions[word][:count] for word, count in free.items() if count]
        by_stem: dict[str, list[int]] = {}
        for j in sorted(chain.from_iterable(unmatched)):
            by_stem.setdefault(target.stems[j], []).append(j)
        unstemmed = []
        for i in left:
            stem = self._stems[words[i]]
            if stem in by_stem:
                found[i] = _take(by_stem, stem)
            else:
                unstemmed.append((i, stem))
        for i, stem in unstemmed:
            synonyms = self._synonyms[stem]
            candidates = synonyms & by_stem.keys() if synonyms else None
            if candidates:
                found[i] = _take(by_stem, max(candidates, key=lambda name: by_stem[name][-1]))
        return found

    def _tokens(self, text: str) -> list[str]:
        return self._words([text] if self._sentences is None else self._sentences(text))

    def _read_reference(self, text: str) -> _Reference:
        words = self._tokens(text)
        positions: dict[str, list[int]] = {}
        for j, word in enumerate(words):
            positions.setdefault(word, []).append(j)
        counts = {word: len(where) for word, where in positions.items()}
        return _Reference([self._stems[word] for word in words], positions, counts)


def _take(positions: dict[str, list[int]], word: str) -> int:
    position = positions[word].pop()
    if not positions[word]:
        del positions[word]
    return position


@lru_cache(maxsize=4)
def matcher(wordnet: _wordnet.Source, punkt: Punkt | None) -> _Matcher:
    """What scores pairs, made once in a process."""
    return _Matcher(wordnet, punkt)
