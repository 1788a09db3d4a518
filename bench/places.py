"""Where models and data lie on this machine, and what of it is shown elsewhere: a name, never a path.

Only what stays here tells places: a run's places.json, which has the paths that it takes to read data and models again,
and messages on the terminal.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import StoreError
from bench.files import read_json
from bench.models import PACKAGE_PREFIX

DIGITS = 6
"""Of a fingerprint, where names do not tell two things apart."""
PLACES = "places.json"
HIDDEN = ".../"
"""Begins what stands in a record for a path."""


def shown_name(name: str) -> str:
    """What is shown of a model or a data set: a folder's name; what is the same everywhere (demo, a hub id,
    python:PACKAGE/folder) as it is."""
    if name.startswith(PACKAGE_PREFIX):
        return name
    path = Path(name)
    hub = not name.startswith((".", "/", "~")) and name.partition("@")[0].count("/") <= 1 and not path.exists()
    if hub:
        return name
    return (path if path.name not in ("", "..") else path.resolve()).name


def told_apart(names: Sequence[str], fingerprints: Sequence[str]) -> list[str]:
    """The names, with digits of their fingerprints where two things are called alike; an empty fingerprint is of
    something that nobody reads."""
    known: dict[str, set[str]] = {}
    for name, fingerprint in zip(names, fingerprints, strict=True):
        known.setdefault(name, set()).update([fingerprint] if fingerprint else [])
    return [
        f"{name} ({fingerprint.rpartition(':')[2][:DIGITS]})" if fingerprint and len(known[name]) > 1 else name
        for name, fingerprint in zip(names, fingerprints, strict=True)
    ]


def data_print(fingerprints: Mapping[str, str]) -> str:
    """A fingerprint of all categories of a data set, from those of each."""
    return hashlib.sha256(json.dumps(fingerprints, sort_keys=True).encode()).hexdigest()


def is_place(value: str) -> bool:
    """Whether a setting names a place on this machine alone."""
    return value.startswith(("/", "~", "../"))


def without_places(value: Any) -> Any:
    """A value of a record without what tells of the machine: a path is its last part, an address is left out."""
    if isinstance(value, str):
        return Path(value).name if is_place(value) or value.startswith(HIDDEN) else value
    if isinstance(value, Mapping):
        return {
            key: without_places(entry)
            for key, entry in value.items()
            if not (isinstance(entry, str) and re.match("https?://", entry))
        }
    if isinstance(value, list):
        return [without_places(entry) for entry in value]
    return value


def hidden(value: Any, places: dict[str, str]) -> Any:
    """A value of a record with the names of paths in their place, e.g. ".../movies"; `places` takes the paths by
    name."""
    if isinstance(value, str) and is_place(value):
        # Two paths may end alike.
        folders = itertools.chain([""], (f"{number}/" for number in itertools.count(2)))
        names = (f"{HIDDEN}{folder}{Path(value).name}" for folder in folders)
        return next(name for name in names if places.setdefault(name, value) == value)
    if isinstance(value, Mapping):
        return {key: hidden(entry, places) for key, entry in value.items()}
    if isinstance(value, list):
        return [hidden(entry, places) for entry in value]
    return value


def found(value: Any, places: Mapping[str, str]) -> Any:
    """The value that `hidden` had, as far as its paths are known here."""
    if isinstance(value, str):
        return places.get(value, value)
    if isinstance(value, Mapping):
        return {key: found(entry, places) for key, entry in value.items()}
    if isinstance(value, list):
        return [found(entry, places) for entry in value]
    return value


def places_of(folder: Path) -> dict[str, str]:
    """The paths that a run's files have names for, as far as they are known."""
    try:
        places = read_json(folder / PLACES)
    except StoreError:
        return {}
    return {name: place for name, place in places.items() if isinstance(place, str)}


_PATH = re.compile(r"(?<![\w:/.<-])~?(?:/[^\s/'\"`<>,;:()\[\]]+){2,}/?")


def by_name(text: str, known: Iterable[str]) -> str:
    """Text in which the known places on this machine are their last parts."""
    for place in sorted(filter(is_place, known), key=len, reverse=True):
        # The likes of "/data" tell nothing, and may stand in any path.
        if len(Path(place).parts) > 2:
            text = text.replace(place.rstrip("/"), Path(place).name)
    return text


def without_paths(text: str, known: Iterable[str] = ()) -> str:
    """A sentence in which absolute paths are their last parts. `known` are places that it may name: a path with a
    blank in it cannot be told from two words."""
    text = by_name(text, known)
    return _PATH.sub(lambda match: Path(match[0]).name, text)
