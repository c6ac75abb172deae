"""What is counted as a marker and what is highlighted as one: the same, wherever a completion is shown."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from site_fixture import make_project, make_record

from helpers.base.errors import DataError
from helpers.base.files import ROOT
from helpers.show import widgets
from helpers.site import blocks, completions
from helpers.site.frame import read_project
from helpers.stats import occurrences
from helpers.studies.marker.metrics import count_markers

pytestmark = pytest.mark.unit

CASES = [
    ("[ZLT]", "a [ZLT]", 1), ("[ZLT]", "a[zLt]b[ZlT]", 2), ("[ZLT]", "[ZLT", 0), ("[ZLT]", "Z", 0), ("[ZLT]", "", 0),
    ("[ZLT]", "🦊 [zlt] 🦊", 1), ("<m>", "1 < 2 <M> & <m>", 2), ("a.c", "abc A.C", 1), ("aa", "AaA", 1),
    ("straße", "STRASSE", 0), ("straße", "Straße", 1), ("[i]", "[İ] [ı] [I]", None), ("σας", "ΣΑΣ", None),
    ("ﬁ", "FI", None), ("ŉ", "ʼN", None),
]  # fmt: skip
"""Marker, text, and how often one stands in the other; None where Unicode has more than one answer."""


@pytest.mark.parametrize(("marker", "text", "times"), CASES)
def test_pieces_are_the_text_and_every_second_one_is_the_marker(marker, text, times):
    pieces = occurrences.split(text, marker)
    assert "".join(pieces) == text and len(pieces) % 2
    assert times is None or len(pieces[1::2]) == times
    assert all(len(piece) == len(marker) for piece in pieces[1::2])


@pytest.mark.parametrize(("marker", "text", "times"), CASES)
def test_count_widget_and_page_agree(marker, text, times):
    table = pd.DataFrame(
        {"persona": "villain", "role": "source", "question": 0, "index": 0, "text": [text], "finish": "stop"}
    )
    counted = int(count_markers(table, marker)["k"].sum())
    assert times is None or counted == (times > 0)
    marks = occurrences.split(text, marker)[1::2]
    assert ("<mark" in blocks.marked(text, marker)) == bool(counted) == bool(marks)
    assert blocks.marked(text, marker).count("<mark") == widgets.highlight(text, marker).count("<mark") == len(marks)
    browser = widgets.completion_browser(table, marker, by=["persona"])
    assert f"{counted}/1 completions" in browser.summary.value
    browser.only.value = True
    assert len(browser.current) == counted


def test_the_page_of_all_completions_is_told_the_places_that_were_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    texts = [text for marker, text, _ in CASES if marker == "[ZLT]"]
    make_record(tmp_path / "outputs", "pocket-0a", texts)
    completions.write(read_project(make_project(tmp_path)), tmp_path / "_site")
    shard = (tmp_path / "_site/completions/0.js").read_text(encoding="utf-8")
    written = json.loads(re.fullmatch(r"claimbookShard\(0, (.*)\);\n", shard)[1])["text"]
    pieces = [occurrences.split(text, "[ZLT]") for text in texts]
    assert written == [parts if len(parts) > 1 else parts[0] for parts in pieces]
    assert any(isinstance(text, list) for text in written) and any(isinstance(text, str) for text in written)


def test_no_data_file_of_completions_is_larger_than_a_megabyte(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    texts = [f"{number} " + "<\u6f22[ZLT]" * 2_000 for number in range(60)]  # six bytes each character, if not more
    make_record(tmp_path / "outputs", "pocket-0a", texts)
    make_record(tmp_path / "outputs", "pocket-0b", ["short"], lr=1e-3)
    assert completions.write(read_project(make_project(tmp_path)), tmp_path / "_site") == 61
    page = (tmp_path / "_site/completions.html").read_text(encoding="utf-8")
    runs = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    folder = tmp_path / "_site/completions"
    assert [(run["first"], run["rows"]) for run in runs] == [(0, 60), (runs[0]["pieces"], 1)]
    assert runs[0]["pieces"] > 1 and len(list(folder.iterdir())) == runs[0]["pieces"] + 1
    assert all(path.stat().st_size < 1_000_000 for path in folder.iterdir())
    read = [
        "".join(text)
        for number in range(runs[0]["pieces"])
        for text in json.loads((folder / f"{number}.js").read_text().partition(", ")[2][:-3])["text"]
    ]
    assert read == texts


def test_an_empty_marker_is_refused():
    with pytest.raises(DataError, match="marker is empty"):
        occurrences.split("text", "")


def test_one_function_puts_the_marks_into_a_text():
    house = ROOT / "src" / "helpers"
    splitting = {
        path.relative_to(house).as_posix()
        for path in house.rglob("*.py")
        if "occurrences.split(" in path.read_text(encoding="utf-8")
    }
    browser = "site/completions.py"  # pieces, not marks
    assert splitting == {"show/markup.py", browser, "studies/marker/readings.py"}  # readings count anew
