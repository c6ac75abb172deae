"""Unfinished pages: listed as DRAFT with the first thing that is missing, off the home page, and in nobody's way."""

from __future__ import annotations

import html as entities
import re
from pathlib import Path

import pytest
import toy_study

from helpers.audit import looks
from helpers.audit.register import register
from helpers.audit.verify import verify
from helpers.base import files
from helpers.base.errors import ClaimError
from helpers.cases.case import Case
from helpers.cases.drafts import Draft
from helpers.claims import evidence
from helpers.site import header, lint, listing, overview, status
from helpers.site.graph import build
from helpers.site.status import pages_in

pytestmark = pytest.mark.unit
PAGE = (
    toy_study.PAGE.replace("id: coins", "id: aaa").replace("slug: coins", "slug: aaa").replace("published", "proposed")
)
UNKNOWN = "metrics: {heads_rate: share of heads}"
BROKEN = {
    "empty": ("", "has no front matter"),
    "no YAML": ("---\ntitle: [\n---\n", "aaa.qmd:"),
    "a list": ("---\n- a\n---\n", "is not a mapping"),
    "bytes": (b"---\ntitle: \xff\xfe\x00\n---\n", "aaa.qmd"),
    "a wrong field": (PAGE.replace("  primary:", "  primry:"), "did you mean"),
    "no statement": (PAGE.replace("  statement: Coins fall on heads more often than not.\n", ""), "statement"),
    "another slug": (toy_study.PAGE, "the page is aaa.qmd"),
    "no criteria": (PAGE.replace("coins/criteria", "coins/critria"), "does not exist"),
    "no such question": (PAGE.replace("primary: fair", "primary: fairr"), "did you mean 'fair'"),
    "no such experiment": (PAGE.replace("experiment: coins", "experiment: dice"), "dice"),
    "no such axis": (PAGE.replace("  primary", "  scope: {tilt: 1}\n  primary"), "tilt"),
    "a placeholder": (PAGE.replace("Prose.", "### Why\n\nPLACEHOLDER"), "'Why' is still a placeholder"),
    "a placeholder in the claim": (PAGE.replace("Do they?", "PLACEHOLDER"), "reports/aaa.qmd:7: 'question' is still"),
    "the id of another": (PAGE.replace("id: aaa", "id: coins"), "which is that of coins.qmd"),
}  # fmt: skip


@pytest.fixture
def root(tmp_path, monkeypatch):
    root = toy_study.project(tmp_path, monkeypatch)
    for module in (status, lint, overview):
        for name in {"ROOT", "PARAMS", "REPORTS"} & set(vars(module)):
            monkeypatch.setattr(module, name, getattr(files, name))
    register([root / "reports/coins.qmd"], root=root)
    toy_study.commit(root)
    return root


def write(root: Path, content: str | bytes) -> Path:
    path = root / "reports/aaa.qmd"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(("content", "why"), BROKEN.values(), ids=BROKEN)
def test_a_draft_says_what_is_missing_and_stops_nothing_else(root, content, why):
    before = lint.lint(root)
    write(root, content)
    draft, coins = pages_in(root / "reports", root)
    assert isinstance(draft, Draft) and isinstance(coins, Case) and coins.claim.id == "coins"
    assert why in draft.why and str(root) not in draft.why and "\n" not in draft.why
    assert [case.claim.id for case in status.cases_in(root / "reports", root)] == ["coins"]
    assert build(status.cases_in(root / "reports", root)).nodes.keys() == {"coins"}
    card = overview.claims(root).fragment
    assert "Coins fall on heads" in card and card.count("<article") == 1
    findings = lint.lint(root)
    assert set(before) <= set(findings)
    assert any(one.path == "reports/aaa.qmd" or "aaa" in one.message for one in set(findings) - set(before))
    assert verify(root=root) == [] and looks.enter("coins", root) == []
    rows = [status.page_status(page) for page in (draft, coins)]
    lines = listing.summary([], rows)
    assert lines[:2] == ["reports/aaa.qmd: DRAFT", f"  first: {draft.why}"] and lines[2].startswith(
        "reports/coins.qmd: "
    )
    assert f"This page is a DRAFT. {draft.why}" in words(header.place(TITLED, draft))


TITLED = '<html><body><header class="title-block"><h1>A</h1></header></body></html>'


def words(html: str) -> str:
    return entities.unescape(re.sub(r"<[^>]+>", "", html))


def test_a_study_that_cannot_be_imported_leaves_the_others_alone(root, monkeypatch):
    (root / "src/helpers/studies").mkdir(parents=True)
    for number, body in enumerate(("def broken(:\n", "1 / 0\n", "STUDY = 3\n")):
        folder = root / f"params/broken_{number}"
        folder.mkdir()
        (root / f"broken_{number}.py").write_text(body)
        (folder / "experiment.yaml").write_text(f"study: broken_{number}:STUDY\n")
        (folder / "criteria.yaml").write_text(toy_study.CRITERIA)
        (folder / "grid.yaml").write_text("bias: 0.5\n")
        page = PAGE.replace("coins", f"broken_{number}").replace("aaa", f"aaa-{number}")
        (root / f"reports/aaa-{number}.qmd").write_text(page)
    monkeypatch.syspath_prepend(str(root))
    pages = [status.page_status(page) for page in pages_in(root / "reports", root)]
    cells = [
        cell for name in ("broken_0", "broken_1", "broken_2", "coins") for cell in status.cells_of(name, root=root)
    ]
    assert [page.verdict for page in pages[:3]] == ["DRAFT"] * 3 and pages[3].verdict != "DRAFT"
    assert [page.why[0].split()[0:2] for page in pages[:3]] == [["The", "study"]] * 2 + [["broken_2:STUDY", "is"]]
    assert [cell.state for cell in cells if cell.notebook.startswith("broken")] == ["unreadable"] * 3
    assert {cell.state for cell in cells if cell.notebook == "coins"} == {"missing"}


def test_a_function_that_fails_makes_a_draft_of_its_page_alone(root, monkeypatch):
    monkeypatch.setattr(evidence.Evidence, "within", lambda self, scope: 1 / 0 if scope == {"seed": 0} else self)
    write(root, PAGE.replace("  primary", "  scope: {seed: 0}\n  primary"))
    draft, coins = pages_in(root / "reports", root)
    assert isinstance(draft, Draft) and draft.why == "ZeroDivisionError: division by zero" and isinstance(coins, Case)


def test_a_registered_page_that_cannot_be_read_is_a_finding_of_verify_and_its_look_is_not_lost(root):
    (root / "reports/coins.qmd").write_text("")
    [finding] = verify(root=root)
    assert finding.where == "reports/coins.qmd" and "cannot be read: " in str(finding)
    with pytest.raises(ClaimError, match="no front matter"):
        looks.enter("coins", root)


def test_a_relation_to_a_draft_is_flagged_and_drawn_nowhere(root):
    page = root / "reports/coins.qmd"
    page.write_text(page.read_text().replace("  status", "  relations: [{kind: consumes, target: aaa}]\n  status"))
    write(root, PAGE.replace("Prose.", "PLACEHOLDER"))
    graph = build(status.cases_in(root / "reports", root))
    assert graph.edges == () and graph.flags("coins") == ("Consumes aaa, which no finished page claims.",)
    assert not [one for one in lint.lint(root) if one.rule == "relation"]
    write(root, "")
    assert [one.rule for one in lint.lint(root) if "which no page claims" in one.message] == ["relation"]


def test_a_claim_that_holds_placeholders_cannot_be_registered(root):
    page = write(root, PAGE.replace("Do they?", "PLACEHOLDER"))
    with pytest.raises(ClaimError, match=r"aaa\.qmd cannot be registered: its question holds a PLACEHOLDER"):
        register([page], root=root)


@pytest.mark.pages
def test_the_site_is_rendered_around_a_draft_that_cannot_be(root):
    from helpers.site.fallback import Kernel, render_page
    from helpers.site.finish import finish
    from helpers.site.frame import read_project

    write(root, PAGE.replace("primary: fair", "primary: fairr").replace("Prose.", "```{python}\n1 / 0\n```"))
    files.write_text(root / "reports/_style.css", "")
    files.write_text(root / "_quarto.yml", (Path(__file__).parents[1] / "_quarto.yml").read_text())
    project, site = read_project(root), root / "_site"
    with Kernel() as kernel:
        written = [render_page(root / f"reports/{name}.qmd", project, site, kernel) for name in ("aaa", "coins")]
        finish(root, site, written)
        draft, coins = (words(path.read_text()) for path in written)
        assert "This page is a DRAFT. reports/aaa.qmd:" in draft and "There is nothing to show yet." in draft
        assert "DRAFT" not in coins and "Prose." in coins and "NOT RUN" in coins
        (root / "reports/coins.qmd").write_text(toy_study.PAGE.replace("Prose.", "```{python}\n1 / 0\n```"))
        with pytest.raises(ClaimError, match="division by zero"):
            render_page(root / "reports/coins.qmd", project, site, kernel)
