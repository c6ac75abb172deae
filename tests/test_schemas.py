"""JSON Schemas are those of the models, take every committed file, and refuse nothing that a reader takes."""

from __future__ import annotations

import json

import pytest
import yaml
from jsonschema import Draft202012Validator

from helpers.base import yaml_text
from helpers.base.errors import ClaimbookError, ParameterError
from helpers.base.files import PARAMS, REPORTS
from helpers.base.params import parse_grid
from helpers.claims.claim import front_matter
from helpers.claims.criteria import read_criteria
from helpers.records.study import load_study
from helpers.site import schemas

pytestmark = pytest.mark.unit
NO_GRIDS = ("experiment.yaml", "criteria.yaml")
GRIDS = [path for path in sorted(PARAMS.glob("*/*.yaml")) if not path.name.endswith(NO_GRIDS)]
CRITERIA = sorted(PARAMS.glob("*/*criteria.yaml"))


def read(path):
    return yaml_text.read(path.read_text(), path, ParameterError)


def faults(schema, value):
    return [error.message for error in Draft202012Validator(schema).iter_errors(value)]


def test_the_committed_schemas_are_those_of_the_models():
    """A study of one's own has a schema from `claimbook schemas` on, and none is no fault."""
    made = {path: text for path, text in schemas.texts().items() if path.suffix == ".json" and path.is_file()}
    settings = made.pop(PARAMS.parent / schemas.SETTINGS)
    assert [path.name for path, text in made.items() if path.read_text() != text] == [] and len(made) >= 8
    known = json.loads((PARAMS.parent / schemas.SETTINGS).read_text())["yaml.schemas"]
    assert known.items() <= json.loads(settings)["yaml.schemas"].items()


def test_every_committed_file_agrees_with_its_schema():
    assert len(GRIDS) > 20 and len(CRITERIA) > 5
    for path in GRIDS:
        assert faults(schemas.grid_schema(load_study(path.parent.name).cell), read(path)) == [], path
    for path in CRITERIA:
        assert faults(schemas.criteria_schema(), read(path)) == [], path
    for path in REPORTS.glob("[!_]*.qmd"):
        assert faults(schemas.page_schema(), front_matter(path).value) == [], path


@pytest.mark.parametrize(
    "changes", [{"lrr": 1e-4}, {"lr": []}, {"lr": "fast"}, {"epochs": True}, {"lr": {"a": 1}}, {"blocks": []},
                {"blocks": [{"nosuch": 1}]}, {"blocks": 3}, {"tail": "nosuch"}, {"seed": None}],
)  # fmt: skip
def test_a_grid_that_the_schema_refuses_the_reader_refuses_too(changes):
    model, value = load_study("sweep").cell, read(PARAMS / "sweep/pocket.yaml") | changes
    assert faults(schemas.grid_schema(model), value) != []
    with pytest.raises(ParameterError):
        parse_grid(model, value, "here")


@pytest.mark.parametrize(
    "changes", [{"nosuch": 1}, {"version": 0}, {"version": "one"}, {"metrics": {}}, {"questions": {}}, {"looks": 99},
                {"metrics": {"a": 3}}, {"questions": {"q": {"question": "?"}}}, {"controls": {"c": {"when": "a"}}}],
)  # fmt: skip
def test_criteria_that_the_schema_refuses_the_reader_refuses_too(changes, tmp_path):
    value = read(CRITERIA[-1]) | changes
    (tmp_path / "criteria.yaml").write_text(yaml.safe_dump(value))
    assert faults(schemas.criteria_schema(), value) != []
    with pytest.raises(ClaimbookError):
        read_criteria(tmp_path / "criteria.yaml")


def test_the_settings_name_schemas_that_are_there():
    settings = json.loads((PARAMS.parent / schemas.SETTINGS).read_text())["yaml.schemas"]
    assert len(settings) >= 7 and all((PARAMS.parent / name).is_file() for name in settings)
