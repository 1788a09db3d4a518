"""One server that speaks the OpenAI API: what is sent to it, and what is behind a try that failed."""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import os
import random
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from bench.addresses import without_credentials
from bench.chat import Messages
from bench.errors import BackendError
from bench.progress import duration
from bench.records import Call, Prompt
from bench.servers.answers import KEEP, PASSING, UnusableError
from bench.servers.settings import OpenAISettings
from bench.softprompt.calls import NEUTRAL

CONNECT_SECONDS = 10.0
"""How long a connection may take to be made; the answer has `openai.timeout`."""
LONGEST_PAUSE = 8.0
LONGEST_RETRY_AFTER = 120.0
"""What a server may ask for between two tries; more is not waited for."""
UNTOLD = (400, 403, 404, 405, 422, 501)
"""Status codes of a server that has no such path, or does not tell what is asked."""
SHORTEST_SECRET = 12
GO_ON = "Run again to go on where this run stopped."

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """Why a try failed, as the end of a sentence about the server, and what to do about it. `of_call`: other calls need
    not fail."""

    why: str
    mend: str
    passing: bool
    of_call: bool = False
    pause: float | None = None
    """Seconds the server asks for."""
    finish: str | None = None
    text: str = ""
    down: bool = False
    """The server may have ended, and what answers the next try may be another one."""


class FailedError(Exception):
    """A request failed for good. `brief` says where, why and after how many tries."""

    def __init__(self, where: str, problem: Problem, tried: int) -> None:
        self.problem = problem
        self.without_tries = f"{where} {problem.why}{problem.mend}"
        self.brief = f"{where} {problem.why}{f' ({tried} tries)' if tried > 1 else ''}"
        super().__init__(f"{self.brief}{problem.mend}")


class Server:
    """Sends requests about `model` to one address.

    `variables` are sent for the chat template; `turns` makes a prompt's conversation. Raises `BackendError` where no
    client can be made.
    """

    def __init__(
        self,
        settings: OpenAISettings,
        address: str,
        key: str,
        model: str,
        variables: Mapping[str, Any],
        turns: Callable[[Prompt], Messages],
    ) -> None:
        self._settings = settings
        self._address = urlsplit(address)
        self._key = key
        self.model = settings.served_model or model
        self._variables = dict(variables)
        self._turns = turns
        self.where = f"the server at {without_credentials(address)}"
        self.was_down = False
        """A try has failed since this was last set to False, as it does where a server ends."""
        self._client = self._connect()

    def _connect(self) -> Any:
        from openai import AsyncOpenAI, Timeout

        try:
            return AsyncOpenAI(
                base_url=urlunsplit(self._address._replace(query="", fragment="")),
                default_query=dict(parse_qsl(self._address.query, keep_blank_values=True)),
                # The client insists on a key; a server on loopback usually wants none.
                api_key=self._key or "none",
                timeout=Timeout(self._settings.timeout, connect=min(self._settings.timeout, CONNECT_SECONDS)),
                max_retries=0,
            )
        except Exception as error:
            raise BackendError(f"no client for {self.where}: {self.brief(error)} {_proxies()}".rstrip()) from error

    async def patiently(
        self,
        ask: Callable[[], Awaitable[T]],
        in_vain: Callable[[], bool] = lambda: False,
        seconds: float = math.inf,
    ) -> T | None:
        """What `ask` gives, after as many tries as are configured, each of `openai.timeout` and of so many seconds at
        most; None, without a further try, once it is asked `in_vain`. Raises `FailedError`, also what `ask` raises of
        it."""
        seconds = min(seconds, self._settings.timeout)
        for tried in range(1, self._settings.retries + 2):
            if in_vain():
                return None
            try:
                async with asyncio.timeout(seconds):
                    return await ask()
            except FailedError:
                raise
            except Exception as error:  # noqa: BLE001 - told apart there
                problem = self._problem(error, seconds)
            self.was_down |= problem.down
            if not problem.passing or tried > self._settings.retries:
                raise FailedError(self.where, problem, tried)
            await asyncio.sleep(_pause(tried) if problem.pause is None else problem.pause)
        raise AssertionError("the last try returns")

    async def converse(self, call: Call) -> bytes:
        """The body of the answer to a call without vectors: the server applies the model's chat template."""
        extra: dict[str, Any] = {}
        if self._settings.max_tokens_field is not None:
            extra[self._settings.max_tokens_field] = call.max_new_tokens
        if self._variables:
            extra["chat_template_kwargs"] = self._variables
        response = await self._client.chat.completions.with_raw_response.create(
            model=call.prompt.model or self.model,
            messages=self._turns(call.prompt),
            temperature=call.temperature,
            top_p=call.top_p,
            seed=call.seed,
            extra_body=extra | self._settings.extra_body,
        )
        content: bytes = response.content
        return content

    async def complete(self, call: Call, prompt: Mapping[str, Any]) -> bytes:
        """The body of the answer to a whole prompt: `prompt` holds its token ids ("prompt") or its vectors
        ("prompt_embeds", base64), and what else is to be asked for."""
        response = await self._client.completions.with_raw_response.create(
            model=self.model,
            prompt=None,
            temperature=call.temperature,
            top_p=call.top_p,
            seed=call.seed,
            max_tokens=call.max_new_tokens,
            # A server takes penalties from the model's own generation_config.json, and vectors have no tokens to
            # penalise.
            extra_body={**NEUTRAL, **self._settings.extra_body, **prompt},
        )
        content: bytes = response.content
        return content

    async def models(self) -> Any:
        """What the server says of its models; None where it does not tell."""
        return await self._told(self._client.get("/models", cast_to=object))

    async def tokens(self, prompt: Prompt) -> list[int] | None:
        """The token ids that the server's chat template makes of a prompt; None where it does not tell. vLLM does, at
        an address outside of /v1."""
        path = self._address.path.rstrip("/").removesuffix("/v1")
        url = urlunsplit(self._address._replace(path=f"{path}/tokenize", query="", fragment=""))
        body: dict[str, Any] = {"model": self.model, "messages": self._turns(prompt)}
        if self._variables:
            body["chat_template_kwargs"] = self._variables
        answer = await self._told(self._client.post(url, cast_to=object, body=body))
        found = answer.get("tokens") if isinstance(answer, dict) else None
        return found if isinstance(found, list) else None

    async def _told(self, answer: Awaitable[Any]) -> Any:
        """An answer's JSON; None for a server that does not know the path, or answers anything else."""
        import openai

        try:
            return await answer
        except openai.APIStatusError as error:
            if error.status_code in UNTOLD:
                return None
            raise
        except (ValueError, RecursionError, openai.APIResponseValidationError):
            return None

    def _problem(self, error: Exception, seconds: float) -> Problem:
        """What is behind a failed try."""
        import openai

        if isinstance(error, UnusableError):
            return Problem(error.why, error.mend, error.passing, True, None, error.finish, error.text)
        connected = not type(error.__cause__).__name__.startswith(("Connect", "Proxy"))
        if isinstance(error, TimeoutError | openai.APITimeoutError) and connected:
            why = f"did not answer within {seconds:g} s"
            mend = "raise openai.timeout or lower openai.concurrency"
            if seconds < self._settings.timeout:
                mend = "its log may say why"
            return Problem(why, f"; {mend}. {GO_ON}", passing=True)
        if isinstance(error, openai.APIConnectionError) and connected:
            why = f"broke off: {self.brief(error.__cause__ or error)}"
            return Problem(why, f". {GO_ON}", passing=True, down=True)
        if isinstance(error, openai.APIConnectionError):
            return Problem("cannot be reached", f"; is it running? {_proxies()}{GO_ON}", passing=True, down=True)
        if isinstance(error, openai.APIStatusError):
            return self._of_status(error, error.status_code)
        return Problem(f"failed: {self.brief(error)}", f". {GO_ON}", passing=False)

    def _of_status(self, error: Any, status: int) -> Problem:
        """What is behind an HTTP status."""
        if status == 401:
            return Problem("refused the key", "; set the environment variable OPENAI_API_KEY", passing=False)
        if status == 404:
            asked = _model_in(error.request.content) or self.model
            why = f"does not know model '{asked}' or the path: {self.brief(error)}"
            setting = "openai.served_model" if asked == self.model else "the method's second model"
            mend = f". Set {setting} to the name it serves; a base URL usually ends in /v1"
            return Problem(why, mend, passing=False)
        if status in (400, 413, 422):
            why = f"refused the request: {self.brief(error)}"
            return Problem(why, self._refusal_mend(why), passing=False, of_call=True, finish="refused")
        passing = status in PASSING or status >= 500
        pause = _retry_after(error.response.headers) if passing else None
        if pause is not None and pause > LONGEST_RETRY_AFTER:
            why = f"asks to be left alone for {duration(pause)}: {self.brief(error)}"
            return Problem(why, f". {GO_ON}", passing=False)
        return Problem(f"failed: {self.brief(error)}", f". {GO_ON}", passing, down=status >= 500, pause=pause)

    def _refusal_mend(self, why: str) -> str:
        field = self._settings.max_tokens_field
        if field is not None and field in why:
            other = "max_tokens" if field == "max_completion_tokens" else "max_completion_tokens"
            return f". If it wants another name for {field}: --set openai.max_tokens_field={other} (or null)"
        if keys := ", ".join(self._settings.extra_body):
            return (
                f". If it does not know {keys}: --set 'openai.extra_body={{}}'; if it is the prompt's content, {KEEP}"
            )
        return f". If it is the prompt's content, {KEEP}"

    def brief(self, error: BaseException) -> str:
        """An error in one line, by its kind and words."""
        return f"{type(error).__name__}: {self.short(error)}"

    def short(self, words: object, length: int = 300) -> str:
        """What a server or a library said, in one line, without the key and what may be one in the address."""
        text = " ".join(str(words).split())
        # What is shorter in a query is a version.
        queried = [value for _, value in parse_qsl(self._address.query) if len(value) >= SHORTEST_SECRET]
        for secret in sorted(filter(None, [self._key, self._address.password, *queried]), key=len, reverse=True):
            text = text.replace(secret, "(the key)")
        return text[:length].removesuffix(".")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def key_in_environment() -> str:
    """The key in the environment. Raises `BackendError` for what can be none."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key.isascii() or not key.isprintable():
        raise BackendError(
            "the environment variable OPENAI_API_KEY holds characters that no key has; set it to the key alone"
        )
    return key


def _model_in(body: bytes) -> str | None:
    """The model that a request asked for; None for a request that names none."""
    try:
        return str(json.loads(body)["model"])
    except (ValueError, KeyError, TypeError):
        return None


def _pause(tried: int) -> float:
    """Seconds before the next try, twice as many each time, less a random part, so that calls do not come in step."""
    return float(min(0.5 * 2.0 ** (tried - 1), LONGEST_PAUSE) * random.uniform(0.75, 1.0))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a server asks for (RFC 9110, 10.2.3), if it asks."""
    value = headers.get("retry-after", "").strip()
    try:
        return max(float(value), 0.0)
    except ValueError:
        parsed = email.utils.parsedate_tz(value)
        return None if parsed is None else max(email.utils.mktime_tz(parsed) - time.time(), 0.0)


def _proxies() -> str:
    """A sentence on the variables of the environment that lead requests over a proxy; empty without any."""
    named = [f"{scheme}_proxy" for scheme in urllib.request.getproxies_environment() if scheme != "no"]
    names = ", ".join(name for name in os.environ if name.lower() in named)
    return f"Requests go over the proxy in {names}: mend or unset it, or name the server in NO_PROXY. " if names else ""
