"""The ledger across branches and commits: join two that grew apart, and ask git whether it only ever grew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.base import files
from helpers.base.errors import RecordError
from helpers.records import ledger
from helpers.system import provenance


def merge(ours: str, theirs: str) -> str:
    """Return the text of a ledger that holds the lines of both, which share their beginning and then grew apart."""
    one, other = ledger.read(ours), ledger.read(theirs)
    shared = 0
    while shared < min(len(one.hashes), len(other.hashes)) and one.hashes[shared] == other.hashes[shared]:
        shared += 1
    if shared == 0 and one.hashes and other.hashes:
        raise RecordError("The two ledgers have no line in common, so they are not of one repository.")
    if shared == len(other.hashes):
        return ours
    if shared == len(one.hashes):
        return theirs
    apart = [row for row, sha in zip(theirs.split("\n"), other.hashes, strict=False) if sha not in set(one.hashes)]
    text = ours + "".join(f"{row}\n" for row in apart)
    line = ledger.Line(
        event="merged", at=max(ledger.now(), one.lines[-1].at, other.lines[-1].at), kind="ledger", name="ledger.jsonl",
        sha256=files.sha256_bytes(text.encode()), before=[one.hashes[-1], other.hashes[-1]],
    )  # fmt: skip
    joined = f"{text}{ledger.as_row(line)}\n"
    ledger.read(joined)
    return joined


def join(theirs: str | None = None) -> int:
    """Join the ledger with the file or git revision ``theirs``, or the two sides of a conflict; return its length."""
    name = _name()
    if theirs is None:
        ours, other = (_git(files.ROOT, "show", f":{stage}:{name}") for stage in (2, 3))
        if ours is None or other is None:
            raise RecordError("The ledger is in no merge conflict. Name a file or a revision to join it with.")
    elif Path(theirs).is_file():
        ours, other = ledger.path().read_text(encoding="utf-8"), Path(theirs).read_text(encoding="utf-8")
    else:
        ours, other = ledger.path().read_text(encoding="utf-8"), _git(files.ROOT, "show", f"{theirs}:{name}")
        if other is None:
            raise RecordError(f"{theirs!r} is neither a file nor a revision that has a ledger. Check the name.")
    text = merge(ours, other)
    files.write_text(ledger.path(), text)
    return len(ledger.read(text).lines)


CHANGED = "lines of the ledger were changed, removed or put between others in {}: it may only grow at its end"


@dataclass(frozen=True)
class History:
    """Whether git could check the ledger's past, and what it shows to be wrong."""

    checked: bool
    finding: str | None = None

    @property
    def caveat(self) -> str:
        """A sentence for whoever may take "no findings" to cover the past as well."""
        return "" if self.checked else " The ledger's history was not checked: git has no full history of it here."


def history() -> History:
    """Ask git whether the ledger only ever grew, in every commit and since the last one."""
    target, root, name = ledger.path(), files.ROOT, _name()
    if not target.is_file():
        return History(True)
    # The repository of the checkout and no other: one around an unpacked archive knows nothing of the ledger.
    shallow = _git(root, "rev-parse", "--is-shallow-repository")
    if shallow is None or shallow.strip() != "false" or name.startswith("../"):
        return History(False)
    texts: dict[str, str] = {}

    def text(commit: str) -> str:
        if commit not in texts:
            texts[commit] = _git(root, "show", f"{commit}:{name}") or ""
        return texts[commit]

    commits = (_git(root, "rev-list", "--full-history", "--parents", "HEAD", "--", name) or "").splitlines()
    for commit, *parents in map(str.split, commits):
        if parents and not _grew([text(parent) for parent in parents], text(commit)):
            return History(True, CHANGED.format(f"commit {commit[:7]}"))
    if not commits:
        return History(False)
    grew = _grew([text("HEAD")], target.read_text(encoding="utf-8"))
    return History(True, None if grew else CHANGED.format("the working tree"))


def changed_tables(book: ledger.Ledger) -> Iterator[tuple[str, str, str]]:
    """Yield reference, file and commit of each published table that git saw change, but for records withdrawn since."""
    root, name = files.ROOT, _name()
    first = (_git(root, "log", "--format=%H", "--diff-filter=A", "--", name) or "").split()
    withdrawn = {line.name for line in book.lines if line.event == "withdrawn"}
    if not first:
        return
    home = name.rpartition("/")[0]
    asked = ("--format=@%h", "--no-renames", "--diff-filter=M", "--name-only", "-m", f"{first[-1]}..HEAD")
    said = _git(root, "log", *asked, "--", f":(glob){home}/*/*/*.parquet", f":(glob){home}/*/*/*.json") or ""
    commit = ""
    for row in said.splitlines():
        commit = row[1:] if row.startswith("@") else commit
        ref, _, file = row.removeprefix(f"{home}/").rpartition("/")
        if not row.startswith("@") and file and file != "run.json" and ref not in withdrawn:
            yield ref, file, commit


def _grew(before: list[str], after: str) -> bool:
    """Whether ``after`` goes on from one of the texts before it, and holds every line of the others."""
    lines = set(after.splitlines())
    return any(map(after.startswith, before)) and all(lines.issuperset(text.splitlines()) for text in before)


def _name() -> str:
    """Return what git calls the ledger."""
    return Path(os.path.relpath(ledger.path().resolve(), files.ROOT.resolve())).as_posix()


def _git(root: Path, *arguments: str) -> str | None:
    done = provenance.git(*arguments, root=root)
    return None if done is None else done.decode()
