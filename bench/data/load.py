"""Finding a data set by its name: the demo, a folder, or a data set on the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench import registry
from bench.data.corpus import Corpus
from bench.data.origins import HUB, writing
from bench.errors import DataError
from bench.files import path_of

if TYPE_CHECKING:
    from bench.protocols import Layout

DEMO = "demo"
INVENTED = "Invented data: no real user wrote them. They check a pipeline end to end and stand in for no real data."
"""What a table made from a task's own demo has to say."""
REVIEWS = "reviews"
"""The task of the embedded demo and of what is published on the hub."""
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*-main")


def load(
    dataset: str, categories: Sequence[str] | None, revision: str | None = None, task: str = REVIEWS
) -> dict[str, Corpus]:
    """The corpora of a data set by category, in the order asked for, or all that it has.

    `dataset` is "demo", for the data that are invented for the task, a folder in one of the layouts of `task` (for
    reviews: as `bench data prepare` writes it, or a local copy of the published form, as `bench data fetch` and
    `bench data prepare --layout dpl` write it), or the id of a published data set on the hub ("owner/name-main"), for
    which alone `revision` counts. Raises `DataError` for a name that is none of these, for data of another task and for
    an unknown category, `ResourceError` if the hub cannot be reached.
    """
    if dataset == DEMO:
        corpora = _demo(task)
        return {name: corpora[name] for name in chosen(dataset, categories, list(corpora))}
    folder = path_of(dataset)
    if folder.is_dir():
        return _from_folder(folder, categories, task)
    if _HUB_NAME.fullmatch(dataset) and not Path(dataset).parent.is_dir():
        from bench.data import published_hub

        _check_task(dataset, REVIEWS, task)
        names = published_hub.hub_categories(dataset, revision) if categories is None else list(categories)
        return {name: published_hub.read_hub(dataset, name, revision) for name in names}
    raise DataError(_unknown(dataset, folder))


def _demo(task: str) -> Mapping[str, Corpus]:
    # A layout may be of a task that is not installed.
    if task in registry.names("tasks") and hasattr(registry.load("tasks", task), "sample"):
        with TemporaryDirectory() as scratch:
            made = _from_folder(write_sample(task, Path(scratch) / DEMO), None, task)
        return {name: replace(corpus, notes=(*corpus.notes, INVENTED)) for name, corpus in made.items()}
    from bench.data import demo

    _check_task(DEMO, REVIEWS, task)
    return demo.generate()


def write_sample(task: str, folder: Path) -> Path:
    """Write a task's invented data to a folder, which must not be there, and return it. Raises `DataError` for a task
    without such data and for a folder that is there."""
    kind = registry.create("tasks", task, {})
    if not hasattr(kind, "sample"):
        able = [name for name in registry.names("tasks") if hasattr(registry.load("tasks", name), "sample")]
        raise DataError(f"task {task} has no invented data; tasks that have: {', '.join(able)}")
    if folder.exists():
        raise DataError(f"{folder} exists already; remove it or write to another folder")
    with writing(folder):
        folder.mkdir(parents=True)
        kind.sample(folder)
    return folder


def _check_task(dataset: str, of: str, task: str) -> None:
    if of != task:
        raise DataError(
            f"data set {dataset} is of task {of}, not {task}; choose the task with --task {of}, or other data"
        )


def _from_folder(folder: Path, categories: Sequence[str] | None, task: str) -> dict[str, Corpus]:
    layouts = [layout for name in registry.names("layouts") for layout in _serving(name)]
    # A folder may hold data of several tasks.
    for layout in sorted(layouts, key=lambda one: one.task != task):
        names = layout.categories(folder)
        if names:
            _check_task(str(folder), layout.task, task)
            return {name: layout.read(folder, name) for name in chosen(str(folder), categories, names)}
    hint = (
        f"give its parent, {folder.parent}"
        if any(folder.name in layout.categories(folder.parent) for layout in layouts)
        else "make one with `bench data prepare` or `bench data fetch`"
    )
    forms = " nor ".join(dict.fromkeys(layout.form for layout in layouts))
    raise DataError(f"folder {folder} holds no data set: neither {forms}; {hint}")


def _serving(name: str) -> list[Layout]:
    """A layout, once for each task that it serves."""
    pattern = getattr(registry.load("layouts", name), "tasks", None)
    if pattern is None:
        return [registry.create("layouts", name, {})]
    tasks = [task for task in registry.names("tasks") if fnmatch(task, pattern)]
    return [registry.create("layouts", name, {"task": task}) for task in tasks]


def chosen(dataset: str, wanted: Sequence[str] | None, available: Sequence[str]) -> Sequence[str]:
    """The categories that are wanted, or all. Raises `DataError` for one that the data set does not have."""
    for name in wanted or ():
        if name not in available:
            raise DataError(
                f"data set {dataset} has no category '{name}'{registry.near_match(name, available)} It has: "
                f"{', '.join(available)}"
            )
    return available if wanted is None else wanted


def _unknown(dataset: str, folder: Path) -> str:
    beside = sorted(str(path) for path in folder.parent.glob("*") if path.is_dir()) if folder.parent.is_dir() else []
    return (
        f"there is no data set '{dataset}'{registry.near_match(str(folder), [DEMO, HUB, *beside])} Tried: the name "
        f"'{DEMO}', a folder of that path, and a data set on the hub (an id of the form owner/name-main)"
    )
