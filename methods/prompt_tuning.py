"""prompt_tuning (control): learned vectors that are the same for all users. What training alone gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from bench.context import Context
from bench.errors import ConfigError
from bench.problems import at_most
from bench.protocols import Properties, Steps, Whose
from bench.records import Instance, Prompt

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class PromptTuning:
    """RAG's prompt with `length` learned soft tokens (Lester et al., 2021): what a method with personal vectors gains
    over it, it gains from their being personal, not from training. They stand at the end of the user's turn, so that
    most of the prompt needs no gradient."""

    length: Annotated[int, Field(ge=1), at_most(10_000, "each is a token of the prompt")] = 16

    properties: ClassVar[Properties] = Properties(retrieval_augmented=True, embedded=False, inter_user=False)
    learning_rate: ClassVar[float] = 1e-3
    """The vectors are the parameters, with no projector between: Adam moves a number by about the learning rate a
    step, and at 1e-5 the whole of training would move it by less than its initial spread."""
    aux_reduction: ClassVar[Literal["mean", "sum"]] = "mean"
    vectors: ClassVar[Whose] = "own"
    encoder: ClassVar[str | None] = None
    marks: ClassVar[tuple[str, ...]] = ()

    def steps(self, instance: Instance, context: Context) -> Steps:
        (text,) = yield [self._prompt(instance, context)]
        return text

    def adapter(self, dimension: int, hidden_size: int) -> nn.Module:
        """The vectors and nothing else."""
        from bench.methods._prompt_tuning_adapter import PromptTuningAdapter

        return PromptTuningAdapter(self.length, hidden_size)

    def _prompt(self, instance: Instance, context: Context) -> Prompt:
        slots = tuple(f"[PROMPT_TOKEN_{index}]" for index in range(self.length))
        prompt = context.prompt(
            "write",
            instance,
            history=context.retrieve(instance),
            texts={"soft_tokens": "".join(slots)},
            soft=True,
        )
        if prompt.slots != slots:
            raise ConfigError(
                f"the prompt {prompt.stage} has {len(prompt.slots)} slots, not prompt_tuning.length="
                f"{self.length}: its template must hold {{{{soft_tokens}}}} once"
            )
        return prompt
