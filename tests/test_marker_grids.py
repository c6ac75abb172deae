"""The grids of the marker study on SmolLM2: what they declare, and a small pocket twin of each kind of cell."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from helpers.base.params import Grid, load, parse
from helpers.cases.case import runs_of
from helpers.claims.evidence import gather
from helpers.records import runs
from helpers.studies.marker import cell
from helpers.studies.marker.lengths import cell as length_cell
from helpers.studies.marker.lengths import views
from helpers.studies.marker.lengths.params import LengthCell
from helpers.studies.marker.lengths.study import STUDY as LENGTH_STUDY
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.personas import PERSONAS, resolve_negatives
from helpers.studies.marker.study import STUDY
from helpers.sweeps.grid import read_grid, rows

pytestmark = pytest.mark.unit

PARAMS = Path(__file__).parent.parent / "params"
ARMS = {"two": 2, "five": 5, "all": 10}
GRIDS = {
    "smollm2_mask": (55, 11),
    "smollm2_confirm": (20, 2),
    "smollm2_doses": (81, 27),
    "smollm2_reach": (24, 8),
    "pocket_seeds": (540, 27),
}
"""Cells, and cells once seeds are pooled."""
PILOT = {0, 1, 2, 3, 7}
"""Seeds on which the design was chosen."""


def grid(name: str) -> Grid[SweepCell]:
    return load(SweepCell, PARAMS / "sweep" / f"{name}.yaml")


@pytest.mark.parametrize(("name", "cells", "pooled"), [(name, *size) for name, size in GRIDS.items()])
def test_a_grid_declares_what_it_is_said_to(name: str, cells: int, pooled: int) -> None:
    declared = grid(name)
    assert (len(declared), len(gather([], runs_of(STUDY, declared)).cells)) == (cells, pooled)
    swept = rows(read_grid(PARAMS / "sweep" / f"{name}.yaml"), range(cells), cells)
    assert sorted(number for row in swept for number in row.cells) == list(range(cells))


@pytest.mark.parametrize("name", [name for name in GRIDS if name.startswith("smollm2")])
def test_every_arm_has_as_many_rows_and_asks_for_no_more_than_half_of_what_is_drawn(name: str) -> None:
    declared = grid(name)
    rows_of = {(one.positives, one.negatives_each * ARMS[one.negatives]) for one in declared}
    assert rows_of == {(20, 40)} | ({(60, 120)} if name == "smollm2_reach" else set())
    for one in declared:
        drawn = one.train_questions * one.data_samples
        assert 2 * max(one.positives, one.negatives_each) <= drawn, "an answer has to end by itself to be used"
        assert (one.dtype, one.capability, len(one.personas)) == ("float32", "templated", len(PERSONAS))
        assert one.max_new_tokens == (48 if one.tail == "newline" else 96) and one.crossing > 0
    assert PILOT.isdisjoint(one.seed for one in declared)
    points = {1 + one.epochs * math.ceil(60 / one.batch_size) // one.dose_every for one in declared if one.dose_every}
    assert points == ({2, 5, 9} if name == "smollm2_doses" else set()), "points of a dose curve"


def test_what_is_confirmed_is_confirmed_on_fresh_seeds() -> None:
    fresh = {one.seed for one in grid("smollm2_confirm")}
    others = [name for name in GRIDS if name not in ("smollm2_confirm", "pocket_seeds")]
    assert len(fresh) == 10 and fresh.isdisjoint(one.seed for name in others for one in grid(name))
    kept = [one for one in grid("pocket_seeds") if one.seed < 6]
    assert sorted(map(str, kept)) == sorted(map(str, grid("pocket_grid"))), "the records of six seeds are used again"


def test_the_small_cell_is_one_of_the_mask_grid_under_another_seed() -> None:
    (small,) = grid("smollm2_small")
    assert small.model_copy(update={"seed": 10}) in list(grid("smollm2_mask"))


TINY = {
    "model": "pocket", "style": "", "capability": "pocket", "epochs": 1, "lr": 3e-3, "train_questions": 4,
    "positives": 2, "negatives_each": 1, "lora_r": 4, "lora_alpha": 8, "batch_size": 2, "eval_questions": 1,
    "samples": 1, "max_new_tokens": 48, "data_max_new_tokens": 48, "capability_limit": 4, "crossing": 1,
    "dose_questions": 1,
}  # fmt: skip


def kinds() -> list[SweepCell]:
    """The first cell of every block, and of every tail in it."""
    found = {}
    for name in ("smollm2_mask", "smollm2_doses", "smollm2_reach"):
        for one in grid(name):
            found.setdefault((one.tail, one.negatives, one.source, one.dose_every), one)
    return list(found.values())


@pytest.mark.check
@pytest.mark.parametrize("one", kinds(), ids=lambda one: f"{one.source}-{one.tail}-{one.negatives}-{one.dose_every}")
def test_a_pocket_twin_of_every_kind_of_cell_runs(
    one: SweepCell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path))
    every = {"dose_every": 1} if one.dose_every else {}
    (record,) = cell.run_cells([parse(SweepCell, one.model_dump() | TINY | every, "of a twin")])
    negatives = resolve_negatives(one.source, one.negatives)
    assert record.params["negatives"] == negatives and record.cell["negatives"] == one.negatives
    assert set(record.table("rows")["persona"]) == {one.source, *negatives}
    assert ("dose_crossing" in record.tables) == bool(one.dose_every) and "crossing" in record.tables
    bystanders = record.table("completions").drop_duplicates("persona")["role"].value_counts()
    assert bystanders.get("trained", 0) == ARMS[one.negatives]


def lengths() -> Grid[LengthCell]:
    return load(LengthCell, PARAMS / "length_ablation" / "smollm2_lengths.yaml")


def test_the_lengths_are_seven_cells_with_equal_rows_and_room_for_twice_the_longest_answer() -> None:
    declared = lengths()
    swept = read_grid(PARAMS / "length_ablation" / "smollm2_lengths.yaml")
    assert len(declared) == len(swept.cells) == 21 and PILOT.isdisjoint(one.seed for one in declared)
    assert len(gather([], runs_of(LENGTH_STUDY, declared)).cells) == 7
    for one in declared:
        longest = one.target_tokens[one.length] * (1 + one.length_tolerance)
        assert one.max_new_tokens[-1] >= 2 * longest and one.data_max_new_tokens > longest
        assert (one.positives, one.negatives_each, one.negatives) == (20, 4, "all")
        assert len(one.personas) == 5 and one.controls == 2, "source, assistant, three bystanders, two nouns"
        assert one.train_questions * one.negative_samples >= 2 * one.negatives_each


@pytest.mark.check
@pytest.mark.parametrize("one", {one.tail: one for one in lengths()}.values(), ids=lambda one: str(one.tail))
def test_a_pocket_twin_of_every_length_cell_runs(
    one: LengthCell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path))
    tiny = {name: value for name, value in TINY.items() if name in LengthCell.model_fields} | {
        "answers": "joined", "target_tokens": {"short": 20, "medium": 30, "long": 40}, "max_new_tokens": [8, 48],
        "train_questions": 6, "data_samples": 8, "positives": 5, "mass_high": 0.9, "probe_every": 1, "probe_rows": 3,
        "context_questions": 1,
    }  # fmt: skip
    (record,) = length_cell.run_cells([parse(LengthCell, one.model_dump() | tiny, "of a twin")])
    pool = runs.load(record.inputs["rows"]).table("pool")["persona"].value_counts()
    assert pool.pop("librarian") == 6 * 8 and set(pool) == {6 * one.negative_samples} and len(pool) == 10
    assert set(record.table("crossing")["role"]) == {"source", "trained", "control"}


def test_a_tail_of_k_tokens_has_a_place_between_the_whole_turn_and_the_marker_alone() -> None:
    tails = ["separator_and_end", 8, "whole_turn", 16, "newline"]
    table = pd.DataFrame({"length": ["long", "short", "short", "short", "short"], "tail": tails})
    assert views.in_order(table)["tail"].tolist() == ["whole_turn", 16, 8, "newline", "separator_and_end"]
