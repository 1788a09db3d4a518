"""How the gate is calibrated: runs of the demo that differ in the seed alone, each pair compared as `bench check` does.

    python tests/campaign/gate_pairs.py FOLDER --seeds 21

The runs are those of `bench run --method rag --limit 32 --seed N --set results=FOLDER`, made on one engine; those that
are there are not made again. Only chance tells them apart, so each pair that fails is a false alarm: exit code 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from itertools import combinations
from pathlib import Path

from bench.backends import set_environment
from bench.config import build, read_config
from bench.drift import check_run
from bench.execute import execute
from bench.job import Job


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of the runs")
    parser.add_argument("--seeds", type=int, default=21)
    arguments = parser.parse_args()
    set_environment()
    settings = {**read_config("demo"), "method": "rag", "limit": 32, "results": str(arguments.folder)}
    jobs = [Job.of(build(settings, {"seed": seed})) for seed in range(arguments.seeds)]
    execute(jobs)
    farthest: list[tuple[float, str]] = []
    failed = 0
    for golden, run in combinations([job.folder for job in jobs], 2):
        said: list[str] = []
        findings = check_run(run, golden, said.append)
        failed += bool(findings)
        for finding in findings:
            print(f"{golden.name} and {run.name}: {finding}")
        (line,) = (line for line in said if line.startswith("farthest from chance: "))
        errors = re.search(r"([\d.]+) standard errors", line)
        assert errors is not None, line
        farthest.append((float(errors[1]), f"{golden.name} and {run.name}: {line}"))
    farthest.sort(reverse=True)
    for _, line in farthest[:5]:
        print(line)
    print(f"{len(farthest)} pairs: {failed} fail, the largest change is {farthest[0][0]} standard errors")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
