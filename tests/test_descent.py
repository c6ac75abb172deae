"""AdamW, the schedule and clipping: equal to PyTorch's plain loop to the last bit, and written once."""

from __future__ import annotations

import copy
import math
import re

import pytest
import torch
from torch import nn

from helpers.base.errors import ModelError
from helpers.base.files import ROOT
from helpers.lm.descent import Descent, check_finite, warmup_cosine

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("clip", [0.1, math.inf])
def test_a_descent_is_the_plain_loop_to_the_bit(clip: float) -> None:
    model = nn.Linear(3, 2)
    other = copy.deepcopy(model)
    descent = Descent(model.parameters(), lr=0.1, clip=clip, betas=(0.9, 0.98), weight_decay=0.01)
    optimizer = torch.optim.AdamW(other.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(6):
        batch, rate = torch.randn(4, 3), warmup_cosine(step, 6, 0.1, 0.4)
        for one in (model, other):
            (one(batch) - 1).square().mean().backward()
        optimizer.param_groups[0]["lr"] = rate
        plain = nn.utils.clip_grad_norm_(other.parameters(), clip) if clip < math.inf else None
        optimizer.step()
        optimizer.zero_grad()
        norm = descent.clip()
        descent.step(rate)
        assert plain is None or torch.equal(norm, plain)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
        assert all(parameter.grad is None for parameter in model.parameters())


def test_the_rise_reaches_the_rate_behind_its_last_step_or_on_it() -> None:
    assert [warmup_cosine(step, 10, 1.0, 0.2) for step in range(3)] == [0.0, 0.5, 1.0]
    assert [warmup_cosine(step, 10, 1.0, 0.2, opens_at_zero=False) for step in range(3)] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused(loss: float) -> None:
    check_finite(1.0, 3, 0.1)
    with pytest.raises(ModelError, match=rf"The loss of step 3 is {loss}. Lower lr \(now 0.1\)"):
        check_finite(loss, 3, 0.1)


def test_no_other_module_makes_an_optimiser_clips_a_gradient_or_bends_a_cosine() -> None:
    parts = re.compile(r"AdamW\(|clip_grad_norm_\(|math\.cos\(math\.pi")
    sources = (ROOT / "src" / "helpers").rglob("*.py")
    places = [path.relative_to(ROOT).as_posix() for path in sources if parts.search(path.read_text(encoding="utf-8"))]
    assert places == ["src/helpers/lm/descent.py"]
