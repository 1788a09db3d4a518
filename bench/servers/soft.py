"""Soft prompts for a server: the whole templated prompt as vectors, which vLLM takes as `prompt_embeds`.

A server takes no mix of tokens and vectors, so the rows of the tokens are looked up here. Whether that is right for a
server is tried before it gets a call: a prompt as vectors has to be answered as it is as tokens. Models that multiply
their embeddings (Gemma) or change them otherwise are found so, and other weights.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.chat import Chat
from bench.records import THOUGHTS, Call, Completion
from bench.servers.alike import PROBE
from bench.servers.answers import UnusableError
from bench.servers.embeddings import embedding_table
from bench.servers.server import UNTOLD, Server
from bench.softprompt.calls import check_call

if TYPE_CHECKING:
    import torch

LIKELIEST = 5
"""Tokens whose log probabilities are compared."""
NEAR = 0.3
"""Nats by which they may differ: in bfloat16 other company in a batch moves them by less."""
Likely = dict[str, float]


class SoftPrompts:
    """Makes the prompts of calls with vectors for servers of `model`. Raises `ResourceError` without its embeddings."""

    def __init__(self, chat: Chat, model: str) -> None:
        self._chat = chat
        self._model = model
        self._table = embedding_table(model)
        self._probe = chat.ids(PROBE.prompt)
        self._dtypes: dict[str, torch.dtype] = {}
        """What each server computes in."""

    def check(self, call: Call) -> None:
        """Raises `PluginError` or `BackendError` for a call that no server may get."""
        import torch

        ids = self._chat.ids(call.prompt)
        rows, hidden = self._table.shape
        for dtype in {torch.float32, *self._dtypes.values()}:
            check_call(call, ids, self._chat, self._model, (rows, hidden), dtype)

    async def body(self, call: Call, server: Server) -> dict[str, Any]:
        """What a request holds for a call."""
        return await asyncio.to_thread(lambda: _body(self._vectors(call), self._dtypes[server.where]))

    def _vectors(self, call: Call) -> torch.Tensor:
        """The whole prompt, float32 of shape (tokens, hidden size)."""
        import torch

        ids = self._chat.ids(call.prompt)
        taken = self._chat.vectors_at(call, ids, len(self._table))
        # A placeholder's own id may lie beyond the table.
        vectors = self._rows([0 if place in taken else token for place, token in enumerate(ids)])
        vectors[list(taken)] = torch.tensor(np.array(list(taken.values())), dtype=torch.float32)
        return vectors

    def _rows(self, ids: list[int]) -> torch.Tensor:
        import torch

        return self._table[torch.tensor(ids)].float()

    def whole(self, call: Call, completion: Completion) -> Completion:
        """A completion with what the template itself opened of it, which a server does not know of."""
        if not call.prompt.slots or not self._chat.opens_thought:
            return completion
        return replace(completion, text=f"{THOUGHTS[0][0]}{completion.text}")

    async def try_out(self, server: Server) -> None:
        """Find out whether a server takes prompts of vectors and what it computes in. Raises `UnusableError` for one
        that does not, or answers them otherwise than prompts of tokens, and what a failed request raises."""
        import torch

        rows = self._rows(self._probe)
        as_tokens = await _likely(server, {"prompt": self._probe})
        as_vectors = await self._likely(server, rows, torch.float32)
        shared = as_tokens.keys() & as_vectors.keys()
        if not shared or max(abs(as_tokens[token] - as_vectors[token]) for token in shared) > NEAR:
            raise UnusableError(
                "answers a prompt of vectors otherwise than the same prompt of tokens: it has not the weights of "
                f"'{self._model}', or that model changes its embeddings (as Gemma does, which multiplies them)",
                passing=False,
                mend="; use backend=vllm",
            )
        # What is finer than a server's dtype makes no difference to it.
        noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
        rows = rows + rows.abs().mean() * noise / 64
        exact = await self._likely(server, rows, torch.float32)
        self._dtypes[server.where] = torch.float32
        for dtype in (torch.bfloat16, torch.float16):
            if await self._likely(server, rows, dtype) == exact:
                self._dtypes[server.where] = dtype
                return

    async def _likely(self, server: Server, rows: torch.Tensor, dtype: torch.dtype) -> Likely:
        import openai

        try:
            return await _likely(server, _body(rows, dtype))
        except openai.APIStatusError as error:
            if error.status_code not in UNTOLD:
                raise
            raise UnusableError(
                f"takes no prompts of vectors: {server.brief(error)}",
                passing=False,
                mend=f". Start it as a vLLM server of '{self._model}' with --enable-prompt-embeds, or use backend=vllm",
            ) from None


def _body(vectors: torch.Tensor, dtype: torch.dtype) -> dict[str, Any]:
    """Vectors of shape (tokens, hidden size) as a request holds them."""
    import torch

    content = io.BytesIO()
    torch.save(vectors.to(dtype), content)
    return {"prompt_embeds": base64.b64encode(content.getbuffer()).decode()}


async def _likely(server: Server, prompt: dict[str, Any]) -> Likely:
    """The log probabilities of the likeliest first tokens of an answer."""
    content = await server.complete(PROBE, {**prompt, "logprobs": LIKELIEST})
    try:
        found = json.loads(content)["choices"][0]["logprobs"]["top_logprobs"][0]
        return {str(token): float(value) for token, value in found.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UnusableError("tells no log probabilities, by which prompts of vectors are tried out") from None
