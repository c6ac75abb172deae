"""The building blocks of pages, and the conversion of Markdown."""

from __future__ import annotations

import re
from types import SimpleNamespace

import altair as alt
import pandas as pd
import pytest
from markupsafe import Markup

from helpers.base.errors import ClaimError
from helpers.cases.case import open_case
from helpers.show.markup import Inline
from helpers.site import blocks, page, pages, parts
from helpers.site.markdown import anchor_of, convert

pytestmark = pytest.mark.unit


def rows(n: int = 6) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run": "a",
            "cell": ["x=1", "x=2"] * (n // 2),
            "persona": "villain",
            "question": "Why?",
            "index": range(n),
            "text": [f"text {i}" for i in range(n)],
        }
    )


def test_tables_escape_cells_align_numbers_and_show_what_is_missing():
    df = pd.DataFrame({"name": ["<b>", "x"], "rate": [0.123456, float("nan")], "n": [3, 4]})
    fragment = pages.table(df, "Rates", labels={"n": "N"}, formats={"rate": ".2f"}).fragment
    assert "<b>" not in fragment and '<th scope="row"><bdi>&lt;b&gt;</bdi></th>' in fragment
    assert '<td class="cb-num">0.12</td>' in fragment
    assert '<td class="cb-num"><span class="cb-missing">missing</span></td>' in fragment
    assert '<th scope="col" class="cb-num"><bdi>N</bdi></th>' in fragment
    assert "<caption><bdi>Rates</bdi></caption>" in fragment


def test_tables_keep_the_links_of_facts():
    fact = Inline(Markup('<a href="runs.html#a">0.91</a>'))
    fragment = pages.table(pd.DataFrame({"a": ["x"], "b": [fact]}), fact).fragment
    assert '<td><a href="runs.html#a">0.91</a></td>' in fragment
    assert '<caption><bdi><a href="runs.html#a">0.91</a></bdi></caption>' in fragment


def test_tables_refuse_no_rows_and_unknown_columns():
    with pytest.raises(ClaimError, match="has no rows"):
        pages.table(pd.DataFrame({"a": []}), "Nothing")
    with pytest.raises(ClaimError, match="did you mean 'rate'"):
        pages.table(pd.DataFrame({"rate": [1]}), "Rates", formats={"rates": ".2f"})


def test_the_first_chart_of_a_page_brings_the_javascript(monkeypatch):
    monkeypatch.setattr(pages, "_charts_on_page", 0)
    chart = alt.Chart(pd.DataFrame({"x": [1]})).mark_point().encode(x=alt.X("x:Q"))
    first, second = (pages.chart(chart, "One point & no more", "Seen *<b>*").fragment for _ in range(2))
    assert len(first) > 500_000 > 50_000 > len(second)
    assert 'aria-label="One point &amp; no more"' in second and "Seen *&lt;b&gt;*" in second


def test_samples_say_how_they_were_taken_and_where_they_stand():
    drawn = blocks.draw(rows(), ["cell"], n=1, seed=3)
    fragment = blocks.samples(drawn, seed=3, marker="text").fragment
    assert list(drawn["cell"]) == ["x=1", "x=2"]
    assert "Drawn at random (seed 3)." in fragment
    assert (
        f"../completions.html#run=a&amp;persona=villain&amp;question=Why%3F&amp;index={drawn['index'][0]}" in fragment
    )
    assert fragment.count('<mark class="cb-marker">text</mark>') == 2
    assert "Chosen: by &#39;hand&#39;" in blocks.samples(drawn, chosen="by 'hand'").fragment


def test_drawing_does_not_depend_on_the_order_of_rows():
    shuffled = rows(40).sample(frac=1, random_state=1)
    first, again = (blocks.draw(df, ["cell"], n=3, seed=0) for df in (rows(40), shuffled))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(blocks.draw(rows(40), ["cell"], n=3, seed=1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: blocks.samples(rows()), "either drawn at random"),
        (lambda: blocks.samples(rows(), seed=0, chosen="x"), "either drawn at random"),
        (lambda: blocks.samples(rows().drop(columns="index"), seed=0), "no column 'index'"),
        (lambda: blocks.samples(rows(0), seed=0), "no completions to show"),
        (lambda: blocks.draw(rows(), ["cell"], n=4, seed=0), "fewer than the 4 to draw"),
        (lambda: blocks.badge("SUPORTED"), "did you mean 'SUPPORTED'"),
        (lambda: blocks.claims_index([]), "no claims to list"),
    ],
)
def test_faulty_calls_say_what_to_do(call, message):
    with pytest.raises(ClaimError, match=message):
        call()


@pytest.mark.parametrize(
    ("text", "anchor"),
    [
        ("The result", "the-result"),
        ("Setup & hyper-parameters", "setup-hyper-parameters"),
        ("3. What <em>is</em> it?", "what-is-it"),
        ("1234", "section"),
        ("LR × epochs", "lr-epochs"),
    ],
)
def test_anchors_are_those_of_pandoc(text, anchor):
    assert anchor_of(text) == anchor
    assert [heading.anchor for heading in convert(f"## {text}", "page")[1]] == [anchor]


def test_markdown_of_quarto():
    source = """## Title {#given .unnumbered}

[A page](other.qmd?x#y){.button title="go"} and [elsewhere](https://example.org/a.qmd) `<b>raw</b>`{=html}.

:::: {.outer #box}
::: inner
Text
:::
::::

```{=latex}
gone
```

~~~python
x = "```"
~~~
"""
    body, headings = convert(source, "page")
    assert [(h.level, h.anchor, h.text) for h in headings] == [(2, "given", "Title")]
    assert '<h2 class="unnumbered" id="given">Title</h2>' in body
    assert '<a href="other.html?x#y" class="button" title="go">A page</a>' in body
    assert 'href="https://example.org/a.qmd"' in body and "<b>raw</b>." in body
    assert re.search(r'<div id="box" class="outer">\s*<div class="inner">\s*<p>Text</p>\s*</div>\s*</div>', body)
    assert "gone" not in body and "```" in body


def test_tables_images_code_and_titles_are_those_of_quarto():
    source = """| name | rate |
|------|-----:|
| a    | 1    |

: A *caption*

![What it shows](x.png){fig-alt="Seen"}

```python
return 1  # why
```

::: {.callout-tip title='Say "so"' collapse="false"}
- one

  with *two* paragraphs[^1]
:::

[^1]: A note.
"""
    body, _ = convert(source, "page")
    assert '<div class="cb-scroll" tabindex="0">\n<table class="table">\n<caption>A <em>caption</em></caption>' in body
    assert '<td style="text-align: right;">1</td>' in body
    assert "<figcaption" in body and "What it shows</figcaption>" in body and 'alt="Seen"' in body
    assert '<span class="cf">return</span>' in body and '<span class="co"># why</span>' in body
    assert '<details class="cb-callout cb-callout-tip" open><summary class="cb-callout-title">Say "so"' in body
    assert "<em>two</em> paragraphs<a" in body and "A note." in body


def test_cells_of_numbers_and_of_words_on_one_axis_are_all_shown():
    """The tail of the mask grid is a word, or the number of the last labels."""
    case = open_case("reports/mask-answers.qmd")
    shown = page.cells(case, {"source": "source_rate"}, "Every cell").fragment
    assert shown.index(">16<") < shown.index(">end_of_turn<") < shown.index(">whole_turn<")


def test_missing_runs_are_named_a_cell_at_a_time_with_their_seeds():
    cells = [{"model": "pocket", "tail": tail, "seed": seed} for tail in (16, *"abcdef") for seed in range(4)]
    evidence = SimpleNamespace(
        declared=True, records=[SimpleNamespace(cell=cell) for cell in cells[:1]], absent=cells[1:]
    )
    said = str(parts.coverage(SimpleNamespace(evidence=lambda: evidence)).fragment)
    assert "1 of 28 declared runs are complete; missing: tail=16 (seeds 1 to 3); tail=a (seeds 0 to 3); " in said
    assert "tail=c (seeds 0 to 3); and 3 cells more." in said
    evidence.absent = []
    assert "1 of 1 declared runs are complete." in str(
        parts.coverage(SimpleNamespace(evidence=lambda: evidence)).fragment
    )


def test_regimes_are_sorted_on_an_axis_of_numbers_and_words():
    table = page._in_order(
        pd.DataFrame([{"tail": "whole_turn", "clean": "no"}, {"tail": 16, "clean": "yes"}]), ["tail"]
    )
    assert list(table["tail"]) == [16, "whole_turn"]


@pytest.mark.parametrize(
    ("seeds", "said"),
    [([4], "seed 4"), ([4, 5], "seeds 4, 5"), ([4, 5, 6], "seeds 4 to 6"), ([1, 3, 4], "seeds 1, 3, 4")],
)
def test_seeds_in_a_row_are_named_by_their_ends(seeds, said):
    assert parts._seeds(seeds) == said
