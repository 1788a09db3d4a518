"""Ray, for `backend=ray` alone: the cluster that RAY_ADDRESS names, else one of this machine's own.

A local cluster listens on loopback, has no dashboard, tells nobody of itself, wants a token of its own from whoever
connects, and leaves neither a process nor a file behind, also where this process is killed (`bench.cluster_end`).
"""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import cluster_end
from bench.errors import BackendError, ConfigError, ResourceError
from bench.models import PACKAGE_PREFIX

if TYPE_CHECKING:
    from bench.config import RunConfig

LOOPBACK = "127.0.0.1"
ADDRESS = "RAY_ADDRESS"
NEEDED = "backend=ray needs the package ray; run `make setup EXTRAS=ray`, or pip install '.[ray]'"
OBJECTS = 512 << 20
"""Bytes of shared memory at most for what is on its way to the engines of a local cluster."""
TRIES = 3
"""Ray gives its processes 30 seconds to begin, which a busy machine may not have for them."""
SHORT = "/tmp"
"""Where a local cluster has its folder: the names of sockets in it may have 107 characters."""
_TOKEN = secrets.token_hex(32)
"""What the parts of a local cluster know each other by. One for the whole process: Ray reads it once."""
_TOLD: list[Any] = []
"""The module ray, once it was imported with the settings of a local cluster."""


def check() -> None:
    """Raise `ResourceError` where Ray is not installed, `ConfigError` for an address that cannot be joined."""
    if importlib.util.find_spec("ray") is None:
        raise ResourceError(NEEDED)
    if (address := os.environ.get(ADDRESS, "")).startswith("ray://"):
        raise ConfigError(
            f"{ADDRESS}={address} is that of Ray's client, through which no engine can be reached; run this on a node "
            f"of the cluster with {ADDRESS}=auto, or give the head's HOST:PORT (6379 unless it was started otherwise)"
        )


def is_local() -> bool:
    """Whether a cluster would be this machine's own."""
    return os.environ.get(ADDRESS, "") in ("", "local")


@contextmanager
def joined() -> Iterator[Any]:
    """The module ray, connected while the block runs; to what this process is connected to already, where it is.
    Raises `BackendError` for a cluster that cannot be reached or started, and what `check` does."""
    check()
    if not is_local():
        with _member() as member:
            yield member
        return
    own = {
        # Ray's name for it: without a network of nodes a cluster has loopback's address, and listens nowhere else.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's own would have engines wait for every other process of the machine.
        "RAY_worker_niceness": "0",
    }
    if not any(name.startswith("RAY_AUTH_") for name in os.environ):
        own |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}
    before = sys.modules.get("ray")
    with _environment(own):
        import ray

        if ray.is_initialized():
            yield ray
            return
        # It reads its environment once, when it is imported, and vLLM imports it too.
        if before is not None and before not in _TOLD:
            raise BackendError(
                "Ray was imported in this process before bench could tell it to listen on loopback alone and to want a "
                "token (vLLM imports it too); use backend=ray in a process of its own"
            )
        _TOLD.append(ray)
        with _local(ray):
            yield ray


@contextmanager
def _member() -> Iterator[Any]:
    import ray

    if ray.is_initialized():
        yield ray
        return
    address = os.environ[ADDRESS]
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise BackendError(f"the Ray cluster at {ADDRESS}={address} cannot be joined: {brief(error)}") from error
    try:
        with _silent(ray):
            yield ray
    finally:
        ray.shutdown()


@contextmanager
def _local(ray: Any) -> Iterator[None]:
    folder = tempfile.mkdtemp(prefix="bench-ray-", dir=SHORT)
    # A session of its own: what ends this process's group, Ctrl-C too, is not for it.
    watcher = subprocess.Popen(
        [sys.executable, "-S", "-E", str(Path(cluster_end.__file__)), folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert watcher.stdin is not None
    try:
        for left in reversed(range(TRIES)):
            try:
                # What this process starts later on is not of the cluster.
                with _environment({cluster_end.MARK: folder}):
                    _start(ray, folder)
                break
            except Exception as error:  # Ray's own are of any kind
                ray.shutdown()
                cluster_end.kill(folder)
                if isinstance(error, BackendError):
                    raise
                if not left:
                    raise BackendError(
                        f"Ray could not start on this machine: {brief(error)} `bench doctor` says what works here"
                    ) from error
        with _silent(ray):
            yield
    finally:
        try:
            ray.shutdown()
        finally:
            watcher.stdin.close()
            watcher.wait()


@contextmanager
def _silent(ray: Any) -> Iterator[None]:
    """Keep Ray from printing on standard output, which is for results, what became of processes: whoever asks them
    says it. There is no setting for it."""
    worker = ray._private.worker
    printed = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = printed


def _start(ray: Any, folder: str) -> None:
    context = ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECTS,
        _node_ip_address=LOOPBACK,
        _temp_dir=folder,
    )
    if (address := context.address_info["node_ip_address"]) != LOOPBACK:
        raise BackendError(
            f"Ray would listen on {address}, because it was imported before bench could tell it not to; import ray "
            "after the run, or not at all"
        )


def portable(config: RunConfig) -> dict[str, Any]:
    """A configuration as JSON, whose paths hold in any folder and on any node that has the files in the same place."""
    settings = config.model_dump(mode="json")
    for name in ("model", "tokenizer", "dataset"):
        given = settings[name]
        embedded = given is None or given == "demo" or given.startswith(PACKAGE_PREFIX)
        if not embedded and Path(given).exists():
            settings[name] = str(Path(given).resolve())
    for name in ("results", "prompts", "adapter"):
        if settings[name] is not None:
            settings[name] = str(Path(settings[name]).resolve())
    return settings


def gpus(ray: Any) -> list[int]:
    """How many GPUs each node of the cluster has."""
    return [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]


def cores(ray: Any) -> list[int]:
    """How many cores each node of the cluster has."""
    return [int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"]]


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment while the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def brief(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
