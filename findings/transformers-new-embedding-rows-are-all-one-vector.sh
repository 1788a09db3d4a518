#!/usr/bin/env bash
# transformers 5.19.0 with torch 2.13.0, seen with Python 3.11 on 2026-11-30.
#
# resize_token_embeddings says of the rows that it adds that they come from a normal distribution with the old table's
# mean and covariance. It draws them with a billionth of that covariance: new rows differ from one another by about
# 1/30,000 of what old rows do. Whoever adds several marks to a tokenizer (DEP adds four, around its soft tokens) and
# keeps the model frozen gives it one mark under several names. Without that initialisation (mean_resizing=False) they
# differ as old rows do.
#
# Output seen (a Llama with 4,000 rows of width 64, 4 rows added):
#   mean_resizing=True: new rows differ by 0.00003 of what old rows do
#   mean_resizing=False: new rows differ by 0.9 of what old rows do
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
install=("$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.19.0)
"${install[@]}" --extra-index-url https://download.pytorch.org/whl/cpu
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROWS, NEW = 4000, 4
shape = {"vocab_size": ROWS, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "bos_token_id": None, "eos_token_id": None}


def share(mean_resizing):
    """How far new rows lie apart, as a share of how far old ones do."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**shape, **heads))
    model.resize_token_embeddings(ROWS + NEW, mean_resizing=mean_resizing)
    rows = model.get_input_embeddings().weight.detach().double()
    return float(rows[ROWS:].std(dim=0).mean() / rows[:ROWS].std(dim=0).mean())


drawn, usual = share(True), share(False)
print(f"mean_resizing=True: new rows differ by {drawn:.5f} of what old rows do")
print(f"mean_resizing=False: new rows differ by {usual:.1f} of what old rows do")
assert 1e-5 < drawn < 1e-4 and 0.5 < usual < 1.5, "new rows are drawn otherwise now"
PYTHON
