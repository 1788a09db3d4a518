"""The functions for notebooks, which the command line uses too. What they need is imported when they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

    from bench.comparison import Comparison
    from bench.results import Summary

Config = str | Path | Mapping[str, Any]
"""A shipped configuration's name, a YAML file, or settings as such a file holds them."""

SETTINGS = (
    *("task", "method", "retriever", "k", "dataset", "split", "limit"),
    *("model", "backend", "fidelity", "seed"),
)
"""The settings that `runs` shows."""
COUNTS = (
    "calls",
    "prompt_tokens",
    "completion_tokens",
    "blocks_shown",
    "blocks_offered",
    "empty_predictions",
    "cut_off",
)


def run(method: str, config: Config = "demo", limit: int | None = None, **settings: Any) -> Summary:
    """Compute what is missing of a run, score it and return its scores.

    `limit` takes the first so many instances of each category. `settings` are any keys of the configuration; those of
    a section or a plugin are a mapping: `bench.run("rag", k=4, vllm={"dtype": "float32"})`. The run is kept in the
    folder `results` ("results" by default), and a second call with the same settings computes nothing.

    Returns a summary whose `scores[category][score]` has `value`, `low` and `high`, the ends of the 95% interval.
    Raises `BenchError`; what was computed is kept.
    """
    from bench.config import build
    from bench.execute import execute
    from bench.files import check_results
    from bench.job import Job

    given = {"method": method} if limit is None else {"method": method, "limit": limit}
    asked = build(_read(config), settings, given)
    check_results(asked.results)
    (summary,) = execute([Job.of(asked)])
    return summary


def runs(results: str | Path = "results") -> DataFrame:
    """The runs in a folder of results, complete or not.

    A row a run, with the columns `run` (its name), `complete`, `created`, `device`, the settings `task`, `method`,
    `retriever`, `k`, `dataset`, `split`, `limit`, `model`, `backend`, `fidelity` and `seed`, and, for complete runs,
    the counts `instances`, `calls`, `prompt_tokens`, `completion_tokens`, `blocks_shown`, `blocks_offered`,
    `empty_predictions` and `cut_off`, and a column a category and score, "Books rouge1". What a run does not have is
    missing (NaN or None). A run that cannot be read is left out; a line on standard error says why.
    """
    from pandas import DataFrame

    from bench.files import path_of
    from bench.finished import read_each, run_folders, said

    columns = ["run", "complete", "created", "device", *SETTINGS, "instances", *COUNTS]
    rows = said(read_each(_row, run_folders(path_of(results))))
    scores = dict.fromkeys(name for row in rows for name in row if name not in columns)
    return DataFrame(rows, columns=[*columns, *scores])


def _row(folder: Path) -> dict[str, object]:
    from bench.finished import finished, read_record
    from bench.places import shown_name

    record, path = read_record(folder), folder / "summary.json"
    used = {*record.identity["settings"], *record.identity, "task", "dataset"}
    settings = {name: record.config.get(name) if name in used else None for name in SETTINGS}
    settings |= {name: shown_name(str(value)) for name in ("dataset", "model") if (value := settings[name]) is not None}
    row = {
        "run": folder.name,
        "complete": path.exists(),
        "created": record.created,
        "device": record.device,
        **settings,
    }
    if not path.exists():
        return row
    summary = finished(folder).summary
    row |= {"instances": sum(summary.instances.values())} | {name: getattr(summary, name) for name in COUNTS}
    return row | {
        f"{category} {name}": score.value
        for category, scores in summary.scores.items()
        for name, score in scores.items()
    }


def scores(results: str | Path = "results", runs: str | Sequence[str] | None = None) -> DataFrame:
    """The scores of single texts of complete runs.

    `runs` are names of runs in the folder `results`, or parts that name one each; by default all complete runs.

    A row an instance and score, with the columns `run`, `method`, `category`, `instance` (its id), `user`, `metric`,
    `score` (one of the metric's) and `value`: what the metric's aggregate makes of this text alone. A score that an
    instance does not have, e.g. a judge's that answered without a number, has no row. Raises `BenchError` for a name
    that is not one run's, and for a named run that cannot be read or is not complete; others that cannot be read are
    left out, and a line on standard error says why.
    """
    from pandas import DataFrame

    from bench.files import path_of
    from bench.finished import find_run, read_each, run_folders, said

    if runs is None:
        folders = [folder for folder in run_folders(path_of(results)) if (folder / "summary.json").exists()]
        found = said(read_each(_text_scores, folders))
    else:
        names = [runs] if isinstance(runs, str) else runs
        found = [_text_scores(find_run(path_of(results), name)) for name in names]
    rows = list(chain.from_iterable(found))
    return DataFrame(rows, columns=["run", "method", "category", "instance", "user", "metric", "score", "value"])


def _text_scores(folder: Path) -> list[tuple[object, ...]]:
    """The rows of `scores` of one run."""
    from bench.finished import checked

    run = checked(folder)
    rows: list[tuple[object, ...]] = []
    for index, row in enumerate(run.predictions):
        about = (run.name, run.record.config.get("method"), row.category, row.instance, row.user)
        for metric in run.metrics:
            values = run.instance_scores(index, metric)
            rows += [(*about, metric, name, value) for name, value in values.items()]
    return rows


def compare(
    a: str,
    b: str,
    changed: int = 5,
    by: str | None = None,
    results: str | Path = "results",
    scores: str | None = None,
) -> Comparison:
    """Two complete runs on the instances that both have; everything is b minus a.

    `a` and `b` are names of runs in the folder `results`, or parts that name one each. `scores` decide: names with
    commas between them, or "all"; by default the paper's four, or those of another task. The comparison has a `verdict`
    over all users with `findings`, one a score, and `lines`, one a category and score, each with difference, interval
    and p; `changes`, the `changed` texts whose score `by` changed most (default: the first score that is a mean over
    instances); and `data`, all of it for JSON. Printed, it is what `bench compare` prints. Raises `BenchError` for runs
    that cannot be compared.
    """
    from bench.comparison import compare
    from bench.files import path_of
    from bench.finished import checked, find_run

    run_a, run_b = (checked(find_run(path_of(results), name)) for name in (a, b))
    return compare(run_a, run_b, changed, by, scores)


def table(
    experiment: str = "table1",
    config: str | Path | Sequence[str | Path] = "demo",
    *,
    seeds: int = 1,
    paper: bool = False,
    significance: bool = False,
    **settings: Any,
) -> str:
    """Compute what a table or a figure misses, write its files and return what `bench table` prints: the table as
    text, and where its files are.

    `experiment` is a shipped one (`bench list experiments`) or a YAML file; with several configurations its rows are
    repeated for each. `seeds`: mean and standard deviation over so many. `paper`: the paper's figures and the
    difference from them also where data or model are not the paper's. `significance`: mark what is significantly worse
    than the best of its column. `settings` are any keys of the configuration, as in `run`. Raises `BenchError`; what
    was computed is kept.
    """
    from bench.config import merge
    from bench.terminal import visible

    names = [str(name) for name in ([config] if isinstance(config, str | Path) else config)]
    configs = {name: merge(_read(name), settings) for name in names}
    return visible("\n".join(tables([experiment], configs, settings, seeds, paper, significance)))


def tables(
    experiments: Sequence[str],
    configs: Mapping[str, Mapping[str, Any]],
    over: Mapping[str, Any],
    seeds: int,
    paper: bool,
    significance: bool,
) -> list[str]:
    """As `table`, for several experiments that share their runs; `configs` are settings by the name of their
    configuration, `over` is what they have in common beside it. Returns what to print."""
    from bench.experiments.produce import Options, produce

    # Tables of several configurations, data sets, fidelities and seeds lie side by side; the demo's carries the
    # experiment's plain name.
    suffix = "" if list(configs) == ["demo"] else "".join(f"-{Path(config).stem}" for config in configs)
    suffix += f"-{Path(over['dataset']).name}" if over.get("dataset") else ""
    official = any(settings.get("fidelity") == "official" for settings in configs.values())
    suffix += "-official" if official and "official" not in suffix else ""
    suffix += f"-seed{over['seed']}" if over.get("seed") else ""
    suffix += f"-seeds{seeds}" if seeds > 1 else ""
    return produce(experiments, configs, Options(seeds, paper, significance, suffix))


def _read(config: Config) -> Mapping[str, Any]:
    from bench.config import read_config

    return config if isinstance(config, Mapping) else read_config(str(config))
