"""Text as HTML, and HTML that no renderer can read before it is put in."""

from __future__ import annotations

import html
import json
import re

import pytest
from markupsafe import Markup
from site_fixture import HOSTILE

from helpers.base.errors import ClaimError
from helpers.show.markup import Block, Inline, script_json, seal, unseal, verbatim
from helpers.site.markdown import convert

pytestmark = pytest.mark.unit

SEALED = re.compile("\ue0f0[0-9a-f]+\ue0f1")


def read(page: str) -> str:
    """The text inside one ``<bdi>`` of a page."""
    return html.unescape(re.search(r"<bdi>(.*?)</bdi>", page, re.DOTALL).group(1))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_comes_out_of_its_seal_to_the_letter(text):
    sealed = seal(verbatim(text))
    assert SEALED.fullmatch(sealed)
    assert read(unseal(sealed)) == re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "\ufffd", text)


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_a_text_is_markup(text):
    assert not re.search("[<>\"']|&(?!amp;|lt;|gt;|#34;|#39;)", verbatim(text).removeprefix("<bdi>")[:-6])


def test_a_seal_cannot_be_forged():
    forged = seal(Markup("<script>taken = 1</script>"))
    page = unseal(f"<p>{seal(verbatim(forged))}</p>")
    assert "<script" not in page and not SEALED.search(page)
    assert read(page) == forged
    assert unseal(page) == page, "a page that is finished again stays as it is"


def test_the_author_writes_the_only_markdown():
    line = f"# A *heading* {seal(verbatim('<b>'))}\n\nA `span`, {seal(verbatim('*x*'))}.\n\n"
    body, headings = convert(line + Block(Markup("<p>```\n</p>"))._repr_markdown_() + "\n## Next\n", "page")
    assert [heading.level for heading in headings] == [1, 2]
    page = unseal(body)
    assert "<em>heading</em> <bdi>&lt;b&gt;</bdi></h1>" in page and "<bdi>*x*</bdi>.</p>" in page
    assert "<p>```\n</p>" in page


@pytest.mark.parametrize("kind", [Block, Inline])
def test_a_plain_string_is_no_html(kind):
    with pytest.raises(ClaimError, match="'<p>x</p>' is a plain string"):
        kind("<p>x</p>")
    made = kind(Markup("<p>{}</p>").format("<"))
    assert Markup("{}").format(made) == "<p>&lt;</p>"


def test_surrogates_do_not_stop_a_page():
    assert unseal(seal(verbatim("a\ud800b"))) == "<bdi>a\ufffdb</bdi>"


@pytest.mark.parametrize("text", HOSTILE)
def test_json_in_a_script_is_the_same_json_and_cannot_end_it(text):
    written = script_json({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert not re.search("[<>&\x7f-\uffff]", written)
