"""Random models of the shape of Qwen2.5 with the demo's tokenizer: made on the spot, so that no hub is needed.

Their weights are good for speed, memory and equality, and for nothing else. What they write are tokens of the demo's
tokenizer, however many rows their vocabulary has.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from bench.config import RunConfig
from bench.models import resolve_model, without_progress_bars
from bench.timing.files import GIB

SEED = 20260101
TOKENIZER = RunConfig.model_fields["model"].default
"""The demo's model: its tokenizer has the marks of dep."""
SPREAD = 5.0
"""Standard deviation of the logits: wide enough that a row with logit 0 is never drawn."""

Shape = dict[str, int]


def _shape(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocabulary: int) -> Shape:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
    }


SHAPES = (
    ("Qwen2.5-7B", _shape(3584, 18944, 28, 28, 4, 152_064), 40),
    ("Qwen2.5-1.5B", _shape(1536, 8960, 28, 12, 2, 151_936), 12),
    ("Qwen2.5-0.5B", _shape(896, 4864, 24, 14, 2, 151_936), 0),
)
"""The largest that fits is made: name, shape, and the GiB that have to be free on the GPU."""
DISK = 0.5
"""As much has to be free on the disk, as a share of the same GiB."""
TEXT_SHAPE = ("hidden size 1,024, 12 layers", _shape(1024, 2816, 12, 16, 4, 2560))
TINY_SHAPE = ("hidden size 128, 2 layers", _shape(128, 128, 2, 4, 2, 2560))


def largest(folder: Path) -> tuple[str, Shape]:
    """The largest shape that the GPU, and the disk of `folder`, have room for."""
    gpu = torch.cuda.mem_get_info()[0] / GIB
    disk = shutil.disk_usage(folder).free / GIB
    return next((name, shape) for name, shape, needs in SHAPES if gpu >= needs and disk >= needs * DISK)


def make(folder: Path, name: str, shape: Shape, dtype: torch.dtype) -> dict[str, Any]:
    """Make a random model in a folder, as a hub model's would be; its figures."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

    without_progress_bars()
    started = perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(TOKENIZER), trust_remote_code=False)
    sizes: dict[str, Any] = dict(shape)
    config = Qwen2Config(
        **sizes,
        max_position_embeddings=32_768,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(SEED)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"), torch.inference_mode():
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
        head = model.get_output_embeddings().weight
        head.normal_(0.0, SPREAD / shape["hidden_size"] ** 0.5)
        # No text is made of the rows that the tokenizer has no token for: their logit is 0.
        head[len(tokenizer) :] = 0
    model.save_pretrained(folder)
    for file in Path(resolve_model(TOKENIZER)).glob("tokenizer*.json"):
        shutil.copy(file, folder)
    return {
        "shape": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(dtype).removeprefix("torch."),
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "seconds": perf_counter() - started,
    }
