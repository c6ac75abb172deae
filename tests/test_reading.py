"""A claim in plain text: its numbers are those of its page, and it fits 60 lines of 100 characters."""

from __future__ import annotations

import pandas as pd
import pytest
from typer.testing import CliRunner

from helpers.base.errors import ClaimError
from helpers.cases.case import open_case
from helpers.cli import app
from helpers.export.claims import claims_of
from helpers.site import from_import, reading
from helpers.site.from_import import Comparison
from helpers.site.status import cases_in
from helpers.studies.imported import importing
from helpers.studies.imported.params import LogCell

pytestmark = pytest.mark.unit
HEADS = ["# a-claim", "## Answer", "## Verdict: SUPPORTED", "## Confidence: LOW", "## Caveats", "## Does not claim",
         "## Records", "## Made again by"]  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a claim about a table of 60 questions, 54 of them right."""
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    table = tmp_path / "strong.csv"
    pd.DataFrame({"right": [1] * 54 + [0] * 6, "id": range(60)}).to_csv(table, index=False)
    cell = LogCell(label="strong", tool="csv", file=str(table), columns=["metric=right", "id=id"])
    importing.import_logs("logs", [cell], tmp_path)
    (tmp_path / "reports").mkdir()
    from_import.create("a-claim", "logs", Comparison("right", 0.7), tmp_path)
    return tmp_path


def fits(lines: list[str]) -> bool:
    return 0 < len(lines) <= reading.LINES == 60 and max(map(len, lines)) <= reading.WIDTH == 100


def test_the_text_says_what_the_page_says_in_the_order_of_a_reader(project):
    lines = reading.text_of("a-claim", project)
    heads = [line for line in lines if line.startswith("#")]
    assert fits(lines) and [head.partition(" (")[0] for head in heads] == HEADS
    case, whole = open_case("reports/a-claim.qmd", project), " ".join(" ".join(lines).split())
    assert f"strong: {case.fact('right', label='strong').text}" in whole and "90 % (54/60" in whole
    for said in (case.verdict().sentence, case.confidence().binding, case.claim.statement, case.records[0].ref):
        assert said in whole
    assert "no command here can run them again" in whole and lines[-1] == "  claimbook site a-claim"


def test_a_claim_for_others_says_the_same(project):
    """`claimbook export claims` and `claimbook read` share what is not claimed and what makes it again."""
    case = open_case("reports/a-claim.qmd", project)
    whole, [stated] = " ".join(" ".join(reading.lines_of(case)).split()), claims_of([case]).claims
    assert len(stated.does_not_claim) >= 4 and stated.remake == [case.records[0].launch, "claimbook site a-claim"]
    for said in (*stated.does_not_claim, *stated.remake):
        assert " ".join(said.split()) in whole


def test_a_claim_with_more_to_say_than_fits_counts_what_it_leaves_out(project):
    page = project / "reports/a-claim.qmd"
    head, heading, rest = page.read_text().partition("### Standing caveats\n")
    many = "".join(f"- Caveat {at} \x1b[31m{'is long ' * 30}.\n" for at in range(40))
    page.write_text(f"{head}{heading}\n{many}{rest}")
    lines = reading.text_of("a-claim", project)
    assert fits(lines) and any(line.endswith("more, on the page)") for line in lines)
    assert len(lines) >= 58, "a caveat takes three lines, so two stay free where a path wraps a command otherwise"
    assert all(line.isprintable() for line in lines) and [line for line in lines if line in HEADS] == HEADS[1:]


def test_one_paragraph_that_is_too_long_is_cut():
    lines = reading.Section("# Head", ["word " * 200], 3).lines()
    assert len(lines) == 4 and lines[-1].endswith(" ...") and max(map(len, lines)) <= 100


def test_a_claim_that_is_not_there_names_the_nearest(project):
    with pytest.raises(ClaimError, match="There is no claim 'a-clam'; did you mean 'a-claim'"):
        reading.text_of("a-clam", project)
    assert reading.text_of("reports/a-claim.qmd", project) == reading.text_of("a-claim", project)


def test_a_draft_says_what_it_lacks_first(project):
    page = project / "reports/a-claim.qmd"
    page.write_text(page.read_text().replace("primary: primary", "primary: secondary"))
    text = " ".join(reading.text_of("a-claim", project))
    assert "This page is a DRAFT." in text and "secondary" in text


def test_the_command_answers_in_one_sentence():
    done = CliRunner().invoke(app, ["read", "lr-epochs-bnd"])
    assert done.exit_code == 1 and done.stderr.startswith("claimbook: There is no claim 'lr-epochs-bnd'; did you mean")


@pytest.mark.check
def test_every_claim_of_the_tree_fits():
    for case in cases_in():
        assert fits(reading.lines_of(case)), case.claim.id
