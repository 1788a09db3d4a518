"""What PPlug learns; apart from the method, whose options are read without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class PPlugAdapter(nn.Module):
    """Two projectors, for the user and for a learned instruction. Zero vectors fill the softmax up to `rows` rows."""

    def __init__(
        self, dimension: int, hidden_size: int, rows: int, init_instruction: Literal["normal", "uniform"] = "normal"
    ) -> None:
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
        if init_instruction == "uniform":
            # Last: the projectors start as they do beside the other one.
            nn.init.uniform_(self.instruction)

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
