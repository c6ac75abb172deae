"""Records that were made before their code was committed: does a commit hold the same code since?

A record names the files that its run reached, each with a hash of what in it can change a result (`source`). A commit
that holds every one of them with that hash holds the code that ran, whatever else was uncommitted then.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping

from helpers.base import files
from helpers.records.reading import Record
from helpers.system import source
from helpers.system.provenance import git

HOMES = ("src/", "notebooks/", "")
"""Where in the repository a module may lie: that of helpers, of a notebook, of any study."""
SINCE = "committed since: same code"
NEVER = "of code that no commit has"


def before_commit(record: Record) -> bool:
    """Whether a record was made from a tree with uncommitted changes, or from one without any commit."""
    made = record.provenance
    return not made.get("commit") or made.get("dirty") is not False


def committed_since(record: Record, head: str) -> str | None:
    """Return the first commit, from the record's own on to ``head``, with the code of a record `before_commit`."""
    code = tuple(sorted(record.code["files"].items()))
    return _first(code, record.provenance.get("commit"), head) if head and before_commit(record) else None


def state(record: Record, head: str) -> str:
    """Return what a reader must know of the commit of a record; nothing where its tree was clean, or without git.

    ``head`` is `head_now`, which is asked for once for all records: it starts a process.
    """
    if not before_commit(record) or not head:
        return ""
    commit = committed_since(record, head)
    return f"{SINCE} ({commit[:7]})" if commit else NEVER


def sentence(records: Iterable[Record]) -> str:
    """Say how many of some records were made before a commit, and which commits hold their code since."""
    head = head_now()
    states = [said for record in records if (said := state(record, head))]
    if not states:
        return ""
    made = "1 record was" if len(states) == 1 else f"{len(states)} records were"
    counts = "; ".join(f"{count} {said}" for said, count in Counter(states).items())
    return f"{made} made with uncommitted changes: {counts}."


def head_now() -> str:
    """Return the commit that is checked out; nothing where there is none."""
    return (git("rev-parse", "--verify", "--quiet", "HEAD") or b"").decode().strip()


@functools.lru_cache(maxsize=256)
def _first(code: tuple[tuple[str, str], ...], since: str | None, head: str) -> str | None:
    """Return the first of the commits from ``since`` to ``head`` that holds ``code`` (file and hash)."""
    later = git("rev-list", "--reverse", f"{since}..{head}", "--", "*.py") if since else None
    listed = git("rev-list", "--reverse", head, "--", "*.py") if later is None else later
    commits = [*([since] if since and later is not None else []), *(listed or b"").decode().split()]
    return next((commit for commit in commits if _holds(_blobs(commit), code)), None)


def _holds(blobs: Mapping[str, str], code: Iterable[tuple[str, str]]) -> bool:
    """Whether a tree (path to blob) has every file of ``code`` with its hash."""
    return all(
        any(_essential(blobs[f"{home}{name}"]) == sha for home in HOMES if f"{home}{name}" in blobs)
        for name, sha in code
    )


@functools.lru_cache(maxsize=64)
def _blobs(commit: str) -> dict[str, str]:
    listed = (git("ls-tree", "-r", "-z", commit) or b"").decode(errors="replace").split("\0")
    entries = (line.partition("\t") for line in listed if line.endswith(".py"))
    return {path: about.split()[2] for about, _, path in entries}


@functools.lru_cache(maxsize=4096)
def _essential(blob: str) -> str | None:
    """Hash a file of a commit as `source` hashes one on disk; None where it is no Python."""
    text = (git("cat-file", "blob", blob) or b"").decode(errors="replace").replace("\r\n", "\n")
    try:
        return files.sha256_bytes(source.essential_source(text).encode())
    except SyntaxError:
        return None
