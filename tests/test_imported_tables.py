"""Tables of samples as records: their metrics against pandas and statsmodels by hand, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from helpers.base import files, params
from helpers.base.errors import ClaimbookError, DataError
from helpers.cli import app
from helpers.records.run_record import NAME
from helpers.stats.estimands import MODELS
from helpers.stats.pooling import pool
from helpers.studies.imported import criteria, importing, lm_eval, samples
from helpers.studies.imported import metrics as imported_metrics
from helpers.studies.imported.params import LogCell
from helpers.studies.imported.samples import SCORES, Row, frame, plain_name

pytestmark = pytest.mark.unit
MAP = ("metric=right", "id=question", "epoch=draw")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    return tmp_path


def written(folder: Path, rows: Sequence[dict], name: str = "log.csv") -> Path:
    path = folder / name
    if path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    return path


def cell(path: Path, columns: Sequence[str] = MAP, **given) -> LogCell:
    given = {"label": "log", "tool": path.suffix[1:], "file": str(path), "columns": list(columns)} | given
    return params.parse(LogCell, given, "of a test")


def draws(questions: int = 30, epochs: int = 2, at: float = 0.6, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {"question": f"q{number}", "draw": draw, "right": int(rng.random() < at), "topic": "xy"[number % 2]}
        for number in range(questions) for draw in range(1, epochs + 1)
    ]  # fmt: skip


def read(project: Path, rows: Sequence[dict], columns: Sequence[str] = MAP, name: str = "log.csv", **given):
    [record] = importing.import_logs("logs", [cell(written(project, rows, name), columns, **given)], project)
    return record


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet"])
def test_a_rate_counts_every_draw_and_its_clusters_are_the_questions(project, name):
    rows = draws()
    metric = read(project, rows, name=name).metric("right")
    assert (metric["k"], metric["n"], metric["clusters"]) == (sum(row["right"] for row in rows), 60, 30)


def test_missing_values_are_left_out_counted_and_never_zero(project):
    rows = [{**row, "right": None} if row["question"] in ("q0", "q1") else row for row in draws()]
    record = read(project, rows)
    right = sum(row["right"] or 0 for row in rows)
    assert (record.metric("right")["k"], record.metric("right")["n"]) == (right, 56)
    assert (record.metric("right.left_out")["k"], record.metric("right.left_out")["n"]) == (4, 60)
    assert (record.metric("right.unscored_wrong")["k"], record.metric("right.unscored_wrong")["n"]) == (right, 60)


def test_criteria_pool_a_rate_to_the_interval_that_its_record_has(project):
    record = read(project, draws())
    pooled = pool([record], "right", imported_metrics.by_cluster, MODELS)
    recorded = record.metric("right")
    assert pooled is not None and (pooled.low, pooled.high) == (recorded["low"], recorded["high"])


def test_a_score_between_zero_and_one_keeps_its_bounds_on_the_scale(project):
    rows = [{"question": number, "draw": 1, "right": 0.97 + 0.03 * (number % 2)} for number in range(12)]
    metric = read(project, rows).metric("right")
    assert metric["value"] == pytest.approx(np.mean([row["right"] for row in rows]))
    assert metric["unit"] == "share" and 0 <= metric["low"] < metric["value"] <= metric["high"] <= 1


def test_any_other_score_has_the_cluster_robust_interval_of_statsmodels(project):
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    rows = [
        {"question": f"q{q}", "draw": d, "right": round(q % 5 + rng.normal(), 3)} for q in range(20) for d in range(3)
    ]
    metric = read(project, rows).metric("right")
    codes = np.repeat(np.arange(20), 3)
    fit = sm.OLS([row["right"] for row in rows], np.ones(60)).fit(
        cov_type="cluster", cov_kwds={"groups": codes, "use_correction": False, "df_correction": True}
    )
    error = float(fit.bse[0]) * np.sqrt(20 / 19)
    from scipy import stats

    half = error * stats.t.ppf(0.975, 19)
    assert (metric["low"], metric["high"]) == pytest.approx((metric["value"] - half, metric["value"] + half))


def test_groups_have_metrics_of_their_own(project):
    rows = draws()
    record = read(project, rows, (*MAP, "group=topic"))
    of_x = [row["right"] for row in rows if row["topic"] == "x"]
    assert (record.metric("right.of.x")["k"], record.metric("right.of.x")["n"]) == (sum(of_x), len(of_x))


def test_a_hundred_thousand_groups_make_no_hundred_thousand_metrics(project):
    rows = [{"question": number, "draw": 1, "right": number % 2, "topic": f"t{number}"} for number in range(100_000)]
    record = read(project, rows, (*MAP, "group=topic"), "log.parquet")
    assert record.metric("right")["n"] == 100_000 and len(record.metrics) < 10


def test_two_logs_are_compared_pair_by_pair(project):
    one, other = draws(40, 1, 0.8, 1), draws(40, 1, 0.4, 2)
    cells = [cell(written(project, rows, f"{name}.csv"), label=name) for name, rows in (("a", one), ("b", other))]
    records = importing.import_logs("logs", cells, project)
    gap = criteria.difference(records, MODELS, "right", "a", "b")
    only_a = sum(x["right"] > y["right"] for x, y in zip(one, other, strict=True))
    only_b = sum(x["right"] < y["right"] for x, y in zip(one, other, strict=True))
    assert gap is not None and gap["value"] == pytest.approx((only_a - only_b) / 40)
    assert (gap["only_a"], gap["only_b"]) == (only_a, only_b)
    assert criteria.difference(records[:1], MODELS, "right", "a", "b") is None


def test_logs_of_different_questions_are_not_compared(project):
    logs = {"a": draws(5, 1), "b": [{**row, "question": f"other {row['question']}"} for row in draws(5, 1)]}
    cells = [cell(written(project, rows, f"{name}.csv"), label=name) for name, rows in logs.items()]
    records = importing.import_logs("logs", cells, project)
    with pytest.raises(DataError, match="share no sample"):
        criteria.difference(records, MODELS, "right", "a", "b")


def test_the_same_log_twice_is_one_record_and_another_under_its_label_is_refused(project):
    path = written(project, draws())
    [first] = importing.import_logs("logs", [cell(path)], project)
    [again] = importing.import_logs("logs", [cell(path)], project)
    assert again.ref == first.ref
    with pytest.raises(DataError, match="another log with the label 'log'"):
        importing.import_logs("logs", [cell(written(project, draws(), "other.csv"))], project)
    grid = params.load(LogCell, project / "params/logs/logs.yaml")
    assert [one.file for one in grid] == [str(path)]


BAD = {
    "no such column": ("right,question\n1,a\n", ("metric=wrong",), "no column 'wrong'.*did you mean 'right'|no column"),
    "no metric": ("right\n1\n", ("id=right",), "names no metric"),
    "role": ("right\n1\n", ("metrics=right",), "did you mean 'metric'"),
    "twice": ("right,question\n1,a\n0,a\n", ("metric=right", "id=question"), "has sample 'a' twice"),
    "text": ("right\n1\nyes please\n", ("metric=right",), "row 2 is 'yes please'"),
    "infinite": ("right\n1\ninf\n", ("metric=right",), "a finite number"),
    "huge": ("right\n1e999\n", ("metric=right",), "a finite number"),
    "empty": ("", ("metric=right",), "is empty"),
    "no rows": ("right\n", ("metric=right",), "holds no samples"),
    "ragged": ("right,question\n1\n", ("metric=right",), "does not have 2 cells"),
    "epoch": ("right,draw\n1,soon\n", ("metric=right", "epoch=draw"), "a finite number"),
    "half an epoch": ("right,draw\n1,1.5\n", ("metric=right", "epoch=draw"), "whole number"),
    "no id": ("right,question\n1,\n", ("metric=right", "id=question"), "A row has no question"),
    "half a million draws too many": ("right,draw\n1,1e100\n", ("metric=right", "epoch=draw"), "counts the draws"),
    "digits of a program": ("right\n1_0\n", ("metric=right",), "'1_0', and a score is a finite number"),
    "groups of one name": ("right,g\n1,x/y\n0,x_y\n", ("metric=right", "group=g"), "'x/y' and 'x_y', both called x_y"),
    "name of a count": ("a,b\n1,0\n", ("metric.a=a", "metric.a.left_out=b"), "the score a.left_out"),
    "name of a group": ("a,b\n1,0\n", ("metric.a=a", "metric.a.of.x=b"), "a score called a.of"),
    "scores of one name": ("a/b,a_b\n1,0\n", ("metric.a/b=a/b", "metric.a_b=a_b"), "gives the name a_b twice"),
    "column twice": ("right,right\n1,0\n", ("metric=right",), "a column twice"),
    "semicolons": ("right;q\n1;a\n", ("metric=right",), "has one column, 'right;q'. Save it with commas"),
    "tabs": ("right\tq\n0,5\ta\n", ("metric=right",), "has one column"),
    "another tool": ('{"right": 1}\n', ("metric=right",), "no column 'right'"),
    "thousands of columns": (",".join(f"c{at}" for at in range(5000)), ("metric=right",), "and 4,950 more"),
    "a sum that overflows": ("right\n1e308\n1e308\n", ("metric=right",), "'1e308', and a score is a finite number"),
    "two clusters": ("r,q,e,c\n1,a,1,x\n0,a,2,y\n", ("metric=r", "id=q", "epoch=e", "cluster=c"), "'a' in two cl"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_tables_are_refused_in_a_sentence_and_leave_nothing(project, kind):
    text, columns, sentence = BAD[kind]
    path = project / "log.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=sentence) as caught:
        importing.import_logs("logs", [cell(path, columns)], project)
    assert "\n" not in str(caught.value)
    assert not (project / "params").exists() and not (project / "outputs").exists()


@pytest.mark.parametrize("name", ["log.parquet", "log.jsonl"])
def test_a_file_that_is_not_what_it_says_is_refused(project, name):
    path = project / name
    path.write_bytes(b"\x89PNG not a table\xff")
    with pytest.raises(DataError, match=name):
        importing.import_logs("logs", [cell(path, ["metric=right"])], project)


def test_a_damaged_parquet_is_refused_wherever_the_damage_is(project):
    rows = [{"right": number % 2, "question": str(number)} for number in range(1000)]
    whole = written(project, rows, "log.parquet").read_bytes()
    damaged = bytearray(whole)
    damaged[60:200] = bytes(byte ^ 0xFF for byte in damaged[60:200])
    for content in (bytes(damaged), whole[: len(whole) // 2], whole[len(whole) // 2 :], b""):
        (project / "log.parquet").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as parquet") as caught:
            importing.import_logs("logs", [cell(project / "log.parquet", ["metric=right"])], project)
        assert "\n" not in str(caught.value) and not (project / "outputs").exists()


def test_a_parquet_with_a_column_twice_is_refused(project):
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_arrays([pa.array([1, 0]), pa.array([0, 0])], names=["right", "right"])
    parquet.write_table(table, project / "log.parquet")
    with pytest.raises(DataError, match="a column twice"):
        importing.import_logs("logs", [cell(project / "log.parquet", ["metric=right"])], project)


@pytest.mark.parametrize(("line", "sentence"), [
    ('{"right": 1, "question": "\\ud800"}', "half a character"),
    ('{"right": 1, "question": NaN}', "A row has no question"),
])  # fmt: skip
def test_a_sample_whose_id_is_none_is_refused(project, line, sentence):
    (project / "log.jsonl").write_text(line)
    with pytest.raises(DataError, match=sentence):
        importing.import_logs("logs", [cell(project / "log.jsonl", ["metric=right", "id=question"])], project)
    assert not (project / "outputs").exists()


def test_words_decimals_and_whole_transcripts_are_read(project):
    from decimal import Decimal

    rows = [{"question": "a", "right": True, "said": "x" * 200_000}, {"question": "b", "right": False, "said": ""}]
    assert read(project, rows, ("metric=right", "id=question")).metric("right")["k"] == 1
    rows = [{"question": "a", "right": Decimal("0.25")}]
    exact = read(project, rows, ("metric=right", "id=question"), "exact.parquet", label="exact")
    assert exact.metric("right")["value"] == 0.25


def test_a_sample_that_lacks_one_of_the_scores_is_unscored_and_not_absent():
    rows = [Row("a", 1, "x", 1.0, "scored", "a"), Row("a", 1, "y", 1.0, "scored", "a"),
            Row("b", 1, "x", 0.0, "scored", "p", limited=True, group="g")]  # fmt: skip
    made = imported_metrics.metrics({}, {"rows": frame(rows, "log"), "log": {}}, {})
    assert (made["y"]["n"], made["y.left_out"]["k"], made["y.left_out"]["n"], made["y.limited"]["k"]) == (1, 1, 2, 1)
    assert made["y.unscored_wrong"]["value"] == 0.5
    [added] = frame(rows, "log").query("score == 'y' and sample == 'b'").itertuples(index=False)
    assert (added.state, added.cluster, added.group) == ("unscored", "p", "g") and np.isnan(added.value)


@pytest.mark.parametrize(
    "words", [["--map", "right"], ["--map", "metric="], ["--map", "metric=right", "--label", "a/b"]]
)
def test_a_word_of_the_command_that_cannot_be_is_one_sentence(project, words):
    done = CliRunner().invoke(app, ["import", "csv", str(written(project, draws())), *words])
    assert done.exit_code == 1 and "must match pattern" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("label", ["../up", "a/b", "", ".hidden"])
def test_a_label_that_is_a_path_is_refused(project, label):
    from helpers.base.errors import ParameterError

    with pytest.raises(ParameterError, match="label"):
        cell(written(project, draws()), label=label)


@pytest.mark.parametrize("model", ["a\nb", "\x1b[31m", "\ud800", "x" * 501, ""])
def test_a_model_that_no_terminal_can_show_is_refused(project, model):
    from helpers.base.errors import ParameterError

    with pytest.raises(ParameterError, match="model"):
        params.parse(LogCell, {"label": "log", "tool": "csv", "file": "x.csv", "model": model}, "here")


@pytest.mark.parametrize("name", ["published", "baseline"])
def test_records_of_others_are_not_joined(project, name):
    made = {"published": project / "published", "baseline": project / "outputs/baseline"}[name]
    made.mkdir(parents=True)
    with pytest.raises(DataError, match=f"outputs/{name} holds what is not of this study"):
        importing.import_logs(name, [cell(written(project, draws()))], project)
    assert not (project / "params").exists() and not list(made.iterdir())


def test_a_score_that_no_sample_has_is_said_with_its_count(project):
    record = read(project, [{"question": "a", "right": ""}, {"question": "b", "right": ""}], ("metric=right",))
    assert importing.lines_about(record)[1:] == ["  right: no value, 2 of 2 left out"]


def test_many_rows_are_joined_from_parts_alike(monkeypatch):
    rows = [Row(f"s{at}", 1, name, value, "scored", f"c{at}") for at in range(40)
            for name, value in (("x", float(at % 2)), ("y", None))]  # fmt: skip
    whole = frame(rows, "log")
    monkeypatch.setattr(samples, "HELD", 7)
    pd.testing.assert_frame_equal(frame(rows, "log"), whole)


def test_a_million_rows_are_not_held_as_a_million_objects(monkeypatch):
    """No more than a part of them is alive while the next are read."""

    class Counted(Row):
        alive = most = 0

        def __new__(cls, *args):
            Counted.alive += 1
            Counted.most = max(Counted.most, Counted.alive)
            return super().__new__(cls, *args)

        def __del__(self):
            Counted.alive -= 1

    monkeypatch.setattr(samples, "HELD", 100)
    table = frame((Counted(str(at), 1, "x", 1.0, "scored", str(at), False, None) for at in range(2_000)), "log")
    assert len(table) == 2_000 and Counted.most <= 202


STAMP = "2026-01-01T00-00-00.000001"
RESULTS = {"results": {"toy": {"exact_match,none": 0.5}}, "config": {"model": "hf"}, "lm_eval_version": "0.4.13"}
SAMPLE = {"doc_id": 0, "doc": {"q": 1}, "filter": "none", "metrics": ["exact_match"], "exact_match": 1}


def lm_eval_cell(folder: Path, results: str, sample: dict, **given) -> LogCell:
    (folder / f"results_{STAMP}.json").write_text(results)
    (folder / f"samples_toy_{STAMP}.jsonl").write_text(json.dumps(sample))
    return LogCell(label="toy", tool="lm-eval", file=str(lm_eval.tasks(folder)["toy"]), **given)


@pytest.mark.parametrize("changed", [
    {"config": "hf"}, {"configs": [1]}, {"configs": {"toy": "x"}}, {"results": ["x"]}, {"results": {"toy": "x"}},
    {"versions": [1]}, {"n-shot": 5}, {"config": {"random_seed": math.nan}}, {"config": {"gen_kwargs": [math.inf]}},
    {"config": {"gen_kwargs": "\ud800"}}, {"model_name": "\ud800"}, {"model_name": "a\nb"},
    {"lm_eval_version": math.nan}, "[" * 100_000, "{", "[]",
])  # fmt: skip
def test_results_of_lm_eval_that_lie_about_their_shape_leave_nothing(project, changed):
    text = changed if isinstance(changed, str) else json.dumps(RESULTS | changed)
    with pytest.raises(ClaimbookError) as caught:
        importing.import_logs("logs", [lm_eval_cell(project, text, SAMPLE)], project)
    assert "\n" not in str(caught.value)
    assert not (project / "params").exists() and not (project / "outputs").exists()


@pytest.mark.parametrize("figure", [math.nan, math.inf, 10**400, "0.5", None])
def test_a_figure_of_lm_eval_that_is_none_says_nothing(project, figure):
    text = json.dumps(RESULTS | {"results": {"toy": {"exact_match,none": figure}}, "model_name": {"a": 1}})
    [record] = importing.import_logs("logs", [lm_eval_cell(project, text, SAMPLE)], project)
    assert record.metric("exact_match")["value"] == 1 and record.content.get("note") is None
    assert record.params["model"] == "hf"


@pytest.mark.parametrize(("changed", "cluster"), [
    ({"metrics": "exact_match"}, None), ({"metrics": 3}, None), ({"metrics": [["a"]]}, None), ({"doc": "quote"}, "q"),
    ({"doc": None}, "q"), ({"doc": {"p": 1}}, "q"),
])  # fmt: skip
def test_samples_of_lm_eval_that_lie_about_their_shape_leave_nothing(project, changed, cluster):
    logged = lm_eval_cell(project, json.dumps(RESULTS), SAMPLE | changed, cluster=cluster)
    with pytest.raises(DataError) as caught:
        importing.import_logs("logs", [logged], project)
    assert "\n" not in str(caught.value) and not (project / "outputs").exists()


def test_a_study_of_another_kind_is_not_written_into(project):
    folder = project / "params" / "logs"
    folder.mkdir(parents=True)
    files.write_text(folder / "experiment.yaml", "study: helpers.studies.marker.study:STUDY\n")
    with pytest.raises(DataError, match="belongs to another study"):
        read(project, draws())


def test_more_scores_than_a_record_holds_are_refused(project):
    row = {f"s{number}": 1 for number in range(SCORES + 1)}
    with pytest.raises(DataError, match=f"at most {SCORES}"):
        read(project, [row], [f"metric.s{number}=s{number}" for number in range(SCORES + 1)])


@pytest.mark.parametrize("name", ["exact match", "42", "a/b", "...", "größe", "x" * 300])
def test_every_score_has_a_name_that_records_and_criteria_can_hold(name):
    assert NAME.fullmatch(plain_name(name)) and plain_name(name).replace(".", "_").isidentifier()
