"""The switches between paper and released code: each alone changes what it names, all of them are `official`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import registry
from bench.config import SWITCHES
from bench.resolved import Run
from bench.softprompt.trained import TrainedAdapter
from bench.work import Work

DIMENSION = 16
"""Of the made-up vectors."""
PROJECTORS = [f"align_mlp_{kind}.{layer}" for kind in ("his", "diff") for layer in (0, 2)]
PLUGINS = {
    "dep": "methods",
    "dpl": "methods",
    "drp": "methods",
    "pplug": "methods",
    "recency": "retrievers",
    "rouge": "metrics",
}


def all_switches() -> dict[str, tuple[Any, Any]]:
    """Every switch by its dotted name, with its value by the paper and by the released code; of one that has another
    value for a single method, the method's."""
    found = {name: (switch.paper, switch.official) for name, switch in SWITCHES.items()}
    found["peers.all_targets"] = (False, True)
    for plugin, group in PLUGINS.items():
        paper = registry.options_of(registry.create(group, plugin, {}))
        for option, value in registry.load(group, plugin).official.items():
            found[f"{plugin}.{option}"] = (paper[option], value)
    return found


def nested(switches: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, value in switches.items():
        section, _, leaf = name.rpartition(".")
        (settings.setdefault(section, {}) if section else settings)[leaf] = value
    return settings


def observed(run: Run) -> dict[str, Any]:
    """What of a run's first prompts, of its training and of the scores a switch can change, by name."""
    seen: dict[str, Any] = {"order": [], "text": [], "blocks": [], "own": [], "difference": [], "rest": [], "moved": []}
    for instance in run.instances:
        context = run.contexts["c"]
        if run.retriever is not None:
            seen["order"].append([review.text for review in context.retrieve(instance)])
        prompts = [call.prompt for call in Work(run, instance).advance()]
        seen["text"].append([run.chat.text(prompt) for prompt in prompts])
        seen["blocks"].append([prompt.blocks_shown for prompt in prompts])
        if run.config.method == "dep":
            features, is_diff = prompts[0].features, prompts[0].features["is_diff"]
            seen["own"].append(features["embeddings"][is_diff == 0].tolist())
            seen["difference"].append(features["embeddings"][is_diff == 1].tolist())
            seen["rest"].append(features.get("unshown_is_diff", np.zeros(0)).tolist())
            seen["moved"].append(prompts[0].counts["misaligned_slots"])
    if hasattr(run.method, "adapter"):
        adapter = TrainedAdapter(run)
        seen["training"] = run.config.training.model_dump(exclude={"max_target_tokens", "cut_target_ends"})
        seen["targets"] = [one.ids[one.targets :].tolist() for one in adapter.examples(adapter.instances[:3])]
        seen["aux_reduction"] = run.method.aux_reduction  # type: ignore[attr-defined]
        torch.manual_seed(1)
        module = run.method.adapter(DIMENSION, 6)  # type: ignore[attr-defined]
        for name, value in module.state_dict().items():
            seen["start of the instruction" if name == "instruction" else f"start of {name}"] = value.tolist()
        torch.manual_seed(1)
        rows = {"embeddings": torch.randn(6, DIMENSION), "is_diff": torch.tensor([0.0, 1, 0, 1, 0, 0])}
        rows |= {"input": torch.randn(1, DIMENSION), "history": torch.randn(5, DIMENSION)}
        for number, weights in enumerate(module.parameters()):
            torch.nn.init.normal_(weights, generator=torch.Generator().manual_seed(number))
        (vectors,), own = module([rows])
        seen["vectors"], seen["losses"] = vectors.tolist(), None if own is None else own.tolist()
    draw = np.random.default_rng(3).random((40, 2))
    seen["scores"] = {name: float(value) for name, value in run.metrics["rouge"].aggregate(draw).items()}
    return seen


CHANGES: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "input_budget": ("dep", {}, {"text", "blocks", "own", "difference"}),
    "overlong": ("rag", {"input_budget": 700}, {"text"}),
    "chat_template": ("rag", {}, {"text"}),
    "peers.unused_targets": ("dep", {}, {"text", "difference"}),
    "peers.all_targets": ("dpl", {}, {"text", "blocks"}),
    "train.cross_entropy": ("dep", {}, {"training"}),
    "train.max_target_tokens": ("dep", {}, {"targets"}),
    "train.cut_target_ends": ("dep", {}, {"targets"}),
    "train.whole_batches": ("dep", {}, {"training"}),
    "train.vocabulary": ("dep", {}, {"training"}),
    "dep.layout": ("dep", {}, {"text", "blocks", "own", "difference"}),
    "dep.peer_weights": ("dep", {}, {"difference"}),
    "dep.user_mean": ("dep", {"dep.peer_weights": "distance"}, {"difference"}),
    "dep.lone_peer": ("dep", {}, {"text", "blocks", "own", "difference"}),
    "dep.slot_alignment": ("dep", {}, {"text", "own", "difference", "moved"}),
    "dep.tied_vectors": ("dep", {}, {"own", "difference", "moved"}),
    "dep.losses": ("dep", {}, {"losses"}),
    "dep.aux_rows": ("dep", {}, {"rest"}),
    "dep.init": ("dep", {}, {f"start of {part}.weight" for part in ("sae.encoder.0", "sae.decoder.0", *PROJECTORS)}),
    "dep.aux_reduction": ("dep", {}, {"aux_reduction"}),
    "dpl.item_descriptions": ("dpl", {}, set()),
    "dpl.ties": ("dpl", {}, {"text"}),
    "drp.differences": ("drp", {}, set()),
    "pplug.mask_padding": ("pplug", {}, {"vectors"}),
    "pplug.init_instruction": ("pplug", {}, {"start of the instruction"}),
    "recency.ties": ("rag", {}, {"order", "text"}),
    "rouge.average": ("rag", {}, {"scores"}),
    "rouge.seed": ("rag", {"rouge.average": "bootstrap_median"}, {"scores"}),
    "rouge.rouge2_draws": ("rag", {"rouge.average": "bootstrap_median"}, {"scores"}),
}
"""A method that shows a switch, settings beside it that it needs to show, and all that it changes there: a shorter
prompt has room for more blocks, and those have vectors."""


def test_every_switch_is_tried() -> None:
    assert set(CHANGES) == set(all_switches())


def test_every_switch_is_in_the_documents() -> None:
    """With both its values, where it comes from and what it does."""
    text = (Path(__file__).parents[2] / "docs" / "fidelity.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:3] == "| `"]
    documented = {row[0].strip("` "): row[1:] for row in rows}
    assert set(documented) == set(all_switches())
    for name, values in all_switches().items():
        *described, paper, code, effect = documented[name]
        for value, cell in zip(values, described, strict=True):
            assert str(value).lower() in re.findall(r"\w+", cell), name
        assert paper
        assert re.search(r"\w", code)
        assert re.search(r"\d|none", effect)


@pytest.mark.parametrize("name", CHANGES)
def test_a_switch_alone_changes_what_it_names(name: str, published: Any, run_of: Any) -> None:
    method, beside, wanted = CHANGES[name]
    paper, official = all_switches()[name]
    data = published(2, count=14, words=900, very_long=True)
    before, after = (
        observed(run_of(data, method, fidelity="paper", **nested({**beside, name: value})))
        for value in (paper, official)
    )
    assert before.keys() == after.keys()
    changed = {key for key in before if before[key] != after[key]}
    assert changed == wanted
    # The paper's value is what there is without the switch.
    assert observed(run_of(data, method, fidelity="paper", **nested(beside))) == before


@pytest.mark.parametrize("method", ["dep", "dpl", "pplug", "rag"])
def test_official_is_its_switches_and_nothing_else(method: str, published: Any, run_of: Any) -> None:
    data = published(4, count=12)
    switches = all_switches()
    if method != "dpl":
        switches["peers.all_targets"] = (False, False)
    else:
        switches["input_budget"] = (2048, "model")
    papers, officials = (nested({name: values[side] for name, values in switches.items()}) for side in (0, 1))
    paper = observed(run_of(data, method, fidelity="paper"))
    official = observed(run_of(data, method, fidelity="official"))
    assert observed(run_of(data, method, fidelity="official", **papers)) == paper
    assert observed(run_of(data, method, fidelity="paper", **officials)) == official
    assert paper["text"] != official["text"]
