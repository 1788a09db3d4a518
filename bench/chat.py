"""Chat messages to token ids: the one place, and the one template, for budgets, vLLM and training alike."""

from __future__ import annotations

import copy
import re
import sys
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from bench.errors import ConfigError, PluginError, ResourceError
from bench.models import resolve_model
from bench.prompting import longest_prefix
from bench.records import Prompt

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


@dataclass(frozen=True)
class Chat:
    """The tokenizer of `model` with its chat template; loaded on first use.

    `template="official"` leaves out the new line between the system turn's end and the user turn's start, as the
    authors' released code does.
    """

    model: str
    template: str = "model"

    @cached_property
    def tokenizer(self) -> Any:
        """Raises `ResourceError` if it cannot be loaded or has no chat template."""
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
        # It would warn of every text that is too long, which is what prompts are measured for here.
        tokenizer.model_max_length = sys.maxsize
        return tokenizer

    def text(self, prompt: Prompt) -> str:
        """The conversation as one string, the assistant's turn opened. Raises `ConfigError` if the tokenizer's
        template is not of the form that the official variant changes."""
        text: str = self.tokenizer.apply_chat_template(messages(prompt), tokenize=False, add_generation_prompt=True)
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
    def _soft_tokenizers(self) -> dict[tuple[str, ...], tuple[Any, set[str]]]:
        """By a method's marks: a tokenizer with a token for each mark and slot, and those tokens."""
        return {}

    def _soft_tokenizer(self, prompt: Prompt) -> Any:
        """The tokenizer with the prompt's marks and slots; the model's own tokens keep their ids."""
        if prompt.marks not in self._soft_tokenizers:
            self._soft_tokenizers[prompt.marks] = (copy.deepcopy(self.tokenizer), set())
        tokenizer, added = self._soft_tokenizers[prompt.marks]
        if new := [token for token in (*prompt.marks, *prompt.slots) if token not in added]:
            tokenizer.add_tokens(new, special_tokens=True)
            added.update(new)
        return tokenizer

    def ids(self, prompt: Prompt) -> list[int]:
        """Token ids of the conversation. A slot's id may lie beyond the model's vocabulary: `positions` says which
        ids are slots."""
        tokenizer = self._soft_tokenizer(prompt) if prompt.slots else self.tokenizer
        ids: list[int] = tokenizer(self.text(prompt), add_special_tokens=False)["input_ids"]
        return ids

    def positions(self, prompt: Prompt, ids: list[int]) -> list[int]:
        """Where in `ids`, those of `prompt`, its slots are, in the order of `prompt.slots`. Raises `PluginError` if
        they do not stand there once each and in this order."""
        if not prompt.slots:
            return []
        wanted = self._soft_tokenizer(prompt).convert_tokens_to_ids(list(prompt.slots))
        known = set(wanted)
        found = [position for position, token in enumerate(ids) if token in known]
        if [ids[position] for position in found] != wanted:
            raise PluginError(f"prompt {prompt.stage}: its slots {', '.join(prompt.slots)} are not what its text holds")
        return found

    def answer_ids(self, text: str, limit: int, ends: bool = False) -> list[int]:
        """Token ids of an answer of at most `limit` tokens, and of the end of the turn if it fits, or behind them if it
        always `ends`."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        end = self.tokenizer.eos_token_id
        return [*ids[:limit], end] if ends else [*ids, end][:limit]

    def vocabulary(self, marks: tuple[str, ...]) -> int:
        """How many tokens the tokenizer has, with these marks of a method and the slots of its prompts so far."""
        tokenizer, _ = self._soft_tokenizers.get(marks, (self.tokenizer, set()))
        return len(tokenizer)

    def count(self, prompt: Prompt) -> int:
        """How many tokens the conversation takes."""
        return len(self.ids(prompt))

    def cut(self, text: str, tokens: int) -> str:
        """`text`, cut to its longest prefix of at most `tokens` tokens."""

        def fits(prefix: str) -> bool:
            return len(self.tokenizer(prefix, add_special_tokens=False)["input_ids"]) <= tokens

        return text if fits(text) else longest_prefix(text, fits)


def messages(prompt: Prompt) -> list[dict[str, str]]:
    """The prompt in the form that chat templates and chat servers take."""
    return [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
