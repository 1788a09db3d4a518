"""What lies on disk, typed: the content of a run's and an adapter's files.

The store writes it, everybody reads it through these types. Every file says the schema that it was written in. This
version writes `SCHEMA` and reads all in `READABLE`; results of an older schema can be listed, shown, compared and
reported, and are never gone on with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import DamagedError, StoreError
from bench.files import (
    dump,
    object_hash,
    put_aside,
    read_json,
    read_line,
    read_rows,
    replacing,
    unwritable,
    whole_lines,
)

SCHEMA = 3
READABLE = (1, 2, 3)
"""1: before tasks and backends were plugins (bench 0.1). 2: before files and rows had checksums."""


def identity_hash(identity: Mapping[str, Any]) -> str:
    """Ten hex digits that stand for an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:10]


class Stored(BaseModel):
    """Base of everything that is stored: frozen; keys that this version does not know are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    def json_object(self) -> dict[str, Any]:
        """The object as it is written."""
        return self.model_dump(mode="json", by_alias=True)


class File(Stored):
    """Base of what fills a file of its own."""

    schema_version: int = Field(default=SCHEMA, alias="schema")

    @classmethod
    def read(cls, path: Path) -> Self:
        """The content of a file. Raises `DamagedError` for one that is not as it was written, `StoreError` for a schema
        that cannot be read."""
        content = read_json(path)
        schema, checksum = content.get("schema"), content.pop("sha256", None)
        if checksum != (object_hash(content) if checksum is not None or schema == SCHEMA else None):
            raise DamagedError(path, "it does not have the content of its checksum")
        if schema not in READABLE:
            raise StoreError(
                f"{path.parent} was written by schema {schema} of bench, this version reads "
                f"{', '.join(map(str, READABLE))}. Use the version that wrote it, or move the folder away to start over"
            )
        if checksum is not None and schema < SCHEMA:
            raise DamagedError(path, f"schema {schema} has no checksums")
        return validated(cls, content, path)

    def text(self) -> str:
        """The file's content, with a checksum over the rest of it."""
        content = self.json_object()
        return dump(content if self.schema_version < SCHEMA else content | {"sha256": object_hash(content)})


class RunRecord(File):
    """run.json: what a run is. `identity` is everything that can change a text, `config` the configuration of the first
    time, as settings; `weights` is the SHA-256 of the weights that make its vectors."""

    name: str
    identity: dict[str, Any]
    config: dict[str, Any]
    data_notes: dict[str, list[str]] = {}
    versions: dict[str, str] = {}
    device: str = ""
    created: str = ""
    weights: str | None = None

    @property
    def owner(self) -> str | None:
        """What the run's rows say they belong to; None for a schema without checksums."""
        return identity_hash(self.identity) if self.schema_version == SCHEMA else None


class Generation(Stored):
    """A row of generations.jsonl: a completion, keyed by (instance, stage, index) and the prompt's hash."""

    instance: str
    stage: str
    index: int
    prompt: str
    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str
    seconds: float
    shortened: bool = False


class Prediction(Stored):
    """A row of predictions.jsonl. `blocks_shown` and `blocks_offered` are those of the last prompt; `counts` are the
    prompts' own, summed. Of its calls, `uncounted` are those whose tokens the server did not tell, `shortened` those
    whose prompt it cut; `empty` counts answers without text by stage."""

    instance: str
    category: str
    user: str
    prediction: str
    reference: str
    blocks_shown: int
    blocks_offered: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    uncounted: int = 0
    shortened: int = 0
    empty: dict[str, int] = {}
    cut_off: bool
    counts: dict[str, int] = {}


class ScoreRow(Stored):
    """A row of scores.jsonl: a metric's statistics of one prediction; `texts` is a hash of what they were made from."""

    instance: str
    metric: str
    signature: str
    texts: str
    statistics: list[float]


class Score(Stored):
    """A score and its 95% interval."""

    value: float
    low: float
    high: float


class AdapterSummary(Stored):
    """Which adapter made a run's vectors; of an imported one the name alone is known."""

    name: str
    parameters: int | None = None
    share: float | None = None
    epochs: int | None = None
    instances: int | None = None
    epoch: int | None = None


class Summary(File):
    """summary.json: a complete run. `scores` by category and column; `instances` counts them by category; `resamples`,
    `fidelity` and `metric_options` tell how the scores were made, `metric_notes` what has to stand with those of a
    metric; `files` are the SHA-256 of the run's other files. Tokens are those that are known: a server did not tell
    them for `uncounted_calls`, and cut the prompts of `shortened_calls`. `empty_answers` counts answers without text
    by stage, `empty_predictions` instances without one. `seconds` are those of the process that wrote the last text,
    as `bench.loop.Seconds` has them; empty where another one scored."""

    name: str
    instances: dict[str, int]
    empty_predictions: int
    empty_answers: dict[str, int] = {}
    cut_off: int
    counts: dict[str, int] = {}
    adapter: AdapterSummary | None = None
    calls: int
    prompt_tokens: int
    completion_tokens: int
    uncounted_calls: int = 0
    shortened_calls: int = 0
    blocks_shown: float
    blocks_offered: float
    seconds: dict[str, float] = {}
    resamples: int | None = None
    fidelity: str | None = None
    metric_options: dict[str, dict[str, Any]] | None = None
    signatures: dict[str, str]
    metric_notes: dict[str, str] = {}
    scores: dict[str, dict[str, Score]]
    files: dict[str, str] = {}

    @property
    def answer_notes(self) -> list[str]:
        """Sentences on answers without text, and on prompts that a server cut; none for a run without either."""
        notes = []
        if self.empty_answers:
            counted = ", ".join(f"{stage} {count}" for stage, count in self.empty_answers.items())
            notes.append(f"{self.name}: answers without text: {counted}.")
        if self.shortened_calls:
            notes.append(
                f"{self.name}: the server cut {self.shortened_calls} of {self.calls} prompts, so these are not the "
                "scores of the method."
            )
        return notes


class AdapterRecord(File):
    """adapter.json: what an adapter is. A trained one has an identity and a configuration, an imported one a source,
    the hash of its weights and the shapes of its tensors."""

    method: str
    identity: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    versions: dict[str, str] = {}
    device: str = ""
    created: str = ""
    source: str | None = None
    weights: str | None = None
    tensors: dict[str, list[int]] | None = None


class TrainingRecord(File):
    """training.json: a training that is complete. `share` of the parameters is the adapter's; `seconds` are those of
    all steps; `files` are the SHA-256 of each epoch's weights and of the log."""

    epochs: int
    steps: int
    instances: int
    parameters: int
    share: float
    processes: int
    seconds: float
    files: dict[str, str] = {}


class TrainingStep(Stored):
    """A row of log.jsonl: an optimiser step; `loss` is `generation` + `own`, the method's own losses, weighted."""

    step: int
    epoch: int
    instances: int
    tokens: int
    loss: float
    generation: float
    own: float
    gradient_norm: float
    learning_rate: float
    seconds: float


class InfluenceRow(Stored):
    """A row of influence.jsonl: how much the history changes the log-probability (nats) of each token of a text."""

    instance: str
    nats: list[float]


class Selection(File):
    """selection.json: the epoch whose adapter is used, by its score on the validation subset; `weights` is the SHA-256
    of that epoch's."""

    column: str
    instances: int
    scores: dict[int, float]
    epoch: int
    signatures: dict[str, str]
    weights: str = ""


Row = TypeVar("Row", bound=Stored)


def older(paths: Iterable[Path], fate: str) -> list[str]:
    """A sentence for each file whose folder an older version wrote: its schema, and what becomes of the folder."""
    found = ((path.parent.name, schema_of(path)) for path in sorted(paths))
    return [
        f"{name} is of an older schema ({schema}; this version writes {SCHEMA}): {fate}"
        for name, schema in found
        if schema is not None and schema < SCHEMA
    ]


def schema_of(path: Path) -> int | None:
    """The schema that a file says it is of; None for one that is missing or broken."""
    try:
        schema = read_json(path).get("schema")
    except StoreError:
        return None
    return schema if isinstance(schema, int) else None


def validated(kind: type[Row], content: dict[str, Any], where: object) -> Row:
    """`content` as an object of a kind. Raises `DamagedError` naming what is missing or of another type."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DamagedError(where, f"{field}: {first['msg']}") from None


def rows_of(kind: type[Row], path: Path, owner: str | None = None) -> Iterator[Row]:
    """The rows of a JSONL file, none if it is not there; with `owner` all are sealed as that one's. Raises
    `DamagedError` for a row that is not as it was written, or not of the kind."""
    for number, row in enumerate(read_rows(path, owner), 1):
        yield validated(kind, row, f"{path}, line {number}")


def sound_rows(kind: type[Row], path: Path, owner: str, say: Callable[[str], None]) -> list[Row]:
    """The rows of a JSONL file that are sealed as `owner`'s, as `placed_rows` gives them."""
    return [row for _, row in placed_rows(kind, path, owner, say)]


def placed_rows(kind: type[Row], path: Path, owner: str, say: Callable[[str], None]) -> Iterator[tuple[int, Row]]:
    """The rows of a JSONL file that are sealed as `owner`'s, none if it is not there, each with the byte at which it
    begins. If there are others, they are dropped from the file once the last row is taken (the bytes are those after
    that), its old content is kept beside it, and that is said. Raises `StoreError`."""
    place = lines = damaged = 0
    for lines, line in enumerate(whole_lines(path), 1):  # noqa: B007
        if (row := row_in(kind, line, owner)) is None:
            damaged += 1
            continue
        yield place, row
        place += len(line)
    if not damaged:
        return
    aside = put_aside(path, copy=True)
    try:
        with replacing(path) as file:
            file.writelines(line for line in whole_lines(aside) if row_in(kind, line, owner) is not None)
    except OSError as error:
        raise unwritable(path, error) from error
    say(
        f"{path}: {damaged} of {lines} rows are damaged or belong elsewhere; they are made again, and the old file is "
        f"kept as {aside.name}"
    )


def row_in(kind: type[Row], line: bytes, owner: str) -> Row | None:
    """The row in a line of a JSONL file; None if it is not as it was written."""
    try:
        return validated(kind, read_line(line, owner)[0], "")
    except (ValueError, DamagedError):
        return None
