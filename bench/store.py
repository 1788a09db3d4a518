"""A run's folder, `results/runs/<readable-name>-<hash>/`:

    run.json           first: identity, configuration, versions, device
    generations.jsonl  append-only, one row a completion, keyed by (instance, stage, index) and the prompt's hash
    predictions.jsonl  one row an instance, written when every completion is there
    scores.jsonl       one row an instance and metric
    summary.json       last, atomically: its existence means that the run is complete

Running the same configuration again resumes. A torn last line is dropped; one process at a time may write. What the
files hold is in `bench.results`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from bench.errors import StoreError
from bench.files import RowWriter, as_lines, exclusive, write_atomically
from bench.records import Call, Completion
from bench.results import SCHEMA, Generation, Prediction, RunRecord, ScoreRow, Summary, rows_of

Generations = dict[tuple[str, str, int], Generation]


def read_generations(folder: Path, instances: Collection[str] | None = None) -> Generations:
    """The completions of a run by (instance, stage, index), all or those of some instances. Raises `StoreError`."""
    return {
        (row.instance, row.stage, row.index): row
        for row in rows_of(Generation, folder / "generations.jsonl")
        if instances is None or row.instance in instances
    }


def stored_completion(generations: Generations, call: Call) -> Completion | None:
    """The stored answer to a call, if there is one to this very prompt."""
    row = generations.get(call.key)
    if row is None or row.prompt != call.prompt.hash:
        return None
    return Completion(row.text, row.prompt_tokens, row.completion_tokens, row.finish_reason, row.seconds, row.shortened)


class RunStore:
    """Reads and writes one run's folder; a context manager that holds the folder's lock.

    Raises `StoreError` on entering if another process writes to the folder, or if the folder was written by another
    schema or holds another run.
    """

    def __init__(self, folder: Path, record: RunRecord) -> None:
        self.folder = folder
        self._record = record
        self._lock = ExitStack()
        self._writer: RowWriter | None = None
        self._rows: Generations = {}

    def __enter__(self) -> RunStore:
        self._lock.enter_context(exclusive(self.folder))
        try:
            self._open_record()
            self._rows = read_generations(self.folder)
            self._writer = RowWriter(self.folder / "generations.jsonl")
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
        path = self.folder / "run.json"
        if not path.exists():
            write_atomically(path, self._record.text())
            return
        old = RunRecord.read(path)
        if old.schema_version != SCHEMA:
            raise StoreError(
                f"{self.folder} was written by schema {old.schema_version} of bench, this version writes {SCHEMA}. "
                "Move the folder away to run again; nothing in it was changed"
            )
        if old.identity != self._record.json_object()["identity"]:
            raise StoreError(
                f"{path} records another run than its folder's name says. Move the folder away to run again"
            )

    def completion(self, call: Call) -> Completion | None:
        """The stored answer to a call, if there is one to this very prompt."""
        return stored_completion(self._rows, call)

    def append(self, call: Call, completion: Completion) -> None:
        """Keep an answer: once this returns, killing the process does not lose it. Raises `StoreError`."""
        assert self._writer is not None
        instance, stage, index = call.key
        row = Generation(instance=instance, stage=stage, index=index, prompt=call.prompt.hash, **asdict(completion))
        self._writer.append(row.json_object())
        self._rows[call.key] = row

    def stored(self) -> int:
        """How many completions are stored."""
        return len(self._rows)

    @property
    def has_predictions(self) -> bool:
        """Whether all texts are there."""
        return (self.folder / "predictions.jsonl").exists()

    def write_predictions(self, predictions: Sequence[Prediction]) -> None:
        """Write all predictions atomically."""
        write_atomically(self.folder / "predictions.jsonl", as_lines(row.json_object() for row in predictions))

    def predictions(self) -> list[Prediction]:
        """All predictions, in the order of the data set."""
        return list(rows_of(Prediction, self.folder / "predictions.jsonl"))

    def write_scores(self, rows: Iterable[ScoreRow]) -> None:
        """Write all rows of scores atomically."""
        write_atomically(self.folder / "scores.jsonl", as_lines(row.json_object() for row in rows))

    def scores(self) -> list[ScoreRow]:
        """The rows of scores that are there."""
        return list(rows_of(ScoreRow, self.folder / "scores.jsonl"))

    def write_summary(self, summary: Summary) -> None:
        """Declare the run complete."""
        write_atomically(self.folder / "summary.json", summary.text())
