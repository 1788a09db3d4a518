"""The published form on the Hugging Face hub: data sets "<owner>/<name>-main" and "<owner>/<name>-meta", each with one
configuration a category (`bench.data.layouts._published` tells their rows)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench import hub
from bench.data.corpus import Corpus
from bench.data.layouts._published import ROWS, Chunks, corpus_of, counted
from bench.data.origins import HUB, hub_origin
from bench.errors import DataError

if TYPE_CHECKING:
    import datasets
    import pyarrow

INSTEAD = (
    "use a local copy (FOLDER/main/<category>/..., FOLDER/meta/<category>/...) or a folder made by `bench data prepare`"
)


def repository(name: str) -> hub.Repository:
    """A data set on the hub."""
    return hub.Repository("dataset", name, INSTEAD)


def hub_categories(name: str, revision: str | None) -> list[str]:
    """The categories of a data set on the hub. Raises `ResourceError` if the hub cannot be reached."""
    import datasets

    main = repository(name).commit(revisions(revision)[0])
    try:
        return [str(config) for config in datasets.get_dataset_config_names(name, revision=main)]
    except hub.errors() as error:
        raise repository(name).unreachable(error) from error
    except (ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{name} cannot be read: {hub.first_line(error)}; this is not the form of {HUB}") from error


def read_hub(name: str, category: str, revision: str | None) -> Corpus:
    """One category of the data set `name` ("owner/DPL-main") on the hub, with the items of "owner/DPL-meta".

    `revision` is a branch, tag or commit of both data sets, or "MAIN,META" for one each. Raises `ResourceError` if
    the hub cannot be reached, `DataError` for data of another form.
    """
    names = (name, meta_name(name))
    # By commits: for the name of a branch `datasets` may give what it has kept of another commit.
    commits = [repository(one).commit(wanted) for one, wanted in zip(names, revisions(revision), strict=True)]
    parts = {part: load_hub(one, category, at) for part, one, at in zip(("main", "meta"), names, commits, strict=True)}

    def chunks(part: str, split: str) -> Chunks:
        where = f"{names[part == 'meta']}, {category}, split {split}"
        return counted(where, hub_batches(parts[part], split, where))

    return corpus_of(category, chunks, hub_origin(*names, *commits))


def meta_name(name: str) -> str:
    """The data set on the hub that holds the items of `name`. Raises `DataError` for a name that has none."""
    if not name.endswith("-main"):
        raise DataError(
            f"data set '{name}' on the hub: the name has to end in '-main'; the items are then looked up in '...-meta'"
        )
    return name.removesuffix("-main") + "-meta"


def revisions(revision: str | None) -> tuple[str | None, str | None]:
    """The revisions of main and meta that "REVISION" or "MAIN,META" means."""
    main, _, meta = (revision or "").partition(",")
    return main or None, meta or main or None


def load_hub(name: str, category: str, revision: str | None, **options: Any) -> datasets.DatasetDict:
    """One category of a data set on the hub, downloaded. Raises `ResourceError` if the hub cannot be reached,
    `DataError` if `datasets` cannot read the category. No code of the repository is ever run."""
    import datasets

    try:
        return datasets.load_dataset(name, category, revision=revision, **options)
    except hub.errors() as error:
        raise repository(name).unreachable(error) from error
    except (ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if isinstance(error.__cause__, hub.errors()):
            raise repository(name).unreachable(error.__cause__) from error
        reason = hub.first_line(error.__cause__ or error)
        raise DataError(f"{name} cannot be read as category {category}: {reason}") from error


def hub_batches(parts: datasets.DatasetDict, split: str, where: str) -> Iterator[pyarrow.RecordBatch]:
    """The rows of a split. Raises `DataError` if it is not there; `where` is for the message."""
    if split not in parts:
        raise DataError(f"{where}: there is no such split; this is not the form of {HUB}")
    return (batch for table in parts[split].with_format("arrow").iter(ROWS) for batch in table.to_batches())
