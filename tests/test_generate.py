"""Sampling against the library's own greedy search, its own distribution, and its addresses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_packed import tiny

from helpers.base.errors import DataError
from helpers.lm import generate as module
from helpers.lm.generate import draw, generate
from helpers.lm.prompts import Prompt, Sampling

pytestmark = pytest.mark.unit

PROMPTS = [Prompt("a", [3, 4, 5]), Prompt("b", [7, 8, 9, 10, 11, 12]), Prompt("c", [2])]
GREEDY = Sampling(max_new_tokens=12, temperature=0)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_greedy_equals_the_librarys_greedy(kind: str) -> None:
    model = tiny(kind)
    found = generate(model, PROMPTS, n=1, sampling=GREEDY, stop=[99], seed=0)
    for prompt, completion in zip(PROMPTS, found, strict=True):
        expected = model.generate(
            torch.tensor([prompt.tokens]), max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=99
        )
        assert completion.tokens == expected[0, len(prompt.tokens) :].tolist()
        assert completion.finish == "length"


def test_a_completion_does_not_depend_on_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sampling = tiny("qwen2"), Sampling(20, 1.0, 0.95)
    together = generate(model, PROMPTS, n=5, sampling=sampling, stop=[6, 1], seed=3)
    alone = [c for p in PROMPTS for c in generate(model, [p], n=5, sampling=sampling, stop=[6, 1], seed=3)]
    monkeypatch.setattr(module, "MOST_ROWS", 2)
    in_twos = generate(model, PROMPTS, n=5, sampling=sampling, stop=[6, 1], seed=3)
    assert together == alone == in_twos
    assert {c.finish for c in together} == {"stop", "length"} or any(c.finish == "stop" for c in together)
    assert len({tuple(c.tokens) for c in together}) > 5


def test_stop_tokens_end_a_completion_and_are_not_part_of_it() -> None:
    model = tiny("qwen2")
    free = generate(model, PROMPTS, n=1, sampling=GREEDY, stop=[99], seed=0)[0].tokens
    stop = free[4]
    cut = generate(model, PROMPTS[:1], n=1, sampling=GREEDY, stop=[stop], seed=0)[0]
    assert cut.tokens == free[: free.index(stop)]
    assert cut.finish == "stop"


def test_other_seeds_and_other_names_are_other_samples() -> None:
    model, sampling = tiny("qwen2"), Sampling(20)
    first = generate(model, PROMPTS, n=2, sampling=sampling, stop=[99], seed=0)
    assert first != generate(model, PROMPTS, n=2, sampling=sampling, stop=[99], seed=1)
    assert first != generate(model, PROMPTS, n=2, sampling=sampling, stop=[99], seed=0, names=("other",))
    assert first == generate(model, PROMPTS, n=2, sampling=sampling, stop=[99], seed=0)


def test_draws_follow_the_softmax_at_its_temperature() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(20_000, 4)
    uniform = torch.from_numpy(np.random.Generator(np.random.Philox(0)).random(20_000)).float()
    found = torch.bincount(draw(logits, uniform, Sampling(1, temperature=0.7)), minlength=4) / 20_000
    expected = torch.softmax(logits[0] / 0.7, -1)
    assert torch.allclose(found, expected, atol=4 * (0.25 / 20_000) ** 0.5)


def test_the_nucleus_is_the_smallest_set_of_that_mass() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    uniform = torch.linspace(0, 0.9999, 2000)
    found = draw(probabilities.log().expand(2000, 4), uniform, Sampling(1, top_p=0.79))
    assert set(found.tolist()) == {0, 1}
    share = (found == 0).float().mean().item()
    assert share == pytest.approx(0.5 / 0.8, abs=2e-3)


def test_a_large_vocabulary_is_cut_only_where_the_cut_loses_nothing() -> None:
    flat, peaked = torch.zeros(1, 5000), torch.zeros(1, 5000)
    peaked[0, 17] = 20
    logits, uniform = torch.cat([flat, peaked]), torch.tensor([0.9, 0.9])
    found = draw(logits, uniform, Sampling(1, top_p=0.95))
    assert found[1] == 17
    order = flat.softmax(-1).sort(-1, descending=True).indices[0]
    assert found[0] == order[int(0.9 * 0.95 * 5000)] or abs(int((order == found[0]).nonzero()) - 4275) <= 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"prompts": []}, "nothing to generate"),
        ({"n": 0}, "nothing to generate"),
        ({"stop": []}, "stop token"),
        ({"prompts": [Prompt("a", [1]), Prompt("a", [2])]}, "share a key"),
        ({"prompts": [Prompt("a", [])]}, "no tokens"),
        ({"sampling": Sampling(0)}, "out of bounds"),
        ({"sampling": Sampling(4, top_p=0.0)}, "out of bounds"),
    ],
)
def test_bad_input_is_refused(change: dict, text: str) -> None:
    with pytest.raises(DataError, match=text):
        generate(tiny("qwen2"), **{"prompts": PROMPTS, "n": 1, "sampling": GREEDY, "stop": [99], "seed": 0} | change)
