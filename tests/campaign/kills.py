"""`kill -9` at random moments: no answer is lost, doubled or another one, and none that was kept is asked for again.

    python tests/campaign/kills.py --kills 200 --trained 20 --sharded 40

Runs of PAG against a server of this script's own, and of DEP with its training on the engine in process, are killed and
started again until so many kills are done; so are the shards of a run of PAG, two at a time. Each time the rows that
are there are compared with those of a run that was never killed, and once a run is complete, its scores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

# Once here, not in each process.
import openai  # noqa: F401
import pandas  # noqa: F401
import rouge_score.rouge_scorer  # noqa: F401
import sacrebleu  # noqa: F401
import sklearn.cluster  # noqa: F401

import bench.cli
import bench.execute
import bench.loop

SETTINGS = ["--set", "resamples=50", "--set", "metrics=[rouge,bleu]"]
SERVED = ["--method", "pag", "--limit", "16", "--backend", "openai", "--set", "openai.concurrency=4", *SETTINGS]
TRAINED = ["--method", "dep", "--limit", "4", *SETTINGS]
TRAINED += ["--set", "train.limit=12", "--set", "train.validation=6", "--set", "train.checkpoint_every=1"]


class Server:
    """Answers from the prompt and the seed alone, 20 ms later; keeps what it was asked, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._lock = Lock()
        server = self

        class Answers(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                asked = json.loads(body)
                key = hashlib.sha256(json.dumps([asked["messages"], asked["seed"]]).encode()).hexdigest()
                with server._lock:
                    server.asked.append(key)
                time.sleep(0.02)
                usage = {"prompt_tokens": 100_000, "completion_tokens": 2}
                choice = {
                    "index": 0,
                    "message": {"content": f"word {key[:8]} and {key[8:12]}"},
                    "finish_reason": "stop",
                }
                content = json.dumps({"choices": [choice], "usage": usage}).encode()
                try:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        http.daemon_threads = True
        http.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()


class Process:
    """A command in a process of its own, forked from this one, which has imported what takes seconds."""

    def __init__(self, arguments: list[str], errors: Path) -> None:
        self._errors = errors
        self._pid = os.fork()
        if self._pid == 0:
            os.setsid()
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = 1
            try:
                code = bench.cli.main(arguments)
            finally:
                os._exit(code)

    def wait(self, seconds: float) -> int | None:
        """The exit code; None if it still runs after so many seconds."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            done, status = os.waitpid(self._pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        return None

    def kill(self) -> None:
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def errors(self) -> str:
        return self._errors.read_text(errors="replace")[-2000:]


class Campaign:
    """Kills one kind of run; `problems` are what must not be. `files` are where its rows are."""

    files = "runs/*/generations.jsonl"

    def __init__(self, name: str, command: list[str], folder: Path, server: Server | None, seed: int) -> None:
        self.name = name
        self.folder = folder / name
        self.command = ["run", *command, "--set", f"results={self.folder}"]
        self.log = folder / f"{name}.log"
        self.server = server
        self.random = random.Random(seed)
        self.problems: list[str] = []
        self.kills = self.completed = 0
        self.seconds = float("inf")
        started = time.perf_counter()
        process = Process(self.command, self.log)
        assert process.wait(600) == 0, process.errors()
        self.seconds = time.perf_counter() - started
        self.whole = self.rows()
        self.scores = self.summary()["scores"]

    def rows(self) -> dict[tuple[str, str, int], tuple[str, str]]:
        """The whole rows that are there, by key: prompt and text."""
        found: dict[tuple[str, str, int], tuple[str, str]] = {}
        for path in self.folder.glob(self.files):
            for line in path.read_bytes().split(b"\n")[:-1]:
                row = json.loads(line)
                key = (row["instance"], row["stage"], row["index"])
                if key in found:
                    self.problems.append(f"{self.name}: {key} is there twice")
                found[key] = (row["prompt"], row["text"])
        return found

    def summary(self) -> dict[str, Any]:
        (path,) = self.folder.glob("runs/*/summary.json")
        content: dict[str, Any] = json.loads(path.read_text())
        return content

    def run(self, kills: int) -> None:
        shutil.rmtree(self.folder)
        before: dict[tuple[str, str, int], tuple[str, str]] = {}
        while self.kills < kills:
            mark = len(self.server.asked) if self.server else 0
            process = Process(self.command, self.log)
            code = process.wait(self.random.uniform(0, 1) * self.seconds)
            done = code is not None
            if not done:
                process.kill()
                self.kills += 1
            elif code:
                self.problems.append(f"{self.name}: exit {code}: {process.errors()}")
                return
            after = self.rows()
            self.compare(before, after, mark)
            before = after
            if done:
                self.completed += 1
                if after != self.whole or self.summary()["scores"] != self.scores:
                    self.problems.append(f"{self.name}: a run that was killed ends with other rows or scores")
                shutil.rmtree(self.folder)
                before = {}
            print(f"{self.name}: {self.kills} kills, {self.completed} runs complete", file=sys.stderr)

    def compare(self, before: dict[Any, Any], after: dict[Any, Any], mark: int) -> None:
        if lost := [key for key in before if key not in after]:
            self.problems.append(f"{self.name}: {len(lost)} rows lost, such as {lost[0]}")
        if other := [key for key, row in after.items() if self.whole.get(key) != row]:
            self.problems.append(f"{self.name}: {len(other)} rows are other ones, such as {other[0]}")
        if self.server is not None:
            # An answer is told by the words of its prompt's key.
            kept = {row[1].split()[1] for row in before.values()}
            again = [key for key in self.server.asked[mark:] if key[:8] in kept]
            if again:
                self.problems.append(f"{self.name}: {len(again)} answers that were kept were asked for again")


class Shards(Campaign):
    """Kills shards of one run, two of three at a time."""

    def run(self, kills: int) -> None:
        """Until so many are killed and the run is complete."""
        shutil.rmtree(self.folder)
        before: dict[tuple[str, str, int], tuple[str, str]] = {}
        merged, self.files = self.files, "runs/*/shards/*/generations.jsonl"
        while self.kills < kills or before or not self.completed:
            assert self.server is not None
            mark = len(self.server.asked)
            chosen = self.random.sample((1, 2, 3), 2)
            working = [
                Process([*self.command, "--shard", f"{number}/3"], self.log.with_suffix(f".{number}"))
                for number in chosen
            ]
            patience = self.random.uniform(0.2, 1.5) if self.kills < kills else 30
            end = time.perf_counter() + patience * self.seconds
            for process in working:
                code = process.wait(max(end - time.perf_counter(), 0.01))
                if code is None:
                    process.kill()
                    self.kills += 1
                elif code and "another process is writing to" not in process.errors():
                    self.problems.append(f"{self.name}: exit {code}: {process.errors()}")
                    return
            after = self.rows()
            self.compare(before, after, mark)
            before = after
            if list(self.folder.glob("runs/*/summary.json")):
                self.completed += 1
                self.files, shards = merged, self.files
                if self.rows() != self.whole or self.summary()["scores"] != self.scores:
                    self.problems.append(f"{self.name}: a run whose shards were killed ends with other rows or scores")
                self.files = shards
                shutil.rmtree(self.folder)
                before = {}
            print(f"{self.name}: {self.kills} kills, {self.completed} runs complete", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of runs against a server (default: %(default)s)")
    parser.add_argument("--trained", type=int, default=20, help="of runs with a training (default: %(default)s)")
    parser.add_argument("--sharded", type=int, default=40, help="of shards of a run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        servers = [Server(), Server()] if arguments.kills else []
        campaigns: list[Campaign] = [
            Campaign(f"served {part}", [*SERVED, "--base-url", server.url], Path(folder), server, arguments.seed + part)
            for part, server in enumerate(servers)
        ]
        threads = [Thread(target=one.run, args=(arguments.kills // 2,)) for one in campaigns]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if arguments.sharded:
            server = Server()
            sharded = Shards("sharded", [*SERVED, "--base-url", server.url], Path(folder), server, arguments.seed)
            sharded.run(arguments.sharded)
            campaigns.append(sharded)
        if arguments.trained:
            trained = Campaign("trained", TRAINED, Path(folder), None, arguments.seed)
            trained.run(arguments.trained)
            campaigns.append(trained)
    problems = [problem for campaign in campaigns for problem in campaign.problems]
    for campaign in campaigns:
        print(f"{campaign.name}: {campaign.kills} kills, {campaign.completed} runs complete in spite of them")
    print("\n".join(problems) or "no row lost, doubled or different, no kept answer asked for again, the same scores")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
