"""The trainings of a table as Ray tasks, side by side (`backend=ray`): a GPU each, or a core where there is no GPU.

A task reads data and writes its adapter where this process would: on a cluster the folder of results has to lie on a
path that the nodes share. A task whose process dies is begun again, from its last checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import cluster
from bench.config import RunConfig
from bench.errors import BenchError
from bench.progress import duration

RETRIES = 3


def train_each(configs: Sequence[RunConfig], say: Callable[[str], None]) -> None:
    """Train the adapters of these configurations. Raises `BenchError` for the first that fails; the others are ended,
    and go on from their checkpoints the next time."""
    with cluster.joined() as ray:
        need = {"num_cpus": 0, "num_gpus": 1} if any(cluster.gpus(ray)) else {"num_cpus": 1}
        task = ray.remote(max_retries=RETRIES, **need)(train_one)
        say(f"training {len(configs)} adapters side by side: {', '.join(config.method for config in configs)}")
        started = time.perf_counter()
        waiting = {task.remote(cluster.portable(config)): config for config in configs}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            config = waiting.pop(done)
            try:
                problem = ray.get(done)
            except ray.exceptions.RayError as error:
                problem = f"the training of {config.method} ended {RETRIES + 1} times: {cluster.brief(error)}"
            if problem:
                for reference in waiting:
                    ray.cancel(reference, force=True)
                raise BenchError(problem)
            say(f"{config.method}: trained after {duration(time.perf_counter() - started)}")


def train_one(settings: Mapping[str, Any]) -> str:
    """In the task: train the adapter of a configuration, as JSON. What went wrong, "" if nothing did."""
    from bench.backends import set_environment

    set_environment()
    from bench.execute import train_adapter
    from bench.job import Job

    try:
        adapter = Job.of(RunConfig.model_validate(settings)).trains
        assert adapter is not None
        train_adapter(adapter)
    except BenchError as error:
        return str(error)
    return ""
