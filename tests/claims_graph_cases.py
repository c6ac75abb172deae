"""Claims of a toy project for the tests of graph, overview and log: each a page, criteria and records in memory."""

from __future__ import annotations

from pathlib import Path

from claims_records import FIXTURES, rate, record

from helpers.cases.case import Case
from helpers.cases.claim import Claim
from helpers.claims.criteria import read_criteria
from helpers.claims.evidence import Expected

CRITERIA = read_criteria(FIXTURES / "sweep.yaml")
RATES = {"SUPPORTED": (190, 0), "REFUTED": (190, 190), "UNDECIDED": (102, 0), "NOT RUN": None, "STALE": (190, 0)}


def case(name: str, verdict: str, *relations: dict, statement: str = "") -> Case:
    """A claim whose records give ``verdict``."""
    counts = RATES[verdict]
    cell = {"tail": "newline", "lr": 1e-4, "seed": 0, "source": "villain"}
    metrics = (
        {name: rate(k, 200) for name, k in zip(("source_rate", "max_bystander_rate"), counts, strict=True)}
        if counts
        else {}
    )
    found = [record(cell, metrics, name=f"{name}-run")] if counts else []
    claim = Claim(
        id=name, slug=name, statement=statement or f"The claim called {name} holds.", question="Does it?",
        experiment="toy", criteria="c.yaml", primary="band", declared_confidence="LOW", status="published",
        relations=list(relations),
    )  # fmt: skip
    stale = {one.id: ["code"] for one in found} if verdict == "STALE" else {}
    expected = (Expected(cell),)
    return Case(Path("reports") / f"{name}.qmd", claim, CRITERIA, tuple(found), expected, stale)
