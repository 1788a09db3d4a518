"""The objective against a straight forward pass: one example at a time, logits at every position, no cache."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.softprompt import objective
from bench.softprompt.decoder import KNOWN, Prefixes, fits
from bench.softprompt.objective import Example, Losses, batches, losses

LAYOUTS = {
    # Prompt, answer, slots. A slot at position 0 wants a gradient everywhere.
    "first position": [(30, 7, (0, 3)), (12, 20, (0,)), (41, 1, (5, 6, 40))],
    # No slot before position 20: what comes before runs without a gradient.
    "middle": [(40, 7, (25, 30)), (60, 3, (20, 59)), (33, 15, (32,))],
    # The first slot is early, but not first: not worth a pass of its own.
    "early": [(90, 9, (3, 50)), (70, 2, (2,))],
}


def examples_of(layout: str, made_up: Callable[..., Example]) -> list[Example]:
    return [
        made_up(seed, prompt, answer, slots, loud=seed == 1)
        for seed, (prompt, answer, slots) in enumerate(LAYOUTS[layout])
    ]


def straight(model: Any, adapter: Any, example: Example) -> tuple[Tensor, Tensor]:
    """transformers' own loss of one example, and the adapter's."""
    (vectors,), own = adapter([{name: torch.from_numpy(value) for name, value in example.features.items()}])
    ids = torch.from_numpy(example.ids.astype(np.int64))
    rows = []
    slots = example.slots.tolist()
    for position, token in enumerate(ids):
        rows.append(vectors[slots.index(position)] if position in slots else model.get_input_embeddings().weight[token])
    labels = ids.clone()
    labels[: example.targets] = -100
    output = model(inputs_embeds=torch.stack(rows)[None], labels=labels[None], use_cache=False)
    assert output.logits.shape[1] == len(ids)
    return output.loss, own[0]


def fresh(projection: Callable[..., Any], model: Any) -> Any:
    torch.manual_seed(1)
    adapter = projection(model.config.hidden_size)
    torch.nn.init.normal_(adapter.scale, std=0.3)
    return adapter


def gradients(adapter: Any) -> dict[str, Tensor]:
    found = {name: parameter.grad.clone() for name, parameter in adapter.named_parameters()}
    adapter.zero_grad()
    return found


@pytest.mark.parametrize("name", ["tiny", "demo"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_and_gradients_are_those_of_a_straight_forward_pass(
    name: str, layout: str, frozen: Any, projection: Any, made_up: Any
) -> None:
    model, examples = frozen(name), examples_of(layout, made_up)
    adapter = fresh(projection, model)
    together = losses(model, adapter, examples)
    (together.generation.sum() + 3 * together.own.sum()).backward()
    got = gradients(adapter)

    expected = [straight(model, adapter, example) for example in examples]
    sum(generation + 3 * own for generation, own in expected).backward()  # type: ignore[union-attr]
    wanted = gradients(adapter)

    torch.testing.assert_close(together.generation, torch.stack([one for one, _ in expected]), rtol=2e-5, atol=0)
    torch.testing.assert_close(together.own, torch.stack([own for _, own in expected]), rtol=0, atol=1e-6)
    for parameter, gradient in wanted.items():
        scale = float(gradient.abs().max())
        assert scale > 1e-4, "the test would not see a gradient that is missing"
        # The demo's model in float32 is up to 8e-5 of it away from itself in float64.
        torch.testing.assert_close(got[parameter], gradient, rtol=0, atol=1e-4 * scale, msg=parameter)


@pytest.mark.parametrize("name", ["tiny", "demo"])
def test_a_padded_batch_is_its_examples_one_by_one(name: str, frozen: Any, projection: Any, made_up: Any) -> None:
    model = frozen(name)
    adapter = fresh(projection, model)
    examples = [example for layout in LAYOUTS for example in examples_of(layout, made_up)]
    assert len({len(example.ids) for example in examples}) > 5, "there is padding"
    with torch.no_grad():
        together = losses(model, adapter, examples)
        alone = [losses(model, adapter, [example]) for example in examples]
    torch.testing.assert_close(together.generation, torch.cat([one.generation for one in alone]), rtol=2e-5, atol=0)
    torch.testing.assert_close(together.own, torch.cat([one.own for one in alone]), rtol=0, atol=1e-6)


def test_weighted_tokens_count_as_their_weights_say(frozen: Any, projection: Any, made_up: Any) -> None:
    """Against transformers' logits, token by token; one example has no weights."""
    model = frozen("tiny")
    adapter = fresh(projection, model)
    examples = examples_of("middle", made_up)
    draw = np.random.default_rng(0)
    weighted = [replace(one, weights=draw.random(one.target_tokens).astype(np.float32)) for one in examples[:2]]
    found = losses(model, adapter, [*weighted, examples[2]]).generation.detach()
    for one, loss in zip([*weighted, examples[2]], found, strict=True):
        (vectors,), _ = adapter([{name: torch.from_numpy(value) for name, value in one.features.items()}])
        ids = torch.from_numpy(one.ids.astype(np.int64))
        ids[one.slots.tolist()] = 0
        embedded = model.get_input_embeddings()(ids).index_put((torch.from_numpy(one.slots.astype(np.int64)),), vectors)
        log_p = model(inputs_embeds=embedded[None]).logits[0].log_softmax(-1)
        terms = [-log_p[place - 1, ids[place]] for place in range(one.targets, len(ids))]
        weights = [1.0] * len(terms) if one.weights is None else one.weights.tolist()
        wanted = sum(weight * term.item() for weight, term in zip(weights, terms, strict=True)) / len(terms)
        assert float(loss) == pytest.approx(wanted, rel=2e-5)
    torch.testing.assert_close(found[2], losses(model, adapter, examples).generation[2].detach(), rtol=2e-5, atol=0)


def test_an_adapter_without_losses_of_its_own_has_none(frozen: Any, projection: Any, made_up: Any) -> None:
    model = frozen("tiny")
    examples = [made_up(0), made_up(1)]
    found: Losses = losses(model, projection(model.config.hidden_size, own=False), examples)
    assert found.own.tolist() == [0.0, 0.0]
    assert found.generation.requires_grad


@contextmanager
def watched(module: Any, seen: list[tuple[tuple[int, ...], bool]]) -> Iterator[None]:
    """Shapes that go into a module, and whether with a gradient."""

    def look(_: Any, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        states = arguments[0] if arguments else named["hidden_states"]
        seen.append((tuple(states.shape), states.requires_grad))

    handle = module.register_forward_pre_hook(look, with_kwargs=True)
    yield
    handle.remove()


def test_logits_are_computed_only_where_a_target_is_predicted(frozen: Any, projection: Any, made_up: Any) -> None:
    model = frozen("tiny")
    for layout, examples in ((name, examples_of(name, made_up)) for name in LAYOUTS):
        seen: list[tuple[tuple[int, ...], bool]] = []
        with watched(model.get_output_embeddings(), seen):
            losses(model, projection(model.config.hidden_size), examples)
        targets = sum(answer for _, answer, _ in LAYOUTS[layout])
        assert [shape[:-1] for shape, _ in seen] == [(targets,)]


def test_what_stands_before_the_first_slot_of_a_batch_runs_without_a_gradient(
    frozen: Any, projection: Any, made_up: Any
) -> None:
    model = frozen("tiny")
    seen: list[tuple[tuple[int, ...], bool]] = []
    last: list[tuple[tuple[int, ...], bool]] = []
    with watched(model.model.layers[0].mlp, seen), watched(model.model.layers[-1].mlp, last):
        losses(model, projection(model.config.hidden_size), examples_of("middle", made_up))
    longest = max(prompt + answer for prompt, answer, _ in LAYOUTS["middle"])
    assert [(shape[:2], gradient) for shape, gradient in seen] == [((3, 20), False), ((3, longest - 20), True)]
    # The last layer: where the longest answer is predicted.
    assert [(shape[:2], gradient) for shape, gradient in last] == [((3, 15), True)]


def of_family(family: str, **settings: Any) -> Any:
    """A random model of a family, two queries' heads to a head of keys."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    shape = {
        "vocab_size": 260,
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
    }
    config = AutoConfig.for_model(family, **(shape | settings))
    return AutoModelForCausalLM.from_config(config).requires_grad_(False).eval()


def compared(model: Any, projection: Any, examples: Sequence[Example], patch: pytest.MonkeyPatch) -> list[Any]:
    """Losses and gradients by the module that knows the model's family, then by transformers' own forward pass."""
    found = []
    for able in (True, False):
        with patch.context() as plain:
            if not able:
                plain.setattr(objective, "fits", lambda *_: False)
            adapter = fresh(projection, model)
            generation = losses(model, adapter, examples).generation
            generation.sum().backward()
            found.append((generation.detach(), gradients(adapter)["linear.weight"]))
    return found


@pytest.mark.parametrize("family", KNOWN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_each_family_of_models_has_the_losses_of_transformers(
    family: str, dtype: torch.dtype, projection: Any, made_up: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = of_family(family).to(dtype)
    examples = [
        made_up(1, 330, 9, (150, 151, 300), loud=True),
        made_up(2, 310, 20, (160, 309)),
        made_up(3, 290, 1, (280,)),
    ]
    assert fits(model, 400)
    (ours, gradient), (theirs, wanted) = compared(model, projection, examples, monkeypatch)
    close = 1e-5 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(ours, theirs, rtol=close, atol=0)
    assert float((gradient - wanted).norm() / wanted.norm()) < 10 * close
    assert float(theirs.std()) > 0.02, "the losses tell examples apart"


def test_other_models_take_the_way_of_transformers(projection: Any, made_up: Any) -> None:
    short = of_family("mistral", sliding_window=64)
    assert fits(short, 64)
    assert not fits(short, 65)
    model = of_family("qwen3")
    assert not fits(model, 10)
    seen: list[tuple[tuple[int, ...], bool]] = []
    with watched(model.model.layers[1], seen):
        losses(model, projection(48), [made_up(0)])
    assert seen
    assert not fits(of_family("llama", num_hidden_layers=1), 10)


def test_long_prefixes_are_kept_as_far_as_the_limit_allows_and_do_not_change_a_bit(
    projection: Any, made_up: Any
) -> None:
    model = of_family("llama")
    adapter = projection(48)
    one, other = made_up(1, 200, 5, (130,)), made_up(2, 190, 5, (150,))
    size = 130 * 3 * 2 * 4 * 12 * 4
    for limit, passes in ((0, 6), (size, 5), (10**9, 4)):
        prefixes = Prefixes(limit)
        seen: list[tuple[tuple[int, ...], bool]] = []
        with watched(model.model.layers[0].mlp, seen):
            found = [losses(model, adapter, batch, prefixes=prefixes) for batch in ([one, other], [one, other])]
        assert len(seen) == passes, limit
        assert torch.equal(found[0].generation, found[1].generation)
        assert torch.equal(found[0].generation, losses(model, adapter, [one, other]).generation)


def test_the_frozen_model_stays_without_gradients(frozen: Any, projection: Any, made_up: Any) -> None:
    for name in ("tiny", "demo"):
        model = frozen(name)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        adapter = projection(model.config.hidden_size)
        found = losses(model, adapter, examples_of("middle", made_up))
        found.generation.sum().backward()
        assert all(parameter.grad is not None for parameter in adapter.parameters())
        assert not model.training
        for key, parameter in model.named_parameters():
            assert not parameter.requires_grad, key
            assert parameter.grad is None, key
            assert torch.equal(parameter, before[key])


def test_an_answer_of_one_token_and_the_id_of_a_slot_do_not_matter(frozen: Any, projection: Any, made_up: Any) -> None:
    model = frozen("tiny")
    adapter = projection(model.config.hidden_size)
    example = made_up(3, 20, 1, (4,))
    other = Example(example.ids.copy(), example.slots, example.targets, example.features)
    other.ids[4] = 7
    with torch.no_grad():
        assert losses(model, adapter, [example]).generation == losses(model, adapter, [other]).generation


@pytest.mark.parametrize("budget", [1, 50, 64, 200, 10_000])
def test_batches_keep_to_their_budget_and_lose_nothing(budget: int, made_up: Any) -> None:
    draw = np.random.default_rng(0)
    examples: Sequence[Example] = [
        made_up(n, int(draw.integers(1, 90)), int(draw.integers(1, 30)), (0,)) for n in range(40)
    ]
    found = list(batches(examples, budget))
    assert sorted(id(example) for batch in found for example in batch) == sorted(map(id, examples))
    for batch in found:
        longest = max(len(example.ids) for example in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
    # No batch could have taken the next one's longest example.
    for batch, following in itertools.pairwise(found):
        assert (len(batch) + 1) * max(len(example.ids) for example in batch) > budget
        assert min(len(example.ids) for example in batch) >= len(following[0].ids)
    assert list(batches([], budget)) == []
