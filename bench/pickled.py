"""Weights that were saved as pytorch_model.bin, a pickle: read without running code, and kept as safetensors."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import ResourceError

if TYPE_CHECKING:
    import torch

SINGLE, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
MODULES = "modules.json"
SAFE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
NOT_COPIED = (
    *("*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack", "*.ot", "*.gguf"),
    *("*.onnx", "*.onnx_data", "onnx/*", "openvino/*", "*.tflite", "*.mlmodel", "*.py", "*.png", "*.jpg", ".git*"),
)
"""Patterns of files that a copy does without: weights in other forms, pictures, code."""
NOT_FETCHED = tuple(pattern for pattern in NOT_COPIED if not pattern.startswith(("*.bin", "*.pt")))
"""What is not fetched of a model whose every file is asked for."""


def is_pickled(names: set[str]) -> bool:
    """Whether of a model's files, by their paths in its folder, only pickles hold the weights."""
    deepest = 2 if MODULES in names else 1
    paths = [Path(name) for name in names if name.endswith((".safetensors", SINGLE, INDEX))]
    weights = [path for path in paths if len(path.parts) <= deepest]
    # What lies deeper belongs to modules behind the model.
    top = min((len(path.parts) for path in weights), default=0)
    return bool(weights) and all(path.name in (SINGLE, INDEX) for path in weights if len(path.parts) == top)


def source_files(folder: Path) -> list[Path]:
    """The files of which a copy is made: weights, and what is copied."""
    files = sorted(path for one in folders(folder) for path in one.iterdir() if path.is_file())
    return [path for path in files if _weights(path) or _copied(path, folder)]


def folders(folder: Path) -> list[Path]:
    """A model's folder and, of a sentence-transformers model, those of its modules. Other folders in it are checkpoints
    of a training, or anything."""
    try:
        modules = json.loads((folder / MODULES).read_text(encoding="utf-8"))
        names = [str(module["path"]) for module in modules]
    except (OSError, ValueError, LookupError, TypeError):
        names = []
    inner = [folder / name for name in names if name and Path(name).name == name]
    return [folder, *(one for one in inner if one.is_dir())]


def _weights(path: Path) -> bool:
    return path.name in (SINGLE, INDEX) or (path.suffix == ".bin" and path.with_name(INDEX).is_file())


def _copied(path: Path, folder: Path) -> bool:
    inside = path.relative_to(folder)
    return not any(inside.match(pattern) for pattern in NOT_COPIED)


def convert(source: Path, name: str, folder: Path) -> None:
    """Write a model into a folder with its weights as safetensors. Raises `ResourceError` for weights that cannot be
    read, or hold more than tensors, `OSError` or `SafetensorError` for a folder that cannot be written."""
    for path in source_files(source):
        place = folder / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.name == SINGLE:
            _save(_tensors(path, name), place.with_name(SAFE))
        elif path.name == INDEX:
            # A single file comes first, as it does in transformers.
            if not path.with_name(SINGLE).is_file():
                _convert_shards(path, name, place.parent)
        elif _copied(path, source):
            shutil.copyfile(path, place)


def _convert_shards(index: Path, name: str, folder: Path) -> None:
    try:
        places = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        shards = sorted(set(places.values()))
        if any(Path(shard).name != shard for shard in shards):
            raise ValueError("it names a file elsewhere")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _broken(name, INDEX, error) from error
    found: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = _tensors(index.parent / shard, name)
        _save(tensors, folder / file)
        found |= dict.fromkeys(tensors, file)
    if missing := sorted(places.keys() - found.keys()):
        raise _broken(name, INDEX, f"no shard has {missing[0]}")
    (folder / SAFE_INDEX).write_text(json.dumps({"metadata": {}, "weight_map": found}), encoding="utf-8")


def _tensors(path: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a pickle, by torch's restricted loader: it makes tensors and plain values, and calls nothing that
    the file names."""
    import torch

    try:
        # Files from before torch 1.6 are no archives, and cannot stay on disk.
        found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None)
    except pickle.UnpicklingError as error:
        raise _refused(name, path.name) from error
    except FileNotFoundError as error:
        raise ResourceError(
            f"model '{name}' misses {path.name}, which {INDEX} names; copy or download it again with its weights"
        ) from error
    # Of a torn file torch raises all kinds.
    except Exception as error:
        raise _broken(name, path.name, error) from error
    if not isinstance(found, dict) or not found:
        raise _refused(name, path.name)
    if not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in found.items()):
        raise _refused(name, path.name)
    return found


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Tensors that share memory are written each for itself, which safetensors asks for."""
    from safetensors.torch import save_file

    seen: set[int] = set()
    alone = {}
    for key, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        alone[key] = tensor.detach().clone().contiguous() if place in seen else tensor.detach().contiguous()
        seen.add(place)
    save_file(alone, path, metadata={"format": "pt"})


def _refused(name: str, file: str) -> ResourceError:
    return ResourceError(
        f"{file} of model '{name}' holds more than tensors, and reading that could run code: it was not loaded. Name "
        "another model, or one with safetensors"
    )


def _broken(name: str, file: str, why: object) -> ResourceError:
    reason = " ".join(str(why).split())[:200] or type(why).__name__
    return ResourceError(f"{file} of model '{name}' cannot be read ({reason}); copy or download it again")
