"""The ledger: lines that follow each other, history that only grows, and two branches that both grew."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from pydantic import ValidationError
from toy_study import commit, project
from typer.testing import CliRunner

from helpers import cli
from helpers.audit import branches, entries, verify
from helpers.base import files
from helpers.base.errors import RecordError
from helpers.records import ledger
from helpers.site import lint as site_lint

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


def test_a_ledger_is_parsed_once_and_anew_when_it_was_changed_however_its_times_and_size_look(house, monkeypatch):
    ledger.append(published(f"coins/{name}") for name in "abc")
    monkeypatch.setattr(files, "CLOCK_NS", 0)  # it was written just now
    texts = []
    text = ledger._text
    monkeypatch.setattr(ledger, "_text", lambda place: texts.append(place) or text(place))
    assert ledger.read() is ledger.read() and len(texts) == 1
    before = ledger.path().stat()
    forged = ledger.path().read_text().replace("coins/a", "coins/z")
    with ledger.path().open("r+") as file:
        file.write(forged)
    os.utime(ledger.path(), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (ledger.path().stat().st_size, ledger.path().stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(RecordError, match="line 2 does not follow"):
        ledger.read()


class Counted(tuple):
    """Lines that say how often all of them are gone through."""

    passes = 0

    def __iter__(self):
        Counted.passes += 1
        return super().__iter__()


def test_the_events_of_each_object_are_found_without_going_through_all_lines_for_each():
    lines = [ledger.Line(at=ledger.now(), before=[], **published(f"coins/{number}")) for number in range(50)]
    book = ledger.Ledger(Counted(lines), (SHA,) * 50)
    assert [book.of("record", line.name) for line in lines] == [[line] for line in lines]
    assert Counted.passes == 1 and not book.of("record", "coins/none") and not book.of("grid", "coins/0")
    names = [*(f"{line.name}/run.json" for line in lines), "ledger.jsonl", "coins/none/run.json", "judged/coins.json"]
    assert entries._unknown(names, {line.name for line in lines}, book) == ["coins/none/run.json", "judged/coins.json"]
    assert Counted.passes == 2


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
    ledger.append([published("coins/a") | {"event": "replayed", "note": "equal to the last bit", "sha256": "b" * 64}])
    ledger.append([published("coins/b") | {"event": "withdrawn", "reason": "a wrong mask"}])
    standing = ledger.read().standing("record")
    assert {name: line.sha256 for name, line in standing.items()} == {"coins/a": "b" * 64}


CRITERIA = {"event": "registered", "kind": "criteria", "name": "params/x.yaml", "sha256": SHA}
OTHER = "b" * 64
WHY = {"reason": "a slip"}


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        (published("coins/a") | {"sha256": OTHER}, "stands already"),
        (published("coins/a") | {"event": "derived", "sha256": OTHER, "was": OTHER}, "another content"),
        (published("coins/b") | {"event": "derived", "sha256": OTHER, "was": SHA}, "does not stand"),
        (published("coins/a") | {"event": "replayed", "sha256": OTHER}, "another content"),
        (published("coins/b") | {"event": "replayed"}, "does not stand"),
        (published("coins/a") | {"event": "withdrawn", "sha256": OTHER} | WHY, "another content"),
        (CRITERIA | {"sha256": OTHER}, "stands already"),
        (CRITERIA | {"event": "amended", "sha256": OTHER, "was": OTHER} | WHY, "another content"),
        (CRITERIA | {"event": "amended", "name": "params/y.yaml", "sha256": OTHER, "was": SHA} | WHY, "does not stand"),
        (published("coins/c") | {"at": "2000-01-01T00:00:00+00:00"}, "dated before"),
    ],
)
def test_a_line_that_cannot_be_true_of_what_stood_is_refused(house, lie, why):
    ledger.append([published("coins/a"), CRITERIA])
    book = ledger.read()
    line = ledger.Line(**{"at": book.lines[-1].at, **lie, "before": [book.head]})
    write([*rows(), ledger.as_row(line)])
    with pytest.raises(RecordError, match=rf"line 3 cannot be true: .*{why}"):
        ledger.read()


@pytest.mark.parametrize(
    "event",
    [
        published("coins/a") | {"kind": "criteria"}, CRITERIA | {"kind": "record"},
        CRITERIA | {"event": "withdrawn"} | WHY, published("coins/a") | {"at": "once upon a time"},
        published("coins/a") | {"at": "2026-01-01T00:00:00"},
    ],
)  # fmt: skip
def test_events_are_of_their_kinds_and_have_a_moment(house, event):
    with pytest.raises(ValidationError):
        ledger.append([event])


def test_a_line_put_between_others_or_dropped_by_a_merge_shows_in_git(house):
    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=house, check=True, capture_output=True)

    ledger.append([published("coins/a"), published("coins/b")])
    commit(house)
    git("branch", "before")
    ledger.append([published("coins/c")])
    commit(house)
    assert branches.history().finding is None
    git("checkout", "-q", "-b", "drops", "before")
    git("merge", "-q", "-s", "ours", "-m", "no", "-")
    assert "commit" in branches.history().finding, "a merge may drop no line of either side"
    git("checkout", "-q", "before")
    first, second = rows()
    forked = ledger.Line(**published("coins/z"), at=ledger.read().lines[0].at, before=[ledger.read().hashes[0]])
    text = "".join(f"{row}\n" for row in (first, ledger.as_row(forked), second))
    heads = [files.sha256_bytes(ledger.as_row(forked).encode()), files.sha256_bytes(second.encode())]
    joined = ledger.Line(
        event="merged", at=ledger.now(), kind="ledger", name="ledger.jsonl",
        sha256=files.sha256_bytes(text.encode()), before=heads,
    )  # fmt: skip
    ledger.path().write_text(f"{text}{ledger.as_row(joined)}\n")
    assert "coins/z" in ledger.read().standing("record"), "the chain is whole"
    assert "working tree" in branches.history().finding
    commit(house)
    assert "commit" in branches.history().finding


def test_a_merged_line_holds_the_hash_of_what_it_joins(house):
    ledger.append([published("coins/a")])
    shared = ledger.path().read_text()
    ledger.append([published("coins/b")])
    ours = ledger.path().read_text()
    ledger.path().write_text(shared)
    ledger.append([published("coins/c")])
    joined = branches.merge(ours, ledger.path().read_text())
    last = joined.splitlines()[-1]
    forged = joined.replace(json.loads(last)["sha256"], "0" * 64)
    assert len(ledger.read(joined).lines) == 4
    with pytest.raises(RecordError, match="does not hold the hash of the lines before it"):
        ledger.read(forged)


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


def test_a_repository_around_an_unpacked_archive_is_not_asked(house):
    ledger.append([published("coins/a")])
    assert branches.history() == branches.History(False), "not committed yet"
    commit(house)
    (house / ".git").rename(house.parent / ".git")
    assert branches.history() == branches.History(False)


def test_lint_and_verify_say_that_the_history_was_not_checked(house, monkeypatch):
    ledger.append([published("coins/a")])
    commit(house)
    monkeypatch.setattr(site_lint, "lint", lambda **_: [])
    monkeypatch.setattr(verify, "verify", lambda *_, **__: [])
    said = "The ledger's history was not checked"
    for command in ("lint", "verify"):
        whole = CliRunner().invoke(cli.app, [command])
        assert whole.exit_code == 0 and "No findings." in whole.stdout and said not in whole.stdout
    (house / ".git").rename(house.parent / "gone")
    for command in ("lint", "verify"):
        assert said in CliRunner().invoke(cli.app, [command]).stdout


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


def test_what_one_branch_amended_stands_after_a_merge_whichever_side_it_was_on(house):
    thing = {"kind": "criteria", "name": "c.yaml"}
    ledger.append([published("coins/a"), {"event": "registered", **thing, "sha256": SHA}])
    start = ledger.path().read_text()
    ledger.append([{"event": "amended", **thing, "sha256": "b" * 64, "was": SHA, "reason": "a slip"}])
    ledger.append([{"event": "withdrawn", "kind": "record", "name": "coins/a", "sha256": SHA, "reason": "a slip"}])
    amended = ledger.path().read_text()
    ledger.path().write_text(start)
    ledger.append([published("coins/b")])
    grown = ledger.path().read_text()
    for sides in ((amended, grown), (grown, amended)):
        ledger.path().write_text(branches.merge(*sides))
        ledger.append([{"event": "amended", **thing, "sha256": "c" * 64, "was": "b" * 64, "reason": "again"}])
        ledger.append([published("coins/a")])  # it was withdrawn, so it can be published
        assert ledger.read().standing("criteria")["c.yaml"].sha256 == "c" * 64


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
