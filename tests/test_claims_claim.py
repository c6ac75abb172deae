from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from claims_records import FIXTURES

from helpers.base.errors import ClaimError
from helpers.base.files import PARAMS
from helpers.cases.claim import has_claim, read_claim
from helpers.claims.criteria import read_criteria
from helpers.records.reading import Record
from helpers.stats.estimands import MODELS

pytestmark = pytest.mark.unit
PAGE = (FIXTURES / "page.qmd").read_text()
CRITERIA = (FIXTURES / "sweep.yaml").read_text()


@pytest.fixture
def root(tmp_path):
    (tmp_path / "params" / "toy").mkdir(parents=True)
    shutil.copy(FIXTURES / "sweep.yaml", tmp_path / "params" / "toy" / "criteria.yaml")
    (tmp_path / "params" / "toy" / "pocket.yaml").write_text("lr: 1e-4\n")
    return tmp_path


def write(root, text, name="page.qmd"):
    (root / name).write_text(text)
    return root / name


def test_a_claim_block_is_read(root):
    claim = read_claim(write(root, PAGE), root)
    assert (claim.id, claim.primary, claim.scope) == ("toy-band", "band", {"tail": "newline"})
    assert [(one.kind, one.target, one.answer) for one in claim.relations] == [
        ("refines", "#65", None),
        ("absorbed_by", "factor-screen", "length row"),
    ]
    assert has_claim(root / "page.qmd")
    assert not has_claim(write(root, "---\ntitle: x\n---\n", "log.qmd"))


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("  id: toy-band", "  id: Toy Band", 4, r"'claim.id' is wrong, string should match pattern"),
        ("  question: Is there a clean cell?\n", "", 3, r"'claim.question' is missing"),
        ("  experiment:", "  experimant:", 8, r"'claim.experimant' is unknown; did you mean 'experiment'"),
        ("declared_confidence: LOW", "declared_confidence: SURE", 13, r"'claim.declared_confidence' .*'LOW'.*'SURE'"),
        ("status: published", "status: done", 14, r"'claim.status'"),
        ("kind: refines", "kind: refine", 16, r"'claim.relations\[0\].kind'.*'refine'"),
        ('target: "#65"', "target: 65", 16, r"'claim.relations\[0\].target'"),
        ("answer: length row", "anser: length row", 17, r"'claim.relations\[1\].anser' .*did you mean 'answer'"),
        ("  slug: page", "  slug: other", 5, r"'other' but the page is page.qmd"),
        ("criteria: params/toy/c", "criteria: params/toy/k", 9, r"'claim.criteria' names .* does not exist"),
        ("primary: band", "primary: bend", 10, r"'claim.primary'.*did you mean 'band'"),
        ("  slug: page", "  id: again", 5, r"'id' is written twice"),
        ("  id: toy-band", "  id: [toy", 5, r"cannot be read as YAML"),
        ("scope: {tail: newline}", "scope: newline", 11, r"'claim.scope'"),
        ("  statement: There is a clean cell.", "  statement:", 6, r"'claim.statement'"),
    ],
)
def test_bad_blocks_are_refused_with_field_and_line(root, old, new, line, message):
    assert old in PAGE
    path = write(root, PAGE.replace(old, new))
    with pytest.raises(ClaimError, match=message) as caught:
        read_claim(path, root)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_a_page_without_block_or_front_matter_is_refused(root):
    with pytest.raises(ClaimError, match="no front matter"):
        read_claim(write(root, "prose"), root)
    with pytest.raises(ClaimError, match="no `claim:` block"):
        read_claim(write(root, "---\ntitle: x\n---\n"), root)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("version: 2", "version: two", 1, "'version'"),
        ("capability_drop:", "source_rate:", 5, "written twice"),
        ("control_rate <= 0.05", "contral_rate <= 0.05", 7, "did you mean 'control_rate'"),
        ("questions: [everywhere]", "questions: [everywhare]", 7, "did you mean 'everywhere'"),
        (
            "source_rate > 0.5, max",
            "sorce_rate > 0.5, max",
            10,
            "names the metric 'sorce_rate'; did you mean 'source_rate'",
        ),
        ("source_rate > 0.5, max", "source_rate == 0.5, max", 10, "write `metric op number`"),
        ("{any_cell: clean}", "{any_cell: cleen}", 17, "names the regime 'cleen'; did you mean 'clean'"),
        ("{any_cell: clean}", "{any_cel: clean}", 17, "did you mean 'any_cell'"),
        ("{every_cell: not_clean}", "0.5 < source_rate > 0.2", 18, "two signs point apart"),
        ("verdict: MIXED", "verdict: UNDECIDED", 33, "'questions.at_one.outcomes\\[1\\].verdict'"),
        ("when: {every_cell: source_rate > 0.5}", "when: otherwise", 23, "before the last"),
        ("{cell: {lr: 1e-4}, holds:", "{cell: {lr: 1e-4}, hold:", 31, "did you mean 'holds'"),
        ("reading: It emits more.", "raeding: It emits more.", 32, "did you mean 'reading'"),
        ("{any_cell: clean}", "[]", 17, "at least one condition"),
    ],
)
def test_bad_criteria_are_refused_with_field_and_line(tmp_path, old, new, line, message):
    assert old in CRITERIA
    path = write(tmp_path, CRITERIA.replace(old, new, 1), "criteria.yaml")
    with pytest.raises(ClaimError, match=message) as caught:
        read_criteria(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")


GAP = "function: criteria:gap"
SCORE = "function: criteria:score"


def study_of(folder: Path, package: str) -> None:
    """Say beside a criteria file whose functions its names are relative to."""
    (folder / "experiment.yaml").write_text(f"study: helpers.studies.{package}.study:STUDY\n")


@pytest.mark.parametrize(
    ("metric", "field", "message"),
    [
        ("function: criteria:gapp", "function", "which is not there; did you mean 'gap'"),
        ("function: criterion:gap", "function", "there is no module helpers.studies.actdiff.criterion"),
        (f"{GAP}, arguments: {{metric: z, minos: y}}", "arguments.minos", "is no argument.*; did you mean 'minus'"),
        (f"{GAP}, arguments: {{metric: z}}", "arguments", "lacks 'minus'"),
        (GAP, "arguments", "lacks 'metric'"),
        (f"{GAP}, arguments: {{metric: z, minus: 1}}", "arguments.minus", "is 1: input should be a valid string"),
        (f"{GAP}, arguments: {{metric: z, minus: y, records: x}}", "arguments.records", "is no argument"),
        (f"{SCORE}, arguments: {{side: c, channel: text, score: em}}", "arguments.side", "should be 'a' or 'b'"),
        (f"{SCORE}, arguments: {{side: a, channel: txt, score: em}}", "arguments.channel", "'text'.*, 'constant'"),
        (f"{SCORE}, arguments: {{side: a, channel: text, score: emm}}", "arguments.score", "'em'.* or 'p_end'"),
        ("arguments: {at: 1}", "arguments", "given without a `function`"),
        ("over: scope", "over", "given without a `function`"),
        (f"{GAP}, argument: {{metric: z, minus: y}}", "argument", "is unknown; did you mean 'arguments'"),
    ],
)  # fmt: skip
def test_a_function_and_its_arguments_are_checked_on_reading(tmp_path, metric, field, message):
    study_of(tmp_path, "latentwire" if metric.startswith(SCORE) else "actdiff")
    text = CRITERIA.replace("  source_rate: the source", f"  source_rate: {{note: x, {metric}}}")
    path = write(tmp_path, text, "criteria.yaml")
    with pytest.raises(ClaimError, match=message) as caught:
        read_criteria(path)
    assert str(caught.value).startswith(f"{path}:3: field 'metrics.source_rate.{field}'")


def test_a_function_gets_its_arguments_and_defaults_may_be_left_out(tmp_path):
    study_of(tmp_path, "actdiff")
    metric = "{note: x, function: 'criteria:gap', arguments: {metric: y, minus: z}}"
    text = CRITERIA.replace("source_rate: the source", f"source_rate: {metric}")
    [(name, derived)] = read_criteria(write(tmp_path, text, "criteria.yaml")).derive.items()
    run = Record(tmp_path, {"metrics": {"y": {"value": 3.0, "unit": "nats"}, "z": {"value": 1.0}}}, published=False)
    assert name == "source_rate" and derived.compute((run,), MODELS)["value"] == 2.0
    study_of(tmp_path, "marker")
    at = "{note: x, function: 'criteria:leak_difference_at_matched_source', arguments: {at: 20}}"
    assert read_criteria(write(tmp_path, CRITERIA.replace("source_rate: the source", f"source_rate: {at}"), "c.yaml"))


@pytest.mark.parametrize("path", sorted(PARAMS.glob("*/criteria.yaml")), ids=lambda path: path.parent.name)
def test_the_criteria_of_the_repository_can_be_read(path):
    criteria = read_criteria(path)
    # In a comparison of speed the other way is the control, and stands in the metric itself.
    assert criteria.controls or path.parent.name == "bench"
    for name in criteria.questions:
        assert criteria.question(name).metrics <= set(criteria.metrics)


def test_an_unknown_question_names_the_nearest():
    with pytest.raises(ClaimError, match="'band'"):
        read_criteria(FIXTURES / "sweep.yaml").question("bandd")
