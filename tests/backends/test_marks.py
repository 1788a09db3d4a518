"""Marks of a method on models without a row for them: what they get instead is the same in training, in vLLM and in
transformers."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from bench.config import build
from bench.errors import ConfigError, DamagedError
from bench.execute import execute, train_adapter
from bench.job import Job
from bench.methods.dep import DEP
from bench.results import Prediction, rows_of
from bench.softprompt.adapters import AdapterFiles, read_tensors
from bench.softprompt.marks import SPREAD, drawn
from bench.softprompt.trained import ImportedAdapter, TrainedAdapter, fresh_adapter
from bench.work import first_prompt

MARKS = DEP.marks[-4:]


def model_of(family: str, tokenizer: Path, folder: Path) -> Path:
    """A random model with as many rows as its tokenizer has tokens."""
    shutil.copytree(tokenizer, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    rows = len(AutoTokenizer.from_pretrained(folder))
    shape = {"vocab_size": rows, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    # Tied, a random Gemma repeats the last token of its prompt.
    more = {"initializer_range": 0.2, "max_position_embeddings": 8192, "tie_word_embeddings": False}
    ends = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **shape, **heads, **more, **ends)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def job_of(shop_config: Path, model: Path, **more: Any) -> Job:
    train = {"limit": 2, "validation": 1, "epochs": 1, "dtype": "float32", "learning_rate": 0.01}
    changed = {"method": "dep", "model": str(model), "temperature": 0.0, "train": train, "limit": 2, "metrics": []}
    return Job.of(build(yaml.safe_load(shop_config.read_text()), changed, more))


class Reference:
    """The model as transformers alone would have it: its table resized for all of DEP's tokens, as the released code
    does it, with an adapter's vectors in the rows of the marks."""

    def __init__(self, folder: Path, marks: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.add_tokens(list(DEP.marks), special_tokens=True)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self.rows = self.model.config.vocab_size
        self.model.resize_token_embeddings(len(self.tokenizer))
        for mark, vector in read_tensors(marks).items():
            scale = getattr(self.table, "scalar_embed_scale", 1.0)
            self.table.weight.data[self.tokenizer.convert_tokens_to_ids(mark)] = vector / scale

    @property
    def table(self) -> Any:
        return self.model.get_input_embeddings()

    def embeds(self, text: str, vectors: Any) -> torch.Tensor:
        """Shape (1, tokens, hidden)."""
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
        slots = set(self.tokenizer.convert_tokens_to_ids(list(DEP.marks[:-4])))
        embeds = self.table(ids).detach()
        places = [place for place, token in enumerate(ids.tolist()) if token in slots]
        embeds[places] = torch.as_tensor(vectors)
        return embeds[None]

    def greedy(self, embeds: torch.Tensor, tokens: int) -> str:
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        # The rows that were added are no tokens to answer with.
        added = [[token] for token in range(self.rows, self.table.num_embeddings)]
        ids = self.model.generate(
            inputs_embeds=embeds, attention_mask=mask, do_sample=False, max_new_tokens=tokens, bad_words_ids=added
        )
        return str(self.tokenizer.decode(ids[0], skip_special_tokens=True))

    def loss(self, embeds: torch.Tensor, answer: list[int]) -> float:
        """Cross-entropy of an answer, nats a token."""
        whole = torch.cat([embeds, self.table(torch.tensor(answer))[None]], dim=1)
        logits = self.model(inputs_embeds=whole).logits[0, embeds.shape[1] - 1 : -1, : self.rows]
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(answer)))


@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma"])
def test_training_vllm_and_transformers_see_the_same(
    family: str, tiny_qwen2: Path, shop_config: Path, tmp_path: Path
) -> None:
    job = job_of(shop_config, model_of(family, tiny_qwen2, tmp_path / "model"))
    execute([job])
    assert isinstance(job.adapter, TrainedAdapter)
    assert job.vectors is not None
    reference = Reference(tmp_path / "model", job.adapter.files.marks)
    assert set(job.vectors.marks) == set(MARKS)

    texts = {row.instance: row.prediction for row in rows_of(Prediction, job.folder / "predictions.jsonl")}
    for instance in job.run.instances:
        prompt = first_prompt(job.run, instance)
        embeds = reference.embeds(job.run.chat.text(prompt), job.vectors.of(prompt, instance))
        expected = reference.greedy(embeds, job.config.max_new_tokens)
        # A character that the last token does not complete is left out or put in as broken.
        assert texts[instance.id].rstrip("\ufffd") == expected.rstrip("\ufffd").strip()
    assert len(set(texts.values())) == len(texts)

    training, settings = job.adapter.training, job.adapter.training.config.training
    torch.manual_seed(settings.seed)
    adapter = fresh_adapter(training, reference.table.embedding_dim)
    losses = []
    for instance, example in zip(job.adapter.instances, job.adapter.examples(), strict=True):
        (vectors,), _ = adapter([{name: torch.as_tensor(rows) for name, rows in example.features.items()}])
        embeds = reference.embeds(training.chat.text(first_prompt(training, instance)), vectors.detach())
        losses.append(reference.loss(embeds, example.ids[example.targets :].tolist()))
    (step,) = job.adapter.files.steps()
    assert step.generation == pytest.approx(sum(losses) / len(losses), rel=3e-6)


def test_a_mark_has_the_row_that_the_model_has_to_spare(tiny_qwen2: Path, shop_config: Path) -> None:
    job = job_of(shop_config, tiny_qwen2)
    assert isinstance(job.adapter, TrainedAdapter)
    train_adapter(job.adapter)
    assert not job.adapter.files.marks.exists()
    chat, rows = job.run.chat, len(job.run.chat.tokenizer)
    assert chat.mark_ids(DEP.marks, rows + 20) == {}
    assert chat.mark_ids(DEP.marks, rows + 18) == {MARKS[2]: rows + 18, MARKS[3]: rows + 19}
    assert chat.mark_ids(DEP.marks, rows) == {mark: rows + 16 + number for number, mark in enumerate(MARKS)}


def test_vectors_of_marks_are_kept_with_the_adapter(tiny_qwen2: Path, shop_config: Path, tmp_path: Path) -> None:
    job = job_of(shop_config, model_of("llama", tiny_qwen2, tmp_path / "model"))
    assert isinstance(job.adapter, TrainedAdapter)
    train_adapter(job.adapter)
    files = job.adapter.files
    first = files.marks.read_bytes()
    training = files.training()
    assert training is not None
    assert "marks.safetensors" in training.files

    # As after a kill behind the last checkpoint: what the training began with is not drawn again.
    (files.folder / "training.json").unlink()
    files.marks.touch()
    changed = files.marks.stat().st_mtime_ns
    train_adapter(job.adapter)
    assert files.marks.stat().st_mtime_ns == changed

    files.marks.write_bytes(first[:-1] + bytes([first[-1] ^ 1]))
    with pytest.raises(DamagedError, match=r"marks\.safetensors.*is not as it was after the training"):
        job.adapter.marks(MARKS)
    files.marks.unlink()
    with pytest.raises(DamagedError, match=r"marks\.safetensors.*is missing"):
        job.adapter.marks(MARKS)


def test_an_imported_adapter_needs_a_model_with_rows_for_its_marks(
    tiny_qwen2: Path, shop_config: Path, tmp_path: Path
) -> None:
    model = model_of("llama", tiny_qwen2, tmp_path / "model")
    job = job_of(shop_config, model)
    weights = fresh_adapter(job.run, 128).state_dict()
    bare = ImportedAdapter.write(tmp_path / "bare", "dep", weights)
    with pytest.raises(ConfigError, match=r"adapter bare is imported, and the model has no embeddings for.*<his_tok"):
        job_of(shop_config, model, adapter=str(bare.folder)).check()
    vectors = {mark: torch.ones(128) for mark in MARKS}
    whole = ImportedAdapter.write(tmp_path / "whole", "dep", weights, marks=vectors)
    job_of(shop_config, model, adapter=str(whole.folder)).check()
    assert AdapterFiles(whole.folder).marks.is_file()


@pytest.mark.parametrize("rows", [400, 20], ids=["more rows than columns", "fewer"])
def test_vectors_are_drawn_as_transformers_draws_new_rows(tiny_qwen2: Path, rows: int) -> None:
    config = AutoConfig.from_pretrained(tiny_qwen2, vocab_size=rows, hidden_size=32, eos_token_id=2)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    old = copy.deepcopy(model.get_input_embeddings())
    table = old.weight.detach()
    model.resize_token_embeddings(rows + 60)
    mean, variance = table.mean(dim=0), SPREAD * table.var(dim=0).mean()
    for found in (model.get_input_embeddings().weight.detach()[rows:], drawn(old, 60, seed=3)):
        assert found.shape == (60, 32)
        spread = float(((found - mean) ** 2).mean() / variance)
        assert spread == pytest.approx(1 if rows > 32 else 0, abs=0.1)
    before = torch.get_rng_state()
    assert torch.equal(drawn(old, 4, seed=3), drawn(old, 4, seed=3))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn(old, 4, seed=3), drawn(old, 4, seed=4)) == (rows < 32)
