"""What lyrebird learns; apart from the method, whose options are read without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class Song(nn.Module):
    """One vector of a language model's `hidden_size`."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.empty(1, hidden_size).normal_(std=0.02))

    def forward(self, features: Sequence[Mapping[str, Tensor]]) -> tuple[list[Tensor], None]:
        """The same vector, shape (1, hidden_size), for each prompt; no own losses."""
        return [self.vector for _ in features], None
