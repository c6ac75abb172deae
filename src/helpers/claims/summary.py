"""What a reader of a claim alone must be told beside its verdict: what it does not say, and how it is made again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from helpers.claims.case import Case

OPEN = {
    "NOT RUN": "It says nothing yet: no complete record answers its question.",
    "UNDECIDED": "It says neither that the statement holds nor that it does not.",
    "MIXED": "It does not say that the statement holds throughout.",
    "STALE": "It says nothing of the code, data and models as they are now: they have changed since its runs.",
}


def does_not_claim(case: Case) -> list[str]:
    """Return what does not follow from the verdict, a sentence each, from the records and the scope of its question."""
    return list(_beyond(case))


def _beyond(case: Case) -> Iterator[str]:
    verdict, asked = case.verdict(), case.criteria.question(case.claim.primary)
    yield from filter(None, [OPEN.get(verdict.word)])
    records = [record for record in case.evidence(case.claim.primary).records if record.id in verdict.records]
    if not records:
        return
    if verdict.decisive and not verdict.carries_over:
        yield "It does not say that models trained with new seeds would agree."
    if scope := {**case.claim.scope, **asked.scope}:
        yield f"It is judged where {_spoken(scope)}, and says nothing of any other value."
    models = sorted({str(record.model["name"]) for record in records if record.model})
    if len(models) == 1:
        yield f"It is about {models[0]} alone, and not about other models."
    elif models:
        yield f"It is about {', '.join(models)}, and not about other models."
    if case.study is not None and case.study.replay is None:
        yield "It does not say that its runs would come out the same: no command here can run them again."


def _spoken(scope: Mapping[str, Any]) -> str:
    parts = (
        f"{axis} is {' or '.join(map(str, value)) if isinstance(value, list) else value}"
        for axis, value in scope.items()
    )
    return " and ".join(parts)


def remade_by(case: Case) -> list[str]:
    """Return the commands that make the records again, and then the page."""
    page = f"claimbook site {case.claim.slug}"
    if case.claim.grid and (case.root / "notebooks" / f"{case.claim.experiment}.ipynb").is_file():
        return [f"claimbook sweep {case.claim.grid}", page]
    return [*dict.fromkeys(record.launch for record in case.evidence().records), page]
