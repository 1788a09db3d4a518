"""A server that misbehaves: runs of PAG, whose second prompt quotes the first answer, against one fault after another.

    python tests/campaign/server_faults.py

Each fault is met at four moments: by the first call, by one in the middle, by every third, by all. Then the server is
healthy and the same run goes on. What must hold: no traceback, an error of one line, no answer asked for twice, and in
the end the scores of a run that met no fault, unless the fault was an answer that may be kept.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from bench.config import build, read_config
from bench.errors import BenchError
from bench.execute import execute
from bench.job import Job
from bench.resolved import Inputs
from bench.results import Summary
from bench.servers import server as one_server

Handler = BaseHTTPRequestHandler
Fault = Callable[[Handler, dict[str, Any]], None]
LIMIT = 3
CALLS = 3 * LIMIT * 2
PATIENT = {"retries": 1, "timeout": 1.0, "concurrency": 4}
one_server.LONGEST_PAUSE = 0.05


def reply(handler: Handler, status: int, content: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)


def said(body: dict[str, Any]) -> str:
    """A healthy answer, which hangs on the whole prompt."""
    words = " ".join(turn["content"] for turn in body["messages"]).split()
    return " ".join(words[(len(words) * 7) % 11 :: 5][:40]) or "nothing"


def answer(body: dict[str, Any], content: Any = ..., finish: Any = "stop", usage: Any = ..., **message: Any) -> bytes:
    content = said(body) if content is ... else content
    usage = {"prompt_tokens": 10_000, "completion_tokens": 9} if usage is ... else usage
    choice = {"index": 0, "message": {"role": "assistant", "content": content} | message, "finish_reason": finish}
    return json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def healthy(handler: Handler, body: dict[str, Any]) -> None:
    reply(handler, 200, answer(body))


def status(code: int, text: str = "no", **headers: str) -> Fault:
    content = json.dumps({"error": {"message": text}}).encode()
    return lambda handler, body: reply(handler, code, content, **headers)


def raw(content: bytes, **headers: str) -> Fault:
    return lambda handler, body: reply(handler, 200, content, **headers)


def of(*content: Any, **more: Any) -> Fault:
    return lambda handler, body: reply(handler, 200, answer(body, *content, **more))


def broken_off(share: float) -> Fault:
    """The connection ends within the body."""

    def fault(handler: Handler, body: dict[str, Any]) -> None:
        content = answer(body)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: int(len(content) * share)])
        handler.close_connection = True

    return fault


def dripping(handler: Handler, body: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(60):
        time.sleep(0.05)
        handler.wfile.write(b" ")
        handler.wfile.flush()


def hanging(handler: Handler, body: dict[str, Any]) -> None:
    time.sleep(1.5)


def closing(handler: Handler, body: dict[str, Any]) -> None:
    handler.close_connection = True


TOOL = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
FAULTS: dict[str, Fault] = {
    **{f"HTTP {code}": status(code) for code in (302, 400, 401, 403, 404, 408, 409, 413, 418, 422, 500, 502, 503, 529)},
    "HTTP 429": status(429, Retry_After="0"),
    "HTTP 429, Retry-After in words": status(429, Retry_After="soon"),
    "HTTP 429, Retry-After of a day": status(429, Retry_After="86400"),
    "HTTP 500 with a page": lambda handler, body: reply(handler, 500, b"<html>\x1b[2Jsorry</html>"),
    "redirect to itself": lambda handler, body: reply(handler, 307, b"", Location="/v1/chat/completions"),
    "closed without an answer": closing,
    "closed within the headers": broken_off(0),
    "half a body, closed": broken_off(0.5),
    "half a body": lambda handler, body: reply(handler, 200, answer(body)[:-40]),
    "empty body": raw(b""),
    "a page": raw(b"<html>log in</html>", Content_Type="text/html"),
    "a list": raw(b"[]"),
    "a number": raw(b"7"),
    "null": raw(b"null"),
    "not UTF-8": raw(b'{"choices": "\xff\xfe'),
    "nested too deep": raw(b"[" * 200_000),
    "a number of 5,000 digits": raw(b'{"choices": ' + b"9" * 5000 + b"}"),
    "said to be gzip": raw(b"not gzip", Content_Encoding="gzip"),
    "no choices": raw(b"{}"),
    "choices null": raw(b'{"choices": null}'),
    "choices empty": raw(b'{"choices": []}'),
    "choices of nulls": raw(b'{"choices": [null]}'),
    "choice without a message": raw(b'{"choices": [{}]}'),
    "error 429 in a 200": raw(b'{"error": {"message": "slow down", "code": 429}}'),
    "error 400 in a 200": raw(b'{"error": {"message": "unfit", "code": 400}, "choices": null}'),
    "error in words in a 200": raw(b'{"error": "overloaded"}'),
    "error in a choice": raw(b'{"choices": [{"error": {"message": "fell over"}, "finish_reason": "error"}]}'),
    "content a number": of(7),
    "content an object": of({"text": "x"}),
    "content a boolean": of(True),
    "content of thoughts alone": of([{"type": "thinking", "thinking": "hm"}]),
    "content null": of(None),
    "a refusal": of(None, refusal="I must not."),
    "a tool call": of(None, "tool_calls", tool_calls=TOOL),
    "reasoning alone": of(None, "length", reasoning_content="hm"),
    "a content filter": of("half a", "content_filter"),
    "hangs": hanging,
    "drips": dripping,
}
ODD: dict[str, Fault] = {
    "parts": lambda handler, body: reply(handler, 200, answer(body, [{"type": "text", "text": said(body)}])),
    "a thought before": lambda handler, body: reply(handler, 200, answer(body, f"<think>hm</think>{said(body)}")),
    "half a thought before": lambda handler, body: reply(handler, 200, answer(body, f"hm</think>\n{said(body)}")),
    "no usage": of(usage=None),
    "usage of text": of(usage={"prompt_tokens": "9", "completion_tokens": []}),
    "usage null": of(usage={"prompt_tokens": None, "completion_tokens": None}),
    "no finish_reason": of(finish=None),
    "finish_reason a number": of(finish=7),
    "a byte-order mark": lambda handler, body: reply(handler, 200, b"\xef\xbb\xbf" + answer(body)),
    "UTF-16": lambda handler, body: reply(handler, 200, answer(body).decode().encode("utf-16")),
    "another content type": lambda handler, body: reply(handler, 200, answer(body), Content_Type="text/plain"),
}
"""Answers that are ones: the same scores, at once."""
KEPT: dict[str, Fault] = {
    "an empty text": of(""),
    "a thought without an end": of("<think>hm", "length"),
    "half a surrogate pair": of("a\ud800b"),
    "NUL and escapes": of("a\x00\x1b[2Jb"),
    "a megabyte": of("word " * 200_000),
    "marks of the chat template": of("a<|im_end|>\n<|im_start|>user\nb"),
}
"""Answers that are kept as they are: other texts, but never a failure, now or later."""
MOMENTS: dict[str, Callable[[int], bool]] = {
    "the first": lambda number: number == 1,
    "one in the middle": lambda number: number == CALLS // 2,
    "every third": lambda number: number % 3 == 0,
    "all": lambda number: True,
}


class Server:
    """Counts the calls it gets, and meets those that `struck` says with `fault`, if there is one."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.struck: Callable[[int], bool] = lambda number: True
        self.asked: list[str] = []
        self.answered: Counter[str] = Counter()
        self._lock = Lock()
        server = self

        class Answers(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = json.dumps(body["messages"])
                with server._lock:
                    if prompt not in server.asked:
                        server.asked.append(prompt)
                    number = server.asked.index(prompt) + 1
                try:
                    if server.fault is not None and server.struck(number):
                        server.fault(self, body)
                    else:
                        server.answered[prompt] += 1
                        healthy(self, body)
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        http.daemon_threads = True
        http.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()


def main() -> int:
    server, inputs = Server(), Inputs()
    counts: dict[str, Counter[str]] = {}
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        whole = scores(run(server, inputs, Path(folder) / "whole"))
        for group, faults in {"failures": FAULTS, "odd answers": ODD, "kept as they are": KEPT}.items():
            tried = counts.setdefault(group, Counter())
            for name, fault in faults.items():
                for moment, struck in MOMENTS.items():
                    where = f"{name}, {moment}"
                    server.fault, server.struck, server.asked = fault, struck, []
                    server.answered.clear()
                    results = Path(folder) / f"{group}-{tried['tried']}"
                    started = time.perf_counter()
                    outcomes = meet(server, inputs, results, where, whole, problems, group)
                    print(f"{time.perf_counter() - started:5.1f} s  {where}: {', '.join(outcomes)}", file=sys.stderr)
                    tried["tried"] += 1
                    tried.update(outcomes)
    for group, tried in counts.items():
        print(f"{group:18}", ", ".join(f"{count} {name}" for name, count in tried.items()))
    print("\n".join(problems) or "no tracebacks, no wrong scores, no run spoiled")
    return bool(problems)


def meet(
    server: Server, inputs: Inputs, results: Path, where: str, whole: Any, problems: list[str], group: str
) -> list[str]:
    """Run against the fault, then against a healthy server; what happened, in words."""
    outcomes = []
    try:
        first = scores(run(server, inputs, results))
        outcomes.append("finished at once")
        if group == "failures":
            problems.append(f"{where}: finished, though the server failed for good")
    except BenchError as error:
        outcomes.append("stopped with one line")
        if "\n" in str(error) or "\x1b" in str(error):
            problems.append(f"{where}: {error!r}")
        if group != "failures":
            problems.append(f"{where}: {error}")
    except Exception:  # noqa: BLE001 - it is what is looked for
        problems.append(f"{where}: {traceback.format_exc()}")
        return ["tracebacks"]
    server.fault = None
    try:
        last = scores(run(server, inputs, results))
    except Exception:  # noqa: BLE001
        problems.append(f"{where}, afterwards: {traceback.format_exc()}")
        return [*outcomes, "spoiled"]
    if group != "kept as they are" and last != whole:
        problems.append(f"{where}: other scores")
    if group == "kept as they are" and last != first:
        problems.append(f"{where}: other scores after a second run")
    if doubled := [prompt for prompt, count in server.answered.items() if count > 1]:
        problems.append(f"{where}: {len(doubled)} good answers asked for again")
    return [*outcomes, "whole afterwards"]


def run(server: Server, inputs: Inputs, results: Path) -> Summary:
    settings = {
        "method": "pag",
        "backend": "openai",
        "limit": LIMIT,
        "metrics": ["rouge"],
        "resamples": 10,
        "results": str(results),
        "openai": {"base_url": server.url, **PATIENT},
    }
    (summary,) = execute([Job.of(build(read_config("demo"), settings), inputs)], say=lambda text: None)
    return summary


def scores(summary: Summary) -> Any:
    return summary.model_dump()["scores"]


if __name__ == "__main__":
    sys.exit(main())
