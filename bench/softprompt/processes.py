"""Training in several processes, which `accelerate launch` or `torchrun` start: who does what, and an end to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from accelerate import Accelerator

PATIENCE = timedelta(days=2)
"""How long a process waits for the others: as long as the first one takes to embed all reviews. If it fails, the
launcher ends the others."""
LAUNCHERS = ("ACCELERATE_", "TORCHELASTIC_", "GROUP_", "ROLE_", "LOCAL_", "MASTER_")
"""What the names of a launcher's environment variables begin with, but for RANK and WORLD_SIZE."""


def world() -> int:
    """How many processes the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number among them, from 0."""
    return int(os.environ.get("RANK", "0"))


def as_the_first(decide: Callable[[], bool]) -> bool:
    """What the first process decides. All processes have to ask."""
    if world() == 1:
        return decide()
    _check_launched()
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    PartialState(cpu=_on_cpu(), **_group())
    answer: list[Any] = [decide() if rank() == 0 else None]
    return bool(broadcast_object_list(answer)[0])


def accelerator(clip: float) -> Accelerator:
    """Accelerate as the launcher wants it, with nothing taken from its environment that would change the weights.

    With DeepSpeed: ZeRO stage 1, and gradients clipped to the norm `clip`. Raises `ConfigError` for another stage or
    kind of parallelism, `ResourceError` if DeepSpeed is missing.
    """
    from accelerate import Accelerator
    from accelerate.utils import (
        DistributedDataParallelKwargs,
        DistributedType,
        GradientAccumulationPlugin,
        InitProcessGroupKwargs,
    )

    _check_launched()
    made = Accelerator(
        cpu=_on_cpu(),
        mixed_precision="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        deepspeed_plugin=_zero_1(clip) if _deepspeed() else None,
        kwargs_handlers=[
            # Not every batch has rows of every kind, and so gradients for every parameter.
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(**_group()),
        ],
    )
    known = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.DEEPSPEED)
    if made.distributed_type not in known:
        raise ConfigError(
            f"training cannot be spread over processes by {made.distributed_type.value}; launch it with "
            "`accelerate launch --multi_gpu` or `--use_deepspeed --zero_stage 1`"
        )
    if made.num_processes != world():
        raise _not_launched(f"this one finds {made.num_processes}")
    return made


def deepspeed_utils(zero: Any) -> Any:
    """DeepSpeed's functions for the optimiser's state that is spread over the processes, all of which have to call
    them; ready for use with `zero`, DeepSpeed's optimiser, after its first step."""
    utils = import_module("deepspeed.utils")
    # DeepSpeed links parameters to the state once, when the second group of parameters has none yet.
    for parameters, part in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
        utils.lazy_init_hp_params_optimizer_state(parameters, part, zero.optimizer.state)
    return utils


def leave() -> None:
    """End the processes' group and forget the launcher, if there is one: what comes next (vLLM) is this process's own
    affair and would take the launcher's variables for its own."""
    if "RANK" not in os.environ:
        return
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for name in list(os.environ):
        if name in ("RANK", "WORLD_SIZE") or name.startswith(LAUNCHERS):
            del os.environ[name]


def _check_launched() -> None:
    """Raise `ConfigError` where the environment speaks of several processes, but no launcher started them."""
    if world() > 1 and "RANK" not in os.environ:
        raise _not_launched("this one has no number (RANK)")


def _not_launched(but: str) -> ConfigError:
    return ConfigError(
        f"the environment speaks of {world()} processes (WORLD_SIZE), but {but}; start them with `accelerate launch` "
        "or `torchrun`, or unset WORLD_SIZE"
    )


def _deepspeed() -> bool:
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def _on_cpu() -> bool:
    # Told to use the CPU, accelerate would leave DeepSpeed out; without a GPU it comes to the CPU by itself.
    return not torch.cuda.is_available() and not _deepspeed()


def _group() -> dict[str, Any]:
    """How the processes' group is made."""
    by_hand = _deepspeed() and not torch.cuda.is_available()
    return {"timeout": PATIENCE, **({"backend": "gloo"} if by_hand else {})}


def _zero_1(clip: float) -> Any:
    from accelerate.utils import DeepSpeedPlugin, is_deepspeed_available

    if not is_deepspeed_available():
        raise ResourceError("DeepSpeed is not installed; run `pip install deepspeed`, or launch without it")
    environment = os.environ
    if (
        environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "1") != "1"
        or "ACCELERATE_DEEPSPEED_CONFIG_FILE" in environment
    ):
        raise ConfigError(
            "training with DeepSpeed is ZeRO stage 1 and takes its settings from the configuration; launch it with "
            "`accelerate launch --use_deepspeed --zero_stage 1`"
        )
    plugin = DeepSpeedPlugin(
        zero_stage=1,
        gradient_accumulation_steps=1,
        gradient_clipping=clip,
        offload_optimizer_device="none",
        offload_param_device="none",
    )
    # Nothing here goes by these, but without a data loader they have to be set.
    plugin.deepspeed_config |= {"train_micro_batch_size_per_gpu": 1, "train_batch_size": world()}
    return plugin
