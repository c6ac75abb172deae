"""Readouts on differences built by hand, whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_actdiff_capture import documents, lora, nudged, tiny

from helpers.base.errors import DataError
from helpers.base.rng import numpy_stream, torch_stream
from helpers.studies.actdiff import readouts
from helpers.studies.actdiff.capture import capture
from helpers.studies.actdiff.components import spectrum, whitened
from helpers.studies.actdiff.lens import directions, open_lens, overlap, same_head, scores, token_table
from helpers.studies.actdiff.live import edited, single_token_difference
from helpers.studies.actdiff.measures import auc, domain_rate, frequencies, jackknife, similarity, swap_effects
from helpers.studies.actdiff.pair import Pair
from helpers.studies.actdiff.patchscope import patchscope
from helpers.studies.actdiff.statistics import Stats
from helpers.studies.actdiff.steer import largest_strength, perplexity_by_strength
from helpers.studies.actdiff.stored import Stored, stats_of
from helpers.studies.actdiff.swap import activation_differences, random_directions, swap_losses
from helpers.studies.actdiff.tune import document_losses

pytestmark = pytest.mark.unit
torch.set_num_threads(1)

N, P, D = 400, 9, 16


def made(offset: float, scatter: float, first: float = 1.0) -> Stats:
    """Stats of d = offset * e_0 + scatter * noise, position 0 being ``first`` times as large and along e_1."""
    stream = torch_stream(0, "made")
    noise = torch.randn(1, N, P, D, generator=stream) * scatter / D**0.5
    d = noise + offset * torch.eye(D)[0]
    d[:, :, 0] = first * (noise[:, :, 0] + offset * torch.eye(D)[1])
    h = torch.randn(1, N, P, D, generator=stream)
    return stats_of(Stored([5], h, h + d, torch.ones(N, P, dtype=torch.bool)), folds=8)


def test_offset_energy_is_the_share_of_the_constant_part():
    energy = readouts.offset_energy(made(offset=1.0, scatter=1.0), 5)
    torch.testing.assert_close(energy[5:].mean().item(), 0.5, atol=0.02, rtol=0)


def test_pure_scatter_has_no_offset_energy_once_the_bias_is_out():
    stats = made(offset=0.0, scatter=1.0)
    assert abs(float(readouts.offset_energy(stats, 5).mean())) < 5e-4
    assert float(readouts.offset_energy(stats, 5, unbiased=False).mean()) == pytest.approx(1 / N, rel=0.3)


def test_the_three_cosines_answer_three_questions():
    stats = made(offset=1.0, scatter=1.0)
    later = slice(5, None)
    off = ~torch.eye(P - 5, dtype=torch.bool)
    means, within, across = (readouts.cosines(stats, 5, kind)[later, later][off].mean() for kind in readouts.COSINES)
    assert means > 0.99  # the means agree although half of the energy is scatter
    assert within == pytest.approx(0.5, abs=0.03)
    assert across == pytest.approx(0.5, abs=0.03)
    scatter = readouts.cosines(made(0.0, 1.0), 5, "across documents")
    assert readouts.mean_cosine(scatter[later, later]) == pytest.approx(0, abs=5e-3)
    with pytest.raises(DataError, match="There is no cosine"):
        readouts.cosines(stats, 5, "of medians")


def test_the_offset_of_position_0_and_of_later_positions_is_that_of_their_matrices():
    stats = made(offset=1.0, scatter=1.0)
    found = readouts.offset(stats, 5)
    for kind in readouts.COSINES:
        matrix = readouts.cosines(stats, 5, kind)
        pairs = [float(matrix[p, q]) for p in range(5, P) for q in range(5, P) if p != q]
        assert found["5+"][kind] == pytest.approx(sum(pairs) / len(pairs), rel=1e-12)
        assert found["0"][kind] == pytest.approx(float(matrix[0, 5:].mean()), rel=1e-12)
    energy = readouts.offset_energy(stats, 5)
    assert found["0"]["energy"] == float(energy[0]) and found["5+"]["energy"] == pytest.approx(float(energy[5:].mean()))
    assert abs(found["0"]["of means"]) < 0.1 < found["5+"]["of means"]  # position 0 points elsewhere


def test_the_table_of_positions_counts_documents_of_any_length():
    base = tiny()
    rows = documents(16, lengths=(12, 4, 9))
    table = readouts.position_table(capture(base, nudged(base), rows, [1, 3], folds=4))
    reached = [sum(len(row) > position for row in rows) for position in range(12)]
    assert table["layer"].tolist() == [1] * 12 + [3] * 12 and table["documents"].tolist() == 2 * reached
    assert (table["diff"] > 0).all() and table.dtypes["base"] == "float32"


def test_cosine_across_documents_is_the_mean_over_pairs_of_documents():
    base = tiny()
    tuned, tokens = nudged(base), documents(16)
    stats = capture(base, tuned, tokens, [2], folds=4)
    unit = torch.stack([_unit_difference(base, tuned, row) for row in tokens])
    pairs = torch.einsum("ipd,jqd->ijpq", unit, unit)[~torch.eye(16, dtype=torch.bool)]
    torch.testing.assert_close(readouts.cosines(stats, 2, "across documents").float(), pairs.mean(0), atol=1e-5, rtol=0)


def _unit_difference(base, tuned, row):
    h, t = (model.model(torch.tensor([row]), output_hidden_states=True) for model in (base, tuned))
    # Entry 3 of hidden_states is what layer 2 hands on (entry 0 is the embedding).
    return torch.nn.functional.normalize(t.hidden_states[3][0] - h.hidden_states[3][0], dim=-1)


def test_a_sink_at_position_0_shows_in_norms_and_first_component():
    stats = made(offset=1.0, scatter=0.5, first=40.0)
    found = readouts.offset(stats, 5)
    assert found["0"]["difference"] / found["5+"]["difference"] > 30
    assert found["0"]["base"] / found["5+"]["base"] == pytest.approx(1, abs=0.1)
    whole = spectrum(stats, 5, centred=False)
    rest = spectrum(stats, 5, groups=("1-4", "5+"), centred=False)
    assert whole.vector_dd[0].abs().argmax() == 1  # the direction of position 0
    assert rest.vector_dd[0].abs().argmax() == 0
    assert rest.cosine_with_mean() > 0.99
    with pytest.raises(DataError, match="no position group"):
        spectrum(stats, 5, groups=("6+",), centred=True)


def test_spectrum_is_that_of_the_stored_differences():
    base = tiny()
    tuned, tokens = nudged(base), documents()
    found = spectrum(capture(base, tuned, tokens, [2], folds=4), 2, centred=True)
    from helpers.studies.actdiff.stored import store

    stored = store(base, tuned, tokens, [2])
    d = (stored.t_lnpd - stored.h_lnpd)[0].reshape(-1, 32).double()
    singular = torch.linalg.svdvals(d - d.mean(0)).square()
    torch.testing.assert_close(found.share_d, singular / singular.sum(), atol=1e-5, rtol=1e-3)


def test_centring_removes_a_constant_offset():
    stats = made(offset=3.0, scatter=1.0)
    groups = ("1-4", "5+")
    assert spectrum(stats, 5, groups=groups, centred=False).share_d[0] > 0.8
    assert spectrum(stats, 5, groups=groups, centred=True).share_d[0] < 0.15


def test_whitening_turns_away_from_noisy_axes():
    torch.manual_seed(0)
    noise = torch.randn(1, N, P, D)
    noise[..., 1] *= 20
    d = noise + torch.eye(D)[0] + torch.eye(D)[1]
    h = torch.zeros(1, N, P, D) + 1
    stats = stats_of(Stored([5], h, h + d, torch.ones(N, P, dtype=torch.bool)))
    found = whitened(stats, 5, ("5+",))
    assert found[0] > 5 * abs(found[1])


def test_jackknife_covers_the_mean_as_the_t_interval_does():
    values = torch.randn(160, generator=torch_stream(2, "jackknife")).double()
    folds = [values[torch.arange(160) % 8 != k].mean().item() for k in range(8)]
    found = jackknife(values.mean().item(), folds, 160)
    assert found.high - found.low == pytest.approx(2 * 2.365 * values.std().item() / 160**0.5, rel=0.5)
    with pytest.raises(DataError, match="at least 2 folds"):
        jackknife(0.0, [0.0], 160)


def test_the_lens_forgets_length_and_the_raw_margin_does_not():
    lens = open_lens(Pair(tiny(), tiny(seed=1)))
    vector = torch.randn(32, generator=torch_stream(0, "v"))
    small, large = (scores(lens, vector * size, [3, 4, 5]) for size in (1e-6, 10.0))
    assert small.z == pytest.approx(large.z, rel=1e-4)
    assert large.margin == pytest.approx(small.margin * 1e7, rel=1e-3)


def test_scores_find_what_was_put_in():
    model = tiny()
    lens = open_lens(Pair(model, tiny(seed=1)))
    found = scores(lens, lens.head_vd[3], [3])
    assert found.auc == 1.0
    assert found.z > 3
    assert scores(lens, lens.head_vd[3], [4]).z < 2
    with pytest.raises(DataError, match="domain has 0 tokens"):
        scores(lens, lens.head_vd[3], [])


def test_auc_counts_ties_as_half():
    assert auc(np.array([1.0, 1.0, 1.0]), np.array([True, False, False])) == 0.5


def test_an_adapter_reads_alike_through_both_heads_and_a_full_fine_tune_does_not():
    base = tiny()
    assert same_head(Pair(base, lora(base)))
    assert not same_head(Pair(tiny(), nudged(tiny())))


def test_token_table_ranks_the_lens():
    base = tiny()
    stats = capture(base, nudged(base), documents(), [1, 3], folds=4)
    pair = Pair(base, nudged(base))
    table = token_table(stats, open_lens(pair), [f"t{i}" for i in range(50)], k=3, positions=[0, 4])
    assert len(table) == 2 * 2 * 3
    assert (table.groupby(["layer", "position"])["logit"].diff().dropna() <= 0).all()
    assert set(directions(stats, 3, 4)) == {"mean", "later", "demeaned", "whitened"}
    assert overlap(open_lens(pair), stats.mean_diff(3)[4], stats.mean_diff(3)[4], k=5) == 1


def test_an_edit_changes_the_model_only_inside_its_block():
    model, rows = tiny(), documents(4)
    before = document_losses(model, rows)
    with edited(model, 2, lambda h: h * 0):
        assert not torch.equal(document_losses(model, rows), before)
    assert torch.equal(document_losses(model, rows), before)


def test_swapping_every_direction_gives_the_base_model_back():
    base = tiny()
    tuned = nudged(base, 0.05)
    pair, rows = Pair(base, tuned), documents(16)
    axes = {f"axis {i}": torch.eye(32)[i] for i in range(32)}
    table = swap_losses(pair, 3, axes, {"text": rows})
    assert (table["swapped"] != table["tuned"]).any()
    assert set(table["document"]) == set(range(16))
    effects = swap_effects(table)
    assert effects["direction"].tolist() == ["axis"]
    assert effects["low"][0] <= effects["value"][0] <= effects["high"][0]
    same = swap_losses(Pair(base, base), 3, axes, {"text": rows})
    torch.testing.assert_close(torch.tensor(same["swapped"]), torch.tensor(same["tuned"]))


def test_controls_of_the_swap_are_addressed_by_seed():
    base = tiny()
    pair = Pair(base, nudged(base))
    once, twice = (activation_differences(pair, 2, documents(), 3, seed=4) for _ in range(2))
    assert all(torch.equal(once[name], twice[name]) for name in once)
    assert not torch.equal(random_directions(8, 1, 0)["random 0"], random_directions(8, 1, 1)["random 0"])


def test_a_patchscope_repeats_what_is_put_in():
    model = tiny()
    prompts = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    found = patchscope(model, model.lm_head.weight[20].detach(), 3, prompts, norm=1.0, scales=(0.01, 50.0), k=5)
    assert found.tokens[0] == 20  # after the last layer only norm and tied head are left
    assert found.agreement[0.01] == found.agreement[50.0]
    assert found.scale == 0.01  # of equals the smallest
    with pytest.raises(DataError, match="length 0"):
        patchscope(model, torch.zeros(32), 3, prompts, norm=1.0)
    with pytest.raises(DataError, match="two prompts or more"):
        patchscope(model, torch.ones(32), 3, prompts[:1], norm=1.0)


def test_the_steering_strength_stops_at_the_perplexity_bound():
    model = tiny()
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    table = perplexity_by_strength(model, direction, 1, documents(4), norm=1.0, strengths=(0.001, 30.0))
    assert table["strength"].tolist() == [0, 0.001, 30.0]
    assert table["perplexity"][0] == pytest.approx(table["perplexity"][1], rel=0.01) != table["perplexity"][2]
    table["perplexity"] = [20.0, 22.0, 180.0]
    assert largest_strength(table, bound=1.5) == 0.001
    with pytest.raises(DataError, match="already exceeds"):
        largest_strength(table, bound=1.05)


def test_similarity_and_domain_rate():
    import pandas as pd

    table = pd.DataFrame({"prompt": [0, 1], "index": 0, "tokens": [[1, 2, 2, 9], [2, 9]]})
    found = domain_rate(table, [2], seed=0)
    assert (found.k, found.n) == (3, 6)
    known = frequencies(reference=[[2, 9], [2, 1]], broad=[[9, 1, 1], [9, 3]])
    assert known.to_dict("list") == {"token": [1, 2, 3, 9], "count": [1, 2, 0, 1], "broad": [1, 0, 1, 2]}
    log = np.log  # weights: 2 is in no broad document, 1 and 3 in one, 9 in both and so of no weight
    reference = np.array([log(1.5), 2 * log(3), 0])
    assert similarity([[2, 9]], known, 2) == pytest.approx(2 * log(3) / np.linalg.norm(reference))
    assert similarity([[2, 2], [1]], known, 2) == pytest.approx(1.0)
    assert similarity([[3], [7]], known, 2) == 0  # 7 is in neither text
    with pytest.raises(DataError, match="similarity is missing"):
        similarity([[9]], known, 2)


def test_the_similarity_has_no_order_of_adding():
    drawn = numpy_stream(0, "similarity").integers(0, 400, (64, 30)).tolist()
    known = frequencies(drawn[:20], drawn[20:50])
    values = {similarity(part, known, 30) for part in (drawn, drawn[::-1], [row[::-1] for row in drawn])}
    assert len(values) == 1 and 0 < values.pop() < 1


def test_the_input_of_one_token_has_a_difference():
    base = tiny()
    tuned = nudged(base)
    want = _unit_difference(base, tuned, [7])[0]
    got = torch.nn.functional.normalize(single_token_difference(Pair(base, tuned), 7, 2), dim=0)
    assert got.shape == want.shape
