"""Streaming against storing everything, bookkeeping of folds and positions, and the errors of a pass over a pair."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.base.errors import DataError, ModelError
from helpers.base.rng import torch_stream
from helpers.lm import models
from helpers.studies.actdiff import stored
from helpers.studies.actdiff.capture import capture, noise_floor
from helpers.studies.actdiff.pair import Pair, interpolated, open_pair
from helpers.studies.actdiff.statistics import Stats

pytestmark = pytest.mark.unit
torch.set_num_threads(1)

CONFIG = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}


def tiny(seed: int = 0, vocabulary: int = 50, **changes: int) -> LlamaForCausalLM:
    """A random decoder of four layers."""
    config = LlamaConfig(
        vocab_size=vocabulary, max_position_embeddings=64, tie_word_embeddings=True, **CONFIG | changes
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval().requires_grad_(False)


def nudged(model: LlamaForCausalLM, size: float = 0.02) -> LlamaForCausalLM:
    """A copy with noise on every weight matrix: a fine-tune of sorts."""
    copied, stream = copy.deepcopy(model), torch_stream(3, "nudge")
    for parameter in copied.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=stream) * size)
    return copied


def documents(n: int = 20, lengths: tuple[int, ...] = (12,), vocabulary: int = 50) -> list[list[int]]:
    stream = torch_stream(1, "documents")
    return [torch.randint(1, vocabulary, (lengths[i % len(lengths)],), generator=stream).tolist() for i in range(n)]


def lora(model: LlamaForCausalLM, size: float = 0.05) -> torch.nn.Module:
    wrapped = models.attach_lora(model, r=4, alpha=8, seed=0)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, size, generator=torch_stream(5, name))
    return wrapped.eval()


@pytest.mark.parametrize("lengths", [(12,), (12, 7, 3)])
def test_streaming_gives_what_storing_everything_gives(lengths):
    base = tiny()
    tuned, tokens = nudged(base), documents(lengths=lengths)
    streamed = capture(base, tuned, tokens, [0, 2, 3], batch_size=3, folds=4)
    whole = stored.stats_of(stored.store(base, tuned, tokens, [0, 2, 3], batch_size=3), folds=4)
    for field in dataclasses.fields(Stats):
        ours, theirs = (getattr(stats, field.name).double() for stats in (streamed, whole))
        assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max(), field.name


def test_a_lora_pair_is_one_copy_switched_off_and_on():
    base, plain = tiny(), tiny()
    tuned = lora(base)
    streamed = capture(base, tuned, documents(), [1, 3], folds=4)
    merged = copy.deepcopy(tuned).merge_and_unload()
    two_copies = capture(plain, merged, documents(), [1, 3], folds=4)
    torch.testing.assert_close(streamed.base_lpd, two_copies.base_lpd)
    torch.testing.assert_close(streamed.mean_diff(3), two_copies.mean_diff(3), atol=1e-6, rtol=1e-4)
    assert Pair(base, tuned).is_adapter
    assert not tuned.base_model.model.model.layers[0].self_attn.q_proj.disable_adapters


def test_the_pass_stops_after_the_last_wanted_layer_and_skips_the_head():
    base = tiny()
    tuned = nudged(base)
    reached = []
    for model in (base, tuned):
        model.model.layers[2].register_forward_hook(lambda *_: reached.append("layer 2"))
        model.lm_head.register_forward_hook(lambda *_: reached.append("head"))
    capture(base, tuned, documents(), [0, 1], folds=4)
    assert reached == []


def test_what_is_kept_does_not_grow_with_the_documents():
    base = tiny()
    tuned = nudged(base)
    few, many = (capture(base, tuned, documents(n), [3], folds=4) for n in (16, 48))
    assert few.bytes == many.bytes


def test_documents_beyond_the_asked_positions_are_cut_and_counted():
    base = tiny()
    stats = capture(base, nudged(base), documents(lengths=(12, 7)), [0], positions=9, folds=4)
    assert stats.positions == 9
    assert stats.count_p.tolist() == [20] * 7 + [10] * 2


def test_stats_survive_saving(tmp_path):
    base = tiny()
    stats = capture(base, nudged(base), documents(), [0, 3], folds=4)
    stats.save(tmp_path / "stats.safetensors")
    again = Stats.load(tmp_path / "stats.safetensors")
    assert again.layers == [0, 3]
    assert torch.equal(again.diff_lkpd, stats.diff_lkpd)


def test_base_against_base_is_rounding_only():
    base = tiny()
    floor = noise_floor(base, documents(), [3], folds=4)
    real = capture(base, nudged(base), documents(), [3], folds=4)
    assert floor.norms_lsp[0, 2].sum() < 1e-4 * real.norms_lsp[0, 2].sum()


def test_interpolated_weights_lie_between_and_are_restored():
    base = tiny()
    tuned = lora(base, size=0.001)
    pair, tokens = Pair(base, tuned), documents()
    whole = capture(base, tuned, tokens, [3], folds=4).mean_diff(3)
    with interpolated(pair, 0.1) as small:
        part = capture(small.base, small.tuned, tokens, [3], folds=4).mean_diff(3)
    assert float((part * 10 - whole).norm() / whole.norm()) < 0.05
    assert torch.equal(capture(base, tuned, tokens, [3], folds=4).mean_diff(3), whole)
    full = Pair(tiny(), nudged(tiny()))
    with interpolated(full, 0.0) as none:
        assert all(torch.equal(a, b) for a, b in zip(none.tuned.parameters(), full.base.parameters(), strict=True))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"vocabulary": 51}, "vocabulary (base 50, tuned 51)"),
        ({"hidden_size": 64}, "hidden size (base 32, tuned 64)"),
        ({"num_hidden_layers": 3}, "number of layers (base 4, tuned 3)"),
    ],
)
def test_models_that_do_not_fit_are_refused(other, said):
    with pytest.raises(ModelError, match=said.replace("(", r"\(").replace(")", r"\)")):
        capture(tiny(), tiny(**other), documents(), [0])


def test_an_adapter_that_changes_nothing_is_refused():
    base = tiny()
    tuned = models.attach_lora(base, r=4, alpha=8, seed=0)  # B is zero until it is trained
    with pytest.raises(ModelError, match="no difference to read"):
        capture(base, tuned, documents(), [0, 3], folds=4)
    with pytest.raises(ModelError, match="logits of base and tuned are equal"):
        Pair(base, tuned).check_moves(documents())


def test_layers_documents_and_positions_out_of_range_are_refused():
    base = tiny()
    tuned = nudged(base)
    with pytest.raises(ModelError, match=r"Layer 4 is out of range\. Choose one of 0 to 3"):
        capture(base, tuned, documents(), [4])
    with pytest.raises(DataError, match=r"15 documents are too few for an interval over 8 folds\. Give 16"):
        capture(base, tuned, documents(15), [0])
    with pytest.raises(DataError, match="has no tokens"):
        capture(base, tuned, [*documents(20), []], [0])
    stats = capture(base, tuned, documents(), [0])
    with pytest.raises(DataError, match="Layer 1 was not captured"):
        stats.mean_diff(1)
    with pytest.raises(DataError, match="Position 12 is out of range"):
        stats.check_position(12)


def test_a_pair_opens_from_an_adapter_folder(tmp_path):
    base = tiny()
    tuned = lora(base)
    models.save_adapter(tuned, tmp_path / "adapter")
    want = capture(base, tuned, documents(), [3], folds=4).mean_diff(3)
    models.detach(tuned)
    loaded = models.LoadedModel(base, None, "tiny", "tiny", None, "0", 0, "float32", "cpu")
    with open_pair(loaded, str(tmp_path / "adapter")) as pair:
        got = capture(pair.base, pair.tuned, documents(), [3], folds=4).mean_diff(3)
    assert torch.equal(want, got)
