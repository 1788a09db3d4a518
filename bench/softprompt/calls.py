"""Calls with vectors: what is found before an engine or a server gets one, which would not find it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.chat import Chat
from bench.errors import BackendError, PluginError
from bench.records import Call

if TYPE_CHECKING:
    import torch

NEUTRAL = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""Penalties of tokens that were there before, which vectors are not, and the values that switch them off."""


def check_call(call: Call, ids: list[int], chat: Chat, model: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Raise `PluginError` for a call, whose prompt has these token ids, if its vectors are not one for each slot, of
    the model's size and finite in `dtype`; `BackendError` for ids that the model does not have. `shape` is that of its
    embedding table, (rows, hidden size)."""
    import torch

    prompt = call.prompt
    wanted = (len(prompt.slots), shape[1])
    got = None if call.vectors is None else call.vectors.shape
    if got != wanted:
        raise PluginError(
            f"{call.key}: prompt {prompt.stage} needs vectors of shape {wanted} (slots, hidden size of '{model}'), it "
            f"has {'none' if got is None else got}"
        )
    if not bool(torch.tensor(call.vectors, dtype=dtype).isfinite().all()):
        # The engine takes it, and texts of other requests on it change.
        raise PluginError(
            f"{call.key}: prompt {prompt.stage} has a vector with a number that is not finite in {dtype}; the "
            "adapter's weights are broken, or too large for this dtype"
        )
    known = chat.vectors_at(call, ids, shape[0])
    if unknown := sorted({token for place, token in enumerate(ids) if place not in known and token >= shape[0]}):
        raise BackendError(
            f"{call.key}: prompt {prompt.stage} holds token ids {', '.join(map(str, unknown))}, but '{model}' has only "
            f"{shape[0]} embeddings: its tokenizer is another model's"
        )
