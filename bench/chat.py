"""Chat messages to token ids: the one place, and the one template, for budgets, vLLM and training alike."""

from __future__ import annotations

import copy
import inspect
import json
import re
import sys
import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.counting import Counter, Density, Encode, encoder, most, splits_at_seams
from bench.errors import ConfigError, PluginError, ResourceError
from bench.models import require_at_hand, resolve_model
from bench.progress import say
from bench.prompting import longest_prefix
from bench.records import THOUGHTS, Call, Prompt

PLACEHOLDER = re.compile(r"\[[A-Z]+_TOKEN_\d+\]")
"""A slot of a soft prompt as it stands in a template."""


@cache
def _special(marks: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join([PLACEHOLDER.pattern, *map(re.escape, marks)]))


def without_placeholders(text: str, marks: tuple[str, ...] = ()) -> str:
    """`text` without what would be taken for a slot, or for one of a method's `marks`, in a soft prompt."""
    special = _special(marks)
    while special.search(text):
        text = special.sub("", text)
    return text


_RECENT = 32
"""Prompts whose text is kept while they are tried."""
_AHEAD = 1024
"""Prompts whose ids are kept, 4 bytes each: a prompt is sent some time after it was rendered."""
_ADDING = threading.Lock()
"""Held while a tokenizer gets tokens: prompts are rendered in several threads."""

Messages = list[dict[str, str]]
"""A conversation in the form that chat templates and chat servers take."""


@dataclass(frozen=True)
class Chat:
    """The tokenizer of `model` with its chat template; loaded on first use.

    `template="official"` leaves out the new line between the system turn's end and the user turn's start, as the
    authors' released code does. `variables` are what the template is given beside the conversation, e.g.
    {"enable_thinking": False}.

    What a prompt says is text, whatever it looks like: only the template's own marks, and those of a soft prompt,
    become control tokens.
    """

    model: str
    template: str = "model"
    variables: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @cached_property
    def tokenizer(self) -> Any:
        """Raises `ResourceError` if it cannot be loaded or has no chat template."""
        try:
            require_at_hand(self.model)
        except ResourceError as error:
            raise ResourceError(f"the tokenizer of '{self.model}' cannot be loaded: {error}") from None
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(resolve_model(self.model), trust_remote_code=False)
        except (OSError, ValueError) as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise ResourceError(
                f"the tokenizer of '{self.model}' cannot be loaded: {first} "
                "Name a local folder or a hub id (--set model=... or --set tokenizer=...)."
            ) from None
        # A folder without a tokenizer's files gives a tokenizer without a vocabulary, and no error.
        if not tokenizer("text", add_special_tokens=False)["input_ids"]:
            raise ResourceError(
                f"'{self.model}' holds no tokenizer; name a model that has one, or the tokenizer itself "
                "(--set tokenizer=...)"
            )
        if not tokenizer.chat_template:
            raise ResourceError(f"the tokenizer of '{self.model}' has no chat template; use an instruction-tuned model")
        self._check_variables(tokenizer)
        # It would warn of every text that is too long, which is what prompts are measured for here.
        tokenizer.model_max_length = sys.maxsize
        return tokenizer

    def _check_variables(self, tokenizer: Any) -> None:
        source = json.dumps(tokenizer.chat_template)
        taken = {"messages", *inspect.signature(tokenizer.apply_chat_template).parameters}
        for name in self.variables:
            if name in taken:
                raise ConfigError(f"chat_template_kwargs: '{name}' is set by bench itself; leave it out")
            if not re.search(rf"\b{re.escape(name)}\b", source):
                raise ConfigError(
                    f"chat_template_kwargs: the chat template of '{self.model}' does not ask for '{name}'; leave it out"
                )

    @cached_property
    def merges_system(self) -> bool:
        """Whether the system turn stands at the beginning of the user's, because the template refuses system turns or
        drops them; said once. Raises `ConfigError` for a template that fails either way."""
        # Long, and with what templates may escape.
        system, user = (f"the {turn} turn of <a> 'probe' & \"more\" " * 99 + "." for turn in ("system", "user"))
        probe = Prompt("probe", system, user)
        first = ""
        for merged in (False, True):
            try:
                text = self._apply(_turns(probe, merged))
            except Exception as error:  # noqa: BLE001 - a template is a program, which may fail with anything
                reason = _first_line(error)
            else:
                if all(text.count(turn) == 1 for turn in (probe.system, probe.user)):
                    if merged:
                        say(
                            f"the chat template of '{self.model}' takes no system turn ({first}): what it would say "
                            "stands at the beginning of the user's turn"
                        )
                    return merged
                reason = "it leaves out what a turn says, or changes it"
            first = first or reason
        raise ConfigError(
            f"the chat template of '{self.model}' cannot be used: {first}; mend it in the model's folder or choose "
            "another model"
        )

    def messages(self, prompt: Prompt) -> Messages:
        """The conversation as turns, as the template takes them."""
        return _turns(prompt, self.merges_system)

    def _apply(self, turns: Messages) -> str:
        text: str = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, **self.variables
        )
        return text

    def text(self, prompt: Prompt) -> str:
        """The conversation as one string, the assistant's turn opened. Raises `ConfigError` if the tokenizer's template
        fails, or is not of the form that the official variant changes."""
        turns = self.messages(prompt)
        try:
            text = self._apply(turns)
        except Exception as error:
            raise ConfigError(
                f"the chat template of '{self.model}' fails for prompt {prompt.stage}: {_first_line(error)}"
            ) from error
        if self.template == "model":
            return text
        before, between, after = text.partition("<|im_end|>\n<|im_start|>user")
        if not between:
            raise ConfigError(
                f"chat_template={self.template} needs a model with the ChatML template, which '{self.model}' does not "
                "have; use chat_template=model"
            )
        return f"{before}<|im_end|><|im_start|>user{after}"

    @cached_property
    def opens_thought(self) -> bool:
        """Whether the template itself begins the answer with a thought, which the answer then only ends."""
        text = self.text(Prompt("probe", "system", "user")).rstrip()
        return any(text.endswith(opening) for opening, _ in THOUGHTS)

    @cached_property
    def _controls(self) -> _Controls:
        return _Controls(self.tokenizer)

    @cached_property
    def _own(self) -> _Encoding:
        return _Encoding(self.tokenizer)

    @cached_property
    def _soft_encodings(self) -> dict[tuple[str, ...], _Encoding]:
        """By a method's marks: a tokenizer with a token for each mark and slot."""
        return {}

    def encoding(self, slots: tuple[str, ...], marks: tuple[str, ...]) -> _Encoding:
        """The tokenizer with a soft prompt's marks and slots, which leave the model's own tokens their ids; without
        slots the model's own."""
        if not slots:
            return self._own
        known = self._soft_encodings.get(marks)
        if known is None or not known.added.issuperset(slots):
            with _ADDING:
                known = self._soft_encodings.get(marks) or _Encoding(copy.deepcopy(self.tokenizer), marks)
                known.add(slots)
                self._soft_encodings[marks] = known
        return known

    def ids(self, prompt: Prompt) -> list[int]:
        """Token ids of the conversation. A slot's id may lie beyond the model's vocabulary: `positions` says which
        ids are slots. Those of prompts that were asked for a moment ago are at hand."""
        return list(self._recent_ids(*_seen(prompt)))

    @cached_property
    def _recent_ids(self) -> Callable[[str, str, str, tuple[str, ...], tuple[str, ...]], Sequence[int]]:
        def made(*seen: Any) -> Sequence[int]:
            prompt = _prompt(*seen)
            encoding = self.encoding(prompt.slots, prompt.marks)
            text = self.plain_text(prompt)
            return array("i", self._ids_of_text(prompt, encoding.tokenizer) if text is None else encoding.encode(text))

        return lru_cache(_AHEAD)(made)

    def plain_text(self, prompt: Prompt) -> str | None:
        """`text` if its ids are simply those that the tokenizer gives it; None where something in the prompt reads like
        a control token."""
        return self._recent_texts(*_seen(prompt))

    @cached_property
    def _recent_texts(self) -> Callable[[str, str, str, tuple[str, ...], tuple[str, ...]], str | None]:
        def made(*seen: Any) -> str | None:
            prompt = _prompt(*seen)
            return None if self.control_tokens(prompt) else self.text(prompt)

        return lru_cache(_RECENT)(made)

    def control_tokens(self, prompt: Prompt) -> set[str]:
        """What in the prompt reads like a control token of the tokenizer, and is text."""
        return self._controls.found(prompt.system, prompt.user) - {*prompt.marks, *prompt.slots}

    def _ids_of_text(self, prompt: Prompt, tokenizer: Any) -> list[int]:
        """`ids` of a prompt that holds control tokens as text: signs of their own stand in for them while the template
        is filled, and the text between its marks is encoded by a tokenizer that knows no control tokens."""
        signs = _stand_ins(self.control_tokens(prompt), prompt.system + prompt.user)
        text = self.text(replace(prompt, system=_translate(prompt.system, signs), user=_translate(prompt.user, signs)))
        back = {sign: token for token, sign in signs.items()}
        marks = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
        parts = re.split(f"({'|'.join(map(re.escape, sorted(marks, key=len, reverse=True)))})", text)
        ids: list[int] = []
        for place, part in enumerate(parts):
            if place % 2:
                ids.append(tokenizer.convert_tokens_to_ids(part))
                continue
            # Some tokens swallow the white space around them.
            if place and marks[parts[place - 1]].rstrip:
                part = part.lstrip()
            if place + 1 < len(parts) and marks[parts[place + 1]].lstrip:
                part = part.rstrip()
            ids += self._controls.encode(_translate(part, back))
        return ids

    def positions(self, prompt: Prompt, ids: list[int]) -> list[int]:
        """Where in `ids`, those of `prompt`, its slots are, in the order of `prompt.slots`. Raises `PluginError` if
        they do not stand there once each and in this order."""
        if not prompt.slots:
            return []
        wanted = self.encoding(prompt.slots, prompt.marks).tokenizer.convert_tokens_to_ids(list(prompt.slots))
        known = set(wanted)
        found = [position for position, token in enumerate(ids) if token in known]
        if [ids[position] for position in found] != wanted:
            raise PluginError(f"prompt {prompt.stage}: its slots {', '.join(prompt.slots)} are not what its text holds")
        return found

    def answer_ids(self, text: str, limit: int, ends: bool = False) -> list[int]:
        """Token ids of an answer of at most `limit` tokens, and of the end of the turn if it fits, or behind them if it
        always `ends`."""
        ids = self._text_ids(text)
        end = self.tokenizer.eos_token_id
        return [*ids[:limit], end] if ends else [*ids, end][:limit]

    def answer_tokens(self, text: str, limit: int, ends: bool = False) -> int:
        """How many `answer_ids` there are."""
        return len(self.answer_ids(text, limit, ends))

    def answer_spans(self, text: str, limit: int, ends: bool = False) -> list[tuple[int, int]]:
        """Where in `text` each of its `answer_ids` stands, as start and end; the end of the turn stands behind it.
        Tokens of one character have the same place. Raises `ConfigError` for a tokenizer that does not tell."""
        ids, spans = self._controls.placed(text)
        if ids != self._text_ids(text):
            raise ConfigError(
                f"the tokenizer of {self.model} does not tell where its tokens stand in a text; use one with a "
                "tokenizer.json"
            )
        return [*spans, (len(text), len(text))][: len(self.answer_ids(text, limit, ends))]

    def count_text(self, text: str) -> int:
        """How many tokens a text alone takes."""
        return len(self._text_ids(text))

    def _text_ids(self, text: str) -> list[int]:
        """Token ids of a text alone."""
        return self._encode_alone(text)(text)

    def _encode_alone(self, text: str) -> Encode:
        """What gives the ids of a text alone, and of its prefixes."""
        return self._controls.encode if self._controls.found(text) else self._own.encode

    def vocabulary(self, marks: tuple[str, ...]) -> int:
        """How many tokens the tokenizer has, with these marks of a method and the slots of its prompts so far."""
        return len(self._soft_encodings.get(marks, self._own).tokenizer)

    def mark_ids(self, marks: tuple[str, ...], rows: int) -> dict[str, int]:
        """Token ids of those of a method's marks, its placeholders aside, that an embedding table of so many rows has
        no row for."""
        slots = tuple(mark for mark in marks if PLACEHOLDER.fullmatch(mark))
        names = [mark for mark in marks if mark not in slots]
        if not names:
            return {}
        ids = self.encoding(slots or marks, marks).tokenizer.convert_tokens_to_ids(names)
        return {mark: token for mark, token in zip(names, ids, strict=True) if token >= rows}

    def vectors_at(self, call: Call, ids: list[int], rows: int) -> dict[int, NDArray[np.float32]]:
        """A call's vectors by the positions in `ids` that they take: its slots', and those of marks that an embedding
        table of so many rows has no row for. Raises `PluginError` as `positions` does."""
        assert call.vectors is not None
        found = dict(zip(self.positions(call.prompt, ids), call.vectors, strict=True))
        if call.marks:
            marks = self.mark_ids(call.prompt.marks, rows)
            vectors = {token: call.marks[mark] for mark, token in marks.items() if mark in call.marks}
            found |= {place: vectors[token] for place, token in enumerate(ids) if token in vectors}
        return found

    def count(self, prompt: Prompt) -> int:
        """How many tokens the conversation takes."""
        return len(self._recent_ids(*_seen(prompt)))

    @cached_property
    def density(self) -> Density:
        """What prompts so far took for their length."""
        return Density()

    def trial(self) -> Trial:
        """Tells of prompts that differ little, one after another, whether they keep a budget."""
        return Trial(self)

    def keeps(self, prompt: Prompt, text: str, tokens: int) -> bool:
        """Whether `text`, which stands in `prompt`, is known to take at most `tokens` tokens, by the prompt's own ids
        alone."""
        if not self._own.splits or (plain := self.plain_text(prompt)) is None:
            return False
        found = most(plain, self.count(prompt), text, self._own.encode)
        return found is not None and found <= tokens

    def cut(self, text: str, tokens: int) -> str:
        """`text`, cut to its longest prefix of at most `tokens` tokens."""
        counter = Counter(self._encode_alone(text), self._own.splits)

        def fits(prefix: str) -> bool:
            return not counter.exceeds(prefix, tokens)

        return text if fits(text) else longest_prefix(text, fits)


class _Encoding:
    """A tokenizer with the tokens of soft prompts that were added to it, and what it gives."""

    def __init__(self, tokenizer: Any, marks: tuple[str, ...] = ()) -> None:
        self.tokenizer = tokenizer
        self.added: frozenset[str] = frozenset()
        self.add(marks)
        self.encode = encoder(tokenizer)
        self.splits = splits_at_seams(tokenizer)

    def add(self, tokens: tuple[str, ...]) -> None:
        """Add those that are missing, in their order."""
        if new := [token for token in tokens if token not in self.added]:
            self.tokenizer.add_tokens(new, special_tokens=True)
            self.added |= set(new)


class Trial:
    """Prompts of one chat that are tried against a budget, each counted exactly: see `Counter`."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._counter: Counter | None = None
        self.tokens: int | None = None
        """What the prompt tried last takes; None where it was clear without counting it."""

    def fits(self, prompt: Prompt, budget: int) -> bool:
        """Whether a prompt keeps the budget. The prompts of one trial have the same marks."""
        text = self._chat.plain_text(prompt)
        if text is None:
            self.tokens = self._chat.count(prompt)
            return self.tokens <= budget
        encoding = self._chat.encoding(prompt.slots, prompt.marks)
        if self._counter is None:
            self._counter = Counter(encoding.encode, encoding.splits)
        exceeds = self._counter.exceeds(text, budget, lambda: self._chat.count(prompt))
        self.tokens = self._counter.tokens
        return not exceeds


class Unmeasured(Chat):
    """A chat in which a text takes no tokens, so that every prompt fits and no tokenizer is loaded."""

    def plain_text(self, prompt: Prompt) -> str | None:
        return None

    @cached_property
    def density(self) -> Density:
        return Density(tokens=0)

    def keeps(self, prompt: Prompt, text: str, tokens: int) -> bool:
        return True

    def count(self, prompt: Prompt) -> int:
        return 0

    def cut(self, text: str, tokens: int) -> str:
        return text


class Estimated(Unmeasured):
    """A chat in which a token is `CHARACTERS` characters, for estimates where no tokenizer is at hand."""

    CHARACTERS: ClassVar[int] = 4

    @cached_property
    def density(self) -> Density:
        return Density()

    def keeps(self, prompt: Prompt, text: str, tokens: int) -> bool:
        return self.count_text(text) <= tokens

    def count(self, prompt: Prompt) -> int:
        return self.count_text(prompt.system + prompt.user)

    def count_text(self, text: str) -> int:
        return -(-len(text) // self.CHARACTERS)

    def answer_tokens(self, text: str, limit: int, ends: bool = False) -> int:
        tokens = self.count_text(text)
        return min(tokens, limit) + 1 if ends else min(tokens + 1, limit)

    def cut(self, text: str, tokens: int) -> str:
        return text[: tokens * self.CHARACTERS]


class _Controls:
    """The control tokens of a tokenizer: all that were added to its vocabulary, but for runs of white space, which some
    tokenizers add to save tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        tokens = sorted((token for token in tokenizer.get_added_vocab() if token.strip()), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, tokens)) or r"(?!)")
        # Texts are searched for them at every probe of a budget, and hardly any has one.
        self._beginnings = {token[:2] for token in tokens}
        self._signs = {token[0] for token in tokens}

    def found(self, *texts: str) -> set[str]:
        """Those that stand in the texts."""
        return {
            match
            for text in texts
            if any(sign in text for sign in self._signs) and any(beginning in text for beginning in self._beginnings)
            for match in self._pattern.findall(text)
        }

    def encode(self, text: str) -> list[int]:
        """Token ids of a text in which nothing is a control token."""
        if self._bare is None:
            ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            return ids
        return list(self._bare.encode(text, add_special_tokens=False).ids)

    def placed(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The same with the place of each token in the text; nothing where the tokenizer does not tell."""
        if self._bare is None:
            return [], []
        encoded = self._bare.encode(text, add_special_tokens=False)
        return list(encoded.ids), list(encoded.offsets)

    @cached_property
    def _bare(self) -> Any:
        """A tokenizer of tokenizers without the control tokens; None where there is none."""
        fast = getattr(self._tokenizer, "backend_tokenizer", None)
        if fast is None:
            return None
        from tokenizers import Tokenizer

        content = json.loads(fast.to_str())
        content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].strip()]
        return Tokenizer.from_str(json.dumps(content))


def _seen(prompt: Prompt) -> tuple[str, str, str, tuple[str, ...], tuple[str, ...]]:
    """What text and ids of a prompt hang on, and the name for errors."""
    return prompt.stage, prompt.system, prompt.user, prompt.slots, prompt.marks


def _prompt(stage: str, system: str, user: str, slots: tuple[str, ...], marks: tuple[str, ...]) -> Prompt:
    return Prompt(stage, system, user, slots=slots, marks=marks)


def _stand_ins(tokens: set[str], text: str) -> dict[str, str]:
    """A sign for each token that does not stand in the text: from the end of Unicode's private use area on."""
    free = (sign for code in range(0x10FFFD, 0xFFFFF, -1) if (sign := chr(code)) not in text)
    return {token: next(free) for token in sorted(tokens)}


def _translate(text: str, table: Mapping[str, str]) -> str:
    """`text` with every key of the table replaced, the longest first."""
    pattern = "|".join(re.escape(key) for key in sorted(table, key=len, reverse=True)) or r"(?!)"
    return re.sub(pattern, lambda match: table[match.group()], text)


def messages(prompt: Prompt) -> Messages:
    """The prompt as a system and a user turn."""
    return _turns(prompt, merged=False)


def _turns(prompt: Prompt, merged: bool) -> Messages:
    if merged:
        return [{"role": "user", "content": f"{prompt.system}\n\n{prompt.user}" if prompt.system else prompt.user}]
    return [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
