"""What methods are made of, as they declare it: the paper's Table 5."""

from __future__ import annotations

from pathlib import Path

from bench import registry
from bench.experiments.spec import Experiment
from bench.paper import paper_value
from bench.protocols import Method
from bench.report.grid import Grid, Line, plain, write
from bench.report.text import csv_text

COLUMNS = {
    "retrieval_augmentation": ("Retrieval augmentation", "retrieval_augmented"),
    "embedded_representation": ("Embedded representation", "embedded"),
    "inter_user_difference": ("Inter-user difference", "inter_user"),
}
"""Heads and the methods' own names of the properties, by the paper's names of them."""


def properties_table(table_id: str, experiment: Experiment, folder: Path) -> list[str]:
    """Write the files of the table of an experiment's methods and return what to print."""
    experiment = experiment.with_other_methods()
    blocks, rows, differing = [], [], []
    for group in experiment.groups:
        lines = []
        for row in group.rows:
            method: Method = registry.create("methods", str((row.set or {}).get("method")), {}, "paper")
            cells = []
            for name, (_, attribute) in COLUMNS.items():
                has = bool(getattr(method.properties, attribute))
                paper = None if row.paper is None else paper_value("table5", row.paper, "all", name)
                if paper is not None and bool(paper) != has:
                    differing.append(f"{row.label} ({COLUMNS[name][0].lower()})")
                cells.append("yes" if has else "no")
                rows.append([row.label, name, has, None if paper is None else bool(paper)])
            lines.append(Line(row.label, tuple(cells)))
        blocks.append(lines)
    agreement = "The paper's Table 5 says the same of its methods."
    if differing:
        agreement = f"The paper's Table 5 says otherwise of: {', '.join(differing)}."
    notes = ["As the methods' own code declares it; the harness acts on it.", agreement, *experiment.notes]
    grid = Grid(table_id, experiment.title, tuple(head for head, _ in COLUMNS.values()), blocks, notes)
    as_csv = csv_text(["method", "property", "declared", "paper"], rows)
    return [plain(grid), *(f"wrote {path}" for path in write(grid, as_csv, folder))]
