"""prompt_tuning (control): learned vectors that are the same for all users. What training alone gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.context import Context
from bench.errors import ConfigError
from bench.protocols import Properties, Steps, Whose
from bench.records import Instance, Prompt


@dataclass(frozen=True)
class PromptTuning:
    """RAG's prompt with `length` learned soft tokens (Lester et al., 2021): what a method with personal vectors gains
    over it, it gains from their being personal, not from training. They stand at the end of the user's turn, so that
    most of the prompt needs no gradient."""

    length: Annotated[int, Field(ge=1)] = 16

    properties: ClassVar[Properties] = Properties(retrieval_augmented=True, embedded=False, inter_user=False)
    learning_rate: ClassVar[float] = 1e-3
    """The vectors are the parameters, with no projector between: Adam moves a number by about the learning rate a
    step, and at 1e-5 the whole of training would move it by less than its initial spread."""
    aux_reduction: ClassVar[Literal["mean", "sum"]] = "mean"
    vectors: ClassVar[Whose] = "own"
    encoder: ClassVar[str | None] = None

    def steps(self, instance: Instance, context: Context) -> Steps:
        (review,) = yield [self._prompt(instance, context)]
        return review

    def adapter(self, dimension: int, hidden_size: int) -> nn.Module:
        """The vectors and nothing else."""
        return _Adapter(self.length, hidden_size)

    def _prompt(self, instance: Instance, context: Context) -> Prompt:
        slots = tuple(f"[PROMPT_TOKEN_{index}]" for index in range(self.length))
        prompt = context.prompt(
            "prompt_tuning_review",
            instance,
            history=context.retrieve(instance),
            soft=True,
            soft_tokens="".join(slots),
        )
        if prompt.slots != slots:
            raise ConfigError(
                f"the prompt prompt_tuning_review has {len(prompt.slots)} slots, not prompt_tuning.length="
                f"{self.length}: its template must hold {{{{soft_tokens}}}} once"
            )
        return prompt


class _Adapter(nn.Module):
    def __init__(self, length: int, hidden_size: int) -> None:
        super().__init__()
        # About as large as a language model's token embeddings.
        self.vectors = nn.Parameter(torch.empty(length, hidden_size).normal_(std=0.02))

    def forward(self, features: Sequence[Mapping[str, Tensor]]) -> tuple[list[Tensor], None]:
        """The same vectors, shape (length, hidden_size), for each prompt; no own losses."""
        return [self.vectors for _ in features], None
