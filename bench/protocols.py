"""What a plugin or a backend has to offer. Protocols, not base classes: nothing needs to be inherited.

A plugin is one class in one file, a frozen dataclass whose fields are its options. The registry builds it from the
configuration's section of the same name, so `--set bertscore.layer=6` reaches the field `layer` of `BERTScore`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.records import Background, Call, Completion, Instance, Prompt, Review

if TYPE_CHECKING:
    import torch

    from bench.context import Context

Steps = Generator[Sequence[Prompt], list[str], str]
"""A method's work on one instance: yields prompts that may run side by side, is sent their answers in the same
order, returns the predicted text."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Properties:
    """What a method is made of: the columns of the paper's Table 5, and what it costs the engine to know."""

    retrieval_augmented: bool
    """It puts retrieved reviews into the prompt: retriever and k can change its texts."""
    embedded: bool
    """It represents users by vectors."""
    inter_user: bool
    """It compares the user with peers."""
    calls_model: bool = True
    """It asks a language model at all."""


class Method(Protocol):
    """A way to make a language model write as a given user would."""

    properties: ClassVar[Properties]

    def steps(self, instance: Instance, context: Context) -> Steps:
        """Straight-line code for one instance; knows nothing of batching, caching, retries or vLLM."""
        ...


Whose = Literal["own", "shuffled", "constant"]
"""Whose vectors stand in an instance's prompt: its own, another user's, or the mean over all instances. With the
latter two a method whose score does not fall was not using its vectors."""


class Adapter(Protocol):
    """What a trained method learns, a `torch.nn.Module`: it turns the features of soft prompts into vectors."""

    def __call__(
        self, features: Sequence[Mapping[str, torch.Tensor]]
    ) -> tuple[Sequence[torch.Tensor], torch.Tensor | None]:
        """For a batch of n prompts (their `features`, float32): n tensors of shape (slots, hidden_size), rows in the
        order of the prompt's slots, and the method's own losses, weighted, shape (n,); None if it has none."""
        ...


class TrainedMethod(Method, Protocol):
    """A method whose first prompt has slots for vectors, which an adapter makes.

    Training uses the first prompt of `steps` as it is, and the user's real review as the answer. `vectors` matters
    when texts are written and never in training; every other option has its own adapter.
    """

    learning_rate: ClassVar[float]
    """Where the configuration names none."""

    @property
    def vectors(self) -> Whose: ...

    @property
    def encoder(self) -> str | None:
        """Specification of the encoder behind the features (`bench.embedding`), if there is one."""
        ...

    @property
    def aux_reduction(self) -> Literal["mean", "sum"]:
        """How the method's own losses combine over the instances of one optimiser step."""
        ...

    def adapter(self, dimension: int, hidden_size: int) -> torch.nn.Module:
        """A freshly initialised `Adapter` in float32, from torch's global random state, for vectors of `dimension`
        numbers from the encoder (0 without one) and a language model of `hidden_size`."""
        ...


class Retriever(Protocol):
    """Chooses which of a user's reviews a method sees."""

    def rank(self, instance: Instance, candidates: Sequence[Review], context: Context) -> list[int]:
        """Indices into `candidates`, best first, every candidate once. Ties break by position in `candidates`."""
        ...


class Scores(Protocol):
    """What every metric has, whatever its rows are made from. Pure: the same texts give the same rows.

    A row holds the statistics of one pair; scores are a function of rows, so that resampling never tokenises again.
    """

    columns: ClassVar[tuple[str, ...]]
    """Names of the scores, e.g. ("rouge1", "rougeL")."""
    statistics: ClassVar[tuple[str, ...]]
    """Names of the entries of a row, e.g. ("rouge1", "rougeL"), or BLEU's counts and totals."""

    def check(self) -> None:
        """Raise `ResourceError` if anything it needs (data, model, package) is missing. Cheap; loads nothing."""
        ...

    def signature(self) -> str:
        """Everything that can move the number: "name|setting:value|...|version:x.y"."""
        ...

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """Scores by column over `rows`, shape (n, s). Without `weights`: arrays of shape (). With `weights`, shape
        (b, n), how often each row counts in each of b resamples: arrays of shape (b,). Raises `DataError` where the
        rows have no score, e.g. where nobody has a peer to be told from; its columns are then left out."""
        ...


class Metric(Scores, Protocol):
    """A measure of predictions against references."""

    def rows(self, predictions: Sequence[str], references: Sequence[str]) -> Array:
        """Statistics of each pair, shape (n, len(statistics))."""
        ...


class BackgroundMetric(Scores, Protocol):
    """A measure that needs more than two texts: the user's history, the item, other users' histories."""

    background: ClassVar[bool]
    """True: says that `rows` takes a third argument."""

    def rows(self, predictions: Sequence[str], references: Sequence[str], background: Background) -> Array:
        """Statistics of each pair, shape (n, len(statistics)); the entries of `background` are those of the pairs."""
        ...


class Backend(Protocol):
    """Runs calls on a language model. `submit` queues, `completed` yields answers as they come."""

    def submit(self, call: Call) -> None: ...

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        """Answers that are ready, waiting for at least one; ends when nothing more is ready at the moment.
        Raises `BackendError`."""
        ...

    def close(self) -> None: ...


class Encoder(Protocol):
    """Turns texts into vectors."""

    name: str
    """Identifies the vectors: model, revision, pooling, normalisation."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (n, d)."""
        ...
