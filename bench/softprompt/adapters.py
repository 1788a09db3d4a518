"""Adapters on disk, `results/adapters/<readable-name>-<hash>/`:

    adapter.json              first: identity and configuration
    checkpoint.safetensors    the newest: weights, the optimiser's moments, the step (in its metadata)
    log.jsonl                 one row an optimiser step
    epoch-1.safetensors ...   the adapter's weights after each epoch
    training.json             last, atomically: its existence means that training is complete
    loss.png                  losses by step, validation scores by epoch
    validation-<hash>/        by decoding settings: a run's folder an epoch, and selection.json with the chosen epoch

An imported adapter has adapter.json and adapter.safetensors. Nothing here is ever unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import ConfigError, ResourceError, StoreError
from bench.store import read_json, write_atomically

if TYPE_CHECKING:
    import torch

SCHEMA = 1


def is_trained(folder: Path) -> bool:
    """Whether the training of the adapter in `folder` is complete. Raises `StoreError` for another schema's."""
    path = folder / "training.json"
    if not path.exists():
        return False
    if read_json(path).get("schema") != SCHEMA:
        raise StoreError(f"{folder} was written by another version of bench. Move it away to train again")
    return True


def weights_hash(path: Path) -> str:
    """SHA-256 of a weights file, as hex. Raises `ResourceError` if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ResourceError(f"the adapter's weights {path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file. Raises `StoreError` if it is missing or broken."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"adapter weights {path} cannot be read: {error}. Delete the file and run again") from error


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors so that `path` holds either its old or its whole new content. Raises `StoreError`."""
    from safetensors.torch import save

    content = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    write_atomically(path, save(content, metadata=dict(metadata or {})))


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Put the weights of a file into a method's adapter. Raises `ConfigError` if they are of another shape."""
    import torch

    tensors = read_tensors(path)
    try:
        module.load_state_dict({name: tensor.to(torch.float32) for name, tensor in tensors.items()})
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:400]
        raise ConfigError(
            f"the adapter {path} does not fit this configuration (method options, encoder, language model): {problem}"
        ) from None


def imported(folder: Path, method: str) -> dict[str, Any]:
    """The record of an imported adapter. Raises `ConfigError` for a folder that holds none, or another method's."""
    if not (folder / "adapter.json").is_file() or not (folder / "adapter.safetensors").is_file():
        raise ConfigError(
            f"adapter: {folder} holds no imported adapter (adapter.json and adapter.safetensors); make one with "
            "`bench adapter import FOLDER_OR_HUB_ID --method METHOD`"
        )
    record = read_json(folder / "adapter.json")
    if record.get("method") != method:
        raise ConfigError(f"adapter: {folder} is of method {record.get('method')}, not of {method}")
    return record
