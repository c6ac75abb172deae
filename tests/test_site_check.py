"""The check of a rendered site: each fault is found, and a sound site has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.base.errors import ClaimError
from helpers.site.check import check_site, main
from helpers.site.finish import seen_from_root, with_links, write_index

pytestmark = pytest.mark.unit

SOUND = """<html><head><link rel="stylesheet" href="style.css"><link rel="canonical" href="https://example.org"></head>
<body><h1 id="top">Title</h1><a href="#top">up</a> <a href="">toggle</a> <a href="#">menu</a>
<a href="https://example.org">out</a> <a href="other.html#run=1&amp;x=2">state</a> <a href="./">home</a>
<img src="a.svg" alt="a picture"><img src="a.svg" aria-hidden="true"><figure role="img" aria-label="a chart"></figure>
<table><tr><td>1</td></tr></table><pre><code>`{python} x` ?@fig-a {{&lt; meta &gt;}}</code></pre>
<script>const a = "<img src=x> {python} <a href='gone.html'>"</script>
<bdi>{python} x ?@fig-a {{&lt; include &gt;}}<mark>{python}</mark> Traceback (most recent call last)</bdi>
<table><tr><th scope="row">one column</th></tr></table>
<svg><text>{python} x ?@fig-a</text></svg><table><tr><td><bdi></bdi></td></tr></table>
<div class="a cb-executed"><p>{python} x</p><table><tr><td></td></tr></table></div>
</body></html>"""


def site_with(root: Path, body: str = "") -> Path:
    (root / "index.html").write_text(SOUND.replace("</body>", body + "</body>"), encoding="utf-8")
    (root / "other.html").write_text("<html><body><p id='here'>x</p></body></html>", encoding="utf-8")
    (root / "style.css").write_text("p { background: url(a.svg) }", encoding="utf-8")
    (root / "a.svg").write_text("<svg/>", encoding="utf-8")
    return root


def test_a_sound_site_has_no_findings(tmp_path):
    assert check_site(site_with(tmp_path)) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<p>`{python} x`</p>", "inline expression was not evaluated"),
        ("<p><code>{python} x</code></p>", "inline expression was not evaluated"),
        ("<p><strong>?@fig-rates</strong></p>", "cross-reference was not resolved"),
        ("<p>see @tbl-rates</p>", "cross-reference was not resolved"),
        ("<p>{{&lt; meta title &gt;}}</p>", "shortcode was not resolved"),
        ("<p>?meta:title</p>", "shortcode was not resolved"),
        ("<p>\ue0f0123abc\ue0f1</p>", "what a cell shows was not put in"),
        ("<pre>Traceback (most recent call last):</pre>", "traceback is shown"),
        ("<a href='gone.html'>x</a>", "'gone.html' leads nowhere"),
        ("<a href='#gone'>x</a>", "index.html has no anchor 'gone'"),
        ("<a href='other.html#gone'>x</a>", "other.html has no anchor 'gone'"),
        ("<img src='gone.png' alt='x'>", "'gone.png' leads nowhere"),
        ("<img src='a.svg'>", "has no alt text"),
        ("<img src='a.svg' alt=' '>", "has no alt text"),
        ("<figure role='img'></figure>", "no aria-label"),
        ("<script src='https://cdn.example/x.js'></script>", "loads https://cdn.example/x.js from the network"),
        ("<script src='//cdn.example/x.js'></script>", "from the network"),
        ("<img src='https://cdn.example/x.png' alt='x'>", "from the network"),
        ("<link rel='stylesheet' href='https://cdn.example/x.css'>", "from the network"),
        ("<link rel='preconnect' href='https://cdn.example'>", "from the network"),
        ("<style>@import 'https://fonts.example/css';</style>", "a style loads https://fonts.example/css"),
        ("<p style='background: url(https://cdn.example/x.png)'>x</p>", "a style loads"),
        ("<table><tr><th>only a head</th></tr></table>", "a table is empty"),
        ("<table><tr><td> </td></tr></table>", "a table is empty"),
    ],
)
def test_each_fault_is_found_with_its_line(tmp_path, body, message):
    findings = check_site(site_with(tmp_path, "\n" + body))
    assert [finding.line for finding in findings] == [SOUND.count("\n") + 2], findings
    assert message in findings[0].what and findings[0].file == "index.html"


def test_style_sheets_from_the_network_are_found(tmp_path):
    (site_with(tmp_path) / "style.css").write_text('@import"https://fonts.example/css2?family=X";', encoding="utf-8")
    assert [str(f) for f in check_site(tmp_path)] == [
        "style.css:1: a style loads https://fonts.example/css2?family=X from the network: put it into the site"
    ]


def test_a_site_without_pages_is_an_error(tmp_path):
    with pytest.raises(ClaimError, match="render the site first"):
        check_site(tmp_path)


def test_the_command_prints_findings_and_fails(tmp_path, capsys):
    assert main([str(site_with(tmp_path))]) == 0
    assert main([str(site_with(tmp_path, "<img src='a.svg'>"))]) == 1
    assert "has no alt text" in capsys.readouterr().out
    assert main([]) == 2


@pytest.mark.parametrize(
    ("link", "root"),
    [
        ("claim.html#a", "reports/claim.html#a"),
        ("../completions.html#run=1", "completions.html#run=1"),
        ("./index.html", "reports/index.html"),
        ("../index.html?x=1", "index.html?x=1"),
        ("../site_libs/a.css", "site_libs/a.css"),
        ("../", "./"),
        ("#here", "#here"),
        ("https://example.org/a", "https://example.org/a"),
        ("mailto:a@example.org", "mailto:a@example.org"),
        ("", ""),
    ],
)
def test_links_of_the_index_are_seen_from_the_root(link, root):
    assert seen_from_root(link, "reports") == root


def test_only_links_of_tags_are_changed():
    page = """<p>href="a"</p>\n<script>x = '<a href="a">'</script><!-- <a href="a"> -->\n"""
    page += '<a class="k"\n href="a">b</a>\t<img src="a"/>'
    changed = page.replace('\n href="a"', '\n href="x/a"').replace('<img src="a"', '<img src="x/a"')
    assert with_links(page, lambda link: "x/" + link) == changed


def test_the_index_follows_quartos_offset(tmp_path):
    (tmp_path / "reports").mkdir()
    source = '<meta name="quarto:offset" content="../">\n<a href="../index.html">x</a>'
    (tmp_path / "reports/index.html").write_text(source, encoding="utf-8")
    assert write_index(tmp_path).read_text(encoding="utf-8") == source.replace('"../"', '"./"').replace(
        "../index", "index"
    )


def test_a_site_without_an_index_page_is_an_error(tmp_path):
    with pytest.raises(ClaimError, match="was not rendered"):
        write_index(tmp_path)
