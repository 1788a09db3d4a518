"""Speed and memory of `bench data prepare` on generated raw files, as a table; of its engine against another one.

    python tests/benchmarks/measure_prepare.py --reviews 200000 1000000 5000000 20000000 --folder FOLDER [--gzip]
    python tests/benchmarks/measure_prepare.py --reviews 1000000 --folder FOLDER --engines

Files that FOLDER has from an earlier call are used again (20 million reviews take 23 GB). Each figure is that of a
process of its own, from its start to its end, all reading and writing included; of `--tries` the best one counts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_GENERATOR = Path(__file__).with_name("raw_reviews.py")
_READ = {
    "duckdb": """
import duckdb
columns = dict.fromkeys(["user_id", "parent_asin", "rating", "title", "timestamp"], "json") | {"text": "varchar"}
connection = duckdb.connect()
kinds = ", ".join(f"{name}: '{kind}'" for name, kind in columns.items())
connection.execute(f"create temp table kept as select user_id ->> '$' as user_id, parent_asin ->> '$' as asin, "
    "timestamp::bigint as timestamp, hash(text) as text from read_json('PATH', format = 'newline_delimited', "
    f"columns = {{{kinds}}}, ignore_errors = true) where strlen(text) >= 200 and length(text) >= 200")
print(connection.execute("select count(*) from kept").fetchall()[0][0])
""",
    "polars": """
import polars as pl
schema = dict.fromkeys(["user_id", "parent_asin", "title", "text"], pl.String)
schema |= {"rating": pl.Float64, "timestamp": pl.Int64}
frame = pl.scan_ndjson("PATH", schema=schema, ignore_errors=True).filter(pl.col("text").str.len_chars() >= 200)
print(frame.select("user_id", "parent_asin", "timestamp", pl.col("text").hash()).collect(engine="streaming").height)
""",
}


@dataclass(frozen=True)
class Measured:
    """Seconds, processor seconds and peak memory in MiB of a process."""

    wall: float
    processor: float
    memory: float


def run(arguments: list[str]) -> Measured:
    """Run a process to its end, without its output."""
    start = time.perf_counter()
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    child = os.posix_spawn(arguments[0], arguments, {**os.environ}, file_actions=silent)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)} ended with status {status}")
    return Measured(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def prepare(reviews: Path, items: Path, out: Path) -> Measured:
    """`bench data prepare` in a process of its own, into a folder that is not there."""
    shutil.rmtree(out, ignore_errors=True)
    code = "import sys; from bench.cli import main; sys.exit(main())"
    command = ["data", "prepare", "--reviews", str(reviews), "--items", str(items), "--category", "Books"]
    return run([sys.executable, "-c", code, *command, "--out", str(out)])


def files(folder: Path, reviews: int, compress: bool) -> tuple[Path, Path]:
    """Generated files, made if they are not there."""
    home = folder / f"{reviews}{'-gzip' if compress else ''}"
    ending = ".jsonl.gz" if compress else ".jsonl"
    paths = home / f"reviews{ending}", home / f"items{ending}"
    if not all(path.exists() for path in paths):
        options = ["--reviews", str(reviews), "--out", str(home), *(["--gzip"] if compress else [])]
        run([sys.executable, str(_GENERATOR), *options])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure `bench data prepare` on generated files.")
    parser.add_argument("--reviews", type=int, nargs="+", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--gzip", action="store_true")
    parser.add_argument("--engines", action="store_true", help="only read reviews and filter them, with each engine")
    parser.add_argument("--tries", type=int, default=2)
    options = parser.parse_args()
    print("| reviews | files, MB | what | seconds | reviews/s | processor seconds | peak memory, MiB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for count in options.reviews:
        reviews, items = files(options.folder, count, options.gzip)
        size = reviews.stat().st_size + (0 if options.engines else items.stat().st_size)
        measured = {}
        for _ in range(options.tries):
            if options.engines:
                found = {
                    name: run([sys.executable, "-c", code.replace("PATH", str(reviews))])
                    for name, code in _READ.items()
                }
            else:
                found = {"prepare": prepare(reviews, items, options.folder / "out")}
            for name, one in found.items():
                measured[name] = min(measured.get(name, one), one, key=lambda each: each.wall)
        for name, one in measured.items():
            print(
                f"| {count:,} | {size / 1e6:,.0f} | {name} | {one.wall:.2f} | {count / one.wall:,.0f} | "
                f"{one.processor:.2f} | {one.memory:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
