"""The loss of a frozen language model on the user's real reviews, given soft prompts, and only the work it takes.

What makes it cheap: a batch is as long as its longest example, not as the longest that may come; logits are computed
only where a target token is predicted; the positions before the first slot, which no vector can change, run without a
gradient; and models of the usual kind leave out more (`bench.softprompt.decoder`).
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
from bench.softprompt.decoder import Prefixes, Slots, fits, hidden_states

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
    model: Any,
    adapter: Callable[..., Any],
    examples: Sequence[Example],
    vocabulary: int | None = None,
    prefixes: Prefixes | None = None,
) -> Losses:
    """The losses of a batch. `model` is a transformers causal language model whose parameters want no gradient;
    `adapter` is a `bench.protocols.Adapter`; of the model's vocabulary only the first `vocabulary` rows, if given, take
    part in the softmax; `prefixes` are those that are kept between calls."""
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
        text = model.get_input_embeddings()(torch.as_tensor(ids, device=device))
    slots = Slots.at([example.slots for example in examples], device)
    soft = torch.cat(list(vectors)).to(text.dtype)
    start = min(example.first for example in examples)
    if start * SMALL_SHARE < longest:
        start = 0
    # The token at a position is predicted at the position before it. Shorter answers are filled up with positions at
    # the end, which count nowhere.
    answers = np.arange(max(example.target_tokens for example in examples))
    predicting = np.minimum([example.targets - 1 + answers for example in examples], longest - 1)
    if fits(model, longest):
        firsts = [example.first for example in examples]
        before = (prefixes or Prefixes()).of(model, text, examples, firsts, start) if start else None
        states = hidden_states(model, text, soft, slots, start, predicting, before)
    else:
        states = _plain_states(model, text, soft, slots, start, predicting)
    is_target = answers < np.array([[example.target_tokens] for example in examples])
    rows, numbers = np.nonzero(is_target)
    at = torch.as_tensor(rows, device=device)
    logits = model.get_output_embeddings()(states[at, torch.as_tensor(numbers, device=device)])[:, :vocabulary].float()
    wanted = torch.as_tensor(ids[rows, predicting[is_target] + 1], device=device)
    each = functional.cross_entropy(logits, wanted, reduction="none")
    sums = torch.zeros(count, device=device).index_add(0, at, each)
    lengths = torch.bincount(at, minlength=count).clamp(min=1)
    return Losses(sums / lengths, torch.zeros(count, device=device) if own is None else own)


def _plain_states(
    model: Any, text: Tensor, vectors: Tensor, slots: Slots, start: int, predicting: NDArray[np.int64]
) -> Tensor:
    """What `bench.softprompt.decoder.hidden_states` gives, by the forward pass of any causal language model; what comes
    before position `start` has no gradient and is only looked back at.

    Padding needs no mask: it stands at the end, where no token that counts looks, and without a mask attention takes
    its fastest path.
    """
    embedded = text.index_put((slots.rows, slots.columns), vectors)
    before = None
    if start:
        with torch.no_grad():
            before = model.base_model(inputs_embeds=embedded[:, :start], use_cache=True).past_key_values
    after = model.base_model(inputs_embeds=embedded[:, start:], past_key_values=before, use_cache=before is not None)
    at = torch.as_tensor(predicting - start, device=text.device)[:, :, None]
    states: Tensor = after[0].take_along_dim(at, dim=1)
    return states
