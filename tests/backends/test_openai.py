"""The backend for servers, against a real vLLM server on loopback and against a stand-in that misbehaves."""

from __future__ import annotations

import base64
import functools
import io
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import bench
from bench.backends import ENVIRONMENT
from bench.backends.openai import OpenAIBackend
from bench.backends.vllm import VLLMBackend
from bench.chat import Chat
from bench.config import build, read_config
from bench.errors import BackendError, ConfigError, PluginError
from bench.methods.dep import DEP
from bench.models import resolve_model
from bench.protocols import Backend
from bench.records import Call, Completion, Prompt
from bench.servers.embeddings import embedding_table
from bench.servers.settings import OpenAISettings
from bench.store import RunStore

if TYPE_CHECKING:
    from tests.backends.conftest import VLLMServer

DEMO = "python:bench/demo/model"
TOKENS = 24
BUDGET = 1500
KEY = "sk-never-to-be-seen-0123456789"


def settings(model: str, **openai: Any) -> dict[str, Any]:
    return {
        "method": "nonperso",
        "model": model,
        "input_budget": BUDGET,
        "max_new_tokens": TOKENS,
        "vllm": {"dtype": "float32", "enforce_eager": True},
        "openai": {"served_model": "tiny", **openai},
    }


@functools.cache
def chat() -> Chat:
    return Chat(DEMO)


def connect(url: str, variables: dict[str, Any] | None = None, **openai: Any) -> OpenAIBackend:
    config = build(
        settings("org/tiny", base_url=url, **openai),
        {"backend": "openai", "tokenizer": DEMO, "chat_template_kwargs": variables or {}},
    )
    return OpenAIBackend(config, chat(), vectors=False)


def calls(temperature: float, count: int = 12) -> list[Call]:
    words = ["kite", "é", "😀", "{x}", "日本", "\n\n", "of"]
    return [
        Call(
            (f"Books/test/u{number}", "review", 0),
            Prompt("review", "Write." * (number % 3), f"{number} " + words[number % 7] * (1 + 5 * number)),
            1000 + number,
            temperature,
            0.95,
            TOKENS,
        )
        for number in range(count)
    ]


def answers(backend: Backend, asked: Sequence[Call]) -> dict[tuple[str, str, int], Completion]:
    for call in asked:
        backend.submit(call)
    seen: dict[tuple[str, str, int], Completion] = {}
    while len(seen) < len(asked):
        seen.update({call.key: completion for call, completion in backend.completed()})
    return seen


def until_it_fails(backend: Backend, seen: list[str] | None = None) -> None:
    """Takes answers until an error is raised; `seen` gets the instances."""
    for _ in range(1000):
        for call, _ in backend.completed():
            if seen is not None:
                seen.append(call.key[0])
    raise AssertionError("every call was answered")


def soft_calls(temperature: float) -> list[Call]:
    """Prompts with vectors inside of their text and at its head, one with marks that have embeddings, and one of a
    trained method that has no slot."""
    asked = []
    for number in range(7):
        slots = tuple(f"[HIS_TOKEN_{slot}]" for slot in range(number % 4))
        blocks = [f"- {'kite ' * place}<his_token_start>{slot}<his_token_end>" for place, slot in enumerate(slots)]
        user = "\n".join([*blocks, f"{number} of the {'harbour' * (number % 3)}"])
        prompt = Prompt("dep_review", "Write a review.", user, slots=slots, marks=DEP.marks)
        key = (f"Books/test/s{number}", "dep_review", 0)
        drawn = np.random.default_rng(number).normal(0.0, 0.06, (len(slots), 192)).astype(np.float32)
        asked.append(Call(key, prompt, 2000 + number, temperature, 0.95, TOKENS, vectors=drawn))
    return asked


def by_temperature(temperature: float) -> list[Call]:
    return calls(temperature) + soft_calls(temperature)


def soft_backend(url: str, **openai: Any) -> OpenAIBackend:
    section = {"base_url": url, "retries": 0, **openai}
    return OpenAIBackend(build(settings(DEMO, **section), {"backend": "openai"}), chat(), vectors=True)


@pytest.fixture(scope="module")
def in_process() -> dict[float, dict[tuple[str, str, int], Completion]]:
    """What the engine in this process answers, greedy and sampled."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    backend = VLLMBackend(build(settings(DEMO)), chat(), vectors=True)
    completions = {temperature: answers(backend, by_temperature(temperature)) for temperature in (0.0, 0.8)}
    backend.close()
    return completions


def assert_those_in_process(seen: dict[Any, Completion], expected: dict[Any, Completion]) -> None:
    for what in ("text", "prompt_tokens", "completion_tokens", "finish_reason"):
        assert {key: getattr(answer, what) for key, answer in seen.items()} == {
            key: getattr(expected[key], what) for key in seen
        }


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("concurrency", [1, 8])
def test_texts_are_those_of_the_engine_in_process(
    server: VLLMServer, in_process: Any, temperature: float, concurrency: int
) -> None:
    backend = connect(server.url, concurrency=concurrency)
    seen = answers(backend, calls(temperature))
    backend.close()
    assert_those_in_process(seen, in_process[temperature])
    assert len({answer.text for answer in seen.values()}) > 6


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_texts_of_soft_prompts_are_those_of_the_engine_in_process(
    server: VLLMServer, in_process: Any, temperature: float
) -> None:
    backend = soft_backend(server.url)
    seen = answers(backend, by_temperature(temperature))
    silent = [replace(call, vectors=-call.vectors) for call in soft_calls(temperature) if call.prompt.slots]
    others = answers(backend, silent)
    backend.close()
    assert_those_in_process(seen, in_process[temperature])
    assert any(seen[key].text != other.text for key, other in others.items()), "vectors count"


def test_vectors_that_no_server_may_get(server: VLLMServer) -> None:
    backend = soft_backend(server.url)
    call = soft_calls(0.0)[2]
    broken = call.vectors.copy()  # type: ignore[union-attr]
    broken[1, 3] = np.nan
    for vectors, why in ((broken, "a number that is not finite"), (broken[:1], r"vectors of shape \(2, 192\)")):
        with pytest.raises(PluginError, match=why):
            backend.submit(replace(call, vectors=vectors))
    backend.close()
    backend = connect(server.url)
    with pytest.raises(BackendError, match="asks for the backend with vectors=True"):
        backend.submit(call)
    backend.close()


def test_a_server_of_other_weights_takes_no_soft_prompts(server: VLLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one of Gemma, whose embeddings are multiplied."""
    monkeypatch.setattr("bench.servers.soft.embedding_table", lambda model: 14 * embedding_table(model))
    with pytest.raises(BackendError, match=r"answers a prompt of vectors otherwise than .* tokens: .*use backend=vllm"):
        soft_backend(server.url)


def test_a_model_the_server_does_not_have(server: VLLMServer) -> None:
    backend = connect(server.url, served_model="giant")
    backend.submit(calls(0.0)[0])
    with pytest.raises(BackendError, match=r"does not know model 'giant'.*Set openai\.served_model"):
        next(backend.completed())


def test_a_prompt_the_server_refuses(server: VLLMServer) -> None:
    backend = connect(server.url)
    backend.submit(Call(("a", "review", 0), Prompt("review", "", "long " * 8 * BUDGET), 0, 0.0, 1.0, TOKENS))
    with pytest.raises(BackendError, match=r"^1 of 1 calls .* refused the request: BadRequestError.*context length"):
        until_it_fails(backend)


Reply = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


class StandIn:
    """A server that replies as it is told; keeps what it was asked."""

    def __init__(self, reply: Reply) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.open = self.most_open = 0
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stand_in.asked.append(body)
                stand_in.keys.append(self.headers["Authorization"])
                stand_in.open += 1
                stand_in.most_open = max(stand_in.most_open, stand_in.open)
                try:
                    reply(self, body)
                finally:
                    stand_in.open -= 1

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def stand_in(reply: Reply) -> Iterator[StandIn]:
    server = StandIn(reply)
    try:
        yield server
    finally:
        server.close()


def send(handler: BaseHTTPRequestHandler, status: int, body: dict[str, Any], **headers: str) -> None:
    content = json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)


def answer(content: Any, finish_reason: str | None = "stop", usage: Any = None, **message: Any) -> dict[str, Any]:
    """The body of an answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}}
    choice["finish_reason"] = finish_reason  # type: ignore[assignment]
    usage = {"prompt_tokens": 400, "completion_tokens": 2, "total_tokens": 402} if usage is None else usage
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice]}
    return body if usage == "none" else body | {"usage": usage}


def good(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    send(handler, 200, answer(f"to {body['messages'][1]['content']}"))


def failing(status: int, message: str = "no", times: int = 10**6, **headers: str) -> Reply:
    """Replies with an error so many times, then well."""
    left = [times]

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        left[0] -= 1
        if left[0] >= 0:
            send(handler, status, {"error": {"message": message}}, **headers)
        else:
            good(handler, body)

    return reply


def test_what_is_sent() -> None:
    with stand_in(good) as server:
        backend = connect(server.url)
        (completion,) = answers(backend, calls(0.8)[1:2]).values()
        backend.close()
    (call,) = calls(0.8)[1:2]
    assert server.asked == [
        {
            "model": "tiny",
            "messages": [{"role": "system", "content": "Write."}, {"role": "user", "content": call.prompt.user}],
            "temperature": 0.8,
            "top_p": 0.95,
            "max_tokens": TOKENS,
            "seed": 1001,
            "top_k": -1,
            "repetition_penalty": 1.0,
        }
    ]
    assert completion.text == f"to {call.prompt.user}"
    assert (completion.prompt_tokens, completion.completion_tokens, completion.finish_reason) == (400, 2, "stop")
    assert completion.seconds > 0


def likely(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    choice = {"index": 0, "text": "so", "logprobs": {"top_logprobs": [{"so": -0.5, "no": -1.5}]}}
    send(handler, 200, {"choices": [choice | {"finish_reason": "length"}]})


def deaf(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """It was started without the flag."""
    if body.get("prompt_embeds"):
        send(handler, 400, {"error": {"message": "You must set `--enable-prompt-embeds` to input `prompt_embeds`."}})
    else:
        likely(handler, body)


def silent(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    send(handler, 200, {"choices": [{"index": 0, "text": "so", "logprobs": None, "finish_reason": "length"}]})


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (deaf, r"takes no prompts of vectors: .*Start it as a vLLM server of '.*' with --enable-prompt-embeds"),
        (silent, r"tells no log probabilities"),
        (lambda handler, body: send(handler, 404, {}), r"does not know model 'tiny' or the path"),
    ],
)
def test_a_server_that_takes_no_soft_prompts_is_found_at_once(reply: Reply, message: str) -> None:
    with stand_in(reply) as server:
        with pytest.raises(BackendError, match=rf"^the server at {server.url} {message}") as caught:
            soft_backend(server.url)
        assert "\n" not in str(caught.value)


def test_what_is_sent_of_a_soft_prompt() -> None:
    """Without vectors of its own: its rows of the table, in the dtype that makes no difference to the server."""
    with stand_in(likely) as server:
        backend = soft_backend(server.url, extra_body={"top_k": -1, "min_p": 0.1}, max_tokens_field=None)
        (call,) = soft_calls(0.8)[1:2]
        (completion,) = answers(backend, [call]).values()
        backend.close()
    assert completion.text == "so"
    sent = server.asked[-1]
    content = torch.load(io.BytesIO(base64.b64decode(sent.pop("prompt_embeds"))), weights_only=True)
    assert sent == {
        "model": "tiny",
        "prompt": None,
        "temperature": 0.8,
        "top_p": 0.95,
        "seed": 2001,
        "max_tokens": TOKENS,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "top_k": -1,
        "min_p": 0.1,
    }
    ids = chat().ids(call.prompt)
    (slot,) = chat().positions(call.prompt, ids)
    table = load_file(Path(resolve_model(DEMO)) / "model.safetensors")["model.embed_tokens.weight"]
    expected = table[[0 if place == slot else token for place, token in enumerate(ids)]]
    expected[slot] = torch.tensor(call.vectors).to(torch.bfloat16)
    assert torch.equal(content, expected)


def test_as_many_calls_are_open_as_configured_and_no_more() -> None:
    def slow(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        time.sleep(0.1)
        good(handler, body)

    with stand_in(slow) as server:
        backend = connect(server.url, concurrency=4)
        started = time.perf_counter()
        seen = answers(backend, calls(0.0, 16))
        seconds = time.perf_counter() - started
        backend.close()
    assert server.most_open == 4
    assert seconds < 1.2, "16 calls of 0.1 s, four at a time"
    assert {key: answer.text for key, answer in seen.items()} == {
        call.key: f"to {call.prompt.user}" for call in calls(0.0, 16)
    }


def test_answers_are_handed_over_as_they_come() -> None:
    release = Event()

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if body["messages"][1]["content"].startswith("0 "):
            release.wait(10)
        good(handler, body)

    with stand_in(reply) as server:
        backend = connect(server.url)
        for call in calls(0.0, 3):
            backend.submit(call)
        early: list[Call] = []
        while len(early) < 2:
            early += [call for call, _ in backend.completed()]
        release.set()
        (last,) = [call for call, _ in backend.completed()]
        backend.close()
    assert sorted(call.key[0] for call in early) == ["Books/test/u1", "Books/test/u2"]
    assert last.key[0] == "Books/test/u0"


@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry_After": "0.05"}), (500, {}), (503, {})])
def test_a_passing_failure_is_tried_again(status: int, headers: dict[str, str]) -> None:
    with stand_in(failing(status, times=1, **headers)) as server:
        backend = connect(server.url, retries=2)
        assert len(answers(backend, calls(0.0, 1))) == 1
        backend.close()
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("reply", "tries", "message"),
    [
        (failing(401, f"bad key {KEY}"), 1, r"refused the key; set the environment variable OPENAI_API_KEY"),
        (failing(403, f"not you, {KEY}"), 1, r"failed: [^(]*not you, \(the key\)"),
        (failing(404, "no such model"), 1, r"does not know model 'tiny'.*openai\.served_model"),
        (
            failing(429, "slow down", Retry_After="0.05"),
            2,
            r"failed: RateLimitError.*slow down.* \(2 tries\)\. Run again",
        ),
        (
            failing(429, "tomorrow", Retry_After="86400"),
            1,
            r"asks to be left alone for 24 h[^(]*tomorrow[^(]*\. Run again",
        ),
        (failing(500, "oops"), 2, r"failed: InternalServerError.*oops.* \(2 tries\)\. Run again"),
    ],
)
def test_a_lasting_failure_is_one_error(
    reply: Reply, tries: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with stand_in(reply) as server:
        backend = connect(server.url, retries=1, concurrency=1)
        for call in calls(0.0, 3):
            backend.submit(call)
        with pytest.raises(BackendError, match=message) as caught:
            list(backend.completed())
        backend.close()
    assert KEY not in str(caught.value)
    assert server.keys == [f"Bearer {KEY}"] * tries, "nothing is sent after a call has failed for good"


def test_the_answers_on_their_way_arrive_before_the_error() -> None:
    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if body["messages"][1]["content"].startswith("0 "):
            send(handler, 403, {"error": {"message": "no"}})
        else:
            time.sleep(0.3)
            good(handler, body)

    with stand_in(reply) as server:
        backend = connect(server.url, concurrency=3)
        for call in calls(0.0, 9):
            backend.submit(call)
        completed = backend.completed()
        arrived = [next(completed)[0].key[0] for _ in range(2)]
        with pytest.raises(BackendError, match="failed: PermissionDeniedError"):
            next(completed)
        backend.close()
    assert sorted(arrived) == ["Books/test/u1", "Books/test/u2"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow one another at once."""
    monkeypatch.setattr("bench.servers.server.LONGEST_PAUSE", 0.01)


def in_turn(*bodies: dict[str, Any] | bytes) -> Reply:
    """Answers with these, the last one again and again."""
    left = list(bodies)

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        next_body = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(next_body, dict):
            send(handler, 200, next_body)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(next_body)))
        handler.end_headers()
        handler.wfile.write(next_body)

    return reply


def ask(reply: Reply, call: Call | None = None, **openai: Any) -> tuple[Completion, StandIn]:
    """The answer to one call, and the server."""
    with stand_in(reply) as server:
        backend = connect(server.url, **openai)
        try:
            (completion,) = answers(backend, [call or calls(0.8)[1]]).values()
        finally:
            backend.close()
    return completion, server


PARTS = [
    {"type": "thinking", "thinking": "hm"},
    {"type": "text", "text": "so it"},
    {"type": "image_url", "image_url": {}},
    {"type": "text", "text": " is"},
]


@pytest.mark.parametrize(
    ("body", "text", "tokens", "finish_reason"),
    [
        (answer(PARTS), "so it is", (400, 2), "stop"),
        (answer(["so it", " is"]), "so it is", (400, 2), "stop"),
        (answer("x", usage={"prompt_tokens": 400, "completion_tokens": None}), "x", (400, None), "stop"),
        (answer("x", usage={}), "x", (None, None), "stop"),
        (answer("x", usage="none"), "x", (None, None), "stop"),
        (answer("x", usage={"prompt_tokens": "9", "completion_tokens": -1}), "x", (None, None), "stop"),
        (answer("x", finish_reason=None), "x", (400, 2), "unknown"),
        (answer("a\ud800b"), "a\ufffdb", (400, 2), "stop"),
        (answer("<think>hm</think>so"), "<think>hm</think>so", (400, 2), "stop"),
        (answer(""), "", (400, 2), "stop"),
        (answer(" \n"), " \n", (400, 2), "stop"),
        (answer("<think>hm", "length"), "<think>hm", (400, 2), "length"),
        (answer("so", reasoning_content="hm", refusal=None, tool_calls=[]), "so", (400, 2), "stop"),
    ],
)
def test_odd_answers_that_are_ones(
    body: dict[str, Any], text: str, tokens: tuple[int | None, int | None], finish_reason: str
) -> None:
    completion, server = ask(in_turn(body))
    assert completion.text == text
    assert (completion.prompt_tokens, completion.completion_tokens) == tokens
    assert completion.finish_reason == finish_reason
    assert len(server.asked) == 1


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"choices": None, "error": {"message": message, **more}}


TOOL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
WITHOUT_TEXT = [
    (answer(None), "answered without text"),
    (answer([]), "answered without text"),
    (answer(PARTS[:1]), "answered without text"),
    (answer(None, refusal="I must not."), "refused: I must not"),
    (answer(None, "tool_calls", tool_calls=[TOOL]), "called a tool"),
    (answer(None, reasoning_content="hm"), "thought and did not answer"),
    (answer("", reasoning="hm"), "thought and did not answer"),
    (answer("half a sen", "content_filter"), "filtered the answer"),
]
BROKEN = [
    (answer(7), "with a int where the text should be"),
    (answer({"text": "x"}), "with a dict where the text should be"),
    ({"hello": "world"}, "answered without choices"),
    ({"choices": []}, "answered without choices"),
    ({"choices": "x"}, "answered without choices"),
    ({"choices": [{"error": {"message": "it fell over"}, "finish_reason": "error"}]}, "an error: it fell over"),
    (answer("half an ans", "error") | {"error": {"message": "it died"}}, "answered with an error: it died"),
    (answer("half an ans", "error"), "answered with an error"),
    (error("too many", code=429), "answered with an error: too many"),
    (error("upstream", code="502"), "answered with an error: upstream"),
    ({"error": "words alone"}, "answered with an error: words alone"),
    (b'{"choices": [{"mess', "did not answer in JSON"),
    (b"<html>log in</html>", "did not answer in JSON (<html>log in</html>)"),
    (b"", "did not answer in JSON"),
    (b"[1]", "answered with a list"),
]


@pytest.mark.parametrize(("body", "why"), WITHOUT_TEXT + BROKEN)
@pytest.mark.usefixtures("quick")
def test_an_answer_that_is_none_is_asked_for_again_and_then_an_error(body: dict[str, Any] | bytes, why: str) -> None:
    completion, server = ask(in_turn(body, body, answer("at last")), retries=2)
    assert completion.text == "at last"
    assert len(server.asked) == 3
    with pytest.raises(BackendError) as caught:
        ask(in_turn(body), retries=1)
    message = str(caught.value)
    assert why in message
    assert message.startswith("1 of 1 calls have no answer, Books/test/u1 (review)")
    assert ("openai.empty=keep" in message) == ((body, why) in WITHOUT_TEXT)


@pytest.mark.parametrize(("body", "why"), WITHOUT_TEXT)
@pytest.mark.usefixtures("quick")
def test_answers_without_text_are_kept_where_that_is_asked_for(body: dict[str, Any], why: str) -> None:
    completion, server = ask(in_turn(body), retries=1, empty="keep")
    assert len(server.asked) == 2
    assert completion.said in ("", "half a sen")
    assert completion.finish_reason == body["choices"][0]["finish_reason"]


def test_broken_answers_are_never_kept() -> None:
    for body, why in BROKEN:
        with pytest.raises(BackendError) as caught:
            ask(in_turn(body), retries=0, empty="keep")
        assert why in str(caught.value)
        assert "tries" not in str(caught.value)


def test_an_error_of_the_request_in_a_good_answer_is_not_asked_for_again() -> None:
    with pytest.raises(BackendError, match="answered with an error: bad prompt"):
        ask(in_turn(error("bad prompt", code=400), answer("no")), retries=2)


def test_a_thought_that_filled_the_answer_is_not_asked_for_again() -> None:
    with pytest.raises(
        BackendError, match=r"thought and did not answer \(finish_reason length\).*max_new_tokens"
    ) as caught:
        ask(in_turn(answer(None, "length", reasoning_content="hm"), answer("no")), retries=2)
    assert "enable_thinking=false" in str(caught.value)


def refusing(*users: str) -> Reply:
    """Refuses the content of these prompts."""

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if body["messages"][1]["content"].split()[0] in users:
            send(handler, 400, {"error": {"message": "unfit content"}})
        else:
            good(handler, body)

    return reply


def test_a_refused_prompt_leaves_the_others_going() -> None:
    with stand_in(refusing("2", "5")) as server:
        backend = connect(server.url, concurrency=1)
        for call in calls(0.0):
            backend.submit(call)
        seen: list[str] = []
        with pytest.raises(BackendError) as caught:
            until_it_fails(backend, seen)
        backend.close()
    assert seen == [f"Books/test/u{number}" for number in range(12) if number not in (2, 5)]
    assert str(caught.value).startswith(
        "2 of 12 calls have no answer, Books/test/u2 (review), Books/test/u5 (review); the others are kept. "
        "For Books/test/u2 the server at"
    )
    assert "refused the request: BadRequestError" in str(caught.value)
    assert "openai.extra_body={}" in str(caught.value)
    assert "Run again" not in str(caught.value)


def test_a_refused_prompt_is_kept_as_an_empty_text_where_that_is_asked_for() -> None:
    completion, server = ask(refusing("1"), retries=2, empty="keep")
    assert (completion.text, completion.finish_reason) == ("", "refused")
    assert (completion.prompt_tokens, completion.completion_tokens) == (None, None)
    assert len(server.asked) == 1


@pytest.mark.parametrize("empty", ["fail", "keep"])
def test_a_server_that_refuses_every_prompt_is_not_asked_for_all_of_them(empty: str) -> None:
    with stand_in(failing(400, "unknown field top_k")) as server:
        backend = connect(server.url, concurrency=1, empty=empty)
        for call in calls(0.0, 30):
            backend.submit(call)
        seen: list[str] = []
        with pytest.raises(BackendError, match=r"unknown field top_k.* --set 'openai\.extra_body=\{\}'"):
            until_it_fails(backend, seen)
        backend.close()
    assert len(server.asked) == 21
    assert seen == [], "none is kept as an answer, for good"


def test_the_first_choice_is_the_one_of_index_0() -> None:
    body = answer("second")
    body["choices"] = [body["choices"][0] | {"index": 1}, answer("first")["choices"][0]]
    completion, _ = ask(in_turn(body))
    assert completion.text == "first"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"extra_body": {"messages": []}}, "extra_body cannot set 'messages', which bench sets itself"),
        ({"extra_body": {"stream": True}}, "extra_body cannot set 'stream'"),
        ({"extra_body": {"api_key": KEY}}, "extra_body holds 'api_key', and records keep it.*OPENAI_API_KEY"),
        ({"extra_body": {"a": [{"X-Auth-Token": KEY}]}}, "extra_body holds 'X-Auth-Token'"),
        ({"max_tokens_field": "messages"}, "messages means something else in a request"),
        ({"base_url": f"ftp://me:{KEY}@host/v1"}, "base_url must be the address of a server"),
        ({"base_url": f"http://[::1/{KEY}"}, "base_url must be the address of a server"),
        ({"base_url": "http://host:99999/v1"}, "base_url must be the address of a server"),
        ({"base_url": "http:///v1"}, "base_url must be the address of a server"),
    ],
)
def test_settings_that_no_server_may_have(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build({"method": "nonperso", "backend": "openai", "openai": section})
    assert KEY not in str(caught.value)


def test_any_name_of_a_model_that_a_server_has(shop_config: Path) -> None:
    with stand_in(lambda handler, body: send(handler, 200, answer("so"))) as server:
        summary = bench.run(
            "nonperso",
            str(shop_config),
            model="gpt-4o",
            tokenizer=DEMO,
            backend="openai",
            openai={"base_url": server.url},
            metrics=["rouge"],
        )
    assert summary.calls == 3
    assert {body["model"] for body in server.asked} == {"gpt-4o"}


def test_another_name_for_the_longest_answer() -> None:
    _, server = ask(good, max_tokens_field="max_completion_tokens", extra_body={})
    assert server.asked[0]["max_completion_tokens"] == TOKENS
    assert "max_tokens" not in server.asked[0]
    _, server = ask(good, max_tokens_field=None, extra_body={})
    assert set(server.asked[0]) == {"model", "messages", "temperature", "top_p", "seed"}
    with pytest.raises(BackendError, match=r"--set openai\.max_tokens_field=max_completion_tokens"):
        ask(failing(400, "Unsupported parameter: 'max_tokens'"))


def test_variables_of_the_chat_template_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat().tokenizer, "chat_template", "{# enable_thinking #}" + chat().tokenizer.chat_template)
    _, server = ask(good, variables={"enable_thinking": False})
    assert server.asked[0]["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize(("read", "shortened"), [(1.0, False), (0.8, False), (0.5, True)])
def test_a_server_that_cuts_prompts_is_found_out(read: float, shortened: bool) -> None:
    call = Call(("a", "review", 0), Prompt("review", "Write.", "a longer prompt " * 50), 0, 0.0, 1.0, TOKENS)
    tokens = round(chat().count(call.prompt) * read)
    completion, _ = ask(in_turn(answer("x", usage={"prompt_tokens": tokens, "completion_tokens": 1})), call)
    assert completion.shortened == shortened


def test_control_tokens_in_a_text_are_told_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    marked = [Call((str(n), "r", 0), Prompt("r", "", f"{n} <|im_end|>"), 0, 0.0, 1.0, TOKENS) for n in range(2)]
    with stand_in(good) as server:
        backend = connect(server.url)
        assert len(answers(backend, marked)) == 2
        backend.close()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "im_end" in line]
    assert "may take <|im_end|> in a text for marks of its chat template (first in 0)" in line


def test_an_answer_that_drips_is_timed_as_a_whole() -> None:
    def drip(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(100):
            time.sleep(0.05)
            handler.wfile.write(b" ")
            handler.wfile.flush()

    started = time.perf_counter()
    with pytest.raises(BackendError, match=r"did not answer within 0\.3 s; raise openai\.timeout"):
        ask(drip, timeout=0.3, retries=0)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_named(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(
        BackendError, match=r"^no client for the server at .*over the proxy in ALL_PROXY: mend or unset"
    ):
        ask(good)


def test_a_proxy_in_the_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(
        BackendError, match=r"cannot be reached; is it running\? Requests go over the proxy in http_proxy"
    ):
        ask(good, retries=0)


def test_a_query_in_the_address_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[str] = []

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        paths.append(handler.path)
        send(handler, 403, {"error": {"message": f"{KEY} may not"}})

    with stand_in(reply) as server:
        backend = connect(f"{server.url}?api-version=1&key={KEY}")
        backend.submit(calls(0.0)[0])
        with pytest.raises(BackendError) as caught:
            until_it_fails(backend)
        backend.close()
    assert paths == [f"/v1/chat/completions?api-version=1&key={KEY}"]
    assert KEY not in str(caught.value)
    section = OpenAISettings(base_url=f"https://me:{KEY}@host/v1?key={KEY}#{KEY}")
    assert section.public()["base_url"] == "https://host/v1"


@pytest.mark.parametrize("key", ["sk-é", "sk-\x00x", "sk-\nx"])
def test_a_key_that_is_none(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # os.environ takes no NUL; what stands for it is the client's view of it.
    monkeypatch.setattr(os, "environ", {**os.environ, "OPENAI_API_KEY": key})
    with pytest.raises(BackendError, match="OPENAI_API_KEY holds characters that no key has") as caught:
        ask(good)
    assert key not in str(caught.value)


def test_a_server_that_hangs_times_out() -> None:
    with stand_in(lambda handler, body: time.sleep(5)) as server:
        backend = connect(server.url, timeout=0.2, retries=1)
        backend.submit(calls(0.0)[0])
        started = time.perf_counter()
        with pytest.raises(BackendError, match=r"did not answer within 0\.2 s \(2 tries\); raise openai\.timeout"):
            next(backend.completed())
        assert time.perf_counter() - started < 4
        backend.close()
    assert len(server.asked) == 2


def test_a_wrong_port_is_a_quick_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://me:password@127.0.0.1:{free.getsockname()[1]}/v1"
        backend = connect(url, retries=1)
        for call in calls(0.0):
            backend.submit(call)
        started = time.perf_counter()
        with pytest.raises(BackendError, match=r"cannot be reached \(2 tries\); is it running\?.*Run again") as caught:
            list(backend.completed())
    assert time.perf_counter() - started < 5
    assert "password" not in str(caught.value)


HANGS = """
import sys
from pathlib import Path
from bench.backends.openai import OpenAIBackend
from bench.chat import Chat
from bench.config import build, read_config
from bench.records import Call, Prompt
server = {"base_url": sys.argv[1], "concurrency": 2}
config = build({"method": "nonperso", "model": "org/tiny", "backend": "openai", "openai": server})
backend = OpenAIBackend(config, Chat("python:bench/demo/model"), False)
for number in range(2):
    backend.submit(Call((str(number), "review", 0), Prompt("review", "", str(number)), 0, 0.0, 1.0, 8))
sys.stdin.readline()
backend.close()
"""


def test_a_process_that_gives_up_does_not_wait_for_answers() -> None:
    with stand_in(lambda handler, body: time.sleep(30)) as server:
        process = subprocess.Popen([sys.executable, "-c", HANGS, server.url], stdin=subprocess.PIPE, text=True)
        while len(server.asked) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        try:
            process.communicate("give up\n", timeout=25)
        finally:
            process.kill()
    assert process.returncode == 0


def start_run(url: str, config: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.cli", "run", "--method", "pag", "--config", str(config)]
    command += ["--backend", "openai", "--base-url", url]
    environment = {**os.environ, "OPENAI_API_KEY": KEY, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_run_survives_the_death_of_its_server(server: VLLMServer, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    run = settings(DEMO, concurrency=4, retries=1)
    run |= {"dataset": "demo", "limit": 12, "k": 1, "metrics": ["rouge"], "resamples": 20}
    run["results"] = str(tmp_path / "results")
    config.write_text(yaml.safe_dump(run))
    process = start_run(server.url, config)
    rows = wait_for_rows(tmp_path / "results", 15, process)
    server.kill()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith(f"bench: the server at {server.url} cannot be reached (2 tries)")
    before = rows.read_bytes()
    assert 15 <= before.count(b"\n") < 72, "killed half way"
    assert before.endswith(b"\n")

    server.start()
    process = start_run(server.url, config)
    output, more_errors = process.communicate(timeout=120)
    assert process.returncode == 0, more_errors
    assert "12" in output
    assert rows.read_bytes().startswith(before), "what was finished was not asked again"
    keys = Counter((row["instance"], row["stage"], row["index"]) for row in map(json.loads, rows.open()))
    assert len(keys) == 72
    assert set(keys.values()) == {1}
    for text in (output, errors, more_errors, *(path.read_text() for path in rows.parent.iterdir())):
        assert KEY not in text


class Killing:
    """A run's store that kills a server once it has so many more answers."""

    def __init__(self, store: RunStore, server: VLLMServer, answers: int) -> None:
        self._server = server
        self._left = answers
        self.completion = store.completion
        self._keep = store.append

    def append(self, call: Call, completion: Completion) -> None:
        self._keep(call, completion)
        self._left -= 1
        if not self._left:
            self._server.kill()


def test_two_servers_of_which_one_is_killed_write_what_one_engine_writes(
    server: VLLMServer,
    another_server: VLLMServer,
    texts_of: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is killed in the middle of DEP; PAG's calls find it dead."""
    given = {**read_config("demo"), "max_new_tokens": 32, "input_budget": 700, "temperature": 0.8}
    openai = {"base_url": [server.url, another_server.url], "served_model": "tiny", "concurrency": 2, "retries": 1}
    methods = ["rag", "dep", "pag"]
    expected = texts_of(given, methods, 2, tmp_path / "one")
    stores: list[RunStore] = []

    def killing(store: RunStore) -> Any:
        stores.append(store)
        return Killing(store, another_server, 2) if len(stores) == 2 else store

    capsys.readouterr()
    seen = texts_of({**given, "backend": "openai", "openai": openai}, methods, 2, tmp_path / "two", killing)
    assert [len(texts) for _, texts, _ in seen] == [6, 6, 12]
    assert [made for _, *made in seen] == [made for _, *made in expected]
    said = capsys.readouterr().err
    assert re.search(rf"the server at {another_server.url} .*the others get its [12] calls: it is left alone", said)


def wait_for_rows(results: Path, count: int, process: subprocess.Popen[str]) -> Path:
    """The run's generations.jsonl, once it has so many rows."""
    for _ in range(6000):
        assert process.poll() is None, process.communicate()[1]
        for path in results.glob("runs/*/generations.jsonl"):
            if path.read_bytes().count(b"\n") >= count:
                return path
        time.sleep(0.01)
    raise AssertionError("the run made no progress")


def by_stage(profile: Any, review: Any) -> Reply:
    """Answers PAG's two stages with these bodies."""

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        first = "summarize" in json.dumps(body["messages"]).lower()
        send(handler, 200, profile if first else review(body) if callable(review) else review)

    return reply


def run_pag(url: str, config: Path, **openai: Any) -> Any:
    server = {"base_url": url, "retries": 0, **openai}
    return bench.run("pag", str(config), backend="openai", k=1, metrics=["rouge"], openai=server)


def test_a_thought_is_neither_quoted_nor_scored(shop_config: Path) -> None:
    quoted: list[str] = []

    def review(body: dict[str, Any]) -> dict[str, Any]:
        quoted.append(body["messages"][1]["content"])
        return answer("<think>what do I say</think>It is a kite.")

    with stand_in(by_stage(answer("<think>who is it</think>A \ud800 person."), review)) as server:
        summary = run_pag(server.url, shop_config)
    (folder,) = (shop_config.parent / "results" / "runs").iterdir()
    predictions = [json.loads(line)["prediction"] for line in (folder / "predictions.jsonl").open()]
    assert predictions == ["It is a kite."] * 3
    assert all("A \ufffd person." in text and "who is it" not in text for text in quoted)
    raw = [json.loads(line)["text"] for line in (folder / "generations.jsonl").open()]
    assert "<think>what do I say</think>It is a kite." in raw, "what the model wrote is kept"
    assert (summary.empty_answers, summary.empty_predictions) == ({}, 0)


def run_drp(url: str, config: Path) -> Any:
    """One instance of the demo, whose reviews have peers, with a second model."""
    data = {"dataset": "demo", "categories": ["Books"], "limit": 1, "k": 2, "input_budget": 4000}
    options = {"encoder": "hashed-ngrams", "model": "second"}
    server = {"base_url": url, "retries": 0}
    return bench.run("drp", str(config), backend="openai", metrics=["rouge"], openai=server, drp=options, **data)


def test_a_second_model_is_asked_for_by_its_name(shop_config: Path) -> None:
    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        # Its tokenizer makes a few tokens where the run's makes hundreds.
        tokens = 9 if body["model"] == "second" else 4000
        usage = {"prompt_tokens": tokens, "completion_tokens": 2, "total_tokens": tokens + 2}
        send(handler, 200, answer("<think>hm</think>a list", usage=usage))

    with stand_in(reply) as server:
        summary = run_drp(server.url, shop_config)
    asked = Counter((body["model"], _stage(body)) for body in server.asked)
    (run_model,) = {model for model, _ in asked} - {"second"}
    assert asked == {
        ("second", "find"): 2,
        ("second", "check"): 2,
        (run_model, "summarize"): 1,
        (run_model, "generate"): 1,
    }
    assert summary.shortened_calls == 0
    (folder,) = (shop_config.parent / "results" / "runs").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert record["identity"]["method_options"]["model"] == record["config"]["options"]["drp"]["model"] == "second"


def _stage(body: dict[str, Any]) -> str:
    """Told by what the system turn asks for."""
    words = ("check each feature", "find the features", "summarize", "generate")
    return next(word for word in words if word in body["messages"][0]["content"]).split()[0]


def test_a_second_model_that_the_server_does_not_have_is_named(shop_config: Path) -> None:
    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        known = body["model"] != "second"
        send(handler, 200 if known else 404, answer("fine") if known else {"error": {"message": "no such model"}})

    with (
        stand_in(reply) as server,
        pytest.raises(BackendError, match=r"does not know model 'second' .*Set the method's second model to the name"),
    ):
        run_drp(server.url, shop_config)


def test_answers_without_text_are_counted_by_stage_and_named(
    shop_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without = answer(None, usage="none")
    asked = itertools.count()

    def backwards(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        time.sleep(max(0, 0.4 - 0.2 * next(asked)))
        by_stage(without, answer("<think>no end", "length"))(handler, body)

    with stand_in(backwards) as server:
        with pytest.raises(BackendError, match=r"3 of 3 calls have no answer, Toys/test/u1 \(pag_profile\)"):
            run_pag(server.url, shop_config)
        capsys.readouterr()
        summary = run_pag(server.url, shop_config, empty="keep")
    (folder,) = (shop_config.parent / "results" / "runs").iterdir()
    assert folder.name == summary.name, "the run that stopped went on"
    assert summary.empty_answers == {"pag_profile": 3, "pag_review": 3}
    assert (summary.empty_predictions, summary.cut_off) == (3, 3)
    assert (summary.calls, summary.uncounted_calls) == (6, 3)
    assert summary.prompt_tokens == 3 * 400, "of the calls whose tokens are known"
    # The random model's tokenizer takes a token for each byte.
    assert summary.shortened_calls == 2, "the third user has no history"
    assert summary.answer_notes == [
        f"{summary.name}: answers without text: pag_profile 3, pag_review 3.",
        f"{summary.name}: the server cut 2 of 6 prompts, so these are not the scores of the method.",
    ]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "hold no text" in line]
    assert line.endswith("(pag_profile 3, pag_review 3): Toys/test/u1, Toys/test/u2, Toys/test/u3")
