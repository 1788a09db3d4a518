"""The part of WordNet 3.0 that METEOR reads: a word's synonyms, straight from the database files.

The files are those of Princeton's distribution ("wndb" in its manual), e.g. lines of `index.verb` and `data.verb`:

    breathe v 4 6 @ ~ > $ + ; 4 2 00001740 00002573 ...
    00001740 29 v 04 breathe 0 take_a_breath 0 respire 0 suspire 3 021 * 00005041 v ... | draw air into ...

NLTK's reader is not used: it wants `lexnames`, which Debian's package lacks, and a folder inside its own data path.
"""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bench.errors import ResourceError

VERSION = "3.0"
SYSTEM = Path("/usr/share/wordnet")
_PARTS = ("noun", "verb", "adj", "adv")
NEEDED = tuple(f"{kind}.{part}" for kind in ("index", "data") for part in _PARTS) + tuple(f"{p}.exc" for p in _PARTS)

# Morphy's rules of detachment (Princeton's manual, "morphy").
_DETACH: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}


@dataclass(frozen=True)
class Source:
    """Where a WordNet lies: a folder, or the folder `wordnet/` in NLTK's zip file. `kind` is "nltk" or "system"."""

    kind: str
    path: Path

    def read(self, name: str) -> bytes:
        """Content of a database file. Raises `ResourceError` if it is not there."""
        try:
            if self.path.suffix != ".zip":
                return (self.path / name).read_bytes()
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(f"wordnet/{name}")
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise ResourceError(f"meteor: cannot read {name} of the WordNet in {self.path}: {error}") from error

    @property
    def complete(self) -> bool:
        """Whether every file that METEOR needs is there."""
        if self.path.suffix != ".zip":
            return all((self.path / name).is_file() for name in NEEDED)
        if not zipfile.is_zipfile(self.path):
            return False
        with zipfile.ZipFile(self.path) as archive:
            return {f"wordnet/{name}" for name in NEEDED} <= set(archive.namelist())


def nltk_path() -> list[str]:
    """The folders in which NLTK looks for its data: `nltk.data.path`, known without it. Importing NLTK, which brings
    pandas and scikit-learn, takes longer than everything else of a table whose runs are there."""
    if "nltk.data" in sys.modules:
        # Whoever imported it may have added to it.
        return list(sys.modules["nltk.data"].path)
    named = [os.path.expanduser(folder) for folder in os.environ.get("NLTK_DATA", "").split(os.pathsep) if folder]
    home = os.path.expanduser("~/")
    if "APPENGINE_RUNTIME" not in os.environ and home != "~/":
        named.append(f"{home}nltk_data")
    of_prefix = [os.path.join(sys.prefix, *parts, "nltk_data") for parts in ((), ("share",), ("lib",))]
    return [*named, *of_prefix, *(f"/usr/{part}/nltk_data" for part in ("share", "local/share", "lib", "local/lib"))]


def find(nltk_path: Iterable[str]) -> Source | None:
    """The first complete WordNet: of NLTK's data path, else of the system (Debian's wordnet-base); None without one."""
    candidates = [
        Source("nltk", Path(folder, "corpora", name)) for folder in nltk_path for name in ("wordnet", "wordnet.zip")
    ]
    return next((source for source in [*candidates, Source("system", SYSTEM)] if source.complete), None)


@dataclass
class _Part:
    """One part of speech: index line by word, data by byte offset, base forms by irregular form."""

    suffixes: tuple[tuple[str, str], ...]
    index: dict[str, str]
    data: bytes
    exceptions: dict[str, list[str]]

    def forms(self, word: str) -> list[str]:
        """The word itself and its possible base forms, as far as the index has them."""
        bases = self.exceptions.get(word)
        if bases is None:
            bases = [word[: -len(old)] + new for old, new in self.suffixes if word.endswith(old)]
        return [form for form in dict.fromkeys([word, *bases]) if form in self.index]

    def names(self, form: str) -> Iterable[str]:
        """Words of all synsets of a form in the index."""
        entry = self.index[form].split()
        synsets = int(entry[2])
        for offset in entry[-synsets:]:
            start = int(offset)
            line = self.data[start : self.data.index(b"|", start)].split()
            words = int(line[3], 16)
            for name in line[4 : 4 + 2 * words : 2]:
                yield name.decode()


class WordNet(dict[str, frozenset[str]]):
    """By word (lower case) the other single words that share a synset with it or one of its base forms.

    Looked up on first use. Raises `ResourceError` for a WordNet of another version than 3.0.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._parts = [self._part(name) for name in _PARTS]
        found = re.search(rb"WordNet (\S+) Copyright", self._parts[0].data[:4096])
        version = found.group(1).decode() if found else "unknown"
        if version != VERSION:
            raise ResourceError(
                f"meteor: the WordNet in {source.path} has version {version}, METEOR is defined with {VERSION}; "
                "run: python -m nltk.downloader wordnet"
            )

    def _part(self, name: str) -> _Part:
        index = {}
        for line in self._source.read(f"index.{name}").decode().split("\n"):
            if line and not line.startswith(" "):
                index[line[: line.index(" ")]] = line
        exceptions = {}
        for text in self._source.read(f"{name}.exc").decode().splitlines():
            irregular, *bases = text.split()
            exceptions[irregular] = bases
        return _Part(_DETACH[name], index, self._source.read(f"data.{name}"), exceptions)

    def __missing__(self, word: str) -> frozenset[str]:
        names = {name for part in self._parts for form in part.forms(word) for name in part.names(form)}
        # "galore(ip)": an adjective's marker says where it may stand and is no part of the word.
        plain = {name.partition("(")[0] for name in names if "_" not in name}
        self[word] = synonyms = frozenset(plain - {word})
        return synonyms


@lru_cache(maxsize=2)
def load(source: Source) -> WordNet:
    """The WordNet of a source, read once in a process."""
    return WordNet(source)
