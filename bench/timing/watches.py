"""Watches: they take the time of a part of a run, or keep note of what goes through it, and change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bench.errors import BackendError

if TYPE_CHECKING:
    from bench.context import Context
    from bench.protocols import Retriever
    from bench.records import Call, Completion, Instance, Record
    from bench.vector_file import Vectors

Clock = Callable[[], float]
"""Seconds from some moment on."""


@dataclass
class WatchedEmbedder:
    """Embeds, and keeps note of the texts by encoder, each once and in their order."""

    embed: Callable[[Sequence[str], str], Vectors]
    texts: dict[str, dict[str, None]] = field(default_factory=dict)

    def __call__(self, texts: Sequence[str], encoder: str) -> Vectors:
        self.texts.setdefault(encoder, {}).update(dict.fromkeys(texts))
        return self.embed(texts, encoder)


@dataclass
class WatchedRetriever:
    """Adds up the seconds that a retriever ranks."""

    retriever: Retriever
    clock: Clock = perf_counter
    seconds: float = 0.0

    def rank(self, instance: Instance, candidates: Sequence[Record], context: Context) -> list[int]:
        started = self.clock()
        ranking = self.retriever.rank(instance, candidates, context)
        self.seconds += self.clock() - started
        return ranking


class Engine(Protocol):
    """A backend that is running."""

    def submit(self, call: Call) -> None: ...

    def completed(self) -> Iterator[tuple[Call, Completion]]: ...


@dataclass
class WatchedBackend:
    """Takes the time of each instance's first call and last answer, and counts what the engine answered."""

    backend: Engine
    clock: Clock = perf_counter
    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    answers: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    def submit(self, call: Call) -> None:
        self.first.setdefault(call.key[0], self.clock())
        self.backend.submit(call)

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        for call, completion in self.backend.completed():
            self.last[call.key[0]] = self.clock()
            self.answers += 1
            self.prompt_tokens += _known(completion.prompt_tokens)
            self.output_tokens += _known(completion.completion_tokens)
            yield call, completion

    def figures(self, instances: int, seconds: float) -> dict[str, float]:
        """Speed, work and latency of a pass."""
        latencies = [self.last[instance] - started for instance, started in self.first.items()]
        return {
            "output_tokens_per_second": self.output_tokens / seconds,
            "latency_p50": float(np.quantile(latencies, 0.5)),
            "latency_p95": float(np.quantile(latencies, 0.95)),
            "calls": self.answers / instances,
            "prompt_tokens": self.prompt_tokens / instances,
            "output_tokens": self.output_tokens / instances,
        }


def _known(tokens: int | None) -> int:
    """A number of tokens. Raises `BackendError` for a server that does not tell it: a speed cannot be made up."""
    if tokens is None:
        raise BackendError("the server does not say how many tokens it read and wrote (usage), which a timing needs")
    return tokens
