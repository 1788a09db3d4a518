"""The texts of finished runs for one instance, side by side: which instance, and what is emphasised.

Emphasised are phrases of three words or more that a text shares with the real one, in the real text those that any of
the texts shares. Words are compared without case and punctuation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bench.data.corpus import Corpus
from bench.errors import ConfigError, DataError
from bench.experiments.scores import RowRuns
from bench.experiments.spec import Experiment
from bench.finished import FinishedRun
from bench.protocols import Task
from bench.records import Instance
from bench.registry import near_match
from bench.report.side_by_side import Segment, SideBySide, Text

PHRASE = 3
"""Words of the shortest phrase that counts as shared."""


def texts_of(table_id: str, experiment: Experiment, rows: Mapping[str, RowRuns]) -> SideBySide:
    """The texts of each row's first seed, under the rows' labels. Raises as `side_by_side` does."""
    runs = [(label, row.finished[0]) for label, row in rows.items()]
    first = next(iter(rows.values())).jobs[0].run
    return side_by_side(
        table_id, experiment.title, runs, first.corpora, first.task, experiment.instance, experiment.notes
    )


def side_by_side(
    table_id: str,
    title: str,
    runs: Sequence[tuple[str, FinishedRun]],
    corpora: Mapping[str, Corpus],
    task: Task,
    instance_id: str | None = None,
    notes: Sequence[str] = (),
) -> SideBySide:
    """The texts of runs, each with its label, for one instance of their data; `notes` stand behind its own.

    Without `instance_id`, of the instances that all runs have it is the one whose real text has the median length in
    characters (of an even number the shorter of both, of equals in the order of ids): no method's text has a say in it.
    Raises `ConfigError` for an instance that is not in all runs, `DataError` for runs of other data than `corpora`.
    """
    if not runs:
        raise ConfigError(f"{table_id}: there is no run to show texts of; name at least one")
    predictions = [{row.instance: row for row in run.predictions} for _, run in runs]
    references = {name: row.reference for name, row in predictions[0].items()}
    common = [name for name in references if all(name in rows for rows in predictions)]
    names = ", ".join(run.name for _, run in runs)
    if not common:
        raise ConfigError(f"{table_id}: no instance is in all of the runs {names}")
    if instance_id is None:
        chosen = sorted(common, key=lambda name: (len(references[name]), name))[(len(common) - 1) // 2]
        how = f"the one with the median length of the real {task.target}, of the {len(common)} that all methods have"
    elif instance_id in common:
        chosen, how = instance_id, "chosen by hand"
    else:
        near = near_match(instance_id, common)
        raise ConfigError(f"{table_id}: instance '{instance_id}' is not in all of the runs {names}{near}")
    instance = _instance(chosen, [run for _, run in runs], corpora)
    written = [(label, rows[chosen].prediction) for (label, _), rows in zip(runs, predictions, strict=True)]
    own = [
        f"Instance {chosen}: {how}.",
        f"Emphasised: phrases of {PHRASE} words or more that the real {task.target} has too; in the real "
        f"{task.target}, those of any of the texts. Case and punctuation do not count.",
        *corpora[instance.category].notes,
        *(note for _, run in runs for note in run.config.notes),
    ]
    return SideBySide(
        table_id,
        _printable(title),
        {label: _printable(value) for label, value in task.shown(instance).items() if value},
        emphasised(written, references[chosen], f"User's real {task.target}"),
        (*map(_printable, dict.fromkeys(own)), *notes),
    )


def _instance(name: str, runs: Sequence[FinishedRun], corpora: Mapping[str, Corpus]) -> Instance:
    """The instance of an id. Raises `DataError` unless all runs are of its category's very data."""
    category = next(row.category for row in runs[0].predictions if row.instance == name)
    for run in runs:
        data = run.record.identity["data"].get(category)
        if category not in corpora or data != corpora[category].fingerprint:
            raise DataError(
                f"{run.name} is a run on other data of {category} than the data at hand; run it again on these data"
            )
    found = [i for split in corpora[category].instances.values() for i in split if i.id == name]
    return found[0]


# ---- shared phrases

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def emphasised(written: Sequence[tuple[str, str]], reference: str, label: str) -> tuple[Text, ...]:
    """The texts with what they share with the reference, then, under its label, the reference with what it shares with
    any of them."""
    real = _printable(reference)
    texts = [(source, _printable(text)) for source, text in written]
    shared = _phrases(real)
    theirs = {phrase for _, text in texts for phrase in _phrases(text)}
    own = [Text(_printable(source), _segments(text, shared)) for source, text in texts]
    return (*own, Text(label, _segments(real, theirs)))


def _printable(text: str) -> str:
    """Text without what no file or page can show: control characters and lone surrogates become U+FFFD."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text.replace("\r\n", "\n")).strip()


def _words(text: str) -> list[tuple[str, int, int]]:
    """The words as they are compared, each with its start and end in the text."""
    words = _WORD.finditer(text)
    return [(match[0].replace("’", "'").casefold(), match.start(), match.end()) for match in words]


def _phrases(text: str) -> set[tuple[str, ...]]:
    words = [word for word, _, _ in _words(text)]
    return {tuple(words[start : start + PHRASE]) for start in range(len(words) - PHRASE + 1)}


def _segments(text: str, phrases: set[tuple[str, ...]]) -> tuple[Segment, ...]:
    """The text in pieces, those emphasised that are made up of phrases which overlap."""
    words = _words(text)
    spans: list[tuple[int, int]] = []
    for first in range(len(words) - PHRASE + 1):
        if tuple(word for word, _, _ in words[first : first + PHRASE]) in phrases:
            start, end = words[first][1], words[first + PHRASE - 1][2]
            if spans and start < spans[-1][1]:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
    segments: list[Segment] = []
    position = 0
    for start, end in spans:
        segments += [(text[position:start], False), (text[start:end], True)]
        position = end
    return tuple((piece, bold) for piece, bold in [*segments, (text[position:], False)] if piece)
