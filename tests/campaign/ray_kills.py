"""`kill -9` of engines and of the driver at random moments, and the eight methods through two real engines.

    python tests/campaign/ray_kills.py --kills 20            # stand-ins: every row once, and the right one
    python tests/campaign/ray_kills.py --kills 0 --methods nonperso rag pag dpl pplug dep prompt_tuning copy

A run of PAG with stand-ins for engines is killed, each time an engine or the driver as a coin decides, and started
again until so many kills are done. What it keeps is compared with a run on one stand-in that nobody killed, and no
process and no folder of a cluster may be left. With `--methods`, texts of the demo by two vLLM engines are compared
with one engine's; adapters are fresh.
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
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench import cluster_end  # noqa: E402
from bench.backends import Engines  # noqa: E402
from bench.config import build, read_config  # noqa: E402
from bench.execute import execute  # noqa: E402
from bench.job import Job  # noqa: E402
from bench.loop import Loop  # noqa: E402
from bench.resolved import Inputs  # noqa: E402
from bench.store import RunStore  # noqa: E402
from bench.timing.subjects import subjects  # noqa: E402
from tests.conftest import install_example  # noqa: E402

Rows = dict[tuple[str, str, int], str]
GIVEN = {"method": "pag", "limit": 20, "metrics": ["rouge"], "resamples": 10}
PATIENCE = 600.0


def rows(folder: Path, problems: list[str]) -> Rows:
    """The whole rows that a run in a folder of results keeps."""
    found: Rows = {}
    for path in folder.glob("runs/*/generations.jsonl"):
        for line in path.read_bytes().split(b"\n")[:-1]:
            row = json.loads(line)
            key = (row["instance"], row["stage"], row["index"])
            if key in found:
                problems.append(f"{key} is there twice")
            found[key] = row["text"]
    return found


def clusters() -> set[Path]:
    """The folders of local clusters."""
    return set(Path("/tmp").glob("bench-ray-*"))


def engines_of(folders: set[Path]) -> list[int]:
    """The processes in which engines of some clusters are."""
    found = []
    for process in (one for folder in folders for one in cluster_end.members(str(folder))):
        try:
            words = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            continue
        if words.startswith(b"ray::Engine"):
            found.append(process)
    return found


def kill(folder: Path, kills: int, dice: random.Random) -> list[str]:
    """Kill a run so often; what must not be."""
    problems: list[str] = []
    alone = {**GIVEN, "backend": "stand_in", "results": str(folder / "alone")}
    execute([Job.of(build(read_config("demo"), alone))], lambda _: None, processes=1)
    whole = rows(folder / "alone", problems)
    results, others = folder / "several", clusters()
    given = {**GIVEN, "backend": "several", "results": str(results)}
    given |= {"several": {"engines": 2, "restarts": 100}, "stand_in": {"seconds": 0.25}}
    command = [sys.executable, "-m", "bench.cli", "run", "--method", "pag"]
    for key, value in given.items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    done = completed = 0
    killed = {"engine": 0, "driver": 0}
    known: Rows = {}
    while done < kills:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as driver:
            target = len(known) + dice.randint(1, 12)
            until = time.monotonic() + PATIENCE
            while driver.poll() is None and done < kills and time.monotonic() < until:
                if len(rows(results, problems)) < target:
                    time.sleep(0.05)
                    continue
                victims = engines_of(clusters() - others)
                if dice.random() < 0.5 and victims:
                    os.kill(dice.choice(victims), signal.SIGKILL)
                    killed["engine"] += 1
                else:
                    driver.kill()
                    driver.wait()
                    killed["driver"] += 1
                done += 1
                target += dice.randint(1, 12)
            if done >= kills:
                driver.kill()
            driver.wait()
            errors = driver.stderr.read() if driver.stderr else ""
        if driver.returncode not in (0, -signal.SIGKILL):
            problems.append(f"exit {driver.returncode}: {errors[-1000:]}")
            break
        until = time.monotonic() + 30
        while (left := clusters() - others) and time.monotonic() < until:
            time.sleep(0.1)
        if left:
            problems.append(f"left behind: {left}")
        found = rows(results, problems)
        problems += [f"{key} was lost" for key in known if key not in found]
        problems += [f"{key} has another text" for key, text in found.items() if whole.get(key) != text]
        known = found
        if driver.returncode == 0:
            completed += 1
            if found != whole:
                problems.append(f"a run that is complete has {len(found)} rows of {len(whole)}")
            shutil.rmtree(results)
            known = {}
        print(f"{killed} kills, {len(known)} rows are there, {completed} runs complete", flush=True)
    return problems


def equal(methods: list[str], folder: Path) -> list[str]:
    """Compare texts of two engines with one engine's; what must not be."""
    made: list[dict[str, Rows]] = []
    for name, backend in (("one", {}), ("two", {"backend": "ray", "ray": {"engines": 2}})):
        texts: dict[str, Rows] = {}
        settings = {**read_config("demo"), "max_new_tokens": 64, **backend}
        with Engines(vectors=True) as engines:
            for one in subjects(settings, methods, 4, folder / name, Inputs()):
                job, where = one.job, folder / name / one.name / "runs" / "it"
                with RunStore(where, job.record()) as store:
                    Loop(job.run, store, partial(one.engine, engines), job.vectors, job.label).predictions()
                texts[one.name] = rows(where.parents[1], [])
        made.append(texts)
    for method in methods:
        same = sum(made[1][method].get(key) == text for key, text in made[0][method].items())
        print(f"{method}: {same} of {len(made[0][method])} texts equal", flush=True)
    return [f"{method}: other texts" for method in methods if made[0][method] != made[1][method]]


def main() -> int:
    """The exit code: 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        install_example(patch, Path(name), "bench-stand-in", "backends")
        if asked.kills:
            problems += kill(Path(name), asked.kills, random.Random(asked.seed))
        if asked.methods:
            problems += equal(asked.methods, Path(name))
    print("\n".join(problems) or "no row lost, doubled or different, no process left")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
