"""Challenge a claim, found by its page or its name: in which ways to analyse its records does the verdict hold?"""

from __future__ import annotations

from pathlib import Path

from helpers.base import files
from helpers.cases.case import Case, open_case
from helpers.cases.drafts import find_page


def find(page_or_claim: str, root: Path | None = None) -> Case:
    """Open the claim of a page (``reports/lr-epochs-band.qmd``) or of that name; ClaimError names the nearest."""
    root = root or files.ROOT
    return open_case(find_page(page_or_claim, root), root)


def lines(case: Case) -> list[str]:
    """Return a line for each way and the sentence that sums them up."""
    found = case.challenge()
    if found is None:
        return ["No complete record answers this question yet, so there is nothing to challenge."]
    width = max(len(one.verdict) for one in found.outcomes)
    said = [f"{one.verdict:{width}}  {one.way}{f' ({one.note})' if one.note else ''}" for one in found.outcomes]
    return [*said, found.sentence]
