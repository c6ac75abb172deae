"""The ten-minute path: a table becomes records, a claim about them, and a judged page."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from typer.testing import CliRunner

from helpers.base.errors import ClaimError
from helpers.cases.case import open_case
from helpers.cli import app
from helpers.records.reading import Record
from helpers.site import from_import, parts
from helpers.site.from_import import Comparison
from helpers.site.header import replays_of
from helpers.studies.imported import importing
from helpers.studies.imported.params import LogCell

pytestmark = pytest.mark.unit


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with two logs of 60 questions, 54 and 30 of them right and three without a score."""
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    cells = []
    for label, right in (("strong", 54), ("weak", 30)):
        path = tmp_path / f"{label}.csv"
        scores = [1] * right + [0] * (57 - right) + [None] * 3
        pd.DataFrame({"right": scores, "id": range(60)}).to_csv(path, index=False)
        cells.append(LogCell(label=label, tool="csv", file=str(path), columns=["metric=right", "id=id"]))
    importing.import_logs("logs", cells, tmp_path)
    (tmp_path / "reports").mkdir()
    return tmp_path


def judged(project, claimed: Comparison, question: str = "primary"):
    [_, page] = from_import.create("a-claim", "logs", claimed, project)
    return open_case(page, project).verdict(question)


@pytest.mark.parametrize(
    ("claimed", "word"),
    [
        (Comparison("right", 0.7, a="strong"), "SUPPORTED"), (Comparison("right", 0.7, a="weak"), "REFUTED"),
        (Comparison("right", 0.7), "REFUTED"), (Comparison("right", 0.3), "SUPPORTED"),
        (Comparison("right", 0.55, a="weak"), "UNDECIDED"), (Comparison("right", 0.7, False, a="weak"), "SUPPORTED"),
        (Comparison("right", 0.2, a="strong", b="weak"), "SUPPORTED"),
        (Comparison("right", 0.2, a="weak", b="strong"), "REFUTED"),
    ],
)  # fmt: skip
def test_a_claim_is_judged_by_the_interval(project, claimed, word):
    verdict = judged(project, claimed)
    assert verdict.word == word and (word == "UNDECIDED" or "The recipe is not judged" in verdict.sentence)


def test_the_verdict_is_also_given_with_what_is_missing_counted_as_wrong(project):
    claimed = Comparison("right", 0.84, a="strong")
    assert judged(project, claimed).word != judged_again(project).word


def judged_again(project):
    return open_case(project / "reports/a-claim.qmd", project).verdict("unscored_wrong")


@pytest.mark.parametrize(
    ("claimed", "sentence"),
    [
        (Comparison("rigth", 0.5), "did you mean 'right'"),
        (Comparison("right", 0.5, a="stong"), "did you mean 'strong'"),
        (Comparison("right", 0.5, b="weak"), "Name that one"),
    ],
)  # fmt: skip
def test_what_the_logs_do_not_have_is_refused_and_nothing_is_written(project, claimed, sentence):
    with pytest.raises(ClaimError, match=sentence):
        from_import.create("a-claim", "logs", claimed, project)
    assert list((project / "reports").iterdir()) == []
    with pytest.raises(ClaimError, match="No log was imported and no command recorded as other"):
        from_import.create("a-claim", "other", Comparison("right", 0.5), project)


def test_a_page_that_is_there_is_not_written_over(project):
    from_import.create("a-claim", "logs", Comparison("right", 0.5), project)
    with pytest.raises(ClaimError, match="is there already"):
        from_import.create("a-claim", "logs", Comparison("right", 0.6), project)


@pytest.mark.parametrize(
    "words", [["--metric", "right"], ["--at-least", "0.5"], ["--metric", "right", "--at-least", "0", "--at-most", "1"]]
)
def test_the_command_asks_for_what_it_lacks(words):
    done = CliRunner().invoke(app, ["new", "a-claim", "--from-import", *words])
    assert done.exit_code == 1 and "--metric NAME with either --at-least or --at-most" in done.stderr


@pytest.fixture
def page(project):
    [_, path] = from_import.create("a-claim", "logs", Comparison("right", 0.3), project)
    return open_case(path, project)


def words_of(block) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", str(block.__html__())).split())


def test_a_page_of_logs_says_what_each_log_says_and_what_it_does_not(page):
    shown = words_of(parts.stated(page, "What each log says", "log"))
    for entry in ("seed", "generation", "tool_version", "created", "status"):
        assert f"{entry} not recorded" in shown
    rows = {row.name: row for row in page.confidence().rows}
    assert rows["base models"].found == "the records do not say which base model they are of"
    assert rows["base models"].allows == "LOW" and rows["truncation"].allows == "LOW"
    assert "do not say how many answers were cut" in rows["truncation"].found
    assert rows["recipe"].found == "The recipe is not judged: no record names a training seed"


def test_entries_that_differ_between_logs_are_named_by_their_logs(page, monkeypatch):
    said = iter([{"seed": 7, "generation": {"top_p": 0.5}}, {"seed": 7, "generation": {"top_p": 0.9}}])
    monkeypatch.setattr(Record, "results", property(lambda record: {"log": next(said)}))
    shown = words_of(parts.stated(page, "What each log says", "log"))
    assert "seed 7" in shown and "generation.top_p 0.5 (" in shown and "0.9 (" in shown


def test_records_that_nothing_here_can_make_again_are_said_to_be_so(page):
    assert replays_of(page) == "None of its 2 records can be run again from what it holds."


def test_a_claim_reads_as_a_sentence():
    kind = from_import.KINDS["imported"]
    assert from_import.statement(Comparison("right", 0.5), kind) == "In every log, right is at least 0.5."
    compared = from_import.statement(Comparison("right", 0.2, False, "a", "b"), kind)
    assert compared == "The difference in right, a minus b, is at most 0.2."
