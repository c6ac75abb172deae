"""When a question was written down: before the runs that answer it (confirmatory) or after (exploratory).

The ledger says it where it names the criteria file, as it stands, before the first run. Git says it where a commit
older than the first run holds the question with the same scope, outcomes and regimes. Nothing else counts.
"""

from __future__ import annotations

import functools
import json
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

from helpers.base import files, yaml_text
from helpers.base.errors import ClaimError
from helpers.cases.case import Case
from helpers.records import ledger

CONFIRMATORY, EXPLORATORY, NOT_RUN = "confirmatory", "exploratory", "before any run"


def when_asked(case: Case, question: str) -> str:
    """Return whether ``question`` was written down before the first of the runs that answer it."""
    started = [datetime.fromisoformat(record.started) for record in case.evidence(question).records if record.started]
    if not started:
        return NOT_RUN
    path, began = case.criteria.path, min(started)
    name = path.relative_to(case.root).as_posix() if path.is_relative_to(case.root) else path.as_posix()
    content = files.content_hash(path)
    entered = [
        line for line in ledger.read().lines if (line.kind, line.name, line.sha256) == ("criteria", name, content)
    ]
    if any(datetime.fromisoformat(line.at) < began for line in entered):
        return CONFIRMATORY
    asked = questions_of(files.read_text(path)).get(question)
    dates = [
        at for at, text in history(case.root, name) if asked is not None and questions_of(text).get(question) == asked
    ]
    return CONFIRMATORY if any(at < began for at in dates) else EXPLORATORY


@functools.lru_cache(maxsize=256)
def questions_of(text: str) -> dict[str, str]:
    """Map each question of a criteria file to what its verdict depends on, as text that can be compared."""
    try:
        content = yaml_text.read(text, Path("criteria.yaml"), ClaimError)
    except ClaimError:
        return {}  # an old commit may hold a file that nobody could read
    regimes = {name: one.get("when") for name, one in (content.get("regimes") or {}).items()}
    return {
        name: json.dumps([_judged(question), regimes], sort_keys=True)
        for name, question in (content.get("questions") or {}).items()
    }


def _judged(question: dict[str, Any]) -> list[Any]:
    outcomes = [[one.get("verdict"), one.get("when")] for one in question.get("outcomes") or []]
    rest = {key: value for key, value in question.items() if key not in ("question", "note", "outcomes")}
    return [rest, outcomes]


@functools.lru_cache(maxsize=64)
def history(root: Path, name: str) -> tuple[tuple[datetime, str], ...]:
    """Return every committed text of a file with the date of its commit; none where there is no git history."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else ""

    commits = [line.split("\t") for line in git("log", "--format=%H%x09%cI", "--", name).splitlines()]
    return tuple((datetime.fromisoformat(at), git("show", f"{commit}:./{name}")) for commit, at in commits)
