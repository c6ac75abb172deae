"""``claims.json``: what each claim says, how it was judged, what came out, and from which records.

It is computed from pages and records, never typed, and read by `Claims`, whose JSON Schema is ``claims.schema.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from string import Formatter
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from helpers.audit.judgement import evidence_of
from helpers.base import files
from helpers.base.errors import ClaimError, ExportError, nearest
from helpers.cases import summary
from helpers.cases.case import Case
from helpers.cases.claim import Kind, Slug
from helpers.cases.drafts import Draft
from helpers.cases.facts import Fact, Facts
from helpers.claims.confidence import Level
from helpers.claims.verdict import Word
from helpers.records import ledger, reading
from helpers.records.run_record import Count, Number, Place, Ref, Sha
from helpers.records.study import load_study
from helpers.site.graph import CARRIES
from helpers.site.linting.prose import read_page
from helpers.site.linting.sections import caveats
from helpers.site.status import pages_in

SCHEMA = "claimbook/claims/1"
SCHEMA_FILE = Path(__file__).with_name("claims.schema.json")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Measured(_Part):
    """One number with its interval, count and unit, pooled over the records of a cell; ``text`` is how a page says it.

    ``n`` is how many trials or values it rests on, ``k`` how many of them succeeded. An interval that the records do
    not give is null.
    """

    metric: str
    cell: str
    unit: str
    value: Number
    low: Number | None
    high: Number | None
    n: Count | None
    k: Count | None
    text: str


class Effect(_Part):
    """The answer with its size: the sentence of the page, and the numbers in it by their names."""

    sentence: str
    numbers: dict[str, Measured]


class Check(_Part):
    """One line of the checklist that caps the confidence."""

    name: str
    found: str
    allows: Level


class Confidence(_Part):
    """``stated`` is the lower of what the author ``declared`` and the ``cap`` that the evidence allows."""

    stated: Level
    declared: Level | None
    cap: Level
    binding: str
    checklist: list[Check]


class CriteriaUsed(_Part):
    """The criteria file; ``registered`` is when it got the content that it has (null: never registered as it is)."""

    path: Place
    sha256: Sha
    registered: str | None


class Answer(_Part):
    """The verdict on one question of the criteria file."""

    question: str
    verdict: Word
    outcome: str | None


class Model(_Part):
    """A base model by name and content."""

    name: str
    sha256: Sha


class Needed(_Part):
    """Another claim that this one rests on."""

    claim: str
    relation: Kind


class Requires(_Part):
    """What the claim rests on: a study at a version, base models, data files with hashes, and other claims."""

    study: str
    version: int
    models: list[Model]
    data: dict[str, Sha]
    claims: list[Needed]


class ClaimStated(_Part):
    """One claim. ``verdict`` is the page's; ``fresh`` holds for the records as they are, where those are stale.

    ``records`` maps each record, and each that it used, to the hash of its ``run.json``, which holds the hashes of its
    files. ``does_not_claim`` lists what nobody may read into it: seeds, sizes and settings that were not tried, and the
    caveats of the page. ``remake`` are the commands that make records and page again.
    """

    id: Slug
    page: str
    statement: str
    question: str
    verdict: Word
    fresh: Word
    outcome: str | None
    reading: str
    stale: list[str]
    confidence: Confidence
    effect: Effect | None
    numbers: list[Measured]
    answers: dict[str, Answer]
    primary: str
    criteria: CriteriaUsed
    requires: Requires
    does_not_claim: list[str]
    remake: list[str]
    records: dict[Ref, Sha]


class Claims(_Part):
    """The content of ``claims.json``; ``ledger`` is the hash of the ledger's last line."""

    schema_: Literal["claimbook/claims/1"] = Field(alias="schema")
    claimbook: str
    ledger: Sha | None
    claims: list[ClaimStated]

    def text(self) -> str:
        """Return the file's text."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False) + "\n"


def json_schema() -> str:
    """Return the JSON Schema of ``claims.json`` as ``claims.schema.json`` holds it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Claims.model_json_schema(by_alias=True)
    return json.dumps(schema, indent=1) + "\n"


def chosen(names: Sequence[str], root: Path) -> tuple[list[Case], list[Draft]]:
    """Return the claims of the pages ``names`` (by page, slug or id; default: all) and the pages that are drafts.

    Raises ``ExportError`` where one of ``names`` is no page with a claim, or a draft.
    """
    pages = pages_in(root / "reports", root)
    known: dict[str, Case | Draft] = {page.path.stem: page for page in pages}
    known |= {page.claim.id: page for page in pages if page.claim is not None}
    wanted = list(dict.fromkeys(Path(name).name.removesuffix(".qmd") for name in names))
    for name in wanted:
        page = known.get(name)
        if page is None:
            raise ExportError(f"There is no page of a claim {name!r}{nearest(name, known)}")
        if isinstance(page, Draft):
            raise ExportError(f"{page.name} is a draft: {page.why}")
    some = [known[name] for name in wanted] if wanted else pages
    return [one for one in some if isinstance(one, Case)], [one for one in some if isinstance(one, Draft)]


def claims_of(cases: Sequence[Case]) -> Claims:
    """Return the content of ``claims.json`` for some claims."""
    stated = [stated_by(case) for case in cases]
    return Claims(schema=SCHEMA, claimbook=version("claimbook"), ledger=ledger.read().head, claims=stated)


def stated_by(case: Case) -> ClaimStated:
    """Return one claim as ``claims.json`` holds it."""
    claim, verdict, sure = case.claim, case.verdict(), case.confidence()
    checklist = [Check(name=row.name, found=row.found, allows=row.allows) for row in sure.rows]
    return ClaimStated(
        id=claim.id,
        page=f"reports/{claim.slug}.html",
        statement=claim.statement,
        question=claim.question,
        verdict=verdict.word,
        fresh=verdict.fresh,
        outcome=verdict.outcome,
        reading=verdict.brief,
        stale=sorted({part for why in verdict.stale.values() for part in why}),
        confidence=Confidence(
            stated=sure.stated, declared=sure.declared, cap=sure.cap, binding=sure.binding, checklist=checklist
        ),
        effect=_effect(case),
        numbers=list(_numbers(case)),
        answers={name: _answer(case, name) for name in case.criteria.questions},
        primary=claim.primary,
        criteria=CriteriaUsed(path=claim.criteria, sha256=case.criteria.sha256, registered=_registered(case)),
        requires=_requires(case),
        does_not_claim=[*summary.does_not_claim(case), *summary.unmet(case), *caveats(read_page(case.path))],
        remake=summary.remade_by(case),
        records=evidence_of(case),
    )


def _effect(case: Case) -> Effect | None:
    declared = case.claim.effect
    if declared is None or not case.evidence().records:
        return None
    facts = {name: case.fact(one.metric, **one.cell) for name, one in declared.numbers.items()}
    pieces = Formatter().parse(declared.sentence)
    said = "".join(before + (facts[name].brief if name else "") for before, name, _, _ in pieces)
    numbers = {name: _measured(fact, declared.numbers[name].label) for name, fact in facts.items()}
    return Effect(sentence=said, numbers=numbers)


def _measured(fact: Fact, cell: str) -> Measured:
    return Measured(
        metric=fact.name, cell=cell, unit=fact.unit, value=fact.value, low=fact.low, high=fact.high, n=fact.n, k=fact.k,
        text=fact.text,
    )  # fmt: skip


def _numbers(case: Case) -> Iterator[Measured]:
    """Yield what the primary question compares, by metric and cell; a cell without a value gives none."""
    asked = case.criteria.question(case.claim.primary)
    evidence = case.evidence().within(asked.scope)
    facts = Facts(evidence)
    for metric in sorted(asked.metrics):
        whole = metric in evidence.derive and evidence.derive[metric].over_scope
        for cell in [evidence.whole] if whole else evidence.inside:
            try:
                fact = facts.fact(metric, **({} if whole else cell.key))
            except ClaimError:
                continue
            yield _measured(fact, cell.name)


def _answer(case: Case, name: str) -> Answer:
    verdict = case.verdict(name)
    return Answer(question=case.criteria.question(name).question, verdict=verdict.word, outcome=verdict.outcome)


def _registered(case: Case) -> str | None:
    line = ledger.read().standing("criteria").get(case.claim.criteria)
    return line.at if line and line.sha256 == files.content_hash(case.criteria.path) else None


def _requires(case: Case) -> Requires:
    study = case.study or load_study(case.claim.experiment, case.root)
    records = [reading.load(ref) for ref in evidence_of(case)]
    models = sorted({(record.model["name"], record.model["sha256"]) for record in records})
    data = {name: sha for record in records for name, sha in record.data.items()}
    return Requires(
        study=study.name,
        version=study.version,
        models=[Model(name=name, sha256=sha) for name, sha in models],
        data=dict(sorted(data.items())),
        claims=[Needed(claim=one.target, relation=one.kind) for one in case.claim.relations if one.kind in CARRIES],
    )
