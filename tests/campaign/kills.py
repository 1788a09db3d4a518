"""`kill -9` at random moments: no answer is lost, doubled or another one, and none that was kept is asked for again.

    python tests/campaign/kills.py --kills 200 --trained 20

Runs of DPL against a server of this script's own, and of DEP with its training on the engine in process, are killed and
started again until so many kills are done. Each time the rows that are there are compared with those of a run that was
never killed, and once a run is complete, its scores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

SETTINGS = ["--set", "resamples=50", "--set", "metrics=[rouge,bleu]"]
SERVED = ["--method", "dpl", "--limit", "10", "--backend", "openai", "--set", "openai.concurrency=4", *SETTINGS]
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


class Campaign:
    """Kills one kind of run; `problems` are what must not be."""

    def __init__(self, name: str, command: list[str], folder: Path, server: Server | None, seed: int) -> None:
        self.name = name
        self.folder = folder / name
        self.command = [sys.executable, "-m", "bench.cli", "run", *command, "--set", f"results={self.folder}"]
        self.server = server
        self.random = random.Random(seed)
        self.problems: list[str] = []
        self.kills = self.completed = 0
        started = time.perf_counter()
        self.finish()
        self.seconds = time.perf_counter() - started
        self.whole = self.rows()
        self.scores = self.summary()["scores"]

    def start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.command, env=environment, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload,no-any-return]

    def finish(self) -> None:
        process = self.start()
        _, errors = process.communicate()
        assert process.returncode == 0, errors

    def rows(self) -> dict[tuple[str, str, int], tuple[str, str]]:
        """The whole rows that are there, by key: prompt and text."""
        found: dict[tuple[str, str, int], tuple[str, str]] = {}
        for path in self.folder.glob("runs/*/generations.jsonl"):
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
            process = self.start()
            try:
                _, errors = process.communicate(timeout=self.random.uniform(0.05, 1.05) * self.seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                self.kills += 1
                done = False
            else:
                done = True
                if process.returncode:
                    self.problems.append(f"{self.name}: exit {process.returncode}: {errors[-2000:]}")
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of runs against a server (default: %(default)s)")
    parser.add_argument("--trained", type=int, default=20, help="of runs with a training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    server = Server()
    with tempfile.TemporaryDirectory() as folder:
        served = Campaign("served", [*SERVED, "--base-url", server.url], Path(folder), server, arguments.seed)
        served.run(arguments.kills)
        campaigns = [served]
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
