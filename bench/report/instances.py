"""The report's instances: what each run wrote, its prompts and scores, beside the user's real text and history.

Instances are packed a few together, so that a browser unpacks little to show one (report.js). Their texts stand in
them as numbers of pieces, which a category's instances share: what a user wrote is in the history, in the prompts of
many runs and among the peers of other users, too far apart for a packer to see.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config import RunConfig
from bench.data.corpus import Corpus
from bench.errors import BenchError, DataError
from bench.finished import FinishedRun
from bench.loop import replay
from bench.places import without_paths
from bench.progress import Progress
from bench.protocols import Column, Task
from bench.records import Completion, Instance, Prompt, Record
from bench.registry import create
from bench.report.labels import data_names, labels, settings_of
from bench.report.leaderboard import data_of
from bench.report.markup import escape_html
from bench.report.names import category_name
from bench.resolved import Inputs, Run
from bench.results import SCHEMA, Prediction
from bench.store import Generations, read_generations

TOGETHER = 16
"""Instances that are packed together: more together gain little."""
DAY = 86_400_000
_ENDS = re.compile(r"(?<=\n)|(?<=: )")
"""Behind what a template puts in front of a text, and between lines."""


def viewer(runs: Sequence[FinishedRun], results: Path, limit: int, places: Collection[str]) -> str:
    """The part of the page that shows instances, at most `limit` of a category: a viewer for each data set and split of
    the runs, that of most runs first, as far as these can be read. Of `places` in a message their last parts are
    shown."""
    names = dict(zip([run.name for run in runs], data_names(runs), strict=True))
    left = list(runs)
    parts: list[tuple[str, str]] = []
    while left:
        by_data = Counter(map(data_of, left))
        try:
            found = _first_readable(sorted(left, key=lambda run: -by_data[data_of(run)]))
        except BenchError as error:
            reason = escape_html(without_paths(str(error), places))
            which = f" of {len(left)} more runs" if parts else ""
            parts.append(("", f"<p>No instances{which} can be shown, for their data cannot be read: {reason}</p>"))
            break
        first = found[0]
        split = settings_of(first)["split"]
        shown = [run for run in left if settings_of(run)["split"] == split and _is_of(run, found[2])]
        number = f"-{len(parts) + 1}" if parts else ""
        head = f"{names[first.name]}, {split}: {', '.join(map(category_name, found[2]))}"
        parts.append((head, _viewer(found, shown, runs, results, limit, places, number)))
        done = {run.name for run in shown}
        left = [run for run in left if run.name not in done]
    several = len(parts) > 1
    return "\n".join(f"<h3>{escape_html(head)}</h3>\n{part}" if several and head else part for head, part in parts)


def _viewer(
    found: tuple[FinishedRun, Task, Mapping[str, Corpus]],
    shown: Sequence[FinishedRun],
    runs: Sequence[FinishedRun],
    results: Path,
    limit: int,
    places: Collection[str],
    number: str,
) -> str:
    """The viewer of the runs on one data set, that of `found`, with its task and data; `number` ends the ids of all of
    its elements."""
    first, task, corpora = found
    split = settings_of(first)["split"]
    predicted = {row.instance for run in shown for row in run.predictions}
    chosen: list[Instance] = []
    for corpus in corpora.values():
        chosen += [instance for instance in corpus.split(split) if instance.id in predicted][:limit]
    inputs = Inputs(corpora)
    names = [instance.id for instance in chosen]
    texts = [_texts(run, label, inputs, results, names) for run, label in zip(shown, labels(shown), strict=True)]
    columns = {name: column for run in shown for name, (_, column) in run.columns.items()}
    decimals = {name: column.decimals for name, column in columns.items()}
    view = _View(task, corpora, inputs, texts, first.config, decimals)
    progress = Progress("report", len(chosen))
    blocks = []
    for start in range(0, len(chosen), TOGETHER):
        contents = [view.content(instance) for instance in chosen[start : start + TOGETHER]]
        blocks.append(_packed(f"instances{number}-{start}", contents))
        progress.update(finished=len(contents))
    progress.close()
    blocks += [_packed(f"pieces{number}-{at}", list(known)) for at, known in enumerate(view.pieces.values())]
    introduction = _introduction(task, len(shown), len(runs), len(chosen), len(predicted))
    index = _json(_index(view, columns, chosen, places), number)
    return "\n".join([introduction, _frame(task, chosen, number), index, *blocks])


def _data(run: FinishedRun) -> tuple[FinishedRun, Task, Mapping[str, Corpus]]:
    """A run with its task and its data. Raises `DataError` if they are not what they were, `BenchError` if they cannot
    be read."""
    config = run.config
    task: Task = create("tasks", config.task, config.options.get(config.task, {}), config.fidelity)
    corpora = Inputs().corpora(config)
    if not _is_of(run, corpora):
        raise DataError(f"data set {config.dataset} was changed since {run.name} was made; run it again")
    return run, task, corpora


def _first_readable(runs: Sequence[FinishedRun]) -> tuple[FinishedRun, Task, Mapping[str, Corpus]]:
    """The first of some runs whose data can be read, with them. Raises `BenchError`, that of the very first, if there
    is none."""
    first: BenchError | None = None
    for run in runs:
        try:
            return _data(run)
        except BenchError as error:
            first = first or error
    assert first is not None
    raise first


def _is_of(run: FinishedRun, corpora: Mapping[str, Corpus]) -> bool:
    """Whether a run is of these very data. An older schema has other fingerprints: there the texts that the run had to
    predict have to be theirs."""
    data = run.record.identity["data"]
    if run.record.schema_version == SCHEMA:
        return bool(data == {category: corpus.fingerprint for category, corpus in corpora.items()})
    return data.keys() == corpora.keys() and all(
        corpora[row.category].references.get(row.instance) == row.reference for row in run.predictions
    )


# ---- what is shown of an instance


@dataclass
class _Texts:
    """What a run wrote, by instance, and its scores; the run itself, where its prompts can be rebuilt, else why not."""

    label: str
    predictions: Mapping[str, Prediction]
    scores: Mapping[str, Mapping[str, float]]
    generations: Generations
    run: Run | None
    problem: str = ""

    def exchanged(self, instance: Instance) -> list[tuple[Prompt, Completion]]:
        """The prompts of an instance with their answers, as far as they can be rebuilt."""
        if self.run is None:
            return []
        try:
            return replay(self.run, instance, self.generations).exchanged
        except BenchError as error:
            self.problem = str(error)
            self.run = None
            return []


def _texts(run: FinishedRun, label: str, inputs: Inputs, results: Path, chosen: Sequence[str]) -> _Texts:
    where = {row.instance: index for index, row in enumerate(run.predictions)}
    known = [name for name in chosen if name in where]
    scores = {name: run.instance_scores(where[name]) for name in known}
    predictions = {name: run.predictions[where[name]] for name in known}
    generations: Generations = {}
    try:
        generations = read_generations(run.folder, set(known), run.record.owner)
        rebuilt = Run(run.config.model_copy(update={"results": results}), inputs)
    except BenchError as error:
        return _Texts(label, predictions, scores, generations, None, str(error))
    return _Texts(label, predictions, scores, generations, rebuilt)


@dataclass(frozen=True)
class _View:
    """Everything that is shown of the instances."""

    task: Task
    corpora: Mapping[str, Corpus]
    inputs: Inputs
    texts: Sequence[_Texts]
    config: RunConfig
    decimals: Mapping[str, int]
    """Of each score: more than are shown take much room."""
    pieces: dict[str, dict[str, int]] = field(default_factory=dict)
    """By category the pieces of its texts with their numbers."""

    def content(self, instance: Instance) -> dict[str, Any]:
        """Everything about an instance. The first fact of an instance and of a record is its heading."""
        numbers = _Numbers(self.pieces.setdefault(instance.category, {}))
        (_, title), *facts = self._facts(instance)
        history = [self._record(record, numbers) for record in reversed(instance.profile)]
        return {
            "pieces": list(self.pieces).index(instance.category),
            "title": title,
            "user": instance.user_id,
            "facts": facts,
            "long": [
                [_words(name), numbers.of(str(instance.given[name]))]
                for name in self.task.long_fields
                if instance.given.get(name)
            ],
            "reference": numbers.of(self.corpora[instance.category].reference(instance)),
            "history": history,
            "peers": self._peers(instance, numbers) if self.task.grouped else None,
            **self._written(instance, numbers),
        }

    def _facts(self, instance: Instance) -> list[tuple[str, str]]:
        group = [] if instance.group is None else [("Group", instance.group)]
        heading, *facts = self.task.shown(instance).items() or [("Instance", instance.id)]
        return [(heading[0], _title(self.task, instance)), *_told(facts), *group]

    def _record(self, record: Record, numbers: _Numbers) -> dict[str, Any]:
        facts = list(self.task.shown_record(record).items())
        return _shown(record, (facts[0][1] or record.group or "") if facts else "", _told(facts[1:]), numbers)

    def _peers(self, instance: Instance, numbers: _Numbers) -> list[dict[str, Any]]:
        """What peers wrote, without what all of them share with the instance: its heading."""
        pool = self.inputs.pool(self.corpora[instance.category], self.config)
        same = self._facts(instance)[0]
        return [
            _shown(
                peer,
                peer.user_id,
                _told(fact for fact in self.task.shown_record(peer).items() if fact != same),
                numbers,
            )
            for peer in pool.of_group(instance.group, but=(instance.user_id,))
        ]

    def _written(self, instance: Instance, numbers: _Numbers) -> dict[str, Any]:
        """What the runs wrote, and the prompts behind it, each once."""
        prompts: dict[tuple[str, str, str], int] = {}
        written = []
        for number, of in enumerate(self.texts):
            row = of.predictions.get(instance.id)
            if row is None:
                continue
            calls = of.exchanged(instance)
            written.append(
                {
                    "run": number,
                    "text": numbers.of(row.prediction),
                    "scores": {
                        name: round(value, self.decimals[name]) for name, value in of.scores[instance.id].items()
                    },
                    "cut_off": row.cut_off,
                    "calls": [
                        [
                            prompts.setdefault((prompt.stage, prompt.system, prompt.user), len(prompts)),
                            numbers.of(answer.text),
                        ]
                        for prompt, answer in calls
                    ],
                    "complete": len(calls) == row.calls,
                }
            )
        numbered = [[stage, numbers.of(system), numbers.of(user)] for stage, system, user in prompts]
        return {"texts": written, "prompts": numbered}


@dataclass(frozen=True)
class _Numbers:
    """Texts as numbers of pieces, `known` by their numbers."""

    known: dict[str, int]

    def of(self, text: str) -> list[int]:
        return [self.known.setdefault(piece, len(self.known)) for piece in _ENDS.split(text)]


def _shown(record: Record, heading: str, facts: Sequence[tuple[str, str]], numbers: _Numbers) -> dict[str, Any]:
    day = None if record.timestamp is None or record.timestamp <= 0 else record.timestamp // DAY
    return {"head": heading, "facts": facts, "text": numbers.of(record.text), "day": day}


def _words(name: str) -> str:
    """A field's name as a label."""
    return name.replace("_", " ").capitalize()


# ---- the frame around it


def _index(
    view: _View, columns: Mapping[str, Column], chosen: Sequence[Instance], places: Collection[str]
) -> dict[str, Any]:
    """What the page knows before an instance is unpacked."""
    used = dict.fromkeys(name for of in view.texts for scores in of.scores.values() for name in scores)
    return {
        "target": view.task.target,
        "together": TOGETHER,
        "history": "The user's history" + (", newest first" if view.task.timed else ""),
        "columns": {name: {"head": columns[name].head, "decimals": columns[name].decimals} for name in used},
        "runs": [{"label": of.label, "problem": without_paths(of.problem, places)} for of in view.texts],
        "categories": {category: category_name(category) for category in view.corpora},
        "instances": [
            {"id": instance.id, "category": instance.category, "title": _title(view.task, instance)}
            for instance in chosen
        ],
    }


def _title(task: Task, instance: Instance) -> str:
    """What heads an instance; the id of what it is about, or its own, where the data have no name for it."""
    return next(iter(task.shown(instance).values()), "") or instance.group or instance.id


def _told(facts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without the facts that the data lack."""
    return [fact for fact in facts if fact[1]]


def _packed(name: str, contents: Sequence[object]) -> str:
    """Contents as an element that report.js unpacks."""
    # Without a time in its head: the same results give the same file.
    packed = gzip.compress(json.dumps(contents, separators=(",", ":")).encode(), mtime=0)
    return f"<script type='text/plain' id='{escape_html(name)}'>{base64.b64encode(packed).decode()}</script>"


def _json(index: Mapping[str, Any], number: str) -> str:
    """JSON in ASCII that can neither end its script element nor open a comment."""
    text = json.dumps(index).replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
    return f"<script type='application/json' id='index{number}'>{text}</script>"


def _introduction(task: Task, runs: int, all_runs: int, shown: int, predicted: int) -> str:
    count = (
        f"{shown} of {predicted} instances, the first of each category" if shown < predicted else f"{shown} instances"
    )
    which = f"{runs} of {all_runs} runs, those on the same data" if runs < all_runs else f"{runs} runs"
    beside = f"beside the user's real {task.target}"
    if task.grouped:
        beside += ", the user's history and what peers wrote: other users, of the same thing"
    else:
        beside += " and the user's history"
    text = f"What each run wrote {beside}. Shown: {count}; {which}. Scores are those of the one text alone."
    return f"<p>{escape_html(text)}</p>"


def _frame(task: Task, chosen: Sequence[Instance], number: str) -> str:
    """The controls and the place where an instance is shown."""
    label = next((label.lower() for instance in chosen for label in task.shown(instance)), "")
    search = escape_html(" or ".join([", ".join(filter(None, [label, "user"])), "id"]))
    return f"""<form class='controls choose' id='choose{number}'>
<label>Category <select id='category{number}'></select></label>
<label>Search <input id='search{number}' type='search' autocomplete='off' placeholder='{search}'></label>
<label class='wide'>Instance <select id='instance{number}'></select></label>
<span class='buttons'><button type='button' id='previous{number}'>&larr; Previous</button>
<button type='button' id='next{number}'>Next &rarr;</button></span>
<output class='position' id='position{number}'></output>
</form>
<details><summary>Runs shown</summary><div class='controls runs' id='runs{number}'></div></details>
<p class='legend'><mark class='reference'>Marked</mark>: phrases of three words or more that a text shares with the real
{escape_html(task.target)}. <mark class='history'>Dotted</mark>: phrases that it shares with the user's history.</p>
<div class='viewer' id='viewer{number}'><p>This part needs JavaScript.</p></div>
"""
