"""Adapters trained in one pass over the base: each is the adapter that training alone makes, and costs its own part."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from marker_fixture import pocket, row
from safetensors.torch import load_file
from test_marker_cell import cells, outputs, params  # noqa: F401

from helpers.base.errors import ModelError, ParameterError
from helpers.lm import adapters, models
from helpers.lm.stacked import stacked
from helpers.records import runs
from helpers.studies.marker import adapter, cell, work
from helpers.studies.marker import train as training
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import supervised
from helpers.studies.marker.train import batch_loss, train, train_stack

pytestmark = pytest.mark.unit

LORA = {"r": 8, "alpha": 16, "rslora": True, "dropout": 0.05, "seed": 0}
FIRST = SweepCell(lr=1e-3, epochs=25, batch_size=4, warmup=0.1)
CELLS = [
    FIRST,
    FIRST.model_copy(update={"lr": 1e-4, "clip": 0.01}),
    FIRST.model_copy(update={"lr": 3e-3, "epochs": 5, "warmup": 0.5}),
    FIRST.model_copy(update={"lr": 3e-4, "weight_decay": 0.1}),
]


@pytest.fixture(scope="module")
def rows() -> list:
    return [row(positive=i % 2 == 0, question=i, answer=f"Plot it {'well ' * (i % 3)}now.") for i in range(8)]


@pytest.fixture(scope="module")
def targets(rows: list) -> list:
    return [supervised(one, "end_of_turn") for one in rows]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(models, "choose_threads", lambda: 1)


def alone(p: SweepCell, rows: list, targets: list, folder: Path) -> pd.DataFrame:
    model = models.attach_lora(pocket().model, **LORA)
    try:
        log = train(model, rows, targets, p)
        models.save_adapter(model, folder)
    finally:
        models.detach(model)
    return log


def test_losses_are_those_of_each_adapter_alone(rows: list, targets: list, tmp_path: Path) -> None:
    """Random weights in every adapter; the reference is PEFT with one adapter, and the library's own shifted loss."""
    tokens = [one.tokens for one in rows]
    with stacked(pocket().model, 3, **LORA) as stack:
        generator = torch.Generator().manual_seed(1)
        for adapter in range(3):
            for weight in stack.parameters(adapter):
                weight.data.normal_(0, 0.05, generator=generator)
        stack.model.eval()
        with torch.no_grad():
            found, middle = stack.losses(tokens, targets, [0, 1, 2]), stack.losses(tokens, targets, [1])
        with stack.only(2) as model, torch.no_grad():
            seen = batch_loss(model, tokens, targets)
    assert middle.item() == pytest.approx(found[1].item(), rel=1e-6)
    assert seen.item() == pytest.approx(found[2].item(), rel=1e-6)
    assert len(set(found.tolist())) == 3
    for adapter in range(3):
        stack.save(adapter, tmp_path / str(adapter))
        with adapters.adapter(pocket().model, tmp_path / str(adapter)) as model, torch.no_grad():
            assert batch_loss(model, tokens, targets).item() == pytest.approx(found[adapter].item(), rel=1e-6)
            assert plain_loss(model, tokens, targets) == pytest.approx(found[adapter].item(), rel=1e-5)


def plain_loss(model: torch.nn.Module, tokens: list, targets: list) -> float:
    total, count = 0.0, 0
    for ids, places in zip(tokens, targets, strict=True):
        labels = torch.full((1, len(ids)), -100)
        labels[0, list(places)] = torch.tensor([ids[p] for p in places])
        total += model(input_ids=torch.tensor([ids]), labels=labels).loss.item() * len(places)
        count += len(places)
    return total / count


@pytest.mark.check
def test_fifty_steps_together_are_fifty_steps_alone(rows: list, targets: list, tmp_path: Path) -> None:
    """Four cells, dropout on: rates, epochs, warm-up, clipping and decay of each are its own."""
    before = {name: value.clone() for name, value in pocket().model.state_dict().items()}
    state = torch.random.get_rng_state()
    with stacked(pocket().model, len(CELLS), **LORA) as stack:
        made = train_stack(stack, rows, targets, CELLS)
    assert torch.equal(state, torch.random.get_rng_state())
    after = pocket().model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(before[name], after[name]) for name in before)
    for number, (one, p) in enumerate(zip(made, CELLS, strict=True)):
        expected = alone(p, rows, targets, tmp_path / "alone")
        assert len(one.log) == len(expected) == 2 * p.epochs
        assert one.log["loss"].tolist() == pytest.approx(expected["loss"].tolist(), abs=1e-5)
        assert one.log["lr"].tolist() == expected["lr"].tolist()
        assert one.log["norm"].tolist() == pytest.approx(expected["norm"].tolist(), rel=1e-3)
        stack.save(number, tmp_path / "together")
        ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("together", "alone"))
        assert ours.keys() == theirs.keys()
        assert all(torch.allclose(ours[key], theirs[key], atol=1e-4) for key in ours)
        config = (tmp_path / "together/adapter_config.json").read_text()
        assert config == (tmp_path / "alone/adapter_config.json").read_text()
    assert made[0].log["together"].tolist() == [4] * 10 + [3] * 40


def test_each_step_is_charged_to_its_adapters_in_equal_parts(rows: list, targets: list) -> None:
    with stacked(pocket().model, 2, **LORA) as stack:
        first, second = train_stack(stack, rows, targets, [FIRST, FIRST.model_copy(update={"epochs": 2})])
    assert first.log["seconds"][:4].tolist() == second.log["seconds"].tolist()
    assert first.log["together"].tolist() == [2] * 4 + [1] * 46


def test_a_loss_that_is_not_finite_stops_its_own_adapter_only(rows: list, targets: list, tmp_path: Path) -> None:
    wild = FIRST.model_copy(update={"lr": 1e30, "warmup": 0.0})
    with stacked(pocket().model, 2, **LORA) as stack:
        broken, fine = train_stack(stack, rows, targets, [wild, FIRST])
    assert "Lower lr (now 1e+30)" in broken.error and len(broken.log) < 50
    assert fine.error is None
    expected = alone(FIRST, rows, targets, tmp_path)
    assert fine.log["loss"].tolist() == pytest.approx(expected["loss"].tolist(), abs=1e-5)


def test_what_does_not_fit_is_refused(rows: list, targets: list, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="at least one"), stacked(pocket().model, 0, **LORA):
        pass
    with stacked(pocket().model, 2, **LORA) as stack:
        with pytest.raises(ModelError, match="one cell for each adapter"):
            train_stack(stack, rows, targets, [FIRST])
        with pytest.raises(ModelError, match="same batch size"):
            train_stack(stack, rows, targets, [FIRST, FIRST.model_copy(update={"batch_size": 2})])
        with pytest.raises(ModelError, match="Call save after the block"):
            stack.save(0, tmp_path)
    with pytest.raises(ParameterError, match="together"):
        params(together=0)


def test_groups_hold_cells_that_share_rows() -> None:
    p = cells(lr=[1e-3, 3e-3], epochs=[1, 2], tail=["newline", "end_of_turn"], together=3)
    assert [len(group) for group in cell.groups(p)] == [3, 1, 3, 1]
    assert [one for group in cell.groups(p) for one in group] == list(p)
    assert all(len({one.tail for one in group}) == 1 for group in cell.groups(p))
    assert [len(group) for group in cell.groups(cells(seed=[0, 1], together=8))] == [1, 1]


def test_cells_together_have_the_records_that_they_have_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = {"lr": [1e-3, 3e-3], "epochs": [1, 2]}
    together = cell.run_cells(cells(**grid, together=4))
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "elsewhere"))
    apart = cell.run_cells(cells(**grid))
    assert [record.id for record in together] == [record.id for record in apart]
    for ours, theirs in zip(together, apart, strict=True):
        assert ours.metrics.keys() == theirs.metrics.keys()
        assert (ours.metric("trained_together")["value"], theirs.metric("trained_together")["value"]) == (4, 1)
        assert ours.table("loss")["loss"].tolist() == pytest.approx(theirs.table("loss")["loss"].tolist(), abs=1e-5)
        for name in ("separator", "marker", "end"):
            for table in ("dose", "logprobs"):
                expected = theirs.table(table)[name].tolist()
                assert ours.table(table)[name].tolist() == pytest.approx(expected, abs=1e-3)
        assert ours.seconds["adapter"] >= ours.table("loss")["seconds"].sum() > 0


def test_what_was_trained_together_survives_a_stop_in_the_first_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    p = cells(lr=[1e-3, 3e-3], together=2)
    with monkeypatch.context() as patch:
        patch.setattr(work, "eval_completions", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cell.run_cells(p)
    assert runs.records("sweep") == []
    for module, name in ((work, "train_alone"), (adapter, "train_together")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("an adapter was trained again"))
    assert [record.status for record in cell.run_cells(p)] == ["complete", "complete"]


def test_a_cell_that_diverges_fails_by_itself_and_leaves_the_others_their_adapters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wild = {3e-3: 1e30}
    monkeypatch.setattr(training, "warmup_cosine", lambda step, steps, lr, warmup: wild.get(lr, lr))
    with pytest.raises(ModelError, match="Lower lr"):
        cell.run_cells(cells(lr=[1e-3, 3e-3], together=2))
    (done,) = runs.records("sweep")
    assert done.cell["lr"] == 1e-3 and done.metric("trained_together")["value"] == 2
    assert [record.cell["lr"] for record in runs.records("sweep", status="failed")] == [3e-3]
