"""`kill -9` of engines and of the driver at random moments, and the eight methods through two real engines.

    python tests/campaign/ray_kills.py --kills 20            # stand-ins: every row once, and the right one
    python tests/campaign/ray_kills.py --kills 0 --methods nonperso rag pag dpl pplug dep prompt_tuning copy

A run of PAG with stand-ins for engines is killed, each time an engine or the driver as a coin decides, and started
again until so many kills are done and it is complete. What it keeps is compared with a run on one stand-in that nobody
killed, and no process and no folder of a cluster may be left. With `--methods`, texts of the demo by two vLLM engines,
greedy and sampled, are compared with one engine's; adapters are fresh.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench import cluster, cluster_end  # noqa: E402
from bench.backends import set_environment  # noqa: E402
from bench.config import build, read_config  # noqa: E402
from bench.execute import execute  # noqa: E402
from bench.job import Job  # noqa: E402
from tests.backends.conftest import Rows, stored_rows, texts_of  # noqa: E402
from tests.conftest import install_example  # noqa: E402

PATIENCE = 1800.0
METRICS = {"metrics": ["rouge"], "resamples": 10}


class Several(Protocol):
    """The engines of a run that is killed: its settings, those of the run to compare it with, and how many rows there
    are at most between two kills."""

    settings: dict[str, Any]
    alone: dict[str, Any]
    step: int

    def kill_one(self, dice: random.Random, said: str) -> bool:
        """Kill an engine; False where none may be killed now. `said` is what the driver has said so far."""
        ...

    def ended(self, said: str) -> str:
        """What is wrong after a driver's end; "" for nothing."""
        ...


class Actors:
    """Stand-ins in Ray actors."""

    step = 12

    def __init__(self) -> None:
        given = {"method": "pag", "limit": 20, **METRICS}
        self.alone = {**given, "backend": "stand_in"}
        self.settings = {**given, "backend": "several", "several": {"engines": 2, "restarts": 100}}
        self.settings |= {"stand_in": {"seconds": 0.25}}
        self._others = self._clusters()

    def _clusters(self) -> set[Path]:
        return set(Path("/tmp").glob("bench-ray-*"))

    def kill_one(self, dice: random.Random, said: str) -> bool:
        engines = []
        for folder in self._clusters() - self._others:
            for process in cluster_end.members(str(folder)):
                try:
                    words = Path(f"/proc/{process}/cmdline").read_bytes()
                except OSError:
                    continue
                if words.startswith(b"ray::Engine"):
                    engines.append(process)
        if engines:
            os.kill(dice.choice(engines), signal.SIGKILL)
        return bool(engines)

    def ended(self, said: str) -> str:
        until = time.monotonic() + 30
        while (left := self._clusters() - self._others) and time.monotonic() < until:
            time.sleep(0.1)
        return f"left behind: {left}" if left else ""


def rows(results: Path) -> Rows:
    """The whole rows that a run in a folder of results keeps."""
    return next((stored_rows(path) for path in results.glob("runs/*/generations.jsonl")), {})


def kill(folder: Path, kills: int, dice: random.Random, engines: Several) -> list[str]:
    """Kill a run so often, and let it go on until it is complete; what must not be."""
    problems: list[str] = []
    undisturbed = build(read_config("demo"), {**engines.alone, "results": str(folder / "alone")})
    execute([Job.of(undisturbed)], lambda _: None, processes=1)
    whole = rows(folder / "alone")
    results, log = folder / "several", folder / "driver.log"
    command = [sys.executable, "-m", "bench.cli", "run", "--method", engines.settings["method"]]
    for key, value in (engines.settings | {"results": str(results)}).items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    killed = {"engine": 0, "driver": 0}
    completed = 0
    known: Rows = {}
    while killed["engine"] + killed["driver"] < kills or known:
        with (
            log.open("wb") as errors,
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, cwd=ROOT) as driver,
        ):
            try:
                strike(driver, results, log, killed, kills, dice, engines)
            finally:
                driver.kill()
        said = log.read_text(errors="replace")
        if driver.returncode not in (0, -signal.SIGKILL):
            return [*problems, f"exit {driver.returncode}: {said[-1000:]}"]
        if wrong := engines.ended(said):
            problems.append(wrong)
        found = rows(results)
        problems += [f"{key} was lost" for key in known if key not in found]
        problems += [f"{key} has another text" for key, text in found.items() if whole.get(key) != text]
        known = found
        print(f"{killed} kills, {len(known)} rows of {len(whole)}, {completed} runs complete", flush=True)
        if driver.returncode == 0:
            completed += 1
            if found != whole:
                problems.append(f"a run that is complete has {len(found)} rows of {len(whole)}")
            shutil.rmtree(results)
            known = {}
    print(f"{killed} kills, {completed} runs of {len(whole)} rows complete in spite of them", flush=True)
    return problems


def strike(
    driver: subprocess.Popen[bytes],
    results: Path,
    log: Path,
    killed: dict[str, int],
    kills: int,
    dice: random.Random,
    engines: Several,
) -> None:
    """Kill engines of a driver, or the driver, until one of the latter is done or it ends by itself."""
    until = time.monotonic() + PATIENCE
    target = len(rows(results)) + dice.randint(1, engines.step)
    victim = dice.choice(["engine", "driver"])
    while driver.poll() is None:
        assert time.monotonic() < until, "the driver hangs"
        time.sleep(0.05)
        if killed["engine"] + killed["driver"] >= kills or len(rows(results)) < target:
            continue
        if victim == "driver":
            killed[victim] += 1
            return
        if engines.kill_one(dice, log.read_text(errors="replace")):
            killed[victim] += 1
            target = len(rows(results)) + dice.randint(1, engines.step)
            victim = dice.choice(["engine", "driver"])


def equal(methods: Sequence[str], folder: Path, several: dict[str, Any]) -> list[str]:
    """Compare texts of one engine with those of several, greedy and sampled; what must not be."""
    problems = []
    for temperature in (0.0, 0.8):
        given = {**read_config("demo"), "max_new_tokens": 64, "temperature": temperature}
        one = texts_of(given, methods, 4, folder / f"one-{temperature}")
        others = texts_of({**given, **several}, methods, 4, folder / f"several-{temperature}")
        for (subject, *expected), (_, *seen) in zip(one, others, strict=True):
            answers, predictions = expected
            same = sum(seen[0].get(key) == text for key, text in answers.items())
            where = f"{subject.name} at temperature {temperature}"
            print(f"{where}: {same} of {len(answers)} answers equal, {len(predictions)} predictions", flush=True)
            if seen != expected:
                problems.append(f"{where}: other texts")
    return problems


def arguments(description: str | None) -> argparse.Namespace:
    """What a campaign of kills is asked for on the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    """The exit code: 1 if anything was found."""
    asked = arguments(__doc__)
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        install_example(patch, Path(name), "bench-stand-in", "backends")
        if asked.kills:
            problems += kill(Path(name), asked.kills, random.Random(asked.seed), Actors())
        if asked.methods:
            set_environment()
            # Before vLLM imports Ray.
            with cluster.joined():
                problems += equal(asked.methods, Path(name), {"backend": "ray", "ray": {"engines": 2}})
    print("\n".join(problems) or "no row lost, doubled or different, no process left")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
