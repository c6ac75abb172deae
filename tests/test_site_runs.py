"""The page of runs: what it lists, what it says of each run, and that it holds ten thousand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from site_fixture import HOSTILE, make_bare_record

from helpers.base.errors import ClaimError, RecordError
from helpers.base.files import REPORTS, ROOT
from helpers.records.reading import Record, records
from helpers.site.check import check_site
from helpers.site.overview import records_used
from helpers.site.run_list import details, run_list, write_details
from helpers.site.status import cases_in

pytestmark = pytest.mark.unit

MEGABYTE = 2**20


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    return tmp_path / "outputs"


def written(page: Path) -> dict[str, list]:
    """Run id -> details, from the data files beside a page, in their order."""
    files = sorted(page.with_suffix("").glob("*.js"), key=lambda path: int(path.stem))
    found = []
    for number, path in enumerate(files):
        text = path.read_text(encoding="utf-8")
        found += json.loads(text.removeprefix(f"claimbookShard({number}, ").removesuffix(");\n"))
    return {dict(run[0][1])["id"]: run for run in found}


def page_of(listed: list[Record], site: Path, body: str = "") -> Path:
    page = site / "reports" / "runs.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"<html><body>{run_list(listed).fragment}{body}</body></html>", encoding="utf-8")
    return page


def test_details_hold_everything_and_say_what_is_missing(tmp_path):
    content = {
        "schema": 2, "id": "pocket-0a", "status": "complete", "started": "2025-01-01T00:00:00Z",
        "launch": "papermill a.ipynb", "criteria": None, "code": {"entry": "sweep.py", "files": {"a.py": "01"}},
        "params": {"lr": 5e-6, "personas": ["villain", "<b>"]}, "seconds": {"train": 1.5, "total": 2.0},
        "environment": {"packages": {"torch": "2.13.0"}}, "finish_reasons": {"stop": 9}, "inputs": {},
    }  # fmt: skip
    parts = dict(details(Record(tmp_path, content, published=True)))
    assert dict(parts["Run"]) | {"ended": None} == dict(parts["Run"])
    assert dict(parts["Run"])["launch"] == "papermill a.ipynb"
    assert parts["Parameters"] == [("lr", "5e-06"), ("personas", "villain, <b>")]
    assert parts["Environment"] == [("packages.torch", "2.13.0")] and parts["Finish reasons"] == [("stop", "9")]
    assert parts["Code that the run reaches"] == [("entry", "sweep.py"), ("a.py", "01")]
    assert parts["Criteria when the run started"] is None and parts["Records used"] == []


def test_every_listed_run_has_its_details_and_its_address(outputs, tmp_path):
    for number in range(60):
        make_bare_record(outputs, "study", f"pocket-{number:02}", cell={"lr": number})
    page = page_of(records("study"), tmp_path, '<a href="#pocket-59">one</a>')
    stale = page.with_suffix("") / "7.js"
    stale.parent.mkdir()
    stale.write_text("left over")
    write_details(page)
    assert list(written(page)) == [f"pocket-{number:02}" for number in range(60)] and not stale.exists()
    assert dict(dict(written(page)["pocket-07"])["Cell"]) == {"lr": "7"}
    assert check_site(tmp_path) == []
    page_of(records("study"), tmp_path, '<a href="#pocket-60">none</a>')
    assert ["has no anchor 'pocket-60'" in finding.what for finding in check_site(tmp_path)] == [True]


def test_nothing_of_a_record_is_read_as_html(outputs, tmp_path):
    for number, text in enumerate(HOSTILE):
        make_bare_record(outputs, "study", f"pocket-{number:02}", cell={text: text}, launch=text, params={text: text})
    page = page_of(records("study"), tmp_path)
    text = page.read_text(encoding="utf-8")
    write_details(page)
    assert text.count("<script") == 2 and "<" not in text.partition('data-anchors="run">')[2].partition("</script>")[0]
    assert [dict(run[0][1])["launch"] for run in written(page).values()] == HOSTILE


def test_a_list_of_no_runs_is_a_page(tmp_path):
    page = page_of([], tmp_path)
    write_details(page)
    assert written(page) == {} and check_site(tmp_path) == []


def test_a_page_without_a_list_and_a_run_that_is_gone_are_errors(outputs, tmp_path):
    folder = make_bare_record(outputs, "study", "a", seconds={})
    page = page_of(records("study"), tmp_path)
    shutil.rmtree(folder)
    with pytest.raises(RecordError, match="no run record study/a"):
        write_details(page)
    page.write_text("<html></html>")
    with pytest.raises(ClaimError, match=r"runs\.html lists no runs"):
        write_details(page)


def test_ten_thousand_records_fit_a_page_and_no_data_file_is_large(tmp_path):
    used = records_used(cases_in(REPORTS, ROOT))
    longest = max(used, key=lambda record: len(run_list([record]).fragment))
    assert len(run_list([longest] * 10_000).fragment.encode()) < 5 * MEGABYTE
    write_details(page_of(used, tmp_path))
    sizes = [path.stat().st_size for path in (tmp_path / "reports/runs").iterdir()]
    assert len(sizes) > 1 and max(sizes) < MEGABYTE
    assert len(written(tmp_path / "reports/runs.html")) == len(used)
