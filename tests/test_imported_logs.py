"""Logs that the real Inspect and lm-eval wrote on the pocket model: what we read is what their own readers give."""

from __future__ import annotations

import gc
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from helpers.base.errors import ClaimbookError, DataError
from helpers.base.files import ROOT
from helpers.studies.imported import importing, inspect_log, lm_eval
from helpers.studies.imported.params import LogCell

pytestmark = pytest.mark.check
EVALS = Path(__file__).parent / "fixtures" / "evals"
POCKET = str(ROOT / "data" / "pocket")
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def ran(*command: str, at: Path) -> None:
    done = subprocess.run(command, cwd=at, env=os.environ | OFFLINE, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.fixture(scope="module")
def inspect_logs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inspect")
    ran(sys.executable, str(EVALS / "run_inspect.py"), POCKET, str(folder), at=folder)
    return {path.parent.name: path for path in folder.rglob("*_toy_*")}


@pytest.fixture(scope="module")
def lm_eval_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lm_eval")
    ran(
        sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={POCKET},dtype=float32",
        "--tasks", "toy_generate,toy_choice", "--include_path", str(EVALS), "--device", "cpu", "--log_samples",
        "--output_path", str(folder), at=EVALS,
    )  # fmt: skip
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    return tmp_path


def imported(project: Path, *cells: LogCell):
    return importing.import_logs("logs", cells, project)


def log_cell(path: Path, **given) -> LogCell:
    return LogCell(**({"label": path.parent.name, "tool": "inspect", "file": str(path)} | given))


@pytest.mark.parametrize("kind", ["eval", "json"])
def test_every_figure_of_inspect_follows_from_our_rows(project, inspect_logs, kind):
    from inspect_ai.log import read_eval_log

    [record] = imported(project, log_cell(inspect_logs[kind]))
    assert record.content.get("note") is None  # no figure of the log differs from what its samples give
    stated = list(read_eval_log(str(inspect_logs[kind]), header_only=True).results.scores)
    assert {(score.scorer, score.reducer) for score in stated} >= {("match", "mean"), ("two", "pass_at_2")}
    for score in stated:
        name = score.name if score.name == score.scorer else f"{score.scorer}.{score.name}"
        if score.reducer != "mean" and score.reducer is not None:
            [value] = [metric.value for key, metric in score.metrics.items() if key in ("accuracy", "mean")]
            assert record.metric(f"{name}.{score.reducer}")["value"] == pytest.approx(value)


def test_errors_and_nan_are_left_out_and_counted(project, inspect_logs):
    [record] = imported(project, log_cell(inspect_logs["eval"]))
    rows = record.table("rows")
    failed = rows[rows["sample"] == "s3"]
    assert set(failed["state"]) == {"error"} and failed["value"].isna().all()
    nan = rows[(rows["score"] == "length") & (rows["sample"] == "s1") & (rows["epoch"] == 1)]
    assert list(nan["state"]) == ["unscored"] and nan["value"].isna().all()
    assert (record.metric("match.left_out")["k"], record.metric("match.left_out")["n"]) == (2, 12)
    assert (record.metric("length.left_out")["k"], record.metric("match.unscored_wrong")["n"]) == (3, 12)
    from inspect_ai.log import read_eval_log

    lengths = [
        sample.scores["length"].value for sample in read_eval_log(str(inspect_logs["eval"])).samples if sample.scores
    ]
    assert record.metric("length")["value"] == pytest.approx(np.mean([x for x in lengths if not math.isnan(x)]))


def test_epochs_are_draws_of_one_cluster_and_say_nothing_of_a_recipe(project, inspect_logs):
    [alone] = imported(project, log_cell(inspect_logs["eval"]))
    [shared] = imported(project, log_cell(inspect_logs["eval"], label="by-passage", cluster="passage"))
    assert (alone.metric("match")["n"], alone.metric("match")["clusters"]) == (10, 5)
    assert (shared.metric("match")["n"], shared.metric("match")["clusters"]) == (10, 3)
    assert "seed" not in alone.cell
    with pytest.raises(DataError, match="has no 'chapter'"):
        imported(project, log_cell(inspect_logs["eval"], label="no", cluster="chapter"))


def test_a_log_that_ended_in_an_error_counts_what_was_never_run(project, inspect_logs):
    [record] = imported(project, log_cell(inspect_logs["failed"]))
    log, rows = record.results["log"], record.table("rows")
    assert log["status"] == "error" and log["error"]
    assert {"cancelled"} <= set(rows["state"]) and len(rows[rows["score"] == rows["score"].iloc[0]]) == 12


def test_samples_that_ran_into_a_limit_are_counted(project, inspect_logs):
    from inspect_ai.log import read_eval_log

    [record] = imported(project, log_cell(inspect_logs["limited"]))
    limited = sum(sample.limit is not None for sample in read_eval_log(str(inspect_logs["limited"])).samples)
    assert limited > 0
    assert record.metric(f"{record.table('rows')['score'].iloc[0]}.limited")["k"] == limited


def test_what_a_log_says_of_itself_is_recorded(project, inspect_logs):
    [record] = imported(project, log_cell(inspect_logs["eval"]))
    log = record.results["log"]
    assert record.cell["model"] == "hf/pocket" and record.cell["task"] == "toy"
    assert (log["seed"], log["generation"]["temperature"], log["epochs"]) == (7, 0.7, 2)
    assert log["tool_version"] != "not recorded"


def test_an_edited_figure_shows_in_the_note(project, inspect_logs, tmp_path):
    content = json.loads(inspect_logs["json"].read_text())
    [score] = [one for one in content["results"]["scores"] if one["name"] == "half" and one["reducer"] == "mean"]
    score["metrics"]["mean"]["value"] = 0.9
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(content))
    [record] = imported(project, log_cell(path, label="edited"))
    assert record.note == "The log states mean 0.9 for two.half, and its samples give 0.5."


@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04 cut", b"\x89PNG"])
@pytest.mark.parametrize("name", ["log.eval", "log.json"])
def test_what_is_no_log_is_refused_in_a_sentence(project, tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ClaimbookError, match=name) as caught:
        imported(project, log_cell(path, label="bad"))
    assert "\n" not in str(caught.value) and not (project / "params").exists()


def test_a_log_of_a_newer_version_is_refused(project, inspect_logs, tmp_path):
    content = json.loads(inspect_logs["json"].read_text()) | {"version": 99}
    path = tmp_path / "newer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ClaimbookError, match=r"newer\.json"):
        imported(project, log_cell(path, label="newer"))


def test_each_filter_of_lm_eval_judges_the_same_samples(project, lm_eval_run):
    found = lm_eval.tasks(lm_eval_run)
    assert set(found) == {"toy_generate", "toy_choice"}
    cells = [LogCell(label=task, tool="lm-eval", file=str(path)) for task, path in found.items()]
    records = {record.cell["task"]: record for record in imported(project, *cells)}
    results = json.loads(next(lm_eval_run.rglob("results_*.json")).read_text())["results"]
    for name, task, key in (
        ("exact_match.strict_match", "toy_generate", "exact_match,strict-match"),
        ("exact_match.flexible_extract", "toy_generate", "exact_match,flexible-extract"),
        ("acc", "toy_choice", "acc,none"), ("acc_norm", "toy_choice", "acc_norm,none"),
    ):  # fmt: skip
        metric = records[task].metric(name)
        assert (metric["value"], metric["n"]) == (pytest.approx(results[task][key]), 8)
        assert records[task].content.get("note") is None


def test_samples_of_lm_eval_without_their_results_are_refused(project, lm_eval_run, tmp_path):
    path = lm_eval.tasks(lm_eval_run)["toy_choice"]
    alone = tmp_path / path.name
    alone.write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="is not beside its samples"):
        imported(project, LogCell(label="alone", tool="lm-eval", file=str(alone)))
    with pytest.raises(DataError, match="holds no results"):
        lm_eval.tasks(tmp_path)


def test_samples_of_inspect_are_read_by_the_batch_in_bounded_memory(tmp_path, monkeypatch):
    """Written by Inspect's own writer. Reading sample by sample lists all of them each time; reading all keeps all."""
    import tracemalloc

    from inspect_ai import log as logs
    from inspect_ai.model import ChatMessageUser
    from inspect_ai.scorer import Score

    names, said = [f"s{at}" for at in range(400)], "x" * 50_000
    samples = [
        logs.EvalSample(id=name, epoch=1, input="?", target="A", scores={"match": Score(value="C" if at % 4 else "I")},
                        messages=[ChatMessageUser(content=f"{at}{said}")])
        for at, name in enumerate(names)
    ]  # fmt: skip
    data = logs.EvalDataset(name="many", samples=len(names), sample_ids=names)
    spec = logs.EvalSpec(
        created="2026-01-02T03:04:05+00:00", task="t", dataset=data, model="m", config=logs.EvalConfig()
    )
    path = tmp_path / "many.eval"
    logs.write_eval_log(logs.EvalLog(eval=spec, status="success", samples=samples), str(path), format="eval")
    monkeypatch.setattr(inspect_log, "BATCH", 50)
    batches, plain = [], logs.read_eval_log_samples_by_id
    monkeypatch.setattr(
        logs,
        "read_eval_log_samples_by_id",
        lambda path, keys, **more: batches.append(len(keys)) or plain(path, keys, **more),
    )
    tracemalloc.start()
    rows = list(inspect_log.read(path, None).rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row.sample for row in rows] == names and sum(row.value for row in rows) == 300
    assert batches == [50] * 8 and peak < len(said) * len(names) / 2


def written_log(path: Path, score=None, change=None, **spec):
    """Write six samples by Inspect's own writer, then let ``change`` edit the header of the archive."""
    from inspect_ai import log as logs
    from inspect_ai.scorer import Score

    names = [f"s{at}" for at in range(6)]
    samples = [
        logs.EvalSample(
            id=name, epoch=1, input="?", target="A", scores={"m": Score(value="C")} if score is None else score
        )
        for name in names
    ]
    about = {"created": "2026-01-02T03:04:05+00:00", "task": "t", "model": "m", "config": logs.EvalConfig()} | spec
    data = logs.EvalDataset(name="many", samples=len(names), sample_ids=names)
    logs.write_eval_log(logs.EvalLog(eval=logs.EvalSpec(dataset=data, **about), samples=samples), str(path))
    if change is not None:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        head = json.loads(members["header.json"])
        change(head)
        members["header.json"] = json.dumps(head).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    return log_cell(path, label="log")


@pytest.mark.parametrize(("change", "sentence"), [
    (lambda head: head.update(version=3), "is of version 3, and the installed inspect-ai reads 2"),
    (lambda head: head["eval"]["config"].update(epochs=10**9), "says that it has 6e.09 samples"),
])  # fmt: skip
def test_a_header_that_lies_is_refused_before_anything_heavy(project, tmp_path, change, sentence):
    with pytest.raises(DataError, match=sentence):
        imported(project, written_log(tmp_path / "log.eval", change=change))
    assert not (project / "params").exists() and not (project / "outputs").exists()


def test_scores_that_would_hide_each_other_or_are_none_are_refused(project, tmp_path):
    from inspect_ai.scorer import Score

    twice = {"m": Score(value={"a": 1}), "m.a": Score(value=0)}
    with pytest.raises(DataError, match=r"two scores called 'm\.a'"):
        imported(project, written_log(tmp_path / "twice.eval", twice))
    with pytest.raises(DataError, match="6 samples and no score"):
        imported(project, written_log(tmp_path / "none.eval", {}))
    with pytest.raises(ClaimbookError, match="Parameter model"):
        imported(project, written_log(tmp_path / "model.eval", model="a\x1b[31m"))


def test_a_damaged_log_is_one_sentence_and_no_traceback_beside_it(project, tmp_path, caplog):
    logged = written_log(tmp_path / "log.eval")
    content = bytearray((tmp_path / "log.eval").read_bytes())
    third = len(content) // 3
    content[third : third + 40] = bytes(byte ^ 0xFF for byte in content[third : third + 40])
    (tmp_path / "log.eval").write_bytes(content)
    with pytest.raises(ClaimbookError, match=r"log\.eval"):
        imported(project, logged)
    gc.collect()
    assert not caplog.records
