"""The paper's configuration end to end, each hub model replaced by a random one of its kind in a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.config import build, read_config
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


def local(shop: Path, model: Path, contriever: Path, led: Path, results: Path) -> dict[str, Any]:
    """Names of data and models that take the place of the hub's, and what a random model on a CPU asks for: everything
    else is the configuration's."""
    return {
        "dataset": str(shop),
        "categories": None,
        "model": str(model),
        "bertscore": {"model": str(led)},
        "contriever": {"model": f"{contriever}?pooling=mean&normalize=false"},
        "meteor": {"tokenizer": "treebank"},
        "vllm": {"dtype": "float32", "enforce_eager": True},
        "results": str(results),
        "resamples": 10,
        "max_new_tokens": 8,
    }


def test_runs_on_local_folders_of_the_same_layout(
    shop: Path, tiny_qwen2: Path, contriever: Path, led: Path, tmp_path: Path
) -> None:
    settings = {"method": "pag", "retriever": "contriever"}
    job = Job.of(build(read_config("paper-7b"), local(shop, tiny_qwen2, contriever, led, tmp_path), settings))
    assert (job.config.budget, job.config.k, job.config.temperature, job.config.top_p) == (2048, 8, 0.8, 0.95)
    (summary,) = execute([job])
    assert summary.instances == {"Toys": 3}
    assert summary.calls == 6
    assert list(summary.scores["Toys"])[:5] == ["rouge1", "rougeL", "meteor", "bleu", "bertscore"]
    assert 0 < summary.scores["Toys"]["bertscore"].value <= 1
    assert "layer:6" in summary.signatures["bertscore"]
    assert RunRecord.read(job.folder / "run.json").config["fidelity"] == "paper"


def test_official_runs_share_an_engine_that_holds_what_the_model_holds(
    shop: Path, tiny_qwen2: Path, contriever: Path, led: Path, tmp_path: Path
) -> None:
    """DPL, whose prompts have no budget there, beside a method with one."""
    names = local(shop, tiny_qwen2, contriever, led, tmp_path) | {"metrics": ["rouge"]}
    jobs = [
        Job.of(build(read_config("official-7b"), names, {"method": method, "dpl": {"encoder": "hashed-ngrams"}}))
        for method in ("rag", "dpl")
    ]
    assert [job.config.budget for job in jobs] == [3072, 8192 - 8]
    assert {job.config.longest_prompt for job in jobs} == {8192 - 8}
    rag, dpl = execute(jobs)
    assert (rag.calls, dpl.calls) == (3, 6)
    assert "seed:42,draws:rouge2" in rag.signatures["rouge"]
