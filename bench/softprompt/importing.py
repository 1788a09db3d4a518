"""Adapters out of checkpoints that others published: a whole language model in safetensors shards, with the adapter's
tensors among its own (the layout of the released DEP model). Only these tensors are read; nothing is unpickled and no
code that lies beside them is run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.errors import ConfigError, ResourceError
from bench.hub import Repository
from bench.models import local_folder
from bench.progress import say
from bench.softprompt.adapters import adapter_folder, not_finite
from bench.softprompt.trained import ImportedAdapter

if TYPE_CHECKING:
    import torch

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


def import_adapter(source: str, method: str, results: Path) -> Path:
    """Read a method's adapter out of a checkpoint, a folder or hub id; the folder it is kept in.

    Raises `ConfigError` for a method without an adapter, `ResourceError` for a checkpoint that cannot be read, has no
    such tensors or numbers in them that are not finite.
    """
    plugin = _trained(method)
    checkpoint = _Checkpoint(source)
    # Before torch is imported, which takes seconds: where the hub cannot be reached, that ends it.
    checkpoint.find()
    names = _names(plugin)
    tensors: dict[str, torch.Tensor] = {}
    for file, wanted in checkpoint.files(names).items():
        tensors |= checkpoint.read(file, wanted)
    if name := not_finite(tensors):
        raise ResourceError(f"{checkpoint.label}: {name} holds numbers that are not finite; fetch it again")
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().view(-1).float().numpy().tobytes())
    label = Path(source.partition("@")[0]).resolve().name
    folder = adapter_folder(results, f"imported-{method}-{label}-{digest.hexdigest()[:10]}")
    ImportedAdapter.write(folder, method, tensors, checkpoint.label)
    say(f"{sum(tensor.numel() for tensor in tensors.values()):,} parameters in {len(tensors)} tensors")
    return folder


def _trained(method: str) -> Any:
    plugin = registry.create("methods", method, {})
    if not hasattr(plugin, "adapter"):
        able = [name for name in registry.names("methods") if hasattr(registry.load("methods", name), "adapter")]
        raise ConfigError(f"method {method} has no adapter; methods that have one: {', '.join(able)}")
    return plugin


def _names(plugin: Any) -> list[str]:
    """The names of the adapter's tensors, which do not depend on their sizes."""
    import torch

    with torch.device("meta"):
        return list(plugin.adapter(4, 8).state_dict())


class _Checkpoint:
    """The safetensors files of a folder or a hub repository."""

    def __init__(self, source: str) -> None:
        self._folder = local_folder(source)
        self._repository, _, revision = source.partition("@")
        self._revision = revision or None
        self.label = source if self._folder is None else self._folder.resolve().name

    def find(self) -> None:
        """Raise `ResourceError` for a checkpoint that is not there or has no safetensors."""
        if self._path(INDEX) is None and self._path(SINGLE) is None:
            raise ResourceError(
                f"{self.label} holds no safetensors checkpoint (neither {INDEX} nor {SINGLE}); other formats could "
                "run code when they are read and are not supported"
            )

    def files(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Which of `names` are in which file. Raises `ResourceError` if one of them is missing."""
        index = self._path(INDEX)
        if index is not None:
            try:
                places: dict[str, str] = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
            except (OSError, ValueError, LookupError, TypeError) as error:
                raise ResourceError(f"{self.label}: {INDEX} cannot be read ({error}); fetch it again") from error
        else:
            places = dict.fromkeys(self._held(SINGLE), SINGLE)
        missing = [name for name in names if name not in places]
        if missing:
            raise ResourceError(
                f"{self.label} misses {len(missing)} of the adapter's {len(names)} tensors, such as {missing[0]}: it "
                "is not a checkpoint of this method"
            )
        files: dict[str, list[str]] = {}
        for name in names:
            # A name of a file and no path: an index from outside must not lead anywhere else.
            files.setdefault(Path(str(places[name])).name, []).append(name)
        return files

    def read(self, file: str, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Some tensors of a file, without reading the others."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._existing(file), "pt") as opened:
                return {name: opened.get_tensor(name) for name in names}
        except (OSError, SafetensorError) as error:
            raise ResourceError(f"{self.label}: {file} cannot be read ({error}); fetch it again") from error

    def _held(self, file: str) -> list[str]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._existing(file), "pt") as opened:
                return list(opened.keys())
        except (OSError, SafetensorError) as error:
            raise ResourceError(f"{self.label}: {file} cannot be read ({error}); fetch it again") from error

    def _existing(self, file: str) -> Path:
        path = self._path(file)
        if path is None:
            raise ResourceError(f"{self.label}: {file} is missing, though the index names it; fetch it again")
        return path

    def _path(self, file: str) -> Path | None:
        if self._folder is not None:
            path = self._folder / file
            return path if path.is_file() else None
        repository = Repository("model", self._repository, "give a local folder")
        return repository.file(file, self._revision)
