#!/usr/bin/env bash
# pandas 3.1.1 with numpy 2.2.6, seen with Python 3.11 on 2026-11-30.
#
# Amazon's reviews come as JSON lines in which the ASIN of a book is its ISBN-10, a quoted string that may begin with
# zeros and may end in X. read_json(lines=True) looks at the column: if every string of it is all digits the column
# becomes a number and the zeros are gone; one X anywhere keeps all of them as they are. With chunksize this is decided
# anew for each chunk, so the same book has two keys within one pass and no longer meets its item's metadata. In the
# same way ratings that are all whole become integers, and a prompt that says "4.0" for the file says "4" for a part of
# it. Both are as documented (dtype=True infers); dtype=False leaves the strings alone.
#
# Output seen:
#   all digits: [1712799, 1712772], ratings [4, 5]
#   beside one with an X: ['0001712799', '0001712772', '000720028X'], ratings [4.0, 5.0, 3.5]
#   in chunks of two: [[1712799, 1712772], ['000720028X']]
#   reviews that find their item, of 3: 1 read in chunks, 3 with dtype=False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pandas==3.1.1 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
import io
import json

import pandas as pd

asins, ratings = ["0001712799", "0001712772", "000720028X"], [4.0, 5.0, 3.5]
lines = [json.dumps({"parent_asin": asin, "rating": rating}) for asin, rating in zip(asins, ratings, strict=True)]


def read(some, **options):
    return pd.read_json(io.StringIO("\n".join(some)), lines=True, **options)


two, three, chunks = read(lines[:2]), read(lines), list(read(lines, chunksize=2))
print(f"all digits: {two.parent_asin.tolist()}, ratings {two.rating.tolist()}")
print(f"beside one with an X: {three.parent_asin.tolist()}, ratings {three.rating.tolist()}")
print(f"in chunks of two: {[chunk.parent_asin.tolist() for chunk in chunks]}")
found = sum(chunk.parent_asin.isin(asins).sum() for chunk in chunks)
kept = sum(chunk.parent_asin.isin(asins).sum() for chunk in read(lines, chunksize=2, dtype=False))
print(f"reviews that find their item, of 3: {found} read in chunks, {kept} with dtype=False")
assert two.parent_asin.tolist() == [1712799, 1712772]
assert [type(rating) for rating in two.rating.tolist()] == [int, int]
assert three.parent_asin.tolist() == asins
assert three.rating.tolist() == ratings
assert (found, kept) == (1, 3)
PYTHON
