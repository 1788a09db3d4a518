"""Finding a data set by its name: the demo, a folder, or a data set on the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

from bench.data import prepared, published
from bench.data.corpus import Corpus
from bench.errors import DataError

DEMO = "demo"
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*-main")


def load(dataset: str, categories: Sequence[str] | None, revision: str | None = None) -> dict[str, Corpus]:
    """The corpora of a data set by category, in the order asked for, or all that it has.

    `dataset` is "demo", a folder made by `bench data prepare`, a local copy of the published form (as `bench data
    fetch` and `bench data prepare --layout dpl` write it), or the id of a published data set on the hub
    ("owner/name-main"), for which alone `revision` counts. Raises `DataError` for a name that is none of these and for
    an unknown category, `ResourceError` if the hub cannot be reached.
    """
    if dataset == DEMO:
        from bench.data import demo

        corpora = demo.generate()
        return {name: corpora[name] for name in chosen(dataset, categories, list(corpora))}
    folder = Path(dataset).expanduser()
    if folder.is_dir():
        return _from_folder(folder, categories)
    if _HUB_NAME.fullmatch(dataset) and not Path(dataset).parent.is_dir():
        names = published.hub_categories(dataset, revision) if categories is None else list(categories)
        return {name: published.read_hub(dataset, name, revision) for name in names}
    raise DataError(_unknown(dataset, folder))


def _from_folder(folder: Path, categories: Sequence[str] | None) -> dict[str, Corpus]:
    forms: tuple[tuple[Callable[[Path], list[str]], Callable[[Path, str], Corpus]], ...] = (
        (prepared.categories, prepared.read),
        (published.categories, published.read),
    )
    for available, read in forms:
        names = available(folder)
        if names:
            return {name: read(folder, name) for name in chosen(str(folder), categories, names)}
    hint = (
        f"give its parent, {folder.parent}"
        if (folder / "manifest.json").is_file()
        else "make one with `bench data prepare` or `bench data fetch`"
    )
    raise DataError(
        f"folder {folder} holds no data set: neither <category>/manifest.json, as `bench data prepare` writes it, nor "
        f"main/<category>/, as in a copy of the published data; {hint}"
    )


def chosen(dataset: str, wanted: Sequence[str] | None, available: Sequence[str]) -> Sequence[str]:
    """The categories that are wanted, or all. Raises `DataError` for one that the data set lacks."""
    for name in wanted or ():
        if name not in available:
            raise DataError(
                f"data set {dataset} has no category '{name}'{_near(name, available)}; it has: {', '.join(available)}"
            )
    return available if wanted is None else wanted


def _unknown(dataset: str, folder: Path) -> str:
    beside = sorted(str(path) for path in folder.parent.glob("*") if path.is_dir()) if folder.parent.is_dir() else []
    near = _near(str(folder), [DEMO, published.HUB, *beside])
    return (
        f"there is no data set '{dataset}'{near}; tried: the name '{DEMO}', a folder of that path, and a data set on "
        "the hub (an id of the form owner/name-main)"
    )


def _near(name: str, known: Sequence[str]) -> str:
    matches = get_close_matches(name, known, n=3)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""
