from __future__ import annotations

import re

import pytest
from claims_records import rate, record

from helpers.base.errors import ClaimError
from helpers.cases import facts as facts_module
from helpers.cases.facts import Facts
from helpers.claims.evidence import Derived, Expected, gather
from helpers.show.markup import unseal
from helpers.stats.wording import number

pytestmark = pytest.mark.unit


def facts(seeds=(0,), **changes):
    found = [
        record(
            {"lr": lr, "seed": seed},
            {"source_rate": rate(21, 32), "gain": mean(seed)},
            params={"lora_r": 16},
            **changes,
        )
        for lr in (1e-4, 1e-3)
        for seed in seeds
    ]
    return Facts(gather(found))


def mean(seed):
    return {"value": 1.5 + seed, "unit": "nats", "n": 20, "k": None, "low": 1.0, "high": 2.0, "level": 0.95}


def test_a_rate_carries_count_interval_and_link():
    found = facts().fact("source_rate", lr=1e-4)
    assert str(found) == "66 % (21/32, 95 % CI 47–81)"
    link = unseal(found._repr_markdown_())
    assert link.startswith('<a href="runs.html#toy-0.0001-0" title="run toy-0.0001-0 · commit abcdef0')
    assert link.endswith("><bdi>66 % (21/32, 95 % CI 47–81)</bdi></a>")
    assert "commit abcdef0" in found.hover
    assert "N 32" in found.hover
    assert (found.value, found.k, found.n) == (21 / 32, 21, 32)
    assert found.short.fragment == link.replace(str(found), "66 %")


def test_seeds_are_pooled_and_all_runs_named():
    found = facts(seeds=(0, 1, 2)).fact("source_rate", lr=1e-4)
    assert "(63/96, " in str(found)
    assert all(f"toy-0.0001-{seed}" in found.hover for seed in (0, 1, 2))
    gain = facts(seeds=(0, 1, 2)).fact("gain", lr=1e-4)
    assert (gain.value, gain.n) == (2.5, 3)
    assert facts(seeds=(0, 1)).fact("source_rate", lr=1e-4, seed=1).n == 32


def test_a_number_over_thousands_of_runs_names_a_few_of_them_and_their_count():
    found = facts(seeds=range(2_000)).fact("source_rate", lr=1e-4)
    assert found.hover.startswith("2000 runs: toy-0.0001-0, ") and "and 1988 more" in found.hover
    assert len(found._repr_markdown_()) < 2_000


def test_an_entry_is_found_wherever_its_name_is_nested():
    one = record({"seed": 0}, {}, params={"a.b": {"c.d": 1}, "empty": {}}, data={"data/x.y/z.csv": "0" * 64})
    for path, value in dict(facts_module._paths(one.content)).items():
        assert facts_module._at(one.content, path) == value
    for path in ("metrics", "params", "params.a", "params.empty", "params.a.b", "x", "", "data.data/x"):
        assert facts_module._at(one.content, path) is facts_module._ABSENT


def test_zero_keeps_its_width_and_negative_bounds_read_well():
    found = Facts(gather([record({"seed": 0}, {"r": rate(0, 96), "d": mean(0) | {"value": -0.5, "low": -1.5}})]))
    assert str(found.fact("r")) == "0 % (0/96, 95 % CI 0–3.8)"
    assert str(found.fact("d")) == "−0.5 nats (N 20, 95 % CI −1.5 to 2)"


def test_the_range_of_a_few_runs_is_not_called_a_confidence_interval():
    found = Facts(gather([record({"seed": 0}, {"ratio": mean(0) | {"unit": "x", "method": "range of paired runs"}})]))
    assert str(found.fact("ratio")) == "1.5 x (N 20, range 1–2)"


def test_params_environment_provenance_and_counts_are_facts():
    found = facts(seeds=(0, 1))
    assert found.fact("params.lora_r").value == 16
    assert "2.13.0" in str(found.fact("environment.packages.torch"))
    assert found.fact("provenance.commit").value == "abcdef0123456789"
    assert found.fact("count.records").value == 4
    assert found.fact("count.records", lr=1e-4).value == 2
    assert str(found.fact("seconds.train")) == "3 s"


def test_differing_values_are_listed_or_given_as_a_range():
    one = record({"seed": 0}, params={"lora_r": 16}, seconds={"train": 12.0, "total": 15.0})
    two = record({"seed": 1}, params={"lora_r": 16}, seconds={"train": 31.0, "total": 40.0})
    two.content["seconds"].pop("train")
    found = Facts(gather([one, two]))
    assert str(found.fact("seconds.total")) == "15–40 s (2 runs)"
    assert str(found.fact("params.seed")) == "2 values: 0, 1"
    assert "(in 1 of 2 records)" in str(found.fact("seconds.train"))


@pytest.mark.parametrize(
    ("name", "cell", "message"),
    [
        ("sorce_rate", {"lr": 1e-4}, "did you mean 'source_rate'"),
        ("params.lora", {}, "did you mean 'params.lora_r'"),
        ("source_rate", {"lrr": 1e-4}, "did you mean 'lr'"),
        ("source_rate", {"lr": 2e-4}, "No cell has lr=0.0002; did you mean '0.0001'"),
        ("source_rate", {"lr": 1e-4, "seed": 7}, "No cell has seed=7"),
        ("source_rate", {}, "in 2 cells"),
    ],
)
def test_what_does_not_exist_names_the_nearest(name, cell, message):
    with pytest.raises(ClaimError, match=message):
        facts().fact(name, **cell)


def test_a_declared_cell_without_a_record_is_no_fact():
    evidence = gather(
        [record({"lr": 1e-4, "seed": 0}, {"r": rate(1, 2)})], [Expected({"lr": 1e-4}), Expected({"lr": 1e-3})]
    )
    with pytest.raises(ClaimError, match="no complete record"):
        Facts(evidence).fact("r", lr=1e-3)


def test_text_of_a_record_is_shown_and_not_read():
    found = facts(launch='x](y)  <b> {{< v >}} `"').fact("launch")
    assert re.fullmatch("\ue0f0[0-9a-f]+\ue0f1", found._repr_markdown_())
    assert "<bdi>x](y)  &lt;b&gt; {{&lt; v &gt;}} `&#34;</bdi>" in unseal(found._repr_markdown_())


def test_an_id_cannot_leave_its_link():
    made = record({"seed": 0}, {"r": rate(1, 2)}, name='"><img src=x> %41#')
    link = Facts(gather([made])).fact("r").__html__()
    assert link.startswith('<a href="runs.html#%22%3E%3Cimg%20src%3Dx%3E%20%2541%23" title="run &#34;&gt;&lt;img ')


def test_numbers_over_a_scope_are_facts():
    derived = {"gap": Derived(lambda records, estimand: rate(len(records), 10), over_scope=True)}
    found = Facts(gather([record({"lr": lr, "seed": 0}) for lr in (1, 2, 3)], derive=derived)).fact("gap")
    assert (found.k, len(found.records)) == (3, 3)


@pytest.mark.parametrize(
    ("value", "unit", "n", "text"),
    [
        (0.645, "rate", 200, "64.5 %"), (0.645, "rate", 31, "64 %"), (0.015, "rate", 200, "1.5 %"),
        (1.0, "rate", 9, "100 %"),
        (-0.02, "points", 40, "−2 points"), (1234567, "", None, "1,234,567"), (12.3456, "s", None, "12.3 s"),
        (0.000012, "nats", 3, "1.2e-05 nats"), (-0.00001, "rate", 9, "0 %"),
        (0.01, "points", 40, "1 point"), (-0.01, "points", 40, "−1 point"),
        (1, "seeds", 9, "1 seed"), (1.0, "s", 3, "1 s"),
    ],
)  # fmt: skip
def test_numbers(value, unit, n, text):
    assert number(value, unit, n) == text


def test_every_name_can_be_asked_for():
    found = facts()
    for name in found.names():
        assert found.fact(name, lr=1e-4).__html__().startswith('<a href="runs.html#')
