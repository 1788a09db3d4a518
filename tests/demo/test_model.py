"""The shipped model: that it loads, what its tokenizer keeps, and that it has learned what it is for."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bench.demo
from bench.data import demo
from bench.demo import chats, pretrain
from bench.records import Record

FOLDER = Path(bench.demo.__file__).parent / "model"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


def test_the_folder_is_small_and_says_what_it_is() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size < 8_000_000
    assert (FOLDER / "model.safetensors").stat().st_mode & 0o044
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert config["max_position_embeddings"] == 2048
    assert config["tie_word_embeddings"] is True
    # Head sizes that vLLM's attention on the CPU can run.
    assert config["hidden_size"] // config["num_attention_heads"] in {32, 64, 80, 96, 112, 128}
    assert "pre-trained" in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "Loved it 😀👩‍👧 – really!",
        "line one\r\n\r\n\tline two  \n",
        "<br /><b>5 &amp; 6</b> [Review Text]: - [Review 1]: 3.0",
        "naïve Ωmega 日本語 \u200b\u00a0x",
        " leading and trailing ",
        "<his_token_start>[HIS_TOKEN_3]<his_token_end>",
    ],
)
def test_any_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text


def test_every_byte_has_a_token(tokenizer: Any) -> None:
    text = "".join(chr(code) for code in [*range(1, 0x250), 0x1F600, 0xFFFD, 0x10FFFF])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_the_chat_template_is_chatml_without_a_default_system_prompt(tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi.\nThere."}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi.\nThere.<|im_end|>\n<|im_start|>assistant\n"
    )
    alone = tokenizer.apply_chat_template(messages[1:], tokenize=False)
    assert alone == "<|im_start|>user\nHi.\nThere.<|im_end|>\n"


def test_soft_prompt_tokens_are_single_and_last(tokenizer: Any) -> None:
    assert len(tokenizer) == pretrain.VOCABULARY
    names = [
        *(f"[HIS_TOKEN_{i}]" for i in range(8)),
        *(f"[DIFF_TOKEN_{i}]" for i in range(8)),
        *("<his_token_start>", "<his_token_end>", "<diff_token_start>", "<diff_token_end>"),
    ]
    assert tokenizer.convert_tokens_to_ids(names) == list(range(len(tokenizer) - 20, len(tokenizer)))
    assert tokenizer(" ".join(names), add_special_tokens=False)["input_ids"][0] == len(tokenizer) - 20
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.bos_token is None


def _prompts(count: int) -> list[tuple[str, str, str]]:
    """RAG's prompt with the own history and with another user's, and the reference, of `count` validation instances of
    each category; the newest four records."""
    made = []
    for category, corpus in demo.generate(0).items():
        rows = corpus.split("val")[: count + 1]
        for index in range(count):
            row = rows[index]
            prompts = []
            for source in (row, rows[index + 1]):
                blocks = [
                    chats.templates_of("rag").part("block", _block(number, record))
                    for number, record in enumerate(reversed(source.profile[-4:]), 1)
                ]
                given = {name: str(value) for name, value in row.given.items()}
                system, user = chats.render("rag_review", given | {"history": "\n".join(blocks)})
                prompts.append(chats.Chat("rag_review", system, user, "").prompt)
            assert row.category == category
            made.append((prompts[0], prompts[1], corpus.reference(row)))
    return made


def _block(number: int, record: Record) -> dict[str, str]:
    fields = {name: str(value) for name, value in record.fields.items()}
    return {**fields, "number": str(number), "text": record.text}


def _loss(model: Any, tokenizer: Any, prompt: str, answer: str) -> float:
    """Mean cross-entropy of the answer's tokens, nats."""
    import torch

    start = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    end = tokenizer(answer, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([start + end])
    with torch.no_grad():
        logits = model(ids).logits[0, len(start) - 1 : -1]
    return float(torch.nn.functional.cross_entropy(logits, ids[0, len(start) :]))


def test_it_predicts_reviews_and_uses_the_history(model: Any, tokenizer: Any) -> None:
    import torch

    torch.manual_seed(0)
    untrained = pretrain.build(pretrain.Recipe()).eval()
    rows = _prompts(4)
    own = [_loss(model, tokenizer, mine, answer) for mine, _, answer in rows]
    other = [_loss(model, tokenizer, theirs, answer) for _, theirs, answer in rows]
    blank = [_loss(untrained, tokenizer, mine, answer) for mine, _, answer in rows[:2]]
    mean = sum(own) / len(own)
    assert math.exp(mean) < 0.1 * math.exp(sum(blank) / len(blank))
    assert mean < sum(other) / len(other) - 0.1


TRIAL = """
import sys
from pathlib import Path
from bench.demo import pretrain

shape = dict(hidden=128, heads=2, kv_heads=2, feed_forward=64, layers=3)
recipe = pretrain.Recipe(steps=2, tokens_per_batch=600, tokenizer_worlds=16, **shape)
pretrain.train(Path(sys.argv[1]), recipe, held_out=4)
"""


def test_pretraining_is_seeded_also_in_two_processes(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    script = tmp_path / "trial.py"
    script.write_text(TRIAL)
    launchers = {
        "one": [sys.executable],
        "two": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    }
    for name, launcher in launchers.items():
        subprocess.run([*launcher, str(script), str(tmp_path / name)], check=True, capture_output=True, text=True)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in launchers)
    # The gradients of a step's two batches are added, whoever made them.
    assert all((one[name] == two[name]).all() for name in one)
    lines = [json.loads(line) for line in (tmp_path / "two" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2]
    assert "copied" in lines[0]


def test_the_shipped_tokenizer_can_be_made_again() -> None:
    tokenizer = pretrain.train_tokenizer(pretrain.Recipe.seed)
    shipped = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    assert json.loads(tokenizer.to_str()) == shipped


def test_auto_tokenizer_agrees_with_the_tokenizer_file(tokenizer: Any) -> None:
    from tokenizers import Tokenizer

    plain = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    for chat in chats.chats("agreement", 1, (0, 0, 1)):
        assert tokenizer(chat.text, add_special_tokens=False)["input_ids"] == plain.encode(chat.text).ids


def test_an_untrained_model_can_already_copy() -> None:
    import torch

    model = pretrain.build(pretrain.Recipe()).eval()
    dice = demo.Dice("copying")
    with torch.no_grad():
        losses = [
            float((pretrain.losses(model, ids)[0] * weights[0, 1:]).sum() / weights.sum())
            for ids, weights in (pretrain.tensors([pretrain.repeats(dice)]) for _ in range(4))
        ]
    assert sum(losses) / len(losses) < math.log(pretrain.VOCABULARY) - 1.5


@pytest.mark.parametrize("kind", [name for name, _ in chats.KINDS])
def test_pretraining_chats_take_the_shape_of_their_prompt(kind: str) -> None:
    made = [chat for n in range(3) for chat in chats.chats(f"test/{n}", 4, (0, 0, 1)) if chat.kind == kind]
    assert made
    for chat in made:
        assert chat.answer
        assert "{{" not in chat.system + chat.user
        system, _ = chats.render(kind, PLACEHOLDERS)
        assert chat.system == system
        assert chat.user.count("- [Review 2]:") <= 1
        assert all(quote in chat.user and quote in chat.answer for quote in chat.quotes)


PLACEHOLDERS = dict.fromkeys(
    (
        *("item_title", "item_description", "output_rating", "output_title", "history", "summary", "differences"),
        *("rating", "title", "own_text"),
    ),
    "",
) | {"guidance": "\n" + chats.templates_of("dep").part("guidance", {})}


def test_summaries_quote_only_what_is_shown() -> None:
    quoted = 0
    for number in range(6):
        for chat in chats.chats(f"quotes/{number}", 4, (0, 0, 1, 1)):
            if chat.kind == "pag_profile":
                # The parts between quotation marks, at odd positions.
                for phrase in chat.answer.split('"')[1::2]:
                    quoted += 1
                    assert phrase in chat.user
    assert quoted > 20
