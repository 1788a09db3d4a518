"""Length ratio and brevity penalty against sacreBLEU's own, and at their ends."""

from __future__ import annotations

import numpy as np
import pytest

from bench.batch import Batch
from bench.metrics.bleu import Bleu
from bench.metrics.length import Length


def test_equals_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    from sacrebleu.metrics.bleu import BLEU

    some = pairs[::3]
    predictions, references = [p for p, _ in some], [r for _, r in some]
    # As they are, and with the longer half of the predictions cut, so that the penalty counts.
    for texts in (predictions, [text[:60] for text in predictions]):
        rows = Length().rows(Batch(texts, references))
        scores = Length().aggregate(rows)
        expected = BLEU(force=True).corpus_score([text.strip() for text in texts], [references])
        assert rows.sum(axis=0).tolist() == [expected.sys_len, expected.ref_len]
        assert scores["length_ratio"] == pytest.approx(expected.ratio, abs=1e-12)
        assert scores["brevity_penalty"] == pytest.approx(expected.bp, abs=1e-12)
        np.testing.assert_array_equal(rows, Bleu().rows(Batch(texts, references))[:, -2:])
    assert scores["brevity_penalty"] < 0.5


@pytest.mark.parametrize(
    ("rows", "ratio", "penalty"),
    [
        ([[3, 4], [1, 4]], 0.5, np.exp(-1.0)),
        ([[6, 4], [4, 4]], 1.25, 1.0),
        ([[4, 4]], 1.0, 1.0),
        ([[0, 4]], 0.0, 0.0),
        ([[4, 0]], 0.0, 1.0),
        ([[0, 0]], 0.0, 1.0),
    ],
)
def test_by_hand(rows: list[list[int]], ratio: float, penalty: float) -> None:
    scores = Length().aggregate(np.array(rows, dtype=float))
    assert scores["length_ratio"] == pytest.approx(ratio, abs=1e-15)
    assert scores["brevity_penalty"] == pytest.approx(penalty, abs=1e-15)


def test_marks_are_tokens_and_the_signature_says_whose() -> None:
    assert Length().rows(Batch(["  Good, isn't it?\n", ""], ["A b.", "c"])).tolist() == [[5, 3], [0, 1]]
    assert Length().signature().startswith("length|level:corpus|tok:13a|sacrebleu:")
