"""The two tables of `bench data stats`: sizes of the data (the paper's Table 4), and how far a run can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.config import TrainConfig
from bench.data.stats import NEWEST, Proportion, Sizes, Trust
from bench.report.grid import Grid, Line
from bench.report.names import category_name, plural
from bench.report.table import MISSING
from bench.report.text import csv_text

MERGED = "merged"


@dataclass(frozen=True)
class Words:
    """What the data's task writes, in one word, and whether its records have groups and times (`Task`)."""

    target: str
    grouped: bool
    timed: bool


# ---- Table 4


@dataclass(frozen=True)
class SizesRow:
    """A row of Table 4, and the paper's figures where it has such a row."""

    split: str
    category: str
    label: str
    ours: Sizes
    paper: Sizes | None


FIGURES = ("instances", "profile_mean", "profile_sd", "length_mean", "length_sd")
"""The figures of `Sizes`."""
HEADS = ("Instances", "Profile size, mean", "Profile size, sd", "Output length, mean", "Output length, sd")


def _figures(row: SizesRow) -> list[tuple[str, float | None, float | None, float | None]]:
    """Name, our value, the paper's and the difference of each figure of a row."""
    figures = []
    for name in FIGURES:
        ours = getattr(row.ours, name)
        paper = None if row.paper is None else getattr(row.paper, name)
        figures.append((name, ours, paper, None if ours is None or paper is None else ours - paper))
    return figures


def sizes_grid(table_id: str, rows: Sequence[SizesRow], drawable: int, data: Sequence[str], words: Words) -> Grid:
    """Table 4. `drawable` counts the validation instances, `data` are sentences that the data have to carry."""
    blocks: dict[str, list[Line]] = {"train": [], "val": [], "test": []}
    for row in rows:
        figures = _figures(row)
        lines = blocks[row.split]
        lines.append(Line(row.label, tuple(_number(name, ours) for name, ours, _, _ in figures)))
        if row.paper is not None:
            lines.append(Line("paper", tuple(_number(name, paper) for name, _, paper, _ in figures), minor=True))
            differences = tuple(_number(name, difference, sign="+") for name, _, _, difference in figures)
            lines.append(Line("difference", differences, minor=True))
    drawn = TrainConfig().validation
    notes = [
        f"Profile size: {plural(words.target)} in the profile of an instance. Output length: characters of the "
        f"{words.target} to write. sd: standard deviation of the population (divided by n).",
        "Training: for each user of a category the training instance with the longest profile; all categories "
        "together.",
        f"Validation: {min(drawn, drawable):,} of the {drawable:,} validation instances of all categories, drawn at "
        f"random (at most {drawn}, always the same).",
    ]
    if any(row.paper for row in rows):
        notes.append(
            "Paper: what the paper reports for its own data in its Table 4; difference: ours minus the paper's. Other "
            "data than the paper's have to differ."
        )
    return Grid(table_id, "Sizes of the data", HEADS, list(blocks.values()), tuple(dict.fromkeys([*notes, *data])))


def _number(figure: str, value: float | None, sign: str = "") -> str:
    if value is None:
        return MISSING
    return format(value, f"{sign},.{0 if figure == 'instances' else 2}f").replace("-", "\u2212")


def sizes_csv(rows: Sequence[SizesRow]) -> str:
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


BLOCKS = "blocks"


def _measures(words: Words) -> list[dict[str, str]]:
    """The measures of `Trust` that data of a task have, and the history blocks, with their labels, in blocks of
    lines."""
    one, several = words.target, plural(words.target)
    grouped, timed = words.grouped, words.timed
    return [
        {
            "users": "Users",
            **({"items": "Items"} if grouped else {}),
            "reviews": several.capitalize(),
            "in_other_categories": "Users of other categories too",
            "without_history": "Test instances without a history",
        },
        {
            **({"peers_mean": f"Peers of a history {one}, mean"} if grouped else {}),
            **({"peers_median": f"Peers of a history {one}, median"} if grouped else {}),
            **({"without_peers": f"History {several} without peers"} if grouped else {}),
            **({"peers_of_target": "Test targets with peers"} if grouped else {}),
            BLOCKS: "History blocks that fit the input budget, mean",
        },
        {
            "tied_users": f"Users with two {several} of the same time",
            "tied_targets": f"Test targets of the time of the newest {one}",
        }
        if timed
        else {},
        {
            "repeats_by_same_user": f"{several.capitalize()} repeated word for word by the user",
            "repeats_by_others": f"{several.capitalize()} repeated word for word by others",
            "exact_in_profile": "Test targets copied exactly in the profile",
            "near_in_profile": "Test targets copied nearly in the profile",
            **({"exact_in_peers": "Test targets copied exactly by peers"} if grouped else {}),
            **({"near_in_peers": "Test targets copied nearly by peers"} if grouped else {}),
        },
    ]


def trust_grid(
    table_id: str,
    measured: Mapping[str, Trust],
    blocks: Mapping[str, Blocks] | None,
    budget: str | None,
    words: Words,
) -> Grid:
    """How far a run on the data can be trusted, a column a category; `budget` says in which prompts `blocks` were
    counted, None where they were not."""
    lines = [
        [
            Line(
                label,
                tuple(
                    _blocks_cell(blocks, category) if name == BLOCKS else proportion_text(getattr(of, name))
                    for category, of in measured.items()
                ),
            )
            for name, label in block.items()
        ]
        for block in _measures(words)
        if block
    ]
    heads = tuple(map(category_name, measured))
    notes = tuple(_trust_notes(len(measured), budget, words))
    return Grid(table_id, "How far a run on the data can be trusted", heads, lines, notes)


def proportion_text(value: Proportion | float | None) -> str:
    """A count with its share, e.g. "12 (2.5%)", or a number alone."""
    if value is None:
        return MISSING
    if isinstance(value, Proportion):
        return f"{value.count:,} ({_percent(value)})" if value.of else "0 of 0"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _percent(proportion: Proportion) -> str:
    percent = f"{100 * proportion.count / proportion.of:.1f}%"
    return "<0.1%" if proportion.count and percent == "0.0%" else percent


def _blocks_cell(blocks: Mapping[str, Blocks] | None, category: str) -> str:
    if blocks is None:
        return "not asked"
    return f"{blocks[category].shown:.2f} of {blocks[category].offered:.2f}" if category in blocks else MISSING


def _trust_notes(categories: int, budget: str | None, words: Words) -> list[str]:
    """A definition a line."""
    one, several = words.target, plural(words.target)
    notes = [
        f"{several.capitalize()}: for each user those of the longest profile and the targets of all splits.",
        "Users of other categories too: known only where several categories are measured together."
        if categories == 1
        else f"Users of other categories too: of the {categories} categories measured here.",
    ]
    if words.grouped:
        notes.append(
            f"History {several}: the newest {NEWEST} of each test profile. Peers: other users' {several} of the same "
            "item in their histories, without any text that an instance of any split has to predict."
        )
    notes.append(
        "History blocks that fit the input budget: known only for a configuration (--config NAME)."
        if budget is None
        else f"History blocks: {budget}; behind 'of', what the retriever gives."
    )
    if words.timed:
        notes.append(
            f"Same time: equal to the millisecond. Which of such {several} is the newest is arbitrary, and so is "
            "whether one of the target's time was written before it."
        )
    copied = (
        "Copied exactly: equal in every character. Copied nearly: not so, but the sets of lower-cased word 5-grams "
        "have a Jaccard similarity of at least 0.8."
    )
    if words.grouped:
        copied += f" By peers: in peers' {several} of the target's item, which by their definition hold no exact copy."
    return [
        *notes,
        f"Repeated word for word: {several} whose text another {one} of the category equals in every character, by the "
        "same user or by others.",
        copied,
    ]


def trust_csv(measured: Mapping[str, Trust], blocks: Mapping[str, Blocks] | None, words: Words) -> str:
    """One line a measure; `of` is what a count is a share of, and of history blocks what the retriever gave."""
    lines: list[list[object]] = []
    for category, values in measured.items():
        for name in (name for block in _measures(words) for name in block):
            if name == BLOCKS:
                found = None if blocks is None else blocks.get(category)
                lines.append([category, name, found and found.shown, found and found.offered])
                continue
            value = getattr(values, name)
            of = value.of if isinstance(value, Proportion) else None
            lines.append([category, name, value.count if isinstance(value, Proportion) else value, of])
    return csv_text(["category", "measure", "value", "of"], lines)
