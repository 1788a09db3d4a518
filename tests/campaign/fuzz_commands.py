"""Many fuzzed configurations and commands, and what became of them, as a table.

    python tests/campaign/fuzz_commands.py --examples 1000 [--seed 0]

A third are configurations and `--set` texts, a third files, a third commands, all drawn as in tests/test_fuzz.py and
run in this process; every 20th command runs once more as a process of its own. Whatever ends with anything but an exit
code of 0, 1 or 2 is printed, and makes the script's own exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tabulate import tabulate

from bench.config import build, parse_setting, read_config
from bench.errors import BenchError
from bench.experiments.spec import read_experiment

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("fuzz", ROOT / "tests" / "test_fuzz.py")
assert _spec is not None
assert _spec.loader is not None
fuzz: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz)

SECONDS = 120
"""After which a command counts as one that hangs."""
HEADS = ["tried", "exit 0", "exit 1", "exit 2", "tracebacks", "hangs"]


class Hang(BaseException):
    """No `Exception`: nobody else may catch it."""


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


class Kind:
    """What became of the examples of one kind."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()

    def take(self, example: object, run: Callable[[], int]) -> None:
        """Run an example and count what became of it; what should not happen is printed."""
        self.counts["tried"] += 1
        try:
            with alarm():
                code = run()
        except (Hang, subprocess.TimeoutExpired):
            self._bad("hangs", example, "")
        except BaseException:  # noqa: BLE001 - whatever it is, it is what is looked for
            self._bad("tracebacks", example, traceback.format_exc()[-1500:])
        else:
            if code in (0, 1, 2):
                self.counts[f"exit {code}"] += 1
            else:
                self._bad("tracebacks", example, f"exit code {code}")

    def _bad(self, what: str, example: object, how: str) -> None:
        self.counts[what] += 1
        print(f"{what}: {self.name}: {example!r:.1000}\n{how}", flush=True)


def draw(strategy: st.SearchStrategy[Any], examples: int, number: int, take: Callable[[Any], None]) -> None:
    """Give so many examples to `take`."""

    @seed(number)
    @settings(
        max_examples=examples,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def each(example: Any) -> None:
        take(example)

    each()


def configure(example: Any) -> int:
    """The exit code that a mapping of settings or `--set` texts would give."""
    try:
        layers = [example] if isinstance(example, dict) else map(parse_setting, example)
        build({"method": "rag"}, *layers).model_dump_json()
    except BenchError:
        return 2
    return 0


def read(content: bytes) -> int:
    """The exit code that a file would give: 0 where it is a configuration or an experiment."""
    path = Path("fuzzed.yaml")
    path.write_bytes(content)
    code = 2
    for reader in (lambda: build({"method": "rag"}, read_config(str(path))), lambda: read_experiment(str(path))):
        with contextlib.suppress(BenchError):
            reader()
            code = 0
    return code


def start(command: list[str]) -> int:
    """The exit code of a command as a process of its own; another one if it fails without a line that says why."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", *command],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("bench")]
    return -1 if "Traceback" in done.stderr or (done.returncode == 2 and len(said) != 1) else done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    # They take seconds, which the tests do not have.
    del fuzz.LAST["data", "stats"], fuzz.LAST[("report",)]
    third = max(1, arguments.examples // 3)
    kinds = [Kind(name) for name in ("configurations", "files", "commands", "commands as processes")]
    configurations, files, commands, processes = kinds

    def command(line: list[str]) -> None:
        def here() -> int:
            code, err = fuzz.outcome(line)
            said = [text for text in err.splitlines() if text.startswith("bench")]
            return -1 if code == 2 and len(said) != 1 else code

        commands.take(line, here)
        # No process can be given a NUL or half a character.
        if commands.counts["tried"] % 20 == 1 and not any(
            "\0" in word or "\ud800" <= max(word, default="") <= "\udfff" for word in line
        ):
            processes.take(line, lambda: start(line))

    with tempfile.TemporaryDirectory() as folder, fuzz.workplace(Path(folder)):
        either = st.one_of(fuzz.mappings(), st.lists(fuzz.SETTINGS, min_size=1, max_size=3))
        draw(either, third, arguments.seed, lambda made: configurations.take(made, lambda: configure(made)))
        draw(fuzz.files(), third, arguments.seed, lambda made: files.take(made, lambda: read(made)))
        draw(fuzz.commands(), third, arguments.seed, command)
    print(tabulate([[kind.name, *(kind.counts[head] for head in HEADS)] for kind in kinds], headers=["", *HEADS]))
    return int(any(kind.counts[what] for kind in kinds for what in ("tracebacks", "hangs")))


if __name__ == "__main__":
    sys.exit(main())
