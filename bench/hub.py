"""The Hugging Face hub: commits and files of its repositories, and its errors in words.

Whoever needs a token has it where `huggingface_hub` looks for it: it is neither read nor written here, and no code of
a repository is run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from bench.addresses import without_credentials
from bench.errors import DataError, ResourceError
from bench.progress import say

SECONDS = 5
"""How long the hub may take to answer at all."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NOUNS = {"dataset": "data set", "model": "model"}


@dataclass(frozen=True)
class Repository:
    """A repository on the hub: its kind, its id ("owner/name"), and `instead`, what to do if it cannot be fetched, as
    the end of a sentence: "use a local copy"."""

    kind: Literal["dataset", "model"]
    id: str
    instead: str

    def __str__(self) -> str:
        return f"{_NOUNS[self.kind]} {self.id}"

    def commit(self, revision: str | None) -> str:
        """The commit that a revision (a branch, a tag, a commit; the main branch if None) means on the hub; asked once
        in a process, so that everything is of the same. Raises `ResourceError` if the hub cannot be reached or
        refuses, `DataError` for an id that cannot be one."""
        return _commit(self, revision)

    def file(self, name: str, revision: str | None, folder: Path | None = None) -> Path | None:
        """A file, downloaded into `folder` or the hub's cache; None if the repository does not have it. Raises
        `ResourceError`."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        offline_unless_reachable()
        if folder is None and is_offline():
            if (snapshot := self.cached(revision)) is None:
                why = "it is not in the hub's cache; the hub cannot be reached, or HF_HUB_OFFLINE is set"
                raise self.unreachable(OSError(why))
            # The client would not know whether the repository lacks a file or the cache does.
            return snapshot / name if (snapshot / name).is_file() else None
        try:
            return Path(hf_hub_download(self.id, name, repo_type=self.kind, revision=revision, local_dir=folder))
        except LocalEntryNotFoundError as error:
            raise self.unreachable(error) from error
        except EntryNotFoundError:
            return None
        except _refused() as error:
            raise self.unreachable(error) from error

    def cached(self, revision: str | None) -> Path | None:
        """The folder of the hub's cache that holds what was fetched of a revision, all of it or not; None if nothing
        was. Asks nobody."""
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        home = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.id, repo_type=self.kind)
        ref = home / "refs" / (revision or "main")
        try:
            folder = home / "snapshots" / (ref.read_text().strip() if ref.is_file() else revision or "main")
        except OSError:
            return None
        return folder if folder.is_dir() else None

    def files(self, revision: str | None) -> set[str]:
        """The files that the repository has, by their paths in it. Raises `ResourceError`."""
        from huggingface_hub import HfApi

        ask = HfApi().dataset_info if self.kind == "dataset" else HfApi().model_info
        try:
            found = ask(self.id, revision=revision, timeout=SECONDS)
        except _refused() as error:
            raise self.unreachable(error) from error
        return {one.rfilename for one in found.siblings or ()}

    def snapshot(self, revision: str | None, leave_out: Sequence[str] = ()) -> Path:
        """The folder of the hub's cache that holds all files but those of some patterns. Raises `ResourceError`."""
        from huggingface_hub import snapshot_download

        offline_unless_reachable()
        try:
            return Path(
                snapshot_download(
                    self.id, repo_type=self.kind, revision=revision, ignore_patterns=list(leave_out) or None
                )
            )
        except _refused() as error:
            raise self.unreachable(error) from error

    def unreachable(self, error: BaseException) -> ResourceError:
        """The error of a repository that the hub does not give."""
        return ResourceError(
            f"{self} could not be fetched from the Hugging Face hub ({first_line(error)}); check the name, the "
            f"revision and the connection, or {self.instead}"
        )


def offline_unless_reachable() -> None:
    """Where the hub does not answer within `SECONDS`, use what is in its cache alone, in this process and those that it
    starts, and say so: its client would try each file for half a minute. Asked once in a process."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and not _answers(constants.ENDPOINT):
        where = without_credentials(constants.ENDPOINT)
        say(f"the model hub at {where} cannot be reached: only what is in its cache is used")
        constants.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"


def is_offline() -> bool:
    """Whether the hub is not asked in this process: so it was set, or it did not answer."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@cache
def _answers(endpoint: str) -> bool:
    from huggingface_hub import get_session

    # The latter two: a proxy that cannot be used.
    failures: tuple[type[Exception], ...] = (*errors(), ValueError, ImportError)
    try:
        get_session().head(endpoint, timeout=SECONDS)
    except failures:
        return False
    return True


def errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises if the hub cannot be reached or refuses: the base classes of its own error, among
    them that of the HTTP library it uses."""
    from huggingface_hub.errors import HfHubHTTPError

    return (*(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)), OSError)


def _refused() -> tuple[type[Exception], ...]:
    return (*errors(), ValueError)


def first_line(error: BaseException) -> str:
    """An error's message without what follows its first line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@cache
def _commit(repository: Repository, revision: str | None) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        ask = HfApi().dataset_info if repository.kind == "dataset" else HfApi().model_info
        found = ask(repository.id, revision=revision).sha
    except HFValidationError as error:
        raise DataError(
            f"'{repository.id}' is not the id of a {_NOUNS[repository.kind]} on the hub: {first_line(error)}"
        ) from error
    except GatedRepoError as error:
        raise ResourceError(
            f"{repository} is gated: ask for access on its page on the hub, then log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ResourceError(
            f"the hub has no {repository}, or does not show it to you; check the id, and log in with "
            "`hf auth login` if it is private"
        ) from error
    except RevisionNotFoundError as error:
        raise ResourceError(
            f"{repository} has no revision '{revision}'; give a branch, a tag or a commit of it"
        ) from error
    except errors() as error:
        raise repository.unreachable(error) from error
    if not found or not _COMMIT.fullmatch(found):
        raise ResourceError(f"the hub names no commit of {repository} (but {found!r}); try again later")
    return found
