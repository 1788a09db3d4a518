"""What machine this is, in words, without importing torch."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True)
class GPUs:
    """What nvidia-smi answers: lines, or a `problem` in words; neither where there is no nvidia-smi."""

    lines: tuple[str, ...] = ()
    problem: str | None = None


def gpus(query: str = "name,memory.total", units: bool = True) -> GPUs:
    """One line for each NVIDIA GPU, with what the query asks for (nvidia-smi --help-query-gpu)."""
    if shutil.which("nvidia-smi") is None:
        return GPUs()
    form = "csv,noheader" if units else "csv,noheader,nounits"
    command = ["nvidia-smi", f"--query-gpu={query}", f"--format={form}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except subprocess.TimeoutExpired:
        return GPUs(problem="nvidia-smi does not answer within 20 s: the driver hangs")
    if answer.returncode:
        reason = (answer.stdout + answer.stderr).strip().splitlines()
        return GPUs(problem=f"nvidia-smi fails: {reason[0] if reason else 'without a word'}")
    return GPUs(tuple(line.strip() for line in answer.stdout.splitlines() if line.strip()))


def device() -> str:
    """What an engine in this process runs on."""
    return "; ".join(gpus().lines) or f"CPU ({platform.machine()})"


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def share_cores(processes: int) -> None:
    """Let torch have as many threads in this process as are left to it beside others that do the same."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // processes))


def give_back_memory() -> None:
    """Hand what was freed back to the system. glibc keeps what lies below something that is still used, and a process
    that trains and then starts an engine would hold both."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def installed(packages: Iterable[str]) -> dict[str, str]:
    """The versions of Python and of those of the packages that are installed, by name."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
