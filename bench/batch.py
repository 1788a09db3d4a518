"""What a metric scores: texts, their references and, read from the data on demand, the users behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import PluginError
from bench.records import Instance, Record


@dataclass(frozen=True)
class Background:
    """What the data say of n predictions.

    `histories` holds for each prediction the histories of its user and of its peers, the other users with a record of
    its group, by user id, in the order of `Peers`; a user without any has an empty one. No text that anyone has to
    predict is among them, whatever the run's own pool of peers was; the user's whole profile stands in `instances`.
    `about` says in words what each text is about, as the task puts it. `embed` gives the vectors of texts by an
    encoder's specification, shape (n, d), and keeps them on disk. `folder` is the run's, for what a metric has to keep.
    """

    instances: Sequence[Instance]
    histories: Sequence[Mapping[str, Sequence[Record]]]
    about: Sequence[str]
    embed: Callable[[Sequence[str], str], NDArray[np.float32]]
    folder: Path


def _no_background() -> Background:
    raise PluginError(
        "a metric read the data behind the texts without saying so; it has to declare reads_data = True in its class"
    )


@dataclass(frozen=True)
class Batch:
    """n predictions with their references. A metric whose class says `reads_data = True` may ask for the rest, which
    is read once, on the first question. Raises `PluginError` for a metric that asks without saying so."""

    predictions: Sequence[str]
    references: Sequence[str]
    read: Callable[[], Background] = _no_background

    @cached_property
    def _background(self) -> Background:
        return self.read()

    @property
    def instances(self) -> Sequence[Instance]:
        """The instances of the predictions."""
        return self._background.instances

    @property
    def histories(self) -> Sequence[Mapping[str, Sequence[Record]]]:
        """See `Background`."""
        return self._background.histories

    @property
    def about(self) -> Sequence[str]:
        """What each text is about."""
        return self._background.about

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._background.folder

    def embed(self, texts: Sequence[str], encoder: str) -> NDArray[np.float32]:
        """Vectors of texts, shape (n, d)."""
        return self._background.embed(texts, encoder)
