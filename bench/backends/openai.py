"""Servers that speak the OpenAI API: any one, or several of one model (`bench.servers`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bench.chat import Chat
from bench.config import RunConfig, Section
from bench.errors import BackendError
from bench.progress import say
from bench.records import Call
from bench.servers.fleet import Client
from bench.servers.settings import OpenAISettings
from bench.servers.soft import SoftPrompts


class OpenAIBackend(Client):
    """The language model of a run on servers, which apply the model's own chat template; to prompts of vectors it is
    applied here, and only a vLLM server takes them. The same servers have the other models that prompts ask for."""

    settings: ClassVar[type[Section]] = OpenAISettings
    takes_vectors: ClassVar[bool] = True
    applies_template: ClassVar[bool] = False
    other_models: ClassVar[bool] = True
    timing: ClassVar[Mapping[str, object]] = {}

    def __init__(self, config: RunConfig, chat: Chat, vectors: bool) -> None:
        section = config.backend_section
        assert isinstance(section, OpenAISettings)
        self._chat = chat
        self._told: set[str] = set()
        soft = SoftPrompts(chat, config.model) if vectors else None
        super().__init__(section, config.model, config.chat_template_kwargs, chat.messages, soft)

    def submit(self, call: Call, tokens: int | None = None) -> None:
        """Queue a call. Raises `PluginError` for vectors that are not one for each slot, of the model's size and
        finite, `BackendError` for a prompt that the model has no embeddings for."""
        if call.prompt.slots or (call.vectors is not None and len(call.vectors)):
            if self._soft is None:
                raise BackendError(
                    f"{call.key}: prompt {call.prompt.stage} has slots for vectors, but the servers were asked for "
                    "text alone; a trained method asks for the backend with vectors=True"
                )
            self._soft.check(call)
        elif found := self._chat.control_tokens(call.prompt) - self._told:
            self._told |= found
            say(
                f"{self.where} may take {', '.join(sorted(found))} in a text for marks of its chat template (first in "
                f"{call.key[0]}): a server cannot be told that it is text; backend=vllm can"
            )
        if tokens is None and call.prompt.model is None:
            # How many another model's tokenizer makes is not known.
            tokens = self._chat.count(call.prompt)
        super().submit(call, tokens)

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Nothing can be known of a server before it is asked."""

    @classmethod
    def device(cls) -> str:
        """The machine behind the server is not known."""
        return "a server"
