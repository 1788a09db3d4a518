"""Seconds and memory of going on with a run of many completions, as a table: opening its folder, which reads and checks
every row, and then finding every answer.

    python tests/benchmarks/measure_store.py --rows 30000 1000000 --folder FOLDER

The rows are of a usual size: 250 tokens, 1,200 characters. "store" is `RunStore`, "all in memory" keeps every row, as
it did once. Each figure is that of a process of its own, the memory how much it grew. FOLDER gets 1.5 GB for a million
rows, which a later call uses again.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

from bench.files import sealed
from bench.records import Call, Prompt
from bench.results import RunRecord, identity_hash
from bench.store import RunStore, read_generations

RECORD = RunRecord(name="run", identity={"seed": 0}, config={})
OWNER = identity_hash(RECORD.identity)


def call(number: int) -> Call:
    """The call behind a row."""
    return Call(
        (f"Books/test/A{number:027d}", "rag_review", 0), Prompt("rag_review", "", str(number)), 0, 0.8, 0.95, 512
    )


def write(folder: Path, rows: int) -> None:
    """A run's folder with so many completions, made if it is not there."""
    path = folder / "generations.jsonl"
    if path.exists():
        return
    folder.mkdir(parents=True)
    draw = random.Random(0)
    words = [f"word{number}" for number in range(3000)]
    texts = [" ".join(draw.choices(words, k=170))[:1200] for _ in range(500)]
    same = {"index": 0, "prompt_tokens": 1800, "completion_tokens": 250, "finish_reason": "stop"}
    with path.with_suffix(".new").open("wb") as file:
        for number in range(rows):
            one = call(number)
            row = {"instance": one.key[0], "stage": one.key[1], "prompt": one.prompt.hash, "text": texts[number % 500]}
            file.write(sealed(row | same | {"seconds": draw.random() * 20, "shortened": False}, OWNER))
    path.with_suffix(".new").rename(path)


def grown(before: int) -> float:
    """MiB that this process is larger, at its largest, than it was."""
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def measure(folder: Path, way: str) -> str:
    """One way's cells of the table; `folder` holds a run."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, processor = time.perf_counter(), time.process_time()
    if way == "store":
        with RunStore(folder, RECORD) as store:
            seconds, spent, memory = time.perf_counter() - wall, time.process_time() - processor, grown(before)
            rows, processor, digest = store.stored(), time.process_time(), hashlib.sha256()
            for number in range(rows):
                answer = store.completion(call(number))
                assert answer is not None
                digest.update(answer.text.encode())
    else:
        kept = read_generations(folder, owner=OWNER)
        seconds, spent, memory = time.perf_counter() - wall, time.process_time() - processor, grown(before)
        rows, processor, digest = len(kept), time.process_time(), hashlib.sha256()
        for number in range(rows):
            digest.update(kept[call(number).key].text.encode())
    looking = time.process_time() - processor
    return (
        f"{seconds:.1f} | {spent:.1f} | {rows / spent:,.0f} | {memory:,.0f} | {memory * 2**20 / rows:,.0f} | "
        f"{looking * 1e6 / rows:.0f} | {digest.hexdigest()[:8]}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure going on with a run of many completions.")
    parser.add_argument("--rows", type=int, nargs="+", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--way", choices=("store", "all in memory"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(measure(options.folder, options.way))
        return
    print("| rows | way | s | processor s | rows/s | MiB | bytes/row | µs to find one | texts |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for rows in options.rows:
        folder = options.folder / str(rows)
        write(folder, rows)
        for way in ("store", "all in memory"):
            arguments = [sys.executable, __file__, "--rows", str(rows), "--folder", str(folder), "--way", way]
            cells = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
            print(f"| {rows:,} | {way} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
