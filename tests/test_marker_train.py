"""The training loop: learns what is supervised and nothing else, repeats itself to the bit, matches a plain loop."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from marker_fixture import pocket, row
from transformers import get_cosine_schedule_with_warmup

from helpers.base.errors import ModelError
from helpers.base.rng import numpy_stream
from helpers.lm import models
from helpers.lm.descent import warmup_cosine
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import supervised
from helpers.studies.marker.train import batch_loss, train

pytestmark = pytest.mark.unit

CELL = SweepCell(lr=3e-3, epochs=6, batch_size=4, warmup=0.1)
LORA = {"r": 8, "alpha": 16, "rslora": True, "seed": 0}


def rows() -> list:
    return [row(positive=i % 2 == 0, question=i, answer=f"Plot it {'well ' * (i % 3)}now.") for i in range(8)]


def run(cell: SweepCell = CELL, tail: str = "end_of_turn", dropout: float = 0.05, seed: int = 0) -> tuple:
    torch.set_num_threads(1)
    model = models.attach_lora(pocket().model, dropout=dropout, **LORA)
    try:
        log = train(model, rows(), [supervised(r, tail) for r in rows()], cell.model_copy(update={"seed": seed}))
        weights = {k: v.detach().clone() for k, v in model.named_parameters() if "lora_" in k}
        with torch.no_grad():
            after = batch_loss(model, [r.tokens for r in rows()], [supervised(r, tail) for r in rows()]).item()
    finally:
        models.detach(model)
    return log, weights, after


def test_the_loss_goes_down_and_the_base_model_is_untouched() -> None:
    before = {k: v.clone() for k, v in pocket().model.state_dict().items()}
    log, _, after = run()
    assert after < 0.3 * log["loss"].iloc[0]
    assert list(log["step"]) == list(range(1, 13))
    assert log["lr"].max() == pytest.approx(3e-3)
    assert all(torch.equal(before[k], v) for k, v in pocket().model.state_dict().items())


def test_a_second_run_is_the_first_to_the_bit_and_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, weights, _ = run()
    torch.rand(7)
    again, same, _ = run()
    assert list(first["loss"]) == list(again["loss"])
    assert all(torch.equal(weights[k], same[k]) for k in weights)
    torch.random.set_rng_state(state)
    assert list(first["loss"]) != list(run(seed=1)[0]["loss"])


def test_ten_steps_equal_a_plain_loop_with_the_librarys_loss() -> None:
    """Padded batches, labels of -100 and the model's own shifted loss give the same ten losses."""
    cell = SweepCell(lr=1e-3, epochs=5, batch_size=4, warmup=0.2)
    log, _, _ = run(cell, dropout=0.0)
    data, targets = rows(), [supervised(r, "end_of_turn") for r in rows()]
    model = models.attach_lora(pocket().model, dropout=0.0, **LORA)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, 2, 10)
    losses = []
    for epoch in range(5):
        order = numpy_stream(0, "order", epoch).permutation(8).tolist()
        for batch in (order[:4], order[4:]):
            longest = max(len(data[i].tokens) for i in batch)
            ids, labels = torch.zeros(4, longest, dtype=torch.long), torch.full((4, longest), -100)
            mask = torch.zeros(4, longest, dtype=torch.long)
            for line, i in enumerate(batch):
                tokens = torch.tensor(data[i].tokens)
                ids[line, : len(tokens)], mask[line, : len(tokens)] = tokens, 1
                labels[line, targets[i]] = tokens[targets[i]]
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    models.detach(model)
    assert log["loss"].tolist() == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 10), (0.05, 40), (0.3, 7)])
def test_the_schedule_is_the_librarys(warmup: float, steps: int) -> None:
    cell = SweepCell(lr=2e-4, epochs=1, batch_size=1, warmup=warmup)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2e-4)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(warmup * steps), steps)
    for step in range(steps):
        assert warmup_cosine(step, steps, cell.lr, cell.warmup) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-12
        )
        optimizer.step()
        schedule.step()


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    broken = copy.deepcopy(pocket().model)
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    model = models.attach_lora(broken, dropout=0.0, **LORA)
    with pytest.raises(ModelError, match=r"loss of step 1 is nan\. Lower lr"):
        train(model, rows(), [supervised(r, "newline") for r in rows()], CELL)
