"""Repositories of a model hub, always read as of one commit, which records name."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx2
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from helpers.base.errors import ClaimbookError, DataError, ModelError

ERRORS: dict[str, type[ClaimbookError]] = {"model": ModelError, "dataset": DataError}


@dataclass(frozen=True)
class Snapshot:
    """The fetched files of a repository as of ``commit``, in the hub's own cache."""

    folder: Path
    commit: str


def split_revision(name: str) -> tuple[str, str | None]:
    """Split ``owner/name@revision``; the revision (branch, tag or commit) is None where none is asked for."""
    repo, _, revision = name.partition("@")
    return repo, revision or None


@functools.lru_cache(maxsize=64)
def snapshot(repo: str, revision: str | None, patterns: tuple[str, ...], kind: Literal["model", "dataset"]) -> Snapshot:
    """Fetch the files that match ``patterns`` at ``revision``, by default the newest; once a process, so that all that
    it reads of a repository is of one commit.

    Raises ``ModelError`` or ``DataError``, by ``kind``, when the hub cannot give them.
    """
    at = f"{repo} at revision {revision}" if revision else repo
    try:
        # Patterns match across folders, and files in subfolders are copies in other formats unless they are asked for.
        deeper = None if any("/" in pattern for pattern in patterns) else ["*/*"]
        folder = snapshot_download(
            repo, repo_type=kind, revision=revision, allow_patterns=list(patterns), ignore_patterns=deeper
        )
    except (OSError, HFValidationError, httpx2.HTTPError) as error:  # the hub's own errors are OSErrors
        raise ERRORS[kind](
            f"{at} is neither a folder here nor to be had from the hub ({type(error).__name__}): check the name, the "
            "network and your access to it, or give a local copy."
        ) from error
    return Snapshot(Path(folder), Path(folder).name)


def data_file(repo: str, revision: str | None, name: str) -> tuple[Path, str]:
    """Fetch the file ``name`` of a dataset; return its path and the commit that it was read at."""
    found = snapshot(repo, revision, (name,), "dataset")
    path = found.folder / name
    if not path.is_file():
        raise DataError(f"{repo} has no file {name} at {found.commit}: name a revision that has, or give a local copy.")
    return path, found.commit
