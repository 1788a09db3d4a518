"""lamp-1: which of two papers did the author of a paper cite? (LaMP-1, personalized citation identification)"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.records import Instance
from bench.tasks._lamp import LampTask, labelled
from bench.tasks._writers import Writer

_QUOTED = re.compile(r'"([^"]*)"')
LABELS = ("[1]", "[2]")


@dataclass(frozen=True)
class Lamp1(LampTask):
    """The answer is [1] or [2]. A record is a paper of the author: its text the abstract, beside it the title; none
    holds an answer."""

    number: ClassVar[int] = 1
    target: ClassVar[str] = "citation"
    text_field: ClassVar[str] = "abstract"
    other_fields: ClassVar[tuple[str, ...]] = ("title",)
    answered: ClassVar[bool] = False
    asks_for_text: ClassVar[bool] = False
    labels: ClassVar[tuple[str, ...]] = LABELS
    labels_expected: ClassVar[str] = "those of LaMP-1 are [1] and [2]"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")
    settings: ClassVar[Mapping[str, Any]] = labelled(LABELS)

    def query(self, instance: Instance) -> str:
        """The two titles to choose from: the second and third quoted text of the input."""
        given = str(instance.given["input"])
        return " ".join(_QUOTED.findall(given)[1:3]) or given

    def asked(self, writer: Writer) -> tuple[str, str, list[Mapping[str, Any]]]:
        """The cited paper is on what the author writes about most often."""
        *past, target = writer.pieces
        genres = [piece.genre for piece in past]
        usual = max(sorted(set(genres)), key=genres.count)
        rare = min(sorted(set(genres)), key=genres.count)
        cited = next(piece for piece in reversed(past) if piece.genre == usual)
        other = next(piece for piece in past if piece.genre == rare and piece is not cited)
        first = writer.dice.chance(0.5)
        pair = (cited, other) if first else (other, cited)
        question = (
            f'An author wrote the paper with the title "{target.name}". Which of these two does it cite? Answer with '
            f'[1] or [2] alone. [1]: "{pair[0].title}" [2]: "{pair[1].title}"'
        )
        profile: list[Mapping[str, Any]] = [
            {"title": one.name, "abstract": one.about} for one in past if one not in (cited, other)
        ]
        return question, "[1]" if first else "[2]", profile
