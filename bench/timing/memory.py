"""How much memory this process and the GPUs hold, in bytes."""

from __future__ import annotations

import gc
from pathlib import Path

from bench.machine import gpus


def forget_peak() -> bool:
    """Let the peaks of memory begin anew; false where the system does not tell this process's."""
    if has_gpu():
        import torch

        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak() -> int:
    """The most memory that this process has held since `forget_peak` (Linux's VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def gpu_peak() -> int | None:
    """The most GPU memory that torch has reserved here since `forget_peak`; not vLLM's on several GPUs."""
    if not has_gpu():
        return None
    import torch

    return torch.cuda.max_memory_reserved()


def gpus_in_use() -> int | None:
    """The memory in use on all GPUs, whoever uses it: vLLM's pool does not show in torch's own counts."""
    if not has_gpu():
        return None
    lines = gpus("memory.used", units=False).lines
    return sum(int(line) for line in lines) << 20 if lines else None


def free_gpu() -> None:
    """Give back the GPU memory that torch keeps for later."""
    if has_gpu():
        import torch

        gc.collect()
        torch.cuda.empty_cache()


def has_gpu() -> bool:
    """Whether torch can use a GPU here."""
    import torch

    return torch.cuda.is_available()
