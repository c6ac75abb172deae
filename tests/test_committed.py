"""Records that were made before a commit: once a commit holds the same code, status and page say so."""

from __future__ import annotations

import re
import subprocess

import pytest
import toy_study
from typer.testing import CliRunner

from helpers.audit import committed
from helpers.audit.register import register
from helpers.base import files
from helpers.cases.case import open_case
from helpers.cli import app
from helpers.site import header, listing, status

pytestmark = pytest.mark.unit
CODE = "src/helpers/base/rng.py"


@pytest.fixture
def root(tmp_path, monkeypatch):
    root = toy_study.project(tmp_path, monkeypatch)
    for module in (status, header.graph):
        for name in {"ROOT", "PARAMS", "REPORTS"} & set(vars(module)):
            monkeypatch.setattr(module, name, getattr(files, name))
    return root


def head(root) -> str:
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def run(seed: int = 0, **cell):
    return toy_study.run_cell(toy_study.CoinCell(bias=0.7, seed=seed, **cell))


def commit(root, text: str) -> str:
    files.write_text(root / CODE, text)
    toy_study.commit(root)
    return head(root)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_record_is_committed_since_its_code_is(root, is_first):
    if not is_first:
        commit(root, "A = 0\n")
    files.write_text(root / CODE, "A = 1\n")
    early = run()
    assert committed.before_commit(early) and committed.committed_since(early, committed.head_now()) is None
    assert committed.state(early, committed.head_now()) == ("" if is_first else committed.NEVER)
    commit(root, "A = 2\n")
    assert committed.state(early, committed.head_now()) == committed.NEVER
    first = commit(root, "A = 1  # a comment, and other line ends\r\n")
    commit(root, "A = 3\n")
    assert committed.committed_since(early, committed.head_now()) == first
    assert committed.state(early, committed.head_now()) == f"committed since: same code ({first[:7]})"


def test_what_was_uncommitted_beside_the_code_does_not_count(root):
    base = commit(root, "A = 1\n")
    files.write_text(root / "params/coins/other.yaml", "bias: 0.7\n")
    dirty = run()
    assert dirty.provenance["dirty"] and committed.committed_since(dirty, committed.head_now()) == base
    (root / "params/coins/other.yaml").unlink()
    clean = run(seed=1)
    assert (
        not committed.before_commit(clean)
        and committed.state(clean, committed.head_now()) == committed.sentence([clean]) == ""
    )


def test_status_and_page_say_it(root):
    commit(root, "A = 1\n")
    files.write_text(root / CODE, "A = 2\n")
    run()
    register([root / "reports/coins.qmd"], root=root)
    case = open_case("reports/coins.qmd", root)
    never = "1 record was made with uncommitted changes: 1 of code that no commit has."
    assert never in words(case)
    now = commit(root, "A = 2\n")
    said = f"1 record was made with uncommitted changes: 1 committed since: same code ({now[:7]})."
    assert said in words(case)
    [page] = map(status.page_status, status.cases_in(root / "reports", root))
    assert page.code == said and f"  code: {said}" in listing.summary([], [page])
    [cell] = [cell for cell in status.cells_of("coins", root=root) if cell.state == "complete"]
    assert cell.why[-1] == f"committed since: same code ({now[:7]})"


def words(case) -> str:
    return re.sub(r"<[^>]+>", "", str(header.header(case).fragment))


def test_records_that_no_grid_declares_are_listed_on_the_page_and_by_publish(root):
    run(), run(seed=1, flips=20)
    assert "Declared by no params file, so not judged: bias=0.7, seed=1 (flips is 20, not 50)." in words(
        open_case("reports/coins.qmd", root)
    )
    toy_study.commit(root)
    done = CliRunner().invoke(app, ["publish", "coins"])
    assert done.exit_code == 0, done.output
    assert (
        "declared by no params file: bias=0.7, seed=1 (flips is 20, not 50; nearest: params/coins/grid.yaml)"
        in done.stderr
    )
    assert done.stderr.count("declared by no") == 1


def test_git_is_asked_for_the_head_no_more_often_where_there_are_more_records(root, monkeypatch):
    commit(root, "A = 0\n")
    files.write_text(root / CODE, "A = 1\n")
    asked, git = [], committed.git

    def times(of) -> int:
        asked.clear()
        of()
        return asked.count("rev-parse")

    monkeypatch.setattr(committed, "git", lambda *words, **named: asked.append(words[0]) or git(*words, **named))
    one = [run()]
    more = [*one, *(run(seed) for seed in range(1, 6))]
    assert committed.sentence(more).startswith("6 records were made with uncommitted changes")
    assert times(lambda: committed.sentence(more)) == times(lambda: committed.sentence(one)) == 1
    assert times(lambda: status.cells_of("coins", root=root)) == 1
