"""Adapters on disk, `results/adapters/<readable-name>-<hash>/`:

    adapter.json              first: identity and configuration
    marks.safetensors         vectors of the method's marks, where the language model has no embeddings for them
    checkpoint.safetensors    the newest: weights, the optimiser's moments; in its metadata the step, and checksums
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
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import MEND, ConfigError, DamagedError, StoreError
from bench.files import ABSENT, problem_of, sealed_lines, unreadable, whole_lines, write_held
from bench.results import SCHEMA, AdapterRecord, TrainingRecord, TrainingStep, row_in, rows_of

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
    def marks(self) -> Path:
        """The vectors of the method's marks that the language model has no embeddings for."""
        return self.folder / "marks.safetensors"

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
        write_held(self.folder / "adapter.json", record.text())

    @property
    def log(self) -> Path:
        """The optimiser steps."""
        return self.folder / "log.jsonl"

    def steps(self) -> list[TrainingStep]:
        """The optimiser steps that are logged. Raises `StoreError`."""
        return list(rows_of(TrainingStep, self.log, self.folder.name))

    def steps_until(self, last: int) -> list[TrainingStep]:
        """The optimiser steps of a checkpoint; what is logged beyond it is left out. Raises `DamagedError` if one of
        them is not as it was written."""
        found = [row_in(TrainingStep, line, self.folder.name) for line in whole_lines(self.log)]
        steps = [row for row in found if row is not None and row.step <= last]
        if [row.step for row in steps] != list(range(1, last + 1)):
            raise DamagedError(self.log, f"it does not hold the {last} steps before the checkpoint")
        return steps

    def write_steps(self, steps: Sequence[TrainingStep]) -> None:
        """Raises `StoreError`."""
        write_held(self.log, sealed_lines((step.json_object() for step in steps), self.folder.name))

    def training(self) -> TrainingRecord | None:
        """The training, if it is complete. Raises `StoreError`."""
        path = self.folder / "training.json"
        return TrainingRecord.read(path) if path.exists() else None

    def write_training(self, record: TrainingRecord) -> None:
        """Declare the training complete. Raises `StoreError`."""
        write_held(self.folder / "training.json", record.text())

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


def read_tensors(path: Path, mend: str = MEND) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file. Raises `DamagedError`, which says how to `mend` it, if it is missing or broken
    or a number in it is not finite."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        # Not a mapped file: what is checked is what is used, whatever becomes of the file.
        tensors = load(path.read_bytes())
    except (SafetensorError, *ABSENT) as error:
        raise DamagedError(path, problem_of(error), mend) from error
    except OSError as error:
        raise unreadable(path, error) from error
    if name := not_finite(tensors):
        raise DamagedError(path, f"{name} holds numbers that are not finite", mend)
    return tensors


def not_finite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The name of the first tensor with a number that is not finite, if there is one."""
    return next((name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())), None)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write tensors so that `path` holds either its old or its whole new content; the SHA-256 of the file, as hex.
    Raises `StoreError`."""
    from safetensors.torch import save

    content = save({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, dict(metadata or {}))
    write_held(path, content)
    return hashlib.sha256(content).hexdigest()


def write_checkpoint(path: Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and a JSON object about them, with a checksum over both. Raises `StoreError`."""
    text = json.dumps(about, sort_keys=True)
    write_tensors(path, tensors, {"about": text, "sha256": _tensors_hash(tensors, text)})


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What `write_checkpoint` wrote. Raises `DamagedError` for anything else."""
    from safetensors import safe_open

    tensors = read_tensors(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("sha256") != _tensors_hash(tensors, metadata.get("about", "")):
        raise DamagedError(path, "it does not have the content of its checksum")
    about: dict[str, Any] = json.loads(metadata["about"])
    return tensors, about


def _tensors_hash(tensors: Mapping[str, torch.Tensor], about: str) -> str:
    import torch

    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_weights(module: torch.nn.Module, path: Path, mend: str = MEND) -> None:
    """Put the weights of a file into a method's adapter. Raises `ConfigError` if they are of another shape,
    `DamagedError`, which says how to `mend` them, if they cannot be used."""
    import torch

    tensors = read_tensors(path, mend)
    try:
        module.load_state_dict({name: tensor.to(torch.float32) for name, tensor in tensors.items()})
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:400]
        raise ConfigError(
            f"the adapter {path} does not fit this configuration (method options, encoder, language model): {problem}"
        ) from None
