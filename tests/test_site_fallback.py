"""Pages without Quarto: executed, converted, finished and checked, with hostile completions on them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from site_fixture import HOSTILE, make_project, make_record, shown

from helpers.base.errors import ClaimError
from helpers.show.kernels import QuietKernelManager
from helpers.show.markup import unseal
from helpers.site import fallback
from helpers.site.finish import finish

pytestmark = pytest.mark.pages

PAGE = "---\ntitle: A page\n---\n\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAIMBOOK_OUTPUTS", str(root / "outputs"))
        patch.setenv("CLAIMBOOK_PUBLISHED", str(root / "published"))
        make_record(root / "outputs", "pocket-0123456789ab", HOSTILE, lr=5e-6, epochs=10)
        fallback.render(root)
        assert finish(root) == []
    return root / "_site"


def test_rendering_says_nothing_where_output_is_no_terminal(tmp_path, monkeypatch, capfd):
    root = make_project(tmp_path)
    monkeypatch.setattr(fallback, "render_page", lambda page, project, site, kernel: site / page.name)
    assert len(fallback.render(root)) == len(list((root / "reports").glob("*.qmd"))) > 1
    assert capfd.readouterr() == ("", "")


def test_pages_share_a_kernel_but_no_name_and_each_with_a_chart_brings_the_script(tmp_path, monkeypatch):
    started, start = [], QuietKernelManager.start_kernel
    monkeypatch.setattr(QuietKernelManager, "start_kernel", lambda *a, **k: started.append(a) or start(*a, **k))
    root = make_project(tmp_path)
    chart = """```{python}
import altair as alt
import pandas as pd
from helpers.site import pages
seen = "mine" in globals()
mine = 1
pages.chart(alt.Chart(pd.DataFrame({"x": [1]})).mark_point().encode(x=alt.X(field="x", type="quantitative")), "Dot.")
```

Seen: `{python} seen`.
"""
    chosen = [root / f"reports/{name}.qmd" for name in ("one", "two")]
    for page in chosen:
        page.write_text(PAGE + chart, encoding="utf-8")
    written = fallback.render(root, pages=chosen, workers=1)
    one, two = (unseal(page.read_text(encoding="utf-8")) for page in written)
    assert len(started) == 1, "starting a kernel and importing takes longer than most pages"
    assert "Seen: False" in one and "Seen: False" in two
    assert [len(re.findall(r"window\.claimbookDraw\s*=", page)) for page in (one, two)] == [1, 1]


def test_a_kernel_is_not_interrupted_as_it_ends(tmp_path):
    """It would log a KeyboardInterrupt where that meets it between two messages."""
    said = tmp_path / "said.txt"
    code = f"""
import signal
signal.signal(signal.SIGINT, lambda *_: open({str(said)!r}, "a").write("interrupted"))
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, kernel_manager_class=QuietKernelManager).execute()
    assert notebook.cells[0].execution_count == 1 and not said.exists()


class _Text(HTMLParser):
    """The text of every completion on a page, and the elements inside them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.depth, self.texts, self.tags = 0, [], set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if self.depth:
            self.depth += 1
            self.tags.add(tag)
        elif ("class", "cb-model-text") in attrs:
            self.depth = 1
            self.texts.append("")

    def handle_endtag(self, tag):
        self.depth -= bool(self.depth)

    def handle_data(self, data):
        if self.depth:
            self.texts[-1] += data


def one_page(root: Path, body: str) -> str:
    """The page with ``body`` as it is when it has been finished."""
    make_project(root)
    (root / "reports" / "claim.qmd").write_text(PAGE + body, encoding="utf-8")
    project = fallback.read_project(root)
    written = fallback.render_page(root / "reports" / "claim.qmd", project, root / "_site")
    return unseal(written.read_text(encoding="utf-8"))


def test_hostile_completions_are_shown_as_text(site):
    found = _Text((site / "reports/claim.html").read_text(encoding="utf-8"))
    assert found.texts == [*(shown(text) or "empty completion" for text in HOSTILE), HOSTILE[-1]]
    assert found.tags <= {"mark", "span"}
    assert not (site.parent / "reports" / "hostile").exists()


def test_inline_expressions_are_evaluated_where_they_stand(site):
    page = (site / "reports/claim.html").read_text(encoding="utf-8")
    assert '<span class="cb-badge cb-verdict-supported">SUPPORTED</span>' in page
    assert "<bdi>91% (n=200)</bdi>" in page
    assert "more than 2 – or so" in page and "isn’t" in page
    assert f"{len(HOSTILE)} texts were read" in page
    assert re.search(r"<td[^>]*>0\.91</td>", page)
    assert "{python} nonsense" in re.sub("<[^>]+>", "", page), "an expression inside fenced code is code"


def test_callouts_headings_and_links(site):
    page = (site / "reports/claim.html").read_text(encoding="utf-8")
    assert '<div class="cb-callout-title">What is <em>not</em> known</div>' in page
    assert '<details class="cb-callout cb-callout-warning">' in page
    assert '<h2 id="the-result">' in page and '<h2 id="the-result-1">' in page
    assert '<p class="raw">A raw <em>block</em>.</p>' in page
    assert page.count("function (define, require, module, exports)") == 1, "the charts' JavaScript stands once a page"
    assert 'href="claim.html#the-result"' in (site / "reports/index.html").read_text(encoding="utf-8")


def test_the_root_index_links_the_pages(site):
    index = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="reports/claim.html#the-result"' in index and 'href="completions.html"' in index
    assert 'href="site_libs/claimbook/page.css"' in index


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("Text.\n\nThe rate is `{python} 1 / 0` here.\n", r"claim\.qmd, line 7: `1 / 0` failed with ZeroDivisionError"),
        ("\n```{python}\nx = 1\nraise KeyError('gone')\n```\n", r"line 7: the cell .*gone.* failed with KeyError"),
        ("A value `{python} x = 1` here.\n", r"`x = 1` has no value"),
        ("A value `{python} None` here.\n", r"`None` has no value"),
        ("```{python}\nimport pandas\npandas.DataFrame({'a': [1]})\n```\n", "the cell shows text/html"),
        ("```{python}\nprint('{{< env HOME >}}')\n```\n", "line 6: the cell prints"),
        ("```{python}\n['{{< env HOME >}}']\n```\n", "is neither a number nor a block"),
        ("A value `{python} '{{< env HOME >}}'` here.\n", "is neither a number nor a block"),
        ("Text\n- a list without a blank line\n", "put a blank line before '- a list"),
        ("```{python}\nimport os\nos._exit(1)\n```\n", "its kernel died"),
        ("Text\n1. a list without a blank line\n", "put a blank line before '1. a list"),
        ("Text\n## No heading\n", "put a blank line before '## No"),
        ("Text\n| a | b |\n|---|---|\n", r"put a blank line before '\| a"),
        ("::: {.callout-note}\nopen\n", r"the div opened by '::: \{\.callout-note\}' is never closed"),
        ("Text\n\n:::\n", "':::' closes a div that was never opened"),
        ("```text\nopen\n", "the block opened by '```text' is never closed"),
        ("::: {.callout-nota}\nx\n:::\n", "'.callout-nota' is no callout"),
        ("````{python}\n1\n````\n", "a code cell could not be told from the text"),
    ],
)
def test_a_faulty_page_fails_with_its_name_and_line(tmp_path, body, message):
    with pytest.raises(ClaimError, match=message):
        one_page(tmp_path, body)
    assert not (tmp_path / "_site/reports/claim.html").exists()


def test_a_page_without_title_is_refused_and_one_without_front_matter_is_a_draft(tmp_path):
    make_project(tmp_path)
    page = tmp_path / "reports/claim.qmd"
    project = fallback.read_project(tmp_path)
    page.write_text("---\nauthor: x\n---\n\nText\n", encoding="utf-8")
    with pytest.raises(ClaimError, match="no title"):
        fallback.render_page(page, project, tmp_path / "_site")
    page.write_text("# No front matter\n", encoding="utf-8")
    shown = fallback.render_page(page, project, tmp_path / "_site").read_text(encoding="utf-8")
    assert fallback.UNFINISHED in shown and "No front matter" not in shown


def test_strings_of_inline_expressions_are_escaped(tmp_path):
    cell = "```{python}\nfrom helpers.site import pages\n```\n\n"
    page = one_page(tmp_path, cell + "It says `{python} '*a* <b> [x](y) &lt; {{< env HOME >}}'` here.\n")
    assert "It says <bdi>*a* &lt;b&gt; [x](y) &amp;lt; {{&lt; env HOME &gt;}}</bdi> here" in page
