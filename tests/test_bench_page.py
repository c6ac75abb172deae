"""The page of speed: judged by records of comparisons, the newest of each, and NOT RUN where there is none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from helpers.base.files import ROOT
from helpers.bench import machine, measured, views
from helpers.bench.measured import Measured, metric, single
from helpers.cases import open_case
from helpers.records import runs
from helpers.show.markup import unseal
from helpers.site import page
from helpers.site.fallback import execute

pytestmark = pytest.mark.unit
PAGE, SHAPE = "reports/speed.qmd", "shape-qwen2.5-7b"
WAYS = ["all on", "padding", "beginnings not merged", "head everywhere", "gradient checkpointing"]


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    return tmp_path


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "device", lambda: "cuda")


def shape(low: float, high: float, minute: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of the larger shape, made at ``minute``."""
    parts = {"part": ["training", "in all"], "amount": [7410.0, 25.0], "unit": ["steps", "cells"]}
    table = pd.DataFrame(parts | {name: [0.5, 1.0] for name in ("hours", "low", "high")})
    hours = {"value": (low + high) / 2, "unit": "h", "n": 12, "low": low, "high": high, "method": "range"}
    metrics = {"projected_hours": hours, "published_over_projected": metric("x", [4, 5, 6]), "took": single(9.0, "s")}
    model = {"name": "random", "sha256": "0" * 64, "parameters": 7_000_000_000}
    when = pd.Timestamp(f"2026-02-03T04:{minute:02d}:00Z")
    monkeypatch.setattr(measured.pd.Timestamp, "now", staticmethod(lambda zone: when))
    kept = Measured({"projection": table}, metrics, model, {"engine": "vllm"}, "qwen2.5-7b")
    measured.keep("shape", kept, "helpers.bench.shapes")


def techniques(slowest: float) -> None:
    table = pd.DataFrame({"way": WAYS})
    metrics = {"took": single(9.0, "s")}
    for way in WAYS:
        metrics[f"techniques_{measured.metric_part(way)}_seconds"] = metric("s", [1.0, 1.1])
    for way, low in zip(WAYS[1:], (1.2, 1.3, slowest, 1.4), strict=True):
        metrics[f"techniques_{measured.metric_part(way)}_ratio"] = metric("x", [low, low + 0.1])
    model = {"name": "smollm2", "sha256": "0" * 64, "parameters": 135_000_000}
    measured.keep("techniques", Measured({"techniques": table}, metrics, model), "helpers.bench.techniques")


def test_without_a_record_nothing_is_said_of_a_gpu() -> None:
    case = open_case(PAGE)
    assert {verdict.word for verdict in case.verdicts().values()} == {"NOT RUN"}
    assert "NOT RUN" in views.projected(case, SHAPE).fragment
    assert "no record of techniques on a GPU" in views.ways(case, "techniques", "x").fragment


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize(
    ("low", "high", "word", "half"),
    [(1.2, 1.4, "SUPPORTED", "SUPPORTED"), (1.4, 1.9, "SUPPORTED", "UNDECIDED"), (1.8, 2.1, "UNDECIDED", "REFUTED"),
     (2.1, 3.0, "REFUTED", "REFUTED")],
)  # fmt: skip
def test_the_hours_are_judged_by_their_whole_range(low, high, word, half, monkeypatch) -> None:
    shape(low, high, 1, monkeypatch)
    case = open_case(PAGE)
    assert (case.verdict().word, case.verdict("one_and_a_half").word) == (word, half)


@pytest.mark.usefixtures("cuda")
def test_a_comparison_made_again_stands_for_itself(monkeypatch) -> None:
    shape(2.5, 2.6, 2, monkeypatch)
    shape(1.0, 1.1, 3, monkeypatch)
    shape(2.7, 2.8, 1, monkeypatch)
    case = open_case(PAGE)
    newest = max(case.records, key=lambda record: record.started)
    assert len(case.records) == 3 and case.evidence().records == (newest,)
    assert case.verdict().word == "REFUTED" and newest.metrics["projected_hours"]["low"] == 2.7


@pytest.mark.parametrize(("slowest", "word"), [(1.1, "SUPPORTED"), (0.95, "UNDECIDED"), (0.8, "REFUTED")])
def test_a_technique_that_does_not_pay_is_seen_on_a_cpu_as_well(slowest, word, monkeypatch) -> None:
    monkeypatch.setattr(machine, "device", lambda: "cpu")
    techniques(slowest)
    here = page.elsewhere(open_case(PAGE), {}, "params/bench/cpu.yaml")
    assert here.verdict("techniques_pay").word == word
    assert open_case(PAGE).verdict("techniques_pay").word == "NOT RUN"


def compared(what: str, value: float, low: float, high: float) -> None:
    table = pd.DataFrame({"way": ["ours", "theirs"], "ratio": [1.0, value]})
    ratio = single(value, "x") | {"low": low, "high": high, "n": 3, "method": "range of paired runs"}
    model = {"name": "smollm2", "sha256": "0" * 64, "parameters": 135_000_000}
    measured.keep(what, Measured({what: table}, {f"{what}_theirs_ratio": ratio}, model), "helpers.bench.marker")


def test_a_chart_says_what_is_compared_by_how_much_on_which_machine_and_what_was_not_run(monkeypatch) -> None:
    monkeypatch.setattr(machine, "device", lambda: "cpu")
    compared("training", 2.5, 2.25, 2.75)
    text = views.ratios({"training": "training", "evaluation": "completions"}, "The plain ways", "ours").fragment
    assert "training: theirs 2.5 x [2.25, 2.75]" in text and "range of 3 paired runs" in text
    assert "NOT RUN: training on a GPU, completions on a GPU, completions on a CPU" in text
    (record,) = runs.records("bench")
    assert record.environment["hardware"]["cpu"] in text
    assert views.ratios({"stacked": "SmolLM2"}, "x", "y").fragment.count("NOT RUN") == 1


def test_what_did_not_pay_is_read_from_the_records(monkeypatch) -> None:
    monkeypatch.setattr(machine, "device", lambda: "cpu")
    assert "faster in every pair" in views.unpaid(["training", "stacked", "capture"]).fragment
    compared("training", 2.5, 2.25, 2.75)
    compared("stacked", 0.875, 0.75, 1.25)
    compared("capture", 0.5, 0.25, 0.75)
    text = views.unpaid(["training", "stacked", "capture"]).fragment
    assert "not faster in every pair" in text and "never faster" in text and "2.50" not in text


def test_a_gate_that_is_not_complete_shows_no_number(monkeypatch) -> None:
    monkeypatch.setattr(machine, "device", lambda: "cpu")
    text = views.same_in_bf16("smollm2", "SmolLM2").fragment
    assert "Not measured: no record of six cells of SmolLM2" in text and not any(
        c.isdigit() for c in text.replace("SmolLM2", "")
    )


@pytest.mark.parametrize(("outside", "said"), [(0, "bf16 passes."), (1, "does not pass: what is judged stays in fp32")])
def test_the_gate_says_whether_it_is_passed(outside, said, monkeypatch) -> None:
    counts = {"rates_apart": 0, "tenths_apart": outside, "doses_apart": 0}
    metrics = {name: {"value": value, "n": 9} for name, value in counts.items()}
    metrics |= {
        f"largest_{what}": {"value": 0.1, "unit": "nats"} for what in ("rate_difference", "loss_gap", "dose_gap")
    }
    monkeypatch.setattr(views, "newest", lambda what: {"cpu": SimpleNamespace(metrics=metrics)})
    assert said in views.same_in_bf16("smollm2", "SmolLM2").fragment


@pytest.mark.check
@pytest.mark.usefixtures("cuda")
def test_the_page_shows_what_the_records_hold(monkeypatch) -> None:
    shape(1.2, 1.4, 1, monkeypatch)
    techniques(1.1)
    text = unseal(execute(ROOT / PAGE, PAGE)[1])
    assert "1.3 h (N 12, range 1.2–1.4)" in text and "with completions by" in text
    assert "runs.html#shape-qwen2.5-7b-cuda-" in text and "beginnings not merged" in text
    assert "no record of techniques on a CPU" in text and "no record of sweep25 on a GPU" in text
