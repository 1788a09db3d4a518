"""Chat messages to token ids: the one place, and the one template, for budgets, vLLM and training alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.errors import ConfigError, ResourceError
from bench.models import resolve_model
from bench.prompts import longest_prefix
from bench.records import Prompt


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

    def ids(self, prompt: Prompt) -> list[int]:
        """Token ids of the conversation."""
        ids: list[int] = self.tokenizer(self.text(prompt), add_special_tokens=False)["input_ids"]
        return ids

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
