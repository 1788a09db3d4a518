"""The backend for servers, against a real vLLM server on loopback and against a stand-in that misbehaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from bench.backends import ENVIRONMENT
from bench.backends.openai import OpenAIBackend
from bench.backends.vllm import VLLMBackend
from bench.chat import Chat
from bench.config import build
from bench.errors import BackendError
from bench.protocols import Backend
from bench.records import Call, Completion, Prompt

TOKENS = 24
BUDGET = 1500
KEY = "sk-never-to-be-seen-0123456789"


class Server:
    """A real vLLM server with the settings of the engine in process."""

    def __init__(self, model: Path, log: Path) -> None:
        self.model = model
        self.log = log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        length = str(BUDGET + TOKENS)
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--model", str(self.model), "--served-model-name", "tiny"]
        command += ["--dtype", "float32", "--enforce-eager", "--no-enable-prefix-caching", "--max-model-len", length]
        command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "4096", "--max-num-seqs", "256"]
        command += ["--disable-log-stats", "--disable-uvicorn-access-log"]
        settings = {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        environment = {**os.environ, **settings, "VLLM_NO_USAGE_STATS": "1"}
        environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=self.log.parent, start_new_session=True
            )
        # Half a minute; on a busy machine many times as long.
        for _ in range(6000):
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            try:
                urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError(f"the server did not start: {self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """SIGKILL the server and its engine."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture(scope="module")
def server(tiny_qwen2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tiny_qwen2, tmp_path_factory.mktemp("server") / "log")
    server.start()
    yield server
    server.kill()


def settings(model: Path, **openai: Any) -> dict[str, Any]:
    return {
        "method": "nonperso",
        "model": str(model),
        "input_budget": BUDGET,
        "max_new_tokens": TOKENS,
        "vllm": {"dtype": "float32", "enforce_eager": True},
        "openai": {"served_model": "tiny", **openai},
    }


def connect(url: str, **openai: Any) -> OpenAIBackend:
    config = build(settings(Path("org/tiny"), base_url=url, **openai), {"backend": "openai"})
    return OpenAIBackend(config, Chat(config.model), vectors=False)


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


@pytest.fixture(scope="module")
def in_process(tiny_qwen2: Path) -> dict[float, dict[tuple[str, str, int], Completion]]:
    """What the engine in this process answers, greedy and sampled."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    backend = VLLMBackend(build(settings(tiny_qwen2)), Chat(str(tiny_qwen2)), vectors=False)
    completions = {temperature: answers(backend, calls(temperature)) for temperature in (0.0, 0.8)}
    backend.close()
    return completions


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("concurrency", [1, 8])
def test_texts_are_those_of_the_engine_in_process(
    server: Server, in_process: Any, temperature: float, concurrency: int
) -> None:
    backend = connect(server.url, concurrency=concurrency)
    seen = answers(backend, calls(temperature))
    backend.close()
    expected = in_process[temperature]
    for what in ("text", "prompt_tokens", "completion_tokens", "finish_reason"):
        assert {key: getattr(answer, what) for key, answer in seen.items()} == {
            key: getattr(answer, what) for key, answer in expected.items()
        }
    assert len({answer.text for answer in seen.values()}) > 6


def test_a_model_the_server_does_not_have(server: Server) -> None:
    backend = connect(server.url, served_model="giant")
    backend.submit(calls(0.0)[0])
    with pytest.raises(BackendError, match=r"does not know model 'giant'.*Set openai\.served_model"):
        next(backend.completed())


def test_a_prompt_the_server_refuses(server: Server) -> None:
    backend = connect(server.url)
    backend.submit(Call(("a", "review", 0), Prompt("review", "", "long " * BUDGET), 0, 0.0, 1.0, TOKENS))
    with pytest.raises(BackendError, match=r"refused the request: BadRequestError.*context length"):
        next(backend.completed())


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


def good(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    message = {"role": "assistant", "content": f"to {body['messages'][1]['content']}"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
    send(
        handler,
        200,
        {"id": "1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice]} | {"usage": usage},
    )


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
    assert (completion.prompt_tokens, completion.completion_tokens, completion.finish_reason) == (4, 2, "stop")
    assert completion.seconds > 0


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
        (failing(403, f"not you, {KEY}"), 1, r"failed .*not you, \(the key\)"),
        (failing(400, "unknown field top_k"), 1, r"unknown field top_k.* --set 'openai\.extra_body=\{\}'"),
        (failing(422, "extra inputs"), 1, r"does not know top_k, repetition_penalty: --set"),
        (failing(404, "no such model"), 1, r"does not know model 'tiny'.*openai\.served_model"),
        (failing(429, "slow down", Retry_After="0.05"), 2, r"failed \(2 tries\): RateLimitError.*slow down.*Run again"),
        (failing(500, "oops"), 2, r"failed \(2 tries\): InternalServerError.*oops.*Run again"),
        (lambda handler, body: send(handler, 200, {"hello": "world"}), 1, r"failed"),
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
            send(handler, 400, {"error": {"message": "no"}})
        else:
            time.sleep(0.3)
            good(handler, body)

    with stand_in(reply) as server:
        backend = connect(server.url, concurrency=3)
        for call in calls(0.0, 9):
            backend.submit(call)
        completed = backend.completed()
        arrived = [next(completed)[0].key[0] for _ in range(2)]
        with pytest.raises(BackendError, match="refused the request"):
            next(completed)
        backend.close()
    assert sorted(arrived) == ["Books/test/u1", "Books/test/u2"]


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
from bench.config import build
from bench.records import Call, Prompt
server = {"base_url": sys.argv[1], "concurrency": 2}
config = build({"method": "nonperso", "model": "org/tiny", "backend": "openai", "openai": server})
backend = OpenAIBackend(config, None, False)
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


def test_a_run_survives_the_death_of_its_server(server: Server, tiny_qwen2: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    run = settings(tiny_qwen2, concurrency=4, retries=1)
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


def wait_for_rows(results: Path, count: int, process: subprocess.Popen[str]) -> Path:
    """The run's generations.jsonl, once it has so many rows."""
    for _ in range(6000):
        assert process.poll() is None, process.communicate()[1]
        for path in results.glob("runs/*/generations.jsonl"):
            if path.read_bytes().count(b"\n") >= count:
                return path
        time.sleep(0.01)
    raise AssertionError("the run made no progress")
