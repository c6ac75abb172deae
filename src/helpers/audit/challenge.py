"""Challenge a claim: in which ways to analyse its records does the verdict hold?"""

from __future__ import annotations

from helpers.claims.case import Case


def lines(case: Case) -> list[str]:
    """Return a line for each way and the sentence that sums them up."""
    found = case.challenge()
    if found is None:
        return ["No complete record answers this question yet, so there is nothing to challenge."]
    width = max(len(one.verdict) for one in found.outcomes)
    said = [f"{one.verdict:{width}}  {one.way}{f' ({one.note})' if one.note else ''}" for one in found.outcomes]
    return [*said, found.sentence]
