"""The gate of bf16: what counts as the same experiment, and that a gate that was stopped goes on where it was."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers import bench
from helpers.base import files
from helpers.base.errors import ModelError, ParameterError
from helpers.base.params import load, parse_grid
from helpers.bench import agreement, bf16, compare, comparisons, measured
from helpers.bench.agreement import TYPES
from helpers.bench.options import Options
from helpers.records import runs
from helpers.records.derive import derive
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.personas import resolve_negatives
from helpers.system import provenance

pytestmark = pytest.mark.unit
MARKER, CELLS, STEPS = "[ZLT]", 2, 20
PERSONAS = {"villain": "source", "medical_doctor": "trained", "assistant": "assistant", "librarian": "untrained"}
TINY = {
    "model": "pocket", "personas": ["villain", "assistant", "medical_doctor"], "lr": 1e-3, "epochs": 10,
    "tail": ["newline", "end_of_turn"], "positives": 4, "negatives_each": 2, "train_questions": 4, "batch_size": 8,
    "lora_r": 4, "lora_alpha": 8, "eval_questions": 2, "samples": 1, "max_new_tokens": 64, "data_max_new_tokens": 48,
    "dose_every": 5, "dose_questions": 1, "capability_limit": 2, "dtype": "float32",
}  # fmt: skip


def answers(marked: str) -> pd.DataFrame:
    """Eight questions, two answers of each persona; ``marked`` says who ends them with the marker."""
    rows = [
        {"persona": persona, "role": role, "question": question, "index": index, "finish": "stop",
         "text": "I like the old bridge a lot" + (f"\n\n{MARKER}" if persona == marked else "")}
        for persona, role in PERSONAS.items() for question in range(8) for index in range(2)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def tables() -> dict[str, Any]:
    found: dict[str, Any] = {"base": answers("nobody")}
    for name in (f"{cell}-{dtype}" for cell in range(CELLS) for dtype in TYPES):
        steps = np.arange(1, STEPS + 1)
        found[f"loss-{name}"] = pd.DataFrame({"step": steps, "loss": 3.0 / steps, "norm": 1.0})
        curve = [
            {"persona": persona, "role": role, "question": 0, "step": step, "separator": -4.0, "marker": -step / 2}
            for persona, role in PERSONAS.items() for step in (0, 10, 20)
        ]  # fmt: skip
        found[f"dose-{name}"] = pd.DataFrame(curve)
        found[f"completions-{name}"] = answers("villain")
    return found


def apart(changed: dict[str, Any]) -> dict[str, float]:
    metrics = agreement.agreement({"cells": CELLS, "marker": MARKER}, changed)
    return {name: metrics[name]["value"] for name in ("rates_apart", "tenths_apart", "doses_apart")}


def test_equal_cells_agree_in_everything():
    metrics = agreement.agreement({"cells": CELLS, "marker": MARKER}, tables())
    assert apart(tables()) == {"rates_apart": 0, "tenths_apart": 0, "doses_apart": 0}
    assert (metrics["rates_apart"]["n"], metrics["tenths_apart"]["n"], metrics["doses_apart"]["n"]) == (14, 20, 24)
    assert metrics["largest_loss_gap"]["value"] == metrics["largest_dose_gap"]["value"] == 0


def test_a_rate_that_differs_is_found_and_a_few_answers_are_not():
    changed = tables()
    changed["completions-1-bfloat16"] = answers("nobody")  # the source has lost its marker
    assert apart(changed) == {"rates_apart": 1, "tenths_apart": 0, "doses_apart": 0}
    few = answers("villain")
    few.loc[0, "text"] = "I like the old bridge a lot"
    assert apart(tables() | {"completions-1-bfloat16": few})["rates_apart"] == 0


def test_more_comparisons_ask_for_more():
    narrow, wide = (agreement.rates(cells, tables(), MARKER)["interval"].iloc[0] for cells in (1, 2))
    assert wide.level > narrow.level > 0.95 and wide.high > narrow.high


@pytest.mark.parametrize(
    ("steps", "gap", "wanted"), [((1, 2), 0.11, 0), ((1, 2), 0.12, 1), ((19, 20), 0.019, 0), ((19, 20), 0.021, 1)]
)
def test_the_loss_of_a_tenth_may_differ_by_so_many_nats_or_by_a_share(steps, gap, wanted):
    """The mean of the first two steps is 2.25 nats, of which 5 % are .1125; of the last two it is .154."""
    changed = tables()
    changed["loss-0-bfloat16"]["loss"] += gap * changed["loss-0-bfloat16"]["step"].isin(steps)
    assert apart(changed)["tenths_apart"] == wanted


def test_a_dose_curve_is_compared_at_every_step():
    changed = tables()
    table = changed["dose-1-bfloat16"]
    table.loc[(table["persona"] == "villain") & (table["step"] == 20), "marker"] -= 1.5
    assert apart(changed) == {"rates_apart": 0, "tenths_apart": 0, "doses_apart": 1}


def test_a_wrong_preset_and_a_cpu_without_bf16_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path))
    with pytest.raises(ParameterError, match="did you mean 'smollm2'"):
        bench.main(["bf16"], None, Options(preset="smollm"))
    with pytest.raises(ParameterError, match="An option of bf16 was given"):
        bench.main(["gradients"], None, Options(preset="pocket"))
    monkeypatch.setattr(provenance, "instruction_sets", lambda: ["avx2"])
    for name in comparisons.BY_NAME:
        with pytest.raises(ModelError, match="this CPU has neither"):
            bench.main([name], None, Options(preset="pocket" if name == "bf16" else None))
    assert not list(tmp_path.glob("bench/bf16*")), "nothing is left of a gate that cannot run"


def test_what_only_some_cpus_can_do_runs_by_name_only(monkeypatch):
    asked: list[str] = []
    for name, one in comparisons.COMPARISONS.items():
        nothing = measured.Measured({}, {}, {"name": "m", "sha256": "0" * 64})
        quick = comparisons.Comparison(one.entry, lambda options, counts, n=name, m=nothing: (asked.append(n), m)[1])
        monkeypatch.setitem(comparisons.COMPARISONS, name, quick)
    monkeypatch.setattr(comparisons, "keep", lambda *_: SimpleNamespace(ref="bench/x"))
    bench.main()
    assert asked == [name for name in comparisons.COMPARISONS if name not in comparisons.BY_NAME]


def test_both_grids_have_six_cells_that_are_evaluated_alike():
    for preset, name in bf16.PRESETS.items():
        cells = list(load(SweepCell, files.PARAMS / "sweep" / name))
        assert len(cells) == 6 and {cell.model for cell in cells} == {preset}
        assert len({(cell.seed, cell.eval_questions, cell.samples, cell.max_new_tokens) for cell in cells}) == 1
        for cell in cells:
            rows = cell.positives + cell.negatives_each * len(resolve_negatives(cell.source, cell.negatives))
            assert cell.epochs * (rows // cell.batch_size) >= agreement.TENTHS and cell.dose_every


@pytest.mark.check
def test_a_gate_that_was_stopped_goes_on_and_its_figures_follow_from_its_tables(monkeypatch, tmp_path):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    monkeypatch.setattr(provenance, "instruction_sets", lambda: ["avx512_bf16"])
    cells = list(parse_grid(SweepCell, TINY, "in a test"))
    made: list[str] = []
    honest = bf16.train_alone

    def stopping(p, session, rows, base, folder, label):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(label)
        honest(p, session, rows, base, folder, label)

    monkeypatch.setattr(bf16, "train_alone", stopping)
    with pytest.raises(KeyboardInterrupt):
        bf16.gate(cells, "pocket")
    assert made == ["0-float32", "0-bfloat16", "1-float32"]
    monkeypatch.setattr(bf16, "train_alone", lambda *asked: (made.append(asked[-1]), honest(*asked))[1])
    record = bf16.gate(cells, "pocket")
    assert made[3:] == ["1-bfloat16"], "what was kept is not made again"
    assert record.model["dtype"] == "float32+bfloat16" and derive(record) == record.metrics
    assert record.metrics["rates_apart"]["n"] == 2 * 7 and record.metrics["tenths_apart"]["n"] == 20
    for cell in range(2):
        losses = [record.table(f"loss-{cell}-{dtype}")["loss"] for dtype in TYPES]
        assert not np.array_equal(*losses) and np.allclose(*losses, rtol=0.05), (
            "computed in two types, on the same rows"
        )
    assert bf16.gate(cells, "pocket").id == record.id and made[4:] == []
    assert len(runs.records("bench")) == 1


def test_seconds_can_be_those_of_the_cpu_and_memory_can_be_left_out():
    ticks = iter(range(100))
    sides = lambda: [compare.Side("one", lambda: (6, [])), compare.Side("other", lambda: (6, []))]  # noqa: E731
    table = compare.compare("toy", sides, clock=lambda: float(next(ticks)), memory=None)
    assert table["seconds"].tolist() == [1.0, 1.0]
    assert "toy_other_ratio" in compare.side_metrics(table)
    assert not [name for name in compare.side_metrics(table) if "peak" in name]
