from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest
from claims_records import FIXTURES, rate, record
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.base.errors import ClaimError
from helpers.base.files import ROOT, content_hash
from helpers.cases.challenge import Challenge, Outcome, row_of
from helpers.claims.confidence import LEVELS, RULES, Rule, confidence
from helpers.claims.criteria import read_criteria
from helpers.claims.evidence import Expected, gather
from helpers.claims.verdict import check_controls, judge
from helpers.records import ledger

pytestmark = pytest.mark.unit
CRITERIA = read_criteria(FIXTURES / "sweep.yaml")
MODELS = ({"name": "a", "sha256": "a", "parameters": 2e9}, {"name": "b", "sha256": "b", "parameters": 2e9})

HOLDS = Challenge("SUPPORTED", (Outcome("seed", "seed 0 is left out", "SUPPORTED", counts=True, holds=True),))


def runs(seeds=5, sources=("x", "y", "z"), models=MODELS, **changes):
    found = []
    for model in models:
        for source in sources:
            for seed in range(seeds):
                metrics = {
                    "source_rate": rate(150, 200), "max_bystander_rate": rate(0, 200),
                    "control_rate": rate(0, 200), "truncation_rate": rate(2, 200),
                }  # fmt: skip
                cell = {"tail": "newline", "model": model["name"], "source": source, "seed": seed}
                content = {"criteria": {"path": "c", "sha256": CRITERIA.sha256}, "model": model} | changes
                found.append(record(cell, metrics | content.pop("add", {}), name=f"{cell}", **content))
    return found


def cap(records, expected=None, declared=None, stale=None, scope=None, looks=1, challenged=HOLDS):
    expected = [Expected(one.params) for one in records] if expected is None else expected
    evidence = gather(records, expected).within({"tail": "newline"} | (scope or {}))
    asked = CRITERIA.question("band").model_copy(update={"scope": {}})
    verdict = judge(asked, evidence, stale, controls=check_controls(CRITERIA, "band", evidence))
    return confidence(verdict, evidence, CRITERIA, declared, looks=looks, challenged=row_of(challenged))


def row(found, name):
    return next(one for one in found.rows if one.name == name)


def test_full_evidence_allows_high():
    found = cap(runs(seeds=14))
    assert [one.name for one in found.rows if not one.ticked] == []
    assert (found.cap, found.stated) == ("HIGH", "HIGH")
    assert found.binding.startswith("Nothing")


@pytest.mark.parametrize(
    ("records", "name", "allows"),
    [
        (runs(seeds=1), "seeds", "LOW"), (runs(seeds=3), "seeds", "MODERATE"),
        (runs(sources=("x",)), "sources", "LOW"), (runs(sources=("x", "y")), "sources", "MODERATE"),
        (runs(models=MODELS[:1]), "base models", "MODERATE"),
        (runs(criteria=None), "criteria frozen", "LOW"),
        (runs(14, add={"truncation_rate": rate(14, 200)}), "truncation", "MODERATE"),
        (runs(add={"truncation_rate": rate(90, 200)}), "truncation", "LOW"),
        (runs(14, provenance={"commit": "c", "dirty": True, "diff_sha256": "d"}), "clean tree", "MODERATE"),
        (runs(provenance={"commit": None, "dirty": None, "diff_sha256": None}), "clean tree", "LOW"),
        (runs(models=tuple(one | {"parameters": 382_000} for one in MODELS)), "model size", "LOW"),
        (runs(add={"source_rate": rate(100, 200)}), "decisive intervals", "LOW"),
        (runs(add={"control_rate": rate(100, 200)}), "controls", "LOW"),
        (runs(add={"control_rate": rate(9, 200)}), "controls", "LOW"),
    ],
)  # fmt: skip
def test_each_line_holds_the_cap_down(records, name, allows):
    found = cap(records)
    assert row(found, name).allows == allows == found.cap
    assert found.binding.startswith(f"{allows} because of {name}: ")


def test_records_without_a_commit_say_why_on_their_page():
    without = {"commit": None, "dirty": None, "diff_sha256": None}
    records = runs(provenance=without | {"reason": "git is not installed"})
    records[0].content["provenance"] = without
    records[1].content["provenance"] = {"commit": "c", "dirty": True, "diff_sha256": "d"}
    found = row(cap(records), "clean tree").found
    dirty, bare = (
        f"1 of {len(records)} records from a tree",
        f"{len(records) - 1} of {len(records)} records have no commit",
    )
    assert found == f"{dirty} with uncommitted changes and {bare} (git is not installed; no reason was recorded)"


def test_a_missing_run_a_missing_control_and_no_grid_allow_low():
    records = runs()
    absent = cap(records[:-1], [Expected(one.params) for one in records])
    assert row(absent, "grid complete").allows == "LOW"
    assert "29 of 30" in row(absent, "grid complete").found
    without = runs()
    del without[0].metrics["control_rate"]
    assert row(cap(without), "controls").found == "not decided: the control is silent"
    evidence = gather(records).within({"tail": "newline"})
    undeclared = confidence(judge(CRITERIA.question("band"), evidence), evidence, CRITERIA)
    assert row(undeclared, "grid complete").allows == "LOW"


def test_high_needs_the_recipe():
    few, many = cap(runs(seeds=5)), cap(runs(seeds=14))
    assert (few.cap, row(few, "recipe").allows, many.cap) == ("MODERATE", "MODERATE", "HIGH")
    assert "5 seeds leave open" in row(few, "recipe").found


@pytest.mark.parametrize(("registered", "allows"), [("2026-01-01", "HIGH"), ("2026-01-03", "LOW"), (None, "LOW")])
def test_criteria_in_a_file_of_their_own_are_frozen_when_the_ledger_names_them_first(monkeypatch, registered, allows):
    """The records began on 2026-01-02, and hold the hash of another criteria file."""
    name = CRITERIA.path.relative_to(ROOT).as_posix()
    line = {
        "event": "registered",
        "kind": "criteria",
        "name": name,
        "sha256": content_hash(CRITERIA.path),
        "before": [],
    }
    lines = [ledger.Line.model_validate(line | {"at": f"{registered}T00:00:00+00:00"})] if registered else []
    monkeypatch.setattr(ledger, "read", lambda: ledger.Ledger(tuple(lines), ()))
    found = cap(runs(criteria={"path": "params/toy/criteria.yaml", "sha256": "0" * 64}))
    assert row(found, "criteria frozen").allows == allows


def test_more_looks_than_planned_are_low_and_counted():
    found = cap(runs(seeds=14), looks=3)
    assert found.cap == "LOW" and found.binding.startswith(
        "LOW because of looks: judged 3 times as records grew, planned 1;"
    )


@pytest.mark.parametrize(
    ("fallen", "allows"), [(1, "HIGH"), (2, "MODERATE"), (3, "LOW")], ids=["a tenth", "more than a tenth", "a quarter"]
)
def test_a_verdict_that_falls_in_more_than_a_tenth_of_the_ways_is_capped(fallen, allows):
    ways = [
        Outcome("seed", f"seed {i} is left out", "UNDECIDED" if i < fallen else "SUPPORTED", True, i >= fallen)
        for i in range(10)
    ]
    idle = [Outcome("control", "the control 'base' is dropped", "SUPPORTED", counts=False, holds=True)] * 90
    found = cap(runs(seeds=14), challenged=Challenge("SUPPORTED", (*ways, *idle)))
    assert (row(found, "challenge").allows, found.cap) == (allows, allows)
    assert f"holds in {10 - fallen} of 10 other ways" in row(found, "challenge").found
    assert cap(runs(seeds=14), challenged=None).cap == "LOW"


def test_a_statement_about_one_source_alone_is_not_held_to_three():
    found = cap(runs(sources=("x",)), scope={"source": "x"})
    assert row(found, "sources").allows == "MODERATE"


def test_a_misspelt_source_axis_is_refused():
    evidence = gather(runs(), pooled=("seed", "source")).within({"tail": "newline"})
    verdict = judge(CRITERIA.question("band"), evidence)
    with pytest.raises(ClaimError, match="No cell has an axis 'sorce'; did you mean 'source'"):
        confidence(verdict, evidence, replace(CRITERIA, source_axis="sorce"))


def test_the_author_may_lower_but_not_raise():
    assert (cap(runs(seeds=3), declared="HIGH").stated, cap(runs(seeds=3), declared="HIGH").above_cap) == (
        "MODERATE",
        True,
    )
    lowered = cap(runs(), declared="LOW")
    assert (lowered.stated, lowered.above_cap) == ("LOW", False)
    assert "author" in lowered.binding


def test_no_record_is_low():
    found = cap([record({"tail": "newline", "seed": 0}, status="failed")])
    assert found.cap == "LOW"


def test_changed_criteria_are_low_and_name_the_commits(tmp_path):
    env = os.environ | {f"GIT_{who}_{what}": "x@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def git(*words):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True, env=env)

    path = tmp_path / "criteria.yaml"
    path.write_text((FIXTURES / "sweep.yaml").read_text())
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "move the goalposts")
    records = runs(criteria={"path": "criteria.yaml", "sha256": "0" * 64}, started="2020-01-01T00:00:00+00:00")
    criteria = read_criteria(path)
    evidence = gather(records, [Expected(one.params) for one in records]).within({"tail": "newline"})
    found = confidence(judge(criteria.question("band"), evidence), evidence, criteria, root=tmp_path)
    assert found.cap == "LOW"
    assert "criteria changed after these runs" in found.binding
    assert found.brief == "LOW: the criteria changed after the runs"
    assert "move the goalposts" in found.changed


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@given(a=st.floats(0, 1e10), b=st.floats(0, 1e10))
def test_every_rule_is_monotone(rule: Rule, a: float, b: float):
    worse, better = sorted([a, b], reverse=rule.at_most)
    assert LEVELS.index(rule.level(worse)) <= LEVELS.index(rule.level(better))
    assert rule.level(None) == "LOW"


@given(seeds=st.integers(1, 4), sources=st.integers(1, 2), more=st.sampled_from(["seeds", "sources", "models"]))
@settings(max_examples=20, deadline=None)
def test_the_cap_is_monotone_in_evidence(seeds, sources, more):
    less = cap(runs(seeds, "xyz"[:sources], MODELS[:1])).cap
    wider = {"seeds": (seeds + 1, sources, 1), "sources": (seeds, sources + 1, 1), "models": (seeds, sources, 2)}[more]
    assert LEVELS.index(cap(runs(wider[0], "xyz"[: wider[1]], MODELS[: wider[2]])).cap) >= LEVELS.index(less)


@given(st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_the_cap_does_not_depend_on_row_order(shuffler):
    records = runs(3, ("x", "y"))
    mixed = list(records)
    shuffler.shuffle(mixed)
    assert cap(records) == cap(mixed)
