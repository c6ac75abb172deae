"""What judges a claim may be tidied but not turned: functions of the criteria, the code of claims, the statement."""

from __future__ import annotations

import importlib
import json
import linecache
import re
import sys
from dataclasses import replace
from html import unescape

import pytest
import toy_study
from toy_study import CRITERIA, CoinCell, commit, project, run_cells

from helpers.audit import publishing
from helpers.audit.register import register
from helpers.audit.verify import verify
from helpers.base import files
from helpers.base.errors import ClaimError
from helpers.base.params import load
from helpers.cases import open_case
from helpers.claims import confidence, criteria, evidence
from helpers.records import ledger, study
from helpers.site import header
from helpers.site.lint import lint

pytestmark = pytest.mark.unit
NAMED = "metrics: {heads_rate: {note: share of heads, function: 'coin_rules:share'}}"
RULES = '''\
"""Rules."""
from helpers.stats.intervals import wilson


def share(records, estimand):
    """Share of heads over seeds."""
    k = sum(record.metric("heads_rate")["k"] for record in records)
    return wilson(k, sum(record.metric("heads_rate")["n"] for record in records)).metric()
'''
TIDIED = RULES.replace("k = ", "heads = ").replace("wilson(k,", "wilson(heads,").replace("over seeds", "of all seeds")
KINDER = RULES.replace("wilson(k,", "wilson(k + 1,")


def become(root, text: str) -> None:
    """Edit the criteria's functions, and start anew as a fresh process would."""
    (root / "coin_rules.py").write_text(text)
    sys.modules.pop("coin_rules", None)
    importlib.invalidate_caches()
    linecache.clearcache()
    criteria._parse_file.cache_clear()


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Everything registered, run, published and committed; a function of ``coin_rules.py`` judges."""
    root = project(tmp_path / "house", monkeypatch)
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would be taken for the edited file of the same second
    files.write_text(
        root / "params/coins/criteria.yaml", CRITERIA.replace("metrics: {heads_rate: share of heads}", NAMED)
    )
    become(root, RULES)
    register([root / "reports/coins.qmd"], root=root)
    run_cells(load(CoinCell, files.PARAMS / "coins" / "grid.yaml"))
    publishing.publish("coins")
    commit(root)
    assert findings(root) == ""
    yield root
    become(root, RULES)


def findings(root) -> str:
    return "\n".join(map(str, verify(None, root)))


def one_more_seed(root) -> None:
    files.write_text(root / "params/coins/more.yaml", "bias: [0.9]\nseed: [2]\n")
    run_cells(load(CoinCell, root / "params/coins/more.yaml"))
    publishing.publish("coins")


def grown(root) -> None:
    """Withdraw a record: other records are judged than before."""
    ref = next(name for name in ledger.read().standing("record") if name.startswith("coins/b0.9-s1"))
    publishing.withdraw(ref, "a wrong mint")


def test_a_function_that_gives_other_numbers_is_found_by_verify_and_lint(house):
    become(house, KINDER)
    field = r"reports/coins.qmd: judgement: page / bias=0\.7 / heads_rate is \[0\.\d+, .*\] and was \[0\.\d+"
    assert re.search(field, findings(house))
    assert "coin_rules" not in findings(house) and "params/coins/criteria.yaml: code: was changed after" in findings(
        house
    )
    lint(house)  # fills its cache
    assert any(re.search(field.replace(": judgement:", ""), one.message) for one in lint(house))
    with pytest.raises(ClaimError, match=r"criteria.yaml was registered on .* --reason"):
        register([house / "reports/coins.qmd"], root=house)
    code, judged = register([house / "reports/coins.qmd"], "ties count as heads", root=house)
    assert [(one.event, one.kind) for one in (code, judged)] == [("amended", "code"), ("amended", "judgement")]
    assert findings(house) == ""
    shown = unescape(header.proof(open_case("reports/coins.qmd", house)).fragment)
    assert f"{ledger.now()[:10]}: the code that judges by params/coins/criteria.yaml. ties count as heads" in shown


def test_a_tidied_function_needs_no_word_and_may_judge_new_records(house):
    become(house, TIDIED)
    assert findings(house) == ""
    grown(house)
    assert findings(house) == ""
    assert [(one.event, one.kind) for one in ledger.read().lines[-3:]] == [
        ("derived", "code"), ("withdrawn", "record"), ("registered", "judgement")
    ]  # fmt: skip
    become(house, RULES)
    [line] = register([house / "reports/coins.qmd"], root=house)
    assert (line.event, line.kind, line.note) == ("derived", "code", "judges 1 claims as before")


def test_other_code_does_not_judge_new_records_unseen(house):
    become(house, KINDER)
    grown(house)
    assert "reports/coins.qmd: judgement: of these published records is not in the ledger" in findings(house)
    with pytest.raises(ClaimError, match="--reason"):
        register([house / "reports/coins.qmd"], root=house)


def test_the_code_of_claims_is_part_of_what_judges(house, monkeypatch):
    pool = evidence.as_interval
    monkeypatch.setattr(evidence, "as_interval", lambda metric: pool(metric | {"high": 1.0}))
    assert re.search(r"page / bias=0.7 / heads_rate is .*, 1.0, \d+, \d+\] and was", findings(house))


def test_what_allows_a_confidence_is_part_of_the_judgement(house, monkeypatch):
    (seeds, *others) = confidence.RULES
    assert seeds.name == "seeds"
    monkeypatch.setattr(confidence, "RULES", (replace(seeds, moderate=1, high=1), *others))
    field = 'confidence / seeds is "HIGH" and was "(LOW|MODERATE)"'
    assert re.search(f"reports/coins.qmd: judgement: {field}", findings(house))


def test_a_judgement_that_was_edited_or_lost_is_found(house):
    judged = house / "published/judged/coins.json"
    content = json.loads(judged.read_text())
    assert content["questions"]["fair"]["verdict"] == "SUPPORTED"
    text = judged.read_text()
    judged.write_text(text.replace("SUPPORTED", "REFUTED"))
    assert "judgement: judged/coins.json is not what was judged on" in findings(house)
    judged.unlink()
    assert "judgement: judged/coins.json is not what was judged on" in findings(house)
    assert register([house / "reports/coins.qmd"], root=house) == []
    assert findings(house) == "" and judged.read_text() == text


def test_before_any_record_is_published_code_may_change_and_late_runs_are_told(tmp_path, monkeypatch):
    root = project(tmp_path / "house", monkeypatch)
    register([root / "reports/coins.qmd"], root=root)
    files.write_text(root / "src/helpers/cases/case.py", "x = 1\n")
    assert findings(root) == ""
    run_cells(load(CoinCell, files.PARAMS / "coins" / "grid.yaml"))
    monkeypatch.setattr(ledger, "now", lambda: "2999-01-01T00:00:00+00:00")
    publishing.publish("coins")
    [line] = [one for one in ledger.read().lines if one.event == "derived"]
    assert (line.kind, line.note) == ("code", "no record was published yet")
    shown = unescape(header.proof(open_case("reports/coins.qmd", root)).fragment)
    assert "Registered on 2999-01-01, when 4 of 4 records had begun: the code that judges by params" in shown


@pytest.mark.parametrize("old", ["Coins fall on heads more often than not.", "Do they?"])
def test_the_statement_may_change_only_with_a_line_and_its_reason(house, old):
    path = house / "reports/coins.qmd"
    path.write_text(path.read_text().replace(old, "Coins never fall on tails."))
    assert "reports/coins.qmd: statement: was changed after" in findings(house)
    with pytest.raises(ClaimError, match="--reason"):
        register([path], root=house)
    [line] = register([path], "plainer", root=house)
    assert (line.event, line.kind, line.name) == ("amended", "statement", "reports/coins.qmd")
    assert findings(house) == ""
    shown = unescape(header.proof(open_case("reports/coins.qmd", house)).fragment)
    assert "the statement of reports/coins.qmd. plainer" in shown


def test_a_ledger_that_is_older_than_statements_code_and_judgements_is_completed_by_register(tmp_path, monkeypatch):
    root = project(tmp_path / "house", monkeypatch)
    run_cells(load(CoinCell, files.PARAMS / "coins" / "grid.yaml"))
    register([root / "reports/coins.qmd"], root=root)
    old = [line.model_dump(exclude={"at", "before"}, exclude_none=True) for line in ledger.read().lines[:3]]
    ledger.path().unlink()
    ledger.append(old)
    publishing.publish("coins")
    assert findings(root) == ""
    lines = register([root / "reports/coins.qmd"], root=root)
    assert [(one.event, one.kind) for one in lines] == [
        ("registered", kind) for kind in ("statement", "code", "comparison", "judgement")
    ]
    assert findings(root) == ""


@pytest.mark.parametrize(
    "looser",
    [{"tolerance": 1.0}, {"tolerances": {"gain": 1.0}}, {"measured": {"flips": ("heads",)}}, {"measures": ("*",)}],
)
def test_how_replays_are_compared_changes_only_with_a_line_and_its_reason(house, monkeypatch, looser):
    monkeypatch.setattr(toy_study, "COINS", replace(toy_study.COINS, **looser))
    study._load.cache_clear()
    assert "params/coins/experiment.yaml: comparison: was changed after" in findings(house)
    with pytest.raises(ClaimError, match="--reason"):
        register([house / "reports/coins.qmd"], root=house)
    [line] = register([house / "reports/coins.qmd"], "sums on another kernel", root=house)
    assert (line.event, line.kind) == ("amended", "comparison") and findings(house) == ""
    shown = unescape(header.proof(open_case("reports/coins.qmd", house)).fragment)
    assert "how replays are compared with the study of params/coins/experiment.yaml. sums on another" in shown
    monkeypatch.undo()
    study._load.cache_clear()


@pytest.mark.parametrize(
    ("criteria", "field"),
    [
        ({"path": "params/coins/criteria.yaml", "sha256": "0" * 64}, "criteria.sha256"),
        ({"path": "params/coins/other.yaml", "sha256": "0" * 64}, "criteria.path"),
        (None, "criteria"),
    ],
)
def test_a_run_under_criteria_that_were_never_registered_is_found(house, criteria, field):
    folder = next((house / "published/coins").iterdir())
    content = json.loads((folder / "run.json").read_text())
    started = "2999-01-01T00:00:00+00:00"
    files.write_record(folder / "run.json", content | {"criteria": criteria, "started": started, "ended": started})
    assert f"coins/{folder.name}: {field}: is" in "\n".join(map(str, verify([f"coins/{folder.name}"], house)))
