"""What a reader of a claim alone must be told beside its verdict: what it does not say, and how it is made again.

`claimbook read` and the exports say it in the same words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from helpers.cases.case import Case
from helpers.records.study import load_study

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


def unmet(case: Case) -> list[str]:
    """Return the lines of the checklist that cap the confidence, a sentence each; none where nothing was judged."""
    sure = case.confidence()
    rows = [] if sure.without_records else [row for row in sure.rows if not row.ticked]
    return [f"{row.name}: {row.found.rstrip('.')}; {row.why}." for row in rows]


def remade_by(case: Case) -> list[str]:
    """Return the commands that make the records again, and then the page.

    What was imported, or was a command of its own, has no notebook and no replay: it is made as it was.
    """
    claim, study = case.claim, case.study or load_study(case.claim.experiment, case.root)
    notebook = f"notebooks/{claim.experiment}.ipynb"
    if study.replay is None and not (case.root / notebook).is_file():
        made = [record.launch for record in case.evidence().records]
    else:
        made = [f"claimbook sweep {claim.grid}" if claim.grid else f"papermill {notebook} out.ipynb"]
    return [*dict.fromkeys(made), f"claimbook site {claim.slug}"]
