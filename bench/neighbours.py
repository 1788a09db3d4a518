"""A run's neighbours: runs of the same results that are the same but for the limit.

A limit decides which calls a run makes and changes no answer, so what a neighbour was answered is taken over instead of
being asked for again. It is looked up when the run's own store lacks an answer, and kept as the run's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.errors import StoreError
from bench.files import whole_lines
from bench.job import Job
from bench.naming import readable_name
from bench.records import Call, Completion
from bench.results import Generation, RunRecord, identity_hash, row_in
from bench.shards import shards_in
from bench.store import Generations, PlacedRows, RunStore, stored_completion


class SharedAnswers:
    """Where a job's answers are kept: in its store, which takes over what it lacks from the job's neighbours.

    `taken` counts the answers that were taken over, by the run that they are from.
    """

    def __init__(self, job: Job, store: RunStore) -> None:
        self._job = job
        self._store = store
        self.taken: Counter[str] = Counter()

    def completion(self, call: Call) -> Completion | None:
        """The answer to a call, from the run itself or a neighbour that asked the very same. Raises `StoreError`."""
        if (known := self._store.completion(call)) is not None:
            return known
        for name, rows in self._neighbours.items():
            if (lent := stored_completion(rows, call)) is not None:
                self._store.append(call, lent)
                self.taken[name] += 1
                return lent
        return None

    def append(self, call: Call, completion: Completion) -> None:
        """Keep an answer. Raises `StoreError`."""
        self._store.append(call, completion)

    @cached_property
    def _neighbours(self) -> dict[str, PlacedRows]:
        wanted, lenders = set(self._job.instances), {}
        for folder, owner in [*_parts(self._job), *neighbours(self._job, self._store.record)]:
            path = folder / "generations.jsonl"
            rows = PlacedRows(path, owner)
            rows.add((place, row) for place, row in _sound(path, owner) if row.instance in wanted)
            lenders[folder.name] = rows
        return lenders


def _parts(job: Job) -> Iterator[tuple[Path, str]]:
    """Where a shard finds answers to its own calls: the run's folder, and shards of other counts. None is written to
    while the shard is at work."""
    if job.shard is not None:
        others = [one for one in shards_in(job.run_folder) if one.of != job.shard.of]
        for folder in (job.run_folder, *(one.folder(job.run_folder) for one in others)):
            yield folder, identity_hash(job.identity)


def neighbours(job: Job, record: RunRecord) -> Iterator[tuple[Path, str]]:
    """The folders of a job's neighbours, complete or not, each with what its rows belong to; `record` is the job's.

    Versions, device and weights are those of the job too. A validation run has no neighbours, nor has one whose vectors
    are other users' or their mean: these hang on which instances it has. A run that cannot be read is none.
    """
    soft = job.adapter is not None
    others = soft and getattr(job.run.method, "vectors", "own") != "own"
    if job.epoch is not None or others or (soft and record.weights is None):
        return
    wanted = _but_for_the_limit(record)
    for path in sorted(job.run_folder.parent.glob(f"{readable_name(job.run)}*/run.json")):
        try:
            found = RunRecord.read(path)
        except StoreError:
            continue
        if path.parent != job.run_folder and _but_for_the_limit(found) == wanted:
            yield path.parent, identity_hash(found.identity)


def answers_at_hand(job: Job) -> Generations:
    """The answers that a run of the job finds by their keys, its own, its shards' and its neighbours', without mending
    a file. An answer counts at the run itself only if it is to the very prompt, which is not looked at here."""
    own = [*(shard.folder(job.folder) for shard in shards_in(job.folder)), job.folder]
    folders = [*neighbours(job, job.record()), *((folder, identity_hash(job.identity)) for folder in own)]
    rows = (row for folder, owner in folders for _, row in _sound(folder / "generations.jsonl", owner))
    return {(row.instance, row.stage, row.index): row for row in rows}


def _but_for_the_limit(record: RunRecord) -> tuple[object, ...]:
    """What makes a run's answers what they are."""
    identity: dict[str, Any] = record.json_object()["identity"]
    if isinstance(settings := identity.get("settings"), dict):
        settings.pop("limit", None)
    return record.schema_version, identity, record.weights, record.versions, record.device


def _sound(path: Path, owner: str) -> Iterator[tuple[int, Generation]]:
    """The sound rows of another run's file, each with the byte at which it begins. The file is not mended: another
    process may be writing to it."""
    place = 0
    for line in whole_lines(path):
        if (row := row_in(Generation, line, owner)) is not None:
            yield place, row
        place += len(line)
