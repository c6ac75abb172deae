"""One record that cannot be read among three good ones: everything shows it with its reason, and goes on."""

from __future__ import annotations

import json
import shutil

import pytest
from claims_records import record
from toy_study import CoinCell, commit, project, run_cells
from typer.testing import CliRunner

from helpers import cli
from helpers.audit import publishing
from helpers.audit.register import register
from helpers.audit.verify import verify
from helpers.base import files
from helpers.base.files import write_json
from helpers.base.params import load
from helpers.cases.case import open_case
from helpers.records import reading as records
from helpers.records import run_record, runs
from helpers.site import listing
from helpers.site.lint import lint
from helpers.site.overview import records_used
from helpers.site.status import cases_in, cells_of, page_status

pytestmark = pytest.mark.unit


def good(**changes) -> str:
    return json.dumps(record({"lr": 0.1}, name="run", notebook="sweep").content | changes)


BROKEN = {
    "nothing": (b"", "Expecting value"),
    "half": (good()[:-9].encode(), "line 1"),
    "bytes": (b'{"\xff', "codec can't decode"),
    "another encoding": (good().encode("utf-16"), "codec can't decode"),
    "a list": (b"[]", "it has schema None"),
    "an old schema": (good(schema=1).encode(), "it has schema 1"),
    "a long schema": (good(schema="n" * 9000).encode(), "it has schema 'nnn"),
    "a depth without end": (b'{"a":' * 99_999, "nested too deeply"),
    "a number": (good(params={"x": 0}).replace('"x": 0', '"x": NaN').encode(), "NaN is not a JSON number"),
    "a large number": (good(params={"x": 10**30}).encode(), "overflows"),
    "a number of many digits": (good().replace("0.1", "9" * 9000).encode(), "4300"),
    "half of a character": (good(params={"x": ["\ud800"]}).encode(), "half of a character"),
    "half of a key": (good(cell={"x": {"\udfff": 1}}).encode(), "half of a character"),
    "half of a text": (good(launch="\ud800").encode(), "half of a character"),
    "an unknown key": (good(**{"\0\n" + "n" * 9000: 1}).encode(), r"'\x00\nnnn"),
    "a key twice": (good().replace('"lr"', f'"{"n" * 9000}": 1, "{"n" * 9000}"', 1).encode(), "is given twice"),
    "a moment": (good(started="n" * 9000).encode(), "not a moment"),
    "an error": (good(error="n\n" * 9000).encode(), "but its error is"),
}  # fmt: skip


def test_a_record_is_read_once_within_a_command_and_anew_after_a_change(outputs, monkeypatch):
    parsed = []
    parse = records.parse
    monkeypatch.setattr(files, "CLOCK_NS", 0)  # otherwise a file that changed just now is read anew
    monkeypatch.setattr(records, "parse", lambda *given: parsed.append(given[3]) or parse(*given))
    path = files.outputs_root() / "sweep/run/run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(good(error=None))
    with records.read_once():
        first = records.load("sweep/run")
        with records.read_once():
            assert records.load("sweep/run") is first and parsed == ["run"]
        assert first in records.records("sweep") and parsed.count("run") == 1
        path.write_text(good(launch="another"))
        assert records.load("sweep/run").launch == "another" and parsed.count("run") == 2
    assert records.load("sweep/run") is not records.load("sweep/run"), "outside each reader has its own"


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    for n in range(3):
        made = record({"lr": n}, name=f"good-{n}", notebook="sweep")
        write_json(tmp_path / "outputs/sweep" / made.id / "run.json", made.content)
    (tmp_path / "outputs/sweep/run").mkdir()
    return tmp_path / "outputs"


@pytest.mark.parametrize("kind", BROKEN)
def test_whatever_run_json_holds_is_one_sentence_and_stops_no_other_record(outputs, kind):
    text, reason = BROKEN[kind]
    (outputs / "sweep/run/run.json").write_bytes(text)
    [broken, *rest] = records.records("sweep", status=None)
    assert (broken.id, broken.status) == ("run", "unreadable") and reason in broken.error
    assert broken.error.isprintable() and len(broken.error) < 400
    assert [one.status for one in rest] == ["complete"] * 3
    assert [one.id for one in records.records("sweep")] == ["good-0", "good-1", "good-2"]


def test_deep_parameters_are_read_or_refused_but_no_error_of_python(outputs):
    for depth in (10, 100, 900, 3000):
        text = good(params={"x": 0}).replace('"x": 0', '"x": ' + "[" * depth + "]" * depth)
        try:
            assert run_record.parse(text)["id"] == "run"
        except ValueError as error:
            assert "too deeply" in str(error) and depth > 100


@pytest.mark.parametrize("more", [0, 2])
def test_status_of_the_command_line_says_why(outputs, more):
    for n in range(more + 1):
        folder = outputs / f"sweep/{'xyz'[n]}"
        folder.mkdir()
        (folder / "run.json").write_bytes(b'{"schema": 2, "schema": 2}')
    short = CliRunner().invoke(cli.app, ["status", "sweep"])
    assert short.exit_code == 0 and f", {more + 1} unreadable\n  unreadable: x  (" in short.stdout
    line = short.stdout.partition("  unreadable: ")[2].partition("\n  ad hoc: ")[0]
    assert "the key 'schema' is given twice" in line and line.endswith(" and 2 more") == bool(more)
    whole = CliRunner().invoke(cli.app, ["status", "sweep", "--all"])
    assert whole.exit_code == 0 and whole.stdout.count("\n  unreadable ") == more + 1
    assert whole.stdout.count("the key 'schema' is given twice") == more + 1


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Four coins, published; nothing is left in the outputs."""
    root = project(tmp_path / "house", monkeypatch)
    register([root / "reports/coins.qmd"], root=root)
    run_cells(load(CoinCell, files.PARAMS / "coins" / "grid.yaml"))
    publishing.publish("coins")
    commit(root)
    return root


@pytest.mark.parametrize("place", ["outputs", "published"])
def test_pages_lint_and_verify_go_on_beside_it(house, monkeypatch, place):
    whole = [one for one in lint(house) if one.rule == "record"]
    ids = [one.id for one in runs.records("coins")]
    if place == "published":
        monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(house / "empty"))
    else:
        shutil.rmtree(house / "published/coins" / ids[0])
    head = house / place / "coins" / ids[0] / "run.json"
    head.write_text(head.read_text().replace('"heads_rate":{"value":', '"heads_rate":{"value":1e999,"x":', 1))
    table = runs.table("coins").set_index("id")
    assert table.status[ids[0]] == "unreadable" and table.published[ids[0]] == (place == "published")
    assert table.status[ids[1:]].tolist() == ["complete"] * 3 and table.heads_rate.isna().tolist().count(True) == 1
    rows = {row.record or row.cell: row for row in cells_of("coins", root=house)}
    reason = rows[ids[0]].why[0]
    assert rows[ids[0]].state == "unreadable" and "metrics.heads_rate" in reason
    assert [rows[name].state for name in ids[1:]] == ["complete"] * 3 and "missing" in {r.state for r in rows.values()}
    [case] = cases_in(house / "reports", house)
    assert (
        {one.id for one in case.records}
        == set(ids[1:])
        == {one.id for one in records_used([case]) if one.notebook == "coins"}
    )
    assert case.verdict().word == open_case(case.path, house).verdict().word != "SUPPORTED"
    shown = "\n".join(listing.summary(list(rows.values()), [page_status(case)]))
    assert "3 complete, 1 missing, 1 unreadable" in shown and f"  unreadable: {ids[0]}  ({reason})" in shown
    found = [one for one in lint(house) if one.rule == "record"]
    assert found == whole, "what rests on the good records has no fault"
    verified = [one for one in verify(None, house) if one.field == "run.json"]
    assert {one.where for one in verified} == ({f"coins/{ids[0]}"} if place == "published" else set())


def test_an_unreadable_baseline_is_a_finding_of_lint_for_each_record_that_used_it(house):
    base = records.load(runs.records("coins")[0].inputs["base"])
    (base.path / "run.json").write_text("{}")
    found = [one.message for one in lint(house) if one.rule == "record"]
    assert len([text for text in found if "inputs.base" in text and "schema None" in text]) == 2
