"""What `bench data stats` shows of a data set: the paper's Table 4, and what decides how far a run can be trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config import TrainConfig, build, read_config
from bench.data.corpus import Corpus
from bench.data.load import DEMO, load
from bench.data.stats import NEWEST, Share, Sizes, Trust, demo_floors, sizes, trust
from bench.errors import DataError
from bench.progress import Progress
from bench.report.grid import Grid, Line, plain, write
from bench.report.names import category_name, paper_value
from bench.report.tables import MISSING, csv_text
from bench.runner import Run, drawn

PAPER_ROWS = {"Books": "test_books", "Movies_and_TV": "test_movies", "CDs_and_Vinyl": "test_cds"}
MERGED = "merged"
BUDGETED = 500
"""Test instances of a category whose prompts are rendered to see how many history blocks fit: the first so many."""


def data_statistics(datasets: Sequence[str], config_name: str | None, results: Path) -> list[str]:
    """Measure data sets together, write the files of both tables into RESULTS/tables and return what to print.

    With a configuration the second table says how many history blocks fit its input budget. Raises `BenchError`.
    """
    settings = None if config_name is None else read_config(config_name) | {"results": str(results)}
    return statistics_of(datasets, load_all(datasets), settings, results, _suffix(datasets, config_name))


def statistics_of(
    datasets: Sequence[str],
    corpora: Mapping[str, Corpus],
    settings: Mapping[str, Any] | None,
    results: Path,
    suffix: str,
) -> list[str]:
    """As `data_statistics`, for corpora that are there; `suffix` ends the names of the tables."""
    # The configuration for RAG on the test split; the data come from elsewhere.
    rag = {"method": "rag", "split": "test", "limit": BUDGETED}
    run = None if settings is None else Run(build(settings, rag), corpora)
    blocks = None if run is None else _blocks(run)
    rows = table4(corpora)
    measured = _measure(corpora)
    notes = [note for corpus in corpora.values() for note in corpus.notes]
    notes += [demo_floors()] if DEMO in datasets else []
    tables = [
        (_sizes_grid(f"table4{suffix}", rows, corpora, notes), _sizes_csv(rows)),
        (_trust_grid(f"table4_trust{suffix}", measured, blocks, run), _trust_csv(measured, blocks)),
    ]
    folder = results / "tables"
    files = [path for grid, as_csv in tables for path in write(grid, as_csv, folder)]
    return [*(plain(grid) for grid, _ in tables), *(f"wrote {path}" for path in files)]


def load_all(datasets: Sequence[str]) -> dict[str, Corpus]:
    """The categories of several data sets. Raises `DataError` if two data sets have the same one."""
    corpora: dict[str, Corpus] = {}
    sources: dict[str, str] = {}
    for dataset in datasets:
        for category, corpus in load(dataset, None).items():
            if category in sources:
                raise DataError(
                    f"category {category} is in data set {sources[category]} and in data set {dataset}; give only one "
                    "of the two"
                )
            corpora[category] = corpus
            sources[category] = dataset
    return corpora


def _suffix(datasets: Sequence[str], config_name: str | None) -> str:
    """Tables of several configurations and data sets lie side by side; the demo's carries the plain name."""
    parts = [Path(config_name).stem] if config_name not in (None, DEMO) else []
    parts += [Path(dataset).resolve().name for dataset in datasets] if list(datasets) != [DEMO] else []
    return "".join("-" + re.sub(r"[^A-Za-z0-9_-]", "_", part) for part in parts)


# ---- Table 4


@dataclass(frozen=True)
class SizesRow:
    """A row of Table 4, and the paper's figures where it has such a row."""

    split: str
    category: str
    label: str
    ours: Sizes
    paper: Sizes | None


def table4(corpora: Mapping[str, Corpus]) -> list[SizesRow]:
    """The rows as DEP uses the splits: the training instances with the longest profiles and the validation instances
    that choose an epoch, both of all categories together; then each category's test split."""
    train = [instance for corpus in corpora.values() for instance in corpus.longest_profiles("train")]
    val = [instance for corpus in corpora.values() for instance in corpus.split("val")]
    merged = set(corpora) == set(PAPER_ROWS)
    rows = [
        SizesRow("train", MERGED, "Training", sizes(train, corpora), _paper("train", MERGED) if merged else None),
        SizesRow(
            "val",
            MERGED,
            "Validation",
            sizes(drawn(val, TrainConfig().validation), corpora),
            _paper("val", MERGED) if merged else None,
        ),
    ]
    for category, corpus in corpora.items():
        paper = _paper(PAPER_ROWS[category], category) if category in PAPER_ROWS else None
        label = f"Test: {category_name(category)}"
        rows.append(SizesRow("test", category, label, sizes(corpus.split("test"), corpora), paper))
    return rows


FIGURES = {
    "instances": "n_instances",
    "profile_mean": "profile_size_mean",
    "profile_sd": "profile_size_std",
    "length_mean": "output_len_chars_mean",
    "length_sd": "output_len_chars_std",
}
"""The figures of `Sizes` and what the file of the paper's numbers calls them."""


def _paper(row: str, category: str) -> Sizes | None:
    values = {ours: paper_value("table4", row, category, theirs) for ours, theirs in FIGURES.items()}
    instances = values.pop("instances")
    return None if instances is None else Sizes(int(instances), **values)


def _figures(row: SizesRow) -> list[tuple[str, float | None, float | None, float | None]]:
    """Name, our value, the paper's and the difference of each figure of a row."""
    figures = []
    for name in FIGURES:
        ours = getattr(row.ours, name)
        paper = None if row.paper is None else getattr(row.paper, name)
        figures.append((name, ours, paper, None if ours is None or paper is None else ours - paper))
    return figures


def _sizes_grid(table_id: str, rows: Sequence[SizesRow], corpora: Mapping[str, Corpus], data: Sequence[str]) -> Grid:
    blocks: dict[str, list[Line]] = {"train": [], "val": [], "test": []}
    for row in rows:
        figures = _figures(row)
        lines = blocks[row.split]
        lines.append(Line(row.label, tuple(_number(name, ours) for name, ours, _, _ in figures)))
        if row.paper is not None:
            lines.append(Line("paper", tuple(_number(name, paper) for name, _, paper, _ in figures), minor=True))
            differences = tuple(_number(name, difference, sign="+") for name, _, _, difference in figures)
            lines.append(Line("difference", differences, minor=True))
    drawable = sum(len(corpus.split("val")) for corpus in corpora.values())
    notes = [
        "Profile size: reviews in the profile of an instance. Output length: characters of the review to write. sd: "
        "standard deviation of the population (divided by n).",
        "Training: of each user of a category the training instance with the longest profile; all categories together.",
        f"Validation: {min(TrainConfig().validation, drawable):,} of the {drawable:,} validation instances of all "
        f"categories, drawn at random (at most {TrainConfig().validation}, always the same).",
        *(
            [
                "Paper: what the paper reports for its own data in its Table 4; difference: ours minus the paper's. "
                "Other data than the paper's have to differ."
            ]
            if any(row.paper for row in rows)
            else []
        ),
        *data,
    ]
    heads = ("Instances", "Profile size, mean", "Profile size, sd", "Output length, mean", "Output length, sd")
    return Grid(table_id, "Sizes of the data", heads, list(blocks.values()), tuple(dict.fromkeys(notes)))


def _number(figure: str, value: float | None, sign: str = "") -> str:
    if value is None:
        return MISSING
    return format(value, f"{sign},.{0 if figure == 'instances' else 2}f").replace("-", "\u2212")


def _sizes_csv(rows: Sequence[SizesRow]) -> str:
    """One line a figure, numbers in full precision."""
    lines = [[row.split, row.category, *figure] for row in rows for figure in _figures(row)]
    return csv_text(["split", "category", "figure", "value", "paper", "difference"], lines)


# ---- trust


@dataclass(frozen=True)
class Blocks:
    """History blocks that fit the input budget and that the retriever gave, on average over `instances`."""

    shown: float
    offered: float
    instances: int


def _blocks(run: Run) -> dict[str, Blocks]:
    progress = Progress("prompts", len(run.instances))
    prompts: dict[str, list[tuple[int, int]]] = {category: [] for category in run.corpora}
    for instance in run.instances:
        prompt = run.first_prompt(instance)
        prompts[instance.category].append((prompt.blocks_shown, prompt.blocks_offered))
        progress.update(finished=1)
    progress.close()
    return {
        category: Blocks(sum(shown for shown, _ in rows) / len(rows), sum(n for _, n in rows) / len(rows), len(rows))
        for category, rows in prompts.items()
        if rows
    }


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


BLOCKS = "blocks"
MEASURES: tuple[dict[str, str], ...] = (
    {
        "users": "Users",
        "items": "Items",
        "reviews": "Reviews",
        "in_other_categories": "Users of other categories too",
    },
    {
        "peers_mean": "Peers of a history review, mean",
        "peers_median": "Peers of a history review, median",
        "without_peers": "History reviews without peers",
        BLOCKS: "History blocks that fit the input budget, mean",
    },
    {
        "tied_users": "Users with two reviews of the same time",
        "tied_targets": "Test targets of the time of the newest review",
    },
    {
        "repeats_by_same_user": "Reviews repeated word for word by the user",
        "repeats_by_others": "Reviews repeated word for word by others",
        "exact_in_profile": "Test targets copied exactly in the profile",
        "near_in_profile": "Test targets copied nearly in the profile",
        "exact_in_peers": "Test targets copied exactly by peers",
        "near_in_peers": "Test targets copied nearly by peers",
    },
)
"""The measures of `Trust`, and the history blocks, with their labels, in blocks of lines."""


def _trust_grid(
    table_id: str, measured: Mapping[str, Trust], blocks: Mapping[str, Blocks] | None, run: Run | None
) -> Grid:
    lines = [
        [
            Line(
                label,
                tuple(
                    _blocks_cell(blocks, category) if name == BLOCKS else _cell(getattr(of, name))
                    for category, of in measured.items()
                ),
            )
            for name, label in block.items()
        ]
        for block in MEASURES
    ]
    heads = tuple(map(category_name, measured))
    return Grid(table_id, "How far a run on the data can be trusted", heads, lines, tuple(_trust_notes(measured, run)))


def _cell(value: Share | float | None) -> str:
    if value is None:
        return MISSING
    if isinstance(value, Share):
        return f"{value.count:,} ({_percent(value)})" if value.of else "0 of 0"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _percent(share: Share) -> str:
    percent = f"{100 * share.count / share.of:.1f}%"
    return "<0.1%" if share.count and percent == "0.0%" else percent


def _blocks_cell(blocks: Mapping[str, Blocks] | None, category: str) -> str:
    if blocks is None:
        return "not asked"
    return f"{blocks[category].shown:.2f} of {blocks[category].offered:.2f}" if category in blocks else MISSING


def _trust_notes(measured: Mapping[str, Trust], run: Run | None) -> list[str]:
    """A definition a line."""
    notes = [
        "Reviews: of each user those of the longest profile and the targets of all splits.",
        "Users of other categories too: known only where several categories are measured together."
        if len(measured) == 1
        else f"Users of other categories too: of the {len(measured)} categories measured here.",
        f"History reviews: the newest {NEWEST} of each test profile. Peers: other users' reviews of the same item in "
        "their histories, without any text that an instance of any split has to predict.",
        "History blocks that fit the input budget: known only for a configuration (--config NAME)."
        if run is None
        else f"History blocks: in the prompts of RAG with K={run.config.k} of the {run.config.retriever} retriever and "
        f"{run.config.budget} tokens of {run.config.tokenizer or run.config.model}, over the first {BUDGETED} test "
        "instances of each category at most; behind 'of', what the retriever gives.",
        "Same time: equal to the millisecond. Which of such reviews is the newest is arbitrary, and so is whether one "
        "of the target's time was written before it.",
        "Repeated word for word: reviews whose text another review of the category equals in every character, by the "
        "same user or by others.",
        "Copied exactly: equal in every character. Copied nearly: not so, but the sets of lower-cased word 5-grams "
        "have a Jaccard similarity of at least 0.8. By peers: in peers' reviews of the target's item, which by their "
        "definition hold no exact copy.",
    ]
    return notes


def _trust_csv(measured: Mapping[str, Trust], blocks: Mapping[str, Blocks] | None) -> str:
    """One line a measure; `of` is what a count is a share of, and of history blocks what the retriever gave."""
    lines: list[list[object]] = []
    for category, values in measured.items():
        for name in (name for block in MEASURES for name in block):
            if name == BLOCKS:
                found = None if blocks is None else blocks.get(category)
                lines.append([category, name, found and found.shown, found and found.offered])
                continue
            value = getattr(values, name)
            of = value.of if isinstance(value, Share) else None
            lines.append([category, name, value.count if isinstance(value, Share) else value, of])
    return csv_text(["category", "measure", "value", "of"], lines)
