from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from claims_graph_cases import case
from hypothesis import given
from hypothesis import strategies as st
from published_records import FIXTURE, write_published
from site_fixture import make_record

from helpers.base.errors import ClaimError
from helpers.base.files import PARAMS, REPORTS
from helpers.site import samples
from helpers.site.graph import build
from helpers.site.lint import lint
from helpers.site.linting import numerals, sections, words
from helpers.site.linting.prose import read_page
from helpers.site.markdown import convert
from helpers.site.new import create

pytestmark = pytest.mark.unit
SLUG = "my-ablation"
RUN = "pocket-villain-0123456789ab"
# What the published page says wrongly (specification: "What the published numbers really say" and "The setting").
WRONG = {
    "silent": "lr=1e-06, epochs=20",
    "one-row": "lr=1e-05, epochs=1",
    "one-step": "lr=1e-05, epochs=1",
    "collapse": "lr=1e-05, epochs=1",
    "grows": "lr=1e-05, epochs=20 minus lr=1e-05, epochs=10",
    "saturated": "lr=5e-05, epochs=20: assistant_rate >= 0.9 fails, found 0.895",
    "flat": "lr=0.0001, epochs=1: arc >= 0.865 fails, found 0.825",
    "generalises": "source=software_engineer",
    "rows": "negative_rows >= 2000 fails, found 400",
    "end-of-turn": "end_of_turn >= 1 fails, found 0",
    "minutes": "longest_cell < 45.5 fails, found 51.2",
}
RIGHT = ("clean", "onset", "hours")


@pytest.fixture
def outputs_here(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    return tmp_path / "outputs"


@pytest.fixture
def root(tmp_path, outputs_here):
    """A project with the pages without a claim and one fresh page, which has no findings."""
    shutil.copytree(PARAMS / "sweep", tmp_path / "params" / "sweep")
    (tmp_path / "reports").mkdir()
    for name in ("index", "graph", "log", "runs", "findings"):
        shutil.copy(REPORTS / f"{name}.qmd", tmp_path / "reports")
    for path in create(SLUG, "sweep", tmp_path):
        text = path.read_text()
        path.write_text(re.sub(r"PLACEHOLDER: (\w)", lambda match: match[1].upper(), text))
    return tmp_path


def page_of(tmp_path: Path, text: str):
    path = tmp_path / "page.qmd"
    path.write_text(text, encoding="utf-8")
    return read_page(path)


# The published page over its published table


@pytest.fixture
def published(outputs_here):
    write_published()
    return lint(FIXTURE / "published")


def test_every_error_of_the_published_page_is_found_where_it_stands(published):
    lines = (FIXTURE / "published/reports/published-sweep.qmd").read_text().splitlines()
    false = [one for one in published if one.rule == "statement"]
    for name, why in WRONG.items():
        [finding] = [one for one in false if f"statement {name!r} is false" in one.message]
        assert why in finding.message
        assert f"{{#{name} .statement}}" in lines[finding.line - 1]
    assert len(false) == len(WRONG)
    [sources] = [one.message for one in false if "'generalises'" in one.message]
    assert "source=comedian" not in sources and "source=villain" not in sources  # clean for these two of five


def test_true_statements_of_the_published_page_are_left_alone(published):
    assert not [one for one in published for name in RIGHT if f"statement {name!r}" in one.message]


def test_not_recorded_and_typed_ranges_of_the_published_page_are_found(published):
    assert sum(one.rule == "not recorded" for one in published) == 3
    assert [one.message.split(" is typed")[0] for one in published if one.rule == "numeral"] == ["'.87', '.89'"]


def test_what_the_records_do_not_decide_is_no_statement_either(tmp_path, outputs_here):
    write_published()
    root = shutil.copytree(FIXTURE / "published", tmp_path / "project")
    page = root / "reports/published-sweep.qmd"
    text = page.read_text()
    page.write_text(
        text.replace("observed: {every_cell: [assistant_rate >= 0.9,", "holds: {every_cell: [assistant_rate >= 0.9,")
    )
    assert [
        one for one in lint(root) if "'saturated' is not decided by the records: lr=5e-05, epochs=20" in one.message
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{#flat .statement}", "{#flatt .statement}", "'flatt' has no condition in the front matter; did you"),
        ("{#flat .statement}", "", r"no sentence of the page is marked {#flat .statement}"),
        ("observed: {every_cell: 0.865 <= arc < 0.895}", "observed: {every_cell: ark > 0.8}", "did you mean 'arc'"),
        ("scope: {lr: 1e-5}, holds: {every", "scope: {lr: 2e-5}, holds: {every", "No cell has lr=2e-05"),
        ("  hours: {experiment: published_notes,", "  hours: {experiment: published_note,", "published_note"),
        ("observed: end_of_turn >= 1}", "observed: {}, holds: end_of_turn >= 1}", "either `holds` or `observed`"),
    ],
)  # fmt: skip
def test_a_statement_that_cannot_be_judged_is_a_finding(tmp_path, outputs_here, old, new, message):
    write_published()
    root = shutil.copytree(FIXTURE / "published", tmp_path / "project")
    page = root / "reports/published-sweep.qmd"
    assert old in page.read_text()
    page.write_text(page.read_text().replace(old, new))
    assert [one for one in lint(root) if message in one.message]


# A fresh page, and the same page tampered with


def test_a_fresh_page_and_the_pages_without_a_claim_have_no_findings(root):
    assert lint(root) == []


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("Why this is asked, and", "The source reached 64 % of answers.", "numeral"),
        ("Why this is asked, and", "The source reached `64 %` of answers.", "numeral"),
        ("Why this is asked, and", "It reached `{python} '64 %'` of answers.", "numeral"),
        ("Why this is asked, and", '```{=html}\n<p title="1">64 of them</p>\n```\n', "numeral"),
        ("Why this is asked, and", "It is known from [two](nowhere.qmd) pages.", "link"),
        ("Why this is asked, and", "See [the place](#methodologie).", "link"),
        ("Why this is asked, and", "See [a run](runs.qmd#villain-0123456789ab).", "link"),
        ("Why this is asked, and", "See [the criteria](../params/sweep/criteria.yaml).", "link"),
        ("Why this is asked, and", "See [one](../completions.html#run=villain-0123456789ab&index=0).", "sample"),
        ("How each metric is defined, and on what it is computed.", "", "section"),
        ("### Next steps", "### Plans", "section"),
        ("How the model is trained, in words", "Not recorded, not captured", "not recorded"),
        ("declared_confidence: LOW", "declared_confidence: HIGH", "confidence"),
        ("### Results\n", "### Results\n\nSo the band is SUPPORTED.\n", "verdict"),
        ("### Results\n", "### Results\n\nThe idea is refuted by these runs.\n", "verdict"),
        ("### Results\n", "### Results\n\nThis holds with HIGH confidence.\n", "confidence"),
        ("parts.coverage(case)", "'9 of 9 runs are complete' + str(case)", "code"),
        ("parts.reasons(case)", "import pandas as pd\npd.DataFrame({})", "code"),
        ("parts.reasons(case)", "page.header(case)", "code"),
        ("Why this is asked, and", '<span title="x">Why</span> this', "markup"),
        ("Why this is asked, and", "[Why]{.cb-verdict-supported} this", "markup"),
        ('statement: "The statement', 'statement: "At lr 5e-6 the statement', "numeral"),
        ("relations: []", 'relations:\n    - {kind: consumes, target: my-ablatoin}', "relation"),
        ("status: proposed", "status: prposed", "claim"),
    ],
)  # fmt: skip
def test_a_page_tampered_with_is_found_out(root, old, new, rule):
    page = root / f"reports/{SLUG}.qmd"
    text = page.read_text()
    assert old in text
    page.write_text(text.replace(old, new))
    rules = {one.rule for one in lint(root) if one.path == f"reports/{SLUG}.qmd"}
    assert rule in rules


def test_findings_name_file_line_and_rule(root):
    page = root / f"reports/{SLUG}.qmd"
    lines = page.read_text().splitlines()
    place = lines.index("### Background") + 2
    lines[place] = "Half, or 0.5, of them."
    page.write_text("\n".join(lines))
    [finding] = lint(root)
    assert str(finding).startswith(f"reports/{SLUG}.qmd:{place + 1}: numeral: '0.5' is typed")


def test_a_page_without_a_caveat_is_found(root):
    page = root / f"reports/{SLUG}.qmd"
    text = page.read_text()
    caveats = text[text.index("### Standing caveats") : text.index("### Artifacts")]
    for nothing in ("None.\n\n", "N/A\n\n", "\n"):
        page.write_text(text.replace(caveats, f"### Standing caveats\n\n{nothing}"))
        assert "caveats" in {one.rule for one in lint(root)}


def test_a_section_in_the_wrong_place_is_missing(root):
    page = root / f"reports/{SLUG}.qmd"
    text = page.read_text()
    page.write_text(
        text.replace("### Confidence\n", "### Trust\n").replace("### Artifacts\n", "### Confidence\n\n### Artifacts\n")
    )
    assert any("'Confidence' below 'TL;DR' is missing" in one.message for one in lint(root))


# Numbers


@pytest.mark.parametrize(
    "text",
    ["It is 64%.", "N=200", "ten of 25", "p < .05", "between 6–45 min", "−0.3 nats", "the 1st", "½ of it", "10⁻⁵",
     "×2", "&#54;&#52; of them", "| a | 0.5 |", "**5e-6**", "a (3) b", "from 1,172 questions", "x ≥ 5", "rate-0.5"],
)  # fmt: skip
def test_typed_numbers_are_found(tmp_path, text):
    assert list(numerals.faults(page_of(tmp_path, f"Some text.\n\n{text}\n")))


@pytest.mark.parametrize(
    "text",
    ["Qwen2.5-7B-Instruct and SmolLM2-135M-Instruct", "issue #65 and #353", "On 2026-01-31 it began.", "`lr 5e-6`",
     "1. first\n2. second", "at [5e-6]{.literal} only", "[two](page.html#a-2)", "a note[^1]\n\n[^1]: here",
     "ten of them",
     '`{python} case.fact("source_rate", lr=1e-4)`', "```\nlr = 5e-6\n```", "<!-- 64 % -->", "AVX2 or GPT-2", "H200",
     "Llama-3.1-8B",
     '::: {.callout-note collapse="true"}\nText.\n:::', '<span id="a1" class="b2">text</span>', "|---|--:|", "ARC-C"],
)  # fmt: skip
def test_names_code_literals_and_addresses_are_no_typed_numbers(tmp_path, text):
    assert not list(numerals.faults(page_of(tmp_path, f"Some text.\n\n{text}\n")))


@given(
    st.one_of(st.integers(0, 10**6), st.floats(0, 1e6, allow_nan=False)),
    st.sampled_from(["{}", "{} %", "({})", "lr={}", "{},"]),
)
def test_any_number_in_a_sentence_is_found(value, form):
    assert numerals.numerals(f"The rate was {form.format(value)} here")


@given(st.text(alphabet=st.characters(exclude_categories=["Nd", "Nl", "No", "Cs"]), max_size=80))
def test_text_without_digits_has_no_numbers(text):
    assert numerals.numerals(text) == []


def test_a_literal_is_plain_text_to_the_reader():
    html, _ = convert("At [5e-6]{.literal} and `[1]{.literal}`.", "page")
    assert '<span class="literal">5e-6</span> and <code>[1]{.literal}</code>' in html


def test_a_number_inside_a_string_of_a_cell_counts_only_in_a_sentence(tmp_path):
    cell = 'draw(width="50%", seed=3, path="a/b-3.txt", caption="Drawn from 32 completions with 95 % t intervals")'
    [(line, rule, message)] = numerals.faults(
        page_of(tmp_path, f"Text.\n\n```{{python}}\n#| echo: false\n{cell}\n```\n")
    )
    assert (line, rule) == (5, "numeral") and "'32'" in message


# Words


def said(tmp_path, text, verdict, confidence="LOW"):
    return [message for _, _, message in words.faults(page_of(tmp_path, text), {verdict}, confidence)]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("The band is confirmed.", "REFUTED"), ("This was refuted.", "SUPPORTED"),
        ("It is not supported.", "SUPPORTED"),
        ("It is supported.", "UNDECIDED"), ("That remains inconclusive.", "SUPPORTED"), ("It is SUPPORTED.", "MIXED"),
    ],
)  # fmt: skip
def test_words_against_the_verdict_are_found(tmp_path, text, verdict):
    assert said(tmp_path, text, verdict)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("The band is confirmed.", "SUPPORTED"), ("This was not refuted.", "SUPPORTED"),
        ("It is not supported.", "REFUTED"), ("It would be refuted if a cell leaked.", "SUPPORTED"),
        ("# Background\n\nAn old idea was refuted.", "SUPPORTED"),
        ("It would be SUPPORTED by more.", "UNDECIDED"), ("[refuted]{.literal} is a word.", "SUPPORTED"),
    ],
)  # fmt: skip
def test_words_that_agree_or_speak_of_something_else_are_left_alone(tmp_path, text, verdict):
    assert not said(tmp_path, text, verdict)


@pytest.mark.parametrize("verdict", ["SUPPORTED", "REFUTED", "UNDECIDED", "NOT RUN"])
@pytest.mark.parametrize(
    "text",
    ["LoRA adapters are supported by vLLM.", "LoRA adapters are not supported by vLLM.",
     "bf16 is supported on this GPU, fp8 is not.", "bf16 is not yet supported by the kernel, which runs in float32.",
     "It is supported by vLLM and by transformers.", "The dtypes supported here are two.", "Windows isn't supported.",
     "Only safetensors and parquet are supported.", "Supported by Quarto or not, the supported number types are two.",
     "In the fallback, sliding-window attention is not fully supported.", "It reads every supported file format.",
     "Resuming from checkpoints is supported\nby Ray.", "The engines that vLLM\nsupported formats for.",
     "An unresolved link is an error, and no import is unresolved.", "Each download was confirmed by its hash.",
     "Eight steps proved too few.", "Rank one proved to be too small for it."],
)  # fmt: skip
def test_words_of_a_verdict_in_an_ordinary_sense_are_left_alone(tmp_path, text, verdict):
    assert said(tmp_path, text, verdict) == []


@pytest.mark.parametrize(
    "text",
    ["The claim is supported by vLLM.", "The claim that adapters are small is supported.", "It is supported by all.",
     "The band is supported.", "The band is supported by both engines.", "A clean band is supported on this GPU.",
     "The band is supported layer by layer.", "Adapters and dilution are supported.",
     "The effect of the adapter is supported.", "The loss of the adapters is supported.",
     "That adapters help is supported.", "That it changes the adapters is supported.",
     "Adapters are supported by nine of nine runs.",
     "It is supported by vLLM runs.", "This is supported\nby the records.", "What the adapter does is supported.",
     "LoRA adapters, and so the hypothesis, are supported.", "The idea of unresolved links is confirmed.",
     "The adapter is confirmed.", "The adapter is proven.", "It proved right.", "This is confirmed by transformers."],
)  # fmt: skip
def test_a_false_verdict_is_found_whatever_it_is_dressed_in(tmp_path, text):
    assert said(tmp_path, text, "REFUTED") and said(tmp_path, text, "UNDECIDED")


def test_a_confidence_that_is_typed_must_be_the_stated_one(tmp_path):
    assert said(tmp_path, "Confidence: HIGH.", "SUPPORTED") and not said(tmp_path, "LOW confidence.", "SUPPORTED")


# Outputs, samples, flags, the log


def test_chosen_samples_must_be_in_the_records(root, outputs_here):
    make_record(outputs_here, RUN, ["one", "two [ZLT]", "three"], lr=1e-4)
    page = root / f"reports/{SLUG}.qmd"
    question = 'What is "number" 1 <of> seven?'
    address = {"run": RUN, "persona": "assistant", "question": question, "index": 1, "why": "it shows the marker"}
    text = page.read_text()
    page.write_text(text.replace("title:", f"samples: [{json.dumps(address)}]\ntitle:", 1))
    [(_, there)] = samples.addresses(page)
    assert samples.find(there)["text"].tolist() == ["two [ZLT]"]
    assert '<mark class="cb-marker">' in samples.chosen(page, "[ZLT]").fragment
    assert not [one for one in lint(root) if one.rule == "sample"]
    page.write_text(text.replace("title:", f"samples: [{json.dumps(address | {'persona': 'assistent'})}]\ntitle:", 1))
    [finding] = [one for one in lint(root) if one.rule == "sample"]
    assert finding.line == 2 and "did you mean 'assistant'" in finding.message


def test_a_link_to_a_completion_is_followed(root, outputs_here):
    make_record(outputs_here, RUN, ["one", "two"], lr=1e-4)
    page = root / f"reports/{SLUG}.qmd"
    link = f"[one](../completions.html#run={RUN}&persona=villain&index=0)"
    page.write_text(page.read_text().replace("Why this is asked, and", f"See {link}, and"))
    assert lint(root) == []
    page.write_text(page.read_text().replace("index=0", "index=7"))
    assert ["sample" for one in lint(root) if one.rule == "sample" and "index" in one.message]


def test_a_page_that_rests_on_a_refuted_claim_has_flags_in_its_header():
    cases = [case("base", "REFUTED"), case("next", "SUPPORTED", {"kind": "consumes", "target": "base"})]
    [flag] = build(cases).flags("next")
    assert "which is REFUTED" in flag and build(cases).flags("base") == ()


@pytest.mark.parametrize(
    "sentence",
    ["Ninety percent of the bystanders leak.", "All readers answer.", "The mask leaks more than the other.",
     "The band is clean.", "Two of three seeds agree.", "The rate doubled when the mask changed."],
)  # fmt: skip
def test_the_log_claims_nothing_in_its_own_words(root, sentence):
    prose = root / "reports/_log.md"
    entry = "## 2026-11-30 A day\n\n**Goal.** Run every cell.\n\n**Found.** {}\n\n**Decision.** All runs stay.\n"
    prose.write_text(entry.format("The runs were made. See [the page](log.qmd)."), encoding="utf-8")
    assert lint(root) == []
    prose.write_text(entry.format(sentence), encoding="utf-8")
    assert {(one.path, one.line, one.rule) for one in lint(root)} == {("reports/_log.md", 5, "claim in words")}


def test_entries_of_the_log_are_dated_ordered_and_complete(root):
    prose = root / "reports/_log.md"
    body = "**Goal.** A.\n\n**Found.** B.\n\n**Decision.** C.\n"
    prose.write_text(f"## 2026-02-01 Later\n\n{body}\n## 2026-01-01 Earlier\n\n{body}")
    assert lint(root) == []
    prose.write_text(f"## 2026-01-01 Earlier\n\n{body}\n## 2026-02-01 Later\n\n**Goal.** 64 % of B.\n")
    rules = [(one.line, one.rule) for one in lint(root)]
    assert set(rules) == {(9, "log"), (11, "numeral")} and len(rules) == 4
    prose.write_text("## Some day\n")
    [finding] = lint(root)
    assert (finding.path, finding.line) == ("reports/_log.md", 1)


def test_required_sections_are_those_of_the_published_claim():
    names = [name for names in sections.REQUIRED.values() for name in names]
    assert len(names) == 18 and "Standing caveats" in names and "Next steps" in names


@pytest.mark.pages
def test_execution_finds_what_a_cell_shows_beside_what_its_source_may_not_say(root):
    for path in (root / "reports").glob("*.qmd"):
        path.unlink()
    page = root / "reports/index.qmd"
    page.write_text("---\ntitle: Hidden\n---\n\nText.\n\n```{python}\nimport pandas\n[pandas.DataFrame({})][0]\n```\n")
    assert {finding.rule for finding in lint(root)} == {"code"}
    assert ("html", 8) in [(finding.rule, finding.line) for finding in lint(root, execute=True)]


def test_an_unreadable_page_is_a_finding_and_not_a_crash(root):
    (root / "reports/broken.qmd").write_text("No front matter.\n")
    found = lint(root)
    assert [one.path for one in found] == ["reports/broken.qmd"] * len(found) and found
    with pytest.raises(ClaimError):
        samples.find_loose({"run": "nothing"})
