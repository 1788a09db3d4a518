"""Batches of texts of like length, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def batches(lengths: Sequence[int], tokens: int, shortest_first: bool = False) -> Iterator[list[int]]:
    """The indices of `lengths` (tokens of each text) in batches of like lengths, the longest first unless
    `shortest_first`; equal lengths keep their order. Each batch has at most `tokens` tokens with its padding; a text
    that is longer goes alone."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=not shortest_first):
        if batch and (len(batch) + 1) * max(lengths[batch[0]], lengths[index]) > tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
