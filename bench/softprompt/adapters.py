"""Adapters on disk, `results/adapters/<readable-name>-<hash>/`:

    adapter.json              first: identity and configuration
    checkpoint.safetensors    the newest: weights, the optimiser's moments, the step (in its metadata)
    log.jsonl                 one row an optimiser step
    epoch-1.safetensors ...   the adapter's weights after each epoch
    training.json             last, atomically: its existence means that training is complete
    loss.png                  losses by step, validation scores by epoch
    validation-<hash>/        by decoding settings: a run's folder an epoch, and selection.json with the chosen epoch

An imported adapter has adapter.json and adapter.safetensors. What the files hold is in `bench.results`. Nothing here is
ever unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import ConfigError, ResourceError, StoreError
from bench.files import as_lines, write_atomically
from bench.results import SCHEMA, AdapterRecord, TrainingRecord, TrainingStep, rows_of

if TYPE_CHECKING:
    import torch


def adapter_folder(results: Path, name: str) -> Path:
    """The folder of an adapter among the results."""
    return results / "adapters" / name


@dataclass(frozen=True)
class AdapterFiles:
    """The files in an adapter's folder."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "checkpoint.safetensors"

    @property
    def picture(self) -> Path:
        """Losses and validation scores."""
        return self.folder / "loss.png"

    @property
    def imported(self) -> Path:
        """The weights of an imported adapter."""
        return self.folder / "adapter.safetensors"

    def weights(self, epoch: int) -> Path:
        """The weights of a trained adapter after an epoch."""
        return self.folder / f"epoch-{epoch}.safetensors"

    def record(self) -> AdapterRecord | None:
        """What the adapter is, if that is written yet. Raises `StoreError`."""
        path = self.folder / "adapter.json"
        return AdapterRecord.read(path) if path.exists() else None

    def write_record(self, record: AdapterRecord) -> None:
        """Raises `StoreError`."""
        write_atomically(self.folder / "adapter.json", record.text())

    def steps(self) -> list[TrainingStep]:
        """The optimiser steps that are logged. Raises `StoreError`."""
        return list(rows_of(TrainingStep, self.folder / "log.jsonl"))

    def write_steps(self, steps: Sequence[TrainingStep]) -> None:
        """Raises `StoreError`."""
        write_atomically(self.folder / "log.jsonl", as_lines(step.json_object() for step in steps))

    def training(self) -> TrainingRecord | None:
        """The training, if it is complete. Raises `StoreError`."""
        path = self.folder / "training.json"
        return TrainingRecord.read(path) if path.exists() else None

    def write_training(self, record: TrainingRecord) -> None:
        """Declare the training complete. Raises `StoreError`."""
        write_atomically(self.folder / "training.json", record.text())

    @property
    def is_trained(self) -> bool:
        """Whether the training is complete. Raises `StoreError` for a folder of an older schema, complete or not: it is
        neither used nor gone on with."""
        training = self.training()
        for record in (self.record(), training):
            if record is not None and record.schema_version != SCHEMA:
                raise StoreError(
                    f"{self.folder} was written by schema {record.schema_version} of bench, this version writes "
                    f"{SCHEMA}. Move the folder away to train again; nothing in it was changed"
                )
        return training is not None


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
