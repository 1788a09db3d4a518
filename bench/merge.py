"""From shards to their run: what they were answered goes into the run's own files, by key, once."""

from __future__ import annotations

from collections.abc import Callable

from bench.errors import StoreError
from bench.job import Job
from bench.results import Generation, Prediction, RunRecord
from bench.shards import shards_in
from bench.store import Key, PlacedRows, RunStore


def take_in(job: Job, store: RunStore, say: Callable[[str], None]) -> list[str]:
    """Take what a run's shards were answered into its store and, where they are done with all of its instances, write
    its predictions. `store` is open; what is damaged in a shard is mended and said.

    Returns the ids of the instances that no shard is done with. Raises `StoreError`, before anything is taken in, for
    different answers to one call.
    """
    shards = shards_in(job.folder)
    if not shards:
        return job.instances
    record = RunRecord.read(job.folder / "run.json")
    predictions: dict[str, Prediction] = {}
    rows: dict[Key, PlacedRows] = dict.fromkeys(store.rows, store.rows)
    makers: dict[str, None] = {}
    for shard in shards:
        part = job.part(shard)
        with RunStore(part.folder, record, say) as opened:
            predictions.update((row.instance, row) for row in opened.predictions(part.instances))
            made = RunRecord.read(part.folder / "run.json")
        makers[", ".join([made.device, *map(" ".join, made.versions.items())])] = None
        for key in opened.rows:
            if (known := rows.setdefault(key, opened.rows)) is not opened.rows:
                _check_same(key, known, opened.rows)
    if len(makers) > 1:
        say(f"{job.label}: not all shards were made on the same machine and versions: {'; '.join(makers)}")
    before = store.stored()
    for key, found in rows.items():
        if found is not store.rows:
            store.copy(key, found.line(key))
    if taken := store.stored() - before:
        say(f"{job.label}: took in {taken} completions of shards")
    missing = [instance for instance in job.instances if instance not in predictions]
    if not missing:
        store.write_predictions([predictions[instance] for instance in job.instances])
    return missing


def _check_same(key: Key, one: PlacedRows, other: PlacedRows) -> None:
    """Raise `StoreError` unless both have the same answer to a call, however long it took."""
    if one.line(key) == other.line(key):
        return
    if _answer(one.get(key)) != _answer(other.get(key)):
        raise StoreError(
            f"{one.path} and {other.path} have different answers to one call, {' '.join(map(str, key))}. Move away the "
            "one that you do not want, of a shard its whole folder, and run again; nothing was changed"
        )


def _answer(row: Generation | None) -> Generation | None:
    return None if row is None else row.model_copy(update={"seconds": 0.0})
