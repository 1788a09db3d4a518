"""`bench report`: what lies under results/ as one HTML file that needs no network and no other file.

Numbers, tables and figures are taken as they were stored; nothing is generated, scored or trained again. Texts of users
and models and labels never become markup: the page's own parts are escaped, and the instances travel as JSON, packed,
which report.js puts in as text. The page's content security policy lets no other script run and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from bench.errors import ConfigError, StoreError
from bench.files import replace_content
from bench.finished import FinishedRun, checked, find_runs, read_each, run_folders, said
from bench.places import without_paths
from bench.report import weighed
from bench.report.instances import viewer
from bench.report.labels import data_names, labels, places_of
from bench.report.leaderboard import comparable, leaderboard
from bench.report.markup import escape_html
from bench.report.stored import figures, read_text, tables

FOLDER = Path(__file__).parent
INSTANCES = 80
"""Instances of a category that a report shows unless it is told otherwise: with them the page of Table 1 stays below
1.5 MB, and whoever wants more says so."""


def write_report(results: Path, out: Path, parts: Sequence[str] = (), instances: int = INSTANCES) -> Path:
    """Write the report on everything under `results` to `out` and return its path.

    `parts` choose runs by parts of their names, all finished runs by default; the first `instances` of each category
    can be looked at. Raises `ConfigError` if there is nothing to show or a part names no run, `StoreError` for files
    that cannot be read or written.
    """
    if instances < 1:
        raise ConfigError(f"--instances is {instances}; show at least 1 of each category")
    runs, left_out = _read_runs(results, parts)
    places = {str(results), str(results.resolve()), *places_of(runs)}
    data = dict(zip([run.name for run in runs], data_names(runs), strict=True))
    boards = [leaderboard(group, data[group[0].name]) for group in comparable(runs)]
    rerun = [run.config.model_copy(update={"results": results}) for run in runs]
    weights = weighed.page(list(zip(labels(runs), rerun, strict=True)), places)
    sections = [
        ("leaderboard", "Leaderboard", [*boards, _left_out(left_out, places)]),
        ("tables", "Tables", tables(results / "tables", places)),
        ("figures", "Figures", figures(results / "figures")),
        ("timing", "Timing", tables(results / "tables", places, timing=True)),
        ("weights", "Token weights", weights),
        ("instances", "Instances", [viewer(runs, results, instances, places)]),
    ]
    page = _page([section for section in sections if section[2]], runs, list(dict.fromkeys(data.values())))
    try:
        # What HTML cannot hold: lone surrogates and NUL, e.g. in a file's name.
        replace_content(out, page.replace("\0", "\ufffd").encode("utf-8", "replace"))
    except OSError as error:
        raise StoreError(
            f"the report cannot be written to {out}: {error.strerror}; choose another file: --out"
        ) from error
    return out


def _read_runs(results: Path, parts: Sequence[str]) -> tuple[list[FinishedRun], Mapping[str, str]]:
    """The finished runs, and the others' names with the reason."""
    named = dict.fromkeys(folder for part in parts for folder in find_runs(results, part))
    if len(named) == 1:
        return [checked(folder) for folder in named], {}
    readable = read_each(checked, named or run_folders(results))
    runs = said(readable)
    if not runs:
        why = "".join(f" ({name}: {reason})" for name, reason in [*readable.left_out.items()][:1])
        raise ConfigError(f"there is no finished run in {results / 'runs'}{why}; make one with: bench run --method rag")
    return runs, readable.left_out


def _left_out(left_out: Mapping[str, str], places: Collection[str]) -> str:
    if not left_out:
        return ""
    lines = [
        f"<li><bdi>{escape_html(name)}</bdi>: {escape_html(without_paths(reason, places))}</li>"
        for name, reason in left_out.items()
    ]
    return "\n".join([f"<h3>Left out ({len(left_out)})</h3>", "<ul class='left-out'>", *lines, "</ul>"])


def _page(sections: Sequence[tuple[str, str, Sequence[str]]], runs: Sequence[FinishedRun], data: Sequence[str]) -> str:
    style, script = (read_text(FOLDER / name) for name in ("report.css", "report.js"))
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    links = "".join(f"<li><a href='#{name}'>{heading}</a></li>" for name, heading, _ in sections)
    days = sorted(run.record.created[:10] for run in runs)
    made = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    named = escape_html(", ".join(data))
    lines = [
        "<!DOCTYPE html>",
        "<html lang='en'>",
        "<head>",
        "<meta charset='utf-8'>",
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        "<meta name='color-scheme' content='light dark'>",
        f"<title>Personalization benchmark: {named}</title>",
        f"<style>{style}</style>",
        "</head>",
        "<body>",
        "<header>",
        "<h1>Personalization benchmark</h1>",
        f"<p>{len(runs)} finished runs on {named}, begun {escape_html(made)}.</p>",
        f"<nav aria-label='Sections'><ul>{links}</ul></nav>",
        "</header>",
        "<main>",
    ]
    for name, heading, content in sections:
        lines += [f"<section id='{name}'>", f"<h2>{heading}</h2>", *content, "</section>"]
    return "\n".join([*lines, "</main>", f"<script>{script}</script>", "</body>", "</html>", ""])


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
