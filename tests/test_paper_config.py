"""The paper's configuration end to end, each hub model replaced by a random one of its kind in a local folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.config import build, parse_setting, read_config
from bench.execute import execute
from bench.job import Job
from bench.results import RunRecord

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "kite", "boat", "red", "blue", "map", "drum", "loud", "of"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@pytest.fixture(scope="module")
def contriever(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT, as facebook/contriever is one."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("contriever")
    BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(folder)
    BertModel(BertConfig(vocab_size=len(WORDS), **SIZES)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def led(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LED, as allenai/led-base-16384 is one: byte-level BPE, six encoder layers."""
    from tokenizers import pre_tokenizers
    from transformers import LEDConfig, LEDModel, LEDTokenizer

    folder = tmp_path_factory.mktemp("led")
    symbols = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    LEDTokenizer(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]).save_pretrained(folder)
    config = LEDConfig(
        vocab_size=len(symbols),
        d_model=32,
        encoder_layers=6,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_encoder_position_embeddings=2048,
        max_decoder_position_embeddings=64,
    )
    LEDModel(config).save_pretrained(folder)
    return folder


def test_runs_on_local_folders_of_the_same_layout(
    shop: Path, tiny_qwen2: Path, contriever: Path, led: Path, tmp_path: Path
) -> None:
    """Only names of data and models are replaced, and what a random model on a CPU asks for: everything else is
    paper-7b's."""
    local = {
        "dataset": str(shop),
        "categories": None,
        "model": str(tiny_qwen2),
        "bertscore": {"model": str(led)},
        "contriever": {"model": f"{contriever}?pooling=mean&normalize=false"},
        "meteor": {"tokenizer": "treebank"},
        "vllm": {"dtype": "float32", "enforce_eager": True},
        "results": str(tmp_path),
        "resamples": 10,
    }
    settings = {"method": "pag", "retriever": "contriever", **parse_setting("max_new_tokens=8")}
    job = Job.of(build(read_config("paper-7b"), local, settings))
    assert (job.config.budget, job.config.k, job.config.temperature, job.config.top_p) == (2048, 8, 0.8, 0.95)
    (summary,) = execute([job])
    assert summary.instances == {"Toys": 3}
    assert summary.calls == 6
    assert list(summary.scores["Toys"])[:5] == ["rouge1", "rougeL", "meteor", "bleu", "bertscore"]
    assert 0 < summary.scores["Toys"]["bertscore"].value <= 1
    assert "layer:6" in summary.signatures["bertscore"]
    assert RunRecord.read(job.folder / "run.json").config["fidelity"] == "paper"
