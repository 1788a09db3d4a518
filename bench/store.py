"""A run's folder, `results/runs/<readable-name>-<hash>/`:

    run.json           first: identity, configuration, versions, device
    places.json        the paths on this machine, by the names that stand for them in the other files
    generations.jsonl  append-only, one row a completion, keyed by (instance, stage, index) and the prompt's hash
    predictions.jsonl  one row an instance, written when every completion is there
    scores.jsonl       one row an instance and metric
    summary.json       last, atomically: its existence means that the run is complete
    shards/3-of-8/     the first four of these again, of a share of the instances (`bench.shards`)

Running the same configuration again resumes, and mends what is damaged: rows that are not as they were written are made
again, from the other files where these have it. What cannot be made without a model is kept beside, as
NAME.damaged. A torn last line is dropped; one process at a time may write. What the files hold is in `bench.results`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Protocol

from bench.errors import BusyError, DamagedError, StoreError
from bench.files import (
    ABSENT,
    RowWriter,
    content_hash,
    dump,
    exclusive,
    put_aside,
    unreadable,
    unwritable,
    write_held,
    write_rows,
)
from bench.places import PLACES, places_of
from bench.progress import Share, say
from bench.records import Call, Completion
from bench.results import (
    SCHEMA,
    Generation,
    Prediction,
    RunRecord,
    ScoreRow,
    Summary,
    identity_hash,
    placed_rows,
    row_in,
    rows_of,
    sound_rows,
)
from bench.shards import at_work, named, shards_in

ROWS = ("generations.jsonl", "predictions.jsonl", "scores.jsonl")
Key = tuple[str, str, int]
"""(instance, stage, index)."""
Generations = dict[Key, Generation]


def read_generations(folder: Path, instances: Collection[str] | None = None, owner: str | None = None) -> Generations:
    """The completions of a run by (instance, stage, index), all or those of some instances; with `owner` all have to be
    that run's. Raises `StoreError`."""
    return {
        (row.instance, row.stage, row.index): row
        for row in rows_of(Generation, folder / "generations.jsonl", owner)
        if instances is None or row.instance in instances
    }


def read_predictions(folder: Path, owner: str | None, instances: Sequence[str]) -> list[Prediction]:
    """The predictions of a run, none if they are not written yet. Raises `DamagedError` if they are not the run's, one
    for each of its instances in their order."""
    path = folder / "predictions.jsonl"
    if not path.exists():
        return []
    rows = list(rows_of(Prediction, path, owner))
    if [row.instance for row in rows] != list(instances):
        raise DamagedError(path, f"its {len(rows)} instances are not the {len(instances)} of the run in their order")
    return rows


class Rows(Protocol):
    """Rows of a generations.jsonl by their keys."""

    def get(self, key: Key, /) -> Generation | None:
        """The row of a key, if there is one."""
        ...


class PlacedRows:
    """Rows of a generations.jsonl that stay in the file: memory holds where each begins, about 250 bytes a row. `path`
    is the file, `owner` the run that its rows have to be of."""

    def __init__(self, path: Path, owner: str) -> None:
        self.path = path
        self._owner = owner
        self._places: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, rows: Iterable[tuple[int, Generation]]) -> None:
        """Take in rows, each with the byte at which it begins; of a key the last one counts. Of many it says how far it
        is. Raises what `rows` does."""
        share: Share | None = None
        for number, (place, row) in enumerate(rows, 1):
            # A run has few stages, and each row's own copy of the name.
            self._places[row.instance, sys.intern(row.stage), row.index] = place
            if number % 10_000 == 0:
                share = share or Share(f"reading {self.path}")
                share.update(place / max(self.path.stat().st_size, 1))
        if share is not None:
            share.close()

    def put(self, key: Key, place: int) -> None:
        """Take in the row that begins at a byte."""
        self._places[key] = place

    def __iter__(self) -> Iterator[Key]:
        """The keys, in the order of the first row of each."""
        return iter(self._places)

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def line(self, key: Key) -> bytes:
        """The line of a key's row as it is in the file; empty if there is none. Raises `StoreError` if the file may not
        be read."""
        if (place := self._places.get(key)) is None:
            return b""
        try:
            with self.path.open("rb") as file:
                file.seek(place)
                return file.readline()
        except ABSENT:
            return b""
        except OSError as error:
            raise unreadable(self.path, error) from error

    def get(self, key: Key, /) -> Generation | None:
        """The row of a key, if it is there and as it was written. Raises `StoreError` if the file may not be read."""
        row = row_in(Generation, self.line(key), self._owner)
        # Another process may have mended the file, so that another row begins here.
        return row if row is not None and (row.instance, row.stage, row.index) == key else None


def stored_completion(generations: Rows, call: Call) -> Completion | None:
    """The stored answer to a call, if there is one to this very prompt."""
    row = generations.get(call.key)
    if row is None or row.prompt != call.prompt.hash:
        return None
    return Completion(row.text, row.prompt_tokens, row.completion_tokens, row.finish_reason, row.seconds, row.shortened)


def other_weights(folder: Path, record: RunRecord) -> bool:
    """Whether the run in a folder, if it is this one, says that its texts were made with other weights, as far as both
    are known."""
    path = folder / "run.json"
    try:
        known = RunRecord.read(path) if path.exists() else None
    except DamagedError:
        return False
    if known is None or identity_hash(known.identity) != identity_hash(record.identity):
        return False
    return None not in (known.weights, record.weights) and known.weights != record.weights


def made_otherwise(folder: Path) -> StoreError:
    return StoreError(
        f"the texts in {folder} were made with other weights than the adapter has now. Move the folder away, then run "
        "again to write them anew; nothing in it was changed"
    )


class RunStore:
    """Reads and writes one run's folder; a context manager that holds the folder's lock. What it mends it says.

    Raises `StoreError` on entering if another process writes to the folder, or if the folder was written by another
    schema or holds texts of other weights.
    """

    def __init__(
        self,
        folder: Path,
        record: RunRecord,
        say: Callable[[str], None] = say,
        places: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.record = record
        self._places = dict(places or {})
        self._owner = identity_hash(record.identity)
        self._say = say
        self._lock = ExitStack()
        self._writer: RowWriter | None = None
        self._appending = Lock()
        self.rows = PlacedRows(folder / "generations.jsonl", self._owner)
        """The completions that are stored."""

    def __enter__(self) -> RunStore:
        try:
            self._lock.enter_context(exclusive(self.folder))
        except BusyError:
            if shards := at_work(self.folder):
                raise BusyError(
                    f"shards of {self.folder} are at work: {named(shards)}; wait for them or stop them, nothing was "
                    "changed"
                ) from None
            raise
        try:
            for name in ("run.json", *ROWS, "summary.json"):
                if (self.folder / name).is_dir():
                    put_aside(self.folder / name)
            self._open_record()
            path = self.folder / "generations.jsonl"
            self.rows.add(placed_rows(Generation, path, self._owner, self._say))
            self._writer = RowWriter(path, self._owner)
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._lock.close()

    def _open_record(self) -> None:
        """Write run.json if it is not there, or not this run's: which run the folder is of follows from its name, and
        rows of another one are found by their owner."""
        path = self.folder / "run.json"
        try:
            old = RunRecord.read(path) if path.exists() else None
        except DamagedError as error:
            self._say(f"{error.what}; written again")
            old = None
        if old is not None and old.schema_version != SCHEMA:
            raise StoreError(
                f"{self.folder} was written by schema {old.schema_version} of bench, this version writes {SCHEMA}. "
                "Move the folder away to run again; nothing in it was changed"
            )
        if old is not None and old.identity != self.record.json_object()["identity"]:
            self._say(f"{path} is damaged: it records another run; written again")
            old = None
        if old is None:
            write_held(path, self._first_record().text())
        elif other_weights(self.folder, self.record):
            raise made_otherwise(self.folder)
        known = places_of(self.folder)
        if (places := known | self._places) != known:
            write_held(self.folder / PLACES, dump(places))

    def _first_record(self) -> RunRecord:
        """What run.json is to say: what that of the first shard says, where there are shards, for it made texts."""
        records = []
        for shard in shards_in(self.folder):
            try:
                records.append(RunRecord.read(shard.folder(self.folder) / "run.json"))
            except StoreError:
                # It is said, and mended or refused, when the shard's rows are read.
                continue
        same = [one for one in records if one.owner == self._owner]
        return min(same, key=lambda one: one.created) if same else self.record

    def completion(self, call: Call) -> Completion | None:
        """The stored answer to a call, if there is one to this very prompt."""
        return stored_completion(self.rows, call)

    def append(self, call: Call, completion: Completion) -> None:
        """Keep an answer: once this returns, killing the process does not lose it. Raises `StoreError`."""
        assert self._writer is not None
        instance, stage, index = call.key
        row = Generation(instance=instance, stage=stage, index=index, prompt=call.prompt.hash, **asdict(completion))
        content = row.json_object()
        # Answers are looked up, and may be taken over from another run, in another thread.
        with self._appending:
            self.rows.put(call.key, self._writer.append(content))

    def copy(self, key: Key, line: bytes) -> None:
        """Keep another store's row of this run, as it lies there. Raises `StoreError`."""
        assert self._writer is not None
        self.rows.put(key, self._writer.append_line(line))

    def stored(self) -> int:
        """How many completions are stored."""
        return len(self.rows)

    def predictions(self, instances: Sequence[str]) -> list[Prediction]:
        """The predictions for these instances, in this order; none if they have to be made, as they are not written
        yet, or damaged, or answers that they were made from are lost."""
        try:
            rows = read_predictions(self.folder, self._owner, instances)
        except DamagedError as error:
            self._say(f"{error.what}; made again from the answers")
            return []
        if (lost := sum(row.calls for row in rows) - len(self.rows)) > 0:
            self._say(f"{self.folder}/generations.jsonl lacks {lost} answers; they are asked for again")
            return []
        return rows

    def write_predictions(self, predictions: Sequence[Prediction]) -> None:
        """Write all predictions atomically. Others that lie there are kept beside: their answers may be lost."""
        rows = (row.json_object() for row in predictions)
        write_rows(self.folder / "predictions.jsonl", rows, self._owner, keep=True)

    def write_scores(self, rows: Iterable[ScoreRow]) -> None:
        """Write all rows of scores atomically. Until the next summary the run is not complete."""
        path = self.folder / "summary.json"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error
        write_rows(self.folder / "scores.jsonl", (row.json_object() for row in rows), self._owner)

    def scores(self) -> list[ScoreRow]:
        """The rows of scores that are there, without damaged ones."""
        return sound_rows(ScoreRow, self.folder / "scores.jsonl", self._owner, self._say)

    def write_summary(self, summary: Summary) -> None:
        """Declare the run complete, its files being what they are now."""
        hashes = {name: content_hash(self.folder / name) for name in ("run.json", *ROWS)}
        files = {name: digest for name, digest in hashes.items() if digest}
        write_held(self.folder / "summary.json", summary.model_copy(update={"files": files}).text())
