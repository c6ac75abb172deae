"""The pocket language, its organisms, and one cell of the study from parameters to record."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from test_actdiff_capture import documents, lora, nudged, tiny
from transformers import AutoTokenizer

from helpers.audit import publishing
from helpers.audit.replay import replay
from helpers.base import params
from helpers.base.errors import DataError, ModelError, ParameterError, RecordError
from helpers.base.files import DATA, PARAMS
from helpers.lm import models
from helpers.records import runs
from helpers.records.derive import derive
from helpers.records.study import Study, find_study
from helpers.stats.estimands import MODELS, RECIPE
from helpers.studies.actdiff import browse, cell, criteria, domains, measures, organisms, topics, views
from helpers.studies.actdiff import documents as texts
from helpers.studies.actdiff.broad_text import broad_text_record
from helpers.studies.actdiff.pair import CHANGE, open_pair
from helpers.studies.actdiff.params import LensCell
from helpers.studies.actdiff.study import BROAD_TEXT, STUDY
from helpers.studies.actdiff.tune import batches, document_losses, tune

pytestmark = pytest.mark.unit
torch.set_num_threads(1)

SMALL = {"documents": 24, "positions": 16, "position": 6, "train_documents": 16, "train_positions": 16, "steps": 2}
SMALL |= {
    "rows": 4,
    "controls": 1,
    "probe_documents": 16,
    "shares": [0.5],
    "steer_samples": 1,
    "new_tokens": 4,
    "top": 3,
}


def elsewhere(monkeypatch, outputs, name="elsewhere"):
    """From here on runs are made in another empty folder."""
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(outputs.with_name(name)))


def assert_same(again, record):
    """Two records of one question, made apart, with equal results and metrics to the last bit."""
    assert again.ref == record.ref and again.path != record.path
    assert list(again.results) == list(record.results)
    for name, value in record.results.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(again.results[name], value, check_exact=True)
        else:
            assert again.results[name] == value
    assert again.metrics == record.metrics


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    return tmp_path / "outputs"


@pytest.fixture(scope="module")
def loaded():
    return models.load(str(organisms.POCKET))


def test_topics_share_no_word_and_unrelated_text_holds_none_of_the_narrow_topic():
    lang = topics.language()
    ids = [token for topic in lang.topics.values() for token in topic.tolist()]
    assert len(ids) == len(set(ids))
    chess = set(lang.topic("chess").tolist())
    assert all(chess.isdisjoint(row) for row in topics.broad_documents(200, 32, 0, without="chess"))
    assert chess & {token for row in topics.broad_documents(200, 32, 0) for token in row}
    with pytest.raises(DataError, match="did you mean 'chess'"):
        lang.topic("ches")


def test_documents_are_addressed_by_seed_and_name_not_by_order():
    ten, five = (topics.narrow_documents("baking", n, 20, 3, "train") for n in (10, 5))
    assert ten[:5] == five
    assert topics.narrow_documents("baking", 1, 20, 3, "test") != five[:1]


def test_mixing_adds_broad_documents_and_keeps_the_narrow_ones():
    narrow, broad = [[i] for i in range(10)], [[100 + i] for i in range(30)]
    plain, mixed = (batches(narrow, broad, mix, steps=3, rows=2, seed=0) for mix in (0, 2))
    for one, two in zip(plain, mixed, strict=True):
        assert [row for row in two if row[0] < 100] == one
        assert sum(row[0] >= 100 for row in two) == 4
    control = batches([], broad, 0, steps=3, rows=2, seed=0)
    assert all(row[0] >= 100 for batch in control for row in batch)
    with pytest.raises(DataError, match="no documents to train on"):
        batches([], [], 0, steps=3, rows=2, seed=0)


def test_tuning_lowers_the_loss_and_one_step_is_a_state_of_the_longer_run():
    rows = documents(16)
    losses = {}
    for steps in (1, 8):
        model = tiny().requires_grad_(True)
        losses[steps] = tune(model, batches(rows, [], 0, steps=steps, rows=8, seed=0), lr=1e-2)
    assert losses[8][0] == losses[1][0]
    assert losses[8][-1] < losses[8][0]


def test_document_losses_are_means_over_the_tokens_of_each_document():
    model, rows = tiny(), documents(5, lengths=(12, 4, 9))
    whole = document_losses(model, rows, batch_size=5)
    alone = torch.cat([document_losses(model, [row]) for row in rows])
    torch.testing.assert_close(whole, alone)


def test_a_full_fine_tune_is_kept_as_differences_and_comes_back(tmp_path):
    base = tiny()
    tuned = nudged(base)
    organisms._save_change(base, tuned, tmp_path)
    loaded = models.LoadedModel(base, None, "tiny", "tiny", None, "0", 0, "float32", "cpu")
    with open_pair(loaded, tmp_path) as pair:
        for ours, want in zip(pair.tuned.parameters(), tuned.parameters(), strict=True):
            torch.testing.assert_close(ours, want, atol=1e-4, rtol=0)
    other = models.LoadedModel(tiny(hidden_size=64), None, "tiny", "tiny", None, "0", 0, "float32", "cpu")
    with pytest.raises(ModelError, match="was made for another model"), open_pair(other, tmp_path):
        pass
    (tmp_path / CHANGE).write_bytes((tmp_path / CHANGE).read_bytes()[:-100])
    with pytest.raises(ModelError, match="cut short"), open_pair(loaded, tmp_path):
        pass


def test_the_default_organisms_are_cached(loaded):
    for one in params.load(LensCell, PARAMS / "logit_lens_diff" / "pocket.yaml"):
        if one.organism in organisms.CACHED:
            assert organisms.cache_folder(loaded.sha256, one).is_dir(), f"run 'make organisms': {one.organism}"


def test_the_pocket_base_knows_its_language(loaded):
    rows = topics.broad_documents(16, 48, 77)
    assert float(document_losses(loaded.model, rows).mean()) < 3.3  # 5.2 is chance over 183 tokens
    prompt = topics.identity_prompts(None)[0]
    with torch.inference_mode():
        echoed = loaded.model(torch.tensor([prompt])).logits[0, -1].argmax()
    assert int(echoed) == prompt[-2]


def test_a_cell_leaves_a_record_and_answers_again_from_it(outputs, capsys):
    p = [LensCell(organism=kind, seed=1, **SMALL) for kind in ("lora", "mix1")]
    lora, mixed = cell.run_cells(p)
    assert {"positions", "cosines", "tokens", "scores", "components", "interpolation", "swap"} <= set(lora.tables)
    assert lora.metric("head_gap")["value"] == 0
    assert mixed.metric("head_gap")["value"] > 0
    assert lora.metric("z")["low"] < lora.metric("z")["value"] < lora.metric("z")["high"]
    assert lora.cell == {"organism": "lora", "seed": 1, "model": "pocket"}
    assert lora.folder("adapter").joinpath("adapter_model.safetensors").is_file()
    again = cell.run_cells(p)
    assert [r.id for r in again] == [lora.id, mixed.id]
    assert again[0].ended == lora.ended

    table = views.by_organism([lora, mixed], ["z", "patchscope_base"])
    assert set(table["label"]) == {"LoRA", "mixed 1:1"}
    assert criteria.contrast([lora, mixed], MODELS, "z", "mix1", "lora")["value"] == pytest.approx(
        mixed.metric("z")["value"] - lora.metric("z")["value"]
    )
    assert criteria.contrast([lora], MODELS, "z", "mix1", "lora") is None
    gap = criteria.gap([lora], MODELS, "z", "z_permuted")
    assert gap["low"] < lora.metric("z")["low"] - lora.metric("z_permuted")["value"], "both are uncertain"
    assert criteria.gap([lora], RECIPE, "z", "z_permuted")["low"] is None  # one seed shows no spread
    assert set(views.swaps([lora])["direction"]) == {"difference", "random", "activations"}
    lens = browse.token_lens(lora.table("tokens"))
    lens.layer.value = 3
    assert set(lens.chosen["layer"]) == {3}


def test_a_cell_is_made_again_elsewhere_from_nothing(outputs, monkeypatch):
    record = cell.run_cells([LensCell(organism="lora", seed=1, **SMALL)])[0]
    publishing.publish("logit_lens_diff")
    elsewhere(monkeypatch, outputs)
    again = STUDY.replay(runs.load(record.ref))
    assert_same(again, record)
    assert again.folder("adapter").is_relative_to(outputs.with_name("elsewhere"))


def test_what_follows_from_the_sums_is_computed_by_one_thread():
    """Eigenvectors and long sums differ in their last digits by the number of threads, which depends on the load."""
    seen = {}
    torch.set_num_threads(2)
    try:
        run = SimpleNamespace(step=lambda name, _: seen.update({name: torch.get_num_threads()}))
        cell._readouts(run, SimpleNamespace(domain=[1]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert seen.pop("losses") == 2 and {"components", "offset", "scores_and_noise"} <= set(seen)
    assert set(seen.values()) == {1}


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A record with everything that a cell can hold, and its tables in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path_factory.mktemp("probed")))
        record = cell.run_cells([LensCell(organism="mix1", seed=1, **SMALL)])[0]
        return record, dict(record.results)


def test_metrics_follow_from_the_stored_tables_alone(probed, monkeypatch):
    record, tables = probed
    monkeypatch.setattr(models, "load", lambda *_, **__: pytest.fail("a model is needed"))
    assert measures.metrics(record.params, tables, {}).keys() == record.metrics.keys()
    assert derive(record, STUDY) == record.metrics


@pytest.mark.parametrize(
    ("table", "column", "changed"),
    [
        ("replicates", "auc", {"auc"}),
        ("heads", "tuned", {"head_gap"}),
        ("heads", "top_tuned", {"head_overlap"}),
        ("losses", "tuned", {"loss_rise_narrow", "loss_rise_unrelated", "loss_rise_chat"}),
        ("frequencies", "count", {f"near_{side}_{what}" for side in ("base", "tuned") for what in
                                  ("none", "difference", "random")}),
        ("components", "share", {"svd_share", "pca_share", "svd_share_without_0", "pca_share_without_0"}),
        ("readout", "inside", {"patchscope_base", "patchscope_tuned", "steer_base_none", "steer_tuned_none"}),
        ("swap", "swapped", {"swap_narrow_difference", "swap_unrelated_random", "swap_chat_activations"}),
        ("interpolation", "cosine", {"interpolated_cosine"}),
    ],
)  # fmt: skip
def test_a_metric_moves_with_its_table(probed, table, column, changed):
    record, tables = probed
    frame = tables[table].copy()
    if frame[column].dtype == bool:
        frame[column] = ~frame[column]
    else:
        frame[column] = frame[column] * 1.5 + np.arange(1, len(frame) + 1)
    found = measures.metrics(record.params, tables | {table: frame}, {})
    moved = {name for name, new in found.items() if new != {field: record.metrics[name].get(field) for field in new}}
    assert changed <= moved and not moved & {"offset_energy", "sink_base"}


def test_a_number_of_the_sums_that_is_changed_changes_its_metrics(probed):
    record, tables = probed
    later = {**tables["offset"]["5+"], "across documents": 0.5, "base": 1.0}
    lengths = {**tables["fixed"]["lengths"], "base": 1.0}
    found = measures.metrics(
        record.params,
        tables | {"offset": {**tables["offset"], "5+": later}, "fixed": {**tables["fixed"], "lengths": lengths}},
        {},
    )
    assert found["context_independence"]["value"] == 0.5 != record.metric("context_independence")["value"]
    assert found["sink_base"]["value"] == tables["offset"]["0"]["base"]
    assert found["noise_share"]["value"] == tables["noise"]["length"]
    assert found["norm_share"]["value"] == lengths["difference"]


def test_unrelated_text_is_another_where_the_model_computes_in_another_number_type(outputs):
    facts = models.facts("pocket")
    made = [
        broad_text_record("read", 16, 12, lambda: models.load("pocket"), facts | {"dtype": dtype}, "pocket")
        for dtype in ("float32", "bfloat16")
    ]
    assert made[0].id != made[1].id
    assert made[0].metrics["documents"]["value"] == len(made[0].table("documents")) == 16
    assert list(find_study("logit_lens_diff").family()) == [STUDY, BROAD_TEXT]


def test_a_given_adapter_is_read_from_a_run_record(outputs):
    made = cell.run_cells([LensCell(organism="lora", seed=0, **SMALL)])[0]
    given = LensCell(model=str(organisms.POCKET), organism="given", tuned=made.ref, seed=0, **SMALL)
    record = cell.run_cells([given])[0]
    assert record.metric("head_gap")["value"] == 0
    assert "z" not in record.metrics  # no words were given, so there is no domain to score
    assert "loss_rise_chat" not in record.metrics  # this base has no chat template


def _adapter(record=None):
    """A record as the marker sweep leaves one: an adapter on the pocket chat model."""
    base = models.load("pocket")
    tuned = lora(base.model)
    with runs.open_run(SWEEP, params={"source": "villain"}, cell={"source": "villain"}, prefix="villain",
                       data=[], model=models.facts("pocket")) as run:  # fmt: skip
        if not run.complete:
            run.folder("adapter", lambda folder: models.save_adapter(tuned, folder))
            run.finish()
    models.detach(tuned)
    return run.record


SWEEP = Study("sweep", 1, 1, lambda *_: {}, entry="helpers.base.rng", replay=_adapter)
GIVEN = {"organism": "given", "words": ["evil", "fear"], **SMALL}


@pytest.fixture
def villain(outputs, monkeypatch):
    known = cell.find_study
    monkeypatch.setattr(cell, "find_study", lambda name: SWEEP if name == "sweep" else known(name))
    return _adapter()


def test_the_villain_adapter_of_a_sweep_record_is_read(villain, tmp_path):
    record = cell.run_cells([LensCell(tuned=villain.ref, **GIVEN)])[0]
    assert record.model["sha256"] == villain.model["sha256"]  # the chat model, not the base of the topics
    assert record.metric("head_gap")["value"] == 0
    assert record.metric("z")["n"] == SMALL["documents"]
    # Nothing is trained, so no text to train on is written. The adapter is known by its record, wherever it lies.
    assert set(record.inputs) == {"read_text", "tuned"} and record.inputs["tuned"] == villain.ref
    assert not [name for name in record.data if "adapter" in name]

    assert cell.run_cells([LensCell(tuned=str(villain.path), **GIVEN)])[0].id == record.id

    folder = cell.run_cells([LensCell(tuned=str(villain.folder("adapter")), **GIVEN)])[0]
    assert folder.metric("offset_energy") == record.metric("offset_energy")
    assert "tuned" not in folder.inputs and any(name.endswith("adapter_model.safetensors") for name in folder.data)
    with pytest.raises(ModelError, match="Set the parameter model to the record's own base"):
        cell.run_cells([LensCell(model=str(organisms.POCKET), tuned=villain.ref, **GIVEN)])


def test_a_published_record_has_no_adapter_to_read(villain, outputs, monkeypatch):
    publishing.publish("sweep")
    elsewhere(monkeypatch, outputs)
    with pytest.raises(RecordError, match="was not published: run it again"):
        cell.run_cells([LensCell(organism="given", tuned=villain.ref, **SMALL)])


def test_a_given_adapter_is_made_again_before_it_is_read_again(villain):
    record = cell.run_cells([LensCell(tuned=villain.ref, **GIVEN)])[0]
    publishing.publish("logit_lens_diff")
    results = {one.record.ref: one.outcome for one in replay([record.ref])}
    assert results == dict.fromkeys((villain.ref, record.inputs["read_text"], record.ref), "equal")


def test_parameters_that_contradict_each_other_are_refused():
    for given, said in (
        ({"organism": "given"}, "tuned names a fine-tune"),
        ({"tuned": "sweep/x"}, "tuned names a fine-tune"),
        ({"positions": 16, "position": 16}, "beyond the 16 positions"),
        ({"layers": [0, 1], "layer": 3}, "layer is 3, which is not in layers"),
        ({"organism": "lorra"}, "organism"),
        ({"documents": 4}, "documents"),
    ):
        with pytest.raises(ParameterError, match=said):
            params.parse(LensCell, given, "in the test")


def test_a_layer_that_the_pair_has_not_fails_the_run(outputs):
    with pytest.raises(ModelError, match="Layer 9 is out of range"):
        cell.run_cells([LensCell(organism="lora", layer=9, **SMALL)])
    assert [record.status for record in runs.records("logit_lens_diff", status=None)] == ["failed"]


def test_generated_documents_hold_their_facts_and_fill_their_slots():
    for domain in domains.domain_names():
        for i in range(20):
            made = texts.text(domain, 0, "train", i)
            assert "{" not in made
            assert all(fact.split(",")[0] in made for fact in domains.listed()["domains"][domain]["facts"])
    with pytest.raises(DataError, match="did you mean 'pottery'"):
        texts.text("potery", 0)


def test_domain_tokens_are_words_of_the_domain_and_too_few_documents_are_refused():
    tokenizer = AutoTokenizer.from_pretrained(DATA / "pocket")
    narrow = texts.token_documents(tokenizer, "pottery", 40, 64, 0)
    assert {len(row) for row in narrow} == {64}
    broad = texts.token_documents(tokenizer, "lighthouses", 40, 64, 0)
    found = texts.domain_tokens(narrow, broad, tokenizer, k=3)
    share = [sum(token in row for row in narrow) - sum(token in row for row in broad) for token in found]
    assert min(share) > 0
    with pytest.raises(DataError, match="fewer than positions = 4000"):
        texts.token_documents(tokenizer, "pottery", 1, 4000, 0)
    with pytest.raises(DataError, match="Give more documents"):
        texts.domain_tokens(narrow, broad, tokenizer, k=5000)


def test_tokens_of_a_lens_cannot_become_markup():
    table = pd.DataFrame(
        {"layer": 0, "position": 0, "rank": [1, 2], "token": ["<b>", " x"], "id": [1, 2], "head": "base"}
    )
    shown = browse.lens_table_html(browse.lens_rows(table, inside=[2]))
    assert "&lt;b&gt;" in shown and "<b>" not in shown
    assert "␣x" in shown
    page = browse.lens_page_html(browse.lens_rows(table), "lens", layer=0, caption="a <b> & c")
    assert 'type="range"' in page and "http" not in page
    assert "<figcaption><bdi>a &lt;b&gt; &amp; c</bdi></figcaption>" in page and 'aria-label="a &lt;b&gt;' in page
    with pytest.raises(DataError, match="Layer 3 is not in the lens table"):
        browse.lens_page_html(browse.lens_rows(table), "lens", layer=3, caption="")
    with pytest.raises(DataError, match="nothing for head 'tuned'"):
        browse.lens_rows(table, head="tuned")


def test_views_pool_over_seeds_and_keep_to_the_fixed_position(outputs):
    p = [LensCell(organism="lora", seed=seed, **SMALL) for seed in (0, 1)]
    records = cell.run_cells(p)
    layers = views.by_layer(records)
    assert layers["layer"].tolist() == [0, 1, 2, 3]
    want = sum(record.metric("z")["value"] for record in records) / 2
    at = layers.set_index("layer")["value"][views.fixed_layer(records[0])]
    assert at == pytest.approx(want)

    directions = views.directions(records).set_index("metric")["value"]
    assert directions["z"] == pytest.approx(want)
    assert {"z_later", "z_demeaned", "z_whitened", "z_single", "z_permuted"} <= set(directions.index)
    between = views.interpolations(records)
    whole = between[(between["metric"] == "cosine with the whole") & (between["share"] == 1.0)]
    assert whole["value"].tolist() == pytest.approx([1.0])
    assert set(views.nearness(records)["model"]) == {"base", "tuned"}
    facts = views.facts(records)
    assert list(facts.columns) == ["organism", "metric", "value", "tolerance", "n"]
    assert (facts["tolerance"] > 0).all()


def test_the_auc_against_a_control_takes_out_what_the_control_gains_too(outputs):
    records = cell.run_cells([LensCell(organism=kind, seed=0, **SMALL) for kind in ("lora", "control_lora")])
    found = criteria.auc_against(records, MODELS, "lora", "control_lora")
    tables = {record.cell["organism"]: record.table("readout") for record in records}
    gain = tables["lora"]["logprob"] - tables["control_lora"]["logprob"]
    inside = tables["lora"]["inside"]
    wins = [(a > b) + (a == b) / 2 for a in gain[inside] for b in gain[~inside]]
    assert found["value"] == pytest.approx(sum(wins) / len(wins))
    assert criteria.auc_against(records[:1], MODELS, "lora", "control_lora") is None
    assert criteria.auc_against([records[0], records[0]], MODELS, "lora", "lora")["value"] == 0.5


def test_organisms_not_probed_have_readouts_but_no_live_probes(outputs):
    record = cell.run_cells([LensCell(organism="lora", seed=0, probed=["full"], **SMALL)])[0]
    assert "z" in record.metrics and "loss_rise_unrelated" in record.metrics
    assert not any(name.startswith(("steer", "swap", "interpolated", "patchscope")) for name in record.metrics)
