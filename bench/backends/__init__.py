"""Where language models run: `vllm` in this process, `openai` on a server."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Any

from bench.chat import Chat
from bench.config import RunConfig
from bench.errors import ConfigError
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

    A context manager; leaving it closes the engine. With `soft` every vLLM engine is started for soft prompts, so that
    runs with and without them share one; else one that is for text alone is replaced where soft prompts come up.
    """

    def __init__(self, soft: bool = False) -> None:
        self._soft = soft
        self._wanted: dict[str, Any] = {}
        self._takes_soft = False
        self._backend: Backend | None = None

    def __enter__(self) -> Engines:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, config: RunConfig, chat: Chat, soft: bool = False) -> Backend:
        """The engine of a configuration; with `soft` one that takes calls with vectors. Raises `BackendError` if it
        cannot start, `ConfigError` if the backend has no soft prompts."""
        if soft and config.backend != "vllm":
            raise ConfigError(
                f"method {config.method} puts vectors into its prompts, which needs backend=vllm, not "
                f"backend={config.backend}; add --set backend=vllm"
            )
        wanted = config.model_dump(include={"backend", "model", "tokenizer", config.backend})
        wanted |= {"template": config.template, "length": config.budget + config.max_new_tokens}
        if self._backend is None or wanted != self._wanted or (soft and not self._takes_soft):
            self.close()
            self._takes_soft = (soft or self._soft) and config.backend == "vllm"
            self._backend = _start(config, chat, self._takes_soft)
            self._wanted = wanted
        return self._backend

    def close(self) -> None:
        """Close the engine, if one is running."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None


def _start(config: RunConfig, chat: Chat, soft: bool = False) -> Backend:
    if config.backend == "openai":
        from bench.backends.openai import OpenAIBackend

        return OpenAIBackend(config)
    from bench.backends.vllm import VLLMBackend

    say(f"starting vLLM with {config.model}")
    started = time.perf_counter()
    backend = VLLMBackend(config, chat, soft)
    say(f"vLLM started in {time.perf_counter() - started:.1f} s")
    return backend
