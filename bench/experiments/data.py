"""What `bench data stats` measures of data: the paper's Table 4, and what decides how far a run can be trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import registry
from bench.config import RunConfig, TrainConfig, build, read_config
from bench.data.corpus import Corpus
from bench.data.load import DEMO, REVIEWS, load
from bench.data.stats import Sizes, Trust, demo_floors, floors_note, sizes, trust
from bench.errors import DataError
from bench.paper import paper_value
from bench.places import shown_name
from bench.progress import Progress
from bench.report.data_statistics import (
    MERGED,
    Blocks,
    SizesRow,
    Words,
    sizes_csv,
    sizes_grid,
    trust_csv,
    trust_grid,
)
from bench.report.grid import plain, write
from bench.report.names import category_name
from bench.resolved import Inputs, Run, validation_subset
from bench.work import first_prompt

PAPER_ROWS = {"Books": "test_books", "Movies_and_TV": "test_movies", "CDs_and_Vinyl": "test_cds"}
BUDGETED = 500
"""Test instances of a category whose prompts are rendered to see how many history blocks fit: the first so many."""


def data_statistics(
    datasets: Sequence[str], config_name: str | None, results: Path, task: str | None = None
) -> list[str]:
    """Measure data sets together, write the files of both tables into RESULTS/tables and return what to print.

    With a configuration the second table says how many history blocks fit its input budget. Raises `BenchError`.
    """
    own = {"results": str(results)} | ({} if task is None else {"task": task})
    settings = None if config_name is None else read_config(config_name) | own
    task = task or (REVIEWS if settings is None else build(settings, {"method": "rag"}).task)
    registry.load("tasks", task)
    corpora = load_all(datasets, task)
    return statistics_of(datasets, corpora, settings, results, _suffix(datasets, config_name, task), task)


def data_object(datasets: Sequence[str], task: str | None = None) -> dict[str, object]:
    """What `data_statistics` measures as an object, without the paper's figures and without files: `sizes`, a list with
    one for each row of Table 4, `trust` by category, and the data's own `notes`. Raises `BenchError`."""
    registry.load("tasks", task or REVIEWS)
    corpora = load_all(datasets, task or REVIEWS)
    return {
        "task": task or REVIEWS,
        "datasets": [shown_name(name) for name in datasets],
        "sizes": [{"split": row.split, "category": row.category, **asdict(row.ours)} for row in table4(corpora)],
        "trust": {category: asdict(measured) for category, measured in _measure(corpora).items()},
        "notes": [note for corpus in corpora.values() for note in corpus.notes],
    }


def statistics_of(
    datasets: Sequence[str],
    corpora: Mapping[str, Corpus],
    settings: Mapping[str, Any] | None,
    results: Path,
    suffix: str,
    task: str,
) -> list[str]:
    """As `data_statistics`, for corpora that are there; `suffix` ends the names of the tables."""
    # The configuration for RAG on the test split; the data come from elsewhere.
    rag = {"method": "rag", "split": "test", "limit": BUDGETED}
    run = None if settings is None else Run(build(settings, rag), Inputs(corpora))
    words = _words(task)
    blocks = None if run is None else _blocks(run)
    rows = table4(corpora)
    measured = _measure(corpora)
    notes = [note for corpus in corpora.values() for note in corpus.notes]
    if task == REVIEWS:
        notes += [demo_floors()] if DEMO in datasets else []
        notes += [floors_note(corpus) for corpus in corpora.values()] if set(datasets) != {DEMO} else []
    drawable = sum(len(corpus.split("val")) for corpus in corpora.values())
    budget = None if run is None else _budget(run.config)
    tables = [
        (sizes_grid(f"table4{suffix}", rows, drawable, notes, words), sizes_csv(rows)),
        (trust_grid(f"table4_trust{suffix}", measured, blocks, budget, words), trust_csv(measured, blocks, words)),
    ]
    folder = results / "tables"
    files = [path for grid, as_csv in tables for path in write(grid, as_csv, folder)]
    return [*(plain(grid) for grid, _ in tables), *(f"wrote {path}" for path in files)]


def _words(task: str) -> Words:
    kind = registry.load("tasks", task)
    return Words(kind.target, kind.grouped, bool(kind.timed))


def load_all(datasets: Sequence[str], task: str = REVIEWS) -> dict[str, Corpus]:
    """The categories of several data sets of a task. Raises `DataError` if two data sets have the same one."""
    corpora: dict[str, Corpus] = {}
    sources: dict[str, str] = {}
    for dataset in datasets:
        for category, corpus in load(dataset, None, task=task).items():
            if category in sources:
                raise DataError(
                    f"category {category} is in data set {sources[category]} and in data set {dataset}; give only one "
                    "of the two"
                )
            corpora[category] = corpus
            sources[category] = dataset
    return corpora


def _suffix(datasets: Sequence[str], config_name: str | None, task: str) -> str:
    """Tables of several configurations and data sets lie side by side; the demo's carries the plain name."""
    parts = [Path(config_name).stem] if config_name not in (None, DEMO) else []
    parts += [task] if list(datasets) == [DEMO] and task != REVIEWS else []
    parts += [Path(dataset).resolve().name for dataset in datasets] if list(datasets) != [DEMO] else []
    return "".join("-" + re.sub(r"[^A-Za-z0-9_-]", "_", part) for part in parts)


# ---- Table 4


def table4(corpora: Mapping[str, Corpus]) -> list[SizesRow]:
    """The rows as DEP uses the splits: the training instances with the longest profiles and the validation instances
    that choose an epoch, both of all categories together; then each category's test split."""
    train = [instance for corpus in corpora.values() for instance in corpus.longest_profiles("train")]
    val = validation_subset([i for corpus in corpora.values() for i in corpus.split("val")], TrainConfig().validation)
    merged = set(corpora) == set(PAPER_ROWS)
    rows = [
        SizesRow("train", MERGED, "Training", sizes(train, corpora), _paper("train", MERGED) if merged else None),
        SizesRow("val", MERGED, "Validation", sizes(val, corpora), _paper("val", MERGED) if merged else None),
    ]
    for category, corpus in corpora.items():
        paper = _paper(PAPER_ROWS[category], category) if category in PAPER_ROWS else None
        label = f"Test: {category_name(category)}"
        rows.append(SizesRow("test", category, label, sizes(corpus.split("test"), corpora), paper))
    return rows


def _paper(row: str, category: str) -> Sizes | None:
    instances = paper_value("table4", row, category, "n_instances")
    if instances is None:
        return None
    return Sizes(
        instances=int(instances),
        profile_mean=paper_value("table4", row, category, "profile_size_mean"),
        profile_sd=paper_value("table4", row, category, "profile_size_std"),
        length_mean=paper_value("table4", row, category, "output_len_chars_mean"),
        length_sd=paper_value("table4", row, category, "output_len_chars_std"),
    )


# ---- trust


def _blocks(run: Run) -> dict[str, Blocks]:
    progress = Progress("prompts", len(run.instances))
    prompts: dict[str, list[tuple[int, int]]] = {category: [] for category in run.corpora}
    for instance in run.instances:
        prompt = first_prompt(run, instance)
        prompts[instance.category].append((prompt.blocks_shown, prompt.blocks_offered))
        progress.update(finished=1)
    progress.close()
    return {
        category: Blocks(sum(shown for shown, _ in rows) / len(rows), sum(n for _, n in rows) / len(rows), len(rows))
        for category, rows in prompts.items()
        if rows
    }


def _budget(config: RunConfig) -> str:
    """In which prompts the history blocks were counted."""
    return (
        f"in the prompts of RAG with K={config.k} of the {config.retriever} retriever and {config.budget} tokens of "
        f"{shown_name(config.tokenizer or config.model)}, over the first {BUDGETED} test instances of each category at "
        "most"
    )


def _measure(corpora: Mapping[str, Corpus]) -> dict[str, Trust]:
    progress = Progress("copies of targets", sum(len(corpus.split("test")) for corpus in corpora.values()))
    measured = {
        category: trust(
            corpus,
            [other for other in corpora.values() if other is not corpus],
            lambda: progress.update(finished=1),
        )
        for category, corpus in corpora.items()
    }
    progress.close()
    return measured
