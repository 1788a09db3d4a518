"""The forward pass of a decoder of Llama's kind, without what no loss and no gradient needs.

Beside `transformers`' own forward pass it leaves out: in the last layer everything but keys and values where nothing is
predicted; in the first layer the gradient of what the tokens of the text say to one another, which no vector can
change; in every attention the keys behind a query, in chunks, where other queries' keys stand before the first query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

KNOWN = ("gemma", "llama", "mistral", "qwen2")
"""Types of models (`model_type`) whose layers are computed as here: all of them pre-normed, with rotated halves."""
CHUNK = 256
"""Queries that look back together."""
WORTH_KEEPING = 128
"""Positions from which on a prefix is kept; shorter ones are quickly made again, those of a batch together."""

Matrix = NDArray[np.int64]


@dataclass(frozen=True)
class Slots:
    """Where the n vectors of a batch stand: row and column of each, and its number among those of its row, each of
    shape (n,)."""

    rows: Tensor
    columns: Tensor
    numbers: Tensor

    @classmethod
    def at(cls, positions: Sequence[NDArray[np.int32]], device: torch.device) -> Slots:
        """`positions` are those of each row of a batch."""
        rows = np.repeat(np.arange(len(positions)), [len(row) for row in positions])
        numbers = np.concatenate([np.arange(len(row)) for row in positions])
        columns = np.concatenate(positions).astype(np.int64)
        return cls(*(torch.as_tensor(part, device=device) for part in (rows, columns, numbers)))


def fits(model: Any, longest: int) -> bool:
    """Whether sequences of `longest` tokens can go through `hidden_states` of this module."""
    if model.config.model_type not in KNOWN or len(model.base_model.layers) < 2:
        return False
    window = getattr(model.config, "sliding_window", None)
    return window is None or window >= longest


KeysAndValues = list[tuple[Tensor, Tensor]]
"""Of each layer, shape (b, heads, positions, head_dim)."""


class Prefixes:
    """Keys and values of the positions before each example's first slot, which no training changes. Long ones are
    computed alone, so that no company changes a bit, and kept while all together take at most `limit` bytes."""

    def __init__(self, limit: int = 0) -> None:
        self._left = limit
        self._kept: dict[int, KeysAndValues] = {}

    def of(
        self, model: Any, text: Tensor, owners: Sequence[object], firsts: Sequence[int], start: int
    ) -> KeysAndValues:
        """Of the positions before `start` of a batch's examples `owners`, which live as long as this; `firsts` says how
        many each could have."""
        if start < WORTH_KEEPING:
            return _before(model.base_model, text[:, :start])
        found = []
        for row, (owner, first) in enumerate(zip(owners, firsts, strict=True)):
            if (states := self._kept.get(id(owner))) is None:
                states = _before(model.base_model, text[row : row + 1, :first])
                size = sum(part.nbytes for both in states for part in both)
                if size <= self._left:
                    self._left -= size
                    self._kept[id(owner)] = states
            found.append(states)
        return [
            (
                torch.cat([keys[:, :, :start] for keys, _ in rows]),
                torch.cat([values[:, :, :start] for _, values in rows]),
            )
            for rows in zip(*found, strict=True)
        ]


def hidden_states(
    model: Any,
    text: Tensor,
    vectors: Tensor,
    slots: Slots,
    start: int,
    predicting: Matrix,
    before: KeysAndValues | None,
) -> Tensor:
    """The states after the final norm at the positions `predicting`, which are ascending in each of the b rows, shape
    (b, positions, hidden_size).

    `text` are the embedded tokens, shape (b, length, hidden_size), in which `vectors`, shape (n, hidden_size), take the
    places `slots`, none of them before position `start`; `before` are the keys and values before it.
    """
    base = model.base_model
    turns = base.rotary_emb(text, torch.arange(text.shape[1], device=text.device)[None])
    turns_after = (turns[0][:, start:], turns[1][:, start:])
    earlier: Sequence[tuple[Tensor, Tensor] | None] = before or [None] * len(base.layers)
    sight = _Sight.of(np.arange(start, text.shape[1])[None], text)
    states = text[:, start:].index_put((slots.rows, slots.columns - start), vectors)
    for number, layer in enumerate(base.layers[:-1]):
        attention = layer.self_attn
        if number == 0:
            seen = _first_attention(layer, text, vectors, slots, start, turns, earlier[0], sight)
        else:
            normed = layer.input_layernorm(states)
            keys, values = _keys_and_values(attention, normed, turns_after, earlier[number])
            seen = _attend(attention, _queries(attention, normed, turns_after), keys, values, sight)
        states = _rest(layer, states, seen)
    last = base.layers[-1]
    normed = last.input_layernorm(states)
    keys, values = _keys_and_values(last.self_attn, normed, turns_after, earlier[-1])
    at = torch.as_tensor(predicting, device=text.device)
    chosen = (at - start)[:, :, None].expand(-1, -1, text.shape[2])
    turns_at = (turns[0][0][at], turns[1][0][at])
    queries = _queries(last.self_attn, normed.gather(1, chosen), turns_at)
    seen = _attend(last.self_attn, queries, keys, values, _Sight.of(predicting, text))
    found: Tensor = base.norm(_rest(last, states.gather(1, chosen), seen))
    return found


@torch.no_grad()
def _before(base: Any, states: Tensor) -> KeysAndValues:
    """Keys and values of each layer at positions that no vector can change."""
    turns = base.rotary_emb(states, torch.arange(states.shape[1], device=states.device)[None])
    found: KeysAndValues = []
    for layer in base.layers:
        attention = layer.self_attn
        normed = layer.input_layernorm(states)
        found.append(_keys_and_values(attention, normed, turns, None))
        if len(found) < len(base.layers):
            seen = functional.scaled_dot_product_attention(
                _queries(attention, normed, turns), *found[-1], is_causal=True, scale=attention.scaling
            )
            states = _rest(layer, states, seen)
    return found


def _first_attention(
    layer: Any,
    text: Tensor,
    vectors: Tensor,
    slots: Slots,
    start: int,
    turns: tuple[Tensor, Tensor],
    before: tuple[Tensor, Tensor] | None,
    sight: Sequence[_Sight],
) -> Tensor:
    """What the positions from `start` on see in the first layer, shape (b, heads, length - start, head_dim).

    Of the softmax over text and vectors the text's part, its values and the sum of its weights, has no gradient.
    """
    attention = layer.self_attn
    rows, columns, numbers = slots.rows, slots.columns, slots.numbers
    turns_after = (turns[0][:, start:], turns[1][:, start:])
    with torch.no_grad():
        normed = layer.input_layernorm(text[:, start:].index_put((rows, columns - start), vectors))
        queries = _queries(attention, normed, turns_after)
        keys, values = _keys_and_values(attention, normed, turns_after, before)
        is_slot = torch.zeros(text.shape[:2], dtype=torch.bool, device=text.device)
        is_slot[rows, columns] = True
        frozen, total, highest = _attend_to_text(attention, queries, keys, values, sight, is_slot, start)
    # Of the vectors: as batches of one position each. The gradient is theirs, the numbers are those from above: a
    # product of few rows is rounded otherwise.
    normed = layer.input_layernorm(vectors[:, None])
    turns_at = (turns[0][0][columns][:, None], turns[1][0][columns][:, None])
    soft_queries = _queries(attention, normed, turns_at)[:, :, 0]
    soft_queries = soft_queries + (queries[rows, :, columns - start] - soft_queries).detach()
    soft_keys, soft_values = (part[:, :, 0] for part in _keys_and_values(attention, normed, turns_at, None))
    soft_keys = soft_keys + (keys[rows, :, columns] - soft_keys).detach()
    soft_values = soft_values + (values[rows, :, columns] - soft_values).detach()
    # Each row's vectors side by side, shape (b, heads, most, head_dim).
    most = int(numbers.max()) + 1
    empty = soft_keys.new_zeros(len(text), most, *soft_keys.shape[1:])
    beside_keys, beside_values, beside_queries = (
        empty.index_put((rows, numbers), part).transpose(1, 2) for part in (soft_keys, soft_values, soft_queries)
    )
    # No position sees what stands for a row's missing vectors.
    places = torch.full((len(text), most), text.shape[1], device=text.device).index_put((rows, numbers), columns)
    hidden = places[:, None, :] > torch.arange(start, text.shape[1], device=text.device)[None, :, None]
    logits = (queries @ beside_keys.transpose(2, 3)).float() * attention.scaling
    logits = logits.masked_fill(hidden[:, None], float("-inf"))
    top = torch.maximum(highest, logits.detach().amax(dim=-1, keepdim=True))
    weights, share = (logits - top).exp(), (highest - top).exp()
    share = share * total
    total = weights.sum(dim=-1, keepdim=True) + share
    seen = (weights / total).to(values.dtype) @ beside_values + (share / total).to(values.dtype) * frozen
    # The vectors' own queries have a gradient towards everything that they look back at.
    keys = keys.transpose(1, 2).index_put((rows, columns), soft_keys).transpose(1, 2)
    values = values.transpose(1, 2).index_put((rows, columns), soft_values).transpose(1, 2)
    hidden = torch.arange(text.shape[1], device=text.device)[None, None, :] > places[:, :, None]
    by_slots = functional.scaled_dot_product_attention(
        beside_queries, keys, values, attn_mask=~hidden[:, None], scale=attention.scaling
    )
    by_position: Tensor = seen.transpose(1, 2).index_put((rows, columns - start), by_slots[rows, :, numbers])
    return by_position.transpose(1, 2)


@dataclass(frozen=True)
class _Sight:
    """A chunk of queries: the keys from the `end`th on are behind all of them, and `mask`, shape (b, 1, queries, end),
    is 0 where a query sees a key and minus infinity elsewhere."""

    queries: slice
    end: int
    mask: Tensor

    @classmethod
    def of(cls, positions: Matrix, like: Tensor) -> list[_Sight]:
        """For queries at these positions, ascending in each row."""
        found = []
        for first in range(0, positions.shape[1], CHUNK):
            chunk = positions[:, first : first + CHUNK]
            end = int(chunk.max()) + 1
            at = torch.as_tensor(chunk, device=like.device)
            behind = torch.arange(end, device=like.device) > at[:, None, :, None]
            mask = torch.zeros(behind.shape, dtype=like.dtype, device=like.device).masked_fill_(behind, float("-inf"))
            found.append(cls(slice(first, first + CHUNK), end, mask))
        return found


def _attend(attention: Any, queries: Tensor, keys: Tensor, values: Tensor, sight: Sequence[_Sight]) -> Tensor:
    """Softmax attention of each chunk of queries."""
    return torch.cat(
        [
            functional.scaled_dot_product_attention(
                queries[:, :, chunk.queries],
                keys[:, :, : chunk.end],
                values[:, :, : chunk.end],
                attn_mask=chunk.mask,
                scale=attention.scaling,
            )
            for chunk in sight
        ],
        dim=2,
    )


def _attend_to_text(
    attention: Any,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    sight: Sequence[_Sight],
    is_slot: Tensor,
    start: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention to all positions but slots; the sum that its softmax divided by; and the highest logit, which was
    subtracted from all before; both of shape (b, heads, queries, 1).

    A slot sees itself: without a key to see its row would hold what is not a number.
    """
    seen, sums, highest = [], [], []
    length = is_slot.shape[1]
    itself = torch.eye(length, dtype=torch.bool, device=is_slot.device)[start:]
    for chunk in sight:
        others = is_slot[:, None, None, : chunk.end] & ~itself[chunk.queries, : chunk.end]
        logits = (queries[:, :, chunk.queries] @ keys[:, :, : chunk.end].transpose(2, 3)).float()
        logits = logits.mul_(attention.scaling).add_(chunk.mask.masked_fill(others, float("-inf")))
        highest.append(logits.amax(dim=-1, keepdim=True))
        weights = logits.softmax(dim=-1)
        # The highest logit's weight is 1 before the division.
        sums.append(1 / weights.amax(dim=-1, keepdim=True))
        seen.append(weights.to(values.dtype) @ values[:, :, : chunk.end])
    return torch.cat(seen, dim=2), torch.cat(sums, dim=2), torch.cat(highest, dim=2)


def _rest(layer: Any, states: Tensor, seen: Tensor) -> Tensor:
    """A layer after its attention."""
    states = states + layer.self_attn.o_proj(seen.transpose(1, 2).flatten(2))
    after: Tensor = states + layer.mlp(layer.post_attention_layernorm(states))
    return after


def _queries(attention: Any, normed: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Shape (b, heads, positions, head_dim)."""
    return _turned(_heads(attention, attention.q_proj(normed)), turns)


def _keys_and_values(
    attention: Any, normed: Tensor, turns: tuple[Tensor, Tensor], before: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Those before and of these positions, one for each head of the queries, shape (b, heads, positions, head_dim)."""
    keys = _turned(_heads(attention, attention.k_proj(normed)), turns)
    values = _heads(attention, attention.v_proj(normed))
    if (groups := attention.num_key_value_groups) > 1:
        keys, values = (part.repeat_interleave(groups, dim=1) for part in (keys, values))
    if before is not None:
        keys, values = (torch.cat(parts, dim=2) for parts in zip(before, (keys, values), strict=True))
    return keys, values


def _heads(attention: Any, projected: Tensor) -> Tensor:
    heads: Tensor = projected.view(*projected.shape[:-1], -1, attention.head_dim).transpose(1, 2)
    return heads


def _turned(heads: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding; `turns` are cosine and sine, shape (1 or b, positions, head_dim), equal halves."""
    half = heads.shape[-1] // 2
    cosine, sine = (part[:, None, :, :half] for part in turns)
    one, other = heads[..., :half], heads[..., half:]
    return torch.cat([one * cosine - other * sine, other * cosine + one * sine], dim=-1)
