"""What `claimbook status` says is kept while nothing changes, and nothing but `status` reads what is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types

import pytest
from typer.testing import CliRunner

from helpers import cli
from helpers.base import files
from helpers.site import kept, status
from helpers.system.source import imports_of

pytestmark = pytest.mark.unit
SAID = {"summary": ["a page: UNDECIDED"], "whole": []}
RECORD, PUBLISHED, HALF = "outputs/toy/a/run.json", "outputs/published/toy/b/rows.parquet", "outputs/toy/.partial-c/x"
FILES = (RECORD, PUBLISHED, HALF, "params/toy/grid.yaml", "reports/toy.qmd", "src/helpers/toy.py", "notebooks/toy.py",
         "data/toy.txt", "elsewhere/data.txt", "site-packages/module.py")  # fmt: skip


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with one commit, data outside of it and a loaded module; files may have changed just now."""
    for name in FILES:
        files.write_text(tmp_path / name, "first")
    monkeypatch.setattr(files, "ROOT", tmp_path)
    for name in ("notebooks", "params", "reports", "data"):
        monkeypatch.setattr(files, name.upper(), tmp_path / name)
    monkeypatch.delenv("CLAIMBOOK_OUTPUTS", raising=False)
    monkeypatch.delenv("CLAIMBOOK_PUBLISHED", raising=False)
    monkeypatch.setattr(files, "CLOCK_NS", 0)
    module = types.ModuleType("a_module_that_judges")
    module.__file__ = str(tmp_path / "site-packages/module.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    commit(tmp_path)
    return tmp_path


def commit(root):
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init"], ["add", "params"], [*author, "commit", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True, capture_output=True)


class Maker:
    """Counts how often the answer is made."""

    def __init__(self, root, settled: bool = True):
        self.answer, self.count = kept.Answer(SAID, frozenset({str(root / "elsewhere/data.txt")}), settled), 0

    def __call__(self) -> kept.Answer:
        self.count += 1
        return self.answer


def made_again(root, name: str = "", **options: bool) -> bool:
    make = Maker(root, **options)
    assert kept.recall(name, make) == SAID
    return make.count == 1


def test_an_answer_is_recalled_while_nothing_changes(root):
    assert made_again(root)
    assert not made_again(root) and not made_again(root)
    assert made_again(root, "another")
    files.write_text(root / "outputs/.derived/x.json", "a cache")
    files.write_text(root / "src/helpers/__pycache__/toy.pyc", "a cache")
    assert not made_again(root)


def rewritten(path):
    """Write other content of the same size, and give the file its times back."""
    before = path.stat()
    path.write_text("other", encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [rewritten, lambda path: path.unlink(), lambda path: path.with_name("new").touch()])
def test_whatever_a_status_is_made_from_makes_it_new(root, name, change):
    assert made_again(root) and not made_again(root)
    is_listed = not name.startswith(("elsewhere", "site-packages"))  # of these only the very file counts
    change(root / name)
    assert made_again(root) == (is_listed or not (root / name).with_name("new").exists())


def test_another_commit_or_another_place_makes_it_new(root, monkeypatch):
    assert made_again(root) and not made_again(root)
    commit(root)
    assert made_again(root) and not made_again(root)
    monkeypatch.setenv("CLAIMBOOK_CACHE", str(root / "cache"))
    assert made_again(root) and not made_again(root)
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(root / "others"))
    assert made_again(root)


def test_what_changed_just_now_or_can_change_without_a_file_is_not_kept(root, monkeypatch):
    assert made_again(root, settled=False) and made_again(root)
    monkeypatch.setattr(files, "CLOCK_NS", 3600 * 10**9)  # everything is as fresh as that
    assert made_again(root) and made_again(root)


def test_what_changes_while_it_is_made_is_not_kept(root):
    def make() -> kept.Answer:
        files.write_text(root / RECORD, "changed meanwhile")
        return kept.Answer(SAID)

    assert kept.recall("", make) == SAID and made_again(root)


def test_nothing_is_kept_beside_a_link_to_a_folder_or_on_a_disk_that_takes_nothing(root, monkeypatch):
    (root / "outputs/linked").symlink_to(root / "elsewhere")
    assert made_again(root) and made_again(root)
    (root / "outputs/linked").unlink()
    files.write_text(root / "outputs/.status", "no folder")
    assert made_again(root) and made_again(root)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '"x"', "[" * 100_000, '{"stamp": "x", "files": [1], "lines": {}}', "\udcff"]
)
def test_a_damaged_answer_is_made_again(root, text):
    assert made_again(root)
    (path,) = (root / "outputs/.status").iterdir()
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert made_again(root) and not made_again(root)


def test_a_forged_answer_reaches_no_page_and_only_status_reads_it(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    monkeypatch.setattr(files, "CLOCK_NS", 0)
    asked = ["status", "bench"]
    assert "reports/speed.qmd: NOT RUN" in CliRunner().invoke(cli.app, asked).stdout
    (path,) = (tmp_path / "outputs/.status").iterdir()
    path.write_text(path.read_text(encoding="utf-8").replace("NOT RUN", "SUPPORTED"), encoding="utf-8")
    assert "reports/speed.qmd: SUPPORTED" in CliRunner().invoke(cli.app, asked).stdout  # it was recalled
    (page,) = status.status("bench")[1]
    assert page.verdict == "NOT RUN"
    readers = {
        path.relative_to(files.ROOT).as_posix()
        for path in (files.ROOT / "src").rglob("*.py")
        if "helpers.site.kept" in imports_of(path.read_text(encoding="utf-8"), "helpers.a.module")
    }
    assert readers == {"src/helpers/cli/__init__.py", "src/helpers/site/status.py"}
    assert "recall" not in (files.ROOT / "src/helpers/site/status.py").read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8"))["lines"].keys() == {"summary", "whole"}
    ignored = subprocess.run(
        ["git", "check-ignore", "-q", f"outputs/{kept.FOLDER}/x.json"], cwd=files.ROOT, check=False
    )
    assert ignored.returncode == 0
