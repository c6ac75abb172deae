"""The ledger: lines that follow each other, history that only grows, and two branches that both grew."""

from __future__ import annotations

import json
import subprocess

import pytest
from toy_study import commit, project

from helpers.audit import branches
from helpers.base.errors import RecordError
from helpers.records import ledger

pytestmark = pytest.mark.unit
SHA = "a" * 64


@pytest.fixture
def house(tmp_path, monkeypatch):
    return project(tmp_path / "house", monkeypatch)


def published(name: str) -> dict[str, str]:
    return {"event": "published", "kind": "record", "name": name, "sha256": SHA}


def rows() -> list[str]:
    return ledger.path().read_text().splitlines()


def write(changed: list[str]) -> None:
    ledger.path().write_text("\n".join(changed) + "\n")


def test_each_line_holds_the_hash_of_the_line_before(house):
    ledger.append([published("coins/a")])
    book = ledger.append([published("coins/b"), published("coins/c")])
    assert [line.name for line in book.lines] == ["coins/a", "coins/b", "coins/c"]
    assert [line.before for line in book.lines] == [[], [book.hashes[0]], [book.hashes[1]]]
    assert book.head == book.hashes[-1] and ledger.read() == book


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("lie", ["coins/z", SHA.replace("a", "b", 1)])
def test_a_changed_line_breaks_the_chain_behind_it(house, number, lie):
    ledger.append(published(f"coins/{name}") for name in "abc")
    changed = rows()
    old = f"coins/{'abc'[number]}" if lie == "coins/z" else SHA
    changed[number] = changed[number].replace(old, lie)
    write(changed)
    with pytest.raises(RecordError, match=f"line {number + 2} does not follow"):
        ledger.read()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "line 1 does not follow"),
        (lambda rows: [rows[0], rows[2]], "line 2 does not follow"),
        (lambda rows: [rows[1], rows[0], rows[2]], "line 1 does not follow"),
        (lambda rows: [*rows, rows[0]], "line 4 does not follow"),
        (lambda rows: [*rows, '{"event": "published"}'], "line 4 is not an event"),
        (lambda rows: [*rows[:2], "not json"], "line 3 is not JSON"),
        (
            lambda rows: [*rows[:2], rows[2].replace('"kind"', '"kind":"grid","kind"')],
            "not in the form that Claimbook writes",
        ),
        (lambda rows: [*rows[:2], rows[2].replace(",", ", ")], "not in the form that Claimbook writes"),
    ],
)
def test_lines_taken_out_swapped_or_malformed_are_found(house, change, message):
    ledger.append(published(f"coins/{name}") for name in "abc")
    write(change(rows()))
    with pytest.raises(RecordError, match=message):
        ledger.read()


def test_a_cut_line_is_found(house):
    ledger.append([published("coins/a")])
    ledger.path().write_text(ledger.path().read_text()[:-10])
    with pytest.raises(RecordError, match="cut short"):
        ledger.read()


@pytest.mark.parametrize(
    "event",
    [
        published("coins/a") | {"reason": "none is asked for"},
        published("coins/a") | {"event": "withdrawn"},
        published("coins/a") | {"event": "amended", "reason": "a slip"},
        published("coins/a") | {"was": SHA},
        published("../a"),
        published("coins/a") | {"sha256": "short"},
    ],
)
def test_what_is_no_event_is_not_written(house, event):
    with pytest.raises(ValueError):
        ledger.append([event])
    assert not ledger.path().is_file()


def test_what_stands_is_the_last_word_on_each_object(house):
    ledger.append([published("coins/a"), published("coins/b")])
    ledger.append([published("coins/a") | {"event": "derived", "was": SHA, "sha256": "b" * 64}])
    ledger.append([published("coins/a") | {"event": "replayed", "note": "equal to the last bit", "sha256": "c" * 64}])
    ledger.append([published("coins/b") | {"event": "withdrawn", "reason": "a wrong mask"}])
    standing = ledger.read().standing("record")
    assert {name: line.sha256 for name, line in standing.items()} == {"coins/a": "b" * 64}


def test_a_chain_built_anew_shows_in_git(house):
    ledger.append(published(f"coins/{name}") for name in "abc")
    commit(house)
    assert branches.history() == branches.History(True)
    ledger.append([published("coins/d")])
    commit(house)
    assert branches.history() == branches.History(True), "it grew"
    ledger.path().unlink()
    ledger.append(published(f"coins/{name}") for name in "abxd")
    assert ledger.read().head, "the forged chain is whole"
    assert "working tree" in branches.history().finding
    commit(house)
    assert "commit" in branches.history().finding
    ledger.append([published("coins/e")])
    commit(house)
    assert "commit" in branches.history().finding, "later honest lines do not hide it"


def test_history_is_not_checked_where_git_cannot_tell(house, tmp_path):
    ledger.append([published("coins/a")])
    commit(house)
    ledger.append([published("coins/b")])
    commit(house)
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{house}", "shallow"], cwd=tmp_path, check=True)
    (tmp_path / "house/.git").rename(tmp_path / "no-git")
    assert branches.history() == branches.History(False), "a zip has no history"
    ledger.path().parent.rename(tmp_path / "gone")
    (tmp_path / "shallow/published").rename(house / "published")
    (tmp_path / "shallow/.git").rename(house / ".git")
    assert branches.history() == branches.History(False), "nor has a shallow clone"


def test_two_branches_that_both_grew_are_joined(house):
    ledger.append([published("coins/a")])
    commit(house)
    subprocess.run(["git", "checkout", "-q", "-b", "other"], cwd=house, check=True)
    ledger.append([published("coins/theirs")])
    commit(house)
    subprocess.run(["git", "checkout", "-q", "main"], cwd=house, check=True)
    ledger.append([published("coins/ours")])
    commit(house)
    assert subprocess.run(["git", "merge", "other"], cwd=house, capture_output=True, check=False).returncode
    with pytest.raises(RecordError):
        ledger.read()
    assert branches.join() == 4
    commit(house)
    book = ledger.append([published("coins/after")])
    assert [line.name for line in book.lines if line.kind == "record"] == [
        "coins/a", "coins/ours", "coins/theirs", "coins/after",
    ]  # fmt: skip
    commit(house)
    assert branches.history() == branches.History(True)
    cut = [row for row in rows() if json.loads(row)["name"] != "coins/theirs"]
    write(cut)
    with pytest.raises(RecordError, match="does not follow"):
        ledger.read()


def test_two_ends_without_a_merge_are_found(house):
    ledger.append([published("coins/a")])
    fork = ledger.path().read_text()
    ledger.append([published("coins/ours")])
    ours = rows()
    ledger.path().write_text(fork)
    ledger.append([published("coins/theirs")])
    write([*ours, rows()[-1]])
    with pytest.raises(RecordError, match="two ends"):
        ledger.read()
