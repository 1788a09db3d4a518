"""What a plugin or a backend has to offer. Protocols, not base classes: nothing needs to be inherited.

A plugin is one class in one file, a frozen dataclass whose fields are its options. The registry builds it from the
configuration's section of the same name, so `--set bertscore.layer=6` reaches the field `layer` of `BERTScore`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.batch import Batch
from bench.config import RunConfig, Section
from bench.data.corpus import Corpus
from bench.records import Call, Completion, Instance, Prompt, Record

if TYPE_CHECKING:
    import torch

    from bench.chat import Chat
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
    repeats: bool = False
    """It repeats an earlier answer of the user (`Task.answer`)."""


class Task(Protocol):
    """What is to be written, and how its instances and records read.

    Templates lie beside the task's file, in `prompts/<task>/`: `block.txt`, a record as a history block; `given.txt`,
    what is known of the target; `instruction.txt`, one sentence. Methods' general templates take in the latter two.

    A record's `text` is what the user wrote there: it is embedded, compared with peers', and cut first where a prompt
    is too long. What the user *answered* there, the like of what is to be predicted, may be something else, e.g. the
    rating of a review: a method `answer(record)` gives it as a text (without one: the record's text); a class attribute
    `answered = False` says that records hold no answer. `settings` are values of the configuration where it says
    nothing: the retriever, the score that chooses an epoch (`train.select_by`), options of metrics. A method
    `sample(folder)` writes data of 50 invented users, in a layout of the task: its "demo".
    """

    target: ClassVar[str]
    """What is written, in one word: "review". It names the last stage of a method, e.g. rag_review."""
    grouped: ClassVar[bool]
    """Whether records and instances have a `group`, so that a user has peers."""
    timed: ClassVar[bool | None]
    """Whether they have a `timestamp`; None: some data of the task do."""
    long_fields: ClassVar[tuple[str, ...]]
    """Names in `fields` and `given` whose texts may be cut where a prompt is too long for the input budget, in this
    order; a record's own text is cut before them."""
    metrics: ClassVar[tuple[str, ...]]
    """The metrics where the configuration names none."""
    max_new_tokens: ClassVar[int]
    """The longest answer, in tokens, where the configuration says nothing."""

    def query(self, instance: Instance) -> str:
        """What retrievers look for."""
        ...

    def document(self, record: Record) -> str:
        """What they look for it in."""
        ...

    def about(self, instance: Instance) -> str:
        """What the text is about, in words (a judge reads it)."""
        ...

    def shown(self, instance: Instance) -> Mapping[str, str]:
        """What a person is shown of the target, by label."""
        ...

    def shown_record(self, record: Record) -> Mapping[str, str]:
        """What a person is shown of a record beside its text, by label."""
        ...


class Layout(Protocol):
    """A form in which data sets lie in folders.

    A class attribute `tasks`, a pattern of names such as "lamp-*", says that data of this form serve several tasks:
    `task` is then an option, the name of one of them.
    """

    task: ClassVar[str]
    """Name of the task whose instances it makes."""
    form: ClassVar[str]
    """How a folder is told to be of this form, for messages: "<category>/manifest.json, as ... writes it"."""

    def categories(self, folder: Path) -> list[str]:
        """The categories in a folder, none if it is not of this form. Cheap."""
        ...

    def read(self, folder: Path, category: str) -> Corpus:
        """One of them. Raises `DataError`."""
        ...


class Method(Protocol):
    """A way to make a language model write as a given user would.

    Its templates lie beside its file, in `prompts/<method>/<task>/<name>.txt` or, for any task,
    `prompts/<method>/<name>.txt`. A class attribute `prompts_of` names another method whose templates it uses; an
    attribute `templates` names those of them that it can render with its options (default: all). An attribute `models`
    names the models other than the run's that its prompts ask for (`Prompt.model`; default: none).
    """

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
    marks: ClassVar[tuple[str, ...]]
    """Tokens that its prompts add to the model's tokenizer, in this order: placeholders of fixed numbers and the marks
    around them. Slots that are not among them are added after them."""

    @property
    def vectors(self) -> Whose: ...

    @property
    def encoder(self) -> str | None:
        """Specification of the encoder behind the features (`bench.encoders`), if there is one."""
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
    """Chooses which of a user's records a method sees. A class attribute `timed = True` says that it needs times."""

    def rank(self, instance: Instance, candidates: Sequence[Record], context: Context) -> list[int]:
        """Indices into `candidates`, best first, every candidate once. Ties break by position in `candidates`."""
        ...


@dataclass(frozen=True)
class Column:
    """A score that a metric gives: its name, its head in tables (default: the name), the decimals of the value (the
    paper's) and of its interval, and which values are better; None where a score is neither good nor bad."""

    name: str
    head: str = ""
    decimals: int = 4
    interval_decimals: int = 3
    better: Literal["higher", "lower"] | None = "higher"

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", self.head or self.name.replace("_", " "))

    @property
    def arrow(self) -> str:
        """Which way is better, as a sign; empty for neither."""
        return {"higher": "↑", "lower": "↓", None: ""}[self.better]


class Metric(Protocol):
    """A measure of predictions. Pure: the same texts, and the same data behind them, give the same rows.

    A row holds the statistics of one prediction; scores are a function of rows, so that resampling never tokenises
    again. A class attribute `reads_data = True` says that `rows` asks the batch for more than texts; `grouped = True`,
    that it needs a task whose users have peers; `asks = True`, that it asks a model of its own about each prediction.
    A method `note(references)` may give a sentence that has to stand with the scores of these references, or "".
    """

    columns: ClassVar[tuple[Column, ...]]
    """The scores it gives."""
    statistics: ClassVar[tuple[str, ...]]
    """Names of the entries of a row, e.g. ("rouge1", "rougeL"), or BLEU's counts and totals."""

    def check(self) -> None:
        """Raise `ResourceError` if anything it needs (data, model, package) is missing. Cheap; loads nothing."""
        ...

    def signature(self) -> str:
        """Everything that can move the number: "name|setting:value|...|version:x.y"."""
        ...

    def rows(self, batch: Batch) -> Array:
        """Statistics of each prediction, shape (n, len(statistics)), finite."""
        ...

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """Scores by the columns' names over `rows`, shape (n, s). Without `weights`: arrays of shape (). With
        `weights`, shape (b, n), how often each row counts in each of b resamples: arrays of shape (b,). Raises
        `DataError` where the rows have no score, e.g. where nobody has a peer to be told from; its columns are then
        left out."""
        ...


class Backend(Protocol):
    """Runs calls on a language model. `submit` queues, `completed` yields answers as they come.

    A backend that works only while `completed` runs has a class attribute `a_turn`: so many calls at most are submitted
    before `completed` is asked again, which then does a step of the work and may yield nothing.

    `settings` describes its section of the configuration, each field marked with what it can change; its marks decide
    what is part of a run's identity. A backend that runs several engines of another backend names that one in a class
    attribute `spreads`: a run is then that backend's, whose section its engines have, and only where it runs differs.
    Its attribute `engines`, of an instance, says for how many windows of calls there is room. A class attribute
    `other_models = True` says that it takes calls for other models than the run's (`Prompt.model`).
    """

    settings: ClassVar[type[Section]]
    takes_vectors: ClassVar[bool]
    """Whether it takes calls with vectors (soft prompts)."""
    applies_template: ClassVar[bool]
    """Whether the harness's chat template counts; a server applies the model's own."""
    timing: ClassVar[Mapping[str, object]]
    """Settings that a timing needs, whatever the configuration says."""

    def __init__(self, config: RunConfig, chat: Chat, vectors: bool) -> None:
        """Start, with `vectors` for calls with vectors too. Raises `BackendError`."""
        ...

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Find out before any work what can be known to fail. Cheap; loads nothing. Raises `BenchError`."""
        ...

    @classmethod
    def device(cls) -> str:
        """What the model runs on, in words."""
        ...

    def submit(self, call: Call) -> None: ...

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        """Answers that are ready, waiting for at least one (or a step, see above); ends when nothing more is ready at
        the moment. Raises `BackendError`."""
        ...

    def close(self) -> None: ...


class Encoder(Protocol):
    """Turns texts into vectors."""

    name: str
    """Identifies the vectors: model, revision, pooling, normalisation."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (n, d)."""
        ...
