"""The plain records."""

from __future__ import annotations

import pytest

from bench.records import Completion, said


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" plain \n", "plain"),
        ("<think>a</think>b", "b"),
        ("\n<think>\n\n</think>\n\nb", "b"),
        ("a</think>\nb", "b"),
        ("<think>a", ""),
        ("<think>a</think>", ""),
        ("<think>he wrote </think> once</think>b", "b"),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("b <think>c", "b"),
        ("[THINK]a[/THINK]b", "b"),
        ("<thinking>a\nb</thinking>\nc", "c"),
        ("a < b, think> c", "a < b, think> c"),
        ("<THINK>a</Think>b", "b"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b", "b"),
        (" \n\u200b\u00a0\ufeff ", ""),
    ],
)
def test_what_is_said_is_without_thoughts(text: str, answer: str) -> None:
    assert said(text) == answer
    assert Completion(text, 1, 1, "stop", 0.0).said == answer


def test_halves_of_surrogate_pairs_are_replaced() -> None:
    text = Completion("a\ud800b\udfffc 😀", 1, 1, "stop", 0.0).text
    assert text == "a\ufffdb\ufffdc 😀"
    assert text.encode().decode() == text
