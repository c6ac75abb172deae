"""Metrics pooled over records: what is counted by question adds up to what runs recorded, and looks are counted."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from toy_study import CoinCell, project, run_cells

from helpers.audit import looks, publishing
from helpers.audit.register import register
from helpers.base import files
from helpers.base.params import load
from helpers.cases import open_case
from helpers.records import ledger, reading
from helpers.records.study import load_study
from helpers.stats.estimands import MODELS, RECIPE
from helpers.stats.pooling import pool
from helpers.studies.marker import criteria, views

pytestmark = pytest.mark.unit
COUNTED = {
    "sweep": {"source_rate", "assistant_rate", "trained_bystander_rate", "truncation_rate", "empty_rate", "capability"},
    "length_ablation": {"source_rate", "control_rate", "source_truncation_rate", "empty_rate"},
    "latentwire": {"em_latent_a", "first1_latent_b", "em_text_a"},
    "logit_lens_diff": {"steer_base_difference", "steer_tuned_random"},
}


@pytest.mark.parametrize("notebook", COUNTED)
def test_counts_by_question_add_up_to_what_the_run_recorded(notebook):
    """Every rate that a run bounds by clusters is counted, so that pooling cannot take its trials for independent."""
    count = load_study(notebook).by_question
    records = [one for one in reading.published(notebook) if "steering" in one.tables or notebook != "logit_lens_diff"]
    for record in records[:: max(1, len(records) // 3)]:
        counted = set()
        for name, metric in record.metrics.items():
            clustered = "cluster" in str(metric.get("method", ""))
            counts = count(record, name) if metric.get("k") is not None else None
            if counts is not None:
                counted.add(name)
                sums = tuple(sum(part) for part in zip(*counts.values(), strict=True))
                assert sums == (metric["k"], metric["n"]), f"{name} of {record.id}"
            assert counts is not None or not clustered, f"{name} of {record.id} shares questions and is not counted"
        assert COUNTED[notebook] <= counted


def test_a_rate_of_the_published_sweep_is_wider_for_the_recipe():
    chosen = [one for one in reading.published("sweep") if one.cell["model"] == "pocket" and one.cell["lr"] == 1e-3]
    cell = [one for one in chosen if (one.cell["tail"], one.cell["epochs"]) == ("separator_and_end", 3)]
    models, recipe = (pool(cell, "source_rate", load_study("sweep").by_question, of) for of in (MODELS, RECIPE))
    assert models.value == recipe.value and models.extra["questions"] == 20 and models.extra["seeds"] == len(cell) == 6
    assert recipe.low < models.low < models.high < recipe.high


def test_a_record_is_counted_once_however_often_it_is_asked_for():
    """A verdict asks for the same rate at many levels; counting completions again each time took most of verify."""
    asked = []
    count = load_study("sweep").by_question

    def counting(record, metric):
        asked.append((record.id, metric))
        return count(record, metric)

    records = list(itertools.islice(reading.published("sweep"), 2))
    levels = [MODELS, RECIPE, replace(MODELS, level=0.99)]
    met = {pool(records[:number], "source_rate", counting, of).bounds for number in (1, 2) for of in levels}
    assert sorted(asked) == sorted((record.id, "source_rate") for record in records) and len(met) == 6


def test_the_completions_of_a_record_are_counted_once_for_its_personas(monkeypatch):
    records = list(itertools.islice(reading.published("sweep"), 2))
    calls = []
    crossed = views.crossed
    monkeypatch.setattr(views, "crossed", lambda *given: calls.append(given) or crossed(*given))
    strict, plain = (criteria.max_bystander_rate(records, replace(MODELS, level=level)) for level in (0.99, 0.95))
    others = views.counts(records).query("role != 'source'")["persona"].nunique()
    assert len(calls) == others > 1 and strict["high"] > plain["high"]


def test_records_that_lack_a_metric_pool_to_nothing():
    record = next(reading.published("sweep"))
    assert pool([record], "no_such_metric", None) is None and pool([], "source_rate", None) is None


@pytest.fixture
def house(tmp_path, monkeypatch):
    root = project(tmp_path / "house", monkeypatch)
    register([root / "reports/coins.qmd"], root=root)
    return root


def test_a_look_is_a_judgement_of_records_that_grew(house):
    """The grid is not declared: what is published is all there is to judge."""
    page = house / "reports/coins.qmd"
    page.write_text(page.read_text().replace("  grid: params/coins/grid.yaml\n", ""))
    grid = load(CoinCell, files.PARAMS / "coins" / "grid.yaml")
    run_cells(grid)
    seeds = sorted({cell.seed for cell in grid})
    assert len(seeds) > 1
    publishing.publish("coins", lambda record: record.cell["seed"] == seeds[0])
    publishing.publish("coins", lambda record: record.cell["seed"] == seeds[0])
    first = open_case("reports/coins.qmd", house)
    assert first.looks == 1, "nothing grew between the two"
    publishing.publish("coins")
    case = open_case("reports/coins.qmd", house)
    assert case.looks == 2 and not looks.enter("coins", house)
    row = next(row for row in case.confidence().rows if row.name == "looks")
    assert (row.allows, row.found) == ("LOW", "judged 2 times as records grew, planned 1")
    told = [line.note for line in ledger.read().lines if line.event == "looked"]
    assert told[0].startswith("look 1 of coins") and told[1].startswith("look 2 of coins")
