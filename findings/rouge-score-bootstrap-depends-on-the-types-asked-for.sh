#!/usr/bin/env bash
# rouge_score 0.1.2 with numpy 2.2.6, seen with Python 3.11 on 2026-11-29.
#
# BootstrapAggregator reports the median of resampled means, and all types draw their resamples, one after the other,
# from numpy's global generator. With the same texts and the same seed the ROUGE-L that is reported therefore depends on
# which other types were asked for before it: a script that asks for rouge1 and rougeL and one that, like the `evaluate`
# package, asks for rouge1, rouge2, rougeL and rougeLsum do not report the same ROUGE-L. ROUGE-1, which comes first, is
# the same in both. Texts and pairwise scores are equal; only the aggregate moves.
#
# Output seen (200 made-up pairs, seed 42):
#   rouge1 asked with rougeL: 0.418666667   asked with rouge2, rougeL, rougeLsum: 0.418666667
#   rougeL asked with rouge1: 0.206833333   asked with rouge1, rouge2, rougeLsum: 0.206666667
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rouge-score==0.1.2 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
import random

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import BootstrapAggregator

draw = random.Random(7)
words = [f"w{number}" for number in range(40)]
pairs = [(" ".join(draw.choices(words, k=30)), " ".join(draw.choices(words, k=30))) for _ in range(200)]


def reported(types):
    scorer, aggregator = RougeScorer(types), BootstrapAggregator()
    for reference, prediction in pairs:
        aggregator.add_scores(scorer.score(reference, prediction))
    np.random.seed(42)
    return {name: float(score.mid.fmeasure) for name, score in aggregator.aggregate().items()}


two, four = reported(["rouge1", "rougeL"]), reported(["rouge1", "rouge2", "rougeL", "rougeLsum"])
print(f"rouge1 asked with rougeL: {two['rouge1']:.9f}   asked with rouge2, rougeL, rougeLsum: {four['rouge1']:.9f}")
print(f"rougeL asked with rouge1: {two['rougeL']:.9f}   asked with rouge1, rouge2, rougeLsum: {four['rougeL']:.9f}")
assert two["rouge1"] == four["rouge1"] and round(two["rouge1"], 9) == 0.418666667, "other resamples are drawn"
assert (round(two["rougeL"], 9), round(four["rougeL"], 9)) == (0.206833333, 0.206666667), "the draws are others now"
PYTHON
