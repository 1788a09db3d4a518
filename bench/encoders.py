"""Encoders (text to vector) and their vectors kept on disk.

An encoder is named by a specification:

    hashed-ngrams                            character and word n-grams, hashed; no model, no download
    MODEL                                    a hub id, a local folder or python:PACKAGE/FOLDER (`bench.models`)
    MODEL?pooling=mean&normalize=false       the same with its own pooling (cls or mean) and L2 normalisation

A bare MODEL is pooled as its authors do: BAAI/bge-m3 and facebook/contriever are known here, and a
sentence-transformers model (it has a modules.json) says so itself.
"""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.batching import batches
from bench.errors import ConfigError, ResourceError
from bench.hub import Repository
from bench.models import PACKAGE_PREFIX, local_folder, other_weights, safe_copy, without_progress_bars
from bench.protocols import Encoder
from bench.vector_file import VectorFile, Vectors

Pooling = Literal["cls", "mean"]

HASHED_NGRAMS = "hashed-ngrams"
KNOWN: dict[str, tuple[Pooling, bool]] = {
    "BAAI/bge-m3": ("cls", True),
    "facebook/contriever": ("mean", False),
}
"""Pooling and L2 normalisation of models that do not say it themselves, or that the paper names."""


# -- specifications ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    """A parsed encoder specification; None where it leaves a setting to the model."""

    model: str
    pooling: Pooling | None = None
    normalize: bool | None = None

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Raises `ConfigError` for an unknown, repeated or malformed setting."""
        model, _, query = text.partition("?")
        settings: dict[str, str] = {}
        for part in query.split("&") if query else []:
            key, _, value = part.partition("=")
            allowed = {"pooling": ("cls", "mean"), "normalize": ("true", "false")}.get(key)
            if allowed is None or value not in allowed or key in settings:
                raise ConfigError(
                    f"encoder '{text}': cannot use '{part}'; settings are pooling=cls|mean and normalize=true|false, "
                    "each at most once, as in MODEL?pooling=mean&normalize=false"
                )
            settings[key] = value
        if not model or (model == HASHED_NGRAMS and settings):
            raise ConfigError(f"encoder '{text}': " + ("hashed-ngrams has no settings" if model else "names no model"))
        known = KNOWN.get(model.partition("@")[0], (None, None))
        pooling: Any = settings.get("pooling", known[0])
        normalize = settings["normalize"] == "true" if "normalize" in settings else known[1]
        if (pooling is None) != (normalize is None):
            raise ConfigError(f"encoder '{text}': give both pooling and normalize, or neither")
        return cls(model, pooling, normalize)


def load_encoder(spec: str) -> Encoder:
    """The encoder of a specification. Cheap: weights are read at the first `encode`.

    Raises `ConfigError` for a specification that cannot be used, `ResourceError` for a model that is not there.
    """
    parsed = Spec.parse(spec)
    if parsed.model == HASHED_NGRAMS:
        return HashedNgrams()
    source = _Source.locate(parsed.model)
    if parsed.pooling is not None and parsed.normalize is not None:
        return TransformerEncoder(source, parsed.pooling, parsed.normalize)
    if source.file("modules.json") is None:
        raise ConfigError(
            f"encoder '{spec}': the model does not say how it pools (no modules.json); "
            f"say it: {parsed.model}?pooling=mean&normalize=false"
        )
    return SentenceEncoder(source)


@dataclass(frozen=True)
class _Source:
    """Where a model's files are: a local folder, or a hub id with the revision asked for."""

    label: str
    location: str
    revision: str | None

    @classmethod
    def locate(cls, model: str) -> _Source:
        """Raises `ResourceError` for a folder that is not there."""
        folder = local_folder(model)
        if folder is None:
            name, _, revision = model.partition("@")
            return cls(name, name, revision or None)
        # A path is another one on each machine, so it is not part of the encoder's name.
        return cls(model if model.startswith(PACKAGE_PREFIX) else folder.resolve().name, str(folder), None)

    def file(self, name: str) -> Path | None:
        """A file of the model; None if the model does not have it."""
        folder = Path(self.location)
        if folder.is_dir():
            return folder / name if (folder / name).is_file() else None
        instead = f"give a local folder, or use {HASHED_NGRAMS}"
        return Repository("model", self.location, instead).file(name, self.revision)

    def loadable(self) -> tuple[str, str | None]:
        """Where the weights are as safetensors, and the revision. Raises `ResourceError`."""
        copy = safe_copy(self.location if self.revision is None else f"{self.location}@{self.revision}")
        return (self.location, self.revision) if copy is None else (str(copy), None)

    @property
    def fingerprint(self) -> str:
        """What tells this model's vectors from another's: the hub's commit, or a hash of the folder's files."""
        config = self.file("config.json")
        if config is None:
            raise ResourceError(f"encoder model '{self.location}' has no config.json; it is not a transformers model")
        if not Path(self.location).is_dir():
            return config.parent.name[:12]
        digest = hashlib.sha256()
        paths = sorted(Path(self.location).rglob("*"))
        others = set(other_weights(paths))
        for path in paths:
            if path in others or (path.suffix in {".json", ".txt", ".model", ".safetensors"} and path.is_file()):
                digest.update(path.relative_to(self.location).as_posix().encode() + b"\0")
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:12]


# -- encoders ----------------------------------------------------------------------------------------------------


@dataclass
class HashedNgrams:
    """Character 1- to 3-grams and word uni- and bigrams, hashed with signs into 512 dimensions, L2-normalised.

    The weight of an n-gram is the square root of its count: sublinear and, unlike a logarithm, rounded alike on
    every machine. Case and punctuation count, and so do a text's beginning and end.
    """

    name: str = "hashed-ngrams|v:1|chars:1-3|words:1-2|tf:sqrt|dimensions:512"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Shape (n, 512)."""
        return np.stack([_hashed(text) for text in texts]) if texts else np.zeros((0, 512), np.float32)


_WORD = re.compile(r"\w+|[^\w\s]+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def _hashed(text: str) -> Vectors:
    marked = f"\x02{text}\x03".encode("utf-32-le", "surrogatepass")
    characters = np.frombuffer(marked, "<u4").astype(np.uint64)
    words = [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in _WORD.findall(text)]
    grams = [_gram_hashes(characters, length, salt=length) for length in (1, 2, 3)]
    grams += [_gram_hashes(np.array(words, np.uint64), length, salt=100 + length) for length in (1, 2)]
    hashes, counts = np.unique(np.concatenate(grams), return_counts=True)
    signs = np.where(hashes >> np.uint64(63), -1.0, 1.0)
    vector = np.bincount((hashes & np.uint64(511)).astype(np.int64), signs * np.sqrt(counts), minlength=512)
    norm = math.sqrt(math.fsum(vector * vector))
    return (vector / (norm or 1.0)).astype(np.float32)


def _gram_hashes(symbols: NDArray[np.uint64], length: int, salt: int) -> NDArray[np.uint64]:
    """A 64-bit hash of each run of `length` symbols; `salt` keeps the kinds of n-grams apart."""
    count = max(len(symbols) - length + 1, 0)
    hashes = np.full(count, salt, np.uint64)
    for offset in range(length):
        hashes = (hashes ^ symbols[offset : offset + count]) * _MULTIPLIER
        hashes ^= hashes >> np.uint64(29)
    return hashes


BATCH_TOKENS = {"cpu": 1024, "cuda": 32768}
"""Tokens in a batch: small ones stay in a CPU's cache, a GPU wants work."""


@dataclass
class TransformerEncoder:
    """A transformers model, one vector a text from its last layer: the first token's (cls) or the mean over the
    mask, L2-normalised or not. Texts are cut at the longest input the model takes. float32, on the GPU if there is one.
    `batch_tokens` go through the model at once, by default as many as suit the device.
    """

    source: _Source
    pooling: Pooling
    normalize: bool
    batch_tokens: int | None = None
    name: str = field(init=False)

    def __post_init__(self) -> None:
        normalize = "yes" if self.normalize else "no"
        self.name = f"{self.source.label}|rev:{self.source.fingerprint}|pooling:{self.pooling}|normalize:{normalize}"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Shape (n, hidden_size). Raises `ResourceError` if the model cannot be loaded."""
        import torch

        model, tokenizer, limit = self._loaded
        if not texts:
            return np.zeros((0, model.config.hidden_size), np.float32)
        ids = tokenizer([_tokenizable(text) for text in texts], truncation=True, max_length=limit)["input_ids"]
        vectors = np.empty((len(texts), model.config.hidden_size), np.float32)
        at_once = self.batch_tokens or BATCH_TOKENS[model.device.type]
        for rows in batches([len(tokens) for tokens in ids], at_once):
            batch = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt").to(model.device)
            mask = batch["attention_mask"]
            with torch.inference_mode():
                states = model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
                pooled = states[:, 0] if self.pooling == "cls" else _masked_mean(states, mask)
                if self.normalize:
                    pooled = torch.nn.functional.normalize(pooled, dim=1)
            vectors[rows] = pooled.cpu().numpy()
        return vectors

    @cached_property
    def _loaded(self) -> tuple[Any, Any, int]:
        """Model, tokenizer and the longest input in tokens."""
        location, revision = self.source.loadable()
        import torch
        from transformers import AutoModel, AutoTokenizer

        options: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": False}
        without_progress_bars()
        with _loading(self.source):
            tokenizer = AutoTokenizer.from_pretrained(location, **options)
            model, report = AutoModel.from_pretrained(
                location, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
            )
        absent = [key for key in report["missing_keys"] if not key.startswith("pooler.")]
        if absent:
            raise _unloadable(self.source, f"{len(absent)} tensors are not in its files, such as {min(absent)}")
        tokenizer.padding_side = "right"
        model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        return model, tokenizer, min(tokenizer.model_max_length, _positions(model))


@dataclass
class SentenceEncoder:
    """A sentence-transformers model with the pooling, normalisation and longest input that it says itself."""

    source: _Source
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"{self.source.label}|rev:{self.source.fingerprint}|sentence-transformers"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Shape (n, d). Raises `ResourceError` if the model cannot be loaded."""
        vectors = self._model.encode(
            [_tokenizable(text) for text in texts], batch_size=32, convert_to_numpy=True, show_progress_bar=False
        )
        return np.asarray(vectors, np.float32).reshape(len(texts), -1)

    @cached_property
    def _model(self) -> Any:
        location, revision = self.source.loadable()
        import torch
        from sentence_transformers import SentenceTransformer

        without_progress_bars()
        with _loading(self.source):
            return SentenceTransformer(
                location,
                revision=revision,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
                device="cuda" if torch.cuda.is_available() else "cpu",
            )


@contextmanager
def _loading(source: _Source) -> Iterator[None]:
    from httpx import HTTPError
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, HTTPError, SafetensorError) as error:
        raise _unloadable(source, error) from error


def _unloadable(source: _Source, reason: Exception | str) -> ResourceError:
    detail = str(reason).strip().splitlines() or [type(reason).__name__]
    return ResourceError(
        f"encoder model '{source.location}' cannot be loaded: {detail[0]}; it needs config.json, a tokenizer and "
        "weights (model.safetensors or pytorch_model.bin)"
    )


def _tokenizable(text: str) -> str:
    """`text` without lone surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def _positions(model: Any) -> int:
    """How many tokens the position embeddings of `model` take: RoBERTa's kin leave out those up to the padding's."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return int(model.config.max_position_embeddings) - (0 if padding is None else int(padding) + 1)


def _masked_mean(states: Any, mask: Any) -> Any:
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)


# -- vectors on disk ---------------------------------------------------------------------------------------------

BLOCK = 256
"""Texts encoded between two writes: what a killed process loses at most."""


class EmbeddingCache:
    """Vectors on disk, one append-only file an encoder, keyed by the encoder's name and the SHA-256 of the text.

    Any number of processes may use one folder, and any may be killed: a record that is torn or does not match its
    checksum counts as missing and is made again. `load` gives the encoder of a specification; `block` texts are encoded
    between two writes.
    """

    def __init__(self, folder: Path, load: Callable[[str], Encoder] = load_encoder, block: int = BLOCK) -> None:
        self._folder = folder
        self._load = load
        self._block = block
        self._open: dict[str, tuple[Encoder, VectorFile]] = {}
        # Prompts are made in one thread and looked at in another.
        self._lock = RLock()

    def embed(self, texts: Sequence[str], spec: str) -> Vectors:
        """Vectors of `texts` by the encoder of `spec`, shape (n, d). Only what is not on disk is encoded, once each.

        Raises `ConfigError`, `ResourceError` as `load_encoder` does, `StoreError` if the folder cannot be written.
        """
        with self._lock:
            encoder, file = self._opened(spec)
            keys = [_key(text) for text in texts]
            unique = dict(zip(keys, texts, strict=True))
            vectors = file.get(unique)
            missing = {key: text for key, text in unique.items() if key not in vectors}
            for made in self._encoded(encoder, file, missing):
                vectors |= made
            if not keys:
                return np.zeros((0, file.dimension or 0), np.float32)
            return np.stack([vectors[key] for key in keys])

    def fill(self, texts: Iterable[str], spec: str, progress: Callable[[int, int], None] | None = None) -> None:
        """Have the vectors of `texts` on disk, as `embed` does, with those of one block in memory at a time; `progress`
        is called with (encoded, to encode) after each. Raises as `embed` does."""
        with self._lock:
            encoder, file = self._opened(spec)
            missing = {_key(text): text for text in texts}
            for block in _blocks(list(missing), self._block):
                for key in file.get(block):
                    del missing[key]
            done = 0
            for made in self._encoded(encoder, file, missing):
                done += len(made)
                if progress is not None:
                    progress(done, len(missing))

    def _opened(self, spec: str) -> tuple[Encoder, VectorFile]:
        if spec not in self._open:
            encoder = self._load(spec)
            slug = re.sub(r"[^A-Za-z0-9.-]+", "-", encoder.name.partition("|")[0]).strip("-.")
            name = f"{slug}-{hashlib.sha256(encoder.name.encode()).hexdigest()[:12]}.vectors"
            self._open[spec] = encoder, VectorFile(self._folder / name, encoder.name)
        return self._open[spec]

    def size(self, spec: str) -> int:
        """Bytes of the file with the vectors by the encoder of `spec`; 0 if there is none. Raises `ConfigError` and
        `ResourceError` as `load_encoder` does."""
        with self._lock:
            return self._opened(spec)[1].size

    def release(self) -> None:
        """Let go of the encoders' models; their vectors stay on disk, and an encoder is loaded again when it is
        needed."""
        self._open.clear()

    def _encoded(
        self, encoder: Encoder, file: VectorFile, texts: Mapping[bytes, str]
    ) -> Iterator[dict[bytes, Vectors]]:
        """Encode texts and keep their vectors on disk, a block at a time."""
        for block in _blocks(list(texts), self._block):
            yield self._encode(encoder, file, {key: texts[key] for key in block})

    def _encode(self, encoder: Encoder, file: VectorFile, texts: Mapping[bytes, str]) -> dict[bytes, Vectors]:
        vectors = encoder.encode(list(texts.values()))
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            text = list(texts.values())[int(np.argmin(finite))]
            raise ResourceError(
                f"encoder {encoder.name} gives a vector that is not finite for the text {text[:60]!r}; "
                "its weights are broken: fetch the model again or name another one"
            )
        file.append(list(texts), vectors)
        return dict(zip(texts, vectors, strict=True))


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _blocks(keys: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))
