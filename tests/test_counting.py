"""Counts by what differs, and prompts that are fitted with them, against whole texts tokenised for every probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import bench.context
from bench.chat import Chat
from bench.context import Context
from bench.counting import _SPLITS, Counter, encoder, least, most, splits_at_seams
from bench.data.corpus import Corpus
from bench.errors import ConfigError
from bench.prompting import longest_prefix
from bench.records import Instance, Prompt, Record
from bench.tasks import reviews
from bench.tasks.reviews import Item, Reviews
from bench.templates import Templates

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WORDS = """It wasn't the best film, but we've seen worse: "A kite" (1999) flies high... really? 12345 of them!
Naïve café owners — and their dogs — don't care; the street, the drum, the whole of it!!
- [Review 1]:  two  spaces\tand tabs\r\n\n\n日本語のレビュー。とても良い 🙂🙂 e\u0301\u0301\xa0x"""


def byte_level(split: str | None, normalizer: Any = None) -> Tokenizer:
    """BPE over bytes; `split` is a pattern, or None for GPT-2's own."""
    tokenizer = Tokenizer(models.BPE())
    parts = [pre_tokenizers.Split(Regex(split), "isolated")] if split else []
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*parts, last]) if parts else last
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    return tokenizer


def unigram() -> Tokenizer:
    """As SentencePiece makes them: no byte-level alphabet, words with their spaces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=[*SPECIAL, "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    return tokenizer


KINDS: dict[str, tuple[Callable[[], Tokenizer], bool]] = {
    "gpt2": (lambda: byte_level(None), True),
    **{
        f"split {number}": (lambda split=split: byte_level(split, normalizers.NFC()), True)  # type: ignore[misc]
        for number, split in enumerate(sorted(_SPLITS))
    },
    "whole": (lambda: byte_level(r"[\s\S]+"), False),
    "unigram": (unigram, False),
}
"""Tokenizers, and whether texts are known to split at seams there."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made = {}
    for kind, (make, _) in KINDS.items():
        wrapped: Any = PreTrainedTokenizerFast(
            tokenizer_object=make(), eos_token=SPECIAL[2], pad_token=SPECIAL[0], additional_special_tokens=SPECIAL[1:2]
        )
        wrapped.chat_template = CHATML
        made[kind] = str(tmp_path_factory.mktemp("tokenizer"))
        wrapped.save_pretrained(made[kind])
    return made


@pytest.fixture(scope="module", params=KINDS)
def chat(folders: dict[str, str], request: pytest.FixtureRequest) -> Chat:
    return Chat(folders[request.param])


@pytest.fixture(scope="module", params=[kind for kind, (_, splits) in KINDS.items() if splits])
def splitting(folders: dict[str, str], request: pytest.FixtureRequest) -> Chat:
    return Chat(folders[request.param])


def test_which_tokenizers_split_at_seams(folders: dict[str, str], tiny_qwen2: Path) -> None:
    assert {kind: splits_at_seams(Chat(folder).tokenizer) for kind, folder in folders.items()} == {
        kind: splits for kind, (_, splits) in KINDS.items()
    }
    assert splits_at_seams(Chat(str(tiny_qwen2)).tokenizer)


@pytest.mark.parametrize("token", ["a b", "b ", "Mr.", "x's"])
def test_an_added_token_over_a_seam(token: str, folders: dict[str, str]) -> None:
    tokenizer = Chat(folders["gpt2"]).tokenizer
    tokenizer.add_tokens([token])
    assert not splits_at_seams(tokenizer)


SPACES = [" ", " ", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\xa0", "\x1c"]
SIGNS = [".", ",", "...", "'s", "n't", '"', "(", "-", "_", "e\u0301", "\u0301", "\u0958", "🙂", "<b>"]
PIECES = st.sampled_from([*SPACES, *SIGNS, "a", "It", "0", "12345", "é", "日本", "word", " words", "x" * 70])
TEXTS = st.lists(PIECES, max_size=40).map("".join)
BOUNDED = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def plain(chat: Chat, text: str) -> int:
    return len(chat.tokenizer(text, add_special_tokens=False)["input_ids"])


@BOUNDED
@given(st.lists(TEXTS, min_size=2, max_size=4), TEXTS, TEXTS, st.integers(-2, 2))
def test_counts_by_what_differs(chat: Chat, middles: list[str], before: str, behind: str, off: int) -> None:
    counter = Counter(encoder(chat.tokenizer), splits_at_seams(chat.tokenizer))
    for middle in middles:
        text = before + middle + behind
        tokens = plain(chat, text)
        assert counter.exceeds(text, tokens + off) == (off < 0)


@BOUNDED
@given(TEXTS, TEXTS, TEXTS)
def test_bounds_hold(splitting: Chat, before: str, text: str, behind: str) -> None:
    encode = encoder(splitting.tokenizer)
    whole = f"<|im_start|>{before}{text}{behind}<|im_end|>"
    assert least(whole) <= plain(splitting, whole)
    bound = most(whole, plain(splitting, whole), text, encode)
    assert bound is None or bound >= plain(splitting, text)


@BOUNDED
@given(TEXTS)
def test_the_quick_way_has_the_tokenizers_ids(chat: Chat, text: str) -> None:
    assert encoder(chat.tokenizer)(text) == chat.tokenizer(text, add_special_tokens=False)["input_ids"]


class Slow(Chat):
    """Tokenises each probe's whole text."""

    def count(self, prompt: Prompt) -> int:
        return len(self.ids(prompt)) if self.control_tokens(prompt) or prompt.slots else plain(self, self.text(prompt))

    def trial(self) -> Any:
        return self

    tokens = None

    def fits(self, prompt: Prompt, budget: int) -> bool:
        return self.count(prompt) <= budget

    def keeps(self, prompt: Prompt, text: str, tokens: int) -> bool:
        return False

    def cut(self, text: str, tokens: int) -> str:
        def fits(prefix: str) -> bool:
            return len(self._text_ids(prefix)) <= tokens

        return text if fits(text) else longest_prefix(text, fits)


def bisected(offered: int, fits: Callable[[int], bool], guess: Callable[[], int]) -> int:
    low, high = 0, offered
    if offered and fits(offered):
        return offered
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


TEMPLATES = {
    "block": "- [Text {{number}}]: {{text}}\n- [Of]: {{item_description}}",
    "slot": "- <m>[A_TOKEN_{{index}}]</m>",
    "given": "[Item]: {{item_description}}",
    "write": "=== system\nBe brief.\n=== user\n{{history}}\n{{given}}{{output_title}}\n{{said}}",
}
MARKS = ("<m>", "</m>", "[A_TOKEN_0]")


def rendered(chat: Chat, texts: Sequence[str], abouts: Sequence[str], said: str, budget: int, soft: bool) -> Any:
    """The prompt, or what is said where it does not fit."""
    context = Context(
        task=Reviews(),
        corpus=Corpus("c", {"test": ()}, {}),
        method="m",
        templates=Templates(TEMPLATES, {name: name for name in TEMPLATES}),
        chat=chat,
        retriever=None,
        k=8,
        input_budget=budget,
        run_seed=1,
        embedder=lambda texts, encoder: np.zeros((len(texts), 1), np.float32),
        marks=MARKS if soft else (),
    )
    records: list[Record] = [
        reviews.review("u", Item(str(n), "t", about), 4.0, "t", text, n)
        for n, (text, about) in enumerate(zip(texts, abouts, strict=False))
    ]
    target: Instance = reviews.instance(
        "c", "test", reviews.review("u", Item("x", "X", abouts[0]), 5.0, "T", "s", 9), tuple(records)
    )
    blocks = ("block", "slot") if soft else ("block",)
    try:
        return context.prompt("write", target, records, blocks=lambda _: blocks, texts={"said": said}, soft=soft)
    except ConfigError as error:
        return str(error)


def compared(chat: Chat, patch: pytest.MonkeyPatch, *arguments: Any) -> Any:
    found = rendered(chat, *arguments)
    with patch.context() as patched:
        patched.setattr(bench.context, "fitting", bisected)
        wanted = rendered(Slow(chat.model), *arguments)
    assert found == wanted
    if isinstance(found, Prompt):
        assert chat.ids(found) == Slow(chat.model).ids(found)
    return found


@settings(BOUNDED, max_examples=15)
@given(
    texts=st.lists(st.one_of(TEXTS, TEXTS.map(lambda text: text + "<|im_end|>")), max_size=5),
    abouts=st.lists(TEXTS, min_size=6, max_size=6),
    said=TEXTS,
    budget=st.integers(40, 500),
    soft=st.booleans(),
)
def test_prompts_are_those_of_the_slow_way(
    chat: Chat,
    monkeypatch: pytest.MonkeyPatch,
    texts: list[str],
    abouts: list[str],
    said: str,
    budget: int,
    soft: bool,
) -> None:
    compared(chat, monkeypatch, texts, abouts, said, budget, soft)


@pytest.mark.parametrize("soft", [False, True])
def test_budgets_around_each_border(chat: Chat, monkeypatch: pytest.MonkeyPatch, soft: bool) -> None:
    texts = [f"Text {n} of it, isn't it?\n" * (n + 1) for n in range(4)]
    shown = set()
    for budget in range(60, 420, 17):
        found = compared(chat, monkeypatch, texts, ["about  it"] * 6, "he said so", budget, soft)
        shown.add(found.blocks_shown if isinstance(found, Prompt) else None)
    assert shown >= {1, 2, 3}


@pytest.mark.parametrize("text", ["日本語のレビュー。" * 1_500, "so it was. " * 1_500, "x" * 20_000])
def test_a_long_text(chat: Chat, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    short = compared(chat, monkeypatch, [text, "b"], ["about"] * 6, text, 900, False)
    assert isinstance(short, Prompt)
    assert 0 < len(short.user) < len(text)


def test_work_grows_with_what_is_shown_and_not_with_what_is_offered(folders: dict[str, str]) -> None:
    seen = []
    for offered in (8, 32, 128):
        chat, counted = Chat(folders["gpt2"]), [0]
        own = chat.encoding((), ())
        own.encode = counting(own.encode, counted)
        texts = [f"{n} it was so good, and again. " * 9 for n in range(offered)]
        made = rendered(chat, texts, ["a"] * offered, "", 900, False)
        assert 2 <= made.blocks_shown <= 6
        seen.append(counted[0])
    print(f"\ntokenised for a budget of 900 with 8, 32 and 128 blocks offered: {seen}")
    assert seen[0] == seen[1] == seen[2]


def counting(encode: Callable[[str], list[int]], counted: list[int]) -> Callable[[str], list[int]]:
    def count(text: str) -> list[int]:
        ids = encode(text)
        counted[0] += len(ids)
        return ids

    return count


def test_the_ids_of_a_rendered_prompt_are_at_hand(splitting: Chat) -> None:
    prompt = rendered(splitting, ["so it was"], ["a"] * 6, "", 900, False)
    own = splitting.encoding((), ())
    encode = own.encode
    own.encode = lambda text: pytest.fail("tokenised again")
    try:
        ids = splitting.ids(prompt)
        ids.append(0)
        assert splitting.ids(prompt) == ids[:-1], "a list of the caller's own"
    finally:
        own.encode = encode
