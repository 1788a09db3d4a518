"""Any server that speaks the OpenAI chat API. Each answer is checked before it is handed on.

The requests of a backend run on an event loop of its own, in a thread: only there can a whole answer be given a time.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import random
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pydantic import AfterValidator, Field

from bench.addresses import is_address, without_credentials
from bench.backends._openai_answers import KEEP, PASSING, UnusableError, completion_in
from bench.chat import Chat, Messages, messages
from bench.config import GENERATION, RUNTIME, RunConfig, Section
from bench.errors import BackendError, ConfigError
from bench.problems import at_most
from bench.progress import duration, say
from bench.records import Call, Completion, Prompt

CONNECT_SECONDS = 10.0
"""How long a connection may take to be made; the answer has `openai.timeout`."""
LONGEST_PAUSE = 8.0
LONGEST_RETRY_AFTER = 120.0
"""What a server may ask for between two tries; more is not waited for."""
PATIENCE = 20
"""How many calls in a row may be refused before it is the server that refuses, and not a prompt that is at fault."""
SHORTEST_SECRET = 12
GO_ON = "Run again to go on where this run stopped."


OURS = ("model", "messages", "temperature", "top_p", "seed", "stream", "n", "chat_template_kwargs")
"""Keys of a request that the harness sets itself, or that would make another answer of it."""
_SECRET = re.compile(r"(?:^|[_-])(?:api_?key|key|secret|password|passwd|token|authorization|bearer)$", re.IGNORECASE)


def _address(url: str) -> str:
    """Raises `ConfigError`, which does not repeat what may be secret, for what is no address of a server."""
    if not is_address(url):
        raise ConfigError("openai.base_url must be the address of a server, e.g. http://127.0.0.1:8000/v1")
    return url


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
    """A server that speaks the OpenAI chat API. The key comes from the environment variable OPENAI_API_KEY only."""

    base_url: Annotated[str, AfterValidator(_address), RUNTIME] = "http://127.0.0.1:8000/v1"
    """A query (`?api-version=...`) goes with each request."""
    served_model: Annotated[str | None, GENERATION] = None
    """The name the server knows the model by, where it is not `model`."""
    concurrency: Annotated[int, Field(ge=1), at_most(4096, "each has a connection of its own"), RUNTIME] = 32
    timeout: Annotated[float, Field(gt=0), at_most(604_800, "that is a week for one answer"), RUNTIME] = 600.0
    """Seconds one request may take, to the last byte of its answer."""
    retries: Annotated[int, Field(ge=0), at_most(1000, "a server that fails so often is down"), RUNTIME] = 5
    """With exponential backoff: for refused connections, time-outs, 408, 409, 429, 5xx, and answers without text or
    that cannot be read."""
    empty: Annotated[Literal["fail", "keep"], RUNTIME] = "fail"
    """What becomes of a call that has no text after all tries (null, a refusal, a tool call, a thought in a field of
    its own, a content filter), or that the server refuses for what is in it: the run stops once all others are
    answered, or keeps it as an empty text. A text that the model itself left empty is kept. Both are counted. It
    changes no text that there is, so a run that stopped goes on with the other choice."""
    max_tokens_field: Annotated[str | None, Field(min_length=1), AfterValidator(_not_ours), GENERATION] = "max_tokens"
    """What the server calls the longest answer, e.g. max_completion_tokens; null: it is not told."""
    extra_body: Annotated[dict[str, Any], AfterValidator(_free_keys), GENERATION] = Field(
        default={"top_k": -1, "repetition_penalty": 1.0}
    )
    """Sent with each request. By default it switches off what vLLM's server would take from the model's own
    generation_config.json; a server that refuses these keys needs `--set openai.extra_body={}`."""

    def public(self) -> dict[str, Any]:
        """The settings as JSON, without what may be secret in the address."""
        return super().public() | {"base_url": without_credentials(self.base_url)}


@dataclass(frozen=True)
class _Problem:
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


@dataclass(frozen=True)
class _Asked:
    """A call on its way: the how-manieth it is, how many tokens its prompt has (where that is known), since when."""

    number: int
    call: Call
    tokens: int | None
    started: float


class Client:
    """Sends calls for `model` to `settings.base_url`, at most `concurrency` at a time.

    The key is read from the environment variable OPENAI_API_KEY and goes nowhere else. A call that is refused for what
    is in it leaves the others going; once the server has failed for good no further call is sent, and the answers to
    those on their way still arrive. `variables` are sent for the chat template; `turns` makes a prompt's conversation.
    Raises `BackendError` where no client can be made.
    """

    def __init__(
        self,
        settings: OpenAISettings,
        model: str,
        variables: Mapping[str, Any] | None = None,
        turns: Callable[[Prompt], Messages] = messages,
    ) -> None:
        self._settings = settings
        self._model = settings.served_model or model
        self._variables = dict(variables or {})
        self._turns = turns
        self._where = f"the server at {without_credentials(settings.base_url)}"
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        self._client = self._connect()
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._answers: SimpleQueue[tuple[Call, Completion | None]] = SimpleQueue()
        self._failure: BackendError | None = None
        self._refused: list[tuple[_Asked, _Problem]] = []
        self._kept: list[tuple[Call, Completion]] = []
        """Empty answers, handed on once all others are there: a server that gives nothing else leaves none behind."""
        self._in_a_row = 0
        self._asked = self._open = 0
        # A daemon: a process that gives up need not wait for an answer that may never come.
        self._thread = Thread(target=self._run, name="openai", daemon=True)
        self._thread.start()

    def _connect(self) -> Any:
        from openai import AsyncOpenAI, Timeout

        if not self._key.isascii() or not self._key.isprintable():
            raise BackendError(
                "the environment variable OPENAI_API_KEY holds characters that no key has; set it to the key alone"
            )
        address = urlsplit(self._settings.base_url)
        try:
            return AsyncOpenAI(
                base_url=urlunsplit(address._replace(query="", fragment="")),
                default_query=dict(parse_qsl(address.query, keep_blank_values=True)),
                # The client insists on a key; a server on loopback usually wants none.
                api_key=self._key or "none",
                timeout=Timeout(self._settings.timeout, connect=min(self._settings.timeout, CONNECT_SECONDS)),
                max_retries=0,
            )
        except Exception as error:
            raise BackendError(f"no client for {self._where}: {self._brief(error)} {_proxies()}".rstrip()) from error

    def submit(self, call: Call) -> None:
        """Queue a call."""
        self._submit(call, None)

    def _submit(self, call: Call, tokens: int | None) -> None:
        """`tokens`: how many the prompt has, where that is known."""
        self._open += 1
        self._asked += 1
        asked = _Asked(self._asked, call, tokens, time.perf_counter())
        asyncio.run_coroutine_threadsafe(self._work(asked), self._loop)

    def _run(self) -> None:
        """The thread: the event loop until `close` stops it."""
        self._loop.run_forever()
        self._loop.run_until_complete(self._drop())
        self._loop.close()

    async def _drop(self) -> None:
        """Give up what is on its way."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    async def _work(self, asked: _Asked) -> None:
        answer = None
        async with self._slots:
            try:
                answer = await self._answer(asked)
            except Exception as error:  # noqa: BLE001 - it would vanish with the task; `completed` raises it
                self._failure = self._failure or BackendError(f"{self._where} failed: {self._brief(error)} {GO_ON}")
            self._answers.put((asked.call, answer))

    async def _answer(self, asked: _Asked) -> Completion | None:
        """The answer to a call; None if it has none, which is noted."""
        for tried in range(1, self._settings.retries + 2):
            if self._failure is not None:
                return None
            try:
                async with asyncio.timeout(self._settings.timeout):
                    content = await self._send(asked.call)
                completion = completion_in(content, asked.tokens, time.perf_counter() - asked.started, self._short)
            except Exception as error:  # noqa: BLE001 - told apart there
                problem = self._problem(error)
            else:
                self._in_a_row = 0
                return completion
            if not problem.passing or tried > self._settings.retries:
                self._give_up(asked, problem, tried)
                return None
            await asyncio.sleep(_pause(tried) if problem.pause is None else problem.pause)
        raise AssertionError("the last try returns")

    def _give_up(self, asked: _Asked, problem: _Problem, tried: int) -> None:
        """What becomes of a call without an answer: it is kept as an empty one, or set aside, or stops the run."""
        tries = f" ({tried} tries)" if tried > 1 else ""
        self._in_a_row += 1
        if problem.of_call and self._in_a_row <= PATIENCE:
            if problem.finish is not None and self._settings.empty == "keep":
                seconds = time.perf_counter() - asked.started
                self._kept.append((asked.call, Completion(problem.text, None, None, problem.finish, seconds)))
            else:
                self._refused.append((asked, problem))
        else:
            self._failure = self._failure or BackendError(f"{self._where} {problem.why}{tries}{problem.mend}")

    async def _send(self, call: Call) -> bytes:
        settings = self._settings
        extra: dict[str, Any] = {}
        if settings.max_tokens_field is not None:
            extra[settings.max_tokens_field] = call.max_new_tokens
        if self._variables:
            extra["chat_template_kwargs"] = self._variables
        response = await self._client.chat.completions.with_raw_response.create(
            model=self._model,
            messages=self._turns(call.prompt),
            temperature=call.temperature,
            top_p=call.top_p,
            seed=call.seed,
            extra_body=extra | settings.extra_body,
        )
        content: bytes = response.content
        return content

    def _problem(self, error: Exception) -> _Problem:
        """What is behind a failed try."""
        import openai

        if isinstance(error, UnusableError):
            return _Problem(error.why, error.mend, error.passing, True, None, error.finish, error.text)
        connected = not type(error.__cause__).__name__.startswith(("Connect", "Proxy"))
        if isinstance(error, TimeoutError | openai.APITimeoutError) and connected:
            why = f"did not answer within {self._settings.timeout:g} s"
            return _Problem(why, f"; raise openai.timeout or lower openai.concurrency. {GO_ON}", passing=True)
        if isinstance(error, openai.APIConnectionError) and connected:
            why = f"broke off: {self._brief(error.__cause__ or error)}"
            return _Problem(why, f". {GO_ON}", passing=True)
        if isinstance(error, openai.APIConnectionError):
            return _Problem("cannot be reached", f"; is it running? {_proxies()}{GO_ON}", passing=True)
        if isinstance(error, openai.APIStatusError):
            return self._of_status(error, error.status_code)
        return _Problem(f"failed: {self._brief(error)}", f". {GO_ON}", passing=False)

    def _of_status(self, error: Any, status: int) -> _Problem:
        """What is behind an HTTP status."""
        if status == 401:
            return _Problem("refused the key", "; set the environment variable OPENAI_API_KEY", passing=False)
        if status == 404:
            why = f"does not know model '{self._model}' or the path: {self._brief(error)}"
            mend = ". Set openai.served_model to the name it serves; a base URL usually ends in /v1"
            return _Problem(why, mend, passing=False)
        if status in (400, 413, 422):
            why = f"refused the request: {self._brief(error)}"
            return _Problem(why, self._refusal_mend(why), passing=False, of_call=True, finish="refused")
        passing = status in PASSING or status >= 500
        pause = _retry_after(error.response.headers) if passing else None
        if pause is not None and pause > LONGEST_RETRY_AFTER:
            why = f"asks to be left alone for {duration(pause)}: {self._brief(error)}"
            return _Problem(why, f". {GO_ON}", passing=False)
        return _Problem(f"failed: {self._brief(error)}", f". {GO_ON}", passing, pause=pause)

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

    def _brief(self, error: BaseException) -> str:
        return f"{type(error).__name__}: {self._short(error)}"

    def _short(self, words: object, length: int = 300) -> str:
        """What a server or a library said, in one line, without the key and what may be one in the address."""
        text = " ".join(str(words).split())
        address = urlsplit(self._settings.base_url)
        # What is shorter in a query is a version.
        queried = [value for _, value in parse_qsl(address.query) if len(value) >= SHORTEST_SECRET]
        for secret in sorted(filter(None, [self._key, address.password, *queried]), key=len, reverse=True):
            text = text.replace(secret, "(the key)")
        return text[:length].removesuffix(".")

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        """Answers that are there, waiting for the first; empty ones that are kept once nothing else is open. Raises
        `BackendError`, after the good answers, also to the calls that were on their way by then, for a server that
        failed; once nothing else is open, for calls that it refused."""
        if not self._open and self._kept and not self._failure:
            kept, self._kept = self._kept, []
            yield from kept
            return
        if not self._open and self._refused:
            raise self._refusal()
        first = True
        while self._open and (first or self._failure or not self._answers.empty()):
            first = False
            call, answer = self._answers.get()
            self._open -= 1
            if answer is not None:
                yield call, answer
        if self._failure:
            raise self._failure

    def _refusal(self) -> BackendError:
        """Of all calls that were refused for what is in them."""
        # Answers come in any order.
        refused = sorted(self._refused, key=lambda one: one[0].number)
        first, problem = refused[0]
        named = ", ".join(dict.fromkeys(f"{asked.call.key[0]} ({asked.call.key[1]})" for asked, _ in refused[:5]))
        more = ", ..." if len(self._refused) > 5 else ""
        count = f"{len(self._refused)} of {self._asked} calls have no answer, {named}{more}; the others are kept."
        return BackendError(f"{count} For {first.call.key[0]} {self._where} {problem.why}{problem.mend}")

    def close(self) -> None:
        """Drop queued calls and the answers to those on their way."""
        self._failure = self._failure or BackendError("the backend is closed")
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONNECT_SECONDS)


class OpenAIBackend(Client):
    """The language model of a run on a server, which applies the model's own chat template. It takes no vectors."""

    settings: ClassVar[type[Section]] = OpenAISettings
    takes_vectors: ClassVar[bool] = False
    applies_template: ClassVar[bool] = False
    timing: ClassVar[Mapping[str, object]] = {}

    def __init__(self, config: RunConfig, chat: Chat, vectors: bool) -> None:
        section = config.backend_section
        assert isinstance(section, OpenAISettings)
        self._chat = chat
        self._told: set[str] = set()
        super().__init__(section, config.model, config.chat_template_kwargs, chat.messages)

    def submit(self, call: Call) -> None:
        """Queue a call."""
        if found := self._chat.control_tokens(call.prompt) - self._told:
            self._told |= found
            say(
                f"{self._where} may take {', '.join(sorted(found))} in a text for marks of its chat template (first in "
                f"{call.key[0]}): a server cannot be told that it is text; backend=vllm can"
            )
        self._submit(call, self._chat.count(call.prompt))

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Nothing can be known of a server before it is asked."""

    @classmethod
    def device(cls) -> str:
        """The machine behind the server is not known."""
        return "a server"


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
