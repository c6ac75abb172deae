"""Runs made on this machine stand first on the home page, beside the published ones of the same setting."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from claims_graph_cases import case
from claims_records import rate, record

from helpers.cases.case import Case
from helpers.cases.claim import Effect
from helpers.claims.evidence import Expected
from helpers.records.reading import Record
from helpers.site import yours

pytestmark = pytest.mark.unit

EFFECT = {
    "sentence": "{source} of the answers.",
    "numbers": {"source": {"metric": "source_rate", "label": "source", "cell": {"lr": 1e-4}}},
}


def run(lr: float, k: int, *, published: bool, seed: int = 0, **changes) -> Record:
    made = record(
        {"tail": "newline", "lr": lr, "seed": seed, "source": "villain"}, {"source_rate": rate(k, 100)},
        name=f"toy-{lr}-{seed}", **changes,
    )  # fmt: skip
    return Record(made.path, made.content, published=published)


@pytest.fixture
def shown(monkeypatch):
    """The block for some records of the toy claim; ``here`` are the runs in outputs/ of published ones."""

    def show(*records: Record, here: tuple[Record, ...] = ()) -> str:
        asked = case("band", "SUPPORTED")
        claim = asked.claim.model_copy(update={"effect": Effect.model_validate(EFFECT)})
        expected = tuple(Expected(one.params) for one in records if one.published)
        one: Case = replace(asked, claim=claim, records=records, expected=expected)
        monkeypatch.setattr(yours, "cases_in", lambda *_: [one])
        there = {made.ref: made for made in here}
        monkeypatch.setattr(yours.reading, "made_here", there.get)
        return yours.your_runs().fragment

    return show


def cells(fragment: str) -> list[str]:
    return [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", fragment)]


def test_a_machine_without_runs_shows_nothing(shown):
    assert shown(run(1e-4, 90, published=True)) == ""


def test_a_run_stands_beside_the_published_ones_of_its_setting_whatever_its_seed(shown):
    fragment = shown(
        *(run(1e-4, k, published=True, seed=s) for s, k in enumerate((90, 80))), run(1e-4, 50, published=False, seed=7)
    )
    assert fragment.startswith('<section class="cb-yours"><h2 id="your-run">Your run</h2>')
    assert "1 run of toy made here (last on 2026-01-02) beside the published runs of" in fragment
    assert 'href="band.html"' in fragment
    assert cells(fragment)[:4] == ["setting", "measure", "yours", "published"]
    _setting, measure, own, theirs = cells(fragment)[4:]
    assert measure == "source rate" and own.startswith("50 %") and theirs.startswith("85 %")


def test_a_run_that_repeats_a_published_one_is_shown_as_it_came_out_here(shown):
    fragment = shown(run(1e-4, 90, published=True), here=(run(1e-4, 30, published=False),))
    assert [text.split(" %")[0] for text in cells(fragment)[6:]] == ["30", "90"]


def test_a_setting_that_was_never_published_shows_its_own_numbers(shown):
    fragment = shown(
        run(1e-4, 90, published=True), run(3e-4, 90, published=True, seed=1), run(1e-3, 10, published=False)
    )
    assert "in the numbers of" in fragment and cells(fragment)[:3] == ["setting", "measure", "yours"]
    assert cells(fragment)[-1].startswith("10 %")


def test_a_run_on_another_model_is_not_compared(shown):
    other = run(1e-4, 10, published=False, seed=3, params={"model": "other"})
    fragment = shown(run(1e-4, 90, published=True, params={"model": "tiny"}), other)
    assert "beside" not in fragment
