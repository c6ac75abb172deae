"""Repositories of a model hub. Each is read at one commit, which records name."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.request import getproxies

import httpx2
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from helpers.base.errors import ClaimbookError, DataError, ModelError

ERRORS: dict[str, type[ClaimbookError]] = {"model": ModelError, "dataset": DataError}


@dataclass(frozen=True)
class Snapshot:
    """The files of a repository at ``commit``, fetched into the hub's own cache."""

    folder: Path
    commit: str


def split_revision(name: str) -> tuple[str, str | None]:
    """Split ``owner/name@revision``. The revision (branch, tag or commit) is None if the name has none."""
    repo, _, revision = name.partition("@")
    return repo, revision or None


@functools.lru_cache(maxsize=64)
def snapshot(repo: str, revision: str | None, patterns: tuple[str, ...], kind: Literal["model", "dataset"]) -> Snapshot:
    """Fetch the files that match ``patterns`` at ``revision`` (default: the newest).

    A process fetches a repository once, so everything it reads there is of one commit. Raises ``ModelError`` or
    ``DataError``, by ``kind``, if the hub cannot provide the files, or not through the proxy that is set.
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
            f"{at} is not a local folder, and the hub could not provide it ({type(error).__name__}). Check the name, "
            "the network and your access to it, or give a local copy."
        ) from error
    except (ImportError, ValueError) as error:
        if not getproxies():
            raise
        raise ERRORS[kind](
            f"{at} cannot be fetched through this machine's proxy ({' '.join(str(error).split()).rstrip('.')}). Set "
            "HTTPS_PROXY and ALL_PROXY to a proxy that begins with http://, or give a local copy."
        ) from error
    return Snapshot(Path(folder), Path(folder).name)


def data_file(repo: str, revision: str | None, name: str) -> tuple[Path, str]:
    """Fetch the file ``name`` of a dataset; return its path and its commit."""
    files = snapshot(repo, revision, (name,), "dataset")
    path = files.folder / name
    if not path.is_file():
        raise DataError(
            f"{repo} has no file {name} at {files.commit}. Name a revision that has it, or give a local copy."
        )
    return path, files.commit
