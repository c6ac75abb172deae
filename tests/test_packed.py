"""The packed forward and the loss against the library's own forward, row by row."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from helpers.base.errors import ModelError
from helpers.lm import forward
from helpers.lm.exact import ways_of
from helpers.lm.packed import Layout, hidden_states, logits_at, nll

pytestmark = pytest.mark.unit

ROWS = [[1, 5, 9, 3, 7, 2], [4, 4, 8], [11, 3, 6, 6, 1, 2, 9, 10]]
SIZES = {"vocab_size": 32, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}


def tiny(kind: str, groups: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    config, model = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}[kind]
    return model(config(**SIZES, num_key_value_heads=groups)).eval()


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_packed_logits_equal_those_of_each_row_alone(kind: str, groups: int) -> None:
    model = tiny(kind, groups)
    positions = [[1, 5], [2], [3, 7]]
    packed = logits_at(model, ROWS, positions)
    alone = [model(torch.tensor([row])).logits[0, p - 1] for row, ps in zip(ROWS, positions, strict=True) for p in ps]
    torch.testing.assert_close(packed, torch.stack(alone), rtol=1e-5, atol=1e-6)


def test_gradients_equal_those_of_a_plain_loop_over_rows() -> None:
    model = tiny("qwen2")
    positions, targets = [[2, 5], [1], [7]], torch.tensor([9, 2, 4, 10])
    nll(logits_at(model, ROWS, positions), targets).mean().backward()
    packed = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    alone = [model(torch.tensor([row])).logits[0, p - 1] for row, ps in zip(ROWS, positions, strict=True) for p in ps]
    torch.nn.functional.cross_entropy(torch.stack(alone), targets).backward()
    for found, expected in zip(packed, [p.grad for p in model.parameters()], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_librarys_own_once_its_shift_is_undone() -> None:
    model, row = tiny("llama"), ROWS[2]
    own = nll(logits_at(model, [row], [list(range(1, len(row)))]), torch.tensor(row[1:])).mean()
    shifted_once_by_the_library = model(torch.tensor([row]), labels=torch.tensor([row])).loss
    torch.testing.assert_close(own, shifted_once_by_the_library, rtol=1e-5, atol=1e-6)


def test_rows_do_not_see_each_other() -> None:
    model = tiny("qwen2")
    before, layout = hidden_states(model, ROWS)
    changed, moved = hidden_states(model, [ROWS[0], [30, 31, 29], ROWS[2]])
    for row in (0, 2):
        torch.testing.assert_close(before[layout.index[row]], changed[moved.index[row]])
    assert not torch.allclose(before[layout.index[1]], changed[moved.index[1]])


SHARED = [[1, 5, 9, 3, 7, 2], [1, 5, 9, 4], [1, 5, 9, 3, 8], [2, 5, 9], [1, 5, 9]]


def test_common_beginnings_are_computed_once() -> None:
    layout = Layout.of(SHARED)
    assert len(layout.tokens) == 6 + 1 + 1 + 3
    for row, path in zip(SHARED, layout.index.tolist(), strict=True):
        assert [int(layout.tokens[place]) for place in path[: len(row)]] == row
        assert [int(layout.position[place]) for place in path[: len(row)]] == list(range(len(row)))


def test_shared_beginnings_change_neither_logits_nor_gradients() -> None:
    model = tiny("qwen2")
    positions, targets = [[3, 5], [3], [3, 4], [2], [1, 2]], torch.arange(8)
    packed = logits_at(model, SHARED, positions)
    nll(packed, targets).mean().backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    rows = zip(SHARED, positions, strict=True)
    alone = torch.stack([model(torch.tensor([row])).logits[0, p - 1] for row, ps in rows for p in ps])
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-6)
    torch.nn.functional.cross_entropy(alone, targets).backward()
    for found, parameter in zip(grads, model.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_models_own_attention_is_put_back() -> None:
    model = tiny("qwen2")
    before = model.config._attn_implementation
    logits_at(model, ROWS, [[1], [1], [1]])
    assert model.config._attn_implementation == before


def test_position_zero_is_refused() -> None:
    with pytest.raises(ModelError, match="token 0"):
        logits_at(tiny("qwen2"), ROWS, [[0], [1], [1]])


def test_rows_longer_than_a_sliding_window_are_those_of_the_model_itself() -> None:
    config = Qwen2Config(**SIZES, num_key_value_heads=2, use_sliding_window=True, sliding_window=4, max_window_layers=0)
    model = Qwen2ForCausalLM(config).eval()
    positions = [list(range(1, len(row))) for row in ROWS]
    found = logits_at(model, ROWS, positions).split([len(ps) for ps in positions])
    assert str(ways_of(model)) == "packed"
    for row, ours in zip(ROWS, found, strict=True):
        torch.testing.assert_close(ours, model(torch.tensor([row])).logits[0, :-1], rtol=1e-5, atol=1e-5)


def test_on_a_cpu_attention_in_bf16_is_that_of_fp32_rounded_once():
    drawn = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 6, 8, generator=drawn).bfloat16() for _ in range(3))
    wanted = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
    got = forward._attend(q, k, v, is_causal=True)
    assert got.dtype == torch.bfloat16 and torch.equal(got, wanted.bfloat16())
    assert torch.equal(forward._attend(q.float(), k.float(), v.float(), is_causal=True), wanted)
