"""Ends what is left of a local Ray cluster once the process that started it is gone, however it went.

    python cluster_end.py FOLDER    # a script of the standard library alone, started by `bench.cluster`

Ray's own processes end with the driver, but for its agents, which stay, and an engine in the middle of a step, which
takes seconds. Every process of the cluster has FOLDER in its environment; this one, which has not, waits until its
standard input ends or its parent is another one, kills them all and removes the folder.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

MARK = "BENCH_RAY"
"""The variable that every process of a cluster has."""
LOOK_EVERY = 0.5
PATIENCE = 10.0
"""Seconds after which what cannot be killed is left to the system."""


def members(folder: str) -> list[int]:
    """The processes of a cluster, those that have ended aside."""
    entry = f"{MARK}={folder}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if entry in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            # Another user's, or gone meanwhile.
            continue
    return found


def wait_for_the_end(parent: int) -> None:
    """Return once nobody holds the other end of standard input, or the parent has died: a process forked from it may
    hold that end for longer."""
    while os.getppid() == parent:
        ready, _, _ = select.select([sys.stdin], [], [], LOOK_EVERY)
        if ready and not os.read(sys.stdin.fileno(), 1):
            return


def kill(folder: str) -> None:
    """Kill every process of a cluster, those too that start meanwhile."""
    until = time.monotonic() + PATIENCE
    while (left := members(folder)) and time.monotonic() < until:
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(0.05)


if __name__ == "__main__":
    wait_for_the_end(os.getppid())
    kill(sys.argv[1])
    shutil.rmtree(sys.argv[1], ignore_errors=True)
