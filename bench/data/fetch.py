"""Bringing data sets from the Hugging Face hub into a folder, at a commit that is written down.

`fetch` brings a published data set (`bench.data.layouts.published` tells its form):

    OUT/main/<category>/{train,val,test}.parquet
    OUT/meta/<category>/full.parquet
    OUT/fetched.json      {"schema": 1, "sources": {"main": {"id": ..., "commit": ...}, "meta": {...}},
                           "categories": {<category>: {<path>: {"bytes": ..., "sha256": ...}}}, "packages": {...}}

`fetch_raw` brings the raw files of a category of Amazon Reviews 2023, for `bench data prepare`:

    OUT/<category>.jsonl, OUT/meta_<category>.jsonl
    OUT/fetched.json      the same, with the one source "raw"

`fetch_files` brings the JSON and Parquet files of any other data set at their own places, e.g. LongLaMP's, whose
categories are the folders that they lie in, with the one source "files".

A category appears when it is complete; a folder holds data of one commit. Whoever needs a token has it where
`huggingface_hub` looks for it: it is neither read nor written here, and no code of a repository is run.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bench import hub
from bench.data import published_hub
from bench.data.corpus import SPLITS
from bench.data.export import write_parquet
from bench.data.folders import staging
from bench.data.load import chosen
from bench.data.origins import FETCHED, HUB, read_origin, write_origin, writing
from bench.errors import DataError, ResourceError

if TYPE_CHECKING:
    import datasets
    import pyarrow

RAW = "McAuley-Lab/Amazon-Reviews-2023"
_RAW = hub.Repository("dataset", RAW, "fetch the files by hand and give them to `bench data prepare`")
_RAW_FILES = ("raw/review_categories/{}.jsonl", "raw/meta_categories/meta_{}.jsonl")
_COLUMNS = {"main": {"user_id", "profile", "data"}, "meta": {"asin", "title", "description"}}
_FOLDER_NAME = re.compile(r"\w[\w.&-]*")

Progress = Callable[[str], None]
Sources = dict[str, dict[str, str]]
"""The id and the commit of "main" and "meta", or of "raw"."""


def fetch(name: str, out: Path, categories: Sequence[str] | None, revision: str | None, progress: Progress) -> None:
    """Bring categories, or all, of the published data set `name` ("owner/DPL-main") into `out`.

    `revision` is that of both data sets, or "MAIN,META". What is there at the same commit is not brought again.
    Raises `ResourceError` if the hub cannot be reached or refuses, `DataError` for an unknown category, data of
    another form, or a folder that holds something else.
    """
    ids = {"main": name, "meta": published_hub.meta_name(name)}
    record = read_origin(out / FETCHED)
    wanted = dict(zip(ids, published_hub.revisions(revision), strict=True))
    sources = {
        part: {"id": ids[part], "commit": _commit(published_hub.repository(ids[part]), wanted[part], record)}
        for part in ids
    }
    _check_sources(out, record, sources)
    for category in _missing(out, name, categories, sources, record, progress):
        progress(f"{category}: fetching {_at(sources['main'])} and {_at(sources['meta'])}")
        _fetch_category(out, category, sources)


def fetch_raw(category: str, out: Path, revision: str | None, progress: Progress) -> tuple[Path, Path]:
    """Bring the raw reviews and items of a category into `out`; returns the two files. Raises as `fetch` does."""
    record = read_origin(out / FETCHED)
    sources = {"raw": {"id": RAW, "commit": _commit(_RAW, revision, record)}}
    _check_sources(out, record, sources)
    paths = out / f"{category}.jsonl", out / f"meta_{category}.jsonl"
    if category in record.get("categories", {}):
        _check_files(out, record["categories"][category])
        progress(f"{category}: already there, {_at(sources['raw'])}")
        return paths
    for path in paths:
        if path.exists():
            raise DataError(f"{path} exists but was not fetched into {out}; move it away or fetch into another folder")
    _fetch_raw(category, out, paths, sources, progress)
    return paths


def next_command(category: str, reviews: Path, items: Path, out: Path) -> str:
    """The `bench data prepare` command that goes on with raw files."""
    prepare = ["bench", "data", "prepare", "--reviews", str(reviews), "--items", str(items), "--category", category]
    return shlex.join([*prepare, "--out", str(out / "prepared")])


# What is there.


def _commit(repository: hub.Repository, revision: str | None, record: Mapping[str, Any]) -> str:
    """The commit of a revision on the hub now; one that the folder holds need not be asked for."""
    held = {source["id"]: source["commit"] for source in record.get("sources", {}).values()}
    if revision is not None and held.get(repository.id) == revision:
        return revision
    return repository.commit(revision)


def _at(source: Mapping[str, str]) -> str:
    return f"{source['id']} at revision {source['commit'][:12]}"


def _check_sources(out: Path, record: Mapping[str, Any], sources: Sources) -> None:
    if record and record.get("sources") != sources:
        held = record.get("sources", {})
        revision = ",".join(dict.fromkeys(source["commit"] for source in held.values()))
        raise DataError(
            f"{out} holds {' and '.join(map(_at, held.values()))}, not {' and '.join(map(_at, sources.values()))}; "
            f"fetch into another folder, or more of the same with --revision {revision}"
        )


def _missing(
    out: Path,
    name: str,
    wanted: Sequence[str] | None,
    sources: Sources,
    record: Mapping[str, Any],
    progress: Progress,
) -> list[str]:
    """The wanted categories that the folder does not hold, after a check of those that it does."""
    there = record.get("categories", {})
    if wanted is None or any(category not in there for category in wanted):
        wanted = chosen(name, wanted, published_hub.hub_categories(name, sources["main"]["commit"]))
    missing = []
    for category in dict.fromkeys(wanted):
        homes = [out / part / category for part in sources]
        if not _FOLDER_NAME.fullmatch(category):
            raise DataError(f"data set {name} has a category '{category}', which cannot be a folder's name")
        if category in there and homes[0].is_dir():
            _check_files(out, there[category])
            progress(f"{category}: already there, {_at(sources['main'])}")
            continue
        if category in there:
            shutil.rmtree(homes[1], ignore_errors=True)  # broken off between the two renames
        for home in homes:
            if home.exists():
                raise DataError(f"{home} exists but was not fetched; move it away or fetch into another folder")
        missing.append(category)
    return missing


def _check_files(out: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    for name, wanted in files.items():
        path = out / name
        if not path.is_file() or path.stat().st_size != wanted["bytes"]:
            raise DataError(f"{path} is not as it was fetched; remove {out} and fetch it again")


# Bringing a category.


def _fetch_category(out: Path, category: str, sources: Sources) -> None:
    with (
        writing(out),
        staging(out / "main", category) as main,
        staging(out / "meta", category) as meta,
    ):
        files = {}
        for part, home, splits in (("main", main, SPLITS), ("meta", meta, ("full",))):
            repository, commit = sources[part]["id"], sources[part]["commit"]
            # A cache of its own: what `datasets` has of another commit must not stand in if the hub breaks off.
            with TemporaryDirectory(dir=home) as cache:
                parts = published_hub.load_hub(repository, category, commit, cache_dir=cache)
                for split in splits:
                    where = f"{repository}, {category}, split {split}"
                    path = home / f"{split}.parquet"
                    write_parquet(path, _tables(parts, split, where, _COLUMNS[part]))
                    files[f"{part}/{category}/{path.name}"] = _described(path)
        _add(out, sources, category, files)


def _tables(parts: datasets.DatasetDict, split: str, where: str, columns: set[str]) -> Iterator[pyarrow.Table]:
    """The rows of a split in tables of a few, the first of them without any."""
    import pyarrow as pa

    batches = published_hub.hub_batches(parts, split, where)
    missing = columns - set(parts[split].column_names)
    if missing:
        raise DataError(f"{where}: there is no column {min(missing)}; this is not the form of {HUB}")
    yield parts[split].features.arrow_schema.remove_metadata().empty_table()
    for batch in batches:
        yield pa.Table.from_batches([batch]).replace_schema_metadata(None)


def _fetch_raw(category: str, out: Path, paths: Sequence[Path], sources: Sources, progress: Progress) -> None:
    digests = _raw_digests(category, sources["raw"])
    progress(f"{category}: fetching {_at(sources['raw'])}")
    # Files that were brought before a connection broke stay here for the next try.
    partial = out / f".{category}.fetching"
    files = {}
    with writing(out):
        for path, pattern in zip(paths, _RAW_FILES, strict=True):
            source = pattern.format(category)
            found = _RAW.file(source, sources["raw"]["commit"], partial)
            if found is None:
                raise DataError(f"{_at(sources['raw'])} has no file {source}")
            files[path.name] = _described(found)
            if digests[source] not in (None, files[path.name]["sha256"]):
                found.unlink()
                raise ResourceError(f"{source} of {RAW} came damaged (its SHA-256 is not the hub's); fetch it again")
        for path, pattern in zip(paths, _RAW_FILES, strict=True):
            (partial / pattern.format(category)).rename(path)
        _add(out, sources, category, files)
        shutil.rmtree(partial)


def _raw_digests(category: str, source: Mapping[str, str]) -> dict[str, str | None]:
    """The SHA-256 that the hub gives for each of a category's two files, if any."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    found: dict[str, str | None] = {}
    try:
        for pattern in _RAW_FILES:
            folder = pattern.rpartition("/")[0]
            for entry in HfApi().list_repo_tree(RAW, folder, revision=source["commit"], repo_type="dataset"):
                if isinstance(entry, RepoFile):
                    found[entry.path] = entry.lfs.sha256 if entry.lfs else None
    except hub.errors() as error:
        raise _RAW.unreachable(error) from error
    before, after = _RAW_FILES[0].split("{}")
    chosen(RAW, [category], [path[len(before) : -len(after)] for path in found if path.startswith(before)])
    for pattern in _RAW_FILES:
        if pattern.format(category) not in found:
            raise DataError(f"{_at(source)} has no file {pattern.format(category)}")
    return found


# Writing down.


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _add(out: Path, sources: Sources, category: str, files: Mapping[str, Any]) -> None:
    record = read_origin(out / FETCHED)
    packages = {name: version(name) for name in ("personalization-bench", "datasets", "huggingface-hub", "pyarrow")}
    there = record.get("categories", {})
    record = {"sources": sources, "categories": there | {category: files}, "packages": packages}
    write_origin(out / FETCHED, record)


# Data that are kept as they lie on the hub.


def fetch_files(name: str, out: Path, folders: Sequence[str] | None, revision: str | None, progress: Progress) -> None:
    """Bring the JSON and Parquet files of any other data set into `out`, at their own places, or those in `folders`
    of it alone. Raises as `fetch` does, and `DataError` for a data set without such files."""
    repository = hub.Repository("dataset", name, "fetch its files by hand into a folder of their places")
    record = read_origin(out / FETCHED)
    sources = {"files": {"id": name, "commit": _commit(repository, revision, record)}}
    _check_sources(out, record, sources)
    by_folder: dict[str, list[str]] = {}
    for path in sorted(repository.files(sources["files"]["commit"])):
        if path.endswith((".parquet", ".json", ".jsonl")) and not Path(path).name.startswith("."):
            by_folder.setdefault(path.rpartition("/")[0], []).append(path)
    if not by_folder:
        raise DataError(f"{_at(sources['files'])} has no .parquet, .json or .jsonl file")
    for folder in chosen(name, folders, list(by_folder)):
        if folder in record.get("categories", {}):
            _check_files(out, record["categories"][folder])
            progress(f"{folder or name}: already there, {_at(sources['files'])}")
            continue
        progress(f"{folder or name}: fetching {_at(sources['files'])}")
        _fetch_folder(out, folder, by_folder[folder], repository, sources)


def _fetch_folder(out: Path, folder: str, paths: Sequence[str], repository: hub.Repository, sources: Sources) -> None:
    for path in paths:
        if (out / path).exists():
            raise DataError(f"{out / path} exists but was not fetched; move it away or fetch into another folder")
    # Files that were brought before a connection broke stay here for the next try.
    partial = out / ".fetching"
    files = {}
    with writing(out):
        for path in paths:
            found = repository.file(path, sources["files"]["commit"], partial)
            if found is None:
                raise DataError(f"{_at(sources['files'])} has no file {path}")
            files[path] = _described(found)
        for path in paths:
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (partial / path).rename(out / path)
        _add(out, sources, folder, files)
        shutil.rmtree(partial)
