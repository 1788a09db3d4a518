"""What the parts do with an engine: texts in passes, and greedy tokens of soft prompts beside transformers' own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from bench.backends import Engines
from bench.backends.vllm import VLLMBackend
from bench.chat import Chat
from bench.config import RunConfig, build, read_config
from bench.gpu_check.plan import Plan
from bench.job import Job
from bench.loop import Loop
from bench.models import context_length
from bench.records import Call
from bench.resolved import Inputs, Run
from bench.softprompt.trainer import frozen_model
from bench.store import RunStore
from bench.timing import memory
from bench.timing.watches import WatchedBackend
from bench.work import Work

UTILIZATION, FREE_SHARE = 0.9, 0.95
"""Of the GPU's memory an engine gets so much, less where others use it: then so much of what is free."""


def device() -> str:
    """Where models of this process run."""
    return "cuda" if memory.has_gpu() else "cpu"


def settings(plan: Plan, model: str, dtype: str, **more: Any) -> dict[str, Any]:
    """The demo's configuration with a model at the check's size. In float32 no kernel is compiled: the plainest engine
    is the one that has to be equal."""
    section: dict[str, Any] = {"dtype": dtype, "enforce_eager": dtype == "float32" or not memory.has_gpu()}
    if memory.has_gpu():
        free, total = torch.cuda.mem_get_info()
        section["gpu_memory_utilization"] = round(min(UTILIZATION, FREE_SHARE * free / total), 2)
    sizes = plan.sizes
    # A model that was named may have a shorter context.
    context = context_length(model) or sizes.input_budget + sizes.max_new_tokens
    new = {"max_new_tokens": sizes.max_new_tokens, "metrics": [], "k": sizes.k}
    new |= {"input_budget": min(sizes.input_budget, context - sizes.max_new_tokens)}
    return read_config("demo") | {"model": model, "results": plan.work, "vllm": section} | new | more


def job_of(given: Mapping[str, Any], inputs: Inputs, **more: Any) -> Job:
    """The job of `rag`, whose prompts are of text alone."""
    return Job(Run(build(given, {"method": "rag"}, more), inputs), None)


@dataclass
class Pass:
    """The texts of a pass by instance, and its figures."""

    texts: dict[str, str]
    figures: dict[str, float]


def one_pass(job: Job, backend: VLLMBackend, folder: Path) -> Pass:
    """The texts of a job's instances, as a run makes them; the answers that lie in `folder` are taken over."""
    watch = WatchedBackend(backend)
    with RunStore(folder, job.record()) as store:
        loop = Loop(job.run, store, lambda: watch, job.vectors, job.label)  # type: ignore[arg-type,return-value]
        started = perf_counter()
        rows = loop.predictions()
        seconds = perf_counter() - started
    figures = {
        "texts": len(rows),
        "answered": watch.answers,
        "seconds": seconds,
        "prompt_tokens": watch.prompt_tokens / max(watch.answers, 1),
        "new_tokens": watch.output_tokens / max(watch.answers, 1),
        "prompt_tokens_per_second": watch.prompt_tokens / seconds,
        "new_tokens_per_second": watch.output_tokens / seconds,
    }
    return Pass({row.instance: row.prediction for row in rows}, figures)


def start(engines: Engines, config: RunConfig, chat: Chat) -> tuple[VLLMBackend, dict[str, Any]]:
    """An engine that takes soft prompts too, and the figures of its start."""
    memory.forget_peak()
    before, started = memory.gpus_in_use(), perf_counter()
    backend = engines.get(config, chat, vectors=True)
    assert isinstance(backend, VLLMBackend)
    figures: dict[str, Any] = {"start_seconds": perf_counter() - started}
    return backend, figures | gpu_memory("after_start", before)


def gpu_memory(when: str, before: int | None = None) -> dict[str, Any]:
    """Bytes of memory: the GPU's, or without one the process's."""
    if not memory.has_gpu():
        return {f"memory_bytes_{when}": memory.peak()}
    in_use = memory.gpus_in_use()
    return {
        f"gpu_bytes_allocated_at_most_{when}": torch.cuda.max_memory_allocated(),
        f"gpu_bytes_in_use_{when}": in_use,
        f"gpu_bytes_in_use_before_{when}": before,
    }


# -- the same seeds in other company -----------------------------------------------------------------------------------


def same_seeds(given: Mapping[str, Any], inputs: Inputs, backend: VLLMBackend, folder: Path) -> dict[str, Any]:
    """How many of the texts of one pass another pass makes too: the same again, each prompt alone, all in reverse
    order, and half of them after a run that was killed; the speed of two of them."""
    together = job_of(given, inputs)
    first = one_pass(together, backend, folder / "together")
    again = one_pass(together, backend, folder / "again")
    alone = one_pass(job_of(given, inputs, window=1), backend, folder / "alone")
    turned = job_of(given, inputs)
    turned.run.instances.reverse()
    backwards = one_pass(turned, backend, folder / "backwards")
    _kill_halfway(folder / "together", folder / "resumed")
    resumed = one_pass(together, backend, folder / "resumed")
    passes = {"again": again, "alone": alone, "reversed": backwards, "resumed": resumed}
    return {
        "texts": len(first.texts),
        "different_texts": len(set(first.texts.values())),
        "equal": {
            name: sum(one.texts[key] == text for key, text in first.texts.items()) for name, one in passes.items()
        },
        "asked_again_after_the_kill": resumed.figures["answered"],
        # The first pass warms up.
        "together": again.figures,
        "alone": alone.figures,
    }


def _kill_halfway(run: Path, killed: Path) -> None:
    """Leave in `killed` what a run leaves that is killed when it has half of its answers."""
    killed.mkdir()
    shutil.copy(run / "run.json", killed)
    lines = (run / "generations.jsonl").read_bytes().splitlines(keepends=True)
    (killed / "generations.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))


# -- soft prompts against transformers ---------------------------------------------------------------------------------


@dataclass
class Greedy:
    """Token ids, and for each by how much its logit leads the next one's."""

    tokens: list[int]
    leads: list[float]


def soft_calls(job: Job, count: int, tokens: int) -> list[Call]:
    """The first calls of a job with vectors, greedy, of at most so many new tokens."""
    assert job.vectors is not None
    calls = []
    for instance in job.run.instances[:count]:
        (call,) = Work(job.run, instance).advance()
        vectors, marks = job.vectors.of(call.prompt, instance), job.vectors.marks
        calls.append(replace(call, vectors=vectors, marks=marks, temperature=0.0, max_new_tokens=tokens))
    return calls


def by_transformers(calls: Sequence[Call], chat: Chat, model: str, dtype: str) -> list[Greedy]:
    """What `generate(inputs_embeds=...)` answers, one call at a time; the model is gone afterwards."""
    loaded = frozen_model(model, getattr(torch, dtype), torch.device(device()))
    with torch.inference_mode():
        found = [_generate(call, chat, loaded) for call in calls]
    del loaded
    memory.free_gpu()
    return found


def _generate(call: Call, chat: Chat, model: Any) -> Greedy:
    ids = chat.ids(call.prompt)
    table = model.get_input_embeddings()
    taken = chat.vectors_at(call, ids, len(table.weight))
    plain = torch.tensor([0 if place in taken else token for place, token in enumerate(ids)], device=model.device)
    embeds = table(plain)
    embeds[list(taken)] = torch.tensor(np.array(list(taken.values())), dtype=embeds.dtype, device=model.device)
    output = model.generate(
        inputs_embeds=embeds[None],
        attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=model.device),
        do_sample=False,
        max_new_tokens=call.max_new_tokens,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.stack([logits[0] for logits in output.logits]).float().topk(2).values
    return Greedy(output.sequences[0].tolist(), (best[:, 0] - best[:, 1]).tolist())


def by_engine(calls: Sequence[Call], backend: VLLMBackend) -> list[list[int]]:
    """The token ids that the engine answers, all calls together."""
    tokens: dict[str, list[int]] = {}
    step = backend.engine.step

    def watched() -> list[Any]:
        outputs: list[Any] = step()
        tokens.update({output.request_id: list(output.outputs[0].token_ids) for output in outputs if output.finished})
        return outputs

    backend.engine.step = watched
    try:
        for call in calls:
            backend.submit(call)
        answered = 0
        while answered < len(calls):
            answered += len(list(backend.completed()))
    finally:
        backend.engine.step = step
    return [tokens["\x1f".join(str(part) for part in call.key)] for call in calls]


def compared(expected: Sequence[Greedy], got: Sequence[Sequence[int]]) -> dict[str, Any]:
    """How many answers are equal token by token, and where the others part: the first token that differs, counted from
    1, and by how much transformers' logit leads there."""
    parted = []
    for ours, theirs in zip(expected, got, strict=True):
        # An end that comes earlier is a token that differs.
        pairs = zip_longest(ours.tokens, theirs)
        place = next((place for place, (one, other) in enumerate(pairs) if one != other), None)
        if place is not None:
            parted.append({"token": place + 1, "lead": ours.leads[min(place, len(ours.leads) - 1)]})
    return {
        "prompts": len(expected),
        "equal": len(expected) - len(parted),
        "parted": parted,
        "new_tokens": sum(len(one.tokens) for one in expected) / len(expected),
        "different_answers": len({tuple(one.tokens) for one in expected}),
        "smallest_lead": min(min(one.leads) for one in expected),
    }
