from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st
import test_claims_case
from test_claims_case import run_all
from typer.testing import CliRunner

from helpers import cli
from helpers.audit.challenge import find, lines
from helpers.audit.entries import check_registrations
from helpers.audit.kept import Kept
from helpers.audit.register import register
from helpers.base import files
from helpers.base.errors import ClaimError
from helpers.cases import challenge as challenges
from helpers.cases.case import open_case
from helpers.cases.challenge import Challenge, Outcome
from helpers.cases.recalled import nothing_recalled
from helpers.cases.ways import INTERVALS, PARTS, _left_out, _parts, as_registered, ways
from helpers.records import ledger
from helpers.records.reread import Reread, WithoutQuestions, changes
from helpers.site.header import header, place
from helpers.stats import estimands, intervals
from helpers.stats.clusters import exact_bounds
from helpers.stats.estimands import Estimand
from helpers.studies.marker import views
from helpers.studies.marker.metrics import count_markers
from helpers.studies.marker.readings import QUESTION_IN, READINGS

pytestmark = pytest.mark.unit
root = test_claims_case.root
EXACT, UNCUT = READINGS


def names(case):
    return {way.name for way in ways(case, as_registered(case, "selective"))}


def outcomes(found, kind):
    return {one.way: (one.verdict, one.counts) for one in found.outcomes if one.kind == kind}


def test_every_way_is_tried_and_the_sentence_says_when_the_verdict_falls(root):
    run_all(root)
    found = open_case("reports/band.qmd", root).challenge()
    assert found.verdict == "SUPPORTED"
    # A cell is chosen on seed 0 and confirmed on seed 3, so without either of them nothing is decided.
    assert outcomes(found, "seed") == dict.fromkeys(("seed 0 is left out", "seed 3 is left out"), ("UNDECIDED", True))
    assert outcomes(found, "question") == {f"question {i} is left out": ("SUPPORTED", True) for i in range(20)}
    assert outcomes(found, "threshold") == {
        f"the threshold of {at}": ("SUPPORTED", True)
        for at in ("source_rate is 0.55, not 0.5", "source_rate is 0.45, not 0.5",
                   "max_bystander_rate is 0.22, not 0.2", "max_bystander_rate is 0.18, not 0.2")
    }  # fmt: skip
    assert set(outcomes(found, "control").values()) == {("SUPPORTED", False)}
    assert len(outcomes(found, "control")) == 2
    assert {word for word, _ in outcomes(found, "interval").values()} == {"SUPPORTED"}
    assert set(outcomes(found, "interval")) == set(INTERVALS)
    # The fixture writes [zlt] where [ZLT] was trained.
    assert outcomes(found, "reading")[EXACT] != ("SUPPORTED", False)
    assert outcomes(found, "reading")[UNCUT] == ("SUPPORTED", False)
    assert len(found.fallen) == 3
    assert found.sentence == (
        f"SUPPORTED holds in {len(found.counted) - 3} of {len(found.counted)} other ways to analyse the same records; "
        f"it falls when seed 0 is left out (UNDECIDED), or when seed 3 is left out (UNDECIDED), or when {EXACT} "
        f"({outcomes(found, 'reading')[EXACT][0]})."
    )


def test_criteria_add_ways_and_take_none_away(root):
    run_all(root)
    path = root / "params/sweep/criteria.yaml"
    before = names(open_case("reports/band.qmd", root))
    text = path.read_text()
    head = "  selective:\n"
    assert text.count(head) == 1
    path.write_text(text.replace(head, f"{head}    ways: {{the smaller rate alone: {{scope: {{lr: 1e-4}}}}}}\n"))
    after = names(open_case("reports/band.qmd", root))
    assert after == before | {"the smaller rate alone"}
    path.write_text(text.replace(head, f"{head}    ways: {{none: {{outcomes: []}}}}\n"))
    with pytest.raises(ClaimError, match="outcomes"):
        open_case("reports/band.qmd", root)


def test_it_is_computed_once_and_shown_by_header_and_command(root, monkeypatch):
    run_all(root)
    found = open_case("reports/band.qmd", root).challenge()
    monkeypatch.setattr(challenges, "_as_json", None)
    case = open_case("reports/band.qmd", root)
    assert case.challenge() == found
    assert found.sentence.partition(";")[0] in str(header(case).fragment)
    page = '<main><header class="title-block"></header>\n<p>Prose.</p>\n</main>'
    placed = place(page, case)
    above, below = placed.split("<p>Prose.</p>")
    assert found.sentence.partition(";")[0] in above
    assert "question 7 is left out" not in above
    assert re.search('question 7 is left out</bdi></th><td><span class="[^"]*">SUPPORTED', below)
    assert "the control 'the base model never says it' is dropped" in unescape(below) and challenges.IDLE in below
    assert place(placed.replace("SUPPORTED", "REFUTED"), case) == placed
    assert lines(find("band", root))[-1] == found.sentence
    assert len(lines(find("reports/band.qmd", root))) == len(found.outcomes) + 1
    with pytest.raises(ClaimError, match="band"):
        find("bnad", root)


def test_the_command_prints_every_way_of_a_page(root, monkeypatch):
    run_all(root)
    monkeypatch.setattr(files, "ROOT", root)
    monkeypatch.setattr(challenges.Recalled, "recall", lambda *_: {"verdict": "SUPPORTED", "outcomes": [
        {"kind": "seed", "way": "seed 0 is left out", "verdict": "MIXED", "counts": True, "holds": False, "why": ""}
    ]})  # fmt: skip
    shown = CliRunner().invoke(cli.app, ["challenge", "reports/band.qmd"]).output.splitlines()
    assert shown == [
        "MIXED  seed 0 is left out",
        "SUPPORTED holds in 0 of 1 other ways to analyse the same records; it falls when seed 0 is left out (MIXED).",
    ]


@pytest.fixture
def kept(root, monkeypatch):
    """The records published, their page registered and judged, and the files that keep what was computed."""
    run_all(root)
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(root / "outputs"))
    # The grid of the fixture is too small for some of the questions that come with its criteria.
    monkeypatch.setattr("helpers.audit.register.refuse", lambda *_: None)
    register([root / "reports/band.qmd"], root=root)
    assert registered(root) == []
    return root


def registered(root):
    """What lint finds of registrations and judgements."""
    return [one.what for one in check_registrations(root, [root / "reports/band.qmd"], Kept().judge)]


def test_a_forged_count_is_found_by_lint_and_read_by_nothing_that_proves(kept):
    true = open_case("reports/band.qmd", kept).challenge()
    assert true.fallen
    paths = [p for p in (kept / "outputs/.derived").iterdir() if "outcomes" in json.loads(p.read_text())]
    assert len(paths) == 1
    content = json.loads(paths[0].read_text())
    held = [one | {"verdict": content["verdict"], "holds": True} for one in content["outcomes"]]
    files.write_json(paths[0], content | {"outcomes": held})
    forged = open_case("reports/band.qmd", kept).challenge()
    assert not forged.fallen and f"in {len(true.counted)} of {len(true.counted)}" in forged.sentence
    found = registered(kept)
    assert any('seed 0 is left out is ["SUPPORTED", true] and was ["UNDECIDED", true]' in one for one in found)
    with nothing_recalled():
        assert open_case("reports/band.qmd", kept).challenge() == true
        assert check_registrations(kept, [kept / "reports/band.qmd"]) == []


def test_a_forged_judgement_is_found_also_with_a_line_of_its_own(kept):
    path = kept / "outputs/judged/band.json"
    content = json.loads(path.read_text())
    content["challenge"] = {way: ["SUPPORTED", counts] for way, (_, counts) in content["challenge"].items()}
    path.write_text(files.record_text(content))
    assert "judged/band.json is not what was judged on" in registered(kept)[0]
    [line] = ledger.read().standing("judgement").values()
    event = {"event": "amended", "kind": "judgement", "name": line.name, "sha256": files.sha256_file(path)}
    ledger.append([event | {"was": line.sha256, "reason": "it holds in every way"}])
    found = registered(kept)
    assert any('seed 0 is left out is ["UNDECIDED", true] and was ["SUPPORTED", true]' in one for one in found)


def test_ways_that_the_criteria_add_never_make_a_verdict_hold_more_often():
    falls = [Outcome("seed", f"seed {i} is left out", "MIXED", counts=True, holds=False) for i in range(2)]
    holds = [Outcome("threshold", "the threshold", "SUPPORTED", counts=True, holds=True)] * 8
    idle = [Outcome("criteria", f"way {i}", "SUPPORTED", counts=True, holds=True) for i in range(90)]
    shares = {Challenge("SUPPORTED", (*falls, *holds, *added)).share for added in ([], idle)}
    assert shares == {0.2}
    worse = [replace(one, verdict="MIXED", holds=False) for one in idle]
    assert Challenge("SUPPORTED", (*falls, *holds, *worse)).share == 0.92


def test_a_claim_without_records_is_not_challenged(root):
    assert open_case("reports/band.qmd", root).challenge() is None


def test_changed_records_are_challenged_again(root, monkeypatch):
    run_all(root)
    first = open_case("reports/band.qmd", root).challenge()
    run_all(root, n=20)
    assert open_case("reports/band.qmd", root).challenge() != first


def test_without_a_question_a_record_counts_as_if_it_had_never_been_asked(root):
    run_all(root)
    record = open_case("reports/band.qmd", root).records[0]
    part = WithoutQuestions(record, [3, 4], QUESTION_IN)
    whole = record.table("completions")
    expected = count_markers(whole[~whole["question"].isin([3, 4])], record.params["marker"])
    found = views.counts([part])[expected.columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected.reset_index(drop=True))
    assert found["question"].nunique() == 18


def test_readings_change_what_they_say_and_nothing_else(root):
    run_all(root)
    record = open_case("reports/band.qmd", root).records[0]
    texts = ["a\n\n[ZLT]", "a\n\n[zlt] b", "none", " [ZLT][ZLT] c\n\n[ZLT]", "a [ZLT]"]
    table = record.table("completions").head(5).assign(text=texts, finish=["stop", "length", "length", "stop", "stop"])
    exact, uncut = READINGS[EXACT]["completions"], READINGS[UNCUT]["completions"]
    assert list(exact(record, table)["text"]) == ["a\n\n[ZLT]", "a\n\n b", "none", " [ZLT] c\n\n[ZLT]", "a "]
    assert list(uncut(record, table)["text"]) == [texts[0], *texts[3:]]
    whole = table.iloc[[0]]
    assert exact(record, whole) is uncut(record, whole) is whole
    cut = Reread(record, {"completions": lambda _, table: table.iloc[:0]})
    assert cut.table("completions").empty
    assert not record.table("completions").empty
    pd.testing.assert_frame_equal(cut.table("dose"), record.table("dose"))
    assert changes(READINGS[EXACT], record)
    assert not changes(READINGS[UNCUT], record)


def test_rates_by_their_totals():
    k, n = np.full((3, 20), 1), np.full((3, 20), 4)
    wilson, exact = (estimands.rate(k, n, Estimand(method=method, level=0.9)) for method in ("wilson", "exact"))
    assert wilson.bounds == intervals.wilson(60, 240, 0.9).bounds
    assert exact.bounds == exact_bounds(60, 240, 0.9)
    assert estimands.independent_rate([60], [240], Estimand(method="exact", level=0.9)).bounds == exact.bounds
    assert wilson.bounds != exact.bounds != estimands.rate(k, n, Estimand(level=0.9)).bounds
    t = Estimand(method="t", level=0.8)
    assert estimands.rate(k, n, t).bounds == estimands.rate(k, n, Estimand(level=0.8)).bounds
    seeds = [intervals.Interval(value, None, None, None, None, "seed") for value in (0.7, 0.8, 0.95)]
    mean = estimands.number(seeds, "cosine", t)
    assert mean.bounds == pytest.approx(st.t.interval(0.8, 2, np.mean([0.7, 0.8, 0.95]), st.sem([0.7, 0.8, 0.95])))
    assert mean.bounds != estimands.number(seeds, "cosine", Estimand(level=0.8)).bounds
    assert estimands.number(seeds[:1], "cosine", t).bounds is None


@pytest.mark.parametrize(
    ("threshold", "unit", "moved"),
    [
        (0.5, "rate", [0.55, 0.45]), (0.99, "cosine", [0.991, 0.989]), (20.0, "nats", [22.0, 18.0]),
        (0.0, "nats", []), (-0.5, "cosine", [-0.45, -0.55]), (1.0, "rate", []),
    ],
)  # fmt: skip
def test_thresholds_move_by_a_tenth_and_stay_on_their_scale(threshold, unit, moved):
    from claims_records import record

    from helpers.cases.ways import Asked, _thresholds
    from helpers.claims.conditions import Compare
    from helpers.claims.criteria import Question
    from helpers.claims.evidence import gather

    metric = {"value": 0.0, "unit": unit, "n": 1, "k": None, "low": None, "high": None, "method": "x", "level": 0.95}
    evidence = gather([record({"seed": 0}, {"m": metric})])
    outcome = {"name": "yes", "verdict": "SUPPORTED", "when": Compare("m", ">", threshold), "reading": "Yes."}
    asked = Asked(Question(question="?", outcomes=[outcome]), evidence, None, Estimand())
    found = [way.asked.question.outcomes[0].when.threshold for way in _thresholds(asked, evidence)]
    assert found == pytest.approx(moved)
    assert asked.question.outcomes[0].when.threshold == threshold


def test_of_many_seeds_parts_are_left_out():
    assert [list(part) for part in _parts([0, 3])] == [[0], [3]] and list(_parts([7])) == []
    parts = list(_parts(range(112)))
    assert len(parts) <= PARTS and [seed for part in parts for seed in part] == list(range(112))
    assert _left_out("seed", parts[1]) == "seeds 6 to 11 are left out"
