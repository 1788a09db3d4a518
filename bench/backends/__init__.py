"""Where language models run: one backend, one file. `Engines` keeps the one that is running."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

from bench import registry
from bench.chat import Chat
from bench.config import RunConfig
from bench.errors import ConfigError
from bench.protocols import Backend
from bench.softprompt.calls import NEUTRAL

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


def set_environment() -> None:
    """Set `ENVIRONMENT` where the user did not."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


class Engines:
    """The engine at hand: started on the first call that needs it, shared by runs that want the same one.

    A context manager; leaving it closes the engine. With `vectors` every engine whose backend takes vectors is started
    for them, so that runs with and without soft prompts share one; else one that is for text alone is replaced where
    soft prompts come up.
    """

    def __init__(self, vectors: bool = False) -> None:
        self._vectors = vectors
        self._wanted: dict[str, Any] = {}
        self._takes_vectors = False
        self._backend: Backend | None = None

    def __enter__(self) -> Engines:
        set_environment()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, config: RunConfig, chat: Chat, vectors: bool = False) -> Backend:
        """The engine of a configuration; with `vectors` one that takes calls with vectors. Raises `BackendError` if it
        cannot start, `ConfigError` if the backend takes no vectors."""
        check_vectors(config, vectors)
        kind = registry.load("backends", config.backend)
        wanted = {"backend": config.backend, "settings": config.backend_section}
        wanted |= {"engine": config.engine.backend_section}
        wanted |= config.model_dump(include={"model", "tokenizer", "chat_template_kwargs"})
        wanted |= {"template": config.template, "length": config.longest_prompt + config.max_new_tokens}
        if self._backend is None or wanted != self._wanted or (vectors and not self._takes_vectors):
            self.close()
            self._takes_vectors = (vectors or self._vectors) and kind.takes_vectors
            self._backend = kind(config, chat, self._takes_vectors)
            self._wanted = wanted
        return self._backend

    def close(self) -> None:
        """Close the engine, if one is running."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None


def check_vectors(config: RunConfig, vectors: bool) -> None:
    """Raise `ConfigError` for soft prompts on a backend that takes none, or with a penalty of tokens that were there
    before: vLLM takes other requests' tokens for those of a prompt of vectors."""
    if not vectors:
        return
    engine = config.engine
    settings = engine.backend_section.model_dump()
    for given in (settings, settings.get("extra_body") or {}):
        for name, none in NEUTRAL.items():
            if given.get(name, none) not in (none, None):
                raise ConfigError(
                    f"method {config.method} puts vectors into its prompts, which have no tokens that "
                    f"{engine.backend}.{name if given is settings else f'extra_body.{name}'}={given[name]} could "
                    f"penalise; leave it at {none}"
                )
    if not registry.load("backends", config.backend).takes_vectors:
        able = [name for name in registry.names("backends") if registry.load("backends", name).takes_vectors]
        raise ConfigError(
            f"method {config.method} puts vectors into its prompts, which backend={config.backend} does not take; use "
            f"{' or '.join(f'backend={name}' for name in able)}"
        )
