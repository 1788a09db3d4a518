#!/usr/bin/env bash
# rank_bm25 0.2.2 with numpy 2.2.6, seen with Python 3.11 on 2026-11-30.
#
# Benchmarks of personalization rank the few texts of one user's profile with BM25Okapi, the profile being the whole
# corpus. There idf is log((N - n + .5) / (n + .5)), without the "1 +" that Lucene and bm25s have: a word in half of the
# texts weighs nothing, and one in more than half of them gets a quarter of the mean idf, which is itself below zero where
# most words are shared, as they are among texts of one author. So in a profile of two texts the only match ties with
# the text that does not match (and then their order decides), and in a profile of three alike texts the ones that hold
# the word that is asked for come last. A larger collection with the same texts in it ranks them first.
#
# Output seen:
#   two texts, one holds the word: 0.0000 with it, 0.0000 without
#   three texts, two hold the word: -0.3243 -0.3243 with it, 0.0000 without
#   the same three beside twenty others: 1.7353 1.7353 with it, 0.0000 without
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rank-bm25==0.2.2 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
from rank_bm25 import BM25Okapi


def scores(texts):
    return [float(score) for score in BM25Okapi([text.split() for text in texts]).get_scores(["opera"])]


two = scores(["a fine opera", "a fine novel"])
three_texts = ["again a fine opera indeed", "again a fine opera indeed", "again a fine novel indeed"]
three = scores(three_texts)
many = scores([*three_texts, *(f"text number {n}" for n in range(20))])[:3]
print(f"two texts, one holds the word: {two[0]:.4f} with it, {two[1]:.4f} without")
print(f"three texts, two hold the word: {three[0]:.4f} {three[1]:.4f} with it, {three[2]:.4f} without")
print(f"the same three beside twenty others: {many[0]:.4f} {many[1]:.4f} with it, {many[2]:.4f} without")
assert two == [0.0, 0.0]
assert three[0] == three[1] < 0 == three[2]
assert many[0] == many[1] > 0 == many[2]
PYTHON
