"""`bench report`: what lies under results/ as one HTML file that needs no network and no other file.

Numbers, tables and figures are taken as they were stored; nothing is generated, scored or trained again. Review texts
and labels never become markup: the page's own parts are escaped, and the instances travel as JSON, packed, which
report.js puts in as text. The page's content security policy lets no other script run and nothing be fetched.
"""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bench.data.corpus import Corpus
from bench.data.load import load
from bench.data.peers import Peers
from bench.errors import BenchError, ConfigError, DataError, StoreError
from bench.finished import FinishedRun, find_run, finished, run_folders
from bench.progress import Progress, say
from bench.records import Instance, Review
from bench.report.names import category_name, column
from bench.report.tables import INTERVAL_LEGEND, MISSING, escape_html, html_notes
from bench.runner import Run, replay
from bench.store import Rows, read_generations, replace_content

FOLDER = Path(__file__).parent
INSTANCES = 200
"""Instances of a category that a report shows unless it is told otherwise: all of the demo's."""
TIMING = "timing"
"""How the ids of the tables begin that have a section of their own."""


def write_report(results: Path, out: Path, parts: Sequence[str] = (), instances: int = INSTANCES) -> Path:
    """Write the report on everything under `results` to `out` and return its path.

    `parts` choose runs by a part of their names, all finished runs by default; the first `instances` of each category
    can be looked at. Raises `ConfigError` if there is nothing to show or a part names no run or several, `StoreError`
    for files that cannot be read or written.
    """
    if instances < 1:
        raise ConfigError(f"--instances is {instances}; show at least 1 of each category")
    runs, unfinished = _read_runs(results, parts)
    for name, reason in unfinished:
        say(f"report: {name} is left out: {reason}")
    groups = _comparable(runs)
    shown = _shown(runs)
    sections = [
        ("leaderboard", "Leaderboard", [_leaderboard(group) for group in groups] + [_unfinished(unfinished)]),
        ("tables", "Tables", _tables(results / "tables")),
        ("figures", "Figures", _figures(results / "figures")),
        ("timing", "Timing", _tables(results / "tables", timing=True)),
        ("instances", "Instances", [_instances(shown, len(runs), results, instances)]),
    ]
    page = _page([section for section in sections if section[2]], runs)
    try:
        # What HTML cannot hold: lone surrogates and NUL, e.g. in a file's name.
        replace_content(out, page.replace("\0", "\ufffd").encode("utf-8", "replace"))
    except OSError as error:
        raise StoreError(
            f"the report cannot be written to {out}: {error.strerror}; choose another file: --out"
        ) from error
    return out


# ---- runs


def _read_runs(results: Path, parts: Sequence[str]) -> tuple[list[FinishedRun], list[tuple[str, str]]]:
    """The finished runs, and the others' names with the reason."""
    if parts:
        return [_readable(find_run(results, part)) for part in dict.fromkeys(parts)], []
    runs, others = [], []
    for folder in run_folders(results):
        try:
            runs.append(_readable(folder))
        except BenchError as error:
            others.append((folder.name, str(error).replace(str(folder), "it")))
    if not runs:
        why = "".join(f" ({name}: {reason})" for name, reason in others[:1])
        raise ConfigError(f"there is no finished run in {results / 'runs'}{why}; make one with: bench run --method rag")
    return runs, others


def _readable(folder: Path) -> FinishedRun:
    """The complete run in a folder. Raises `BenchError` if its rows cannot be read or a metric is not installed."""
    run = finished(folder)
    for name in run.metrics:
        run.rows(name)
    return run


def _settings(run: FinishedRun) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], run.record["identity"]["settings"])


def _data(run: FinishedRun) -> str:
    """What two runs share if they predict the same reviews: the data's content and the split."""
    return json.dumps([run.record["identity"]["data"], _settings(run)["split"]], sort_keys=True)


def _comparable(runs: Sequence[FinishedRun]) -> list[list[FinishedRun]]:
    """Runs on the same instances together, the largest group first."""
    groups: dict[tuple[str, Any], list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault((_data(run), _settings(run)["limit"]), []).append(run)
    return sorted(groups.values(), key=len, reverse=True)


def _shown(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The runs whose texts are shown side by side: on the data and split of which there are most."""
    most = Counter(map(_data, runs)).most_common(1)[0][0]
    return [run for run in runs if _data(run) == most]


def labels(runs: Sequence[FinishedRun]) -> list[str]:
    """A name for each run: method, retriever and K, then the settings in which it differs from most runs of the same
    name. Runs that no setting tells apart (other prompts, an edited method) carry the end of their folder's name."""
    names = [_short_name(run) for run in runs]
    facts = [_facts(run) for run in runs]
    result = []
    for name, own in zip(names, facts, strict=True):
        alike = [other for other_name, other in zip(names, facts, strict=True) if other_name == name]
        keys = [key for key in own if 2 * sum(other.get(key) == own[key] for other in alike) <= len(alike)]
        result.append(", ".join([name, *(f"{key}={_plain(own[key])}" for key in keys)]))
    twice = {label for label, count in Counter(result).items() if count > 1}
    return [
        f"{label} ({run.name.rpartition('-')[2]})" if label in twice else label
        for label, run in zip(result, runs, strict=True)
    ]


def _short_name(run: FinishedRun) -> str:
    settings = _settings(run)
    parts = [settings["method"]]
    if "retriever" in settings:
        parts += [settings["retriever"], f"K={settings['k']}"]
        trained = run.record["config"]["train"]["k"] if "adapter" in run.record["identity"] else None
        parts += [f"trained with {trained}"] if trained not in (None, settings["k"]) else []
    return ", ".join(map(str, parts))


def _facts(run: FinishedRun) -> dict[str, Any]:
    """The settings that can make two runs of a method differ, by name."""
    identity, config = run.record["identity"], run.record["config"]
    facts = {"model": config["model"]} if "model" in identity else {}
    facts |= {name: value for name, value in _settings(run).items() if name not in ("method", "retriever", "k")}
    if "adapter" in identity:
        facts |= {f"train.{name}": value for name, value in config["train"].items()}
    return {**facts, **identity["method_options"], **identity.get("retriever_options", {})}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# ---- leaderboard


def _model(run: FinishedRun) -> str:
    """The language model of a run; one that asks none has none."""
    return str(run.record["config"]["model"]) if "model" in run.record["identity"] else MISSING


def _seed(run: FinishedRun) -> str:
    return str(_settings(run)["seed"])


FACTS = {"model": _model, "seed": _seed}
"""What a leaderboard says of each run beside its label: in a column where it differs, else in the caption."""


def _leaderboard(runs: Sequence[FinishedRun]) -> str:
    """A table of runs on the same instances. Which values are best is marked by report.js among the rows it shows."""
    keys = list(
        dict.fromkeys((c, name) for run in runs for c, cells in run.summary["scores"].items() for name in cells)
    )
    categories = list(dict.fromkeys(category for category, _ in keys))
    values = {name: list(dict.fromkeys(map(of, runs))) for name, of in FACTS.items()}
    differing = [name for name, found in values.items() if len(set(found) - {MISSING}) > 1]
    lines = [_filters(runs, categories, {name: values[name] for name in differing})]
    lines += ["<div class='scroll' tabindex='0' role='region' aria-label='Leaderboard'>"]
    lines += ["<table class='leaderboard'>", f"<caption>{_caption(runs, differing)}</caption>", "<thead>", "<tr>"]
    lines.append(f"<th colspan='{1 + len(differing)}'></th>")
    for category in categories:
        span = sum(1 for key in keys if key[0] == category)
        name = escape_html(category_name(category))
        lines.append(f"<th scope='colgroup' colspan='{span}' data-category='{escape_html(category)}'>{name}</th>")
    lines += ["</tr>", "<tr>", *(_sortable(head) for head in ("run", *differing))]
    lines += [_score_head(key) for key in keys]
    lines += ["</tr>", "</thead>", "<tbody>"]
    for run, label in zip(runs, labels(runs), strict=True):
        of_run = {name: FACTS[name](run) for name in differing}
        data = "".join(f" data-{name}='{escape_html(value)}'" for name, value in of_run.items())
        cells = [f"<th scope='row' title='{escape_html(run.name)}'><bdi>{escape_html(label)}</bdi></th>"]
        cells += [f"<td class='fact'><bdi>{escape_html(value)}</bdi></td>" for value in of_run.values()]
        cells += [_score(run, key) for key in keys]
        lines.append(f"<tr{data}>{''.join(cells)}</tr>")
    lines += ["</tbody>", "</table>", "</div>", html_notes([escape_html(note) for note in _notes(runs)])]
    return "\n".join(lines)


def _caption(runs: Sequence[FinishedRun], differing: Sequence[str]) -> str:
    run = runs[0]
    counts = ", ".join(f"{category_name(name)} {count}" for name, count in run.summary["instances"].items())
    parts = [f"Data {run.record['config']['dataset']}, {_settings(run)['split']} instances: {counts}"]
    parts += [f"{name} {found[0]}" for name in FACTS if name not in differing and (found := _known(runs, name))]
    return escape_html("; ".join(parts) + ".")


def _known(runs: Sequence[FinishedRun], name: str) -> list[str]:
    return [value for value in map(FACTS[name], runs) if value != MISSING]


def _filters(runs: Sequence[FinishedRun], categories: Sequence[str], values: Mapping[str, Sequence[str]]) -> str:
    """Choices that narrow a leaderboard, where there is something to choose from."""
    choices = (
        {"category": {category: category_name(category) for category in categories}} if len(categories) > 1 else {}
    )
    choices |= {name: {value: value for value in found} for name, found in values.items()}
    parts = []
    for name, options in choices.items():
        shown = "".join(f"<option value='{escape_html(v)}'>{escape_html(text)}</option>" for v, text in options.items())
        choice = f"<select data-filter='{name}'><option value=''>all</option>{shown}</select>"
        parts.append(f"<label>{name.capitalize()} {choice}</label>")
    parts.append("<label>Run contains <input type='search' data-filter='run' autocomplete='off'></label>")
    return f"<div class='controls'>{''.join(parts)}</div>"


def _sortable(head: str) -> str:
    return f"<th scope='col'><button type='button'>{escape_html(head.capitalize())}</button></th>"


def _score_head(key: tuple[str, str]) -> str:
    how = column(key[1])
    name = escape_html(f"{how.head} {how.arrow}".strip())
    return (
        f"<th scope='col' data-category='{escape_html(key[0])}' data-better='{how.better or ''}'>"
        f"<button type='button'>{name}</button></th>"
    )


def _score(run: FinishedRun, key: tuple[str, str]) -> str:
    category, name = key
    cell = run.summary["scores"].get(category, {}).get(name)
    start = f"<td data-category='{escape_html(category)}'"
    if cell is None:
        return f"{start}>{MISSING}</td>"
    how = column(name)
    ends = MISSING.join(f"{cell[end]:.{how.interval_decimals}f}" for end in ("low", "high"))
    return (
        f"{start} data-value='{cell['value']!r}'><span>{cell['value']:.{how.decimals}f}</span>"
        f"<small class='interval'>{ends}</small></td>"
    )


def _notes(runs: Sequence[FinishedRun]) -> list[str]:
    """What stands in for what, as the runs themselves record it."""
    notes = [f"Bold: best of the rows shown. Small figures: {INTERVAL_LEGEND}. A head sorts its column."]
    notes += [note for run in runs for found in run.record.get("data_notes", {}).values() for note in found]
    notes += [note for run in runs for note in run.record["config"].get("notes", ())]
    return list(dict.fromkeys(notes))


def _unfinished(others: Sequence[tuple[str, str]]) -> str:
    if not others:
        return ""
    lines = [f"<li><bdi>{escape_html(name)}</bdi>: {escape_html(reason)}</li>" for name, reason in others]
    return "\n".join([f"<h3>Not finished ({len(others)})</h3>", "<ul class='unfinished'>", *lines, "</ul>"])


# ---- tables and figures


def _heading(name: str) -> str:
    """ "table1-paper-7b" as "Table 1 (paper-7b)"; other names as they are, without underscores."""
    match = re.fullmatch(r"(table|figure)(\d+)[-_]?(.*)", name)
    if match is None:
        return name.replace("_", " ").capitalize()
    kind, number, rest = match.groups()
    return f"{kind.capitalize()} {number}" + (f" ({rest.replace('_', ' ')})" if rest else "")


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """By name, "table10" behind "table9"; the paper's tables first, then its figures."""

    def key(path: Path) -> tuple[int, list[str | int]]:
        # Text and numbers take turns.
        parts = re.split(r"([0-9]+)", path.stem)
        return {"table": 0, "figure": 1}.get(parts[0], 2), [
            int(part) if i % 2 else part for i, part in enumerate(parts)
        ]

    return sorted(paths, key=key)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read: {error}; render its table or figure again") from error


def _tables(folder: Path, timing: bool = False) -> list[str]:
    """The tables as `bench.report.tables` rendered them, each in a box that scrolls by itself."""
    sections = []
    for path in _in_order(folder.glob("*.html")):
        if path.stem.startswith(TIMING) == timing:
            name = escape_html(_heading(path.stem))
            box = f"<div class='scroll' tabindex='0' role='region' aria-label='{name}'>"
            # Texts in it are escaped: what looks like a tag is one.
            table = _read(path).replace("<table", f"{box}\n<table").replace("</table>", "</table>\n</div>")
            sections.append(f"<h3>{name}</h3>\n{table}")
    return sections


def _figures(folder: Path) -> list[str]:
    """The pictures, each with the numbers it shows."""
    sections = []
    for path in _in_order(folder.glob("*.png")):
        name = escape_html(_heading(path.stem))
        try:
            picture = base64.b64encode(path.read_bytes()).decode()
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}; draw the figure again") from error
        numbers = path.with_suffix(".csv")
        table = _numbers(name, _read(numbers)) if numbers.exists() else ""
        where = "its numbers are below" if table else "its numbers were not stored"
        image = f"<img src='data:image/png;base64,{picture}' alt='{name}; {where}' loading='lazy'>"
        sections.append(f"<h3>{name}</h3>\n<figure>{image}</figure>\n{table}")
    return sections


def _numbers(name: str, text: str) -> str:
    head, *rows = [*csv.reader(io.StringIO(text, newline=""))] or [[]]
    lines = ["<details>", f"<summary>Numbers of {name}</summary>"]
    lines += [f"<div class='scroll' tabindex='0' role='region' aria-label='Numbers of {name}'>", "<table class='grid'>"]
    heads = "".join(f"<th scope='col'>{escape_html(text)}</th>" for text in head)
    lines += [f"<thead><tr>{heads}</tr></thead>", "<tbody>"]
    for row in rows:
        cells = "".join(f"<td>{escape_html(text)}</td>" for text in row)
        lines.append(f"<tr>{cells}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>", "</div>", "</details>"])


# ---- instances


@dataclass
class _Texts:
    """What a run wrote: rows of predictions.jsonl and scores by instance; the run itself, where its prompts can be
    rebuilt, else why not."""

    label: str
    predictions: Mapping[str, Mapping[str, Any]]
    scores: Mapping[str, Mapping[str, float]]
    generations: Rows
    run: Run | None
    problem: str = ""


def _instances(runs: Sequence[FinishedRun], all_runs: int, results: Path, limit: int) -> str:
    """The instances, each packed by itself so that a browser unpacks only the one that is looked at."""
    try:
        corpora = _corpora(runs[0])
    except BenchError as error:
        return f"<p>No instances can be shown, for their data cannot be read: {escape_html(str(error))}</p>"
    split = _settings(runs[0])["split"]
    predicted = {row["instance"] for run in runs for row in run.predictions}
    chosen: list[Instance] = []
    for corpus in corpora.values():
        chosen += [instance for instance in corpus.split(split) if instance.id in predicted][:limit]
    texts = [
        _texts(run, label, corpora, results, [instance.id for instance in chosen])
        for run, label in zip(runs, labels(runs), strict=True)
    ]
    peers = {category: Peers(corpus, runs[0].config.unused_targets) for category, corpus in corpora.items()}
    progress = Progress("report", len(chosen))
    blocks = []
    for number, instance in enumerate(chosen):
        content = _content(instance, corpora[instance.category], peers[instance.category], texts)
        blocks.append(f"<script type='text/plain' id='instance-{number}'>{_pack(content)}</script>")
        progress.update(finished=1)
    progress.close()
    columns = list(dict.fromkeys(name for of in texts for cells in of.scores.values() for name in cells))
    index = {
        "columns": {name: {"head": column(name).head, "decimals": column(name).decimals} for name in columns},
        "runs": [{"label": of.label, "problem": of.problem} for of in texts],
        "categories": {category: category_name(category) for category in corpora},
        "instances": [{"id": i.id, "category": i.category, "title": i.item.title} for i in chosen],
    }
    return "\n".join([_introduction(runs, all_runs, len(chosen), len(predicted)), _VIEWER, _json(index), *blocks])


def _corpora(run: FinishedRun) -> dict[str, Corpus]:
    """The data of a run. Raises `DataError` if they are not what they were."""
    config = run.config
    corpora = load(config.dataset, config.categories, config.revision)
    fingerprints = {category: corpus.fingerprint for category, corpus in corpora.items()}
    if fingerprints != run.record["identity"]["data"]:
        raise DataError(f"data set {config.dataset} was changed since {run.name} was made; run it again")
    return corpora


def _texts(
    finished: FinishedRun, label: str, corpora: Mapping[str, Corpus], results: Path, chosen: Sequence[str]
) -> _Texts:
    where = {row["instance"]: index for index, row in enumerate(finished.predictions)}
    known = [name for name in chosen if name in where]
    scores = {name: finished.instance_scores(where[name]) for name in known}
    predictions = {name: finished.predictions[where[name]] for name in known}
    generations: Rows = {}
    try:
        generations = read_generations(finished.folder, set(known))
        run = Run(finished.config.model_copy(update={"results": results}), corpora)
    except BenchError as error:
        return _Texts(label, predictions, scores, generations, None, str(error))
    return _Texts(label, predictions, scores, generations, run)


def _content(instance: Instance, corpus: Corpus, peers: Peers, texts: Sequence[_Texts]) -> dict[str, Any]:
    """Everything about an instance. Prompts of its runs are much alike: each is a list of numbers of `lines`."""
    lines: dict[str, int] = {}
    prompts: dict[tuple[str, str, str], int] = {}
    written = []
    for number, of in enumerate(texts):
        row = of.predictions.get(instance.id)
        if row is None:
            continue
        exchanged = _exchanged(of, instance)
        written.append(
            {
                "run": number,
                "text": row["prediction"],
                "scores": of.scores[instance.id],
                "cut_off": row["cut_off"],
                "calls": [
                    [prompts.setdefault((prompt.stage, prompt.system, prompt.user), len(prompts)), completion.text]
                    for prompt, completion in exchanged
                ],
                "complete": len(exchanged) == row["calls"],
            }
        )
    return {
        "item": {"title": instance.item.title, "asin": instance.item.asin, "about": instance.item.description},
        "user": instance.user_id,
        "rating": instance.rating,
        "title": instance.title,
        "reference": corpus.reference(instance),
        "history": [_review(review, corpus) for review in reversed(instance.profile)],
        "peers": [_review(review, corpus) for review in peers.of_item(instance.item.asin, but=(instance.user_id,))],
        "texts": written,
        "prompts": [[stage, _lines(system, lines), _lines(user, lines)] for stage, system, user in prompts],
        "lines": list(lines),
    }


def _exchanged(of: _Texts, instance: Instance) -> list[tuple[Any, Any]]:
    if of.run is None:
        return []
    try:
        return replay(of.run, instance, of.generations)[0]
    except BenchError as error:
        of.problem = str(error)
        of.run = None
        return []


def _lines(text: str, known: dict[str, int]) -> list[int]:
    return [known.setdefault(line, len(known)) for line in text.split("\n")]


def _review(review: Review, corpus: Corpus) -> dict[str, Any]:
    return {
        "user": review.user_id,
        "item": corpus.item(review.asin).title,
        "rating": review.rating,
        "title": review.title,
        "text": review.text,
        "time": review.timestamp,
    }


def _pack(content: Mapping[str, Any]) -> str:
    # Without a time in its head: the same results give the same file.
    return base64.b64encode(gzip.compress(json.dumps(content).encode(), mtime=0)).decode()


def _json(index: Mapping[str, Any]) -> str:
    """JSON in ASCII that can neither end its script element nor open a comment."""
    text = json.dumps(index).replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
    return f"<script type='application/json' id='index'>{text}</script>"


def _introduction(runs: Sequence[FinishedRun], all_runs: int, shown: int, predicted: int) -> str:
    count = (
        f"{shown} of {predicted} instances, the first of each category" if shown < predicted else f"{shown} instances"
    )
    which = f"{len(runs)} of {all_runs} runs, those on the same data" if len(runs) < all_runs else f"{len(runs)} runs"
    text = (
        "What each run wrote beside the user's real review, the user's history and what others wrote of the item. "
        f"Shown: {count}; {which}. Scores are those of the one text alone."
    )
    return f"<p>{escape_html(text)}</p>"


_VIEWER = """<form class='controls' id='choose'>
<label>Category <select id='category'></select></label>
<label>Search <input id='search' type='search' autocomplete='off' placeholder='item, user or id'></label>
<label class='wide'>Instance <select id='instance'></select></label>
<span class='buttons'><button type='button' id='previous'>&larr; Previous</button>
<button type='button' id='next'>Next &rarr;</button></span>
<output id='position'></output>
</form>
<details><summary>Runs shown</summary><div class='controls' id='runs'></div></details>
<p class='legend'><mark class='reference'>Marked</mark>: phrases of three words or more that a text shares with the real
review. <mark class='history'>Dotted</mark>: phrases that it shares with the user's history.</p>
<div id='viewer'><p>This part needs JavaScript.</p></div>
"""


# ---- page


def _page(sections: Sequence[tuple[str, str, Sequence[str]]], runs: Sequence[FinishedRun]) -> str:
    style, script = (_read(FOLDER / name) for name in ("report.css", "report.js"))
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    links = "".join(f"<li><a href='#{name}'>{heading}</a></li>" for name, heading, _ in sections)
    days = sorted(str(run.record["created"])[:10] for run in runs)
    made = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    data = ", ".join(dict.fromkeys(str(run.record["config"]["dataset"]) for run in runs))
    lines = [
        "<!DOCTYPE html>",
        "<html lang='en'>",
        "<head>",
        "<meta charset='utf-8'>",
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        "<meta name='color-scheme' content='light dark'>",
        f"<title>Personalization benchmark: {escape_html(data)}</title>",
        f"<style>{style}</style>",
        "</head>",
        "<body>",
        "<header>",
        "<h1>Personalization benchmark</h1>",
        f"<p>{len(runs)} finished runs on {escape_html(data)}, begun {escape_html(made)}.</p>",
        f"<nav aria-label='Sections'><ul>{links}</ul></nav>",
        "</header>",
        "<main>",
    ]
    for name, heading, content in sections:
        lines += [f"<section id='{name}'>", f"<h2>{heading}</h2>", *content, "</section>"]
    return "\n".join([*lines, "</main>", f"<script>{script}</script>", "</body>", "</html>", ""])


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
