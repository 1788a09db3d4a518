"""Tokens of texts: a tokenizer's ids by its quickest way, and counts of texts that differ little from one another."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

Encode = Callable[[str], list[int]]
"""Token ids of a text, without tokens of the tokenizer's own around it."""

_SEAM = re.compile(r"(?<=\S) (?=\S)")
"""A single space between two characters that are none."""
_TOKEN = re.compile(r"(?<=\S) (?=[!-~])|(?<=[A-Za-z])[.,!?;:'\"()]")
"""Where a token begins, whatever the vocabulary: a seam, and a sign of punctuation behind a letter. Both before
characters that are asked for, because some tokenizers lack bytes of others; no added token has such a place inside."""
_ACROSS = re.compile(rf"\S\s|{_TOKEN.pattern}")
"""What no added token may hold: it would reach over a seam, or hide a place where a token begins."""
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {_QWEN, _QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")}
"""How Qwen's and Llama 3's tokenizers split texts. No match reaches over a seam, and none hangs on what is beyond the
next one: what looks ahead asks only what follows a run of white space."""


def encoder(tokenizer: Any) -> Encode:
    """What gives the ids that `tokenizer(text, add_special_tokens=False)` gives."""
    from transformers import PreTrainedTokenizerFast

    fast = getattr(tokenizer, "backend_tokenizer", None)
    own = (getattr(type(tokenizer), name) is getattr(PreTrainedTokenizerFast, name) for name in _WAY) if fast else ()
    if fast is None or not all(own) or tokenizer.split_special_tokens or fast.truncation or fast.padding:
        return lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"])
    # Without the places of tokens in the text, which take a fifth of the time.
    return lambda text: list(fast.encode_batch_fast([text], add_special_tokens=False)[0].ids)


_LONG = 8
"""Characters a token of which a text may have more than is worth counting."""
_WAY = ("__call__", "_encode_plus")


def splits_at_seams(tokenizer: Any) -> bool:
    """Whether a text takes as many tokens as its parts between seams, each but the first with its space, and one at
    least for each `_TOKEN`: so for byte-level BPE behind a known split, the form of GPT-2's, Qwen's and Llama 3's."""
    from tokenizers import models, pre_tokenizers

    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None or not isinstance(fast.model, models.BPE) or fast.model.dropout:
        return False
    if fast.model.continuing_subword_prefix or fast.model.end_of_word_suffix:
        return False
    form = _form(fast.normalizer)
    # Composed characters have other bytes than their parts.
    needed = pre_tokenizers.ByteLevel.alphabet() if form else map(chr, range(ord("!"), ord("~") + 1))
    if any(fast.model.token_to_id(sign) is None for sign in needed):
        return False
    added = tokenizer.added_tokens_decoder.values()
    if any(token.lstrip or token.rstrip or token.single_word or _ACROSS.search(token.content) for token in added):
        return False
    return form in (None, "NFC") and _known_split(fast.pre_tokenizer)


def _form(component: Any) -> Any:
    return None if component is None else json.loads(component.__getstate__())["type"]


def _known_split(pre_tokenizer: Any) -> bool:
    if pre_tokenizer is None:
        return False
    content = json.loads(pre_tokenizer.__getstate__())
    *before, last = content["pretokenizers"] if content["type"] == "Sequence" else [content]
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return False
    splits = [one for one in before if one["type"] != "Digits"]
    return all(_is_known(one) for one in splits) and (bool(splits) or last["use_regex"])


def _is_known(split: dict[str, Any]) -> bool:
    return (
        split["type"] == "Split"
        and split["behavior"] == "Isolated"
        and not split["invert"]
        and split["pattern"].get("Regex") in _SPLITS
    )


class Counter:
    """Counts texts that are tried one after another, such as a prompt with ever fewer blocks, and always exactly.

    Where the tokenizer `splits` texts at seams, only what differs from the text before is counted, as far as the next
    seams around it; otherwise the whole text.
    """

    def __init__(self, encode: Encode, splits: bool) -> None:
        self._encode = encode
        self._splits = splits
        self._text: str | None = None
        self._counted = 0
        self.tokens: int | None = None
        """What the last text takes; None where it was clear without counting it."""

    def exceeds(self, text: str, budget: int, whole: Callable[[], int] | None = None) -> bool:
        """Whether a text takes more tokens than `budget`; `whole` counts it where no shorter way is known."""
        self.tokens = None
        if not self._splits or self._text is None:
            if self._splits and len(text) > _LONG * budget and least(text) > budget:
                return True
            tokens = whole() if whole else len(self._encode(text))
        else:
            old, new = _difference(self._text, text)
            shared = self._counted - len(self._encode(old))
            if shared + least(new) > budget:
                return True
            tokens = shared + len(self._encode(new))
        self._text, self._counted, self.tokens = text, tokens, tokens
        return tokens > budget


def least(text: str) -> int:
    """No fewer tokens does a text take where `splits_at_seams`."""
    return len(_TOKEN.findall(text))


def most(whole: str, tokens: int, text: str, encode: Encode) -> int | None:
    """No more tokens does `text` take alone, being a part of `whole`, which takes `tokens`, where `splits_at_seams`:
    what is around it takes some of them. None where it is no part, or is a single word."""
    place, first, last = whole.find(text), _SEAM.search(text), _last_seam(text, len(text))
    if place < 0 or first is None:
        return None
    around = least(whole[: place + first.start()]) + least(whole[place + last :])
    ends = len(encode(text[: first.start()])) + len(encode(text[last:]))
    return tokens - around + ends


def _difference(old: str, new: str) -> tuple[str, str]:
    """Where two texts differ: their parts between the last seam that they share before it and the first one behind."""
    same = _shared(old, new)
    # A seam is known by the characters around it.
    start = max(_last_seam(old, max(same - 1, 0)), 0)
    alike = _shared(old[start:][::-1], new[start:][::-1])
    end = old.find(" ", len(old) - alike + 1)
    while end >= 0 and not _SEAM.match(old, end):
        end = old.find(" ", end + 1)
    behind = len(old) - end if end >= 0 else 0
    return old[start : len(old) - behind], new[start : len(new) - behind]


def _last_seam(text: str, end: int) -> int:
    """The place of the last seam before `end`; -1 if there is none."""
    place = text.rfind(" ", 0, end)
    while place >= 0 and not _SEAM.match(text, place):
        place = text.rfind(" ", 0, place)
    return place


def _shared(one: str, other: str) -> int:
    """Length of the longest prefix of both."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    # Of the characters up to `low` all are alike, of those up to `high` not all.
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


class Density:
    """How many tokens texts take for their length, guessed from those that were counted. Good for where to look first,
    never for an answer."""

    def __init__(self, tokens: float = 1.0) -> None:
        self._tokens, self._weight = tokens, 8.0

    @staticmethod
    def weight(text: str) -> float:
        """A text's length and, as they count for more, its words and signs."""
        return len(text) + 4.3 * text.count(" ") + 10.5 * sum(map(text.count, ".,!?'\"-():;/"))

    def learn(self, weight: float, tokens: int) -> None:
        """Take note of a text that was counted."""
        self._tokens, self._weight = self._tokens + tokens, self._weight + weight

    @property
    def ratio(self) -> float:
        """Tokens for a weight of one."""
        return self._tokens / self._weight
