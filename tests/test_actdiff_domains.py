"""The narrow domain as an axis of its own, and what older records say without it."""

from __future__ import annotations

import functools

import pytest

from helpers.base import params
from helpers.base.errors import ParameterError
from helpers.base.files import DATA
from helpers.records import reading
from helpers.studies.actdiff import cell, documents, organisms
from helpers.studies.actdiff.params import LensCell
from helpers.studies.actdiff.study import STUDY

pytestmark = pytest.mark.unit

TEXT = {"model": str(DATA / "pocket"), "documents": 24, "positions": 16, "position": 6, "train_documents": 16}
TEXT |= {"train_positions": 16, "steps": 2, "rows": 4, "controls": 1, "probe_documents": 16, "probed": ["full"]}
TEXT |= {"top": 3, "shares": [0.5], "steer_samples": 1, "new_tokens": 4}


@pytest.fixture
def few_words(monkeypatch):
    """The pocket chat model writes few whole words as one token."""
    monkeypatch.setattr(documents, "domain_tokens", functools.partial(documents.domain_tokens, k=5))


def test_a_domain_is_an_axis_and_stands_in_the_cell_where_it_is_named():
    grid = params.parse_grid(LensCell, TEXT | {"domain": ["pottery", "beekeeping"], "seed": [3, 4]}, "in the test")
    assert [one.coordinates() for one in grid][:2] == [
        {"organism": "full", "domain": "pottery", "seed": 3}, {"organism": "full", "domain": "pottery", "seed": 4},
    ]  # fmt: skip
    assert grid.axes == ("domain", "seed")
    assert LensCell(seed=3).coordinates() == {"organism": "full", "seed": 3}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (TEXT | {"domain": "potery"}, "did you mean 'pottery'"),
        ({"domain": "pottery"}, "cannot be set for the pocket language"),
        (TEXT | {"domain": "pottery", "organism": "given", "tuned": "sweep/x"}, "cannot be set for a given fine-tune"),
    ],
)
def test_a_domain_that_cannot_be_trained_on_is_refused(given, said):
    with pytest.raises(ParameterError, match=said):
        params.parse(LensCell, given, "in the test")


def test_the_question_of_every_published_record_is_the_same():
    published = list(reading.published("logit_lens_diff"))
    assert len(published) >= 70
    for record in published:
        given = {name: value for name, value in record.params.items() if name in LensCell.model_fields}
        one = LensCell.model_validate(given)
        assert STUDY.asked(one.resolved()) == given
        assert one.coordinates() | {"model": record.cell["model"]} == record.cell


def test_the_named_domain_is_the_one_trained_on_whatever_the_seed(few_words, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path))
    p = [LensCell(**TEXT, seed=1, domain=name) for name in (None, "lighthouses", "pottery")]
    session = cell.Session(p[0])
    by_seed, same, other = (session.material(one) for one in p)
    assert (by_seed.domain, other.domain) == ("lighthouses", "pottery")
    assert same.narrow == by_seed.narrow != other.narrow
    assert same.domains == by_seed.domains == other.domains

    folders = [organisms.cache_folder("0", one) for one in p]
    assert len(set(folders)) == 3
    record = cell.run_cell(p[2], session)
    assert record.cell == {"organism": "full", "domain": "pottery", "seed": 1, "model": record.model["name"]}
    assert record.id.startswith("pocket-full-pottery-s1-") and record.params["domain"] == "pottery"
    assert record.results["fixed"]["domain"] == "pottery"
