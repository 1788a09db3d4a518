"""lamp-7: say something as a user would tweet it. (LaMP-7, personalized tweet paraphrasing)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.tasks._lamp import WRITTEN, LampTask
from bench.tasks._writers import Writer


@dataclass(frozen=True)
class Lamp7(LampTask):
    """The answer is a tweet. A record is a tweet, its text and nothing else."""

    number: ClassVar[int] = 7
    target: ClassVar[str] = "tweet"
    text_field: ClassVar[str] = "text"
    asks_for_text: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ("rouge",)
    max_new_tokens: ClassVar[int] = 128
    settings: ClassVar[Mapping[str, Any]] = WRITTEN

    def asked(self, writer: Writer) -> tuple[str, str, list[Mapping[str, Any]]]:
        """The writer's last text, from what it says in plain words."""
        *past, target = writer.pieces
        return f"Say this in a tweet of your own: {target.plain}", target.text, [{"text": one.text} for one in past]
