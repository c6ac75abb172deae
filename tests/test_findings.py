"""The page of findings: every section shows a verdict of a page or cites the file that it follows from."""

import re

import pytest

from helpers.base.errors import ClaimError
from helpers.base.files import ROOT
from helpers.cases.case import open_case
from helpers.site.findings import found
from helpers.studies.marker import published

SECTIONS = re.split(r"^#{2,3} ", (ROOT / "reports" / "findings.qmd").read_text(), flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("section", [one for one in SECTIONS if one.strip().count("\n")], ids=lambda one: one[:30])
def test_every_section_shows_a_verdict_or_the_file_it_follows_from(section):
    assert "findings.found(" in section or ".cited source=" in section


def test_a_finding_has_the_verdict_of_its_page_and_leads_there():
    shown, case = found("ep-plateau", "lever").fragment, open_case("reports/ep-plateau.qmd")
    words = re.sub(r"<[^>]+>", "", shown)
    assert words.startswith(f"{case.verdict('lever').word} {case.criteria.question('lever').question}")
    assert case.verdict("lever").brief in words
    assert 'href="ep-plateau.html"' in shown and "params/triangulation/criteria.yaml" in words


def test_a_page_or_question_that_is_not_there_is_named():
    with pytest.raises(ClaimError, match="nowhere"):
        found("nowhere", "lever")
    with pytest.raises(ClaimError, match="levr"):
        found("ep-plateau", "levr")


def test_a_correction_is_found_by_how_the_line_of_the_page_begins():
    arc = published.grid()["arc_c"]
    assert f"{arc.min():.3f} to {arc.max():.3f}" in published.correction("ARC-C stays").fragment
    with pytest.raises(ValueError, match="not enough values"):
        published.correction("Nothing of the kind")
