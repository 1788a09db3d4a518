"""The machine: memory that is given back."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from bench.machine import give_back_memory, share_cores


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_memory_below_something_that_is_used_is_given_back() -> None:
    # Below the size from which on glibc maps each piece by itself; the last one lies above the others.
    pieces = [b"x" * (60_000 + number) for number in range(4000)]
    last = pieces[-1]
    del pieces
    held = resident()
    give_back_memory()
    assert held - resident() > 150 * 2**20
    assert last


@pytest.mark.parametrize(("threads", "left"), [(8, 4), (3, 1), (1, 1)])
def test_processes_share_the_cores(threads: int, left: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        share_cores(2)
        assert torch.get_num_threads() == left
    finally:
        torch.set_num_threads(before)
