"""Looks at growing data: a claim is judged anew when its published records grow, and each time may decide by chance.

A look is a line in the ledger (``looked``), written by ``claimbook publish``. A cell of a declared grid is judged once,
when its last declared run is there, in whatever order cells are published. So a page whose grid is declared is looked
at again only when the grid was amended since; any other page whenever its records are others than at its last look.
`Criteria.looks` says how many looks were planned, `estimands.look_level` at which level each is judged.
"""

from __future__ import annotations

from pathlib import Path

from helpers.audit.judgement import published_case
from helpers.base import files
from helpers.base.errors import ClaimbookError
from helpers.cases.claim import Claim, has_claim, read_claim
from helpers.records import ledger


def enter(notebook: str, root: Path | None = None) -> list[ledger.Line]:
    """Write a look for every page on ``notebook`` whose published records grew; return the lines."""
    root = root or files.ROOT
    book, events = ledger.read(), []
    for path in sorted((root / "reports").glob("*.qmd")):
        try:
            claim = read_claim(path, root) if has_claim(path) else None
            if claim is None or claim.experiment != notebook or claim.status == "proposed":
                continue
            inside = published_case(path, root).evidence().inside
        except ClaimbookError:
            if f"reports/{path.name}" in book.standing("question"):
                raise  # its look would not be counted
            continue  # a draft
        records = [record for cell in inside if not cell.absent for record in cell.records]
        name, sha = f"reports/{path.name}", files.sha256_json(sorted(record.ref for record in records))
        looks = [line for line in book.of("question", name) if line.event == "looked"]
        if records and (not looks or (looks[-1].sha256 != sha and _may_grow(claim, looks[-1], book))):
            note = f"look {len(looks) + 1} of {claim.id}, over {len(records)} records"
            events.append({"event": "looked", "kind": "question", "name": name, "sha256": sha, "note": note})
    return list(ledger.append(events).lines[-len(events) :]) if events else []


def _may_grow(claim: Claim, last: ledger.Line, book: ledger.Ledger) -> bool:
    """Whether cells that were complete at the ``last`` look can have got more records since."""
    since = book.lines[book.lines.index(last) :]
    return claim.grid is None or any((line.kind, line.name) == ("grid", claim.grid) for line in since)
