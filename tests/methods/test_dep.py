"""DEP: its prompt word for word, its features and losses against the paper's equations worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench import registry, templates
from bench.chat import Chat
from bench.context import Context
from bench.data.corpus import Corpus
from bench.data.peers import Peers
from bench.errors import ConfigError
from bench.methods.dep import DEP
from bench.protocols import TrainedMethod
from bench.records import Instance, Prompt, Record
from bench.retrievers.recency import Recency
from bench.tasks import reviews
from bench.tasks.reviews import Item, Reviews
from bench.templates import Templates

Floats = NDArray[np.float64]

ITEMS = {asin: Item(asin, f"Title {asin}", f"About {asin}.") for asin in ("A0", "A1", "A2", "A3")}
VECTORS: dict[str, list[float]] = {
    "mine one": [0.0, 0.0, 1.0],
    "mine two": [0.0, 1.0, 0.0],
    "mine three": [1.0, 0.0, 0.0],
    "ann one": [0.6, 0.8, 0.0],
    "ann three": [0.0, 0.6, 0.8],
    "bob one": [-1.0, 0.0, 0.0],
}


def review(user: str, asin: str, text: str, timestamp: int, rating: float = 4.0) -> Record:
    return reviews.review(user, ITEMS[asin], rating, f"Says {user}", text, timestamp)


def instance(user: str, profile: Sequence[Record]) -> Instance:
    target = reviews.review(user, ITEMS["A0"], 5.0, "T", f"target of {user}", 99)
    return reviews.instance("c", "test", target, tuple(profile))


# Newest first: an item with one peer, one that nobody else reviewed, one that everybody reviewed.
MINE = [
    review("me", "A1", "mine one", 1),
    review("me", "A2", "mine two", 2, 2.0),
    review("me", "A3", "mine three", 3),
]
ME = instance("me", MINE)
OTHERS = [
    instance("ann", [review("ann", "A1", "ann one", 1), review("ann", "A3", "ann three", 2)]),
    instance("bob", [review("bob", "A1", "bob one", 1)]),
]


class Embedder:
    """Vectors from a table; keeps what it was asked for."""

    def __init__(self, vectors: Mapping[str, list[float]] = VECTORS) -> None:
        self.vectors = vectors
        self.calls: list[list[str]] = []

    def __call__(self, texts: Sequence[str], encoder: str) -> NDArray[np.float32]:
        assert encoder == "BAAI/bge-m3"
        self.calls.append(list(texts))
        return np.array([self.vectors[text] for text in texts], np.float32)


def context(
    chat: Chat,
    k: int = 3,
    me: Instance = ME,
    budget: int = 100_000,
    embedder: Embedder | None = None,
) -> Context:
    instances = (me, *OTHERS)
    corpus = Corpus("c", {"test": instances}, {one.id: f"target of {one.user_id}" for one in instances})
    return Context(
        task=Reviews(),
        corpus=corpus,
        method="dep",
        templates=templates_of(DEP()),
        chat=chat,
        retriever=Recency(),
        k=k,
        input_budget=budget,
        run_seed=0,
        embedder=embedder or Embedder(),
        marks=DEP.marks,
        pool=Peers(corpus),
    )


def templates_of(method: DEP) -> Templates:
    return templates.load(method, "dep", Reviews(), "reviews")


def prompt_of(method: DEP, here: Context, me: Instance = ME) -> Prompt:
    steps = method.steps(me, replace(here, templates=templates_of(method)))
    (prompt,) = next(steps)
    with pytest.raises(StopIteration) as stopped:
        steps.send(["the answer"])
    assert stopped.value.value == "the answer"
    assert getattr(here.embedder, "calls", []) == [], "who only reads the prompt needs no encoder"
    len(prompt.features)
    return prompt


def rows_of(prompt: Prompt) -> list[tuple[str, list[float]]]:
    """Slot and vector, in order."""
    assert {value.dtype for value in prompt.features.values()} == {np.dtype(np.float32)}
    kinds = ["DIFF" if flag else "HIS" for flag in prompt.features["is_diff"].tolist()]
    assert [slot[1:].partition("_")[0] for slot in prompt.slots] == kinds
    return list(zip(prompt.slots, prompt.features["embeddings"].tolist(), strict=True))


# -- the prompt --------------------------------------------------------------------------------------------------

SYSTEM = (
    "Given the title and description of an item, along with the user's past reviews (including item title, item "
    "description, review rating, review title, review text, review embedding, review difference embedding), and the "
    "output review rating and review title, generate a personalized item review for the user."
)
NOTE = (
    "\nNote: [Review Embedding] denotes a soft prompt of the review text and [Review Difference Embedding] denotes a "
    "soft prompt showing the difference between the review text and other reviews on the same item. [Review Embedding] "
    "and [Review Difference Embedding] should serve as hints for personalized review text generation."
)
USER = """[Item Title]: Title A0
[Item Description]: About A0.
[User's Past Reviews]:
- [Review 1]:
- [Item Title]: Title A3
- [Item Description]: About A3.
- [Review Rating]: 4.0
- [Review Title]: Says me
- [Review Text]: mine three
- [Review Embedding]:
- <his_token_start>[HIS_TOKEN_0]<his_token_end>
- [Review Difference Embedding]:
- <diff_token_start>[DIFF_TOKEN_0]<diff_token_end>
- [Review 2]:
- [Item Title]: Title A2
- [Item Description]: About A2.
- [Review Rating]: 2.0
- [Review Title]: Says me
- [Review Text]: mine two
- [Review Embedding]:
- <his_token_start>[HIS_TOKEN_1]<his_token_end>
- [Review 3]:
- [Item Title]: Title A1
- [Item Description]: About A1.
- [Review Rating]: 4.0
- [Review Title]: Says me
- [Review Text]: mine one
- [Review Embedding]:
- <his_token_start>[HIS_TOKEN_2]<his_token_end>
- [Review Difference Embedding]:
- <diff_token_start>[DIFF_TOKEN_2]<diff_token_end>
[Output Review Rating]: 5.0
[Output Review Title]: T"""


def test_the_prompt_is_figure_6_and_a_block_without_peers_has_no_difference(chat: Chat) -> None:
    prompt = prompt_of(DEP(), context(chat))
    assert prompt.system == SYSTEM + NOTE
    assert prompt.user == USER
    assert prompt.slots == ("[HIS_TOKEN_0]", "[DIFF_TOKEN_0]", "[HIS_TOKEN_1]", "[HIS_TOKEN_2]", "[DIFF_TOKEN_2]")
    assert len(chat.positions(prompt, chat.ids(prompt))) == 5
    assert prompt.counts == {"slots": 5, "misaligned_slots": 0, "blocks_without_peers": 1}


def without(*heads: str) -> str:
    """The user message less the lines that begin so, and those right below an embedding's line."""
    lines, kept, skip = USER.split("\n"), [], False
    for line in lines:
        skip = skip or line.startswith(heads)
        if not skip:
            kept.append(line)
        skip = skip and "Embedding]" in line
    return "\n".join(kept)


@pytest.mark.parametrize(
    ("options", "system", "user"),
    [
        ({"guidance": False}, SYSTEM, USER),
        ({"text": False}, SYSTEM + NOTE, without("- [Review Text]")),
        ({"embeddings": "his"}, SYSTEM + NOTE, without("- [Review Difference")),
        ({"embeddings": "diff"}, SYSTEM + NOTE, without("- [Review Embedding")),
        ({"embeddings": "his", "text": False}, SYSTEM + NOTE, without("- [Review Text]", "- [Review Difference")),
    ],
)
def test_ablations_change_the_prompt(options: dict[str, Any], system: str, user: str, chat: Chat) -> None:
    prompt = prompt_of(DEP(**options), context(chat))
    assert prompt.system == system
    assert prompt.user == user


def test_what_would_be_a_slot_in_a_review_is_taken_out(chat: Chat) -> None:
    text = "mine [HIS_TOKEN_0]three<diff_token_end>"
    me = instance("me", [*MINE[:2], replace(MINE[2], text=text)])
    embedder = Embedder({**VECTORS, text: VECTORS["mine three"]})
    prompt = prompt_of(DEP(), context(chat, me=me, embedder=embedder), me)
    assert prompt.user == USER
    assert len(chat.positions(prompt, chat.ids(prompt))) == 5
    assert text in embedder.calls[0]


def test_templates_that_hold_other_slots_are_refused(chat: Chat) -> None:
    shipped = templates_of(DEP())
    changed = replace(shipped, texts={**shipped.texts, "diff": shipped.texts["his"]})
    with pytest.raises(
        ConfigError, match=r"his must hold \[HIS_TOKEN_\{\{index\}\}\] and diff \[DIFF_TOKEN_\{\{index\}\}\]"
    ):
        next(DEP().steps(ME, replace(context(chat), templates=changed)))


# -- features ----------------------------------------------------------------------------------------------------


def by_hand(own: str, peers: Sequence[str], weights: Sequence[float] | None = None) -> list[float]:
    """Eq. 4, a number at a time."""
    weights = weights or [1 / len(peers)] * len(peers)
    return [
        sum(w * (VECTORS[own][axis] - VECTORS[peer][axis]) for w, peer in zip(weights, peers, strict=True))
        for axis in range(3)
    ]


def same(rows: Sequence[tuple[str, list[float]]], wanted: Sequence[tuple[str, list[float]]]) -> bool:
    assert [slot for slot, _ in rows] == [slot for slot, _ in wanted]
    return np.allclose([row for _, row in rows], [row for _, row in wanted], rtol=0, atol=1e-6)


def test_embeddings_and_mean_differences(chat: Chat) -> None:
    embedder = Embedder()
    rows = rows_of(prompt_of(DEP(), context(chat, embedder=embedder)))
    assert same(
        rows,
        [
            ("[HIS_TOKEN_0]", [1.0, 0.0, 0.0]),
            ("[DIFF_TOKEN_0]", [1.0, -0.6, -0.8]),
            ("[HIS_TOKEN_1]", [0.0, 1.0, 0.0]),
            ("[HIS_TOKEN_2]", [0.0, 0.0, 1.0]),
            ("[DIFF_TOKEN_2]", [0.2, -0.4, 1.0]),
        ],
    )
    # The last is Eq. 4 over ann and bob.
    assert by_hand("mine one", ["ann one", "bob one"]) == pytest.approx([0.2, -0.4, 1.0])
    assert len(embedder.calls) == 1
    assert set(embedder.calls[0]) == set(VECTORS)


@pytest.mark.parametrize(
    ("embeddings", "slots", "texts"),
    [
        ("his", ["HIS_0", "HIS_1", "HIS_2"], ["mine three", "mine two", "mine one"]),
        # What has no difference is not even embedded.
        ("diff", ["DIFF_0", "DIFF_2"], ["mine three", "ann three", "mine one", "ann one", "bob one"]),
    ],
)
def test_one_kind_alone(embeddings: Any, slots: list[str], texts: list[str], chat: Chat) -> None:
    embedder = Embedder()
    prompt = prompt_of(DEP(embeddings=embeddings), context(chat, embedder=embedder))
    assert list(prompt.slots) == [f"[{slot.replace('_', '_TOKEN_')}]" for slot in slots]
    assert embedder.calls == [texts]
    both = dict(rows_of(prompt_of(DEP(), context(chat))))
    assert dict(rows_of(prompt)) == {slot: both[slot] for slot in prompt.slots}


def test_weights_by_distance(chat: Chat) -> None:
    rows = dict(rows_of(prompt_of(DEP(peer_weights="distance"), context(chat))))
    # Mean vectors: me (1/3, 1/3, 1/3), ann the mean of her two, bob his one.
    me, ann, bob = (1 / 3, 1 / 3, 1 / 3), (0.3, 0.7, 0.4), (-1.0, 0.0, 0.0)
    far = [math.dist(me, ann), math.dist(me, bob)]
    powers = [math.exp(distance / sum(far)) for distance in far]
    weights = [power / sum(powers) for power in powers]
    assert weights[1] > 0.6
    assert rows["[DIFF_TOKEN_2]"] == pytest.approx(by_hand("mine one", ["ann one", "bob one"], weights), abs=1e-6)
    assert rows["[DIFF_TOKEN_0]"] == pytest.approx(by_hand("mine three", ["ann three"]), abs=1e-6)


def test_weights_where_all_distances_are_zero(chat: Chat) -> None:
    embedder = Embedder({text: [0.5, 0.5, 0.0] for text in VECTORS})
    rows = rows_of(prompt_of(DEP(peer_weights="distance"), context(chat, embedder=embedder)))
    assert [row for slot, row in rows if "DIFF" in slot] == [[0.0, 0.0, 0.0]] * 2


def test_slots_of_the_reviews_with_peers(chat: Chat) -> None:
    """Blocks are A3 and A2, vectors those of A3 and A1: the second block's belong to another review."""
    embedder = Embedder()
    prompt = prompt_of(DEP(slot_alignment="with_peers"), context(chat, k=2, embedder=embedder))
    assert same(
        rows_of(prompt),
        [
            ("[HIS_TOKEN_0]", [1.0, 0.0, 0.0]),
            ("[DIFF_TOKEN_0]", [1.0, -0.6, -0.8]),
            ("[HIS_TOKEN_1]", [0.0, 0.0, 1.0]),
            ("[DIFF_TOKEN_1]", [0.2, -0.4, 1.0]),
        ],
    )
    assert [text in prompt.user for text in ("mine three", "mine two", "mine one")] == [True, True, False]
    assert prompt.counts == {"slots": 4, "misaligned_slots": 2, "blocks_without_peers": 1}
    assert "mine two" not in embedder.calls[0]


def test_fewer_reviews_with_peers_than_blocks(chat: Chat) -> None:
    prompt = prompt_of(DEP(slot_alignment="with_peers"), context(chat, k=3))
    assert prompt.slots == ("[HIS_TOKEN_0]", "[DIFF_TOKEN_0]", "[HIS_TOKEN_1]", "[DIFF_TOKEN_1]")
    assert prompt.user.index("[DIFF_TOKEN_1]") < prompt.user.index("- [Review 3]") < prompt.user.index("mine one")
    assert prompt.counts == {"slots": 4, "misaligned_slots": 2, "blocks_without_peers": 1}
    his = prompt_of(DEP(slot_alignment="with_peers", embeddings="his"), context(chat, k=3))
    assert his.counts == {"slots": 2, "misaligned_slots": 1, "blocks_without_peers": 1}


def test_a_cut_of_blocks_cuts_features(chat: Chat) -> None:
    whole = prompt_of(DEP(), context(chat, k=2))
    embedder = Embedder()
    prompt = prompt_of(DEP(), context(chat, k=3, budget=chat.count(whole), embedder=embedder))
    assert (prompt.blocks_shown, prompt.blocks_offered) == (2, 3)
    assert prompt.user == whole.user
    assert rows_of(prompt) == rows_of(whole)
    assert prompt.counts == {"slots": 3, "misaligned_slots": 0, "blocks_without_peers": 1}
    assert embedder.calls == [["mine three", "ann three", "mine two"]]
    one = prompt_of(DEP(), context(chat, k=2, budget=chat.count(whole) - 1))
    assert one.counts == {"slots": 2, "misaligned_slots": 0, "blocks_without_peers": 0}


def test_fewer_reviews_than_k(chat: Chat) -> None:
    assert prompt_of(DEP(), context(chat, k=8)).user == USER


def nothing_embedded() -> Embedder:
    return Embedder({})


@pytest.mark.parametrize("method", [DEP(), DEP(slot_alignment="with_peers", embeddings="diff")])
@pytest.mark.parametrize(("k", "profile"), [(0, MINE), (3, []), (0, [])])
def test_without_history_there_are_no_slots(method: DEP, k: int, profile: list[Record], chat: Chat) -> None:
    me = instance("me", profile)
    prompt = prompt_of(method, context(chat, k=k, me=me, embedder=nothing_embedded()), me)
    assert (prompt.slots, dict(prompt.features), prompt.blocks_shown) == ((), {}, 0)
    assert prompt.counts == {"slots": 0, "misaligned_slots": 0, "blocks_without_peers": 0}


@pytest.mark.parametrize("method", [DEP(embeddings="diff"), DEP(slot_alignment="with_peers")])
def test_differences_where_there_are_no_peers_at_all(method: DEP, chat: Chat) -> None:
    me = instance("me", MINE[1:2])
    prompt = prompt_of(method, context(chat, me=me, embedder=nothing_embedded()), me)
    assert (prompt.slots, dict(prompt.features)) == ((), {})
    assert prompt.counts == {"slots": 0, "misaligned_slots": 0, "blocks_without_peers": 1}
    assert "mine two" in prompt.user


def test_peers_are_never_the_user(chat: Chat) -> None:
    """An item that everybody reviewed, seen from each side."""
    here = context(chat, k=1)
    assert [one.text for one in here.peers(MINE[0], ME)] == ["ann one", "bob one"]
    ann = OTHERS[0]
    prompt = prompt_of(DEP(), context(chat, k=2), ann)
    rows = dict(rows_of(prompt))
    assert rows["[DIFF_TOKEN_1]"] == pytest.approx(by_hand("ann one", ["bob one", "mine one"]), abs=1e-6)


# -- the adapter -------------------------------------------------------------------------------------------------

DIMENSION, LATENT, HIDDEN = 5, 4, 6


def adapter_of(seed: int = 0, **options: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    adapter = DEP(latent=LATENT, **options).adapter(DIMENSION, HIDDEN)
    with torch.no_grad():
        # Zero biases would hide a bias left out.
        for parameter in adapter.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return adapter


def features_of(kinds: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random rows: "h" is his, "d" is diff."""
    rows = torch.randn(len(kinds), DIMENSION, generator=torch.Generator().manual_seed(seed))
    return {"embeddings": rows, "is_diff": torch.tensor([float(kind == "d") for kind in kinds])}


def gelu(x: Floats) -> Floats:
    values: Floats = np.vectorize(lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))), otypes=[float])(x)
    return values


def smooth_l1(a: Floats, b: Floats) -> float:
    far = np.abs(a - b)
    return float(np.where(far < 1, 0.5 * far**2, far - 0.5).mean())


def sparsity(latent: Floats, rho: float) -> float:
    highest = float(np.float32(1 - 1e-6))  # 1.3% further from 1 than meant
    total = 0.0
    for unit in range(latent.shape[1]):
        p = min(max(float(latent[:, unit].mean()), 1e-6), highest)
        total += rho * math.log(rho / p) + (1 - rho) * math.log((1 - rho) / (1 - p))
    return total / int(latent.shape[1])


def equations(
    adapter: torch.nn.Module, features: Mapping[str, torch.Tensor], joint: bool = False, gamma: float = 1e-3
) -> tuple[Floats, float]:
    """Eq. 5 to 11 in float64: the vectors, and lambda (L_recon + gamma L_sparse)."""
    w = {name: value.double().numpy() for name, value in adapter.state_dict().items()}
    rows, diff = features["embeddings"].double().numpy(), features["is_diff"].numpy() == 1
    latent = gelu(rows @ w["sae.encoder.0.weight"].T + w["sae.encoder.0.bias"])
    again = gelu(latent @ w["sae.decoder.0.weight"].T + w["sae.decoder.0.bias"])
    vectors = []
    for z, is_diff in zip(latent, diff, strict=True):
        name = "align_mlp_diff" if is_diff else "align_mlp_his"
        inner = gelu(w[f"{name}.0.weight"] @ z + w[f"{name}.0.bias"])
        vectors.append(w[f"{name}.2.weight"] @ inner + w[f"{name}.2.bias"])
    groups = [diff | ~diff] if joint else [~diff, diff]
    loss = sum(
        smooth_l1(rows[group], again[group]) + gamma * sparsity(latent[group], 0.05) for group in groups if group.any()
    )
    return np.stack(vectors), 100 * loss


@pytest.mark.parametrize("kinds", ["hdhd", "hdhhd", "hhh", "dd", "h", "d"])
@pytest.mark.parametrize("losses", ["apart", "joint"])
def test_the_equations(losses: str, kinds: str) -> None:
    adapter, features = adapter_of(losses=losses), features_of(kinds)
    (vectors,), own = adapter([features])
    wanted, loss = equations(adapter, features, joint=losses == "joint")
    np.testing.assert_allclose(vectors.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(own.detach().numpy(), [loss], rtol=1e-5)


@pytest.mark.parametrize("losses", ["apart", "joint"])
def test_rows_of_blocks_that_are_not_shown_count_in_the_losses_alone(losses: str) -> None:
    adapter = adapter_of(losses=losses)
    shown, rest, other = features_of("hdhd"), features_of("hddh", 1), features_of("hd", 2)
    whole = {**shown, **{f"unshown_{name}": rows for name, rows in rest.items()}}
    (vectors, beside), own = adapter([whole, other])
    every = {name: torch.cat([shown[name], rest[name]]) for name in shown}
    wanted, loss = equations(adapter, every, joint=losses == "joint")
    np.testing.assert_allclose(vectors.detach().numpy(), wanted[:4], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(own.detach().numpy()[0], loss, rtol=1e-5)
    assert abs(loss - equations(adapter, shown, joint=losses == "joint")[1]) > 1e-3
    # Those of one prompt are nothing to another.
    alone, loss = equations(adapter, other, joint=losses == "joint")
    np.testing.assert_allclose(beside.detach().numpy(), alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(own.detach().numpy()[1], loss, rtol=1e-5)


def test_without_losses_of_its_own_they_do_not_count_at_all() -> None:
    adapter, shown = adapter_of(refinement="none", embeddings="his"), features_of("hh")
    (vectors,), own = adapter([{**shown, **{f"unshown_{name}": rows for name, rows in features_of("h", 1).items()}}])
    assert own is None
    assert torch.equal(vectors, adapter([shown])[0][0])


def test_the_losses_apart_are_not_the_joint_ones() -> None:
    """Three rows of one kind and one of the other: the mean over all is not the sum of the means."""
    (apart,), (joint,) = (adapter_of(losses=how)([features_of("hhhd")])[1].tolist() for how in ("apart", "joint"))
    assert apart > 1.3 * joint


def test_the_sparsity_loss_counts() -> None:
    features = features_of("hdhd")
    with_it, more = (adapter_of(sparsity_weight=weight)([features])[1].item() for weight in (1e-3, 1.0))
    _, wanted = equations(adapter_of(), features, gamma=1.0)
    assert more == pytest.approx(wanted, rel=1e-5)
    assert more > 2 * with_it


def test_recon_weight_scales_both() -> None:
    features = features_of("hdhd")
    small, large = (adapter_of(recon_weight=weight)([features])[1].item() for weight in (1.0, 100.0))
    assert large == pytest.approx(100 * small, rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"losses": "joint"}, {"refinement": "none"}])
def test_a_batch_is_its_instances_one_by_one(options: dict[str, Any]) -> None:
    adapter = adapter_of(**options)
    batch = [features_of(kinds, seed) for seed, kinds in enumerate(["hdhd", "h", "dhd", "ddd", "hh"])]
    together, own = adapter(batch)
    alone = [adapter([features]) for features in batch]
    assert [len(rows) for rows in together] == [4, 1, 3, 3, 2]
    for rows, ((single,), _) in zip(together, alone, strict=True):
        torch.testing.assert_close(rows, single, rtol=1e-5, atol=1e-6)
    if own is None:
        assert options == {"refinement": "none"}
    else:
        torch.testing.assert_close(own, torch.cat([loss for _, loss in alone]), rtol=1e-5, atol=1e-6)


def test_gradients_reach_everything() -> None:
    adapter = adapter_of()
    (vectors,), own = adapter([features_of("hdhd")])
    # From the language model's side alone, all but the decoder.
    vectors.square().sum().backward(retain_graph=True)
    still = {name for name, p in adapter.named_parameters() if p.grad is None or not p.grad.any()}
    assert still == {"sae.decoder.0.weight", "sae.decoder.0.bias"}
    own.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [-60.0, 0.0, 60.0])
@pytest.mark.parametrize("losses", ["apart", "joint"])
def test_losses_are_finite_whatever_the_activation(losses: str, bias: float, dtype: torch.dtype) -> None:
    """At -60 each unit's mean activation is 0 or below, at 60 beyond 1."""
    adapter = adapter_of(losses=losses)
    with torch.no_grad():
        adapter.get_parameter("sae.encoder.0.bias").fill_(bias)
    adapter.to(dtype)
    batch = [{name: value.to(dtype) for name, value in features_of(kinds).items()} for kinds in ("hdh", "h", "d")]
    vectors, own = adapter(batch)
    assert own.dtype == torch.float32
    assert own.shape == (3,)
    assert torch.isfinite(own).all()
    (own.sum() + torch.cat(vectors).float().sum()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in adapter.parameters())


def test_bfloat16_is_close_to_float32() -> None:
    features = features_of("hdhd")
    _, exact = adapter_of()([features])
    _, own = adapter_of().to(torch.bfloat16)([{name: value.bfloat16() for name, value in features.items()}])
    assert own.item() == pytest.approx(exact.item(), rel=0.02)


def names_of(**options: Any) -> set[str]:
    return set(DEP(**options).adapter(DIMENSION, HIDDEN).state_dict())


SAE = {f"sae.{part}.0.{kind}" for part in ("encoder", "decoder") for kind in ("weight", "bias")}
HIS = {f"align_mlp_his.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
DIFF = {name.replace("his", "diff") for name in HIS}


def test_parameters_are_named_as_in_the_released_checkpoint() -> None:
    assert names_of() == SAE | HIS | DIFF
    assert names_of(embeddings="his") == SAE | HIS
    assert names_of(embeddings="diff") == SAE | DIFF
    assert names_of(refinement="none") == HIS | DIFF


def test_parameters_at_the_papers_size() -> None:
    with torch.device("meta"):
        adapter = DEP().adapter(1024, 3584)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 30_424_576
    assert adapter.get_parameter("sae.encoder.0.weight").shape == (512, 1024)
    assert adapter.get_parameter("align_mlp_his.0.weight").shape == (3584, 512)


def test_no_refinement_projects_the_embedding_itself() -> None:
    adapter = adapter_of(refinement="none", embeddings="his")
    features = features_of("hh")
    (vectors,), own = adapter([features])
    w = {name: value.double().numpy() for name, value in adapter.state_dict().items()}
    inner = gelu(features["embeddings"].double().numpy() @ w["align_mlp_his.0.weight"].T + w["align_mlp_his.0.bias"])
    wanted = inner @ w["align_mlp_his.2.weight"].T + w["align_mlp_his.2.bias"]
    np.testing.assert_allclose(vectors.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert own is None


def test_a_plain_autoencoder_has_no_sparsity_loss() -> None:
    features = features_of("hdhd")
    (plain,), own = adapter_of(refinement="ae")([features])
    (vectors,), _ = adapter_of()([features])
    assert torch.equal(plain, vectors)
    assert own.item() == pytest.approx(equations(adapter_of(), features, gamma=0.0)[1], rel=1e-5)


def test_a_linear_decoder() -> None:
    adapter, features = adapter_of(decoder_activation="none", refinement="ae"), features_of("hh")
    w = {name: value.double().numpy() for name, value in adapter.state_dict().items()}
    rows = features["embeddings"].double().numpy()
    latent = gelu(rows @ w["sae.encoder.0.weight"].T + w["sae.encoder.0.bias"])
    again = latent @ w["sae.decoder.0.weight"].T + w["sae.decoder.0.bias"]
    assert adapter([features])[1].item() == pytest.approx(100 * smooth_l1(rows, again), rel=1e-5)


@pytest.mark.parametrize(("init", "deviation"), [("xavier", None), ("normal", 0.02)])
def test_initial_weights(init: Any, deviation: float | None) -> None:
    torch.manual_seed(3)
    adapter = DEP(latent=64, init=init).adapter(96, 80)
    for name, parameter in adapter.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
            continue
        bound = math.sqrt(6 / sum(parameter.shape))
        assert parameter.std().item() == pytest.approx(deviation or bound / math.sqrt(3), rel=0.05)
        # A uniform distribution ends at sqrt(3) of its deviations.
        assert (parameter.abs().max() < 1.8 * parameter.std()) == (init == "xavier")
        assert abs(parameter.mean().item()) < 0.05 * bound
    torch.manual_seed(3)
    again = DEP(latent=64, init=init).adapter(96, 80)
    assert all(torch.equal(a, b) for a, b in zip(adapter.parameters(), again.parameters(), strict=True))


# -- options -----------------------------------------------------------------------------------------------------


def test_fidelity_sets_all_switches() -> None:
    paper, official = (registry.create("methods", "dep", {}, fidelity) for fidelity in ("paper", "official"))
    assert paper == DEP() == registry.create("methods", "dep", {})
    assert registry.options_of(paper) == {
        "encoder": "BAAI/bge-m3",
        "latent": 512,
        "embeddings": "both",
        "text": True,
        "guidance": True,
        "refinement": "sae",
        "decoder_activation": "gelu",
        "recon_weight": 100.0,
        "sparsity_weight": 0.001,
        "sparsity_target": 0.05,
        "layout": "figure6",
        "peer_weights": "mean",
        "user_mean": "peers",
        "lone_peer": "counts",
        "slot_alignment": "block",
        "tied_vectors": "own",
        "losses": "apart",
        "aux_rows": "shown",
        "init": "xavier",
        "aux_reduction": "mean",
        "vectors": "own",
    }
    changed = {
        "layout": "released",
        "peer_weights": "distance",
        "user_mean": "with_target",
        "lone_peer": "beside_own",
        "slot_alignment": "with_peers",
        "tied_vectors": "mirrored",
        "losses": "joint",
        "aux_rows": "all",
        "init": "normal",
        "aux_reduction": "sum",
    }
    assert official == replace(DEP(), **changed)  # type: ignore[arg-type]
    assert registry.create("methods", "dep", {"losses": "apart"}, "official").losses == "apart"


@pytest.mark.parametrize(
    ("option", "value"), [("embeddings", "none"), ("latent", 0), ("sparsity_target", 1.0), ("vectors", "other")]
)
def test_a_value_that_makes_no_sense(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"dep.{option}: "):
        registry.create("methods", "dep", {option: value})


def test_it_is_a_trained_method() -> None:
    method: TrainedMethod = DEP()
    own = method.properties
    assert (own.retrieval_augmented, own.embedded, own.inter_user, own.calls_model) == (True, True, True, True)
    assert (method.learning_rate, method.aux_reduction, method.encoder) == (1e-5, "mean", "BAAI/bge-m3")
