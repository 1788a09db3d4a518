"""The plain records that everything passes along.

An `Instance` carries everything a method may see of one prediction task; the text it has to predict
is *not* part of it (`bench.data.corpus.Corpus.reference` holds that), so no method can leak it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
)
"""What reasoning models put around their thoughts, before the answer."""
_THOUGHT = re.compile(
    "|".join(rf"{re.escape(start)}.*?(?:{re.escape(end)}|\Z)" for start, end in THOUGHTS), re.DOTALL | re.IGNORECASE
)
_END = re.compile("|".join(re.escape(end) for _, end in THOUGHTS), re.IGNORECASE)
_SURROGATES = re.compile("[\ud800-\udfff]")


class Absent(str):
    """The empty text of a field that the data lack: a template leaves out the line that would show it alone."""

    __slots__ = ()


ABSENT = Absent()

Fields = Mapping[str, str | float]
"""What stands in templates, by the name of its placeholder. Numbers are written as Python writes them, e.g. 5.0."""


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of a user's profile: a `text` that the user wrote, and what the task shows of it beside the text.

    `group` is what peers share (for a review its item), None where nothing is shared; `timestamp` is in milliseconds
    since 1970, None where the data has no times.
    """

    user_id: str
    text: str
    fields: Fields = field(hash=False)
    group: str | None = None
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """One prediction task: write the text that `user_id` wrote under the circumstances in `given`.

    `given` is all that a model may know of the target; `profile` holds the user's earlier records, ascending in time
    where they have times (LaMP's term). `group` and `timestamp` are the target's, as in `Record`. `id` is unique in a
    data set: "<category>/<split>/<user_id>" or, where a user has several, "<category>/<split>/<user_id>/<k>".
    """

    id: str
    category: str
    split: str
    user_id: str
    given: Fields = field(hash=False)
    profile: tuple[Record, ...]
    group: str | None = None
    timestamp: int | None = None


class Features(Mapping[str, NDArray[np.float32]]):
    """Features that are made when they are first looked at: who only reads a prompt's text needs no encoder."""

    def __init__(self, make: Callable[[], Mapping[str, NDArray[np.float32]]]) -> None:
        self._make: Callable[[], Mapping[str, NDArray[np.float32]]] | None = make
        self._made: Mapping[str, NDArray[np.float32]] = {}

    def _all(self) -> Mapping[str, NDArray[np.float32]]:
        if self._make is not None:
            self._made = self._make()
            # What it holds on to is not needed any more.
            self._make = None
        return self._made

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


@dataclass(frozen=True, slots=True)
class Prompt:
    """One chat prompt of a method: a system and a user message.

    `blocks_shown` counts the history blocks that fit the input budget, `blocks_offered` those the retriever gave.
    A soft prompt has `slots`: the placeholders in its text, in the order of the text, e.g. "[HIS_TOKEN_0]", each of
    which a vector takes the place of, and `marks`: tokens that the method adds to the model's tokenizer, in this order.
    `features` are what the method's adapter makes these vectors from. `counts` are whole numbers that are worth summing
    over a run. `model` is another model than the run's, by its name on a server, that is to answer; the method declares
    it (`models` in `bench.protocols.Method`).
    """

    stage: str
    system: str
    user: str
    blocks_shown: int = 0
    blocks_offered: int = 0
    slots: tuple[str, ...] = ()
    marks: tuple[str, ...] = field(default=(), compare=False, repr=False)
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, compare=False, repr=False)
    counts: Mapping[str, int] = field(default_factory=dict, compare=False)
    model: str | None = None

    @property
    def hash(self) -> str:
        """SHA-256 over everything in the prompt that the model sees, as hex; for vectors, over what they are made
        from (the adapter that makes them is part of a run's identity, and so is the model)."""
        digest = hashlib.sha256()
        for text in (self.system, self.user):
            digest.update(len(text).to_bytes(8, "little"))
            digest.update(text.encode("utf-8", "surrogatepass"))
        for name, values in sorted(self.features.items()):
            digest.update(f"{name}{values.shape}".encode())
            digest.update(np.ascontiguousarray(values, "<f4").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a language model. `key` is (instance id, stage, index) and unique in a run; `vectors` has a row
    for each slot of the prompt, shape (slots, hidden_size); `marks` has a vector, shape (hidden_size,), for each mark
    for which the model has no embedding of its own."""

    key: tuple[str, str, int]
    prompt: Prompt
    seed: int
    temperature: float
    top_p: float
    max_new_tokens: int
    vectors: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    marks: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Completion:
    """What a language model answered to a call; `seconds` is the time from submission to the last token.

    `text` is the answer as it came, but for lone surrogates, which no file and no server takes: U+FFFD stands in their
    place. Numbers of tokens are None where a server does not tell them. `shortened`: a server read far fewer tokens
    than the prompt has.
    """

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str
    seconds: float
    shortened: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", _SURROGATES.sub("\ufffd", self.text))

    @property
    def said(self) -> str:
        """See `said`."""
        return said(self.text)


def said(text: str) -> str:
    """An answer without thoughts and without white space around it. A thought that does not end hides the rest; one
    that ends without a beginning, which the chat template wrote, hides what is before it."""
    rest = _END.split(_THOUGHT.sub("", text))[-1].strip()
    # Zero-width characters alone say nothing.
    return rest if any(sign.isprintable() and not sign.isspace() for sign in rest) else ""
