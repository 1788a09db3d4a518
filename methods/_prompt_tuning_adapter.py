"""What prompt tuning learns; apart from the method, whose options are read without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class PromptTuningAdapter(nn.Module):
    """`length` vectors of a language model's `hidden_size`."""

    def __init__(self, length: int, hidden_size: int) -> None:
        super().__init__()
        # About as large as a language model's token embeddings.
        self.vectors = nn.Parameter(torch.empty(length, hidden_size).normal_(std=0.02))

    def forward(self, features: Sequence[Mapping[str, Tensor]]) -> tuple[list[Tensor], None]:
        """The same vectors, shape (length, hidden_size), for each prompt; no own losses."""
        return [self.vectors for _ in features], None
