"""`fidelity: official` against a straight reading of what the authors' released code does, on data full of ties.

The reading is written for these tests, from the facts in docs/fidelity.md, and shares nothing with the product but the
tokenizer: users are lists of dictionaries, as in the published data sets, in the order of their files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from bench import registry
from bench.config import SWITCHES, RunConfig, build
from bench.data.corpus import Corpus
from bench.models import resolve_model
from bench.records import Instance
from bench.resolved import Inputs, Run
from bench.softprompt.trained import TrainedAdapter
from bench.tasks import reviews
from bench.tasks.reviews import Item
from bench.work import Work

Matrix = NDArray[np.float32]
K, DIMENSION = 8, 16
BUDGET = 1000
"""Tokens of a prompt, in the place of 3,072: the made-up reviews are short."""
SENTENCE = (
    "Given the title and description of an item, along with the user's past reviews (including item title, item "
    "description, review rating, review title, review text, review embedding, review difference embedding), and the "
    "output review rating and review title, generate a personalized item review for the user."
)
NOTE = (
    "Note: [Review Embedding] denotes a soft prompt of the review text and [Review Difference Embedding] denotes a "
    "soft prompt showing the difference between the review text and other reviews on the same item. [Review Embedding] "
    "and [Review Difference Embedding] should serve as hints for personalized review text generation."
)


def vector(text: str) -> Matrix:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)


# -- the data ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """Each user's reviews by user id, ascending in time, the last ten of them the inputs i0 to i9; and the items."""

    users: dict[str, list[dict[str, Any]]]
    items: dict[str, tuple[str, str]]

    def profile(self, user: str, split: str) -> list[dict[str, Any]]:
        """What is before the target of the user's instance: i7 of the last training instance, i8 (val), i9 (test)."""
        return self.users[user][: {"train": -3, "val": -2, "test": -1}[split]]

    def target(self, user: str, split: str) -> dict[str, Any]:
        return self.users[user][{"train": -3, "val": -2, "test": -1}[split]]


def published(seed: int, count: int = 24, words: int = 300, very_long: bool = False) -> Published:
    """Reviews of few days, so that many have one time, and of very different lengths; if asked, i7 of the first user
    and i8 of the second are beyond every limit."""
    draw = np.random.default_rng(seed)
    items = {f"A{n:02}": (f"Title {n}", f"About {n}." + " More." * int(draw.integers(20))) for n in range(34)}
    users = {}
    for number in range(count):
        user = f"u{draw.integers(10**6):06}{number:02}"
        often = [asin for asin in items if asin < "A29"]
        asins = list(draw.permutation(often)[: 18 + number % 5])
        if number < 10:
            # Five items with two reviewers each, one of whom wrote with i7 or i8.
            asins[-2 - number % 2 if number < 5 else 9] = f"A{29 + number % 5}"
        days = np.sort(draw.integers(0, 9, len(asins)))
        users[user] = [
            {
                "asin": asin,
                "rating": float(draw.integers(1, 6)),
                "title": f"says {user} {place}",
                "text": f"{user} on {asin}:" + " word" * int(words ** draw.random()),
                "timestamp": int(day) * 86_400_000,
            }
            for place, (asin, day) in enumerate(zip(asins, days, strict=True))
        ]
    for user, place in zip(list(users), (-3, -2), strict=False):
        users[user][place]["text"] += " very long" * 2000 * very_long
    return Published(users, items)


def corpus_of(data: Published) -> Corpus:
    """The same as the product holds it, all eight training instances of each user."""
    instances: dict[str, list[Instance]] = {"train": [], "val": [], "test": []}
    references: dict[str, str] = {}
    for user, told in data.users.items():
        records = [
            reviews.review(user, Item(one["asin"], *data.items[one["asin"]]), *(one[name] for name in NAMES))
            for one in told
        ]
        for place in range(-10, 0):
            split = {-1: "test", -2: "val"}.get(place, "train")
            suffix = f"/{place + 10}" if split == "train" else ""
            one = reviews.instance("c", split, records[place], tuple(records[:place]), suffix)
            instances[split].append(one)
            references[one.id] = records[place].text
    return Corpus("c", {split: tuple(rows) for split, rows in instances.items()}, references)


PROJECTORS = [f"align_mlp_{kind}.{layer}" for kind in ("his", "diff") for layer in (0, 2)]
NAMES = ("rating", "title", "text", "timestamp")


# -- the reading ---------------------------------------------------------------------------------------------------


def newest_first(profile: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(profile, key=lambda one: int(one["timestamp"]), reverse=True)


def turns(system: str, user: str) -> str:
    return f"<|im_start|>system\n{system}<|im_end|><|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


def dep_text(data: Published, user: str, split: str, blocks: int) -> str:
    """The prompt with so many blocks."""
    history = ""
    for number, one in enumerate(newest_first(data.profile(user, split))[:blocks]):
        title, about = data.items[one["asin"]]
        history += (
            f"- [Review {number + 1}]:\n  - [Item Title]: {title}\n  - [Item Description]: {about}\n"
            f"  - [Review Rating]: {one['rating']}\n  - [Review Title]: {one['title']}\n"
            f"  - [Review Text]: {one['text']}\n"
            f"  - [Review Embedding]: <his_token_start>[HIS_TOKEN_{number}]<his_token_end>\n"
            f"  - [Review Difference Embedding]: <diff_token_start>[DIFF_TOKEN_{number}]<diff_token_end>\n"
        )
    target = data.target(user, split)
    title, about = data.items[target["asin"]]
    return turns(
        f"{SENTENCE}\n{NOTE}\n",
        f"[Item Title]: {title}\n[Item Description]: {about}\n[User's Past Reviews]:\n{history}"
        f"[Output Review Rating]: {target['rating']}\n[Output Review Title]: {target['title']}\n",
    )


def dep_rows(data: Published, user: str, split: str) -> tuple[Matrix, Matrix]:
    """The vectors of the reviews and of their differences, each (n, d), n up to eight."""
    reviewers: dict[str, list[tuple[str, int]]] = {}
    means = {}
    for other in data.users:
        test = data.profile(other, "test")
        for place, one in enumerate(test[:-2]):
            reviewers.setdefault(one["asin"], []).append((other, place))
        vectors = [vector(one["text"]) for one in [*test, data.target(other, "test")]]
        means[other] = np.mean(vectors[:-2], axis=0)
    profile = data.profile(user, split)
    # Texts: a stable sort. Vectors: the ascending order backwards, equal times too.
    turned = [vector(one["text"]) for one in reversed(profile)]
    his, diff = [], []
    for one, own in zip(newest_first(profile), turned, strict=True):
        known = sorted(reviewers.get(one["asin"], []))
        if len(known) < 2 or len(his) == K:
            continue
        others = [(other, place) for other, place in known if other != user]
        far = np.array([np.linalg.norm(means[user] - means[other]) for other, _ in others])
        shares = np.exp(far / far.sum())
        shares /= shares.sum()
        his.append(own)
        diff.append(sum(w * (own - vector(data.users[o][p]["text"])) for w, (o, p) in zip(shares, others, strict=True)))
    return np.array(his, np.float32), np.array(diff, np.float32)


def dpl_others(data: Published, user: str) -> list[tuple[str, list[str]]]:
    """Of the test instance: the texts that are compared, newest first, each with those of the representative peers."""
    profiles = {other: data.profile(other, "test") for other in data.users}
    compared = []
    for one in newest_first(profiles[user]):
        others = [
            review["text"]
            for other in sorted(profiles)
            if other != user
            for review in profiles[other]
            if review["asin"] == one["asin"]
        ]
        if len(others) < 4 or len(compared) == K:
            continue
        points = np.stack([vector(text) for text in (one["text"], *others)])
        found = KMeans(n_clusters=5, random_state=42).fit(points)
        chosen = []
        for label in range(5):
            members = [place for place, of in enumerate(found.labels_) if of == label]
            if members and 0 not in members:
                centre = found.cluster_centers_[label]
                distances = [np.linalg.norm(points[place] - centre) for place in members]
                chosen.append(others[members[int(np.argmin(distances))] - 1])
        compared.append((one["text"], chosen))
    return compared


# -- the product ---------------------------------------------------------------------------------------------------


def run_of(data: Published, method: str, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Run:
    monkeypatch.setattr(
        "bench.encoders.EmbeddingCache.embed", lambda _, texts, *__: np.stack([vector(text) for text in texts])
    )
    config: RunConfig = build(
        {"method": method, "fidelity": "official", "k": K, "max_new_tokens": 64, "metrics": ["rouge"]}, settings
    )
    return Run(config, Inputs({"c": corpus_of(data)}))


def instances_of(run: Run, split: str) -> list[Instance]:
    corpus = run.corpora["c"]
    return list(corpus.longest_profiles(split) if split == "train" else corpus.split(split))


@pytest.mark.parametrize(("split", "seed"), [("test", 0), ("val", 1), ("train", 2)])
def test_the_prompts_and_vectors_of_dep(split: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = published(seed)
    run = run_of(data, "dep", monkeypatch, split=split, input_budget=BUDGET)
    shown, alone = set(), 0
    for instance in instances_of(run, split):
        prompt = Work(run, instance).advance()[0].prompt
        shown.add(prompt.blocks_shown)
        assert run.chat.text(prompt) == dep_text(data, instance.user_id, split, prompt.blocks_shown)
        # The most blocks with which it keeps to the budget, but one at least.
        assert run.chat.count(prompt) <= BUDGET or prompt.blocks_shown == 1
        if prompt.blocks_shown < K:
            marked = run.chat._soft_tokenizer(prompt)
            more = dep_text(data, instance.user_id, split, prompt.blocks_shown + 1)
            assert len(marked(more, add_special_tokens=False)["input_ids"]) > BUDGET
        his, diff = dep_rows(data, instance.user_id, split)
        assert len(his) == K
        got, is_diff = (
            np.concatenate([prompt.features[name], prompt.features.get(f"unshown_{name}", empty)])
            for name, empty in (("embeddings", np.zeros((0, DIMENSION), np.float32)), ("is_diff", np.zeros(0)))
        )
        np.testing.assert_array_equal(got[is_diff == 0], his)
        np.testing.assert_allclose(got[is_diff == 1], diff, atol=2e-6)
        context = run.contexts["c"]
        alone += sum(len(context.peers(review, instance)) == 1 for review in context.retrieve(instance))
    assert len(shown) > 3
    assert alone or split == "train", "some items had a single peer"


def test_the_comparisons_of_dpl(monkeypatch: pytest.MonkeyPatch) -> None:
    data = published(0)
    run = run_of(data, "dpl", monkeypatch, input_budget=100_000)
    compared = 0
    for instance in run.instances:
        steps = run.method.steps(instance, run.contexts["c"])
        prompts = next(steps)
        wanted = dpl_others(data, instance.user_id)
        assert len(prompts) == len(wanted) == K
        for prompt, (own, others) in zip(prompts, wanted, strict=True):
            texts = [
                line.partition("[Review Text]: ")[2] for line in prompt.user.splitlines() if "[Review Text]" in line
            ]
            assert texts == [own, *others]
        # The profile's prompt has each item's description beside its difference.
        (profile,) = steps.send([f"Difference {number}." for number in range(K)])
        about = [
            data.items[one["asin"]][1]
            for text, _ in wanted
            for one in data.users[instance.user_id]
            if one["text"] == text
        ]
        lines = profile.user.partition("[User's Past Reviews]")[0].splitlines()
        assert [line.removeprefix("- [Item Description]: ") for line in lines if "[Item Description]" in line] == about
        compared += len(wanted)
    assert compared == K * len(data.users)


def test_the_loss_of_a_step_of_dep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of a step under all switches, against a loop over its samples that is written as the released
    model's forward pass: every sample has 16 rows, the softmax has as many columns as the tokenizer has tokens, and
    what a sample adds is the sum over its target, divided by the tokens of all targets, and its own losses, undivided.
    """
    from torch.nn import functional
    from transformers import AutoModelForCausalLM

    from bench.softprompt import processes
    from bench.softprompt.trainer import _Training

    torch.set_num_threads(1)
    data = published(5, count=16, words=40)
    train = {"dtype": "float32", "epochs": 1, "batch_size": 6, "limit": 6}
    settings = {"input_budget": 600, "train": train, "dep": {"latent": 8}, "results": str(tmp_path)}
    run = run_of(data, "dep", monkeypatch, **settings)
    adapter = TrainedAdapter(run)
    monkeypatch.setattr("bench.softprompt.trained.fresh_adapter", lambda run, size: run.method.adapter(DIMENSION, size))
    training = _Training(adapter.job(), processes.accelerator(1e9))
    got = {}
    monkeypatch.setattr(training, "_update", lambda rate: got.update(_gradients(training.bare)) or 1.0)
    training._step(0, training._chosen(0))

    model = AutoModelForCausalLM.from_pretrained(resolve_model(run.config.model), dtype=torch.float32).requires_grad_(
        False
    )
    tokenizer = run.chat._soft_tokenizer(Work(run, run.instances[0]).advance()[0].prompt)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    torch.manual_seed(42)
    mine = run.method.adapter(DIMENSION, model.config.hidden_size)  # type: ignore[attr-defined]
    samples = []
    for user in list(data.users)[:6]:
        blocks = K
        while True:
            prompt = tokenizer(dep_text(data, user, "train", blocks), add_special_tokens=False)["input_ids"]
            if len(prompt) <= 600:
                break
            blocks -= 1
        answer = tokenizer(data.target(user, "train")["text"], add_special_tokens=False)["input_ids"]
        samples.append((user, prompt, [*answer, tokenizer.eos_token_id]))
    items = sum(len(answer) for _, _, answer in samples)
    hidden = 0
    for user, prompt, answer in samples:
        rows = torch.from_numpy(np.concatenate(dep_rows(data, user, "train")))
        assert rows.shape == (16, DIMENSION)
        latent = mine.sae["encoder"](rows)
        again = mine.sae["decoder"](latent)
        embedded = model.get_input_embeddings()(torch.tensor([*prompt, *answer]))
        his, diff = mine.align_mlp_his(latent[:8]), mine.align_mlp_diff(latent[8:])
        for kind, projected in (("HIS", his), ("DIFF", diff)):
            for number in range(8):
                at = torch.tensor([*prompt, *answer]) == tokenizer.convert_tokens_to_ids(f"[{kind}_TOKEN_{number}]")
                hidden += int(not at.any())
                embedded = torch.where(at[:, None], projected[number], embedded)
        logits = model(inputs_embeds=embedded[None]).logits[0]
        assert logits.shape[1] == len(tokenizer)
        entropy = functional.cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(answer), reduction="sum") / items
        share = latent.mean(dim=0).clamp(1e-6, 1 - 1e-6)
        sparse = (0.05 * (0.05 / share).log() + 0.95 * (0.95 / (1 - share)).log()).mean()
        (entropy + 100 * (functional.smooth_l1_loss(again, rows) + 1e-3 * sparse)).backward()
    assert hidden, "blocks that did not fit have rows all the same"
    wanted = _gradients(mine)
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.nn.functional.cosine_similarity(got[name].flatten(), gradient.flatten(), dim=0) > 0.99999, name
        assert got[name].norm() == pytest.approx(gradient.norm().item(), rel=1e-4), name


def _gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None}


# -- each switch alone ---------------------------------------------------------------------------------------------

PLUGINS = {"dep": "methods", "dpl": "methods", "pplug": "methods", "recency": "retrievers", "rouge": "metrics"}


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


def observed(
    method: str, data: Published, monkeypatch: pytest.MonkeyPatch, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What of a method's first prompts, of its training and of the scores a switch can change, by name."""
    run = run_of(data, method, monkeypatch, **settings)
    monkeypatch.setattr("bench.softprompt.trained.fresh_adapter", lambda run, size: run.method.adapter(DIMENSION, size))
    seen: dict[str, Any] = {"order": [], "text": [], "blocks": [], "own": [], "difference": [], "rest": [], "moved": []}
    for instance in run.instances:
        context = run.contexts["c"]
        if run.retriever is not None:
            seen["order"].append([review.text for review in context.retrieve(instance)])
        prompts = [call.prompt for call in Work(run, instance).advance()]
        seen["text"].append([run.chat.text(prompt) for prompt in prompts])
        seen["blocks"].append([prompt.blocks_shown for prompt in prompts])
        if method == "dep":
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
def test_a_switch_alone_changes_what_it_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, beside, wanted = CHANGES[name]
    paper, official = all_switches()[name]
    data = published(2, count=14, words=900, very_long=True)
    before, after = (
        observed(method, data, monkeypatch, {"fidelity": "paper", **nested({**beside, name: value})})
        for value in (paper, official)
    )
    assert before.keys() == after.keys()
    changed = {key for key in before if before[key] != after[key]}
    assert changed == wanted
    # The paper's value is what there is without the switch.
    assert observed(method, data, monkeypatch, {"fidelity": "paper", **nested(beside)}) == before


@pytest.mark.parametrize("method", ["dep", "dpl", "pplug", "rag"])
def test_official_is_its_switches_and_nothing_else(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = published(4, count=12)
    switches = all_switches()
    if method != "dpl":
        switches["peers.all_targets"] = (False, False)
    else:
        switches["input_budget"] = (2048, "model")
    papers, officials = (nested({name: values[side] for name, values in switches.items()}) for side in (0, 1))
    paper = observed(method, data, monkeypatch, {"fidelity": "paper"})
    official = observed(method, data, monkeypatch, {"fidelity": "official"})
    assert observed(method, data, monkeypatch, {"fidelity": "official", **papers}) == paper
    assert observed(method, data, monkeypatch, {"fidelity": "paper", **officials}) == official
    assert paper["text"] != official["text"]
