"""What the code makes of a claim's published records, kept beside them, so that other code cannot judge anew unseen.

A verdict depends on more than what is registered by its text: on the criteria's functions, on how `claims` pools and
compares. Their source may be tidied as long as the numbers stay. So the ledger holds two things: a hash of that source
as it was when the claim was registered, and for each state of the published records a hash of the judgement: every
verdict with the numbers that it rests on, which lie in ``published/judged/<slug>.json``. Lint and verify judge again
and compare. Only code that is registered, or that gives the judgement that registered code gave, may judge new records.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.audit.agreement import ROUNDING, agree
from helpers.base import files
from helpers.base.errors import ClaimError, RecordError
from helpers.cases.case import Case, ExperimentRecords, open_case, stale_records
from helpers.cases.claim import read_claim
from helpers.cases.facts import Facts
from helpers.claims.criteria import Criteria, modules_of
from helpers.claims.evidence import Evidence
from helpers.records import ledger, reading
from helpers.records.steps import plain
from helpers.system import source

ENTRY = "helpers.cases.case"

Judgement = dict[str, Any]
Judge = Callable[[Case], Judgement]


def code_hash(criteria: Criteria) -> str:
    """Hash of the source that judges by ``criteria``: `cases`, `claims` and the functions that they name."""
    modules = modules_of(criteria)
    inside = [module for module in modules if source.module_file(module, files.ROOT / "src")]
    code = source.code_closure(ENTRY, *inside)
    for module in modules:
        if module not in inside:
            text = inspect.getsource(importlib.import_module(module))
            code[module] = files.sha256_bytes(source.essential_source(text).encode())
    return files.sha256_json(code)


def published_case(path: Path, root: Path) -> Case:
    """Open the claim of a page with the published records only: what a fresh clone sees."""
    notebook = read_claim(path, root).experiment
    records = tuple(reading.published(notebook))
    return open_case(path, root, {notebook: ExperimentRecords(records, stale_records(records, root=root))})


def evidence_of(case: Case) -> dict[str, str]:
    """Map the records that a case judges, and those that they used, to the hash of their ``run.json``."""
    waiting = [record for name in case.criteria.questions for record in case.evidence(name).records]
    used: dict[str, str] = {}
    while waiting:
        record = waiting.pop()
        if record.ref not in used:
            used[record.ref] = files.sha256_file(record.path / "run.json")
            for ref in record.inputs.values():
                with contextlib.suppress(RecordError):  # verify names an input that cannot be read
                    waiting.append(reading.load(ref))
    return dict(sorted(used.items()))


def key_of(case: Case) -> str:
    """Hash of what is judged, by which criteria, grid and question, and at which look."""
    grid = files.content_hash(case.root / case.claim.grid) if case.claim.grid else None
    asked = [case.criteria.sha256, grid, case.claim.primary, case.claim.scope, case.looks]
    return files.sha256_json([*asked, evidence_of(case)])


def judge(case: Case) -> Judgement:
    """Return of every question verdict, outcome and its numbers, what allows the claim which confidence, and the
    verdict in every way to analyse the records.

    A number is value, low, high, n and k, by cell and metric.
    """
    judged = {}
    for name, asked in case.criteria.questions.items():
        verdict, evidence = case.verdict(name), case.evidence(name).within(asked.scope)
        judged[name] = {
            "verdict": verdict.fresh,
            "outcome": verdict.outcome,
            "numbers": _numbers(evidence, asked.metrics),
        }
    allowed = {row.name: row.allows for row in case.confidence().rows}
    page = _numbers(case.evidence(), set(case.criteria.metrics))
    return {"questions": judged, "confidence": allowed, "page": page, "challenge": challenged(case)}


def challenged(case: Case) -> dict[str, Any]:
    """Return the verdict on the primary question in each way, and whether the way counts (`cases.challenge`)."""
    found = case.challenge()
    return {one.way: [one.verdict, one.counts] for one in found.outcomes} if found else {}


def _numbers(evidence: Evidence, metrics: set[str]) -> dict[str, dict[str, Any]]:
    facts = Facts(evidence)
    numbers: dict[str, dict[str, Any]] = {}
    for metric in sorted(metrics):
        whole = metric in evidence.derive and evidence.derive[metric].over_scope
        for cell in [evidence.whole] if whole else evidence.inside:
            with contextlib.suppress(ClaimError):  # there is no value, and so none on the page
                fact = facts.fact(metric, **({} if whole else cell.key))
                numbers.setdefault(cell.name, {})[metric] = [fact.value, fact.low, fact.high, fact.n, fact.k]
    return plain(numbers, "a judgement")


@dataclass(frozen=True)
class Judged:
    """The judgement of a claim's published records, beside the one that the ledger holds of the same records.

    ``name`` is the ledger's: the page, and a hash of the records and of what judges them. ``line`` is ``None`` where
    these records were never judged.
    """

    case: Case
    name: str
    line: ledger.Line | None
    judge: Judge

    @property
    def path(self) -> Path:
        """Where the judgement lies."""
        return files.below(files.published_root(), f"judged/{self.case.claim.slug}.json")

    @functools.cached_property
    def now(self) -> Judgement:
        """The judgement by today's code."""
        return self.judge(self.case)

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the file that holds ``now``."""
        return files.sha256_bytes(files.record_text(self.now).encode())

    @functools.cached_property
    def faults(self) -> list[str]:
        """A clause for each thing that differs from the judgement in the ledger."""
        return _faults(self.path, self.line, self.now) if self.line else []

    @property
    def holds(self) -> bool:
        """Whether the same records were judged before, and the same comes out."""
        return self.line is not None and not self.faults


def look(page: Path, root: Path, judge: Judge = judge) -> Judged | None:
    """Return the judgement of a page's published records, made by ``judge`` when asked; ``None`` without records."""
    case = published_case(page, root)
    if not evidence_of(case):
        return None
    name = f"{case.claim.slug}/{key_of(case)[:12]}"
    return Judged(case, name, ledger.read().standing("judgement").get(name), judge)


def _faults(path: Path, line: ledger.Line, now: Judgement) -> list[str]:
    if not path.is_file() or files.sha256_file(path) != line.sha256:
        return [f"{path.parent.name}/{path.name} is not what was judged on {line.at[:10]}"]
    then, here = dict(_leaves(json.loads(path.read_text(encoding="utf-8")))), dict(_leaves(now))
    return [
        f"{' / '.join(place)} is {json.dumps(here.get(place))} and was {json.dumps(then.get(place))} on {line.at[:10]}"
        for place in sorted({*then, *here})
        if not agree(then.get(place), here.get(place), ROUNDING)
    ]


def _leaves(part: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(part, dict):
        for name, inner in part.items():
            yield from _leaves(inner, (*place, name))
    else:
        yield place, part


def enter(judged: Judged, reason: str | None = None) -> dict[str, Any] | None:
    """Write a judgement beside the records and return its event for the ledger, ``None`` where it is there already.

    Raises ``ClaimError`` when the same records were judged differently before and there is no ``reason``.
    """
    if judged.holds:
        return None
    line, event = judged.line, {"kind": "judgement", "name": judged.name, "sha256": judged.sha256}
    if line and line.sha256 != judged.sha256 and not reason:
        raise ClaimError(
            f"The records of {judged.name} are judged differently now ({judged.faults[0]}). Say why with --reason: the "
            "page lists it as a deviation."
        )
    files.write_text(judged.path, files.record_text(judged.now))
    if line is None:
        return {"event": "registered", **event}
    return None if line.sha256 == judged.sha256 else {"event": "amended", **event, "was": line.sha256, "reason": reason}
