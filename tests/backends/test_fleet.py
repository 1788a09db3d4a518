"""Several servers of one model: stand-ins on loopback that tell of themselves what they are told to, fail and come
back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any

import pytest

import bench
from bench.backends.openai import OpenAIBackend
from bench.chat import Chat
from bench.config import RUNTIME, backend_settings_of, build
from bench.errors import BackendError, ConfigError
from bench.records import Call, Completion, Prompt
from bench.servers.settings import OpenAISettings

DEMO = "python:bench/demo/model"
CHAT = Chat(DEMO)


class Member:
    """A server of a fleet. `status` is that of its answers, to calls `status_of_calls`; 0 breaks the connection off.
    `refuses` are instances; `about` is what it tells of itself."""

    def __init__(self, name: str, seconds: float = 0.0, **about: Any) -> None:
        self.name = name
        self.seconds = seconds
        self.status = self.status_of_calls = 200
        self.left = 10**6
        """How many calls it answers before it has the status `then`."""
        self.then = 0
        self.anew: dict[str, Any] | None = None
        """What it tells of itself once it has broken off: it was started again."""
        self.refuses: Sequence[str] = ()
        self.gate = Event()
        """Calls wait for it."""
        self.gate.set()
        self.about = {"model": "tiny", "length": 2048, "fingerprint": "v1-ab", "ids": [1, 2, 3], "count": 9} | about
        self.answered: list[str] = []
        self.probed = self.open = self.most_open = 0
        self._lock = Lock()
        member = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.path == "/v1/models"
                card = {"id": member.about["model"], "max_model_len": member.about["length"]}
                member.send(self, 200, {"data": [card]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/tokenize":
                    ids = member.about["ids"]
                    member.send(self, 404 if ids is None else 200, {"tokens": ids})
                elif body["messages"][0]["content"].startswith("Answer in a word"):
                    member.probed += 1
                    member.send(self, 200, member.answer("so"))
                else:
                    member.reply(self, body["messages"][1]["content"])

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, text: str) -> dict[str, Any]:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": self.about["count"], "completion_tokens": 1}
        return {"choices": [choice], "usage": usage, "system_fingerprint": self.about["fingerprint"]}

    def reply(self, handler: BaseHTTPRequestHandler, text: str) -> None:
        with self._lock:
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            self.left -= 1
            if self.left < 0:
                self.status = self.then
        try:
            self.gate.wait(30)
            time.sleep(self.seconds)
            status = 400 if text in self.refuses else self.status_of_calls if self.status == 200 else self.status
            if status == 200:
                self.answered.append(text)
            self.send(handler, status, self.answer(f"to {text}"))
        finally:
            with self._lock:
                self.open -= 1

    def send(self, handler: BaseHTTPRequestHandler, status: int, body: dict[str, Any]) -> None:
        if self.status == 0:
            handler.close_connection = True
            if self.anew is not None:
                self.about |= self.anew
                self.status, self.left, self.anew = 200, 10**6, None
            return
        content = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries and looks follow one another at once."""
    monkeypatch.setattr("bench.servers.server.LONGEST_PAUSE", 0.01)
    monkeypatch.setattr("bench.servers.fleet.FIRST_REST", 0.05)


@contextmanager
def fleet(*members: Member) -> Iterator[tuple[Member, ...]]:
    try:
        yield members
    finally:
        for member in members:
            member.close()


def connect(*members: Member, **openai: Any) -> OpenAIBackend:
    section = {"base_url": [member.url for member in members], "served_model": "tiny", "retries": 1} | openai
    config = build({"method": "nonperso", "model": "org/tiny", "tokenizer": DEMO, "backend": "openai"})
    return OpenAIBackend(config.model_copy(update={"options": {"openai": section}}), CHAT, vectors=False)


def calls(count: int) -> list[Call]:
    return [Call((f"u{n}", "r", 0), Prompt("r", "Write.", f"u{n}"), n, 0.0, 1.0, 8) for n in range(count)]


def answers(backend: OpenAIBackend, count: int) -> list[tuple[str, str]]:
    """The answers to so many calls, with the instances; each call once."""
    for call in calls(count):
        backend.submit(call)
    return collected(backend, count)


def collected(backend: OpenAIBackend, count: int) -> list[tuple[str, str]]:
    seen: list[tuple[Call, Completion]] = []
    while len(seen) < count:
        seen += backend.completed()
    return [(call.key[0], completion.text) for call, completion in seen]


def failure(backend: OpenAIBackend, seen: list[str] | None = None) -> str:
    """The error that ends a run; `seen` gets the instances that were answered before."""
    with pytest.raises(BackendError) as caught:
        _until_it_fails(backend, [] if seen is None else seen)
    return str(caught.value)


def _until_it_fails(backend: OpenAIBackend, seen: list[str]) -> None:
    while True:
        seen += [call.key[0] for call, _ in backend.completed()]


def all_of(count: int) -> list[tuple[str, str]]:
    return sorted((f"u{n}", f"to u{n}") for n in range(count))


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_each_server_has_as_many_calls_as_configured_and_no_more() -> None:
    with fleet(Member("a", 0.1), Member("b", 0.1)) as members:
        backend = connect(*members, concurrency=3)
        assert sorted(answers(backend, 18)) == all_of(18)
        backend.close()
    assert [member.most_open for member in members] == [3, 3]
    assert min(len(member.answered) for member in members) >= 3
    assert [member.probed for member in members] == [1, 1]


def test_a_call_goes_to_the_server_with_the_least_in_flight() -> None:
    with fleet(Member("slow"), Member("fast")) as (slow, fast):
        slow.gate.clear()
        backend = connect(slow, fast, concurrency=8)
        for call in calls(2):
            backend.submit(call)
        seen = collected(backend, 1)
        # The slow one has its first call still, the fast one none.
        for call in calls(4)[2:]:
            backend.submit(call)
            seen += collected(backend, 1)
        assert seen == [one for one in all_of(4) if one[0] != "u0"]
        slow.gate.set()
        assert collected(backend, 1) == [("u0", "to u0")]
        backend.close()
    assert (slow.answered, fast.answered) == (["u0"], ["u1", "u2", "u3"])


@pytest.mark.parametrize("then", [0, 500])
def test_a_server_that_fails_loses_its_calls_to_the_others_and_comes_back(
    then: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with fleet(Member("a", 0.05), Member("b", 0.05)) as (a, b):
        a.left, a.then = 4, then
        backend = connect(a, b, concurrency=2)
        assert sorted(answers(backend, 16)) == all_of(16)
        assert len(a.answered) <= 4
        # It may have been looked at meanwhile, and failed again.
        said = told(capsys)
        assert f"the server at {a.url} " in said
        assert " (2 tries); the others get its " in said
        a.status, a.left = 200, 10**6
        until = time.monotonic() + 20
        while f"the server at {a.url} is back" not in said and time.monotonic() < until:
            time.sleep(0.02)
            said += told(capsys)
        a.answered.clear()
        assert sorted(answers(backend, 8)) == all_of(8)
        assert len(a.answered) >= 2, "it has its share again"
        backend.close()


def test_calls_of_a_server_that_hangs_are_answered_by_the_others() -> None:
    with fleet(Member("a"), Member("b")) as (a, b):
        a.gate.clear()
        backend = connect(a, b, concurrency=2, timeout=1.0, retries=0)
        assert sorted(answers(backend, 8)) == all_of(8)
        backend.close()
        assert len(b.answered) == 8
        a.gate.set()


def test_when_no_server_is_left_one_line_names_all() -> None:
    with fleet(Member("a"), Member("b")) as (a, b):
        a.left, b.left = 2, 3
        b.then = 503
        backend = connect(a, b, concurrency=1)
        for call in calls(20):
            backend.submit(call)
        seen: list[str] = []
        message = failure(backend, seen)
        backend.close()
    assert message.startswith("none of 2 servers is left: the server at http://127.0.0.1:")
    assert all(member.url in message for member in (a, b))
    assert message.count(" (2 tries)") == 2
    assert message.endswith("Run again to go on where this run stopped.")
    assert "\n" not in message
    assert len(seen) == len(set(seen)) == len(a.answered) + len(b.answered) == 5


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"length": 4096}, r"differ in max model len \(the server at {0}: 2048; the server at {1}: 4096\)"),
        ({"fingerprint": "v2"}, r"differ in system fingerprint \(the server at {0}: v1-ab; the server at {1}: v2\)"),
        ({"ids": [1, 2, 4]}, r"differ in tokens of a templated prompt \(.*3 tokens, 1, 2, 3; .*3 tokens, 1, 2, 4\)"),
        ({"ids": None, "count": 5}, r"differ in tokens of a templated prompt \(the server at {0}: 3; .* {1}: 5\)"),
        ({"model": "huge"}, r"the server at {1} does not serve model 'tiny', but 'huge'\. Set openai\.served_model"),
    ],
)
def test_unlike_servers_are_refused_by_name_before_anything_is_asked(other: dict[str, Any], message: str) -> None:
    with fleet(Member("a"), Member("b", **other)) as (a, b):
        with pytest.raises(BackendError, match=message.format(a.url, b.url)):
            connect(a, b)
        assert a.answered == b.answered == []


def test_what_a_server_does_not_tell_is_no_difference() -> None:
    about = {"length": None, "fingerprint": None, "ids": None, "count": None}
    with fleet(Member("a"), Member("b", **about)) as members:
        backend = connect(*members)
        assert sorted(answers(backend, 4)) == all_of(4)
        backend.close()


def test_a_server_alone_is_not_asked_about_itself() -> None:
    with fleet(Member("a", model="huge")) as (a,):
        backend = connect(a)
        assert sorted(answers(backend, 2)) == all_of(2)
        backend.close()
    assert a.probed == 0


def test_a_server_that_is_down_at_the_start_joins_later(capsys: pytest.CaptureFixture[str]) -> None:
    with fleet(Member("a", 0.05), Member("b", 0.05)) as (a, b):
        a.status = 0
        backend = connect(a, b, retries=0)
        assert "it is left alone, and tried again in" in told(capsys)
        assert sorted(answers(backend, 4)) == all_of(4)
        assert a.answered == []
        a.status = 200
        while "is back" not in told(capsys):
            time.sleep(0.02)
        assert sorted(answers(backend, 4)) == all_of(4)
        assert a.answered
        backend.close()


def test_servers_that_are_all_down_at_the_start_are_named() -> None:
    with fleet(Member("a"), Member("b")) as (a, b):
        a.status = b.status = 0
        with pytest.raises(BackendError, match=f"none of 2 servers is left: .*{a.url}.*{b.url}.*Run again to go on"):
            connect(a, b, retries=0)


def test_a_server_that_comes_back_as_another_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    with fleet(Member("a"), Member("b")) as (a, b):
        a.left = 0
        backend = connect(a, b, retries=0)
        assert sorted(answers(backend, 4)) == all_of(4)
        a.about["fingerprint"] = "v2"
        a.status, a.left = 200, 10**6
        said = ""
        while "is back, but not what it was: they differ in system fingerprint (before: v1-ab; now: v2)" not in said:
            time.sleep(0.02)
            said += told(capsys)
        assert sorted(answers(backend, 4)) == all_of(4)
        backend.close()
    assert a.answered == []


@pytest.mark.parametrize(
    ("anew", "why"),
    [
        ({"fingerprint": "v2"}, "they differ in system fingerprint (before: v1-ab; now: v2)"),
        ({"model": "huge"}, "it does not serve model 'tiny', but 'huge'"),
    ],
)
def test_a_server_that_is_started_anew_as_another_between_two_tries_gets_no_call(
    anew: dict[str, Any], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with fleet(Member("a", 0.05), Member("b", 0.05)) as (a, b):
        a.left, a.anew = 3, anew
        backend = connect(a, b, concurrency=2, retries=5)
        assert sorted(answers(backend, 16)) == all_of(16)
        backend.close()
    assert len(a.answered) <= 3
    assert f"the server at {a.url} was started anew, and is not what it was: {why}; the others get its " in told(capsys)


def test_a_server_that_is_started_anew_between_two_tries_keeps_its_calls(capsys: pytest.CaptureFixture[str]) -> None:
    with fleet(Member("a", 0.05), Member("b", 0.05)) as (a, b):
        a.left, a.anew = 3, {}
        backend = connect(a, b, concurrency=2, retries=5)
        assert sorted(answers(backend, 16)) == all_of(16)
        backend.close()
    assert len(a.answered) > 3
    assert a.probed > 1
    assert told(capsys) == ""


def test_a_prompt_that_one_server_refuses_is_asked_of_another() -> None:
    with fleet(Member("a"), Member("b")) as (a, b):
        # The first call goes to the first server.
        a.refuses = ["u0", "u2"]
        b.refuses = ["u2"]
        backend = connect(a, b, concurrency=1)
        for call in calls(6):
            backend.submit(call)
        seen: list[str] = []
        assert failure(backend, seen).startswith("1 of 6 calls have no answer, u2 (r); the others are kept.")
        backend.close()
    assert sorted(seen) == ["u0", "u1", "u3", "u4", "u5"]


def test_a_server_that_refuses_everything_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with fleet(Member("a"), Member("b")) as (a, b):
        a.refuses = [f"u{n}" for n in range(60)]
        backend = connect(a, b, concurrency=1)
        assert sorted(answers(backend, 60)) == all_of(60)
        backend.close()
    assert f"the server at {a.url} refused the request" in told(capsys)


def test_a_call_that_makes_one_server_after_the_other_fail_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is back before the other has failed, as one is that is started again and again."""
    monkeypatch.setattr("bench.servers.fleet.FALLS", 1)
    with fleet(Member("a", 0.6), Member("b", 0.6)) as members:
        for member in members:
            member.status_of_calls = 500
        backend = connect(*members, retries=0)
        backend.submit(calls(1)[0])
        assert failure(backend).startswith("3 servers failed one after the other with u0 (r), the last time the server")
        backend.close()


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("http://h/v1", ("http://h/v1",)),
        (["http://h/v1"], ("http://h/v1",)),
        (["http://h/v1", "http://i/v1"], ("http://h/v1", "http://i/v1")),
    ],
)
def test_addresses(value: Any, addresses: tuple[str, ...]) -> None:
    assert OpenAISettings(base_url=value).addresses == addresses


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must be the address of a server"),
        (["http://h/v1", "here"], "must be the address of a server"),
        ([7], "must be the address of a server"),
        ({"a": "http://h/v1"}, "must be the address of a server"),
        (["http://me:secret-secret@h/v1", "http://me:secret-secret@h/v1/"], "names http://h/v1 twice"),
    ],
)
def test_addresses_that_are_none(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build({"method": "nonperso", "backend": "openai", "openai": {"base_url": value}})
    assert "secret" not in str(caught.value)


def test_several_addresses_are_recorded_without_what_may_be_secret() -> None:
    urls = ["http://me:pass@h/v1", "https://i/v1?key=k"]
    config = build({"method": "rag", "backend": "openai", "openai": {"base_url": urls}})
    assert backend_settings_of(config, [RUNTIME])["openai.base_url"] == ["http://h/v1", "https://i/v1"]


def test_a_run_on_two_servers_is_the_run_on_one(shop_config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.cli import main

    with fleet(Member("a"), Member("b")) as (a, b):
        arguments = ["run", "--method", "rag", "--config", str(shop_config), "--backend", "openai"]
        arguments += ["--set", "openai.served_model=tiny", "--set", "metrics=[rouge]"]
        assert main([*arguments, "--base-url", a.url, "--base-url", b.url]) == 0
        assert len(a.answered) + len(b.answered) == 3
        (folder,) = (shop_config.parent / "results" / "runs").iterdir()
        record = json.loads((folder / "run.json").read_text())
        assert record["config"]["options"]["openai"]["base_url"] == [a.url, b.url]
        openai = {"base_url": b.url, "served_model": "tiny"}
        summary = bench.run("rag", str(shop_config), backend="openai", metrics=["rouge"], openai=openai)
        assert summary.name == folder.name
        assert len(a.answered) + len(b.answered) == 3, "nothing is asked again"
