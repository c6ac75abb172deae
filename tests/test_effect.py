"""The answer with its size: the sentence holds facts, and each fact is drawn with its interval and its thresholds."""

import re
from dataclasses import replace

import pytest
from claims_graph_cases import case
from claims_records import record

from helpers.base.errors import ClaimError
from helpers.cases.claim import Effect
from helpers.claims.evidence import Expected
from helpers.site.effect import NOT_RUN, effect
from helpers.stats.wording import number

SOURCE = {"metric": "source_rate", "label": "source"}
WORST = {"metric": "max_bystander_rate", "label": "worst bystander"}


def answered(verdict="SUPPORTED", sentence="{source} against {worst}.", **numbers):
    told = Effect.model_validate({"sentence": sentence, "numbers": {"source": SOURCE, "worst": WORST} | numbers})
    one = case("band", verdict)
    return replace(one, claim=one.claim.model_copy(update={"effect": told}))


def test_the_sentence_and_the_bars_show_the_facts_of_the_case():
    shown, fact = effect(answered()), answered().fact("source_rate")
    assert re.sub(r"<[^>]+>", "", shown.split("</p>")[0]) == f"{fact.brief} against 0 %."
    assert str(fact) in shown and "runs.html#band-run" in shown
    left, width = map(float, re.search(r'cb-range" style="left:([\d.]+)%;width:([\d.]+)%', shown).groups())
    assert (left, left + width) == pytest.approx((100 * fact.low, 100 * fact.high), abs=0.02)


def test_the_thresholds_of_the_primary_question_are_drawn_each_on_its_own_row():
    source, worst = effect(answered()).split("worst bystander")
    drawn = [re.findall(r'cb-threshold" style="left:([\d.]+)%', row) for row in (source, worst)]
    assert drawn == [["50.00"], ["5.00"]]


def test_a_claim_without_records_says_so_and_one_without_an_effect_says_nothing():
    assert re.sub(r"<[^>]+>", "", effect(answered("NOT RUN"))) == NOT_RUN
    assert effect(case("band", "SUPPORTED")) == ""


def test_while_a_cell_has_no_run_its_number_is_named_and_the_others_are_drawn():
    cells = [("source", {"tail": "newline"}), ("worst", {"tail": "end_of_turn"})]
    numbers = {name: {"metric": "source_rate", "label": name, "cell": cell} for name, cell in cells}
    one = answered(**numbers)
    seen = one.records[0]
    declared = [{**seen.cell, "tail": tail} for tail in ("newline", "end_of_turn")]
    run = record(declared[0], seen.metrics, name="band-run")
    shown = effect(replace(one, records=(run,), expected=tuple(map(Expected, declared))))
    assert re.sub(r"<[^>]+>", "", shown.split("</p>")[0]) == "Runs are still to come: nothing is measured yet of worst."
    assert "runs.html#band-run" in shown and shown.count("cb-range") == 1


@pytest.mark.parametrize(
    ("sentence", "name"),
    [("{source} alone.", "worst"), ("{source}, {worst} and {other}.", "other"), ("0 %.", "source")],
)
def test_sentence_and_numbers_name_the_same(sentence, name):
    with pytest.raises(ValueError, match=f"'{name}' must stand both in the sentence"):
        answered(sentence=sentence)


def test_numbers_of_two_units_are_no_chart():
    one = answered()
    metrics = dict(one.records[0].metrics) | {"max_bystander_rate": {"value": 2.5, "unit": "nats"}}
    mixed = record(one.records[0].cell, metrics, name="band-run")
    with pytest.raises(ClaimError, match=r"mixes the units 'nats' and 'rate'\. Give numbers of one unit"):
        effect(replace(one, records=(mixed,)))


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [(0.99962, "cosine", "0.99962"), (1.0, "cosine", "1"), (-0.9993, "cosine", "\N{MINUS SIGN}0.99930"),
     (0.963, "cosine", "0.963"), (0.9999999999, "cosine", "1.000000"), (0.99962, "nats", "1 nat")],
)  # fmt: skip
def test_next_to_its_bound_a_number_keeps_its_distance_from_it(value, unit, shown):
    assert number(value, unit) == shown
