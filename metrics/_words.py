"""NLTK's word tokenizer, made fast by remembering what it did to each piece of text.

Its regular expressions look at most one character across white space, with two exceptions: a quotation mark that opens
a sentence, and the period that ends one. So a sentence is cut into pieces at white space, each piece is given to NLTK
once between two fences that cannot touch it, and the sentence's end (from the last letter or digit on) goes to it as
one piece with nothing behind it. The tests hold the result equal to NLTK's.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from bench.errors import ResourceError

PUNKT_FILES = ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt")
_MEMORY = 1 << 20
"""Pieces to remember: about 200 MB at worst."""

# Only the white space that Python's and NLTK's regular expressions and str.split agree on.
_GAPS = re.compile(r"([ \t\n\r]+)")
_SOLID = re.compile(r"[^\W_]")
_PLAIN = re.compile(r"([A-Za-z0-9]+)([,;:!?.]?)")
_CLEAR_BREAK = re.compile(r"([A-Za-z]{2,})([.!?]) +[A-Za-z0-9]")
_CONTRACTED = frozenset(("cannot", "gimme", "gonna", "gotta", "lemme", "wanna"))
_FENCE = "\x00"
"""A word between pieces; it never touches one, and no expression of the tokenizer knows it."""

_Key = tuple[str, str, str]
"""A piece of a sentence between the white space before and after it; "" there means that the sentence ends."""


class TreebankWords:
    """Lower-case tokens of sentences, equal to those of NLTK's `NLTKWordTokenizer`."""

    def __init__(self) -> None:
        from nltk.tokenize.destructive import NLTKWordTokenizer

        self._tokenize: Callable[[str], list[str]] = NLTKWordTokenizer().tokenize
        # Tuples, because Python's garbage collector need not visit tuples of strings.
        self._memory: dict[_Key, tuple[str, ...]] = {}

    def __call__(self, sentences: Iterable[str]) -> list[str]:
        """The tokens of all sentences, one after the other."""
        keys = list(chain.from_iterable(map(_cut, sentences)))
        memory = self._memory
        unknown = [key for key in keys if key not in memory]
        if unknown:
            if len(memory) > _MEMORY:
                memory.clear()
                unknown = keys
            self._learn(dict.fromkeys(unknown))
        return list(chain.from_iterable([memory[key] for key in keys]))

    def _learn(self, keys: Iterable[_Key]) -> None:
        inner = []
        for key in keys:
            words = _plain_words(*key)
            if words is not None:
                self._memory[key] = words
            elif key[0] and key[2]:
                inner.append(key)
            else:
                self._memory[key] = self._alone(*key)
        # One call for all of them: NLTK's cost is a dozen passes, whatever the length.
        groups = self._fenced(inner) or [self._alone(*key) for key in inner]
        self._memory.update(zip(inner, groups, strict=True))

    def _alone(self, before: str, piece: str, after: str) -> tuple[str, ...]:
        words = self._tokenize(f"{_FENCE * bool(before)}{before}{piece}{after}{_FENCE * bool(after)}")
        return tuple(word.lower() for word in words[bool(before) : len(words) - bool(after)])

    def _fenced(self, keys: list[_Key]) -> list[tuple[str, ...]] | None:
        """Words of each piece; None if a piece has a fence of its own."""
        words = self._tokenize(_FENCE + "".join(f"{before}{piece}{after}{_FENCE}" for before, piece, after in keys))
        groups: list[list[str]] = []
        for word in words:
            if word == _FENCE:
                groups.append([])
            else:
                groups[-1].append(word.lower())
        return [tuple(group) for group in groups[:-1]] if len(groups) == len(keys) + 1 else None


def _cut(sentence: str) -> list[_Key]:
    pieces = _GAPS.split(sentence)
    last = len(pieces) - 1
    while last > 0 and not _SOLID.search(pieces[last]):
        last -= 2
    if last <= 0:
        return [("", sentence, "")]
    gaps = pieces[1:last:2]
    tail = "".join(pieces[last:])
    # Of white space only the character next to the piece matters.
    before, after = [gap[-1] for gap in gaps], [gap[0] for gap in gaps]
    return list(zip(["", *before], [*pieces[0:last:2], tail], [*after, ""], strict=True))


def _plain_words(before: str, piece: str, after: str) -> tuple[str, ...] | None:
    """Words of a piece of letters and digits with at most one mark behind it; None for any other piece."""
    match = _PLAIN.fullmatch(piece)
    if match is None or (not before and not after):
        return None
    word, mark = match.group(1).lower(), match.group(2)
    if word in _CONTRACTED:
        return None
    if mark == "." and after:
        return (word + mark,)
    return (word, mark) if mark else (word,)


@dataclass(frozen=True)
class Punkt:
    """NLTK's sentence model for English, `punkt_tab`: a folder, or the zip file that NLTK's downloader leaves."""

    path: Path

    @property
    def complete(self) -> bool:
        """Whether all four files are there."""
        if self.path.suffix != ".zip":
            return all((self.path / name).is_file() for name in PUNKT_FILES)
        if not zipfile.is_zipfile(self.path):
            return False
        with zipfile.ZipFile(self.path) as archive:
            return {f"punkt_tab/english/{name}" for name in PUNKT_FILES} <= set(archive.namelist())

    def read(self, name: str) -> str:
        """One of the four files. Raises `ResourceError` if it cannot be read."""
        try:
            if self.path.suffix != ".zip":
                return (self.path / name).read_text(encoding="utf-8")
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(f"punkt_tab/english/{name}").decode("utf-8")
        except (OSError, KeyError, UnicodeDecodeError, zipfile.BadZipFile) as error:
            raise ResourceError(f"meteor: cannot read {name} of punkt_tab in {self.path}: {error}") from error

    def _lines(self, name: str) -> list[str]:
        content = self.read(name).removesuffix("\n")
        return content.split("\n") if content else []

    def digest(self) -> str:
        """First 8 hex digits of the SHA-256 over the four files: a retrained model moves the number."""
        content = "\0".join(self.read(name) for name in PUNKT_FILES)
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    def splitter(self) -> Callable[[str], list[str]]:
        """Text to sentences, equal to NLTK's `sent_tokenize` with this model."""
        from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

        parameters: Any = PunktParameters()
        parameters.abbrev_types = set(self._lines("abbrev_types.txt"))
        parameters.sent_starters = set(self._lines("sent_starters.txt"))
        parameters.collocations = {tuple(line.split("\t")) for line in self._lines("collocations.tab")}
        for line in self._lines("ortho_context.tab"):
            word, flags = line.split("\t")
            parameters.ortho_context[word] = int(flags)
        tokenizer: Any = PunktSentenceTokenizer()
        tokenizer._params = parameters
        # The words that the model can take for an abbreviation; behind any other word a period ends the sentence.
        doubtful = parameters.abbrev_types | {pair[0] for pair in parameters.collocations}
        tokenizer.text_contains_sentbreak = _memoised(tokenizer.text_contains_sentbreak, doubtful)
        split: Callable[[str], list[str]] = tokenizer.tokenize
        return split


def _memoised(decide: Callable[[str], bool], doubtful: set[str]) -> Callable[[str], bool]:
    """`decide`, asked only for contexts that are neither clear ("movie. The") nor known."""
    memory: dict[str, bool] = {}

    def remembered(context: str) -> bool:
        clear = _CLEAR_BREAK.match(context)
        if clear and (clear.group(2) != "." or clear.group(1).lower() not in doubtful):
            return True
        known = memory.get(context)
        if known is None:
            if len(memory) >= _MEMORY:
                memory.clear()
            known = memory[context] = decide(context)
        return known

    return remembered


def find_punkt(nltk_path: Iterable[str]) -> Punkt | None:
    """The first complete punkt_tab of NLTK's data path, else None."""
    folders = [Path(folder, "tokenizers") for folder in nltk_path]
    candidates = [Punkt(folder / name) for folder in folders for name in ("punkt_tab/english", "punkt_tab.zip")]
    return next((punkt for punkt in candidates if punkt.complete), None)
