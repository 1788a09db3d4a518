"""A second process that does a part of the work: without a GPU an engine and a training keep one core busy each.

`Worker` is its end here; the process is `python -m bench.worker`, which reads a JSON list of configurations from the
first line of its standard input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import IO

from bench import machine
from bench.config import RunConfig
from bench.errors import BenchError
from bench.terminal import visible


class Worker:
    """Executes the jobs of some configurations while the block runs.

    A context manager; the process ends with the block, also if this process is killed. What it says comes out
    through `say`.
    """

    def __init__(self, configs: Sequence[RunConfig], say: Callable[[str], None]) -> None:
        self._configs = configs
        self._say = say
        self._last = ""

    def __enter__(self) -> Worker:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        # Standard input stays open: its end tells the process that nobody waits for it any more.
        self.process.stdin.write(json.dumps([config.model_dump(mode="json") for config in self._configs]) + "\n")
        self.process.stdin.flush()
        self._relay = threading.Thread(target=self._pass_on, args=(self.process.stderr,), daemon=True)
        self._relay.start()
        return self

    def _pass_on(self, lines: IO[str]) -> None:
        for line in lines:
            self._last = line.rstrip("\n")
            if not self._last.startswith("bench: "):
                self._say(self._last)

    def wait(self) -> None:
        """Wait until the jobs are done. Raises `BenchError` with the worker's own error."""
        code = self.process.wait()
        self._relay.join()
        if code:
            raise BenchError(self._last.removeprefix("bench: ") or f"a worker ended with exit code {code}")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()


def configs_from_parent(lines: IO[str]) -> list[RunConfig]:
    """In the worker: what it is to do. From now on it ends as soon as nobody waits for it."""
    configs = [RunConfig.model_validate(settings) for settings in json.loads(lines.readline())]
    end_with(lines)
    return configs


def end_with(lines: IO[str]) -> None:
    """From now on this process ends as soon as the other end of `lines` is closed, also if that process is killed."""

    def watch() -> None:
        lines.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """The worker: do what the other process asks for; the exit code, as the command line's."""
    from bench.execute import execute
    from bench.job import Job
    from bench.resolved import Inputs

    configs = configs_from_parent(sys.stdin)
    machine.share_cores(2)
    try:
        inputs = Inputs()
        execute([Job.of(config, inputs) for config in configs], processes=1)
    except BenchError as error:
        print(f"bench: {visible(str(error))}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # A thread still reads standard input.
    os._exit(code)
