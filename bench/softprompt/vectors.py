"""The vectors of a run's soft prompts: an adapter applied to their features, or the controls' vectors instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.context import derive_seed
from bench.errors import MEND, ConfigError, DamagedError
from bench.protocols import Whose
from bench.records import Instance, Prompt
from bench.softprompt.adapters import load_weights
from bench.softprompt.marks import Vectors

Matrix = NDArray[np.float32]


class PromptVectors:
    """Makes the vectors of prompts with slots.

    `prompt` gives an instance's soft prompt; `instances` are those of the run, among whom other users' vectors are
    found; `marks` are the vectors of marks that the language model has no embeddings for. Raises `ConfigError` for
    weights that do not fit the adapter, `DamagedError`, which says how to `mend` them, for some that cannot be used.
    """

    def __init__(
        self,
        adapter: torch.nn.Module,
        weights: Path,
        whose: Whose,
        instances: Sequence[Instance],
        prompt: Callable[[Instance], Prompt],
        seed: int,
        marks: Vectors | None = None,
        mend: str = MEND,
    ) -> None:
        load_weights(adapter, weights, mend)
        self.marks: Vectors = marks or {}
        self._weights = weights
        self._mend = mend
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._adapter = adapter.eval().to(self._device)
        self._whose = whose
        self._prompt = prompt
        self._circles: dict[str, list[Instance]] = {}
        for instance in instances:
            self._circles.setdefault(instance.category, []).append(instance)
        for category, circle in self._circles.items():
            circle.sort(key=lambda one: (derive_seed(seed, "shuffled vectors", category, one.id), one.id))
        self._places = {one.id: place for circle in self._circles.values() for place, one in enumerate(circle)}
        self._donors: dict[str, dict[str, Matrix]] = {}
        self._means: dict[str, dict[str, Matrix]] = {}

    def of(self, prompt: Prompt, instance: Instance) -> Matrix:
        """A row for each slot of the prompt, shape (slots, hidden_size). Raises `ConfigError` where a control has no
        other user to take vectors from, `DamagedError` where the weights give a number that is not finite."""
        if self._whose == "own":
            return self._made(prompt)
        kinds = [kind_of(slot) for slot in prompt.slots]
        if self._whose == "constant":
            if instance.category not in self._means:
                self._means[instance.category] = self._mean(self._circles[instance.category])
            return np.stack([self._means[instance.category][kind] for kind in kinds])
        taken = {kind: self._donated(kind, instance) for kind in kinds}
        seen = dict.fromkeys(kinds, 0)
        rows = []
        for kind in kinds:
            rows.append(taken[kind][seen[kind] % len(taken[kind])])
            seen[kind] += 1
        # A donor lends once as a rule; kept, all of them would take a gigabyte at 7B.
        self._donors.clear()
        return np.stack(rows)

    def _made(self, prompt: Prompt) -> Matrix:
        features = {
            name: torch.from_numpy(np.array(values, np.float32)).to(self._device)
            for name, values in prompt.features.items()
        }
        with torch.inference_mode():
            (rows,), _ = self._adapter([features])
        made: Matrix = rows.detach().float().cpu().numpy()
        if not np.isfinite(made).all():
            # An engine takes it, and other requests in its batch change.
            problem = f"it gives vectors that are not finite for a prompt of stage {prompt.stage}"
            raise DamagedError(self._weights, problem, self._mend)
        return made

    def _by_kind(self, instance: Instance) -> dict[str, Matrix]:
        """The instance's own vectors, shape (n, hidden_size) for each kind of slot that its prompt has."""
        if instance.id not in self._donors:
            prompt = self._prompt(instance)
            rows: dict[str, list[Matrix]] = {}
            if prompt.slots:
                for slot, row in zip(prompt.slots, self._made(prompt), strict=True):
                    rows.setdefault(kind_of(slot), []).append(row)
            self._donors[instance.id] = {kind: np.stack(found) for kind, found in rows.items()}
        return self._donors[instance.id]

    def _donated(self, kind: str, instance: Instance) -> Matrix:
        """The vectors of a kind of the next instance in the circle that is another user's and has any."""
        circle, place = self._circles[instance.category], self._places[instance.id]
        for step in range(1, len(circle)):
            donor = circle[(place + step) % len(circle)]
            if donor.user_id != instance.user_id and kind in (found := self._by_kind(donor)):
                return found[kind]
        raise ConfigError(
            f"vectors=shuffled: no other user in {instance.category} has a vector to lend ({kind}); take more instances"
        )

    def _mean(self, instances: Sequence[Instance]) -> dict[str, Matrix]:
        """The mean over all instances' vectors of each kind, shape (hidden_size,)."""
        sums: dict[str, Matrix] = {}
        counts: dict[str, int] = {}
        for instance in instances:
            for kind, rows in self._by_kind(instance).items():
                sums[kind] = sums.get(kind, np.zeros(rows.shape[1], np.float32)) + rows.sum(axis=0)
                counts[kind] = counts.get(kind, 0) + len(rows)
            self._donors.pop(instance.id)
        return {kind: (total / counts[kind]).astype(np.float32) for kind, total in sums.items()}


def kind_of(slot: str) -> str:
    """What a slot's vector is: "HIS" of "[HIS_TOKEN_3]"."""
    return slot[1:].partition("_TOKEN_")[0]
