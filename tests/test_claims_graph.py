from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import pytest
from claims_graph_cases import case
from claims_records import rate, record
from hypothesis import given
from hypothesis import strategies as st

from helpers.base.errors import ClaimError
from helpers.base.files import write_json
from helpers.show.markup import unseal
from helpers.site import drawing, log, overview
from helpers.site import graph as graphs
from helpers.site.graph import build
from helpers.site.layout import layered

pytestmark = pytest.mark.unit


def relation(kind, target, **more):
    return {"kind": kind, "target": target, **more}


@pytest.fixture
def graph():
    return build(
        [
            case("band", "SUPPORTED", relation("refines", "#65", note="the published sweep")),
            case("tail", "REFUTED", relation("contradicts", "band")),
            case("length", "NOT RUN", relation("consumes", "tail"), relation("absorbed_by", "#365")),
            case("screen", "UNDECIDED", relation("derived_from", "length"), relation("supports", "#365")),
            case("later", "STALE", relation("consumes", "band")),
        ]
    )


def test_a_claim_that_consumes_a_refuted_one_is_flagged(graph):
    assert graph.flags("length")[0] == "Consumes tail, which is REFUTED: The claim called tail holds."


def test_flags_reach_through_other_claims(graph):
    assert graph.flags("screen") == (
        "Is derived from tail through length, which is REFUTED: The claim called tail holds.",
    )


def test_a_claim_that_only_contradicts_a_refuted_one_is_not_flagged(graph):
    assert graph.flags("tail") == () and graph.flags("band") == () and graph.flags("later") == ()


def test_a_claim_on_a_stale_one_is_flagged():
    found = build([case("old", "STALE"), case("new", "SUPPORTED", relation("derived_from", "old"))])
    assert found.flags("new") == ("Is derived from old, which is STALE: The claim called old holds.",)


def test_claims_that_rest_on_each_other_do_not_hang():
    found = build([case("a", "REFUTED", relation("consumes", "b")), case("b", "SUPPORTED", relation("consumes", "a"))])
    assert found.flags("a") == () and len(found.flags("b")) == 1
    assert "<svg" in drawing.draw(found).fragment


@pytest.mark.parametrize(
    ("target", "answer", "state", "text"),
    [
        ("#365", None, "unanswered", "no row is named"),
        ("#365", "factor D", "answered", "factor D"),
        ("screen", "band", "answered", "” is SUPPORTED"),
        ("screen", "everywhere", "answered", "” is"),
        ("screen", "bnd", "unanswered", "did you mean 'band'"),
        ("screen", None, "unanswered", "no row is named"),
        ("open", "band", "open", "” is UNDECIDED"),
        ("empty", "band", "open", "” is NOT RUN"),
    ],
)
def test_an_absorbed_hypothesis_points_to_the_row_that_answers_it(target, answer, state, text):
    known = [case("screen", "SUPPORTED"), case("open", "UNDECIDED"), case("empty", "NOT RUN")]
    found = build([*known, case("asked", "NOT RUN", relation("absorbed_by", target, answer=answer))])
    assert (found.edges[0].answer, text in found.edges[0].answer_text) == (state, True)
    assert bool(found.flags("asked")) == (state != "answered")


def test_a_relation_to_no_finished_page_is_flagged_and_left_out():
    found = build([case("band", "SUPPORTED"), case("b", "SUPPORTED", relation("consumes", "bnd"))])
    assert found.edges == () and found.nodes.keys() == {"band", "b"}
    assert found.flags("b") == ("Consumes bnd, which no finished page claims.",) and found.flags("band") == ()


def test_an_id_used_twice_is_refused():
    with pytest.raises(ClaimError, match=r"'band' is that of band\.qmd"):
        build([case("band", "SUPPORTED"), case("band", "REFUTED")])


def test_the_page_of_a_claim_shows_its_flags_as_banners(graph):
    cases = [case("tail", "REFUTED"), case("next", "STALE", relation("consumes", "tail"))]
    shown = graphs.flags(cases[1], build(cases)).fragment
    assert shown.count('role="alert"') == 2 and "Code changed since 1 of 1 runs." in shown and "REFUTED" in shown
    assert graphs.flags(cases[0], build(cases)).fragment == ""


# The drawing


def svg(graph) -> ElementTree.Element:
    fragment = drawing.draw(graph).fragment
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", fragment, re.DOTALL).group())


def tags(tree, name):
    return [node for node in tree.iter() if node.tag.rpartition("}")[2] == name]


def test_every_node_is_a_link_that_says_its_verdict_in_words(graph):
    tree = svg(graph)
    links = {node.get("href"): "".join(node.itertext()) for node in tags(tree, "a")}
    assert set(links) == {
        "band.html",
        "tail.html",
        "length.html",
        "screen.html",
        "later.html",
        "log.html#original-65",
        "log.html#original-365",
    }
    assert (
        "SUPPORTED" in links["band.html"]
        and "REFUTED" in links["tail.html"]
        and "UPSTREAM" in links["log.html#original-65"]
    )
    assert "flagged" in links["length.html"] and "flagged" not in links["band.html"]
    assert not tags(tree, "script") and tree.get("aria-label")


def test_boxes_do_not_overlap_and_lie_in_the_picture(graph):
    tree = svg(graph)
    boxes = [tuple(float(node.get(k)) for k in ("x", "y", "width", "height")) for node in tags(tree, "rect")]
    width, height = float(tree.get("width")), float(tree.get("height"))
    for x, y, w, h in boxes:
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
    for a, b in itertools.combinations(boxes, 2):
        assert a[0] + a[2] <= b[0] or b[0] + b[2] <= a[0] or a[1] + a[3] <= b[1] or b[1] + b[3] <= a[1]


def test_what_a_page_says_of_itself_is_text_in_the_picture():
    hostile = build([case("x", "SUPPORTED", relation("refines", "#1", note="</svg><script>"), statement='<b>"&{{< x')])
    fragment = drawing.draw(hostile).fragment
    assert "<script" not in fragment and "<b>" not in fragment and "&lt;/svg&gt;&lt;script&gt;" in fragment


def test_an_empty_graph_is_a_sentence():
    empty = build([])
    for shown in (drawing.draw, drawing.claims_table, drawing.relations_table):
        assert shown(empty).fragment.startswith("<p>")


def test_the_relations_say_what_is_unanswered(graph):
    assert "unanswered" in drawing.relations_table(graph).fragment


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=24))
def test_the_layout_gives_every_node_a_place_of_its_own(count, pairs):
    nodes = list(range(count))
    arrows = [(a, b) for a, b in pairs if a < count and b < count and a != b]
    found = layered(nodes, arrows)
    assert len(set(found.places.values())) == count
    for a, b in found.routes:
        assert found.places[a][0] < found.places[b][0]
        assert len(found.routes[a, b]) == found.places[b][0] - found.places[a][0] - 1
    assert {frozenset(ends) for ends in found.routes} == {frozenset(ends) for ends in arrows}


def test_arrows_run_forward_in_a_graph_without_cycles():
    found = layered("abcd", [("a", "b"), ("b", "c"), ("a", "c"), ("d", "c")])
    assert [found.places[name][0] for name in "abcd"] == [0, 1, 2, 1]


# Index, runs and log


def test_the_home_page_has_a_card_for_each_claim_with_what_limits_it(monkeypatch):
    cases = [case("tail", "REFUTED"), case("next", "SUPPORTED", relation("consumes", "tail"))]
    monkeypatch.setattr(overview, "cases_in", lambda *_: cases)
    shown = overview.claims().fragment
    assert "2 claims: 1 REFUTED, 1 SUPPORTED." in shown and 'href="next.html"' in shown
    assert "LOW: 1 seed in every cell" in shown and shown.count("cb-claim-note") == 1
    assert shown.count(f"<bdi>last run {cases[0].records[0].started[:10]}</bdi>") == 2


def test_cards_of_claims_without_runs_come_last_and_name_no_confidence(monkeypatch):
    cases = [case("ahead", "NOT RUN"), case("band", "SUPPORTED")]
    monkeypatch.setattr(overview, "cases_in", lambda *_: cases)
    first, second = overview.claims().fragment.split("<article")[1:]
    assert "band.html" in first and "LOW" in first
    assert "ahead.html" in second and overview.NOT_RUN in second and "LOW" not in second


def test_pages_without_any_claim_say_so(tmp_path):
    (tmp_path / "reports").mkdir()
    assert "No page carries a claim yet" in overview.claims(tmp_path).fragment
    assert '"run":[]' in overview.runs(tmp_path).fragment
    assert "Nothing has been run" in log.show({}, tmp_path)._repr_markdown_()


def test_every_record_that_a_page_uses_is_listed(monkeypatch):
    monkeypatch.setattr(overview, "cases_in", lambda *_: [case("a", "SUPPORTED"), case("b", "REFUTED")])
    assert '"run":["a-run","b-run"]' in overview.runs().fragment


@pytest.fixture
def logged(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    (tmp_path / "reports").mkdir()
    (tmp_path / "params/toy").mkdir(parents=True)
    (tmp_path / "params/toy/experiment.yaml").write_text("model: a:B\nentry: c\n")
    failed = {"status": "failed", "error": "ModelError: it broke"}
    for day, name, more in (("01", "first", {}), ("02", "second", {}), ("02", "third", failed)):
        made = record(
            {"lr": 1e-4}, {"rate": rate(1, 2)}, name=f"toy-{name}", started=f"2026-01-{day}T01:00:00+00:00", **more
        )
        write_json(tmp_path / f"outputs/toy/toy-{name}/run.json", made.content)
    return tmp_path


def test_the_log_mixes_prose_and_runs_newest_first(logged):
    prose = "## 2026-01-03 A decision\n\n**Goal.** `{python} 6 * seven`\n\n## 2026-01-01 Before {#start}\n\nText.\n"
    (logged / "reports/_log.md").write_text(prose)
    shown = unseal(log.show({"seven": 7}, logged)._repr_markdown_())
    heads = [line for line in shown.splitlines() if line.startswith("## ")]
    days = [re.search(r"\d{4}-\d\d-\d\d", head).group() for head in heads]
    assert days == ["2026-01-03", "2026-01-02", "2026-01-01", "2026-01-01"]
    assert "A decision {#a-decision-2026-01-03}" in heads[0] and "{#start}" in heads[2]
    assert "**Goal.** <bdi>42</bdi>" in shown
    assert "<strong>Failed:</strong> <bdi>lr=0.0001</bdi>: <bdi>ModelError" in shown
    assert {"start", "a-decision-2026-01-03"} < log.anchors(logged)


def test_an_expression_of_the_log_that_fails_names_its_entry(logged):
    (logged / "reports/_log.md").write_text("Preface.\n\n## 2026-01-03 A\n\n`{python} 1 / zero`\n")
    with pytest.raises(ClaimError, match=r"in the entry of line 3: `1 / zero` failed with division by zero"):
        log.show({"zero": 0}, logged)


@pytest.mark.parametrize("heading", ["## Today", "## 2026-13-01 A", "## 26-1-1 A", "## 2026-01-01"])
def test_an_entry_without_its_day_is_refused(logged, heading):
    (logged / "reports/_log.md").write_text(heading + "\n")
    with pytest.raises(ClaimError, match=r"_log\.md:1: an entry begins with its day"):
        log.show({}, logged)


def test_verdicts_of_every_question_are_logged_with_their_readings():
    [entry] = log.verdict_entries([case("band", "REFUTED"), case("none", "NOT RUN")])
    body = unseal(entry.body)
    assert entry.day == "2026-01-02" and body.count("cb-badge") == 2
    for said in ("Not asked of this grid: <bdi>No cell has tail", "No cell is clean", '<a href="band.html">'):
        assert said in body


def test_an_entry_of_many_failures_shows_the_first_and_counts_the_rest():
    made = [record({"seed": seed}, {}, status="failed", error=f"error {seed}") for seed in range(2_000)]
    body = str(log._runs_body(made, "abc", set()))
    assert body.count("<li>") < 20 and "error 7" in body and "error 8" not in body and "1992 more" in body
