"""`fidelity: official` against a straight reading of what the authors' released code does, on data full of ties.

The reading is written for these tests, from the facts in docs/fidelity.md, and shares nothing with the product but the
tokenizer: users are lists of dictionaries, as in the published data sets, in the order of their files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from bench.models import resolve_model
from bench.records import Instance
from bench.resolved import Run
from bench.softprompt.trained import TrainedAdapter
from bench.work import Work

Matrix = NDArray[np.float32]
Vector = Callable[[str], Matrix]
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


# -- the reading ---------------------------------------------------------------------------------------------------


def newest_first(profile: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(profile, key=lambda one: int(one["timestamp"]), reverse=True)


def turns(system: str, user: str) -> str:
    return f"<|im_start|>system\n{system}<|im_end|><|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


def dep_text(data: Any, user: str, split: str, blocks: int) -> str:
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


def dep_rows(data: Any, user: str, split: str, vector: Vector) -> tuple[Matrix, Matrix]:
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


def dpl_others(data: Any, user: str, vector: Vector) -> list[tuple[str, list[str]]]:
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


def instances_of(run: Run, split: str) -> list[Instance]:
    corpus = run.corpora["c"]
    return list(corpus.longest_profiles(split) if split == "train" else corpus.split(split))


@pytest.mark.parametrize(("split", "seed"), [("test", 0), ("val", 1), ("train", 2)])
def test_the_prompts_and_vectors_of_dep(split: str, seed: int, published: Any, run_of: Any, vector: Vector) -> None:
    data = published(seed)
    run = run_of(data, "dep", split=split, input_budget=BUDGET)
    shown, alone = set(), 0
    for instance in instances_of(run, split):
        prompt = Work(run, instance).advance()[0].prompt
        shown.add(prompt.blocks_shown)
        assert run.chat.text(prompt) == dep_text(data, instance.user_id, split, prompt.blocks_shown)
        # The most blocks with which it keeps to the budget, but one at least.
        assert run.chat.count(prompt) <= BUDGET or prompt.blocks_shown == 1
        if prompt.blocks_shown < K:
            marked = run.chat.encoding(prompt.slots, prompt.marks).tokenizer
            more = dep_text(data, instance.user_id, split, prompt.blocks_shown + 1)
            assert len(marked(more, add_special_tokens=False)["input_ids"]) > BUDGET
        his, diff = dep_rows(data, instance.user_id, split, vector)
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


def test_the_comparisons_of_dpl(published: Any, run_of: Any, vector: Vector) -> None:
    data = published(0)
    run = run_of(data, "dpl", input_budget=100_000)
    compared = 0
    for instance in run.instances:
        steps = run.method.steps(instance, run.contexts["c"])
        prompts = next(steps)
        wanted = dpl_others(data, instance.user_id, vector)
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


def test_the_loss_of_a_step_of_dep(
    published: Any, run_of: Any, vector: Vector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    run = run_of(data, "dep", **settings)
    adapter = TrainedAdapter(run)
    training = _Training(adapter.job(), processes.accelerator(1e9))
    got = {}
    monkeypatch.setattr(training, "_update", lambda rate: got.update(_gradients(training.bare)) or 1.0)
    training._step(0, training._chosen(0))

    model = AutoModelForCausalLM.from_pretrained(resolve_model(run.config.model), dtype=torch.float32).requires_grad_(
        False
    )
    prompt = Work(run, run.instances[0]).advance()[0].prompt
    tokenizer = run.chat.encoding(prompt.slots, prompt.marks).tokenizer
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
        rows = torch.from_numpy(np.concatenate(dep_rows(data, user, "train", vector)))
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
