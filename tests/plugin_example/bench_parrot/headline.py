"""headline: a task. Write the headline that a journalist gave an article."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bench.records import Instance, Record


@dataclass(frozen=True)
class Headline:
    """Headlines of articles. A record's text is a headline, its one field the `article`, which is also what is given
    of the target. Journalists share no articles, and nobody knows when one was written."""

    target: ClassVar[str] = "headline"
    grouped: ClassVar[bool] = False
    timed: ClassVar[bool] = False
    long_fields: ClassVar[tuple[str, ...]] = ("article",)
    metrics: ClassVar[tuple[str, ...]] = ("rouge",)
    max_new_tokens: ClassVar[int] = 16

    def query(self, instance: Instance) -> str:
        """The article."""
        return str(instance.given["article"])

    def document(self, record: Record) -> str:
        """The article of an earlier headline."""
        return str(record.fields["article"])

    def about(self, instance: Instance) -> str:
        """The article."""
        return str(instance.given["article"])

    def shown(self, instance: Instance) -> Mapping[str, str]:
        """The article."""
        return {"Article": str(instance.given["article"])}

    def shown_record(self, record: Record) -> Mapping[str, str]:
        """The article of an earlier headline."""
        return {"Article": str(record.fields["article"])}
