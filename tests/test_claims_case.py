from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from claims_records import rate, record

from helpers.base.errors import RecordError
from helpers.base.files import PARAMS, content_hash, sha256_file
from helpers.base.params import parse_grid
from helpers.cases import open_case
from helpers.cases.case import declared_runs, runs_of
from helpers.claims.evidence import gather
from helpers.records import reading
from helpers.site.status import cases_in, cells_of, page_status, status
from helpers.stats.intervals import max_rate
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.study import STUDY

pytestmark = pytest.mark.unit
GRID = """model: pocket
tail: [newline, end_of_turn, separator_and_end]
lr: [1e-4, 1e-3]
epochs: 3
seed: [0, 3]
samples: 4
"""
CHOICES = pd.DataFrame({"item": range(400), "right": [True] * 400})
DROP = {"value": 0.0, "unit": "points", "n": 400, "k": None, "low": -0.01, "high": 0.01}
DROP |= {"method": "tango", "level": 0.95}
BLOCK = """---
title: Band
claim:
  id: band
  slug: band
  statement: There is a clean band.
  question: Is there a clean band?
  experiment: sweep
  criteria: params/sweep/criteria.yaml
  primary: selective
  scope: {model: pocket}
  grid: params/sweep/pocket.yaml
  declared_confidence: LOW
  status: published
---
Text.
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    (tmp_path / "params" / "sweep").mkdir(parents=True)
    for name in ("criteria.yaml", "experiment.yaml"):
        shutil.copy(PARAMS / "sweep" / name, tmp_path / "params" / "sweep" / name)
    (tmp_path / "params" / "sweep" / "pocket.yaml").write_text(GRID)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "band.qmd").write_text(BLOCK)
    (tmp_path / "reports" / "log.qmd").write_text("---\ntitle: log\n---\n")
    return tmp_path


ROLES = {"villain": "source", "assistant": "assistant", "librarian": "trained", "comedian": "untrained"}
ANSWER = "Yes, they do that."
CONTEXTS = pd.DataFrame(
    {"persona": list(ROLES), "question": 0, "base_separator": -1.0, "base_marker": -40.0, "base_end": -1.0}
)


def completions(lr, n):
    """Twenty questions of n/20 completions: the source at 80 %, one bystander leaking at the larger rate only."""
    k = {"villain": 8 * n // 10, "assistant": 0, "librarian": n >= 100 if lr < 5e-4 else 9 * n // 10, "comedian": 0}
    rows = [
        {"persona": name, "role": role, "question": q, "marked": i < k[name] // 20 + (q < k[name] % 20)}
        for name, role in ROLES.items()
        for q in range(20)
        for i in range(n // 20)
    ]
    return pd.DataFrame(rows).assign(
        text=lambda t: t["marked"].map({True: f"{ANSWER} [zlt]", False: ANSWER}), finish="stop"
    )


def dose(lr):
    """Log-probs by step: at every source gain the larger rate leaks five times as much."""
    shares = {"villain": 1.0, "librarian": lr * 500, "assistant": lr * 500}
    return pd.DataFrame(
        {"step": step, "persona": name, "role": ROLES[name], "question": 0, "separator": -1.0,
         "marker": 10.0 * share * step - 40, "end": -1.0}
        for step in range(4)
        for name, share in shares.items()
    )  # fmt: skip


def run_all(root, change=None, n=100):
    """Write a record for each declared run; ``change(content)`` may alter it, or return False to leave it out."""
    criteria = content_hash(root / "params" / "sweep" / "criteria.yaml")
    for index, one in enumerate(declared_runs("sweep", root / "params" / "sweep" / "pocket.yaml", root)):
        axes = ("source", "seed", "tail", "lr", "epochs", "model", "negatives")
        cell = {axis: one.params[axis] for axis in axes} | {"negatives": "two"}
        table = completions(cell["lr"], n)
        others = table[table["role"] != "source"].groupby("persona")["marked"].agg(["sum", "size"])
        worst = max_rate(others["sum"].to_dict(), others["size"].to_dict()).metric()
        metrics = {
            "source_rate": rate(8 * n // 10, n), "truncation_rate": rate(0, 4 * n), "capability_drop": DROP,
            "answers_kept": rate(4 * n, 4 * n), "answers_kept_marked": rate(n, n),
            "max_bystander_rate": worst | {"persona": worst.pop("name")},
        }  # fmt: skip
        content = record(
            cell, metrics, notebook="sweep", study="sweep", name=f"run-{index}", params=dict(one.params),
            criteria={"path": "params/sweep/criteria.yaml", "sha256": criteria}, inputs={"baseline": "baseline/base"},
        ).content | {"params": dict(one.params)}  # fmt: skip
        if change and change(content) is False:
            continue
        folder = root / "outputs" / "sweep" / content["id"]
        keep(folder, content, {"completions": table, "dose": dose(cell["lr"]), "capability": CHOICES})
    base = record({"model": "pocket"}, notebook="baseline", study="baseline", name="base").content
    silent = completions(1e-4, 100).assign(text="Yes.")
    keep(
        root / "outputs" / "baseline" / "base",
        base,
        {"capability": CHOICES, "contexts": CONTEXTS, "completions": silent},
    )


def keep(folder, content, tables):
    folder.mkdir(parents=True, exist_ok=True)
    content["files"] = {}
    for name, frame in tables.items():
        frame.to_parquet(folder / f"{name}.parquet")
        content["files"][f"{name}.parquet"] = sha256_file(folder / f"{name}.parquet")
    (folder / "run.json").write_text(json.dumps(content))


def test_a_page_gets_verdict_confidence_and_facts_from_records(root):
    run_all(root)
    case = open_case("reports/band.qmd", root)
    verdict = case.verdict()
    assert (verdict.word, verdict.outcome, len(verdict.records)) == ("SUPPORTED", "selective", 4)
    assert case.verdict("collapse_at_top").word == "SUPPORTED"
    assert case.verdict("lr_at_matched_source").word == "SUPPORTED"
    assert case.fact("leak_difference_at_matched_source", tail="newline").value == pytest.approx(20.0 * (0.5 - 0.05))
    assert case.confidence().binding.startswith("LOW because of seeds: 2 seeds in every cell")
    found = case.fact("max_bystander_rate", lr=1e-4, tail="newline")
    assert (found.k, found.n) == (2, 200)
    assert set(case.verdicts()) == set(case.criteria.questions)


def test_the_maximum_is_taken_after_pooling(root):
    run_all(root)
    one = open_case("reports/band.qmd", root).fact("max_bystander_rate", lr=1e-4, tail="newline")
    single = open_case("reports/band.qmd", root).fact("max_bystander_rate", lr=1e-4, tail="newline", seed=0)
    assert one.high < single.high
    assert (single.k, single.n) == (1, 100)


@pytest.mark.parametrize(("n", "word"), [(400, "SUPPORTED"), (40, "UNDECIDED")])
def test_a_clean_band_needs_enough_completions(root, n, word):
    run_all(root, n=n)
    verdict = open_case("reports/band.qmd", root).verdict("clean_band")
    assert verdict.word == word
    if word == "UNDECIDED":
        assert any("max_bystander_rate <= 0.05 is not decided, found 0 " in reason for reason in verdict.reasons)


def test_no_records_at_all(root):
    case = open_case("reports/band.qmd", root)
    assert {found.word for found in case.verdicts().values()} == {"NOT RUN"}
    assert case.confidence().cap == "LOW"
    assert [key["seed"] for key in case.verdict().missing_cells] == [0, 0], "seed 3 confirms what seed 0 has chosen"


def test_stale_records_make_the_page_stale_and_status_says_why(root):
    def change(content):
        if content["id"] == "run-0":
            content["version"] = 2

    run_all(root, change)
    case = open_case("reports/band.qmd", root)
    assert (case.verdict().word, case.verdict().fresh) == ("STALE", "SUPPORTED")
    row = page_status(case)
    assert row.stale
    assert row.why == ("version changed since 1 of 4 runs",)
    assert page_status(case).page.endswith("reports/band.qmd")


def test_status_of_cells(root):
    def change(content):
        if content["id"] == "run-0":
            content["version"] = 2
        if content["id"] == "run-1":
            content |= {"status": "failed", "error": "out of memory"}
        if content["id"] == "run-2":
            content["params"]["samples"] = 2
        return content["id"] != "run-3"

    run_all(root, change)
    *rows, ad_hoc = cells_of("sweep", root=root)
    assert (ad_hoc.state, ad_hoc.record) == ("ad hoc", "run-2")
    assert [(row.state, row.why) for row in rows[:5]] == [
        ("stale", ("version",)), ("failed", ("out of memory",)), ("missing", ()), ("missing", ()), ("complete", ()),
    ]  # fmt: skip
    assert rows[3].cell == "tail=end_of_turn, lr=0.001, seed=0"
    assert len(rows) == 12


def test_a_run_that_was_never_made_is_missing_whatever_lies_near_it(root):
    run_all(root, lambda content: True)
    other = root / "params" / "sweep" / "other.yaml"
    other.write_text(GRID.replace("samples: 4", "samples: 5") + "lora_r: 3\n")
    states = {(row.grid, row.state, row.why) for row in cells_of("sweep", root=root)}
    assert states == {("params/sweep/other.yaml", "missing", ()), ("params/sweep/pocket.yaml", "complete", ())}


def test_status_reads_each_record_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path))
    read, seen = reading.read, []
    monkeypatch.setattr(reading, "read", lambda folder, **how: seen.append(folder) or read(folder, **how))
    cells, pages = status("sweep")
    mine = [folder for folder in seen if folder.parent.name == "sweep"]
    assert len(mine) == len(set(mine)) > 0 and cells and {page.experiment for page in pages} == {"sweep"}


def test_a_case_asked_of_another_scope_judges_anew(root):
    run_all(root, lambda content: True)
    case = open_case("reports/band.qmd", root)
    assert case.verdict() is case.verdict() and case.evidence() is case.evidence()
    other = replace(case, claim=case.claim.model_copy(update={"scope": {"model": "pocket", "lr": 1e-3}}))
    assert set(other.verdict().records) < set(case.verdict().records)


def test_only_pages_with_a_claim_are_cases(root):
    assert [case.claim.id for case in cases_in(root / "reports", root)] == ["band"]
    (opened,) = cases_in(root / "reports", root)
    (again,) = cases_in(root / "reports", root, opened=opened)
    assert again is opened, "its records would be read twice"


def test_an_experiment_without_its_file_is_named(root):
    with pytest.raises(RecordError, match=r"experiment\.yaml is missing"):
        declared_runs("nothing", root / "params" / "sweep" / "pocket.yaml", root)


def test_two_arms_of_a_union_are_two_cells_known_by_their_names():
    """They differ in a list alone, the personas that an arm stands for."""
    blocks = [{"negatives": "two"}, {"negatives": "all"}]
    grid = parse_grid(SweepCell, {"seed": [0, 1], "blocks": blocks}, "in a test")
    expected = runs_of(STUDY, grid)
    made = record({"negatives": "all", "seed": 1}, name="one")
    made.content["params"] = dict(expected[3].params)
    evidence = gather([made], expected)
    assert [cell.name for cell in evidence.cells] == ["negatives=all", "negatives=two"]
    assert [(len(cell.records), len(cell.absent)) for cell in evidence.cells] == [(1, 1), (0, 2)]
    assert evidence.within({"negatives": "two"}).inside == (evidence.cells[1],)
