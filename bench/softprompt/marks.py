"""Vectors for a method's marks that have no row in a language model's embedding table.

DEP frames its soft tokens with four marks, which get the tokenizer's next free ids. Qwen2.5 has spare rows there, and
the released code uses those (`model-train.py`, `resize_token_embeddings`); Llama, Mistral, Gemma and SmolLM2 have none.
What that function would put there is drawn once, before the training, kept with the adapter and never trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

SPREAD = 1e-9
"""What `transformers` multiplies the table's covariance with before it draws new rows from it: they are the mean row,
as good as."""
Vectors = Mapping[str, NDArray[np.float32]]
"""By mark, each of shape (hidden_size,)."""


@torch.no_grad()
def drawn(table: nn.Embedding, count: int, seed: int) -> Tensor:
    """What an embedding table would give for new rows, float32 of shape (count, hidden_size), as
    `transformers.PreTrainedModel.resize_token_embeddings` draws them."""
    # Not its weights: Gemma's multiplies them.
    rows: Tensor = table(torch.arange(table.num_embeddings, device=table.weight.device)).to("cpu", torch.float32)
    mean = rows.mean(dim=0)
    centred = rows - mean
    covariance = SPREAD * (centred.T @ centred / len(rows))
    if torch.linalg.cholesky_ex(covariance).info:
        return mean.repeat(count, 1)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        found: Tensor = MultivariateNormal(mean, covariance_matrix=covariance).sample((count,))
    return found


def give_rows(model: Any, vectors: Mapping[str, Tensor], ids: Mapping[str, int]) -> None:
    """Let a model's input embeddings have the vectors of marks at their ids, none of which has a row. The softmax stays
    as it is."""
    table = model.get_input_embeddings()
    extra = torch.zeros(max(ids.values()) + 1 - table.num_embeddings, table.embedding_dim)
    for mark, token in ids.items():
        extra[token - table.num_embeddings] = vectors[mark]
    model.set_input_embeddings(_TableAndMarks(table, extra.to(table.weight)))


class _TableAndMarks(nn.Module):
    extra: Tensor

    def __init__(self, table: nn.Embedding, extra: Tensor) -> None:
        super().__init__()
        self.table = table
        self.register_buffer("extra", extra, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Shape (..., hidden_size) for ids of shape (...)."""
        rows = self.table.num_embeddings
        text: Tensor = self.table(ids.clamp(max=rows - 1))
        beyond = ids >= rows
        if not bool(beyond.any()):
            return text
        return torch.where(beyond[..., None], self.extra[(ids - rows).clamp(min=0)], text)
