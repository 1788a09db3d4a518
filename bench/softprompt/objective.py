"""The loss of a frozen language model on the user's real reviews, given soft prompts, and only the work it takes.

Three things make it cheap: a batch is as long as its longest example, not as the longest that may come; logits are
computed only where a target token is predicted; and the positions before the first slot, which no vector can change,
run without a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bench import batching

SMALL_SHARE = 8
"""A part of less than one in so many of the positions gets a gradient all the same: two passes would cost more."""


@dataclass(frozen=True)
class Example:
    """A prompt of a method with the user's real review as its answer.

    `ids` are the tokens of both, `targets` is where the answer begins, `slots` are the positions that vectors take,
    ascending; `features` go through the adapter.
    """

    ids: NDArray[np.int32]
    slots: NDArray[np.int32]
    targets: int
    features: Mapping[str, NDArray[np.float32]]

    @property
    def target_tokens(self) -> int:
        """How many tokens the answer has."""
        return len(self.ids) - self.targets

    @property
    def first(self) -> int:
        """How many tokens stand before the first slot."""
        return int(self.slots[0])


@dataclass(frozen=True)
class Losses:
    """Of a batch of n examples, each of shape (n,): cross-entropy (nats a target token) and the method's own."""

    generation: Tensor
    own: Tensor


def batches(examples: Sequence[Example], tokens: int) -> Iterator[list[Example]]:
    """`examples` in batches of like lengths (`bench.batching`), of at most `tokens` tokens with padding."""
    for rows in batching.batches([len(example.ids) for example in examples], tokens):
        yield [examples[row] for row in rows]


def losses(
    model: Any, adapter: Callable[..., Any], examples: Sequence[Example], vocabulary: int | None = None
) -> Losses:
    """The losses of a batch. `model` is a transformers causal language model whose parameters want no gradient;
    `adapter` is a `bench.protocols.Adapter`; of the model's vocabulary only the first `vocabulary` rows, if given, take
    part in the softmax."""
    device = model.device
    features = [
        {name: torch.as_tensor(values, device=device) for name, values in example.features.items()}
        for example in examples
    ]
    vectors, own = adapter(features)
    count, longest = len(examples), max(len(example.ids) for example in examples)
    ids = np.zeros((count, longest), np.int64)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = example.ids
        ids[row, example.slots] = 0
    with torch.no_grad():
        embedded = model.get_input_embeddings()(torch.as_tensor(ids, device=device))
    rows = [row for row, example in enumerate(examples) for _ in example.slots]
    columns = np.concatenate([example.slots for example in examples]).tolist()
    soft = torch.cat(list(vectors)).to(embedded.dtype)
    embedded = embedded.index_put((torch.tensor(rows, device=device), torch.tensor(columns, device=device)), soft)
    start = min(example.first for example in examples)
    if start * SMALL_SHARE < longest:
        start = 0
    hidden = _hidden_states(model, embedded, start)
    # The token at a position is predicted at the position before it.
    rows = [row for row, example in enumerate(examples) for _ in range(example.targets, len(example.ids))]
    columns = [position for example in examples for position in range(example.targets, len(example.ids))]
    at = torch.tensor(rows, device=device)
    predicting = torch.tensor(columns, device=device) - 1 - start
    logits = model.get_output_embeddings()(hidden[at, predicting])[:, :vocabulary].float()
    wanted = torch.as_tensor(ids[rows, columns], device=device)
    each = functional.cross_entropy(logits, wanted, reduction="none")
    sums = torch.zeros(count, device=device).index_add(0, at, each)
    lengths = torch.bincount(at, minlength=count).clamp(min=1)
    return Losses(sums / lengths, torch.zeros(count, device=device) if own is None else own)


def _hidden_states(model: Any, embedded: Tensor, start: int) -> Tensor:
    """The last layer's states from position `start` on, shape (n, length - start, hidden_size); what comes before
    has no gradient and is only looked back at.

    Padding needs no mask: it stands at the end, where no token that counts looks, and without a mask attention takes
    its fastest path.
    """
    if start == 0:
        states: Tensor = model.base_model(inputs_embeds=embedded, use_cache=False)[0]
        return states
    with torch.no_grad():
        before = model.base_model(inputs_embeds=embedded[:, :start], use_cache=True)
    after = model.base_model(inputs_embeds=embedded[:, start:], past_key_values=before.past_key_values, use_cache=True)
    states = after.last_hidden_state
    return states
