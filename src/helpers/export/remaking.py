"""The commands that make the records of a claim and its page again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from helpers.claims.case import Case
from helpers.records.study import load_study

IMPORTED = "imported"


def commands(case: Case) -> list[str]:
    """Return what makes the records of a claim and its page again, each a command of the repository's root."""
    claim = case.claim
    study = case.study or load_study(claim.experiment, case.root)
    if study.name == IMPORTED:
        made = [imported(record.params, record.notebook) for record in case.evidence().records]
    elif claim.grid:
        made = [f"claimbook sweep {claim.grid}"]
    else:
        made = [f"papermill notebooks/{claim.experiment}.ipynb out.ipynb"]
    return [*dict.fromkeys(made), f"claimbook site {claim.slug}"]


def imported(params: Mapping[str, Any], notebook: str) -> str:
    """Return the command that imports a log again."""
    words = ["claimbook", "import", params["tool"], params["file"], "--name", notebook, "--label", params["label"]]
    words += ["--map", ",".join(params["columns"])] if params.get("columns") else []
    words += ["--cluster", params["cluster"]] if params.get("cluster") else []
    return shlex.join(words)
