"""The shared-text control, what is shared between the cells of a session, and trainings that are killed."""

from __future__ import annotations

import functools
from collections import Counter

import pandas as pd
import pytest
import torch
from test_actdiff_capture import nudged, tiny
from test_actdiff_domains import TEXT

from helpers.base import params
from helpers.base.errors import DataError
from helpers.base.files import PARAMS, sha256_file
from helpers.claims.criteria import read_criteria
from helpers.records.derive import derive
from helpers.records.reading import Record
from helpers.stats.estimands import MODELS
from helpers.studies.actdiff import cell, checkpoints, documents, known, organisms, tune
from helpers.studies.actdiff.broad_text import continued
from helpers.studies.actdiff.known import Known
from helpers.studies.actdiff.material import pocket_material
from helpers.studies.actdiff.pair import Pair
from helpers.studies.actdiff.params import LensCell
from helpers.studies.actdiff.study import STUDY
from helpers.studies.actdiff.texts import criteria, metrics, views

pytestmark = pytest.mark.unit
torch.set_num_threads(1)

POCKET = {name: value for name, value in TEXT.items() if name != "model"} | {"probed": []}
ALL_FOUR = ["shared", "own", "tuned_text", "text_alone"]


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    return tmp_path / "outputs"


@pytest.fixture(scope="module")
def pair_of_cells(tmp_path_factory):
    """A fine-tune read on its own text, and a control read on the shared text only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path_factory.mktemp("texts")))
        p = [LensCell(organism=kind, seed=3, own_text=["full"], **POCKET) for kind in ("full", "control")]
        return cell.run_cells(p)


def test_a_model_writes_the_same_documents_however_many_are_drawn_at_first():
    model, openers = tiny(), [[1, 2], [3, 4, 5], [6, 7]]
    ask = functools.partial(continued, openers=openers, stop=[50], use="read", n=8, length=9, label="")
    plain = ask(model)
    assert plain == ask(model, spare=3.0) != ask(nudged(model, 0.3))
    assert [row[:2] for row in plain] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    assert all(ids[: len(openers[i])] == openers[i] and len(ids) == 9 for _, i, ids in plain)


def test_more_documents_are_drawn_while_some_end_early_and_too_few_are_refused():
    model, openers = tiny(), [[1, 2], [3, 4, 5]]
    often = list(range(0, 50, 10))  # a tenth of the tokens ends a document
    rows = continued(model, openers, stop=often, use="read", n=6, length=9, label="")
    assert len(rows) == 6 and max(index for index, _, _ in rows) >= 3, "some of the first six ended early"
    with pytest.raises(DataError, match="Lower positions"):
        continued(model, openers, stop=list(range(48)), use="read", n=6, length=9, label="")


def test_own_text_is_read_where_it_is_asked_for_and_shared_text_everywhere(pair_of_cells):
    full, control = pair_of_cells
    written = full.table("own_text")
    assert written.groupby("side").size().to_dict() == {"base": 24, "tuned": 24}
    assert list(dict.fromkeys(full.table("text_scores")["reading"])) == ALL_FOUR
    assert set(control.table("text_scores")["reading"]) == {"shared"} and "own_text" not in control.tables
    assert "own_z" in full.metrics and "own_z" not in control.metrics
    assert set(full.table("text_scores")["domain"]) == set(full.table("scores")["domain"])


def test_the_shared_text_is_the_one_that_every_cell_reads(pair_of_cells):
    """Read by other code from the same sums: z at the fixed position with its interval, and z over later positions."""
    for record in pair_of_cells:
        for score in ("z", "margin", "auc"):
            for key in ("value", "low", "high", "n"):
                ours = record.metric(f"shared_{score}_at_position")[key]
                assert ours == pytest.approx(record.metric(score)[key], rel=1e-4), (score, key)
        assert record.metric("shared_z")["value"] == pytest.approx(record.metric("z_later")["value"], rel=1e-4)


def test_own_text_differs_by_what_the_model_changed_and_what_the_text_changed(pair_of_cells):
    """The raw margin is linear in the difference, so its parts add up, fold by fold."""
    table = pair_of_cells[0].table("text_scores").set_index(["reading", "at", "fold", "domain"])["margin"]
    torch.testing.assert_close(
        torch.tensor(table["own"].to_numpy()),
        torch.tensor((table["tuned_text"] + table["text_alone"]).to_numpy()), atol=1e-4, rtol=1e-4,
    )  # fmt: skip
    assert (table["text_alone"].abs() > 1e-3).any()


def test_metrics_of_the_texts_follow_from_the_tables(pair_of_cells):
    full = pair_of_cells[0]
    assert derive(full, STUDY) == full.metrics
    table = full.table("text_scores")
    own, domain = full.metric("own_z"), full.results["fixed"]["domain"]
    fall = full.metric("own_minus_shared_z")
    assert fall["value"] == pytest.approx(own["value"] - full.metric("shared_z")["value"])
    at = table[(table["at"] == "later") & (table["fold"] == -1) & (table["reading"] == "shared")]
    others = at[at["domain"] != domain]["z"].mean()
    assert full.metric("shared_z_above_permuted")["value"] == pytest.approx(full.metric("shared_z")["value"] - others)
    assert full.metric("own_rank")["value"] >= 1 and full.metric("own_rank")["unit"] == "rank"

    moved = table.assign(z=table["z"] + (table["reading"] == "own") * (1 + table["fold"]))
    found = metrics.by_text(moved, domain, 24)
    assert {name for name, metric in found.items() if metric["high"] != pytest.approx(full.metric(name)["high"])} == {
        f"{name}{end}" for name in ("own_z", "own_z_permuted", "own_minus_shared_z") for end in ("", "_at_position")
    }


def test_the_median_rank_counts_the_tokens_above_it(pair_of_cells):
    full = pair_of_cells[0]
    readout = full.table("readout")  # the same direction: the shared text at the fixed position
    ranks = readout["logprob"].rank(ascending=False, method="min")[readout["inside"]]
    assert full.metric("shared_rank_at_position")["value"] == pytest.approx(ranks.median())


def test_a_control_serves_every_domain_of_its_seed(monkeypatch, outputs):
    monkeypatch.setattr(documents, "domain_tokens", functools.partial(documents.domain_tokens, k=5))
    ask = TEXT | {"probed": [], "own_text": ["full"]}
    names = [("full", "pottery"), ("full", "beekeeping"), ("control", "pottery")]
    p = [LensCell(**ask, organism=kind, domain=domain) for kind, domain in names]
    records = cell.run_cells(p)
    assert set(records[0].table("own_text")["side"]) == {"tuned"}, "the base model's own text is the shared one"
    found = criteria.above_control(records, MODELS, "full", "beekeeping", "control")
    wanted = [
        record.table("text_scores")
        .query("reading == 'shared' and at == 'later' and fold == -1")
        .set_index("domain")["z"]
        for record in records
    ]
    assert found["value"] == pytest.approx(wanted[1]["beekeeping"] - wanted[2]["beekeeping"])
    assert found["low"] < found["value"] < found["high"]
    assert criteria.above_control(records[:2], MODELS, "full", "beekeeping", "control") is None
    assert criteria.above_control(records, MODELS, "lora", "beekeeping", "control_lora") is None


def test_older_cells_have_neither_the_parameter_nor_the_table(outputs):
    record = cell.run_cells([LensCell(organism="full", seed=3, **POCKET)])[0]
    assert "own_text" not in record.params and "text_scores" not in record.tables
    assert not any(name.startswith("shared") for name in record.metrics)


def test_the_base_model_reads_a_shared_text_once(outputs, monkeypatch):
    """Cells of a session with one text: its activations and losses come from the first, and change no table."""
    monkeypatch.setattr(documents, "domain_tokens", functools.partial(documents.domain_tokens, k=5))
    p = [LensCell(**TEXT, organism=kind, domain="pottery") for kind in ("lora", "full")]
    passes = []
    plain = known.run_layers
    monkeypatch.setattr(known, "run_layers", lambda *given: (passes.append(1), plain(*given)))
    shared = cell.run_cells(p)
    assert len(passes) == 2, "24 documents are two batches"

    monkeypatch.setattr(cell, "Known", lambda: Known(most=0))
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(outputs.with_name("apart")))
    apart = [cell.run_cells([one])[0] for one in p]
    assert len(passes) == 2 + 2 + 4, "nothing kept: the pass of each cell, and that of half of the weights of one"
    for one, other in zip(shared, apart, strict=True):
        assert one.id == other.id and one.metrics == other.metrics
        for name in one.tables:
            pd.testing.assert_frame_equal(one.table(name), other.table(name), check_exact=True)


def test_activations_of_other_documents_layers_or_lengths_are_not_mixed_up():
    model = tiny()
    pair, kept, rows = Pair(model, model), Known(), [[1, 2, 3, 4], [5, 6, 7, 8]]
    first = kept.states(pair, rows, [1, 3], 4)(0)
    assert set(first) == {1, 3} and kept.states(pair, rows, [1], 4)(0) is first
    assert kept.states(pair, rows, [2], 4)(0).keys() == {2}
    assert kept.states(pair, rows, [2], 3)(0)[2].shape[1] == 3
    other = kept.states(pair, rows[::-1], [2], 4)(0)[2]
    torch.testing.assert_close(other, kept.states(pair, rows, [2], 4)(0)[2].flip(0))


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_training_that_is_killed_goes_on_and_ends_the_same(outputs, monkeypatch, kind):
    p = LensCell(organism=kind, seed=3, **POCKET | {"steps": 6})
    whole = cell.run_cells([p])[0]
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(outputs.with_name("killed")))
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    steps, plain = [], tune.check_finite

    def dies_at_five(loss, step, lr):
        steps.append(step)
        if steps == [1, 2, 3, 4, 5]:
            raise KeyboardInterrupt
        plain(loss, step, lr)

    monkeypatch.setattr(tune, "check_finite", dies_at_five)
    with pytest.raises(KeyboardInterrupt):
        cell.run_cells([p])
    scratch = next(outputs.with_name("killed").rglob(".adapter.scratch"))
    assert [path.name for path in scratch.iterdir()] == ["000004"], "the last state only"
    again = cell.run_cells([p])[0]
    assert steps == [1, 2, 3, 4, 5, 5, 6]
    assert again.metrics == whole.metrics and again.id == whole.id
    for file in whole.files:
        if file.startswith("adapter/"):
            assert sha256_file(again.path / file) == sha256_file(whole.path / file)
    assert not list(again.path.rglob("*scratch*")), "no part of the record"


def test_quick_trainings_write_no_state(tmp_path):
    p = LensCell(organism="full", seed=3, **POCKET)
    session = cell.Session(p)
    folder = tmp_path / "adapter"
    folder.mkdir()
    losses = organisms.train(pocket_material(p, session.loaded), p, folder, tmp_path / "scratch")
    assert len(losses) == p.steps and not (tmp_path / "scratch").exists()


def test_tables_of_a_page_keep_domains_and_texts_apart(pair_of_cells):
    full, control = pair_of_cells
    shown = views.readings(pair_of_cells).set_index("reading")["value"]
    assert shown.index.tolist() == list(views.READINGS.values())
    assert shown["each model, its own text"] == full.metric("own_z_above_permuted")["value"]
    scores = views.four_scores(pair_of_cells).set_index(["label", "reading"])
    assert scores.loc[("control, full", "both models, shared text"), "z (sd)"] == control.metric("shared_z")["value"]
    assert len(scores) == 5 and not scores.isna().any().any()
    losses = views.losses(pair_of_cells).set_index(["label", "text"])
    assert losses.loc[("full", "narrow"), "rise"] == full.metric("loss_rise_narrow")["value"]
    assert losses.loc[("full", "narrow"), "base"] == pytest.approx(
        full.table("losses").query("text == 'narrow'")["base"].mean()
    )
    assert views.components(pair_of_cells)["z, SVD"].tolist() == [
        record.metric("svd_z_without_0")["value"] for record in pair_of_cells
    ]
    assert views.written(pair_of_cells)["label"].tolist() == ["full"]

    elsewhere = Record(full.path, full.content | {"cell": full.cell | {"domain": "pottery"}}, published=False)
    both = views.by_cell([full, elsewhere], ["own_z"])
    assert both["label"].tolist() == ["full", "full, pottery"] and both["n"].tolist() == [1, 1]


def test_the_grid_of_smollm2_has_the_organisms_that_were_asked_for():
    """Two domains of each kind, mixtures and controls on the first; a block of a seed stands by itself."""
    grid = params.load(LensCell, PARAMS / "logit_lens_diff" / "narrow.yaml")
    wanted = Counter((one.organism, one.domain) for one in grid)
    pairs = [(kind, name) for kind in ("lora", "full") for name in ("beekeeping", "lighthouses")]
    pairs += [(kind, "beekeeping") for kind in ("mix1", "mix2", "control", "control_lora")]
    assert wanted == dict.fromkeys(pairs, 3) and len(grid) == 24
    assert [one.seed for one in grid] == sorted(one.seed for one in grid)
    assert {(one.documents, one.train_documents, one.steps, one.rows) for one in grid} == {(200, 200, 100, 8)}
    twin = params.load(LensCell, PARAMS / "logit_lens_diff" / "narrow_pocket.yaml")
    assert {one.organism for one in twin} == {one.organism for one in grid}
    assert {tuple(one.own_text) for one in (*grid, *twin)} == {("lora", "full")}


def test_what_the_criteria_name_is_what_a_cell_of_the_grid_has(pair_of_cells):
    """Every metric that is not computed by a function is one that the records hold."""
    asked = read_criteria(PARAMS / "logit_lens_diff" / "narrow_criteria.yaml")
    have = set(pair_of_cells[0].metrics) | {"interpolated_cosine", "interpolated_z_drop"}  # of probed cells
    named = set().union(*(question.metrics for question in asked.questions.values()))
    computed = {"component_minus_mean", "mix1_minus_full", "mix2_minus_full"}
    computed |= {name for name in named if name.startswith("above_control_")}
    assert len(computed) == 7 and named - computed <= have
