"""Names of models, for every part that loads one: the language model, encoders, BERTScore's model.

A name is a local folder, a hub id "org/name" or "org/name@revision", or "python:PACKAGE/folder", a folder inside an
installed Python package. Code from the hub is never run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

from bench import hub
from bench.errors import ResourceError
from bench.files import path_of

PACKAGE_PREFIX = "python:"
SMALL = 64 << 20
"""Bytes of weights below which a language model is a small one."""
SAMPLE, SAMPLE_EVERY = 1 << 12, 1 << 20
WEIGHTS = {
    "consolidated*.safetensors": "consolidated.safetensors.index.json",
    "*.safetensors": "model.safetensors.index.json",
    "*.bin": "pytorch_model.bin.index.json",
    "*.pt": None,
}
"""Files of weights in the order in which vLLM looks for them, with the index that names them all where there are
several. It loads the first kind that a folder has."""
NO_WEIGHTS = {"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"}
"""What a training leaves beside the weights."""


def local_folder(name: str) -> Path | None:
    """The folder that `name` stands for; None for a hub id. Raises `ResourceError` for a package or a folder in it
    that is not there."""
    if name.startswith(PACKAGE_PREFIX):
        package, _, inside = name.removeprefix(PACKAGE_PREFIX).partition("/")
        # A dotted name would import its parent; what is not a name is not a package either.
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        places = list(spec.submodule_search_locations or []) if spec else []
        if not places:
            raise ResourceError(f"model '{name}': the Python package {package} is not installed; run `make setup`")
        folder = Path(places[0]) / inside
        if not folder.is_dir():
            raise ResourceError(
                f"model '{name}': the Python package {package} has no folder '{inside}'; reinstall it or name "
                "another model"
            )
        return folder
    folder = path_of(name)
    if folder.is_dir():
        return folder
    if name.startswith((".", "/", "~")) or name.partition("@")[0].count("/") != 1:
        raise ResourceError(f"model '{name}' is neither a folder that exists nor a hub id of the form org/name")
    return None


def resolve_model(name: str) -> str:
    """What `from_pretrained` and vLLM take for `name`: a folder's path or a hub id. A pinned revision is fetched
    into the hub's cache. Raises `ResourceError`."""
    folder = local_folder(name)
    if folder is not None:
        return str(folder)
    hub.offline_unless_reachable()
    repository, _, revision = name.partition("@")
    if not revision:
        return repository
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(repository, revision=revision)
    except (OSError, ValueError) as error:
        raise ResourceError(
            f"model '{name}' cannot be fetched from the hub: {' '.join(str(error).split())[:300]} "
            "Give a local folder instead"
        ) from None


@cache
def context_length(name: str) -> int | None:
    """How many tokens a language model takes, prompt and answer together; None where its configuration is not at hand
    (there is a tokenizer alone, or a server has the model). Raises `ResourceError` for one that cannot be read."""
    from transformers import AutoConfig

    try:
        location = resolve_model(name)
    except ResourceError:
        return None
    _config_json(name)
    try:
        config = AutoConfig.from_pretrained(location, trust_remote_code=False).get_text_config()
        return int(config.max_position_embeddings)
    except (OSError, ValueError, AttributeError):
        return None
    except Exception as error:
        # A file that is there and holds other types: each version of transformers has errors of its own for that.
        raise _unreadable(name, error) from error


def served_fingerprint(name: str) -> str:
    """`fingerprint` of a model that a server has, whose name can be any."""
    try:
        return fingerprint(name)
    except ResourceError:
        return name


def fingerprint(name: str) -> str:
    """What tells one model from another in a run's identity: the name for the hub's, for a folder a SHA-256 over
    its files. Of files above 64 MiB every 256th page of 4 KiB counts, so that 60 GB take seconds: training again
    changes every tensor, and a tensor of a megabyte or more cannot hide between."""
    folder = local_folder(name)
    if folder is None:
        return name
    suffixes = {".json", ".safetensors", ".txt", ".jinja", ".model"}
    files = sorted(path for path in folder.iterdir() if path.suffix in suffixes and path.is_file())
    return _content(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@cache
def _content(files: tuple[tuple[Path, int, int], ...]) -> str:
    """A run asks for its model's several times."""
    digest = hashlib.sha256()
    for path, size, _ in files:
        digest.update(f"{path.name}\x1f{size}\x1e".encode())
        step = SAMPLE_EVERY if size > 1 << 26 else SAMPLE
        with path.open("rb") as file:
            for start in range(0, size, step):
                file.seek(start)
                digest.update(file.read(SAMPLE))
    return f"sha256:{digest.hexdigest()}"


def threads(name: str) -> int:
    """How many threads of a processor pay for a language model. A small one is faster on one, and its sums then have
    one order; for others it is as many as torch has."""
    import torch

    folder = local_folder(name)
    if folder is None:
        return torch.get_num_threads()
    weights = [path for path in folder.iterdir() if path.suffix in {".safetensors", ".bin", ".pt"}]
    return 1 if sum(path.stat().st_size for path in weights) < SMALL else torch.get_num_threads()


def check_model(name: str, needed_by: str) -> None:
    """Raise `ResourceError` if the model can neither be found on this machine nor fetched, or if its folder has no
    weights or only a part of them. Cheap: loads nothing, asks the hub once, at most 5 seconds, and only for a model
    that is not in its cache."""
    folder = local_folder(name)
    if folder is not None:
        if problem := _missing_weights(folder):
            raise ResourceError(f"{needed_by}: model '{name}' {problem}; copy or download it again with its weights")
        return
    from huggingface_hub import HfApi, constants, errors, try_to_load_from_cache

    repository, _, revision = name.partition("@")
    if isinstance(try_to_load_from_cache(repository, "config.json", revision=revision or None), str):
        return
    mend = f"give a local folder instead, or download it where the hub can be reached: hf download {repository}"
    if constants.HF_HUB_OFFLINE:
        raise ResourceError(f"{needed_by}: model '{name}' is not in the hub's cache and HF_HUB_OFFLINE is set; {mend}")
    # A failed connection raises an error of the HTTP library that the hub's client is built on.
    unreachable: tuple[type[Exception], ...] = (OSError, errors.HfHubHTTPError.__bases__[0])
    try:
        HfApi().model_info(repository, revision=revision or None, timeout=5)
    except errors.HfHubHTTPError as error:
        raise ResourceError(f"{needed_by}: the hub refuses model '{name}' ({type(error).__name__}); {mend}") from error
    except unreachable as error:
        raise ResourceError(f"{needed_by}: model '{name}' is not here and the hub cannot be reached; {mend}") from error


def architectures(name: str) -> list[str] | None:
    """The classes that a language model's config.json names; None where there is no such file here. Raises
    `ResourceError` for one that cannot be read or names none."""
    config = _config_json(name)
    if config is None:
        return None
    found = config.get("architectures")
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise ResourceError(
            f"the config.json of model '{name}' names no architecture; copy or download the model again"
        )
    return found


def _config_json(name: str) -> dict[str, Any] | None:
    """The content of a model's config.json; None where there is no such file here. Raises `ResourceError`."""
    folder = local_folder(name)
    if folder is None:
        from huggingface_hub import try_to_load_from_cache

        repository, _, revision = name.partition("@")
        cached = try_to_load_from_cache(repository, "config.json", revision=revision or None)
        path = Path(cached) if isinstance(cached, str) else None
    else:
        path = folder / "config.json"
    if path is None or not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(name, error) from error
    if not isinstance(config, dict):
        raise _unreadable(name, f"it holds a {type(config).__name__}")
    return config


def _unreadable(name: str, why: object) -> ResourceError:
    return ResourceError(
        f"the config.json of model '{name}' cannot be read ({' '.join(str(why).split())[:200]}); copy or download the "
        "model again"
    )


def _missing_weights(folder: Path) -> str:
    """What a model's folder misses of its weights, as the end of a sentence; "" if it misses nothing."""
    for pattern, index in WEIGHTS.items():
        files = sorted(path for path in folder.glob(pattern) if path.name not in NO_WEIGHTS)
        if files:
            shards = _shards(folder / index) if index else set()
            if shards is None:
                return f"has a broken {index}"
            if missing := sorted(name for name in shards if not (folder / name).is_file()):
                return f"misses {missing[0]}, one of the {len(shards)} files that {index} names"
            pointers = [path.name for path in files if _is_pointer(path)]
            return f"has only a Git LFS pointer in the place of {pointers[0]}" if pointers else ""
    return "has no weights (*.safetensors, *.bin or *.pt)"


def _shards(index: Path) -> set[str] | None:
    """Names of the files that hold weights; none without an index, None for an index that cannot be read."""
    if not index.is_file():
        return set()
    try:
        return {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_pointer(path: Path) -> bool:
    """Whether a file stands for one that Git LFS did not fetch."""
    with path.open("rb") as file:
        return file.read(24) == b"version https://git-lfs."


def without_progress_bars() -> None:
    """Keep transformers from drawing a bar for each model it loads; bench says itself what takes long."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
