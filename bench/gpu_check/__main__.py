"""python -m bench.gpu_check: the parts one after the other, each in a process of its own, and the report of them."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench import doctor
from bench.errors import BenchError, ConfigError
from bench.files import dump, exclusive, path_of, write_atomically
from bench.gpu_check.page import page
from bench.gpu_check.plan import KIND, MODEL, PARTS, SCHEMA, TEXT_MODEL, Part, Plan
from bench.machine import gpus
from bench.places import shown_name
from bench.progress import duration, say
from bench.terminal import show, visible

FOLDER = "results/gpu-check"
SCRATCH = ".gpu-check-scratch"
"""What parts write, in the report's folder; gone when the check ends."""
MINUTES = 8.0
LEAST = 5.0
"""Seconds: a part that would have less is not begun."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check; the exit code: 0 if every part passed or was not needed here, 1 if one failed, 2 where the check
    cannot run."""
    arguments = _parser().parse_args(argv)
    try:
        if not arguments.tiny and (why := why_not()):
            raise ConfigError(why)
        folder = path_of(arguments.folder)
        limits = _limits(arguments.seconds)
        with exclusive(folder):
            return _check(folder, arguments, limits)
    except BenchError as error:
        print(f"gpu-check: {visible(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ngpu-check: interrupted; what was found is in {visible(arguments.folder)}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu_check",
        description="What only a machine with a GPU can find out, as one JSON file and one page to send back.",
    )
    named = "a folder, hub id or python:PACKAGE/folder"
    parser.add_argument(
        "--model", help=f"for speed, training and memory: {named} (default: a random one of Qwen2.5's shape that fits)"
    )
    parser.add_argument("--text-model", help=f"for the checks of texts: {named} (default: a smaller random one)")
    parser.add_argument("--tiny", action="store_true", help="the same parts on tiny models, also without a GPU")
    names = ", ".join(part.name for part in PARTS)
    parser.add_argument("--only", action="append", default=[], metavar="PART", help=f"repeatable; one of {names}")
    parser.add_argument(
        "--seconds", action="append", default=[], metavar="PART=N", help="another limit for a part; repeatable"
    )
    parser.add_argument("--minutes", default=str(MINUTES), help="for all parts together (default: %(default)s)")
    parser.add_argument("--folder", default=FOLDER, help="where the report is written (default: %(default)s)")
    return parser


def why_not() -> str:
    """Why this machine cannot do the check, as a sentence; "" if it looks as if it could."""
    found = gpus()
    if found.problem is not None:
        return found.problem
    if not found.lines:
        return "there is no NVIDIA GPU here; --tiny runs the same parts on tiny models without one"
    if doctor.version("vllm") is None:
        return "the installed stack is for the CPU; run: make setup STACK=gpu"
    return ""


def _limits(given: Sequence[str]) -> dict[str, float]:
    """Seconds by part. Raises `ConfigError`."""
    limits = {part.name: part.seconds for part in PARTS}
    for text in given:
        name, _, number = text.partition("=")
        limits[_known(name)] = _positive(number, f"--seconds {text}: write it as PART=SECONDS, e.g. time=300")
    return limits


def _positive(text: str, wanted: str) -> float:
    with suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise ConfigError(wanted)


def _known(name: str) -> str:
    if name not in (names := [part.name for part in PARTS]):
        raise ConfigError(f"there is no part '{name}'; the parts are {', '.join(names)}")
    return name


def _check(folder: Path, arguments: argparse.Namespace, limits: dict[str, float]) -> int:
    minutes = _positive(arguments.minutes, f"--minutes {arguments.minutes}: write a number of minutes above 0")
    only = {_known(name) for name in arguments.only}
    chosen = [part for part in PARTS if not only or part.name in only]
    given = {MODEL: arguments.model, TEXT_MODEL: arguments.text_model}
    wanted = tuple(name for name in given if given[name] is None and any(name in part.models for part in chosen))
    chosen = [part for part in PARTS if part in chosen or part.name == "machine" or (part.name == "models" and wanted)]
    work = folder / SCRATCH
    shutil.rmtree(work, ignore_errors=True)
    plan = Plan(str(work.resolve()), arguments.tiny, arguments.model, arguments.text_model, wanted)
    for name in (work, folder / "logs"):
        name.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "kind": KIND,
        "schema": SCHEMA,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "tiny": plan.tiny,
        "models": {name: "random" if value is None else shown_name(value) for name, value in given.items()},
        "parts": [],
    }
    try:
        _run_all(chosen, plan, limits, minutes * 60, folder, report)
    finally:
        # Random models take as much room as real ones.
        shutil.rmtree(work, ignore_errors=True)
    failed = [part["name"] for part in report["parts"] if part["state"] == "failed"]
    say(f"gpu-check: {'failed: ' + ', '.join(failed) if failed else 'every part passed'}")
    show(f"wrote {folder / 'gpu-check.json'}\nwrote {folder / 'gpu-check.md'}")
    return int(bool(failed))


def _run_all(
    chosen: Sequence[Part], plan: Plan, limits: dict[str, float], seconds: float, folder: Path, report: dict[str, Any]
) -> None:
    """All parts, the report written after each. Raises `ConfigError` where torch cannot use the GPU."""
    ends = time.monotonic() + seconds
    for number, part in enumerate(chosen, 1):
        left = ends - time.monotonic()
        limit = min(limits[part.name], left)
        say(
            f"gpu-check: part {number} of {len(chosen)}, {part.what}: at most {duration(max(limit, 0))}; "
            f"{duration(max(left, 0))} of {duration(seconds)} left"
        )
        started = time.monotonic()
        if left < LEAST:
            found = _failed(f"not begun: the {duration(seconds)} for all parts are over (--minutes)")
        else:
            found = _run(part, plan, limit, folder / "logs" / f"{part.name}.log")
        spent = time.monotonic() - started
        say(
            f"gpu-check: {part.name} {found['state']} in {spent:.1f} s{': ' + found['error'] if found['error'] else ''}"
        )
        report["parts"].append({"name": part.name, "what": part.what, "limit": limit, "seconds": spent, **found})
        write_atomically(folder / "gpu-check.json", dump(report))
        write_atomically(folder / "gpu-check.md", page(report))
        if part.name == "machine" and not plan.tiny and found["figures"] and not found["figures"]["torch_uses_the_gpu"]:
            raise ConfigError("torch cannot use the GPU here; `bench doctor` says what is installed")


def _failed(error: str) -> dict[str, Any]:
    return {"state": "failed", "figures": None, "error": error}


def _run(part: Part, plan: Plan, limit: float, log: Path) -> dict[str, Any]:
    """The outcome of a part's process, which is ended after `limit` seconds."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.gpu_check.parts", part.name],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **part.environment},
            # So that what it has started ends with it.
            start_new_session=True,
        )
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(plan.dump().encode() + b"\n")
                process.stdin.flush()
            # Standard input stays open: its end tells the process that nobody waits for it any more.
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            return _failed(f"took longer than its {limit:.3g} s")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if plan.outcome(part.name).exists():
        outcome: dict[str, Any] = json.loads(plan.outcome(part.name).read_text(encoding="utf-8"))
        return outcome
    return _failed(_last_words(code, log))


def _last_words(code: int, log: Path) -> str:
    """What is known of a process that ended without an outcome."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    ended = f"ended by signal {-code}{' (out of memory?)' if code == -signal.SIGKILL else ''}" if code < 0 else ""
    return f"{ended or f'ended with exit code {code}'}: {lines[-1] if lines else 'without a word'}"


if __name__ == "__main__":
    sys.exit(main())
