"""Invented writers for the samples of tasks: people of the demo's world (`bench.data.demo`), each population under a
name of its own, the same on every machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data import demo
from bench.data.demo import Dice
from bench.records import Record


@dataclass(frozen=True)
class Piece:
    """Something that a writer wrote on a thing: `title` and `text`; `about` describes the thing, called `name`; `plain`
    says the same as the text without the writer's manner; `rating` is 1 to 5; `thing` is the thing's code, `genre` one
    of six."""

    name: str
    title: str
    text: str
    about: str
    plain: str
    rating: int
    thing: str
    genre: int


@dataclass(frozen=True)
class Writer:
    """A writer with pieces, oldest first, and dice of the writer's own."""

    id: str
    pieces: Sequence[Piece]
    dice: Dice


def writers(name: str, count: int, category: str = "Books") -> list[Writer]:
    """A population of so many."""
    world = demo.make_world(category, f"sample/{name}", users=count)
    return [
        Writer(
            world.users[place].id,
            [_piece(record, thing, written) for record, thing, written in demo.reviews(world, place)],
            Dice(f"sample/{name}/{place}"),
        )
        for place in range(count)
    ]


def _piece(record: Record, thing: demo.Thing, written: demo.Written) -> Piece:
    plain = [
        f"{fact.subject} {fact.be} {adjective}"
        for fact, adjective in zip(written.facts, written.adjectives, strict=True)
    ]
    fields = record.fields
    return Piece(
        name=str(fields["item_title"]),
        title=str(fields["title"]),
        text=record.text,
        about=str(fields["item_description"]),
        plain=demo.with_articles(", ".join(plain)) + ".",
        rating=int(float(fields["rating"])),
        thing=str(record.group),
        genre=thing.genre,
    )


def write_json(path: Path, content: Any) -> None:
    """Write a file of a sample."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table of a sample."""
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows)), path)
