"""Finding a data set by its name: the demo, a folder, or a data set on the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import registry
from bench.data.corpus import Corpus
from bench.data.origins import HUB
from bench.errors import DataError
from bench.files import path_of

if TYPE_CHECKING:
    from bench.protocols import Layout

DEMO = "demo"
REVIEWS = "reviews"
"""The task of the demo and of what is published on the hub."""
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*-main")


def load(
    dataset: str, categories: Sequence[str] | None, revision: str | None = None, task: str = REVIEWS
) -> dict[str, Corpus]:
    """The corpora of a data set by category, in the order asked for, or all that it has.

    `dataset` is "demo", a folder in one of the layouts of `task` (for reviews: as `bench data prepare` writes it, or a
    local copy of the published form, as `bench data fetch` and `bench data prepare --layout dpl` write it), or the id
    of a published data set on the hub ("owner/name-main"), for which alone `revision` counts. Raises `DataError` for a
    name that is none of these, for data of another task and for an unknown category, `ResourceError` if the hub cannot
    be reached.
    """
    if dataset == DEMO:
        from bench.data import demo

        _check_task(dataset, REVIEWS, task)
        corpora = demo.generate()
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


def _check_task(dataset: str, of: str, task: str) -> None:
    if of != task:
        raise DataError(
            f"data set {dataset} is of task {of}, not {task}; choose the task with --task {of}, or other data"
        )


def _from_folder(folder: Path, categories: Sequence[str] | None, task: str) -> dict[str, Corpus]:
    layouts: list[Layout] = [registry.create("layouts", name, {}) for name in registry.names("layouts")]
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
    forms = " nor ".join(layout.form for layout in layouts)
    raise DataError(f"folder {folder} holds no data set: neither {forms}; {hint}")


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
