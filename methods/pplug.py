"""PPlug: the user's whole history as one soft token, weighted by likeness to the input (Liu et al., 2025)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.context import Context
from bench.errors import ConfigError
from bench.protocols import Properties, Steps, Whose
from bench.records import Features, Instance, Prompt

if TYPE_CHECKING:
    from torch import nn

_INSTRUCTION, _USER = "[INSTRUCTION_TOKEN_0]", "[USER_TOKEN_0]"


@dataclass(frozen=True)
class PPlug:
    """Non-Perso's prompt with two soft tokens at its head: a learned instruction and the user.

    The user's vector is the sum of the projected embeddings of the newest `max_history` reviews, weighted by the
    softmax of their inner products with the embedding of the input (DEP paper, appendix B). Without `mask_padding`
    the softmax takes in zero vectors up to `max_history`, as in the DEP authors' code, where the instruction's vector
    starts uniform in [0, 1) (`init_instruction`), some 18 times as long as an embedding. A user without a history has
    the instruction alone.
    """

    encoder: str = "BAAI/bge-m3"
    max_history: Annotated[int, Field(ge=1)] = 512
    mask_padding: bool = True
    init_instruction: Literal["normal", "uniform"] = "normal"
    vectors: Whose = "own"

    properties: ClassVar[Properties] = Properties(retrieval_augmented=False, embedded=True, inter_user=False)
    official: ClassVar[Mapping[str, object]] = {"mask_padding": False, "init_instruction": "uniform"}
    learning_rate: ClassVar[float] = 1e-5
    """DEP's: PPlug's own is not published."""
    aux_reduction: ClassVar[Literal["mean", "sum"]] = "mean"
    marks: ClassVar[tuple[str, ...]] = ()

    def steps(self, instance: Instance, context: Context) -> Steps:
        (text,) = yield [self._prompt(instance, context)]
        return text

    def adapter(self, dimension: int, hidden_size: int) -> nn.Module:
        """Two projectors and the instruction's vector."""
        from bench.methods._pplug_adapter import PPlugAdapter

        rows = 0 if self.mask_padding else self.max_history
        return PPlugAdapter(dimension, hidden_size, rows, self.init_instruction)

    def _prompt(self, instance: Instance, context: Context) -> Prompt:
        history = [record.text for record in instance.profile[-self.max_history :]]
        slots = (_INSTRUCTION, _USER) if history else (_INSTRUCTION,)
        prompt = context.prompt("write", instance, texts={"soft_tokens": "".join(slots)}, soft=True)
        if prompt.slots != slots:
            raise ConfigError(
                f"the prompt {prompt.stage} must hold {{{{soft_tokens}}}} once, and input_budget leave room for it"
            )
        if not history:
            return prompt
        asked = prompt.user
        for slot in slots:
            asked = asked.replace(slot, "")

        def features() -> dict[str, NDArray[np.float32]]:
            vectors = context.embed([asked.lstrip("\n"), *history], self.encoder)
            return {"input": vectors[:1], "history": vectors[1:]}

        return dataclasses.replace(prompt, features=Features(features))
