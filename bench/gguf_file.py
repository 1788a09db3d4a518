"""GGUF, the one-file form of language models: what its header says, and how it is unpacked.

The header is read here, without a package: what asks for a model's name or context alone must be quick. The layout:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import mmap
import struct
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from bench import machine
from bench.errors import ResourceError

SUFFIX = ".gguf"
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Formats of `struct` by the number of a value's type."""
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_ENDS = "it ends in its header"


class _Reader:
    """Reads on from a place in a file. Raises `struct.error` or `ValueError` for what is not there."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.place = 0

    def number(self, form: str) -> Any:
        (value,) = struct.unpack_from(f"<{form}", self._data, self.place)
        self.place += struct.calcsize(f"<{form}")
        return value

    def skip(self, length: int) -> None:
        self.place += length
        if self.place > len(self._data):
            raise ValueError(_ENDS)

    def string(self) -> str:
        length = self.number("Q")
        self.skip(length)
        return self._data[self.place - length : self.place].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """A value; of an array its length alone."""
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.number(_NUMBERS[kind])
        inner, count = self.number("I"), self.number("Q")
        if inner in _NUMBERS:
            self.skip(count * struct.calcsize(f"<{_NUMBERS[inner]}"))
            return count
        for _ in range(count):
            self.skip(self.number("Q")) if inner == _STRING else self.value(inner)
        return count


def header(path: Path, name: str) -> Mapping[str, Any]:
    """The values of a file's header, of arrays their lengths; `name` is the model's. Raises `ResourceError` for a file
    that is none, is cut off before its last tensor, or is a part of a model."""
    about = path.stat()
    return _header(path, name, about.st_size, about.st_mtime_ns)


@cache
def _header(path: Path, name: str, size: int, _: int) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            values, needed = _read(_Reader(data))
    except OSError as error:
        raise ResourceError(f"model '{name}' cannot be read: {error.strerror or error}") from error
    except (struct.error, ValueError, KeyError, RecursionError) as error:
        why = _ENDS if isinstance(error, struct.error) else " ".join(str(error).split())
        raise ResourceError(f"model '{name}' is not a whole GGUF file ({why}); copy or download it again") from error
    if needed > size:
        raise ResourceError(
            f"model '{name}' is cut off: it has {size:,} bytes of more than {needed:,}; copy or download it again"
        )
    parts = values.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise ResourceError(
            f"model '{name}' is one of {parts} parts of a model; join them (llama-gguf-split --merge) and name the "
            "whole file"
        )
    return values


def _read(reader: _Reader) -> tuple[dict[str, Any], int]:
    """The header's values, and the byte at which the last tensor begins."""
    if reader.number("4s") != b"GGUF":
        raise ValueError("it does not begin as one")
    version = reader.number("I")
    if version not in _VERSIONS:
        raise ValueError(f"its version is {version}; {' and '.join(map(str, _VERSIONS))} are known")
    tensors, count = reader.number("Q"), reader.number("Q")
    values = {}
    for _ in range(count):
        key = reader.string()
        values[key] = reader.value(reader.number("I"))
    last = 0
    for _ in range(tensors):
        reader.string()
        dimensions = reader.number("I")
        reader.skip(8 * dimensions + 4)
        last = max(last, reader.number("Q"))
    alignment = int(values.get("general.alignment", _ALIGNMENT)) or _ALIGNMENT
    return values, -(-reader.place // alignment) * alignment + last


def context_length(path: Path, name: str) -> int | None:
    """How many tokens the model takes; None if its header does not say. Raises `ResourceError` as `header` does."""
    values = header(path, name)
    found = values.get(f"{values.get('general.architecture')}.context_length")
    return found if isinstance(found, int) else None


def check(path: Path, name: str) -> None:
    """Raise `ResourceError` for a file that cannot be unpacked, as far as its header tells, or without the package
    that unpacks it."""
    header(path, name)
    if importlib.util.find_spec("gguf") is None:
        raise ResourceError(
            f"model '{name}' is a GGUF file, and the Python package gguf, which reads it, is not installed; run `make "
            "setup`, or in an environment of your own: pip install gguf"
        )


def unpack(path: Path, name: str, folder: Path) -> None:
    """Write the model into a folder: weights as safetensors in bfloat16, the tokenizer, its chat template. Raises
    `ResourceError` for a file that cannot be read, `OSError` or `SafetensorError` for a folder that cannot be written.
    """
    check(path, name)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    _draw_no_bar()
    source: dict[str, Any] = {"gguf_file": path.name, "trust_remote_code": False, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **source)
        # Without `dequantize` the model counts as quantised and is not saved.
        whole = GgufConfig(gguf_file=path.name, dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(
            str(path.parent), quantization_config=whole, dtype=torch.bfloat16, **source
        )
    # Each version of transformers has errors of its own for files of others.
    except Exception as error:
        raise ResourceError(f"model '{name}' {_why(path, name, error)}") from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model, tokenizer
    gc.collect()
    machine.give_back_memory()


def _draw_no_bar() -> None:
    """The one bar that transformers draws whatever its own setting says."""
    from transformers import modeling_gguf_pytorch_utils as reading

    if hasattr(reading, "tqdm"):
        reading.tqdm = partial(reading.tqdm, disable=True)


def _why(path: Path, name: str, error: Exception) -> str:
    architecture = header(path, name).get("general.architecture")
    version = importlib.metadata.version("transformers")
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if f"architecture {architecture} is not supported" in reason:
        return (
            f"is of the architecture {architecture}, which transformers {version} does not read from GGUF; name the "
            "folder or the hub id of the model that it was made of"
        )
    return (
        f"cannot be unpacked by transformers {version} ({reason}); copy or download the file again, or name the folder "
        "or the hub id of the model that it was made of"
    )
