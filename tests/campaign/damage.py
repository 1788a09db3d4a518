"""Damages every stored file of small runs and of an adapter, one at a time, and looks what becomes of it. By hand:

    python tests/campaign/damage.py [--folder FOLDER] [--only PART]

Whole runs are made first, on the demo. Then, for each state, file and kind of damage, in a copy: are the scores that
are read the whole run's, or is it said that they cannot be read; and does the run's own command, once more, give the
whole run's scores? The table counts by kind of damage; the exit code is 1 if a number was wrong and nothing said so, if
anything ended in a traceback, or if a file was not mended though its message promised it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench import execute as executing
from bench.backends import Engines
from bench.cli import main
from bench.config import build, read_config
from bench.data.demo import generate
from bench.errors import BenchError
from bench.finished import finished
from bench.job import Job
from bench.resolved import Inputs

SETTINGS = {
    **{"categories": ["Books"], "limit": 4, "k": 1, "input_budget": 400, "max_new_tokens": 12},
    **{"metrics": ["rouge", "bleu"], "resamples": 20, "dep": {"encoder": "hashed-ngrams", "latent": 16}},
    "train": {
        "epochs": 2,
        "limit": 8,
        "batch_size": 4,
        "validation": 3,
        "max_target_tokens": 40,
        "checkpoint_every": 1,
    },
}


class Shared(Engines):
    """One engine for all; the process ends with it."""

    def __exit__(self, *_: object) -> None:
        pass


ENGINES = Shared(vectors=True)
INPUTS = Inputs({"Books": generate()["Books"]})


def job(results: Path, method: str, **settings: Any) -> Job:
    demo = read_config("demo")
    return Job.of(build(demo, SETTINGS, {"method": method, "results": str(results), **settings}), INPUTS)


def run(results: Path, method: str, **settings: Any) -> list[str]:
    """Execute a run; what was said."""
    said: list[str] = []
    executing.execute([job(results, method, **settings)], said.append, processes=1)
    return said


# -- kinds of damage ------------------------------------------------------------------------------------------------

Damage = Callable[[Path, Path], Any]
"""Damages a file; the second path is the file of the same name of another run or adapter."""


def content(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path, other: path.write_bytes(change(path.read_bytes()))


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Damage:
    return content(lambda old: b"".join(change(old.splitlines(keepends=True))))


def digit(share: float) -> Callable[[bytes], bytes]:
    def flip(old: bytes) -> bytes:
        digits = [place for place, byte in enumerate(old) if chr(byte).isdigit() and byte < 128]
        place = digits[int(share * (len(digits) - 1))]
        return old[:place] + str((int(chr(old[place])) + 1) % 10).encode() + old[place + 1 :]

    return flip


def bit(share: float, number: int) -> Callable[[bytes], bytes]:
    def flip(old: bytes) -> bytes:
        place = int(share * (len(old) - 1))
        return old[:place] + bytes([old[place] ^ (1 << number)]) + old[place + 1 :]

    return flip


def folder(path: Path, other: Path) -> None:
    path.unlink()
    path.mkdir()


ANY: dict[str, Damage] = {
    "cut by 1 byte": content(lambda old: old[:-1]),
    "cut by 40 bytes": content(lambda old: old[:-40]),
    "cut in half": content(lambda old: old[: len(old) // 2]),
    "emptied": content(lambda old: b""),
    "removed": lambda path, other: path.unlink(),
    "digit flipped, early": content(digit(0.2)),
    "digit flipped, late": content(digit(0.8)),
    "bit flipped, early": content(bit(0.1, 0)),
    "bit flipped, middle": content(bit(0.5, 2)),
    "bit flipped, late": content(bit(0.97, 5)),
    "another's in its place": lambda path, other: shutil.copy(other, path),
    "zeros in the middle": content(lambda old: old[: len(old) // 2] + bytes(16) + old[len(old) // 2 + 16 :]),
    "zeros at the end": content(lambda old: old + bytes(16)),
    "read-only": lambda path, other: path.chmod(0o444),
    "a folder in its place": folder,
}
OF_LINES: dict[str, Damage] = {
    "first line doubled": lines(lambda old: [old[0], *old]),
    "first line removed": lines(lambda old: old[1:]),
    "last line removed": lines(lambda old: old[:-1]),
    "two lines swapped": lines(lambda old: [*old[1::-1], *old[2:]]),
    "zeros as a line": lines(lambda old: [old[0], bytes(8) + b"\n", *old[1:]]),
    "another's lines added": lambda path, other: path.write_bytes(path.read_bytes() + other.read_bytes()),
}


OF_ADAPTERS = (
    *("cut by 40 bytes", "emptied", "removed", "digit flipped, late", "bit flipped, early", "bit flipped, middle"),
    *("another's in its place", "read-only", "a folder in its place", "first line removed", "two lines swapped"),
)
"""Training again takes its time: not every kind is tried."""


# -- states ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """What is damaged: `prepare` brings a copy of the whole results there, `files` are damaged, one at a time, and the
    command is that of `method`."""

    name: str
    method: str
    files: Callable[[Path], list[Path]]
    prepare: Callable[[Path], Any] = lambda results: None


def files_of(method: str, *names: str) -> Callable[[Path], list[Path]]:
    return lambda results: [job(results, method).folder / name for name in names]


def without(method: str, *names: str, generations: int | None = None) -> Callable[[Path], None]:
    def prepare(results: Path) -> None:
        where = job(results, method).folder
        for name in names:
            (where / name).unlink()
        if generations is not None:
            path = where / "generations.jsonl"
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:generations]))

    return prepare


def adapter(results: Path) -> Any:
    return job(results, "dep").trains


def unwritten(results: Path, *more: str) -> None:
    """The run is to be made anew, with the adapter that is there; `more` of the adapter's files are gone."""
    shutil.rmtree(job(results, "dep").folder)
    for pattern in more:
        for path in adapter(results).folder.glob(pattern):
            path.unlink()


def in_adapter(*patterns: str) -> Callable[[Path], list[Path]]:
    return lambda results: [path for pattern in patterns for path in sorted(adapter(results).folder.glob(pattern))]


RUN = ("run.json", "generations.jsonl", "predictions.jsonl", "scores.jsonl", "summary.json")
STATES = [
    State("complete nonperso", "nonperso", files_of("nonperso", *RUN)),
    State("complete copy", "copy", files_of("copy", "run.json", "predictions.jsonl", "scores.jsonl", "summary.json")),
    State("complete dep", "dep", files_of("dep", "run.json", "generations.jsonl", "predictions.jsonl")),
    State(
        "half-written nonperso",
        "nonperso",
        files_of("nonperso", "run.json", "generations.jsonl"),
        without("nonperso", *RUN[2:], generations=2),
    ),
    State(
        "written, not scored nonperso",
        "nonperso",
        files_of("nonperso", "run.json", "generations.jsonl", "predictions.jsonl"),
        without("nonperso", "scores.jsonl", "summary.json"),
    ),
    State(
        "adapter",
        "dep",
        in_adapter("*.json", "*.jsonl", "*.safetensors", "*/selection.json", "loss.png"),
        unwritten,
    ),
    State(
        "half-trained adapter",
        "dep",
        in_adapter("adapter.json", "log.jsonl", "checkpoint.safetensors", "epoch-1.safetensors"),
        lambda results: unwritten(results, "training.json", "*/selection.json"),
    ),
    State(
        "half-validated adapter",
        "dep",
        in_adapter("*.safetensors", "*/epoch-1/*.json", "*/epoch-1/*.jsonl"),
        lambda results: unwritten(results, "*/selection.json"),
    ),
]


# -- one case ------------------------------------------------------------------------------------------------


def called(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a command in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main(list(arguments))
    return code, out.getvalue()


def commands(results: Path) -> Iterator[tuple[str, ...]]:
    names = {method: job(results, method).folder.name for method in ("copy", "nonperso", "dep")}
    yield ("list", "runs", "--results", str(results))
    for name in names.values():
        yield ("show", name, "--results", str(results))
    yield ("compare", names["copy"], names["nonperso"], "--results", str(results))
    yield ("check", names["nonperso"], "--results", str(results))


SAYS_SO = ("damaged", "unfinished", "not complete", "is left out", "no run in")


def tried(state: State, path: Path, results: Path, whole: Path, scores: Any, before: list[tuple[int, str]]) -> set[str]:
    """What became of a damaged file, by the table's columns."""
    outcome = {"tried"}
    folder = job(results, state.method).folder
    found = False
    for arguments, (code_before, text_before) in zip(commands(results), before, strict=True):
        code, text = called(*arguments)
        same = (code, text.replace(str(results), "")) == (code_before, text_before.replace(str(whole), ""))
        found |= not same
        if not same and code == 0 and not any(words in text for words in SAYS_SO):
            outcome.add("wrong, not said")
            print(f"  {arguments}: {text}", file=sys.stderr)
    with contextlib.suppress(BenchError):
        if finished(folder).summary.scores != scores:
            outcome.add("wrong, not said")
    try:
        said = run(results, state.method)
    except BenchError as error:
        outcome |= {"found", "refused"}
        print(f"  refused: {error}", file=sys.stderr)
        return outcome
    if found or any("damaged" in line or "lacks" in line for line in said):
        outcome.add("found")
    mended = finished(folder)
    if mended.summary.scores == scores:
        outcome.add("right in the end")
    else:
        outcome.add("wrong, not said")
    for method in ("copy", "nonperso"):
        finished(job(results, method).folder)
    if state.method == "dep":
        assert adapter(results).is_trained
    if run(results, state.method):
        outcome.add("not mended")
    return outcome


def campaign(base: Path, only: str) -> int:
    whole, others = base / "whole", base / "others"
    ENGINES.__enter__()
    executing.Engines = lambda vectors=False: ENGINES  # type: ignore[assignment,misc]
    for method in ("copy", "nonperso", "dep"):
        run(whole, method)
        run(others, method, seed=7, train=SETTINGS["train"] | {"seed": 7})
    scores = {method: finished(job(whole, method).folder).summary.scores for method in ("copy", "nonperso", "dep")}
    strange = job(others, "dep", seed=7, train=SETTINGS["train"] | {"seed": 7})
    assert strange.trains is not None
    counts: dict[str, Counter[str]] = {}
    started = time.monotonic()
    number = 0
    for state in STATES:
        start = base / "start"
        shutil.rmtree(start, ignore_errors=True)
        shutil.copytree(whole, start)
        state.prepare(start)
        before = [called(*arguments) for arguments in commands(start)]
        for path in state.files(start):
            kinds = ANY | (OF_LINES if path.suffix == ".jsonl" else {})
            kinds = {kind: kinds[kind] for kind in kinds if kind in OF_ADAPTERS or "adapter" not in state.name}
            for kind, damage in kinds.items():
                label = f"{state.name}: {path.name}: {kind}"
                if only not in label:
                    continue
                number += 1
                results = base / "case"
                shutil.rmtree(results, ignore_errors=True)
                shutil.copytree(start, results)
                home = strange.trains.folder if adapter(start).folder in path.parents else others_run(others, state)
                other = counterpart(path, adapter(start).folder, home)
                print(label, file=sys.stderr)
                try:
                    damage(results / path.relative_to(start), other)
                    outcome = tried(state, path, results, start, scores[state.method], before)
                except Exception:  # noqa: BLE001 - that is what is counted
                    traceback.print_exc()
                    outcome = {"tried", "traceback"}
                counts.setdefault(kind, Counter()).update(outcome)
                if outcome & {"wrong, not said", "traceback", "not mended"}:
                    print(f"BAD {label}: {sorted(outcome)}", flush=True)
    columns = ["tried", "found", "right in the end", "refused", "not mended", "traceback", "wrong, not said"]
    rows = [[kind, *(count[column] for column in columns)] for kind, count in counts.items()]
    total: Counter[str] = sum(counts.values(), Counter())
    rows.append(["all", *(total[column] for column in columns)])
    print(tabulate(rows, headers=["damage", *columns]))
    print(f"{number} cases in {time.monotonic() - started:.0f} s")
    return int(bool(total["wrong, not said"] or total["traceback"] or total["not mended"]))


def others_run(others: Path, state: State) -> Path:
    return job(others, state.method, seed=7, train=SETTINGS["train"] | {"seed": 7}).folder


def counterpart(path: Path, adapter_folder: Path, home: Path) -> Path:
    """The file of the same name of another run or adapter."""
    inside = path.relative_to(adapter_folder) if adapter_folder in path.parents else Path(path.name)
    if len(inside.parts) > 1:
        (validation,) = home.glob("validation-*")
        return validation / Path(*inside.parts[1:])
    return home / inside


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--only", default="", help="only cases whose label, STATE: FILE: DAMAGE, holds this")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        code = campaign(given.folder or Path(scratch), given.only)
    sys.stdout.flush()
    os._exit(code)
