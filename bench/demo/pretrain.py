"""Make the demo's language model from nothing: tokenizer, pre-training, export.

    python -m bench.demo.pretrain --out FOLDER
    torchrun --standalone --nproc-per-node 2 -m bench.demo.pretrain --out FOLDER

writes a folder that transformers and vLLM load, a log (`log.jsonl`) and checkpoints; the second command shares the
batches of a step between two processes. Everything is seeded: the same command gives the same weights on the same
machine with the same versions.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.batching import batches as in_batches
from bench.data.demo import Dice
from bench.demo.chats import CHAT_TEMPLATE, SPECIAL, Chat, chats
from bench.methods.dep import DEP
from bench.softprompt import processes

if TYPE_CHECKING:
    import torch

VOCABULARY = 2048
CONTEXT = 2048
ROPE_THETA = 10_000_000.0
POOL = 600
MARKS = DEP.marks
"""The tokens of soft prompts: trained methods' prompts are part of the text."""


@dataclass(frozen=True)
class Recipe:
    """The settings of pre-training; the defaults are those of the shipped model."""

    seed: int = 0
    steps: int = 4600
    batches_per_step: int = 2
    tokens_per_batch: int = 4096
    hidden: int = 192
    layers: int = 4
    heads: int = 3
    kv_heads: int = 3
    feed_forward: int = 512
    muon_rate: float = 1.8e-3
    adam_rate: float = 2.4e-3
    warmup: int = 60
    answer_weight: float = 3.0
    tokenizer_worlds: int = 200

    def blocks(self, done: float) -> tuple[float, ...]:
        """How often 0..8 history blocks are shown at a share `done` of the steps: few first, three or four later on."""
        if done < 0.5:
            return (1, 4, 5, 2, 1, 0, 0, 0, 0)
        return (1, 2, 3, 6, 6, 0.5, 0.5, 0.3, 0.7)

    def scramble(self, done: float) -> float:
        """The share of worlds whose phrases cannot be known, only copied."""
        return 0.3 if done < 0.6 else 0.1

    def induction(self, done: float) -> float:
        """The share of sequences that are random tokens, repeated: nothing else at first, so that copying is settled
        before the model learns any phrase by heart."""
        return 1.0 if done < 0.02 else 0.1 if done < 0.5 else 0.03

    def rate(self, step: int) -> float:
        """The learning rate's factor: linear warmup, constant, linear decay to 2% over the second half."""
        warm = min(1.0, (step + 1) / self.warmup)
        return warm * min(1.0, max(0.02, 2.0 * (1.0 - step / self.steps)))


def train_tokenizer(seed: int, worlds: int = 200) -> Any:
    """A byte-level BPE tokenizer, trained on pre-training text only; the soft-prompt tokens have the last ids.

    Normalisation and split are Qwen2's, because AutoTokenizer gives every Qwen2 model those, whatever its file says.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(MARKS),
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (
        chat.text
        for number in range(worlds)
        for chat in chats(f"pretraining/{seed}/tokenizer/{number}", 1, (1, 1, 1, 1, 1))
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(MARKS))
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise AssertionError(f"the tokenizer has {tokenizer.get_vocab_size()} entries, not {VOCABULARY}")
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """`tokenizer.json` and `tokenizer_config.json`, as AutoTokenizer wants them."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": ["<|im_start|>", *MARKS],
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Row:
    """Token ids of one sequence with a weight for the prediction of each."""

    ids: list[int]
    weights: list[float]


def encode(tokenizer: Any, chat: Chat, answer_weight: float) -> Row:
    """A chat as tokens; the first is predicted from nothing and weighs nothing."""
    prompt = tokenizer.encode(chat.prompt, add_special_tokens=False).ids
    answer = tokenizer.encode(chat.answer + "<|im_end|>", add_special_tokens=False).ids
    return Row(prompt + answer, [0.0] + [1.0] * (len(prompt) - 1) + [answer_weight] * len(answer))


def repeats(dice: Dice) -> Row:
    """10 to 69 random tokens, two to four times over, sometimes with others between; the repetitions weigh."""
    length = 10 + dice.below(60)
    ids = block = [_any_token(dice) for _ in range(length)]
    weights = [0.0] * length
    for _ in range(1 + dice.below(3)):
        gap = dice.below(dice.pick((60, 200, 700))) if dice.chance(0.6) else 0
        ids = ids + [_any_token(dice) for _ in range(gap)] + block
        weights += [0.0] * (gap + 1) + [1.0] * (length - 1)
    return Row(ids, weights)


def _any_token(dice: Dice) -> int:
    return len(SPECIAL) + dice.below(VOCABULARY - len(SPECIAL) - len(MARKS))


def batches(tokenizer: Any, recipe: Recipe) -> Iterator[list[list[Row]]]:
    """The batches of each step: sequences of like length, `tokens_per_batch` with padding or a little less. Those of a
    step are alike as well, so that processes that share them need not wait for each other."""
    dice = Dice(f"pretraining/{recipe.seed}/batches")
    made = world = 0
    while made < recipe.steps:
        done = made / recipe.steps
        share = recipe.induction(done)
        pool = [repeats(dice) for _ in range(int(POOL * share))]
        while len(pool) < POOL:
            fresh = chats(f"pretraining/{recipe.seed}/{world}", 5, recipe.blocks(done), recipe.scramble(done))
            pool += [encode(tokenizer, chat, recipe.answer_weight) for chat in fresh]
            world += 1
        pool = [row for row in pool if len(row.ids) <= CONTEXT]
        lengths = [len(row.ids) for row in pool]
        ready = [
            [pool[index] for index in rows]
            for rows in in_batches(lengths, recipe.tokens_per_batch, shortest_first=True)
        ]
        count = recipe.batches_per_step
        steps = [ready[start : start + count] for start in range(0, len(ready) - count + 1, count)]
        for some in dice.several(steps, len(steps))[: recipe.steps - made]:
            made += 1
            yield some


def build(recipe: Recipe) -> Any:
    """The untrained model."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(recipe.seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=SPECIAL.index("<|im_end|>"),
        pad_token_id=SPECIAL.index("<|endoftext|>"),
        use_cache=False,
    )
    model = Qwen2ForCausalLM(config)  # type: ignore[no-untyped-call]
    _look_back(model, config)
    return model


def _look_back(model: Any, config: Any) -> None:
    """Start from weights that can copy: without them a run of this length never found out how.

    A quarter of the width each carries the token before and the one before that: layer 0's first two heads attend one
    and two positions back (their biases alone decide) and write what they find there. The first heads of layers 1
    and 2 look for places that follow the same two tokens and write the token found there. All of it is trained on
    like every other weight.
    """
    import torch

    quarter, size = config.hidden_size // 4, config.hidden_size // config.num_attention_heads
    first, second, before, earlier = (slice(i * quarter, (i + 1) * quarter) for i in range(4))
    turns = ROPE_THETA ** (-torch.arange(0, size, 2) / size)
    steady = [i for i in range(size // 2) if turns[i] < 0.001]
    sharp = math.sqrt(8 * math.sqrt(size) / float((1 - torch.cos(turns)).sum()))
    scale = config.initializer_range
    layers = [layer.self_attn for layer in model.model.layers]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight[:, before.start :] = 0
        for head, target in ((0, before), (1, earlier)):
            rows, angle = slice(head * size, (head + 1) * size), (head + 1) * turns
            layers[0].q_proj.bias[rows] = sharp * torch.cat([torch.cos(angle), -torch.sin(angle)])
            layers[0].k_proj.bias[rows] = sharp * torch.cat([torch.ones_like(turns), torch.zeros_like(turns)])
            _carry(layers[0], rows, first, target, scale)
        for layer, source in ((layers[1], second), (layers[2], first)):
            layer.q_proj.weight[:size] = 0
            layer.k_proj.weight[:size] = 0
            for column, pair in enumerate(steady):
                for row, query, key in ((pair, first, before), (pair + size // 2, before, earlier)):
                    layer.q_proj.weight[row, query.start + column] = 2.2
                    layer.k_proj.weight[row, key.start + column] = 2.2
            _carry(layer, slice(0, size), source, source, 3 * scale)


def _carry(layer: Any, rows: slice, source: slice, target: slice, gain: float) -> None:
    """Make the head of these rows copy one part of the width into another."""
    import torch

    count = min(rows.stop - rows.start, source.stop - source.start)
    one = torch.eye(count)
    layer.v_proj.weight[rows] = 0
    layer.v_proj.weight[rows.start : rows.start + count, source.start : source.start + count] = one
    layer.o_proj.weight[target.start : target.start + count, rows.start : rows.start + count] = gain * one


def optimizers(model: Any, recipe: Recipe) -> list[Any]:
    """Muon for the matrices inside the layers, AdamW for embeddings, norms and biases."""
    import torch

    inside = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    muon = torch.optim.Muon(inside, lr=recipe.muon_rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(rest, lr=recipe.adam_rate, betas=(0.9, 0.95), weight_decay=0.0)
    return [muon, adam]


def tensors(batch: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and weights, shape (rows, length), padded on the right."""
    import torch

    length = max(len(row.ids) for row in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    weights = torch.zeros(len(batch), length)
    for index, row in enumerate(batch):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        weights[index, : len(row.ids)] = torch.tensor(row.weights)
    return ids, weights


@cache
def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16."""
    import torch

    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def losses(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each token but the first, nats, shape (rows, length - 1)."""
    import torch

    # Without instructions for it, bfloat16 is several times slower than float32.
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_bfloat16()):
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        logits = torch.nn.functional.linear(hidden, model.lm_head.weight)
    flat = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return flat.view(len(ids), -1)


def copying(tokenizer: Any, chat: Chat) -> list[int]:
    """Positions (in the whole chat) of the answer's tokens that continue, from the third on, a phrase of the prompt."""
    start = len(tokenizer.encode(chat.prompt, add_special_tokens=False).ids)
    encoded = tokenizer.encode(chat.answer, add_special_tokens=False)
    found = []
    for quote in chat.quotes:
        begin = chat.answer.index(quote)
        inside = [i for i, (low, high) in enumerate(encoded.offsets) if low >= begin and high <= begin + len(quote)]
        found += [start + i for i in inside[2:]]
    return found


def evaluate(model: Any, tokenizer: Any, held_out: Sequence[Chat]) -> dict[str, float]:
    """Mean loss on held-out answers, by kind of chat, and on their copied tokens, in nats a token."""
    import torch

    sums: dict[str, list[float]] = {}
    model.eval()
    with torch.no_grad():
        for chat in held_out:
            ids, weights = tensors([encode(tokenizer, chat, 2.0)])
            loss = losses(model, ids)[0]
            answer = weights[0, 1:] == 2.0
            sums.setdefault(chat.kind, []).append(float(loss[answer].mean()))
            copied = copying(tokenizer, chat)
            if copied and chat.kind.endswith("_review"):
                sums.setdefault("copied", []).append(float(loss[torch.tensor(copied) - 1].mean()))
    model.train()
    return {name: round(sum(values) / len(values), 4) for name, values in sums.items()}


def export(model: Any, tokenizer: Any, folder: Path) -> None:
    """Weights in bfloat16 with everything that is needed to load them."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = json.loads(model.config.to_json_string())
    config |= {"architectures": ["Qwen2ForCausalLM"], "dtype": "bfloat16", "use_cache": True}
    config.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    generation = {
        "eos_token_id": model.config.eos_token_id,
        "pad_token_id": model.config.pad_token_id,
        "do_sample": True,
        "temperature": 0.8,
        "top_p": 0.95,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
    save_tokenizer(tokenizer, folder)


def train(out: Path, recipe: Recipe, held_out: int = 100, checkpoint_minutes: float = 5.0) -> None:
    """Pre-train and write the model to `out`; a log line every 50 steps, a checkpoint every few minutes."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    first = processes.rank() == 0
    if processes.world() > 1:
        torch.distributed.init_process_group("gloo")
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(recipe.seed, recipe.tokenizer_worlds)
    unseen = [
        chat
        for number in range(3)
        for chat in chats(f"pretraining/{recipe.seed}/held-out/{number}", 2, (0, 0, 0, 0, 1))
    ][:held_out]
    model = build(recipe)
    groups = optimizers(model, recipe)
    begun = saved = time.monotonic()
    seen = 0
    running: list[float] = []
    with (out / "log.jsonl" if first else Path(os.devnull)).open("w", encoding="utf-8") as log:
        for step, some in enumerate(batches(tokenizer, recipe)):
            running.append(_step(model, groups, some, recipe, step))
            seen += sum(len(row.ids) for batch in some for row in batch)
            last = step + 1 == recipe.steps
            if step % 50 == 49 or last:
                minutes = (time.monotonic() - begun) / 60
                line = {"step": step + 1, "tokens": seen, "minutes": round(minutes, 2)}
                line["loss"] = round(sum(running) / len(running), 4)
                running.clear()
                if first and (step % 250 == 249 or last):
                    line |= evaluate(model, tokenizer, unseen)
                print(json.dumps(line), file=log, flush=True)
            if first and time.monotonic() - saved > checkpoint_minutes * 60:
                export(model, tokenizer, out / "checkpoint")
                saved = time.monotonic()
    if first:
        export(model, tokenizer, out)
    processes.leave()


def _step(model: Any, groups: Sequence[Any], some: Sequence[Sequence[Row]], recipe: Recipe, step: int) -> float:
    """One update from some batches; each process takes its share of them. Returns the mean loss of this process's."""
    import torch

    own = some[processes.rank() :: processes.world()]
    value = 0.0
    for batch in own:
        ids, weights = tensors(batch)
        loss = (losses(model, ids) * weights[:, 1:]).sum() / weights[:, 1:].sum()
        (loss / len(some)).backward()  # type: ignore[no-untyped-call]
        value += loss.item() / len(own)
    if processes.world() > 1:
        parameters = list(model.parameters())
        together = torch.cat([one.grad.flatten() for one in parameters])
        torch.distributed.all_reduce(together)
        for one, total in zip(parameters, torch.split(together, [one.numel() for one in parameters]), strict=True):
            one.grad = total.view_as(one)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group, peak in zip(groups, (recipe.muon_rate, recipe.adam_rate), strict=True):
        for settings in group.param_groups:
            settings["lr"] = peak * recipe.rate(step)
        group.step()
        group.zero_grad(set_to_none=True)
    if not math.isfinite(value):
        raise AssertionError(f"the loss is {value} at step {step}: lower the learning rate")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.demo.pretrain", description="Pre-train the demo's model.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="fewer steps for a trial run")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    arguments = parser.parse_args()
    if Recipe.batches_per_step % processes.world():
        parser.error(
            f"{processes.world()} processes cannot share the {Recipe.batches_per_step} batches of a step evenly"
        )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    train(arguments.out, Recipe(seed=arguments.seed, steps=arguments.steps))


if __name__ == "__main__":
    main()
