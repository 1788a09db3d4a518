"""The section `openai` of the configuration: where the servers are and how they are asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from bench.addresses import is_address, without_credentials
from bench.config import GENERATION, RUNTIME, Section
from bench.errors import ConfigError
from bench.problems import at_most

OURS = (
    *("model", "messages", "prompt", "prompt_embeds", "temperature", "top_p", "seed", "stream", "n"),
    "chat_template_kwargs",
)
"""Keys of a request that the harness sets itself, or that would make another answer of it."""
_SECRET = re.compile(r"(?:^|[_-])(?:api_?key|key|secret|password|passwd|token|authorization|bearer)$", re.IGNORECASE)


def _addresses(value: Any) -> Any:
    """One address, or a tuple of several. Raises `ConfigError`, which does not repeat what may be secret, for what is
    no address of a server, and for one that is named twice."""
    urls = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not urls or not all(isinstance(url, str) and is_address(url) for url in urls):
        raise ConfigError("openai.base_url must be the address of a server, e.g. http://127.0.0.1:8000/v1, or a list")
    seen = [url.rstrip("/") for url in urls]
    if twice := sorted({without_credentials(url) for url in seen if seen.count(url) > 1}):
        raise ConfigError(f"openai.base_url names {twice[0]} twice; name each server once")
    return urls[0] if len(urls) == 1 else urls


def _not_ours(field: str | None) -> str | None:
    if field in OURS:
        raise ValueError(f"{field} means something else in a request; give the server's name for the longest answer")
    return field


def _free_keys(body: dict[str, Any]) -> dict[str, Any]:
    """Raises `ConfigError` for keys that are set elsewhere or seem secret: records and reports show the others."""
    for name in OURS:
        if name in body:
            raise ConfigError(f"openai.extra_body cannot set '{name}', which bench sets itself; leave it out")
    for name in _keys(body):
        if _SECRET.search(name):
            raise ConfigError(
                f"openai.extra_body holds '{name}', and records keep it; a key belongs in the environment variable "
                "OPENAI_API_KEY"
            )
    return body


def _keys(value: Any) -> Iterator[str]:
    """All keys in a value, however deep."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


class OpenAISettings(Section):
    """Servers that speak the OpenAI API. The key comes from the environment variable OPENAI_API_KEY only."""

    base_url: Annotated[str | tuple[str, ...], BeforeValidator(_addresses), RUNTIME] = "http://127.0.0.1:8000/v1"
    """Or a list: servers of one model, among which the calls are spread. A query (`?api-version=...`) goes with each
    request."""
    served_model: Annotated[str | None, GENERATION] = None
    """The name the servers know the model by, where it is not `model`."""
    concurrency: Annotated[int, Field(ge=1), at_most(4096, "each has a connection of its own"), RUNTIME] = 32
    """Calls on their way to each server at most."""
    timeout: Annotated[float, Field(gt=0), at_most(604_800, "that is a week for one answer"), RUNTIME] = 600.0
    """Seconds one request may take, to the last byte of its answer."""
    retries: Annotated[int, Field(ge=0), at_most(1000, "a server that fails so often is down"), RUNTIME] = 5
    """With exponential backoff: for refused connections, time-outs, 408, 409, 429, 5xx, and answers without text or
    that cannot be read."""
    empty: Annotated[Literal["fail", "keep"], RUNTIME] = "fail"
    """What becomes of a call that has no text after all tries (null, a refusal, a tool call, a thought in a field of
    its own, a content filter), or that the servers refuse for what is in it: the run stops once all others are
    answered, or keeps it as an empty text. A text that the model itself left empty is kept. Both are counted. It
    changes no text that there is, so a run that stopped goes on with the other choice."""
    max_tokens_field: Annotated[str | None, Field(min_length=1), AfterValidator(_not_ours), GENERATION] = "max_tokens"
    """What the servers call the longest answer, e.g. max_completion_tokens; null: they are not told."""
    extra_body: Annotated[dict[str, Any], AfterValidator(_free_keys), GENERATION] = Field(
        default={"top_k": -1, "repetition_penalty": 1.0}
    )
    """Sent with each request. By default it switches off what vLLM's server would take from the model's own
    generation_config.json; a server that refuses these keys needs `--set openai.extra_body={}`."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses."""
        return (self.base_url,) if isinstance(self.base_url, str) else self.base_url

    def public(self) -> dict[str, Any]:
        """The settings as JSON, without what may be secret in the addresses."""
        shown = [without_credentials(url) for url in self.addresses]
        return super().public() | {"base_url": shown[0] if isinstance(self.base_url, str) else shown}
