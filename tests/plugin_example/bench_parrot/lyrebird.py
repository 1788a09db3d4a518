"""lyrebird: a method that learns one vector, which stands between marks of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.context import Context
from bench.protocols import Properties, Steps, Whose
from bench.records import Instance

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Lyrebird:
    """What is given of the target, and the same learned vector for everybody."""

    properties: ClassVar[Properties] = Properties(retrieval_augmented=False, embedded=False, inter_user=False)
    learning_rate: ClassVar[float] = 1e-3
    aux_reduction: ClassVar[Literal["mean", "sum"]] = "mean"
    vectors: ClassVar[Whose] = "own"
    encoder: ClassVar[str | None] = None
    marks: ClassVar[tuple[str, ...]] = ("<song_start>", "<song_end>")

    def steps(self, instance: Instance, context: Context) -> Steps:
        """One call, with the vector in the prompt."""
        (text,) = yield [context.prompt("write", instance, soft=True)]
        return text

    def adapter(self, dimension: int, hidden_size: int) -> nn.Module:
        """The vector and nothing else."""
        from bench_parrot._lyrebird_adapter import Song

        return Song(hidden_size)
