"""A plan as text for a terminal: what rows take, what adapters take, and what stands behind the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from bench.chat import Estimated
from bench.planning import Plan, Speeds
from bench.planning.calls import NOTHING, Need
from bench.planning.plan import AdapterPlan, RowPlan
from bench.progress import duration
from bench.report.grid import Grid, Line, plain

ROWS = ("Inst.", "Calls", "Prompt tok.", "at most", "New tok.", "at most", "Blocks")
ADAPTERS = ("Inst.", "Epochs", "Tokens", "Valid. calls", "Prompt tok.", "New tok.")
WIDTH = 98
WIDEST = 32
"""Letters of a label. With 14 the table keeps 100 columns; only a long label goes beyond."""


def plan_text(title: str, plan: Plan, speeds: Speeds) -> str:
    """The plan. Times stand in it where speeds are known."""
    if not plan.open:
        return f"{title}\n\nNothing to do: {_all(len(plan.runs))}.\n"
    timed = any(speeds.of(run.job) is not None for run in plan.open if run.counted.need.calls)
    clock = ("Time",) if timed else ()
    lines = [_row(row, speeds, timed) for row in plan.rows if row.runs]
    total = Line("Total", _total(plan, speeds, timed))
    grids = [Grid("plan", title, (*ROWS, *clock), [lines, [total]], [] if plan.adapters else _notes(plan, speeds))]
    if plan.adapters:
        same: dict[tuple[str, int, int], list[AdapterPlan]] = {}
        for adapter in plan.adapters:
            same.setdefault((adapter.label, adapter.instances, adapter.epochs), []).append(adapter)
        trained = [_adapters(adapters, speeds, timed) for adapters in same.values()]
        heads = (*ADAPTERS, *clock)
        grids.append(Grid("adapters", "Adapters to train, in the total above", heads, [trained], _notes(plan, speeds)))
    return "\n\n".join(plain(grid).strip() for grid in grids) + "\n"


def _all(runs: int) -> str:
    """All runs there are, as a sentence without its point."""
    if not runs:
        return "what is asked for shows no runs"
    return f"{'the run is' if runs == 1 else f'all {runs} runs are'} finished in the results"


def _row(row: RowPlan, speeds: Speeds, timed: bool) -> Line:
    """A row with all of its runs."""
    label = _counted(row.label, len(row.runs))
    left = [run for run in row.runs if not run.finished]
    if not left:
        return Line(label, ("done", *[""] * (len(ROWS) - 1 + timed)))
    counted = [run.counted for run in left]
    shown, offered = (
        sum(getattr(one, name) for one in counted) / len(counted) for name in ("blocks_shown", "blocks_offered")
    )
    blocks = f"{shown:.2f}/{offered:.1f}" if offered else "-"
    cells = [_number(sum(one.instances for one in counted)), *_need(row.need), blocks]
    return Line(label, (*cells, *_time([speeds.run_seconds(run) for run in left], timed)))


def _adapters(adapters: Sequence[AdapterPlan], speeds: Speeds, timed: bool) -> Line:
    """Adapters of one method that differ in their seeds or options."""
    need = sum((adapter.validation.need for adapter in adapters), NOTHING)
    cells = (
        _number(adapters[0].instances),
        str(adapters[0].epochs),
        _number(sum(adapter.tokens_left for adapter in adapters)),
        *(_number(value) for value in (need.calls, need.prompt_tokens, need.new_tokens)),
    )
    seconds = [speeds.adapter_seconds(adapter) for adapter in adapters]
    return Line(_counted(adapters[0].label, len(adapters)), (*cells, *_time(seconds, timed)))


def _total(plan: Plan, speeds: Speeds, timed: bool) -> tuple[str, ...]:
    instances = _number(sum(run.counted.instances for run in plan.open))
    return (instances, *_need(plan.need), "", *_time(_seconds(plan, speeds), timed))


def _seconds(plan: Plan, speeds: Speeds, most: bool = False) -> list[float | None]:
    """How long each run and each adapter takes."""
    runs = [speeds.run_seconds(run, most) for run in plan.open]
    return [*runs, *(speeds.adapter_seconds(adapter, most) for adapter in plan.adapters)]


def _need(need: Need) -> tuple[str, ...]:
    values = (need.calls, need.prompt_tokens, need.most_prompt_tokens, need.new_tokens, need.most_new_tokens)
    return tuple(_number(value) for value in values)


def _time(seconds: Sequence[float | None], timed: bool) -> tuple[str, ...]:
    if not timed:
        return ()
    known = [value for value in seconds if value is not None]
    return ("?" if len(known) < len(seconds) else duration(sum(known)),)


def _number(value: float) -> str:
    """A whole number, from ten millions on in millions."""
    return f"{value / 1e6:,.1f} M" if value >= 1e7 else f"{round(value):,}"


def _size(size: float) -> str:
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if size >= unit), (1e3, "kB"))
    return f"{size / unit:,.1f} {name}"


def _counted(label: str, count: int) -> str:
    """A label, and how many runs or adapters stand behind it if not one."""
    times = f" x{count}" if count > 1 else ""
    room = WIDEST - len(times)
    label = label if len(label) <= room else f"{label[: room - 3]}..."
    return f"{label}{times}"


# ---- notes


def _notes(plan: Plan, speeds: Speeds) -> list[str]:
    return [fill(note, WIDTH) for note in (*_what(plan), *_how(plan), *_disk(plan), *_when(plan, speeds))]


def _what(plan: Plan) -> list[str]:
    """What is counted, and what is not because it is there."""
    finished, shared = len(plan.runs) - len(plan.open), sum(row.shared for row in plan.rows)
    written = sum(run.counted.need.calls == 0 and not run.counted.instances for run in plan.open)
    notes = [f"{len(plan.open)} of {len(plan.runs)} runs are to do. Only what is missing in the results is counted."]
    if finished:
        notes[0] += f" Finished: {finished}."
    if written:
        notes.append(f"All texts of {written} runs are there: they are only scored.")
    if shared:
        notes.append(f"{shared} more runs of these tables are the same as others in them and are counted once.")
    if judged := sum(run.judged for run in plan.open):
        notes.append(f"A judge is asked about {judged:,} texts, on its own server: not in the calls above.")
    if plan.adapters:
        calls = sum(adapter.validation.need.calls for adapter in plan.adapters)
        notes.append(
            f"In the total are {round(calls):,} calls that choose the epochs of {len(plan.adapters)} adapters."
        )
    return notes


def _how(plan: Plan) -> list[str]:
    """How the numbers came about."""
    notes = []
    if plan.is_sampled:
        notes.append(
            f"Rendered: at most {plan.options.sample} instances of a run, drawn with seed {plan.options.seed}; they "
            'stand for the rest, in "at most" too. --sample 0 renders all.'
        )
    low, high = plan.answer_tokens
    if high:
        length = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        given = "as asked" if plan.options.answer_tokens else "the mean of what the users wrote"
        notes.append(
            f"Answers: {length} tokens ({given}), at most max_new_tokens. Prompts that quote answers hold stand-ins of "
            "these lengths; first prompts are exact. Blocks: history blocks shown, of those retrieved, in the last "
            "prompt."
        )
    if plan.stood_in:
        notes.append(
            f"No encoder was loaded: hashed n-grams stood in for {', '.join(plan.stood_in)}, so which records are "
            "chosen by it may be others."
        )
    if plan.estimate:
        notes.append(
            f"ESTIMATED without a tokenizer: a token is {Estimated.CHARACTERS} characters, in budgets and blocks too."
        )
    return notes


def _disk(plan: Plan) -> list[str]:
    runs = sum(run.size for run in plan.open)
    adapters, vectors = sum(adapter.size for adapter in plan.adapters), sum(plan.vectors.values())
    parts = [f"runs {_size(runs)}"]
    if plan.adapters:
        unknown = any(adapter.parameters is None for adapter in plan.adapters)
        parts.append(f"adapters {_size(adapters)}{' and weights of unknown size' if unknown else ''}")
    if vectors:
        parts.append(f"vectors {_size(vectors)} ({', '.join(plan.vectors)})")
    return [f"Disk: about {_size(runs + adapters + vectors)}: {', '.join(parts)}."]


def _when(plan: Plan, speeds: Speeds) -> list[str]:
    """How long it takes, or how to find out."""
    seconds, most = _seconds(plan, speeds), _seconds(plan, speeds, most=True)
    known, longest = ([value for value in values if value is not None] for values in (seconds, most))
    if not sum(known):
        return [
            "Time: give --probe, which measures this machine for half a minute, or --prompt-tokens-per-second, "
            "--new-tokens-per-second and, for adapters, --training-tokens-per-second."
        ]
    missing = " without what is not known (?)" if len(known) < len(seconds) else ""
    return [
        *speeds.told,
        f"Time: about {duration(sum(known))}{missing}, at most {duration(sum(longest))}, in one process at these "
        "speeds; without the start of engines, embedding and scoring. Without a GPU, bench table shares it between two "
        "processes.",
    ]
