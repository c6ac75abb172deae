"""A record as a log of Inspect: Inspect's own reader opens it, and importing it again gives the record's rates."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from helpers.base import files
from helpers.base.errors import ExportError
from helpers.cli import app
from helpers.export import inspect_log
from helpers.export.samples import samples_of
from helpers.records import reading
from helpers.studies.imported import importing
from helpers.studies.imported.params import LogCell

pytestmark = pytest.mark.check
STUDIES = ("sweep", "baseline", "length_ablation", "latentwire", "latentwire_text")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path


def one_of(notebook: str):
    return next(iter(reading.published(notebook)))


@pytest.mark.parametrize("notebook", STUDIES)
def test_the_round_trip_gives_equal_rates(project, notebook):
    record, out = one_of(notebook), project / "run.eval"
    samples, scores = inspect_log.export(record.ref, out)
    assert samples > 0 and scores > 0
    [again] = importing.import_logs("logs", [LogCell(label="back", tool="inspect", file=str(out))], project)
    assert again.content.get("note") is None  # no figure of the log differs from what its samples give
    for name in samples_of(record).scores:
        metric, back = record.metric(name), again.metric(name)
        assert back["value"] == pytest.approx(metric["value"]) and back["n"] == metric["n"]
        assert metric["k"] is None or back["k"] == metric["k"]
    assert {one for one in again.metrics if "." not in one} == set(samples_of(record).scores)


def test_inspect_s_own_reader_and_tools_open_it(project):
    from inspect_ai.log import read_eval_log

    record, out = one_of("latentwire"), project / "run.eval"
    inspect_log.export(record.ref, out)
    log, table = read_eval_log(str(out)), record.table("completions")
    assert log.status == "success" and len(log.samples) == len(table)
    shown = {one.id: (one.output.completion, one.target) for one in log.samples}
    names = table["id"].astype(str) + "/" + table["channel"].astype(str) + "/" + table["side"].astype(str)
    assert shown == {name: (text, gold) for name, text, gold in zip(names, table["text"], table["gold"], strict=True)}
    assert log.eval.metadata["record"] == record.ref and log.eval.model == f"claimbook/{record.model['name']}"
    dumped = subprocess.run([sys.executable, "-m", "inspect_ai", "log", "dump", "--header-only", str(out)],
                            capture_output=True, text=True, check=True)  # fmt: skip
    assert json.loads(dumped.stdout)["eval"]["metadata"]["sha256"] == files.sha256_file(record.path / "run.json")


def test_an_imported_log_goes_out_as_it_came(project):
    (project / "t.csv").write_text("id,a,b\n1,1,0.5\n2,0,\n3,,\n")
    cell = LogCell(label="t", tool="csv", file=str(project / "t.csv"), columns=["metric.a=a", "metric.b=b", "id=id"])
    [record] = importing.import_logs("logs", [cell], project)
    inspect_log.export(record.ref, project / "t.eval")
    [again] = importing.import_logs("logs", [LogCell(label="u", tool="inspect", file=str(project / "t.eval"))], project)
    for name in ("a", "b", "a.left_out", "b.left_out", "a.unscored_wrong"):
        assert again.metric(name)["value"] == record.metric(name)["value"], name
        assert again.metric(name)["n"] == record.metric(name)["n"]


@pytest.mark.parametrize("notebook", ["triangulation", "logit_lens_diff", "latentwire_wire"])
def test_a_record_without_samples_is_refused_in_a_sentence(project, notebook):
    done = CliRunner().invoke(app, ["export", "inspect", one_of(notebook).ref, "--out", str(project / "x.eval")])
    assert done.exit_code == 1 and "holds no samples" in done.output and len(done.output.splitlines()) == 1
    assert not (project / "x.eval").exists()


def test_nothing_is_overwritten_and_the_command_says_what_next(project):
    out = project / "x.eval"
    out.write_text("mine")
    with pytest.raises(ExportError, match="is there already"):
        inspect_log.export(one_of("sweep").ref, out)
    with pytest.raises(ExportError, match=r"must end in \.eval"):
        inspect_log.export(one_of("sweep").ref, project / "x.json")
    out.unlink()
    done = CliRunner().invoke(app, ["export", "inspect", one_of("sweep").ref, "--out", str(out)])
    assert done.exit_code == 0 and f"inspect view --log-dir {project}" in done.output.splitlines()[-1]
