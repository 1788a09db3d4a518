"""Whose vectors stand in a prompt: the instance's own, another user's, the mean over all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.errors import ConfigError, DamagedError
from bench.protocols import Whose
from bench.records import Instance, Prompt
from bench.softprompt.vectors import PromptVectors, kind_of

Matrix = NDArray[np.float32]
WIDTH = 4


class Doubler(nn.Module):
    """Rows times a learned number, and noise if it is left in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout(0.5)

    def forward(self, features: Sequence[Mapping[str, Tensor]]) -> tuple[list[Tensor], None]:
        return [self.dropout(one["rows"] * self.factor) for one in features], None


@dataclass
class World:
    """Instances with a soft prompt each; the vectors of instance n are rows of n, n + 1/16, n + 2/16 ..., doubled."""

    folder: Path
    layouts: Mapping[str, Sequence[str]]
    """Slots of each instance, by "user" or "user/number" and with its category in front."""
    prompts: dict[str, Prompt] = field(init=False)
    instances: list[Instance] = field(init=False)

    def __post_init__(self) -> None:
        save_file({"factor": torch.tensor([2.0])}, self.folder / "weights.safetensors")
        self.prompts, self.instances = {}, []
        for number, (name, slots) in enumerate(self.layouts.items(), 1):
            category, user = name.split("/")[:2]
            self.instances.append(Instance(name, category, "test", user, given={}, profile=()))
            rows = number + 0.0625 * np.arange(len(slots), dtype=np.float32)
            features = {"rows": np.repeat(rows[:, None], WIDTH, axis=1)} if slots else {}
            self.prompts[name] = Prompt("s", "", " ".join(slots), slots=tuple(slots), features=features)

    def vectors(self, whose: Whose, seed: int = 0, only: Sequence[str] | None = None) -> dict[str, Matrix]:
        """The vectors of each instance that has slots."""
        instances = [one for one in self.instances if only is None or one.id in only]
        made = PromptVectors(
            Doubler(), self.folder / "weights.safetensors", whose, instances, lambda one: self.prompts[one.id], seed
        )
        return {one.id: made.of(self.prompts[one.id], one) for one in instances if self.prompts[one.id].slots}

    def own(self, name: str) -> Matrix:
        rows: Matrix = 2 * self.prompts[name].features["rows"]
        return rows

    def owner(self, row: Matrix) -> tuple[str, str]:
        """Instance and kind of a vector."""
        for name, prompt in self.prompts.items():
            for slot, own in zip(prompt.slots, self.own(name) if prompt.slots else (), strict=True):
                if np.array_equal(row, own):
                    return name, kind_of(slot)
        raise AssertionError(f"{row} is nobody's")


def dep(his: int, *diff: int) -> list[str]:
    """Slots as DEP has them: a HIS for each block, a DIFF for some."""
    return [
        slot
        for block in range(his)
        for slot in (f"[HIS_TOKEN_{block}]", *([f"[DIFF_TOKEN_{block}]"] if block in diff else []))
    ]


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., World]:
    return lambda **layouts: World(tmp_path, {name.replace("__", "/"): slots for name, slots in layouts.items()})


@pytest.fixture
def some(world: Callable[..., World]) -> World:
    """Two categories; users with several instances, one without slots, one without a DIFF."""
    return world(
        Books__ann__0=dep(2, 0, 1),
        Books__ann__1=dep(3, 1),
        Books__ann__2=dep(1, 0),
        Books__bob__0=dep(1),
        Books__bob__1=dep(2, 0),
        Books__cid__0=[],
        Books__cid__1=dep(4, 0, 1, 2, 3),
        Music__ann__0=dep(1, 0),
        Music__dan__0=dep(2, 0, 1),
    )


def test_kinds_are_the_placeholders_names() -> None:
    assert [kind_of(slot) for slot in ("[HIS_TOKEN_3]", "[DIFF_TOKEN_0]", "[USER_TOKEN_0]")] == ["HIS", "DIFF", "USER"]


def test_own_vectors_are_the_adapters_with_its_weights_and_without_noise(some: World) -> None:
    for name, rows in some.vectors("own").items():
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, some.own(name))


@pytest.mark.parametrize("seed", range(6))
def test_shuffled_vectors_are_another_users_of_the_same_category_and_kind(seed: int, some: World) -> None:
    found = some.vectors("shuffled", seed)
    assert list(found) == [one.id for one in some.instances if some.prompts[one.id].slots]
    for name, rows in found.items():
        slots = some.prompts[name].slots
        assert rows.shape == (len(slots), WIDTH)
        donors: dict[str, set[str]] = {}
        for slot, row in zip(slots, rows, strict=True):
            donor, kind = some.owner(row)
            assert kind == kind_of(slot)
            assert donor.split("/")[0] == name.split("/")[0]
            assert donor.split("/")[1] != name.split("/")[1]
            donors.setdefault(kind, set()).add(donor)
        assert all(len(names) == 1 for names in donors.values()), "one donor for all of a kind"


def test_a_donors_vectors_keep_their_order_and_begin_again_where_there_are_too_few(world: Callable[..., World]) -> None:
    two = world(Books__ann=dep(5, 0, 1, 2), Books__bob=dep(2, 1))
    rows = two.vectors("shuffled")["Books/ann"]
    his, diff = two.own("Books/bob")[[0, 1]], two.own("Books/bob")[[2]]
    wanted = [his[0], diff[0], his[1], diff[0], his[0], diff[0], his[1], his[0]]
    np.testing.assert_array_equal(rows, np.stack(wanted))
    rows = two.vectors("shuffled")["Books/bob"]
    np.testing.assert_array_equal(rows, two.own("Books/ann")[[0, 2, 1]])


def test_who_lends_follows_from_the_seed_alone(world: Callable[..., World]) -> None:
    many = world(**{f"Books__user{number}": dep(1, 0) for number in range(12)})
    first = many.vectors("shuffled", 1)
    again = many.vectors("shuffled", 1)
    many.instances.reverse()
    turned = many.vectors("shuffled", 1)
    other = many.vectors("shuffled", 2)
    for name, rows in first.items():
        np.testing.assert_array_equal(rows, again[name])
        np.testing.assert_array_equal(rows, turned[name])
    assert any(not np.array_equal(first[name], other[name]) for name in first)
    lenders = [many.owner(rows[0])[0] for rows in first.values()]
    assert len(set(lenders)) == 12, "everybody lends once"
    assert all(name != lender for name, lender in zip(first, lenders, strict=True))


def test_constant_vectors_are_the_mean_of_each_kind_over_the_category(some: World) -> None:
    found = some.vectors("constant")
    # By hand, numbering the instances from 1 in their order, rows 2 * (number + place / 16).
    his = {
        "Books": [2, 2.25, 4, 4.125, 4.375, 6, 8, 10, 10.25, 14, 14.25, 14.5, 14.75],
        "Music": [16, 18, 18.25],
    }
    diff = {
        "Books": [2.125, 2.375, 4.25, 6.125, 10.125, 14.125, 14.375, 14.625, 14.875],
        "Music": [16.125, 18.125, 18.375],
    }
    for name, rows in found.items():
        category = name.split("/")[0]
        for slot, row in zip(some.prompts[name].slots, rows, strict=True):
            mean = np.mean((his if kind_of(slot) == "HIS" else diff)[category])
            np.testing.assert_allclose(row, np.full(WIDTH, mean), rtol=1e-6)


@pytest.mark.parametrize("names", [["Books/ann/0", "Books/ann/1"], ["Books/ann/0"], ["Books/ann/0", "Music/dan/0"]])
def test_a_user_alone_has_nobody_to_borrow_from(names: list[str], some: World) -> None:
    with pytest.raises(ConfigError, match=r"vectors=shuffled: no other user in Books .*\(HIS\); take more instances"):
        some.vectors("shuffled", only=names)


def test_a_kind_that_nobody_else_has_cannot_be_borrowed(some: World) -> None:
    with pytest.raises(ConfigError, match=r"no other user in Books .*\(DIFF\)"):
        some.vectors("shuffled", only=["Books/ann/0", "Books/bob/0"])


def test_weights_that_do_not_fit_are_refused(some: World) -> None:
    save_file({"factor": torch.ones(3)}, some.folder / "weights.safetensors")
    with pytest.raises(ConfigError, match="does not fit this configuration"):
        some.vectors("own")


@pytest.mark.parametrize("whose", ["own", "constant", "shuffled"])
def test_vectors_that_are_not_finite_are_refused(whose: Whose, some: World) -> None:
    """The weights are finite, what they make of large features is not."""
    for prompt in some.prompts.values():
        if prompt.slots:
            prompt.features["rows"][0, 0] = 3e38  # type: ignore[index]
    with pytest.raises(
        DamagedError, match=r"weights\.safetensors .*vectors that are not finite for a prompt of stage s"
    ):
        some.vectors(whose)
