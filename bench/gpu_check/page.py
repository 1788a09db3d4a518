"""The report of a check as one Markdown page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.gpu_check.plan import MODEL, TEXT_MODEL
from bench.report.grid import markdown
from bench.report.markup import escape_markdown, markdown_line
from bench.report.timing import timing_grids
from bench.timing import GIB

LONGEST = 24
"""Numbers of a list that are shown; the JSON file has all."""
NOTES = (
    "Prompts are those of the demo's generated reviews, counted with the tokenizer of the demo's model. It has 2,048 "
    "entries, so the same text makes more tokens than with Qwen's: figures are to be read by token, not by review.",
    "A random model's figures of speed and memory are those of its shape. Its texts part sooner than a trained model's "
    "in bfloat16, because the next token is less sure: the counts of equal texts are a lower bound, not a forecast.",
    "Training runs with torch's deterministic kernels, so that two trainings can be compared to the bit; without them "
    "a step may be faster.",
    "bench time is that of docs/performance.md: the demo's own lengths, few instances, one pass.",
)


def page(report: Mapping[str, Any]) -> str:
    """The content of the page."""
    lines = ["# GPU check", "", *_summary(report), ""]
    lines += [markdown_line(["part", "", "seconds", ""]), markdown_line([":--", ":--", "--:", ":--"])]
    for part in report["parts"]:
        cells = (part["what"], part["state"], f"{part['seconds']:.1f}", part["error"] or "")
        lines.append(markdown_line([_cell(cell) for cell in cells]))
    for part in report["parts"]:
        if part["figures"]:
            lines += ["", f"## {escape_markdown(part['what'])}", "", *_figures(part)]
    return "\n".join([*lines, "", "## How to read it", "", *(f"- {escape_markdown(note)}" for note in NOTES), ""])


def _summary(report: Mapping[str, Any]) -> list[str]:
    states = [part["state"] for part in report["parts"]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("passed", "failed", "skipped"))
    names = [f"{what}: {report['models'][what]}" for what in (MODEL, TEXT_MODEL)]
    size = " at a tiny size, which says nothing about speed" if report["tiny"] else ""
    return [f"Made {report['created']}{size}; {counts}.", "", escape_markdown(f"Models: {'; '.join(names)}.")]


def _figures(part: Mapping[str, Any]) -> list[str]:
    if part["name"] == "time":
        return [markdown(grid) for grid in timing_grids(part["figures"])]
    lines = [markdown_line(["", ""]), markdown_line([":--", ":--"])]
    return lines + [markdown_line([_cell(name), _cell(value)]) for name, value in _flat(part["figures"])]


def _cell(text: str) -> str:
    """A cell of a table; the point of a number would make a list of it only at the beginning of a line."""
    return text.replace("|", r"\|") if text[:1].isdigit() else escape_markdown(text)


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every figure with its name in words."""
    for name, value in figures.items():
        words = prefix + name.replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{words}, ")
        else:
            yield words, _text(value, "bytes" in name)


def _text(value: Any, of_bytes: bool = False) -> str:
    """A figure as a person reads it; memory in GiB."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        more = f" and {len(value) - LONGEST} more" if len(value) > LONGEST else ""
        return "; ".join(_text(one) for one in value[:LONGEST]) + more or "none"
    if not isinstance(value, int | float):
        return "not known" if value is None else str(value)
    if of_bytes:
        return f"{value / GIB:.2f} GiB"
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"
