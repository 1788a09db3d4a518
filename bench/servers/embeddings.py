"""The table of input embeddings of a language model, out of its files alone: nothing else of the model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import ResourceError
from bench.hub import Repository
from bench.models import INSTEAD, loadable_model

if TYPE_CHECKING:
    import torch

NAMES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "tok_embeddings.weight")
"""How the names of such tables end, by family of models."""
INDEX = "model.safetensors.index.json"


def embedding_table(model: str) -> torch.Tensor:
    """The table of a model, shape (rows, hidden size), in the dtype of its file, which is mapped into memory: only rows
    that are looked at are read. Raises `ResourceError` where it cannot be found."""
    from safetensors import SafetensorError, safe_open

    files = _files(model)
    try:
        for path in files:
            # The framework of torch gives a view of the mapped file.
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if name.endswith(NAMES)]  # noqa: SIM118 - it is no mapping
                # Some models have others within their layers.
                for name in sorted(names, key=lambda name: (name.count("."), name))[:1]:
                    table: torch.Tensor = file.get_tensor(name)
                    return table
    except (OSError, SafetensorError) as error:
        why = " ".join(str(error).split())[:200]
        raise ResourceError(f"the embeddings of model '{model}' cannot be read ({why}); copy it again") from error
    raise ResourceError(
        f"the safetensors of model '{model}' have no table of embeddings that is known (one that ends in "
        f"{', '.join(NAMES)}), which prompts of vectors for a server are made of; use backend=vllm"
    )


def _files(model: str) -> list[Path]:
    """The files that may hold the table; of a model on the hub only one is fetched. Raises `ResourceError`."""
    place = loadable_model(model)
    folder = Path(place)
    if folder.is_dir():
        shards = _shards(folder / INDEX)
        return [folder / name for name in shards] if shards else sorted(folder.glob("*.safetensors"))
    name, _, revision = model.partition("@")
    repository = Repository("model", name, INSTEAD)
    index = repository.file(INDEX, revision or None)
    shards = _shards(index) if index is not None else ["model.safetensors"]
    return [path for name in shards if (path := repository.file(name, revision or None)) is not None]


def _shards(index: Path) -> list[str]:
    """The files in which an index says such tables lie; none without an index. Raises `ResourceError`."""
    if not index.is_file():
        return []
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return sorted({str(file) for name, file in places.items() if name.endswith(NAMES)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResourceError(
            f"{index} cannot be read ({type(error).__name__}); copy or download the model again"
        ) from error
