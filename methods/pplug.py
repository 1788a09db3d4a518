"""PPlug: the user's whole history as one soft token, weighted by likeness to the input (Liu et al., 2025)."""

from __future__ import annotations

import dataclasses
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

_INSTRUCTION, _USER = "[INSTRUCTION_TOKEN_0]", "[USER_TOKEN_0]"


@dataclass(frozen=True)
class PPlug:
    """Non-Perso's prompt with two soft tokens at its head: a learned instruction and the user.

    The user's vector is the sum of the projected embeddings of the newest `max_history` reviews, weighted by the
    softmax of their inner products with the embedding of the input (DEP paper, appendix B). Without `mask_padding`
    the softmax takes in zero vectors up to `max_history`, as in the DEP authors' code. A user without a history has
    the instruction alone.
    """

    encoder: str = "BAAI/bge-m3"
    max_history: Annotated[int, Field(ge=1)] = 512
    mask_padding: bool = True
    vectors: Whose = "own"

    properties: ClassVar[Properties] = Properties(retrieval_augmented=False, embedded=True, inter_user=False)
    official: ClassVar[Mapping[str, object]] = {"mask_padding": False}
    learning_rate: ClassVar[float] = 1e-5
    """DEP's: PPlug's own is not published."""
    aux_reduction: ClassVar[Literal["mean", "sum"]] = "mean"

    def steps(self, instance: Instance, context: Context) -> Steps:
        (review,) = yield [self._prompt(instance, context)]
        return review

    def adapter(self, dimension: int, hidden_size: int) -> nn.Module:
        """Two projectors and the instruction's vector."""
        return _Adapter(dimension, hidden_size, 0 if self.mask_padding else self.max_history)

    def _prompt(self, instance: Instance, context: Context) -> Prompt:
        history = [review.text for review in instance.profile[-self.max_history :]]
        slots = (_INSTRUCTION, _USER) if history else (_INSTRUCTION,)
        prompt = context.prompt("pplug_review", instance, soft=True, soft_tokens="".join(slots))
        if prompt.slots != slots:
            raise ConfigError(
                "the template pplug_review must hold {{soft_tokens}} once, and input_budget leave room for it"
            )
        if not history:
            return prompt
        asked = prompt.user
        for slot in slots:
            asked = asked.replace(slot, "")
        vectors = context.embed([asked.lstrip("\n"), *history], self.encoder)
        return dataclasses.replace(prompt, features={"input": vectors[:1], "history": vectors[1:]})


class _Adapter(nn.Module):
    """`rows`: how many rows the softmax is filled up to with zero vectors."""

    def __init__(self, dimension: int, hidden_size: int, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.project_user = _projector(dimension, hidden_size)
        self.project_instruction = _projector(dimension, hidden_size)
        # As long as an embedding, whose projector is of the same form.
        self.instruction = nn.Parameter(torch.empty(1, dimension).normal_(std=dimension**-0.5))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Mapping[str, Tensor]]) -> tuple[list[Tensor], None]:
        """Vectors, shape (2, hidden_size) for each prompt, or (1, hidden_size) without a history; no own losses."""
        instruction = self.project_instruction(self.instruction)
        known = [one for one in features if one]
        users = iter(torch.split(self._users(known), 1) if known else ())
        return [torch.cat([instruction, next(users)]) if one else instruction for one in features], None

    def _users(self, features: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """The user vectors, shape (n, hidden_size). The projector's last layer is linear and the weights sum to 1, so
        it is applied once to the weighted sum, not to each review."""
        dtype = self.instruction.dtype
        first, activation, last = self.project_user
        histories = [one["history"].to(dtype) for one in features]
        lengths = [len(history) for history in histories]
        hidden: Tensor = activation(first(torch.cat(histories)))
        nothing = activation(first.bias)
        sums = []
        for one, history, projected in zip(features, histories, torch.split(hidden, lengths), strict=True):
            scores = history @ one["input"][0].to(dtype)
            padding = scores.new_zeros(max(self.rows - len(scores), 0))
            weights = torch.cat([scores, padding]).softmax(dim=0)
            sums.append(weights[: len(scores)] @ projected + weights[len(scores) :].sum() * nothing)
        users: Tensor = last(torch.stack(sums))
        return users


def _projector(dimension: int, hidden_size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dimension, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size))
