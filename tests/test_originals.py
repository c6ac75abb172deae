"""Pages link the issues that they grew out of to the entry of the log that says what each was."""

from __future__ import annotations

import re

import pytest
from site_fixture import make_project

from helpers.base.files import ROOT
from helpers.show.markup import unseal
from helpers.site import log, originals

pytestmark = pytest.mark.unit


def linked(text: str) -> str:
    return originals.link(text, {"#65", "#7"})


def test_prose_names_an_original_as_a_link():
    assert linked("<p>the sweep (#65).</p>") == '<p>the sweep (<a href="log.html#original-65">#65</a>).</p>'
    assert linked("<td>#7 and #65</td>").count("<a ") == 2


@pytest.mark.parametrize(
    "text",
    [
        "<p>#66 has no entry, and #650 is another</p>",
        "<bdi>#65 of a record</bdi>",
        "<h1>#65</h1>",
        '<a href="x.html">see #65</a>',
        "<pre><code>#65</code></pre>",
        "<script>const a = '#65';</script><style>#65 {}</style>",
        '<p title="#65">&#65; x#65 a/#65</p><!-- #65 -->',
        "<svg><text>#65</text></svg>",
    ],
)
def test_what_is_not_prose_stays_as_it_is(text):
    assert linked(text) == text


def test_prose_behind_code_is_prose_again():
    assert linked("<p><code>x</code> #65</p>").endswith('<a href="log.html#original-65">#65</a></p>')


def test_every_original_of_the_claims_has_its_entry_in_the_log():
    named = originals.numbers(ROOT)
    entries = {entry.anchor: unseal(entry.markdown) for entry in log.original_entries(ROOT)}
    assert named and set(entries) == {originals.anchor(number) for number in named}
    sweep = entries[originals.anchor("#65")]
    assert re.search("## .*#65: .*the published sweep", sweep)
    assert 'href="lr-epochs-band.html"' in sweep and "is derived from it." in sweep


def test_a_site_without_claims_has_no_originals(tmp_path):
    assert originals.numbers(make_project(tmp_path)) == set()


def test_a_draft_that_cannot_be_read_names_none_and_stops_nothing(tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/draft.qmd").write_text("---\ntitle: Draft\nclaim: {id: 3}\n---\n", encoding="utf-8")
    assert originals.numbers(tmp_path) == set() and log.original_entries(tmp_path) == []
