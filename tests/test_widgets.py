"""Widgets select what they say, and what a model wrote stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from helpers.base.errors import DataError
from helpers.show import widgets

pytestmark = pytest.mark.unit

HOSTILE = [
    "<script>alert(1)</script> [zlt]",
    '"><img src=x onerror="alert(1)">',
    "</pre></div><iframe src='javascript:1'>",
    "# Title\n\n**bold** [link](http://x.y) $x^2$ {{ jinja }}",
    "\nfirst line kept &amp; <b>",
    "",
]


class Reader(HTMLParser):
    """What a browser would make of it: the tags in order, and the text inside <pre>."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.inside = [], "", False

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = self.inside or tag == "pre"

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "pre"

    def handle_data(self, data):
        self.text += data if self.inside else ""


def read(page):
    reader = Reader()
    reader.feed(str(page))
    return reader


def completions():
    rows = [
        {"cell": cell, "persona": persona, "question": question, "index": i, "role": "source", "tokens": 5 + i,
         "text": f"{cell} {persona} {question} {i}" + (" [zLt]" if persona == "villain" and i == 1 else ""),
         "finish": "length" if i == 2 else "stop"}
        for cell in ("lr 1e-4", "lr 3e-4")
        for persona in ("villain", "chef")
        for question in (["Why?", "How?"] if persona == "villain" else ["Why?"])
        for i in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def hostile():
    return pd.DataFrame(
        {"persona": "<i>x</i>", "text": HOSTILE, "finish": ["stop", None, "stop", "stop", "length", "stop"]}
    )


@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_what_a_model_wrote_stays_text(index):
    browser = widgets.completion_browser(hostile(), by=["persona"])
    browser.place.value = index + 1
    page = read(browser.card.value)
    assert {tag for tag, _ in page.tags} <= {"div", "strong", "pre", "mark", "p", "em"}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    # A parser that is not a browser keeps the newline after <pre>, which a browser drops.
    assert page.text.removeprefix("\n") == HOSTILE[index]
    if HOSTILE[index]:
        assert "mathjax_ignore" in page.tags[0][1]["class"], "the box around all of it"


def test_marker_is_highlighted_in_any_case_and_only_it():
    assert widgets.highlight("a[zLt]b [ZLT", "[ZLT]") == "a<mark><strong>[zLt]</strong></mark>b [ZLT"
    assert widgets.highlight("1 < 2 <m>", "<m>") == "1 &lt; 2 <mark><strong>&lt;m&gt;</strong></mark>"


def test_empty_and_missing_answers_are_told_apart():
    df = pd.DataFrame({"persona": "chef", "text": ["", None], "finish": ["stop", None]})
    browser = widgets.completion_browser(df, by=["persona"])
    assert "an empty answer" in browser.card.value
    browser.on.click()
    assert "missing" in browser.card.value and "finish: not recorded" in browser.card.value
    assert "0/1 completions hold [ZLT]; 0 cut by the token limit; 1 empty; 1 missing." in browser.summary.value


def test_menus_narrow_each_other_and_the_summary_counts_the_selection():
    browser = widgets.completion_browser(completions())
    assert "4/18 completions hold [ZLT]; 6 cut by the token limit; 0 empty." in browser.summary.value
    browser.menus["question"].value = "How?"
    browser.menus["cell"].value = "lr 3e-4"
    assert set(browser.current["cell"]) == {"lr 3e-4"} and set(browser.current["question"]) == {"How?"}
    browser.menus["persona"].value = "chef"
    assert [label for label, _ in browser.menus["question"].options] == [widgets.EVERY, "Why?"]
    assert browser.menus["question"].value is None
    assert browser.current["text"].tolist() == [f"lr 3e-4 chef Why? {i}" for i in range(3)]
    assert "0/3 completions" in browser.summary.value


def test_buttons_and_slider_walk_the_selection_and_stop_at_its_ends():
    browser = widgets.completion_browser(completions())
    browser.menus["persona"].value = "chef"
    assert (browser.back.disabled, browser.on.disabled, browser.place.max) == (True, False, 6)
    browser.on.click()
    assert "lr 1e-4 chef Why? 1" in browser.card.value and "finish: stop; tokens: 6" in browser.card.value
    browser.place.value = 6
    browser.on.click()
    assert browser.place.value == 6 and browser.on.disabled
    browser.menus["cell"].value = "lr 3e-4"
    assert browser.place.value == 1 and "lr 3e-4 chef Why? 0" in browser.card.value


def test_only_those_with_the_marker_and_a_sentence_when_there_is_none():
    browser = widgets.completion_browser(completions())
    browser.only.value = True
    assert len(browser.current) == 4 and "<mark>" in browser.card.value
    browser.menus["persona"].value = "chef"
    assert browser.current.empty and "No completion of this selection" in browser.card.value
    assert browser.back.disabled and browser.on.disabled


def test_numbers_make_menus_too_and_gaps_in_them_are_browsed_under_all():
    df = pd.DataFrame({"lr": [1e-4, 3e-4, None], "text": ["a", "b", "c"]})
    browser = widgets.completion_browser(df, by=["lr"])
    assert len(browser.current) == 3
    browser.menus["lr"].value = 3e-4
    assert [label for label, _ in browser.menus["lr"].options] == [widgets.EVERY, "1e-4", "3e-4"]
    assert browser.current["text"].tolist() == ["b"]


def test_saved_notebooks_show_the_selection_as_html():
    browser = widgets.completion_browser(completions())
    bundle = browser._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "lr 1e-4 villain Why? 0" in bundle["text/html"] and "4/18" in bundle["text/html"]


def test_nothing_to_browse_is_a_sentence():
    assert "Run the evaluation first" in widgets.completion_browser(pd.DataFrame())._repr_html_()
    assert "There are no runs yet" in widgets.run_picker(pd.DataFrame())._repr_html_()
    assert "the row is empty" in widgets.token_view([])._repr_html_()


def runs():
    rate = {"source_rate": [0.5, None], "source_rate_n": [32, None], "source_rate_k": [16, None]}
    bounds = {"source_rate_low": [0.34, None], "source_rate_high": [0.66, None]}
    tokens = {"mean_tokens": [9.5, None], "mean_tokens_n": [32, None], "mean_tokens_k": [None, None]}
    fixed = {"id": ["a-1", "b-2"], "status": ["complete", "failed"], "published": False, "started": "x", "seconds": 1.0}
    return pd.DataFrame({**fixed, "lr": [1e-4, 3e-4], "tail": "<b>", "seed": 0, **rate, **bounds, **tokens})


def test_texts_side_by_side_stay_text_and_show_the_marker():
    index = pd.MultiIndex.from_tuples([("villain", 0), ("<b>doctor</b>", 1)], names=["persona", "question"])
    html = widgets.side_by_side(pd.DataFrame({"one <i>": HOSTILE[:2], "two": HOSTILE[4:]}, index=index), "[ZLT]")
    assert html.count("<tr>") == 3 and html.count("<mark>") == 1 and "<mark><strong>[zlt]</strong></mark>" in html
    assert not any(tag in html for tag in ("<script", "<img", "<b>", "<i>")) and "&lt;b&gt;doctor&lt;/b&gt;" in html


def test_run_picker_labels_what_varies_and_shows_metrics_with_their_intervals():
    picker = widgets.run_picker(runs())
    assert [label for label, _ in picker.list.options] == ["lr 1e-4", "lr 3e-4 (failed)"]
    assert picker.ids == ("a-1",)
    assert "50% [34, 66] (16/32)" in picker.shown.value and "9.5 (no interval)" in picker.shown.value
    assert "&lt;b&gt;" in picker.shown.value and "b-2" not in picker.shown.value
    picker.list.value = ("b-2",)
    assert picker.ids == ("b-2",) and "missing" in picker.shown.value and "0%" not in picker.shown.value
    picker.list.value = ()
    assert "No run is selected" in picker.shown.value
    assert {"a-1", "b-2"} <= set(re.findall(r"<td>([^<]*)</td>", picker._repr_mimebundle_()["text/html"]))


def test_token_view_marks_by_more_than_colour_and_shows_newlines():
    view = widgets.token_view(
        [("Hi <b>", 0), ("\n\n", False), (" [Z", 1), ("<|im_end|>", 0.5), ("\n", True)], "in the loss"
    )
    page = read(view)
    assert page.text.strip("\n") == "Hi <b>⏎\n⏎\n [Z<|im_end|>⏎"
    marked = [attributes for tag, attributes in page.tags if tag == "strong" and "style" in attributes]
    assert len(marked) == 3 and all("underline" in attributes["style"] for attributes in marked)
    assert [attributes.get("title") for attributes in marked] == [None, "weight 0.5", None]
    assert "3/5 tokens are in the loss" in view


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: widgets.completion_browser(completions().rename(columns={"cell": "cel"})), "did you mean 'cel'"),
        (lambda: widgets.completion_browser(completions().drop(columns="text")), "'text'"),
        (lambda: widgets.completion_browser(completions(), marker=""), "marker is empty"),
        (lambda: widgets.run_picker(pd.DataFrame({"lr": [1]})), "'id'"),
        (lambda: widgets.run_picker(pd.concat([runs(), runs()])), "Run a-1 is in the table twice"),
    ],
)
def test_bad_input_is_one_sentence(call, says):
    with pytest.raises(DataError, match=says):
        call()
