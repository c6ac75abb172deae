"""A record in the form of Every Eval Ever: the keys that its schema 0.3.0 requires, and the record's own numbers."""

import json
import sys

import jsonschema
import pytest
from typer.testing import CliRunner

from helpers.base.errors import ExportError
from helpers.cli import app
from helpers.export import eee
from helpers.records import reading

pytestmark = pytest.mark.unit
STUDIES = ("sweep", "length_ablation", "latentwire", "logit_lens_diff", "triangulation")
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
NUMBER = {"type": ["number", "null"]}


def keys(required, **properties):
    return {"type": "object", "required": required.split(), "properties": properties, "additionalProperties": False}


RESULT = keys(
    "evaluation_name source_data metric_config score_details",
    evaluation_result_id={"type": "string"},
    evaluation_name={"type": "string"},
    source_data=keys("dataset_name source_type", dataset_name={}, source_type={"const": "other"},
                     additional_details=TEXTS),
    metric_config=keys(
        "lower_is_better score_type min_score max_score", metric_id={}, metric_unit={}, additional_details=TEXTS,
        lower_is_better={"type": "boolean"}, score_type={"const": "continuous"}, min_score=NUMBER, max_score=NUMBER,
    ),
    score_details=keys(
        "score", score={"type": "number"}, details=TEXTS,
        uncertainty=keys("confidence_interval", num_samples={"type": "integer"}, confidence_interval=keys(
            "lower upper", lower={"type": "number"}, upper={"type": "number"},
            confidence_level={"type": "number"}, method={"type": "string"})),
    ),
)  # fmt: skip
FORM = keys(
    "schema_version evaluation_id retrieved_timestamp source_metadata eval_library model_info evaluation_results",
    schema_version={"const": "0.3.0"}, evaluation_id={"type": "string"}, evaluation_timestamp={"type": "string"},
    retrieved_timestamp={"type": "string"},
    source_metadata=keys(
        "source_type source_organization_name evaluator_relationship", source_name={"type": "string"},
        source_type={"const": "evaluation_run"}, source_organization_name={"type": "string"},
        evaluator_relationship={"const": "other"}, additional_details=TEXTS),
    eval_library=keys("name version", name={"type": "string"}, version={"type": "string"}),
    model_info=keys("name id additional_details", name={"type": "string"}, id={"type": "string"}, additional_details=(
        TEXTS | {"required": ["deployment_type", "model_availability"]})),
    evaluation_results={"type": "array", "items": RESULT, "minItems": 1},
)  # fmt: skip
"""What the schema asks of the keys that we write, and that there are no others."""


def one_of(notebook):
    return next(iter(reading.published(notebook)))


@pytest.mark.parametrize("notebook", STUDIES)
def test_the_form_is_as_its_schema_asks(notebook):
    written = json.loads(json.dumps(eee.form_of(one_of(notebook)), allow_nan=False))
    jsonschema.Draft202012Validator(FORM).validate(written)


def test_every_metric_stands_there_with_its_count_and_interval():
    record = one_of("sweep")
    results = {one["metric_config"]["metric_id"]: one for one in eee.form_of(record)["evaluation_results"]}
    assert set(results) == {name for name, metric in record.metrics.items() if metric["value"] is not None}
    metric, shown = record.metric("source_rate"), results["source_rate"]
    assert shown["score_details"]["score"] == metric["value"]
    assert shown["score_details"]["details"] == {"k": str(metric["k"]), "n": str(metric["n"])}
    spread = shown["score_details"]["uncertainty"]
    bounds = [spread["confidence_interval"][end] for end in ("lower", "upper")]
    assert bounds == [metric["low"], metric["high"]] and spread["num_samples"] == metric["n"]
    assert (shown["metric_config"]["min_score"], shown["metric_config"]["max_score"]) == (0, 1)


def test_the_command_writes_a_file_and_replaces_none(tmp_path):
    out, ref = tmp_path / "run.json", one_of("sweep").ref
    done = CliRunner().invoke(app, ["export", "eee", ref, "--out", str(out)])
    assert done.exit_code == 0 and "results" in done.stdout and json.loads(out.read_text())["schema_version"] == "0.3.0"
    with pytest.raises(ExportError, match="is there already"):
        eee.export(ref, out)


def test_the_real_package_accepts_it(tmp_path):
    if sys.version_info < (3, 12):
        pytest.skip("every_eval_ever wants Python 3.12")
    types = pytest.importorskip("every_eval_ever.eval_types", reason="every_eval_ever is not installed")
    types.EvaluationLog.model_validate(eee.form_of(one_of("sweep")))
