"""What E2P learns; apart from the method, whose options are read without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class E2PAdapter(nn.Module):
    """One linear projection from the encoder's `dimension` to a language model's `hidden_size`."""

    def __init__(self, dimension: int, hidden_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(dimension, hidden_size)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, features: Sequence[Mapping[str, Tensor]]) -> tuple[list[Tensor], None]:
        """A vector, shape (1, hidden_size), for each prompt; no own losses. A user without a history has the zero
        vector, so that the projection's bias is left."""
        weight = self.project.weight
        unknown = weight.new_zeros(1, self.project.in_features)
        users = torch.cat([one["user"].to(weight.dtype) if one else unknown for one in features])
        return list(torch.split(self.project(users), 1)), None
