"""Training in a process of its own, beside the engine: on a CPU both keep one core busy, so that neither waits.

python -m bench.softprompt.beside     reads a JSON list of configurations from the first line of standard input
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

from bench.config import RunConfig
from bench.errors import BenchError


class TrainingBeside:
    """Trains the adapters of some configurations, one after the other, while the block runs.

    A context manager; the process ends with the block, also if this process is killed. What it says comes out
    through `say`.
    """

    def __init__(self, configs: Sequence[RunConfig], say: Callable[[str], None]) -> None:
        self._configs = configs
        self._say = say
        self._last = ""

    def __enter__(self) -> TrainingBeside:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.softprompt.beside"],
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
        """Wait until every adapter is trained. Raises `BenchError` with the process's own error."""
        code = self.process.wait()
        self._relay.join()
        if code:
            raise BenchError(self._last.removeprefix("bench: ") or f"training ended with exit code {code}")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()


def main() -> int:
    """Train what standard input names; the exit code, as the command line's."""
    from bench.execute import train_adapter
    from bench.runner import Run

    configs = [RunConfig.model_validate(settings) for settings in json.loads(sys.stdin.readline())]

    def watch() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        for config in configs:
            train_adapter(Run(config))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # The watching thread still reads.
    os._exit(code)
