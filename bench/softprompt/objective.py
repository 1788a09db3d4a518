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
    ascending; `features` go through the adapter. `weights` say how much each token of the answer counts, 1 on average;
    None: all alike.
    """

    ids: NDArray[np.int32]
    slots: NDArray[np.int32]
    targets: int
    features: Mapping[str, NDArray[np.float32]]
    weights: NDArray[np.float32] | None = None

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
    """Of a batch of n examples, each of shape (n,): cross-entropy (nats a target token, weighted where an example has
    weights) and the method's own."""

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
    predicting, is_target = _predicting(examples, longest)
    if fits(model, longest):
        firsts = [example.first for example in examples]
        before = (prefixes or Prefixes()).of(model, text, examples, firsts, start) if start else None
        states = hidden_states(model, text, soft, slots, start, predicting, before)
    else:
        states = _plain_states(model, text, soft, slots, start, predicting)
    rows, each = _cross_entropies(model, states, ids, predicting, is_target, vocabulary)
    if any(example.weights is not None for example in examples):
        weights = [np.ones(one.target_tokens, np.float32) if one.weights is None else one.weights for one in examples]
        each = each * torch.as_tensor(np.concatenate(weights), device=device)
    sums = torch.zeros(count, device=device).index_add(0, rows, each)
    lengths = torch.bincount(rows, minlength=count).clamp(min=1)
    return Losses(sums / lengths, torch.zeros(count, device=device) if own is None else own)


def answer_losses(model: Any, examples: Sequence[Example]) -> list[NDArray[np.float32]]:
    """The cross-entropy (nats) of each target token of a batch of examples without slots, each of shape
    (target tokens,); the softmax goes over all rows of the model's vocabulary."""
    longest = max(len(example.ids) for example in examples)
    ids = np.zeros((len(examples), longest), np.int64)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = example.ids
    predicting, is_target = _predicting(examples, longest)
    with torch.inference_mode():
        # Padding needs no mask, as in `_plain_states`.
        all_states = model.base_model(input_ids=torch.as_tensor(ids, device=model.device), use_cache=False)[0]
        at = torch.as_tensor(predicting, device=model.device)[:, :, None]
        _, each = _cross_entropies(model, all_states.take_along_dim(at, dim=1), ids, predicting, is_target, None)
    ends = np.cumsum([example.target_tokens for example in examples])[:-1]
    return np.split(each.cpu().numpy(), ends)


def _predicting(examples: Sequence[Example], longest: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where the examples' target tokens are predicted, and which of these positions count; both of shape (examples,
    longest answer)."""
    # The token at a position is predicted at the position before it. Shorter answers are filled up with positions at
    # the end, which count nowhere.
    answers = np.arange(max(example.target_tokens for example in examples))
    predicting = np.minimum([example.targets - 1 + answers for example in examples], longest - 1)
    return predicting, answers < np.array([[example.target_tokens] for example in examples])


def _cross_entropies(
    model: Any,
    states: Tensor,
    ids: NDArray[np.int64],
    predicting: NDArray[np.int64],
    is_target: NDArray[np.bool_],
    vocabulary: int | None,
) -> tuple[Tensor, Tensor]:
    """Of all target tokens, example by example: the example's number and the cross-entropy. `states` are those of the
    positions `predicting`."""
    rows, numbers = np.nonzero(is_target)
    at = torch.as_tensor(rows, device=states.device)
    logits = model.get_output_embeddings()(states[at, torch.as_tensor(numbers, device=states.device)])
    wanted = torch.as_tensor(ids[rows, predicting[is_target] + 1], device=states.device)
    return at, functional.cross_entropy(logits[:, :vocabulary].float(), wanted, reduction="none")


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
