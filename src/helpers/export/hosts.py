"""Put a bundle where others can open it: a static Space of Hugging Face, or the GitHub Pages of this repository."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from helpers.base import files
from helpers.base.errors import ExportError
from helpers.export import places
from helpers.lm.foreign import foreign_errors

SPACE = re.compile(r"hf:([\w.-]{1,96}/[\w.-]{1,96})")
BRANCH = "gh-pages"


@dataclass(frozen=True)
class Space:
    """A Space of Hugging Face, ``owner/name``."""

    name: str

    def upload(self, folder: Path) -> str:
        """Make the Space where there is none, make its files those of ``folder``, and return its address."""
        from huggingface_hub import HfApi

        hub = HfApi()
        with foreign_errors(
            f"The Space {self.name} could not be written", "Log in with `hf auth login`, and try again"
        ):
            hub.create_repo(self.name, repo_type="space", space_sdk="static", exist_ok=True)
            there = hub.list_repo_files(self.name, repo_type="space")
            if places.MARK not in there and not set(there) <= {
                ".gitattributes",
                "README.md",
                "index.html",
                "style.css",
            }:
                raise ExportError(f"The Space {self.name} holds files that this command did not make. Name another.")
            hub.upload_folder(
                repo_id=self.name, repo_type="space", folder_path=folder, delete_patterns="*",
                commit_message="claimbook export bundle",
            )  # fmt: skip
        return f"https://huggingface.co/spaces/{self.name}"


@dataclass(frozen=True)
class Pages:
    """The branch ``gh-pages`` of the repository that ``origin`` names."""

    root: Path

    def upload(self, folder: Path) -> str:
        """Push ``folder`` as the only commit of the branch, and return where it was pushed."""
        remote = _git(self.root, "remote", "get-url", "origin").strip()
        if _git(self.root, "ls-remote", "--heads", remote, BRANCH).strip():
            _git(self.root, "fetch", "--quiet", "--depth=1", remote, BRANCH)
            if places.MARK not in _git(self.root, "ls-tree", "--name-only", "FETCH_HEAD").split("\n"):
                raise ExportError(f"The branch {BRANCH} holds files that this command did not make. Delete it first.")
        with tempfile.TemporaryDirectory(prefix="claimbook-pages-") as home:
            _git(Path(home), "init", "--quiet", "--initial-branch", BRANCH)
            work = ("--work-tree", str(folder.resolve()))
            _git(Path(home), *work, "add", "--all", "--force")
            who = [part for key in ("user.name", "user.email") for part in ("-c", f"{key}={_own(self.root, key)}")]
            _git(Path(home), *who, *work, "commit", "--quiet", "-m", "claimbook export bundle")
            _git(Path(home), "push", "--quiet", "--force", remote, BRANCH)
        return f"the branch {BRANCH} of origin. Choose it under Settings, Pages, once."


def parse(to: str) -> Space | Pages:
    """Return the host that ``--to`` names."""
    if to == "pages":
        return Pages(files.ROOT)
    if named := SPACE.fullmatch(to):
        return Space(named[1])
    raise ExportError(f"--to {files.shown(to)} is neither hf:OWNER/SPACE nor pages.")


def _own(root: Path, key: str) -> str:
    return _git(root, "config", "--get", key).strip()


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[:200] or f"it ended with {done.returncode}"
        raise ExportError(f"git {' '.join(arguments[:2])} failed ({said}). Check the repository and the network.")
    return done.stdout
