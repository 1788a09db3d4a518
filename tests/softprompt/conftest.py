"""What the tests of training share: frozen models, and examples and adapters that are small enough to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.softprompt.objective import Example
from bench.softprompt.trainer import frozen_model

DEMO_MODEL = "python:bench/demo/model"
FEATURES = 6
"""Numbers in a feature vector of the made-up examples."""


class Projection(nn.Module):
    """A row of the feature "x" to a vector, and as its own loss half the mean square of the rows that come out.

    `scale` has a bias's shape and no share in the vectors of prompts without the feature "loud".
    """

    def __init__(self, hidden_size: int, own: bool = True) -> None:
        super().__init__()
        self.own = own
        self.linear = nn.Linear(FEATURES, hidden_size)
        self.scale = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, features: Sequence[Mapping[str, Tensor]]) -> tuple[list[Tensor], Tensor | None]:
        vectors = [self.linear(one["x"]) for one in features]
        vectors = [v * (1 + self.scale) if "loud" in one else v for v, one in zip(vectors, features, strict=True)]
        own = torch.stack([vector.square().mean() / 2 for vector in vectors]) if self.own else None
        return vectors, own


@pytest.fixture(scope="session")
def projection() -> Callable[..., Projection]:
    """A newly initialised adapter: projection(hidden_size, own=True)."""
    return Projection


@pytest.fixture(scope="session")
def frozen(tiny_qwen2: Path) -> Callable[[str], Any]:
    """A frozen float32 model by name, "tiny" or "demo", loaded once."""
    loaded: dict[str, Any] = {}

    def load(name: str) -> Any:
        if name not in loaded:
            folder = {"tiny": str(tiny_qwen2), "demo": DEMO_MODEL}[name]
            loaded[name] = frozen_model(folder, torch.float32, torch.device("cpu"))
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def made_up() -> Callable[..., Example]:
    """An example of random tokens: made_up(seed, prompt=30, answer=7, slots=(0, 3), loud=False)."""

    def make(
        seed: int, prompt: int = 30, answer: int = 7, slots: Sequence[int] = (0, 3), loud: bool = False
    ) -> Example:
        draw = np.random.default_rng(seed)
        ids = draw.integers(3, 250, prompt + answer).astype(np.int32)
        # Beyond every vocabulary, as a placeholder's id may be.
        ids[list(slots)] = 10**6
        features = {"x": draw.normal(size=(len(slots), FEATURES)).astype(np.float32)}
        if loud:
            features["loud"] = np.ones(1, np.float32)
        return Example(ids, np.array(slots, np.int32), prompt, features)

    return make
