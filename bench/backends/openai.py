"""Any server that speaks the OpenAI chat API. Retries and backoff are the `openai` client's own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from queue import SimpleQueue
from threading import Thread
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from bench.chat import Chat, messages
from bench.config import GENERATION, RUNTIME, RunConfig, Section
from bench.errors import BackendError
from bench.records import Call, Completion

CONNECT_SECONDS = 10.0
"""How long a connection may take to be made; the answer has `openai.timeout`."""
GO_ON = "Run again to go on where this run stopped."


class OpenAISettings(Section):
    """A server that speaks the OpenAI chat API. The key comes from the environment variable OPENAI_API_KEY only."""

    base_url: Annotated[str, Field(pattern=r"^https?://[^/\s]"), RUNTIME] = "http://127.0.0.1:8000/v1"
    served_model: Annotated[str | None, GENERATION] = None
    """The name the server knows the model by, where it is not `model`."""
    concurrency: Annotated[int, Field(ge=1), RUNTIME] = 32
    timeout: Annotated[float, Field(gt=0), RUNTIME] = 600.0
    """Seconds one request may take."""
    retries: Annotated[int, Field(ge=0), RUNTIME] = 5
    """With exponential backoff, for refused connections, time-outs, 408, 409, 429 and 5xx."""
    extra_body: Annotated[dict[str, Any], GENERATION] = Field(default={"top_k": -1, "repetition_penalty": 1.0})
    """Sent with each request. By default it switches off what vLLM's server would take from the model's own
    generation_config.json; a server that refuses these keys needs `--set openai.extra_body={}`."""

    def public(self) -> dict[str, Any]:
        """The settings as JSON, without a user name and password in the address."""
        return super().public() | {"base_url": without_credentials(self.base_url)}


class Client:
    """Sends calls for `model` to `settings.base_url`, at most `concurrency` at a time.

    The key is read from the environment variable OPENAI_API_KEY and goes nowhere else. Once a call has failed for good
    no further call is sent; the answers to those on their way still arrive.
    """

    def __init__(self, settings: OpenAISettings, model: str) -> None:
        from openai import OpenAI, Timeout

        self._settings = settings
        self._model = settings.served_model or model
        self._key = os.environ.get("OPENAI_API_KEY", "")
        self._client = OpenAI(
            base_url=settings.base_url,
            # The client insists on a key; a server on loopback usually wants none.
            api_key=self._key or "none",
            timeout=Timeout(settings.timeout, connect=min(settings.timeout, CONNECT_SECONDS)),
            max_retries=settings.retries,
        )
        self._calls: SimpleQueue[tuple[Call, float] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Call, Completion | None]] = SimpleQueue()
        self._failure: BackendError | None = None
        self._open = 0
        for _ in range(settings.concurrency):
            # Daemons: a process that gives up need not wait for an answer that may never come.
            Thread(target=self._work, name="openai", daemon=True).start()

    def submit(self, call: Call) -> None:
        """Queue a call."""
        self._open += 1
        self._calls.put((call, time.perf_counter()))

    def _work(self) -> None:
        while (queued := self._calls.get()) is not None:
            call, started = queued
            answer = None
            try:
                if self._failure is None:
                    answer = self._ask(call, started)
            except Exception as error:  # noqa: BLE001 - it would vanish with the thread; `completed` raises it
                self._failure = self._failure or self._explain(error)
            self._answers.put((call, answer))

    def _ask(self, call: Call, started: float) -> Completion:
        answer = self._client.chat.completions.create(
            model=self._model,
            messages=messages(call.prompt),  # type: ignore[arg-type]
            temperature=call.temperature,
            top_p=call.top_p,
            max_tokens=call.max_new_tokens,
            seed=call.seed,
            extra_body=dict(self._settings.extra_body),
        )
        choice = answer.choices[0]
        usage = answer.usage
        return Completion(
            text=choice.message.content or "",
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
            finish_reason=str(choice.finish_reason),
            seconds=time.perf_counter() - started,
        )

    def _explain(self, error: Exception) -> BackendError:
        import openai

        where = f"the server at {without_credentials(self._settings.base_url)}"
        tries = f"{self._settings.retries + 1} tries"
        if isinstance(error, openai.APITimeoutError):
            return BackendError(
                f"{where} did not answer within {self._settings.timeout:g} s ({tries}); raise openai.timeout or lower "
                f"openai.concurrency. {GO_ON}"
            )
        if isinstance(error, openai.APIConnectionError):
            return BackendError(f"{where} cannot be reached ({tries}); is it running? {GO_ON}")
        if isinstance(error, openai.AuthenticationError):
            return BackendError(f"{where} refused the key; set the environment variable OPENAI_API_KEY")
        if isinstance(error, openai.NotFoundError):
            return BackendError(
                f"{where} does not know model '{self._model}' or the path: {self._brief(error)} "
                "Set openai.served_model to the name it serves; a base URL usually ends in /v1"
            )
        if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError) and self._settings.extra_body:
            keys = ", ".join(self._settings.extra_body)
            return BackendError(
                f"{where} refused the request: {self._brief(error)} If it does not know {keys}: "
                "--set 'openai.extra_body={}'"
            )
        return BackendError(f"{where} failed ({tries}): {self._brief(error)} {GO_ON}")

    def _brief(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        if self._key:
            text = text.replace(self._key, "(the key)")
        return f"{type(error).__name__}: {text[:300]}"

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        """Answers that are there, waiting for the first. Raises `BackendError` for a call that failed for good, after
        the good answers, also to the calls that were on their way by then."""
        first = True
        while self._open and (first or self._failure or not self._answers.empty()):
            first = False
            call, answer = self._answers.get()
            self._open -= 1
            if answer is not None:
                yield call, answer
        if self._failure:
            raise self._failure

    def close(self) -> None:
        """Drop queued calls and the answers to those on their way."""
        self._failure = self._failure or BackendError("the backend is closed")
        for _ in range(self._settings.concurrency):
            self._calls.put(None)
        self._client.close()


class OpenAIBackend(Client):
    """The language model of a run on a server, which applies the model's own chat template. It takes no vectors."""

    settings: ClassVar[type[Section]] = OpenAISettings
    takes_vectors: ClassVar[bool] = False
    applies_template: ClassVar[bool] = False
    timing: ClassVar[Mapping[str, object]] = {}

    def __init__(self, config: RunConfig, chat: Chat, vectors: bool) -> None:
        section = config.backend_section
        assert isinstance(section, OpenAISettings)
        super().__init__(section, config.model)

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Nothing can be known of a server before it is asked."""

    @classmethod
    def device(cls) -> str:
        """The machine behind the server is not known."""
        return "a server"


def without_credentials(url: str) -> str:
    """`url` without a user name and password, for records and messages."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
