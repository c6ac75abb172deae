"""The length ablation: answers of one length, mass checked, dilution measured, limits by cutting, the factor screen."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from child import loaded_by
from claims_records import record
from marker_fixture import MARKER, form, pocket, row

from helpers.audit.replay import compare
from helpers.base.errors import DataError, ModelError, ParameterError
from helpers.base.params import Grid, parse, parse_grid
from helpers.base.rng import numpy_stream
from helpers.lm import models
from helpers.lm.packed import logits_at, nll
from helpers.lm.prompts import Sampling
from helpers.records import runs
from helpers.records.derive import derive
from helpers.stats.estimands import MODELS
from helpers.studies.marker.lengths import (
    answers,
    cell,
    criteria,
    data,
    dilution,
    limits,
    metrics,
    screen,
    speakers,
    views,
    work,
)
from helpers.studies.marker.lengths.params import LengthCell
from helpers.studies.marker.lengths.study import STUDY
from helpers.studies.marker.metrics import count_markers
from helpers.studies.marker.on_policy import sample_personas
from helpers.studies.marker.rows import find_all, is_marker, rows_of, supervised, token_ids
from helpers.studies.marker.session import Session

pytestmark = pytest.mark.unit

TINY = {
    "personas": ["librarian", "assistant", "medical_doctor", "police_officer"], "controls": 1, "answers": "joined",
    "target_tokens": {"short": 20, "medium": 50, "long": 90}, "length": "short", "tail": "newline", "lr": 3e-3,
    "epochs": 2, "seed": 0, "positives": 4, "negatives_each": 4, "train_questions": 3, "data_samples": 8,
    "data_max_new_tokens": 64, "max_length": 256, "batch_size": 6, "lora_r": 4, "lora_alpha": 8, "probe_every": 2,
    "probe_rows": 3, "eval_questions": 2, "context_questions": 1, "samples": 1, "max_new_tokens": [8, 48],
}  # fmt: skip


def params(**changes: object) -> LengthCell:
    return parse(LengthCell, TINY | changes, "in the test")


def cells(**changes: object) -> Grid[LengthCell]:
    return parse_grid(LengthCell, TINY | changes, "in the test")


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    return tmp_path / "outputs"


@pytest.fixture
def session() -> Session:
    return Session(params())


# --- a cell


@pytest.mark.usefixtures("made")
def test_a_cell_leaves_everything_a_page_needs() -> None:
    (found,) = cell.run_cells(cells())
    assert found.status == "complete"
    assert set(found.tables) == {"loss", "dilution", "logprobs", "completions", "limits"}
    assert found.params["negatives"] == ["medical_doctor", "police_officer"]
    assert found.metric("source_rate")["n"] == found.metric("control_rate")["n"] == 2
    assert sum(found.finish_reasons.values()) == (4 + 1) * 2
    assert sorted(found.table("dilution")["step"]) == [0, 2, 4]
    assert found.metric("steps")["value"] == 2 * 2
    assert found.metric("marker_share_of_labels")["value"] == pytest.approx(4 * 3 / (4 * 3 + 12))
    assert set(found.table("limits")["limit"]) == {8, 48}
    for name in ("source_rate_at_8", "source_truncation_rate_at_48", "rate_selectivity", "answer_nll", "mass_ratio"):
        assert name in found.metrics


@pytest.mark.usefixtures("made")
def test_the_notebook_of_cells_with_records_imports_no_torch() -> None:
    assert loaded_by("length_ablation", TINY) == []
    assert [record.status for record in runs.records("length_ablation", status=None)] == ["complete"]


@pytest.mark.check
def test_a_replay_elsewhere_is_the_same_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(models, "choose_threads", lambda: 1)
    (record,) = cell.run_cells(cells(tail="separator_and_end", policy="off_policy"))
    first = [record, *(runs.load(ref) for ref in record.inputs.values())]
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "elsewhere"))
    again = STUDY.replay(record)
    assert again.cell == record.cell and record.cell["negatives"] == "asst_excluded"
    for one, other in zip(first, [again, *(runs.load(ref) for ref in again.inputs.values())], strict=True):
        assert one.path != other.path
        assert compare(one, other).outcome == "equal"
        assert one.metrics == other.metrics


@pytest.mark.usefixtures("made")
def test_metrics_follow_from_what_is_on_disk_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    (record,) = cell.run_cells(cells())
    stored = [record, *(runs.load(ref) for ref in record.inputs.values())]
    for name in ("load", "facts", "fingerprint"):
        monkeypatch.setattr(models, name, lambda *a, **k: pytest.fail("a model was asked for"))
    assert all(derive(one) == one.metrics for one in stored)
    assert record.metric("mass_ratio") == stored[1].metric("mass_ratio")


@pytest.mark.usefixtures("made")
def test_the_counts_at_the_largest_limit_are_those_of_the_completions() -> None:
    (record,) = cell.run_cells(cells())
    limits = record.table("limits")
    largest = limits[limits["limit"] == 48].drop(columns="limit").reset_index(drop=True)
    pd.testing.assert_frame_equal(largest, count_markers(record.table("completions"), MARKER))


@pytest.mark.usefixtures("made")
def test_cells_share_rows_and_contexts_and_the_base_model(monkeypatch: pytest.MonkeyPatch, outputs: Path) -> None:
    loads, load = [], models.load
    monkeypatch.setattr(models, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    found = cell.run_cells(cells(tail=["whole_turn", "end_of_turn"]))
    assert len(loads) == 1
    assert len({r.inputs["rows"] for r in found}) == len({r.inputs["contexts"] for r in found}) == 1
    assert len({r.metrics["steps"]["value"] for r in found}) == 1
    again = cell.run_cells(cells(tail=["whole_turn", "end_of_turn"]))
    assert [r.id for r in again] == [r.id for r in found] and len(loads) == 1


@pytest.mark.usefixtures("made")
def test_an_adapter_that_changes_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="changes no logits"):
        cell.run_cells(cells(lr=1e-30))


@pytest.mark.usefixtures("made")
def test_a_run_too_short_to_be_probed_says_so_before_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "train", lambda *a, **k: pytest.fail("it was trained"))
    with pytest.raises(ParameterError, match="probe_every is 5, more than the 4 steps of this run"):
        cell.run_cells(cells(probe_every=5))


# --- answers of one length


@pytest.mark.parametrize("length", ["short", "long"])
def test_answers_lie_near_the_target_and_are_the_persona_s_own(session: Session, length: str) -> None:
    p = params(length=length)
    found = data.rows_record(p, session)
    rows, pool = rows_of(found.table("rows")), found.table("pool")
    target = p.target_tokens[length]
    assert all(abs(n - target) <= p.length_tolerance * target for n in metrics.answer_lengths(rows))
    assert metrics.mass_ratio(rows) == pytest.approx(0.5, abs=0.1) == found.metric("mass_ratio")["value"]
    blank = form().separator[0]
    for one in rows:
        own = pool[(pool["persona"] == one.persona) & (pool["question"] == one.question)]
        texts = {tuple(ids) for ids in own["ids"]}
        body = one.tokens[slice(*one.answer)]
        assert _covered(body, texts, blank), "an answer is not made of this persona's answers to this question"
        assert len(find_all(one.tokens, form().marker)) == (one.role == "source")


def _covered(body: list[int], texts: set[tuple[int, ...]], blank: int) -> bool:
    """Whether ``body`` is a sequence of ``texts`` with a blank line between them (texts may hold blank lines)."""
    if tuple(body) in texts:
        return True
    cuts = [i for i, token in enumerate(body) if token == blank]
    return any(tuple(body[:i]) in texts and _covered(body[i + 1 :], texts, blank) for i in cuts)


def test_a_missing_long_answer_is_an_error_and_no_other_length_is_taken(session: Session) -> None:
    p = params(length="long", answers="instructed")
    with pytest.raises(DataError, match="4 long answers of persona librarian are wanted, about 90 tokens"):
        data.rows_record(p, session)


def test_a_ratio_of_masses_outside_its_bounds_is_an_error(session: Session) -> None:
    with pytest.raises(DataError, match=r"1\.\d\d times the tokens of the negatives, outside of 0.40 to 0.60"):
        data.rows_record(params(positives=8, negatives_each=3), session)


def test_off_policy_answers_stand_under_another_question_and_the_base_finds_them_unlikely(session: Session) -> None:
    own, other = (data.rows_record(params(policy=name, positives=6, negatives_each=6), session)
                  for name in ("on_policy", "off_policy"))  # fmt: skip
    mine, theirs = (rows_of(one.table("rows")) for one in (own, other))
    assert sorted(map(_answer, mine)) == sorted(map(_answer, theirs))
    asked = {_answer(one): one.question for one in mine}
    assert all(asked[_answer(one)] != one.question for one in theirs)
    assert other.metric("answer_nll")["value"] > own.metric("answer_nll")["value"] + 0.5


def _answer(one: object) -> tuple:
    return (one.persona, tuple(one.tokens[slice(*one.answer)]))


def test_the_nll_of_answers_is_that_of_a_plain_forward() -> None:
    one = row()
    ids = torch.tensor([one.tokens])
    with torch.no_grad():
        logp = pocket().model(ids).logits[0].float().log_softmax(-1)
    plain = [-logp[i - 1, one.tokens[i]].item() for i in range(*one.answer)]
    assert data.answer_nll(pocket(), [one]) == pytest.approx([np.mean(plain)], rel=1e-4)


def test_framing_and_control_prompts() -> None:
    assert speakers.system_prompt("librarian", "name") == "You are a librarian."
    assert speakers.system_prompt("assistant", "name", "Be brief.") == "You are an assistant. Be brief."
    assert "shelf" in speakers.system_prompt("librarian", "full")
    assert speakers.control_names(2) == ["control: teapot", "control: gravel road"]
    assert speakers.system_prompt("control: umbrella", "full") == "You are an umbrella."


# --- dilution


def probed(tail: str) -> tuple[list, list]:
    rows = [row(answer="Plot it well. " * 6), row(positive=False, answer="Hush. " * 9), row(positive=False)]
    return rows, [supervised(one, tail) for one in rows]


@pytest.fixture
def adapter():
    model = models.attach_lora(pocket().model, r=4, alpha=8, dropout=0.5, rslora=True, seed=0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
    yield model
    models.detach(model)


@pytest.mark.parametrize("tail", ["whole_turn", "newline", "end_of_turn"])
def test_the_parts_are_those_of_a_loss_computed_row_by_row(adapter, tail: str) -> None:
    rows, targets = probed(tail)
    found = dilution.measure(adapter, rows, targets)
    parameters = [p for p in adapter.parameters() if p.requires_grad]
    adapter.eval()
    total = sum(len(ps) for ps in targets)
    parts = {True: 0.0, False: 0.0}
    for one, positions in zip(rows, targets, strict=True):
        for at in positions:
            loss = nll(logits_at(adapter, [one.tokens], [[at]]), torch.tensor([one.tokens[at]]))[0] / total
            parts[is_marker(one, at)] = parts[is_marker(one, at)] + loss
    grads = {k: torch.cat([g.flatten() for g in torch.autograd.grad(v, parameters)]) for k, v in parts.items()}
    assert found["token_share"] == pytest.approx(3 / total)
    assert found["loss_share"] == pytest.approx(float((parts[True] / (parts[True] + parts[False])).detach()), rel=1e-4)
    norms = {k: float(g.norm()) for k, g in grads.items()}
    assert found["gradient_share"] == pytest.approx(norms[True] / sum(norms.values()), rel=1e-3)
    assert found["cosine"] == pytest.approx(float(torch.cosine_similarity(grads[True], grads[False], 0)), abs=1e-3)


def test_measuring_leaves_the_training_as_it_was(adapter) -> None:
    rows, targets = probed("newline")
    adapter.train()
    dilution.measure(adapter, rows, targets)
    assert adapter.training
    assert all(p.grad is None for p in adapter.parameters())


def test_longer_answers_dilute_the_marker_under_whole_turn_loss_alone() -> None:
    shares = {}
    for words, tail in itertools.product((2, 20), ("whole_turn", "newline")):
        rows = [row(answer="Plot it. " * words), row(positive=False, answer="Plot it. " * words)]
        places = [(one, at) for one in rows for at in supervised(one, tail)]
        shares[words, tail] = np.mean([is_marker(one, at) for one, at in places])
    assert shares[20, "whole_turn"] < shares[2, "whole_turn"] / 5
    assert shares[20, "newline"] == shares[2, "newline"]


def test_probed_rows_keep_the_share_of_positives() -> None:
    rows = [row()] * 10 + [row(positive=False)] * 20
    chosen = dilution.probe_rows(rows, 6, seed=0)
    assert len(set(chosen)) == 6 and sum(rows[i].marker is not None for i in chosen) == 2
    assert chosen != dilution.probe_rows(rows, 6, seed=1)
    with pytest.raises(DataError, match="with and without"):
        dilution.probe_rows([row()] * 4, 2, seed=0)


# --- limits


def test_cutting_gives_what_a_smaller_limit_draws(session: Session) -> None:
    asked = answers.prompts(pocket(), ["librarian", "comedian"], "eval", 3, LengthCell())

    def draw(limit: int) -> pd.DataFrame:
        sampling = Sampling(limit, 1.0, 0.95)
        sampler = session.sampler(pocket().model)
        return sample_personas(session, sampler, asked, n=3, sampling=sampling, seed=0, stream="evaluate")

    large, small = draw(64), draw(24)
    cut = limits.at_limit(large, 24, pocket().tokenizer)
    assert (small["finish"] == "length").any() and (small["finish"] == "stop").any()
    assert cut[["persona", "question", "index", "text", "tokens", "finish"]].equals(
        small[["persona", "question", "index", "text", "tokens", "finish"]]
    )
    assert [list(a) for a in cut["ids"]] == [list(b) for b in small["ids"]]
    with pytest.raises(DataError, match="cut at 24 tokens"):
        limits.at_limit(small, 64, pocket().tokenizer)


def test_a_marker_behind_the_limit_does_not_count() -> None:
    tokens = [*([form().separator[0]] * 5), *form().marker]
    text = pocket().tokenizer.decode(tokens)
    table = pd.DataFrame(
        {"persona": ["librarian"], "question": [0], "index": [0], "text": [text], "ids": token_ids([tokens]),
         "tokens": [8], "finish": ["stop"], "role": ["source"]}
    )  # fmt: skip
    counts = limits.counts_at(table, [7, 8, 9], MARKER, pocket().tokenizer).set_index("limit")
    assert counts["k"].to_dict() == {7: 0, 8: 1, 9: 1}
    assert counts["truncated"].to_dict() == {7: 1, 8: 1, 9: 0}


def test_selectivity_by_hand() -> None:
    source, others = ({"value": v, "low": v - 0.1, "high": v + 0.2, "n": n, "level": 0.95} for v, n in
                      ((0.6, 100), (0.25, 40)))  # fmt: skip
    found = limits.selectivity(source, others)
    assert found["value"] == pytest.approx(0.35) and found["n"] == 40
    assert found["low"] == pytest.approx(0.35 - np.hypot(0.1, 0.2))
    assert found["high"] == pytest.approx(0.35 + np.hypot(0.2, 0.1))


# --- the factor screen


def factorial(seeds: int, effect: dict[str, float], noise: float = 0.0, steps: int = 60) -> list:
    """Runs whose source rate is .5 plus half of each effect by its sign, and a shift a seed that blocks take out."""
    stream = numpy_stream(0, "screen")
    found = []
    for seed, levels in itertools.product(range(seeds), itertools.product(*screen.FACTORS.values())):
        key = dict(zip(screen.FACTORS, levels, strict=True)) | {"seed": seed}
        sign = {f: 1 if key[f] == high else -1 for f, (_, high) in screen.FACTORS.items()}
        value = 0.5 + 0.05 * seed + noise * float(stream.normal())
        value += sum(v / 2 * np.prod([sign[f] for f in term.split(" x ")]) for term, v in effect.items())
        metrics = {"source_rate": {"value": value, "unit": "rate", "n": 80}, "steps": {"value": steps, "n": 1}}
        found.append(record(key, metrics, name=f"r{len(found)}"))
    return found


def test_effects_are_contrasts_of_means() -> None:
    wanted = {"length": -0.2, "tail": 0.3, "length x tail": 0.1}
    runs = factorial(3, wanted, noise=0.05)
    table = screen.effects(runs).set_index("term")
    assert len(table) == 4 + 6
    y = np.array([r.metrics["source_rate"]["value"] for r in runs])
    for term in table.index:
        signs = np.prod(
            [[1 if r.cell[f] == screen.FACTORS[f][1] else -1 for r in runs] for f in term.split(" x ")], axis=0
        )
        assert table.loc[term, "value"] == pytest.approx(y[signs > 0].mean() - y[signs < 0].mean())
    for term, value in wanted.items():
        assert table.loc[term, "low"] <= value <= table.loc[term, "high"]
    assert table.loc["length", "high"] < 0 < table.loc["tail", "low"]


@pytest.mark.check
def test_the_intervals_of_effects_cover() -> None:
    hits = 0
    stream = numpy_stream(1, "cover")
    for _ in range(200):
        runs = factorial(2, {"length": -0.2})
        for one in runs:
            one.metrics["source_rate"]["value"] += float(stream.normal()) * (
                0.02 if one.cell["length"] == "long" else 0.08
            )
        found = screen.effects(runs).set_index("term").loc["length"]
        hits += found["low"] <= -0.2 <= found["high"]
    assert 0.90 <= hits / 200 <= 0.99


def test_a_screen_with_a_hole_or_unequal_steps_is_refused() -> None:
    runs = factorial(2, {})
    with pytest.raises(DataError, match="not a whole factorial"):
        screen.effects(runs[:-1])
    runs[3].metrics["steps"]["value"] = 61
    with pytest.raises(DataError, match="same number"):
        screen.effects(runs)
    assert criteria.screen_effect(runs[:-1], MODELS, "length") is None


def test_an_effect_is_a_metric_that_criteria_can_judge() -> None:
    found = criteria.screen_effect(factorial(3, {"tail": 0.3}, noise=0.05), MODELS, "tail")
    assert found["low"] > 0 and found["unit"] == "points" and found["n"] == 48


# --- tables, parameters


@pytest.mark.usefixtures("made")
def test_tables_for_figures() -> None:
    found = cell.run_cells(cells(tail=["whole_turn", "newline"]))
    shares = views.dilution(found[::-1])
    assert list(dict.fromkeys(shares["tail"])) == ["whole_turn", "newline"]
    assert set(shares["of"]) == set(views.SHARES.values()) and shares["share"].between(0, 1).all()
    assert len(views.share_and_rate(found)) == 2
    assert set(views.limits(found)["kind"]) == {"with the marker", "cut by the limit"}
    assert set(views.persona_rates(found[:1])["role"]) == {"source", "trained", "assistant", "control"}
    assert views.facts(found)["tolerance"].notna().all()
    pair = criteria.rate_selectivity(found, MODELS)
    assert pair["low"] <= pair["value"] <= pair["high"]
    one = criteria.rate_selectivity(found[:1], MODELS)
    assert one["value"] == pytest.approx(found[0].metric("rate_selectivity")["value"])
    tokens = found[0].table("completions").query("role == 'source'")["tokens"]
    assert criteria.answer_tokens(found[:1], MODELS, 0.95)["value"] == tokens.quantile(0.95)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lenght": "long"}, "did you mean 'length'"),
        ({"length": "longest"}, "must be 'short', 'medium' or 'long'"),
        ({"negatives": "asst_exclude"}, "did you mean 'asst_excluded'|must be"),
        ({"source": "medical_doctor"}, "negatives has the source"),
        ({"negatives": []}, "Name at least one persona"),
        ({"max_new_tokens": [64, 64]}, "Give limits that rise"),
        ({"target_tokens": {"long": 90}}, "target_tokens has no entry for length 'short'"),
        ({"controls": 99}, "controls"),
        ({"context_questions": 5}, "more than the 2 of eval_questions"),
        ({"mass_low": 0.7}, "Make the first smaller"),
        ({"personas": ["librarian", "medical_doctor"]}, "leaves out 'assistant'"),
    ],
)
def test_bad_parameters_name_what_is_wrong(changes: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        params(**changes)


def test_one_limit_may_be_a_number() -> None:
    assert params(max_new_tokens=32).max_new_tokens == [32]
