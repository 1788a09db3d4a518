"""Prompts rendered, against the limit: one pass of the tokenizer over the finished prompts.

Generated reviews and a tokenizer trained on them; processor time, because other processes on the machine are not at
fault, in turn. `pytest -s tests/benchmarks -k rendering` prints both sides; `measure_rendering.py` takes a real
tokenizer and real data.
"""

from __future__ import annotations

import random
import statistics
import time
from functools import partial
from typing import Any

import numpy as np
import pytest

from bench.chat import Chat
from bench.context import Context
from bench.data.corpus import Corpus
from bench.records import Instance, Prompt
from bench.retrievers.recency import Recency
from bench.tasks import reviews
from bench.tasks.reviews import Item, Reviews
from bench.templates import load

USERS, K, BUDGET, PASSES = 60, 8, 2048, 5
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SYLLABLES = "ba be co da en fi go ha in jo ka li mo na or pe ra se ti un ve wo ing ed er tion ly"
SYLLABLES = _SYLLABLES.split()


def text(generator: random.Random, words: list[str], count: int) -> str:
    """Words with Zipf's frequencies, in sentences."""
    chosen = [words[min(int(generator.paretovariate(0.7)), len(words)) - 1] for _ in range(count)]
    marks = generator.choices(["", ",", ".", "!", "'s", "...\n"], [80, 8, 7, 1, 3, 1], k=count)
    return " ".join(map("".join, zip(chosen, marks, strict=True)))


@pytest.fixture(scope="module")
def instances() -> list[Instance]:
    generator = random.Random(1)
    words = ["".join(generator.choices(SYLLABLES, k=generator.randint(1, 4))) for _ in range(8000)]
    made = []
    for user in range(USERS):
        records = []
        for number in range(K + 1):
            item = Item(
                f"{user}-{number}", text(generator, words, 4), text(generator, words, generator.randint(40, 90))
            )
            body = text(generator, words, generator.randint(50, 500))
            records.append(reviews.review(str(user), item, 4.0, text(generator, words, 5), body, number))
        made.append(reviews.instance("c", "test", records[-1], tuple(records[:-1])))
    return made


@pytest.fixture(scope="module")
def chat(instances: list[Instance], tmp_path_factory: pytest.TempPathFactory) -> Chat:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((record.text for instance in instances for record in instance.profile), trainer)
    wrapped: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=special[2], pad_token=special[0], additional_special_tokens=special[1:2]
    )
    wrapped.chat_template = CHATML
    folder = tmp_path_factory.mktemp("tokenizer")
    wrapped.save_pretrained(folder)
    return Chat(str(folder))


def test_rendering(instances: list[Instance], chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.methods.rag import RAG

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    context = partial(
        Context,
        task=Reviews(),
        corpus=Corpus("c", {"test": tuple(instances)}, {}),
        method="rag",
        templates=load(RAG(), "rag", Reviews(), "reviews"),
        retriever=Recency(),
        k=K,
        input_budget=BUDGET,
        run_seed=1,
        embedder=lambda texts, encoder: np.zeros((len(texts), 1), np.float32),
    )

    def rendered() -> list[Prompt]:
        # With the tokenizer at hand, but none of the prompts.
        fresh = Chat(chat.model)
        vars(fresh)["tokenizer"] = chat.tokenizer
        return [next(RAG().steps(instance, context(chat=fresh)))[0] for instance in instances]

    prompts = rendered()
    texts, tokenizer = [chat.text(prompt) for prompt in prompts], chat.tokenizer
    tokens = [chat.count(prompt) for prompt in prompts]
    assert max(tokens) <= BUDGET
    assert statistics.mean(tokens) > 0.7 * BUDGET
    assert 0 < statistics.mean(prompt.blocks_shown for prompt in prompts) < K - 1
    shares: dict[str, list[float]] = {"one by one": [], "batch": []}
    for _ in range(PASSES):
        start = time.process_time()
        rendered()
        own = time.process_time() - start
        start = time.process_time()
        for one in texts:
            tokenizer(one, add_special_tokens=False)
        shares["one by one"].append((time.process_time() - start) / own)
        start = time.process_time()
        tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        shares["batch"].append((time.process_time() - start) / own)
    medians = {name: statistics.median(found) for name, found in shares.items()}
    print(f"\nrendering {USERS} prompts of {statistics.mean(tokens):.0f} tokens, shares of the limit: {medians}")
    assert medians["one by one"] >= 0.55
