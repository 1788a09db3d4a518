"""Where language models run: `vllm` in this process, `openai` on a server."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Any

from bench.chat import Chat
from bench.config import RunConfig
from bench.progress import say
from bench.protocols import Backend

ENVIRONMENT = {
    # The engine in this process: one of its own starts slower and outlives a killed run, with the GPU's memory.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Workers of tensor parallelism: a fork of a process that has asked CUDA anything cannot use it.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Set where the user did not, before anything imports torch or vLLM."""


class Engines:
    """The engine at hand: started on the first call that needs it, shared by runs that want the same one.

    A context manager; leaving it closes the engine.
    """

    def __init__(self) -> None:
        self._wanted: dict[str, Any] = {}
        self._backend: Backend | None = None

    def __enter__(self) -> Engines:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, config: RunConfig, chat: Chat) -> Backend:
        """The engine of a configuration. Raises `BackendError` if it cannot start."""
        wanted = config.model_dump(include={"backend", "model", "tokenizer", config.backend})
        wanted |= {"template": config.template, "length": config.budget + config.max_new_tokens}
        if self._backend is None or wanted != self._wanted:
            self.close()
            self._backend = _start(config, chat)
            self._wanted = wanted
        return self._backend

    def close(self) -> None:
        """Close the engine, if one is running."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None


def _start(config: RunConfig, chat: Chat) -> Backend:
    if config.backend == "openai":
        from bench.backends.openai import OpenAIBackend

        return OpenAIBackend(config)
    from bench.backends.vllm import VLLMBackend

    say(f"starting vLLM with {config.model}")
    started = time.perf_counter()
    backend = VLLMBackend(config, chat)
    say(f"vLLM started in {time.perf_counter() - started:.1f} s")
    return backend
