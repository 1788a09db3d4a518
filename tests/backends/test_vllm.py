"""A real vLLM engine in this process: texts equal to transformers', seeds that hold in any company, a clean end."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.backends import ENVIRONMENT
from bench.backends.vllm import VLLMBackend
from bench.chat import Chat
from bench.config import RunConfig, build
from bench.errors import BackendError, ConfigError
from bench.records import Call, Completion, Prompt, said

TOKENS = 24


def settings(model: Path) -> dict[str, Any]:
    return {
        "method": "nonperso",
        "model": str(model),
        "input_budget": 600,
        "max_new_tokens": TOKENS,
        "vllm": {"dtype": "float32", "enforce_eager": True},
    }


def prompts() -> list[Prompt]:
    """Twelve of different lengths, the longest near the budget."""
    words = ["kite", "drum", "boat", "map", "é", "😀", "{x}", "<|im_start|>", "日本", "\n\n", "the", "of", "and"]
    choose = random.Random(1).choice
    return [
        Prompt("review", "Write a review." * (number % 3), " ".join(choose(words) for _ in range(1 + 9 * number)))
        for number in range(12)
    ]


def calls(temperature: float, tokens: int = TOKENS) -> list[Call]:
    return [
        Call((f"Books/test/u{number}", "review", 0), prompt, 1000 + number, temperature, 0.95, tokens)
        for number, prompt in enumerate(prompts())
    ]


def answers(backend: VLLMBackend, asked: Sequence[Call]) -> dict[tuple[str, str, int], str]:
    for call in asked:
        backend.submit(call)
    texts: dict[tuple[str, str, int], str] = {}
    while len(texts) < len(asked):
        for call, completion in backend.completed():
            assert call.key not in texts
            texts[call.key] = completion.text
    return texts


def first_answered(backend: VLLMBackend) -> list[tuple[str, str, int]]:
    """Those that are done at the first step that ends any."""
    while not (done := [call.key for call, _ in backend.completed()]):
        pass
    return done


@pytest.fixture(scope="module")
def config(tiny_qwen2: Path) -> RunConfig:
    return build(settings(tiny_qwen2))


@pytest.fixture(scope="module")
def chat(tiny_qwen2: Path) -> Chat:
    return Chat(str(tiny_qwen2))


@pytest.fixture(scope="module")
def backend(config: RunConfig, chat: Chat) -> Iterator[VLLMBackend]:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    backend = VLLMBackend(config, chat, vectors=False)
    yield backend
    backend.close()


def greedy_ids(folder: Path, chat: Chat, asked: Sequence[Call]) -> list[list[int]]:
    """What transformers generates, the end-of-turn token left out."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    generated = []
    for call in asked:
        ids = torch.tensor([chat.ids(call.prompt)])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS)
        new = output[0, ids.shape[1] :].tolist()
        generated.append([token for token in new if token != model.config.eos_token_id])
    return generated


def streamed(chat: Chat, ids: Sequence[int]) -> str:
    """The text of ids that come one by one, as a server gives it: bytes that end in the middle of a letter are held
    back."""
    from tokenizers.decoders import DecodeStream

    stream = DecodeStream(skip_special_tokens=True)
    steps = [stream.step(chat.tokenizer.backend_tokenizer, token) for token in ids]
    return "".join(step for step in steps if step)


def test_greedy_texts_are_those_of_transformers(backend: VLLMBackend, chat: Chat, tiny_qwen2: Path) -> None:
    asked = calls(temperature=0.0)
    texts = answers(backend, asked)
    expected = [streamed(chat, ids) for ids in greedy_ids(tiny_qwen2, chat, asked)]
    assert [texts[call.key] for call in asked] == expected
    assert len(set(expected)) > 6, "the prompts lead to different texts"
    assert min(len(text) for text in expected) > 3


def test_completions_count_tokens_and_say_why_they_ended(backend: VLLMBackend, chat: Chat) -> None:
    asked = calls(temperature=0.0, tokens=5)
    for call in asked:
        backend.submit(call)
    seen: dict[tuple[str, str, int], Completion] = {}
    while len(seen) < len(asked):
        seen.update({call.key: completion for call, completion in backend.completed()})
    for call in asked:
        completion = seen[call.key]
        assert completion.prompt_tokens == len(chat.ids(call.prompt))
        assert completion.completion_tokens == 5 or completion.finish_reason == "stop"
        assert completion.finish_reason in ("length", "stop")
        assert 0 < completion.seconds < 60
    assert list(backend.completed()) == [], "with nothing in flight it ends at once"


def test_sampled_texts_depend_on_the_seed_alone(backend: VLLMBackend) -> None:
    asked = calls(temperature=0.8)
    together = answers(backend, asked)
    assert answers(backend, asked) == together, "twice"
    alone: dict[tuple[str, str, int], str] = {}
    for call in asked:
        alone |= answers(backend, [call])
    assert alone == together, "alone"
    in_fives: dict[tuple[str, str, int], str] = {}
    backwards = asked[::-1]
    for start in range(0, len(backwards), 5):
        in_fives |= answers(backend, backwards[start : start + 5])
    assert in_fives == together, "in another order and another company"
    reseeded = [Call(call.key, call.prompt, call.seed + 1, 0.8, 0.95, TOKENS) for call in asked]
    assert not set(answers(backend, reseeded).values()) & set(together.values())


def test_a_call_that_joins_late_changes_nothing(backend: VLLMBackend) -> None:
    asked = calls(temperature=0.8)
    expected = answers(backend, asked)
    waiting = list(reversed(asked))
    texts: dict[tuple[str, str, int], str] = {}
    for _ in range(3):
        backend.submit(waiting.pop())
    while len(texts) < len(asked):
        for call, completion in backend.completed():
            texts[call.key] = completion.text
            if waiting:
                backend.submit(waiting.pop())
    assert texts == expected


def test_a_thought_that_the_template_opened_is_opened_in_the_text(
    backend: VLLMBackend, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the thoughts of an answer that is cut off would pass for the answer."""
    (call,) = calls(0.0)[:1]
    (plain,) = answers(backend, [call]).values()
    monkeypatch.setitem(vars(chat), "opens_thought", True)
    (thought,) = answers(backend, [call]).values()
    assert thought == f"<think>{plain}"
    assert said(thought) == ""


def test_a_prompt_that_is_too_long_is_refused_by_name(backend: VLLMBackend) -> None:
    long = Call(("Books/test/u0", "review", 0), Prompt("review", "", "kite " * 200), 0, 0.8, 0.95, TOKENS)
    with pytest.raises(BackendError, match=r"vLLM refused \('Books/test/u0', 'review', 0\): .*(length|context)"):
        backend.submit(long)
    assert list(backend.completed()) == []


def test_more_than_the_models_context_is_refused_before_work(tiny_qwen2: Path, chat: Chat) -> None:
    import torch

    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    too_long = build(settings(tiny_qwen2), {"input_budget": 8000, "max_new_tokens": 193})
    with pytest.raises(BackendError, match=r"8000 tokens, and max_new_tokens=193: lower the latter, or input_b"):
        VLLMBackend(too_long, chat, vectors=False)
    assert (torch.get_num_threads(), torch.set_num_threads) == (threads, set_threads)


def test_an_engine_that_cannot_start_is_one_error(tiny_qwen2: Path, tmp_path: Path, chat: Chat) -> None:
    """Here for want of weights. The sizes are the random model's: those that transformers gives a bare configuration
    are of 7 billion parameters."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_qwen2 / name, tmp_path)
    with pytest.raises(BackendError, match=r"vLLM could not start with model .*`bench doctor`"):
        VLLMBackend(build(settings(tmp_path)), chat, vectors=False)


def test_an_engine_that_fails_at_work_is_one_error(backend: VLLMBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def step() -> None:
        raise RuntimeError("CUDA out of memory")

    call = calls(temperature=0.0)[0]
    backend.submit(call)
    with monkeypatch.context() as patch:
        patch.setattr(backend.engine, "step", step)
        with pytest.raises(BackendError, match=r"vLLM failed with 1 calls in flight: CUDA out of memory .*run again"):
            next(backend.completed())
    assert first_answered(backend) == [call.key]


COLD = """
import gc, json, time, weakref
start = time.process_time()
from bench.backends import Engines
from bench.chat import Chat
from bench.config import build
from bench.records import Call, Prompt
config = build(json.loads({settings!r}))
chat = Chat(config.model)
with Engines() as engines:
    import torch
    torch.set_num_threads(2)
    setter = torch.set_num_threads
    backend = engines.get(config, chat)
    seconds = time.process_time() - start
    while_open = torch.get_num_threads()
    for number in range(3):
        backend.submit(Call((str(number), "a", 0), Prompt("a", "", "b"), number, 0.8, 0.95, 400 if number else 2))
    while not (first := [call.key[0] for call, _ in backend.completed()]):
        pass
    engine = weakref.ref(backend.engine)
    model = weakref.ref(backend.engine.model_executor)
gc.collect()
print(json.dumps(dict(
    seconds=seconds, while_open=while_open, first=first, engine_gone=engine() is None, model_gone=model() is None,
    threads=torch.get_num_threads(), setter=torch.set_num_threads is setter,
)))
"""


@pytest.fixture(scope="module")
def cold(tiny_qwen2: Path) -> dict[str, Any]:
    """An engine's life in a process of its own: started, closed with calls in flight."""
    script = COLD.format(settings=json.dumps(settings(tiny_qwen2)))
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    report: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return report


def test_the_engine_starts_quickly_in_a_new_process(cold: dict[str, Any]) -> None:
    """In seconds of the processor: a busy machine is no slower an engine."""
    print(f"cold start with imports: {cold['seconds']:.1f} s")
    assert cold["seconds"] < 40, "the aim is 10 s on the clock of an idle machine"


def test_no_call_waits_for_a_longer_one(cold: dict[str, Any]) -> None:
    assert cold["first"] == ["0"]


def test_closing_frees_the_engine_and_gives_torch_its_threads_back(cold: dict[str, Any]) -> None:
    assert cold["while_open"] == 1
    assert (cold["engine_gone"], cold["model_gone"]) == (True, True)
    assert (cold["threads"], cold["setter"]) == (2, True)


def test_of_a_models_generation_config_only_the_ends_of_an_answer_are_taken() -> None:
    """The engine reads it for every request; everything else is what the request says."""
    from vllm import SamplingParams

    given = {"temperature": 0.8, "top_p": 0.95, "max_tokens": 7, "seed": 1, "repetition_penalty": 1.0}
    asked, plain = SamplingParams(**given), SamplingParams(**given)
    asked.update_from_generation_config(
        {
            "temperature": 0.1,
            "top_k": 5,
            "top_p": 0.2,
            "repetition_penalty": 1.3,
            "max_length": 3,
            "eos_token_id": [2, 9],
        },
        2,
    )
    changed = {name for name in SamplingParams.__struct_fields__ if getattr(asked, name) != getattr(plain, name)}
    assert changed == {"stop_token_ids", "_all_stop_token_ids", "_eos_token_id"}
    assert asked.stop_token_ids == [9]


def test_batch_invariant_kernels_need_a_gpu(tiny_qwen2: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = {"method": "rag", "model": str(tiny_qwen2), "vllm": {"batch_invariant": True}}
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"vllm\.batch_invariant=true needs an NVIDIA GPU.*vllm\.dtype=float32"):
        VLLMBackend.check(build(settings))


def test_batch_invariant_kernels_are_recorded_or_refused(
    tiny_qwen2: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"method": "rag", "model": str(tiny_qwen2)}
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    with pytest.raises(BackendError, match=r"would not record it; use --set vllm\.batch_invariant=true, or unset it"):
        VLLMBackend(build(settings), chat, vectors=False)
    monkeypatch.delenv("VLLM_BATCH_INVARIANT")
    monkeypatch.setitem(sys.modules, "vllm", sys)
    with pytest.raises(BackendError, match="vLLM was used without it in this process"):
        VLLMBackend(build(settings, {"vllm": {"batch_invariant": True}}), chat, vectors=False)
    assert "VLLM_BATCH_INVARIANT" not in os.environ
