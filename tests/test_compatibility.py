"""The ledger of architectures is what the installed packages give, and a change of any part of it is noticed."""

from __future__ import annotations

import dataclasses
import re

import peft
import pytest
import torch
import transformers
from transformers.utils import logging

from helpers.bench import compatibility
from helpers.bench.compatibility import architectures, as_compared, examine
from helpers.lm import forward, models
from helpers.lm.compatibility import Entry, entries, read
from helpers.site import architectures as shown
from helpers.studies.actdiff.lens import Lens

pytestmark = pytest.mark.unit
logging.set_verbosity_error()

KNOWN = entries(transformers.__version__)
ASKED = {  # by the issue that began the ledger
    "llama", "qwen2", "qwen3", "qwen3_5_text", "gemma2", "gemma3_text", "phi3", "granite", "cohere", "cohere2", "olmo2",
    "mistral", "gpt_neox", "gpt2", "stablelm", "falcon_h1", "mamba2", "lfm2", "gpt_oss", "smollm3",
}  # fmt: skip
STAY_PACKED = {"llama", "qwen2", "qwen3", "smollm3", "mistral", "olmo2"}


def test_the_ledger_has_the_installed_versions_and_the_architectures_that_were_asked_for():
    assert transformers.__version__ in read(), "this version of transformers was not tried: run `make compatibility`"
    now = read()[transformers.__version__]
    assert (now["torch"], now["peft"]) == (torch.__version__.partition("+")[0], peft.__version__)
    assert list(KNOWN) == architectures() and len(KNOWN) >= 25 and KNOWN.keys() >= ASKED
    assert all(KNOWN[kind].rows == "packed" for kind in STAY_PACKED)
    for kind, entry in KNOWN.items():
        assert bool(entry.why) == (entry.rows != "packed" or entry.generation != "cached"), kind
        assert entry.name in entry.why or entry.rows != "refused", kind
    assert {entry.rows for entry in KNOWN.values()} == {"packed", "plain", "refused"}


def check(kind: str) -> None:
    now, before = as_compared(examine(kind)), as_compared(KNOWN[kind])
    assert now == before, f"{kind} is computed otherwise than data/compatibility.json says: run `make compatibility`"


@pytest.mark.check
@pytest.mark.parametrize("kind", architectures())
def test_an_architecture_is_computed_as_the_ledger_says(kind):
    check(kind)


@pytest.mark.parametrize("kind", ["llama", "mamba2", "bert"])
def test_some_are_checked_every_time(kind):
    check(kind)


def leaking(monkeypatch):
    honest = forward.packed
    monkeypatch.setattr(forward, "packed", lambda model, layout: honest(model, layout) + 0.1)


def blind(monkeypatch):
    honest = Lens.read
    monkeypatch.setattr(Lens, "read", lambda lens, state: honest(lens, state) * 2)


def forgetful(monkeypatch):
    honest = models.detach

    def detach(model):
        base = honest(model)
        with torch.no_grad():
            next(base.parameters()).add_(1)
        return base

    monkeypatch.setattr(models, "detach", detach)


def with_other_targets(monkeypatch):
    honest = compatibility.find_targets
    monkeypatch.setattr(compatibility, "find_targets", lambda model, _: honest(model, ["q_proj"]))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (leaking, {"rows", "why", "generation", "training"}), (blind, {"lens"}), (forgetful, {"adapters"}),
        (with_other_targets, {"targets"}),
    ],
)  # fmt: skip
def test_a_change_is_noticed_in_its_own_part(change, parts, monkeypatch):
    change(monkeypatch)
    now, before = as_compared(examine("llama")), as_compared(KNOWN["llama"])
    assert {name for name in now if now[name] != before[name]} == parts
    with pytest.raises(AssertionError, match="make compatibility"):
        check("llama")


def test_figures_that_differ_between_processors_are_no_change():
    entry = KNOWN["bloom"]
    other = dataclasses.replace(entry, why=re.sub(r"come out [\d.]+ nats", "come out 1.2e-05 nats", entry.why))
    assert other != entry and as_compared(other) == as_compared(entry)


def test_other_versions_stay_when_one_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(compatibility, "LEDGER", tmp_path / "ledger.json")
    monkeypatch.setattr(compatibility, "architectures", lambda: ["llama"])
    monkeypatch.setattr(compatibility, "read", lambda: {"4.0": {"architectures": {}}})
    compatibility.write()
    monkeypatch.setattr("helpers.lm.compatibility.LEDGER", tmp_path / "ledger.json")
    assert list(read()) == ["4.0", transformers.__version__]
    assert entries(transformers.__version__) == {"llama": KNOWN["llama"]} and entries("3.0") == {}


def test_the_page_shows_every_architecture_with_its_versions():
    html = str(shown.table_of_architectures().fragment)
    for kind, entry in KNOWN.items():
        assert kind in html and entry.name in html
    rows = html.split("<tr>")
    (bloom,) = [row for row in rows if "BloomForCausalLM" in row]
    assert "plain" in bloom and "query_key_value" in bloom and transformers.__version__ in bloom


def test_an_architecture_that_changed_between_versions_has_two_rows(tmp_path, monkeypatch):
    packed = KNOWN["llama"]
    plain = Entry(**dataclasses.asdict(packed) | {"rows": "plain", "why": "of a reason"})
    old, new = ({"architectures": {"llama": dataclasses.asdict(one)}} for one in (plain, packed))
    monkeypatch.setattr(shown, "read_compatibility", lambda: {"5.9": old, "5.10": old, "5.11": new})
    rows = str(shown.table_of_architectures().fragment).split("<tr>")[2:]
    assert ["of a reason" in row for row in rows] == [False, True]
    assert "5.9, 5.10" in rows[1] and "5.11" in rows[0]
