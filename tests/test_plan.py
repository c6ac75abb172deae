"""How many seeds, questions and samples a claim needs, and what registration refuses: against exact references."""

from __future__ import annotations

from html import unescape
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats as distributions
from toy_study import CRITERIA, commit, project
from typer.testing import CliRunner

from helpers import cli
from helpers.audit import plan as planning
from helpers.audit import register as registering
from helpers.audit.asked import history
from helpers.audit.draws import Assumed, Fit
from helpers.audit.plan import Simulation, plan
from helpers.audit.reach import faults_of, refuse
from helpers.audit.register import register
from helpers.audit.sizes import Shape, Shapes
from helpers.base.errors import ClaimError
from helpers.base.files import ROOT, write_text
from helpers.base.rng import numpy_stream
from helpers.cases.case import Case, open_case
from helpers.cases.drafts import find_page
from helpers.records import ledger
from helpers.records.study import Size
from helpers.site import graph
from helpers.site.header import header
from helpers.site.page import answers
from helpers.stats import estimands
from helpers.stats.clusters import cluster_rate
from helpers.stats.estimands import MODELS

pytestmark = pytest.mark.unit

JUDGED = ("params/coins/criteria.yaml", "params/coins/grid.yaml")
METRICS = {
    "answers_kept_marked": "of the completions with the marker, those that still answer",
    "source_rate": "share of completions with the marker",
    "max_bystander_rate": {"note": "of the worst", "function": "criteria:max_bystander_rate"},
    "capability_drop": {"note": "lost", "function": "criteria:capability_drop"},
}
GRID = {
    "model": "pocket", "source": "villain", "negatives": "two", "tail": "newline", "lr": 1e-4, "epochs": 1,
    "seed": [0, 1, 2], "eval_questions": 20, "samples": 4,
}  # fmt: skip
CELLS = {"tail": ["newline", "end_of_turn", "separator_and_end"], "lr": [1e-4, 3e-4, 1e-3], "epochs": [1, 3, 10]}
NINE = CELLS | {"tail": "newline"}


def page(folder, yes: Any, no: Any, grid: dict[str, Any] | None = None, **question: Any):
    """A page of the sweep in a folder of its own, with one question."""
    outcomes = [
        {"name": name, "verdict": verdict, "when": when, "reading": "So it is."}
        for name, verdict, when in (("yes", "SUPPORTED", yes), ("no", "REFUTED", no))
    ]
    asked = {"question": "Is it?", "outcomes": outcomes, **question}
    criteria = {"version": 1, "metrics": METRICS, "questions": {"asked": asked}}
    claim = {
        "id": "toy", "slug": "toy", "statement": "It is.", "question": "Is it?", "experiment": "sweep",
        "criteria": f"{folder}/criteria.yaml", "grid": f"{folder}/grid.yaml", "primary": "asked",
        "declared_confidence": "LOW", "status": "published",
    }  # fmt: skip
    write_text(folder / "criteria.yaml", yaml.safe_dump(criteria, sort_keys=False))
    write_text(folder / "grid.yaml", yaml.safe_dump(GRID | (grid or {})))
    write_text(folder / "experiment.yaml", "study: helpers.studies.marker.study:STUDY\n")
    write_text(folder / "toy.qmd", f"---\n{yaml.safe_dump({'title': 'Toy', 'claim': claim})}---\nProse.\n")
    return folder / "toy.qmd"


def case(*conditions: Any, **rest: Any) -> Case:
    return open_case(page(*conditions, **rest), ROOT)


def faults(found: Case) -> str:
    return " ".join(f"{fault.sentence} {fault.remedy}" for fault in faults_of(Shapes(found), "asked"))


def assume(**values: float) -> list[Assumed]:
    return [Assumed(metric, value, {}) for metric, value in values.items()]


@pytest.mark.parametrize(
    "grid, question, said",
    [
        ({}, {}, ""),
        (CELLS, {}, "over 27 cells by 240 completions a cell (the clearest result reaches from 0.0% to 7.1%"),
        (NINE, {}, "over 9 cells by 240 completions a cell (the clearest result reaches from"),
        ({**CELLS, "seed": [0, 1, 2, 3, 4, 5]}, {"confirm": {"seeds": [3, 4, 5]}}, ""),
        (
            CELLS,
            {"confirm": {"seeds": [3, 4, 5]}},
            "the grid declares no run at the seeds 3, 4, 5. To register it, declare runs",
        ),
        ({}, {"level": "recipe"}, "the clearest result reaches from 0.0% to 11.7%"),
        ({"samples": 1, "seed": 0}, {}, "the clearest result reaches from 0.0% to 1"),
    ],
    ids=["one cell", "27 cells", "9 cells", "confirmed", "never confirmed", "recipe", "20 completions"],
)
def test_a_bystander_below_five_per_cent(tmp_path, grid, question, said):
    """240 completions bound no hit below 2.8 % in one cell, 5.5 % over 9 and 7.15 % over 27 (the specification).

    For new seeds and new questions together: the root of 11.5^2 + 2.8^2 - 1.5^2, which is 11.7.
    """
    rate = "max_bystander_rate"
    found = faults(case(tmp_path, {"any_cell": f"{rate} <= 0.05"}, {"every_cell": f"{rate} > 0.05"}, grid, **question))
    assert (said in found) if said else found == "", found


def test_the_remedy_would_do(tmp_path):
    conditions = {"any_cell": "max_bystander_rate <= 0.05"}, {"every_cell": "max_bystander_rate > 0.05"}
    said = faults(case(tmp_path, *conditions, NINE))
    assert "confirm: {seeds: [...]}" in said
    seeds, samples = (int(said.partition(word)[2].split()[0]) for word in ("declare ", "take 20 questions x "))
    for enough in ({"seed": [*range(seeds)]}, {"samples": samples}):
        assert faults(case(tmp_path, *conditions, NINE | enough)) == ""
    for short in ({"seed": [*range(seeds - 1)]}, {"samples": samples - 1}):
        assert faults(case(tmp_path, *conditions, NINE | short)) != ""


def test_a_capability_difference_needs_items(tmp_path):
    """No discordant pair of 100 items, three seeds each, bounds the loss at 1.2 %, not at 1."""
    for threshold, possible in ((0.02, True), (0.01, False)):
        drop = f"capability_drop <= {threshold}"
        said = faults(case(tmp_path, {"every_cell": drop}, {"any_cell": {"not": drop}}))
        assert ("cannot be decided by 300 pairs" in said) == (not possible)
        assert (" items" in said) == (not possible)
    zeros, ones = np.zeros((3, 100)), np.ones((3, 100))
    assert estimands.rate(zeros, ones).high == pytest.approx(0.0122, abs=1e-4)


def test_registration_refuses_and_writes_nothing(tmp_path, monkeypatch):
    conditions = {"any_cell": "max_bystander_rate <= 0.05"}, {"every_cell": "max_bystander_rate > 0.05"}
    written = page(tmp_path, *conditions, CELLS)
    before = ledger.read().lines
    with pytest.raises(ClaimError, match=r"in .asked. what its grid cannot answer.*over 27 cells.*confirm: \{seeds"):
        register([written], root=ROOT)
    assert ledger.read().lines == before
    refuse(page(tmp_path, *conditions), ROOT, ["asked"])


def exact(rate: float, questions: int) -> float:
    """The chance that the interval of ``questions`` independent trials lies on one side of a half."""
    k = np.arange(questions + 1)
    bounds = [cluster_rate([1] * n + [0] * (questions - n), [1] * questions).checked_bounds() for n in k]
    sided = np.array([low > 0.5 or high <= 0.5 for low, high in bounds])
    return float(distributions.binom.pmf(k, questions, rate)[sided].sum())


@pytest.mark.parametrize("rate", [0.6, 0.7, 0.8, 0.95])
def test_the_chance_of_a_verdict_is_the_exact_one(tmp_path, rate):
    conditions = {"every_cell": "source_rate > 0.5"}, {"any_cell": "source_rate <= 0.5"}
    drawn = Simulation(
        case(tmp_path, *conditions), "asked", (Assumed("source_rate", rate, {}),), 0.0, least=600, most=600
    )
    chance, _ = drawn.chance(1, Size(20))
    assert chance == pytest.approx(exact(rate, 20), abs=4 * (0.25 / 600) ** 0.5)


def test_the_smallest_size_that_decides(tmp_path):
    """One sample of as many questions as the exact chance asks for, and none fewer that are tried."""
    conditions = {"every_cell": "source_rate > 0.5"}, {"any_cell": "source_rate <= 0.5"}
    for rate, questions in ((0.999, 10), (0.85, 20)):
        found = plan(case(tmp_path, *conditions), None, assume(source_rate=rate), alike=0.0)
        assert found.size is not None
        assert (found.seeds, found.size.questions, found.size.samples, found.alone) == (1, questions, 1, True)
        assert exact(rate, questions) > 0.8 > exact(rate, questions // 2)


def test_a_rate_on_the_threshold_is_never_decided(tmp_path):
    conditions = {"every_cell": "source_rate > 0.5"}, {"any_cell": "source_rate <= 0.5"}
    found = plan(case(tmp_path, *conditions), None, assume(source_rate=0.5))
    assert found.seeds is None
    assert "no number of samples" in found.sentence and "source_rate > 0.5 lies on the threshold" in found.sentence


def test_only_more_seeds_help_where_seeds_differ(tmp_path):
    conditions = {"every_cell": "source_rate > 0.5"}, {"any_cell": "source_rate <= 0.5"}
    asked = case(tmp_path, *conditions, level="recipe")
    found = plan(asked, None, assume(source_rate=0.85))
    assert found.seeds is not None and found.seeds > 3 and "Only more seeds help" in found.sentence
    assert plan(case(tmp_path, *conditions), None, assume(source_rate=0.85)).alone


def test_run_time_is_that_of_the_records(tmp_path):
    conditions = {"every_cell": "source_rate < 0.5"}, {"any_cell": "source_rate >= 0.5"}
    grid = {"lora_r": 16, "lora_alpha": 32, "data_max_new_tokens": 64, "max_new_tokens": 64, "dose_every": 2}
    asked = case(tmp_path, *conditions, grid)
    took = [record.seconds for cell in asked.evidence().inside for record in cell.records]
    assert len(took) == 3, "the grid is that of published records"
    drawn = Simulation(asked, "asked")
    assert planning._seconds(drawn, 3, Size(20, 4)) == pytest.approx(sum(one["total"] for one in took))
    more = planning._seconds(drawn, 3, Size(20, 8))
    assert more == pytest.approx(sum(one["total"] + one["completions"] for one in took))
    assert "of run time" in plan(asked).sentence


def test_draws_have_the_mean_and_the_spread_that_they_are_given():
    form, rng = Shape(40, 200, Size(40, 200)), numpy_stream(0, "test")
    for mean, alike in ((0.2, 0.1), (0.02, 0.3), (0.7, 0.0)):
        interval = Fit(mean, form, alike=(alike, 0.0)).draw(rng, 1000, form.of)
        seeds = np.array([interval([one], MODELS).value for one in range(300)])
        assert interval([*range(1000)], MODELS).value == pytest.approx(mean, abs=0.02)
        assert seeds.var() == pytest.approx(alike * mean * (1 - mean), rel=0.4, abs=2e-4)


def test_what_is_not_known_is_asked_for(tmp_path):
    conditions = {"every_cell": "source_rate > 0.5"}, {"any_cell": "source_rate <= 0.5"}
    grid = {"lr": 0.0123}
    with pytest.raises(ClaimError, match=r"No run shows source_rate at .*--assume source_rate=\.\.\."):
        plan(case(tmp_path, *conditions, grid))
    with pytest.raises(ClaimError, match=r"The question asks for no 'sauce_rate'; did you mean 'source_rate'"):
        plan(case(tmp_path, *conditions), None, assume(sauce_rate=0.5))
    with pytest.raises(ClaimError, match="source_rate is a rate, and 7 is none"):
        plan(case(tmp_path, *conditions), None, assume(source_rate=7))
    with pytest.raises(ClaimError, match="did you mean 'length-dilution'"):
        find_page("length-dilutoin")


def test_the_command_prints_one_plan():
    done = CliRunner().invoke(cli.app, ["plan", "length-dilution", "--assume", "source_rate=0.9"])
    assert done.exit_code == 0 and "decide with" in done.output and "restored_newline" in done.output
    assert CliRunner().invoke(cli.app, ["plan", "length-dilution", "--assume", "source_rate"]).exit_code == 1


def test_only_what_is_new_is_asked_again_at_registration(tmp_path, monkeypatch):
    """A question that was registered once stays, whatever else of its page is amended; a changed one is asked."""
    root = project(tmp_path / "house", monkeypatch)
    coins, criteria, grid = (root / name for name in ("reports/coins.qmd", *JUDGED))
    asked: list[list[str]] = []
    monkeypatch.setattr(registering, "refuse", lambda page, root, questions: asked.append(list(questions)))
    again = CRITERIA.partition("questions:\n")[2].replace("fair:", "again:")

    def amended(path, text: str) -> list[list[str]]:
        asked.clear()
        history.cache_clear()  # a command reads it once
        write_text(path, text)
        if register([coins], reason="why not", root=root):
            commit(root)
        return [*asked]

    assert amended(criteria, CRITERIA + again) == [["fair", "again"]], "all that is new"
    assert amended(criteria, CRITERIA + again) == [], "nothing changed"
    moved = again.replace("> 0.5", "> 0.6")
    assert amended(criteria, CRITERIA + moved) == [["again"]], "the threshold of one"
    assert amended(criteria, CRITERIA + moved.replace("Do coins", "Do many coins")) == [], "its words"
    assert amended(coins, coins.read_text().replace("primary: fair", "primary: again")) == [], (
        "which is the primary one"
    )
    assert amended(grid, grid.read_text() + "# two coins\n") == [], "a remark beside the grid"
    assert amended(grid, grid.read_text().replace("[0, 1]", "[0]")) == [["fair", "again"]], "fewer seeds"
    assert amended(coins, coins.read_text().replace("primary:", "scope: {bias: 0.9}\n  primary:")) == [
        ["fair", "again"]
    ]


def test_items_are_those_of_the_planned_runs():
    """Ten seeds of the 405 templated items, which no published record has, bound no loss at 2.5 % for new seeds."""
    found = open_case(ROOT / "reports/negatives-line.qmd", ROOT)
    (fault,) = faults_of(Shapes(found), "clean_with_ten_recipe")
    assert "capability_drop <= 0.02 cannot be decided by 4,050 pairs a cell" in fault.sentence
    assert "declare 13 seeds" in fault.remedy and "items" in fault.remedy
    for seeds, possible in ((12, False), (13, True)):
        none = np.zeros((seeds, 405))
        assert (estimands.rate(none, np.ones_like(none), estimands.RECIPE).checked_bounds()[1] <= 0.02) == possible
    assert list(faults_of(Shapes(found), "clean_with_ten")) == []


def test_the_page_says_what_no_result_could_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "flags", lambda case: "")  # the page is none of the repository's
    conditions = {"any_cell": "max_bystander_rate <= 0.05"}, {"every_cell": "max_bystander_rate > 0.05"}
    short, enough = (case(tmp_path / name, *conditions, grid=grid) for name, grid in (("a", CELLS), ("b", {})))
    said = "No result at this size could answer it with 'yes': max_bystander_rate"
    for shown in (answers, header):
        assert said in unescape(str(shown(short).fragment)) and said not in unescape(str(shown(enough).fragment))


def test_an_assumption_may_speak_of_some_cells(tmp_path):
    conditions = {"every_cell": "source_rate > 0.5"}, {"any_cell": "source_rate <= 0.5"}
    asked = case(tmp_path, *conditions, {"tail": ["newline", "end_of_turn"]})
    low = [Assumed.read("source_rate=0.9"), Assumed.read("source_rate=0.1@tail=newline")]
    drawn = Simulation(asked, "asked", tuple(low), 0.0)
    assert {drawn.verdict(3, Size(20), draw).outcome for draw in range(5)} == {"no"}
    assert {Simulation(asked, "asked", (low[0],), 0.0).verdict(3, Size(20), draw).outcome for draw in range(5)} == {
        "yes"
    }
    with pytest.raises(ClaimError, match="No cell of the question has tail=new_line; did you mean 'newline'"):
        plan(asked, None, [Assumed.read("source_rate=0.1@tail=new_line")])


def test_what_the_runs_do_not_give_stays_open(tmp_path):
    """Where no completion holds the marker, there is no share of the marked ones: not on the page, not in a draw."""
    conditions = {"every_cell": "answers_kept_marked >= 0.8"}, {"any_cell": "answers_kept_marked < 0.8"}
    grid = {"lora_r": 16, "lora_alpha": 32, "data_max_new_tokens": 64, "max_new_tokens": 64, "dose_every": 2}
    asked = case(tmp_path, *conditions, grid)
    (cell,) = asked.evidence().inside
    assert cell.records and cell.interval("answers_kept_marked") is None
    assert "stays open" in plan(asked).sentence


def test_an_estimate_over_all_seeds_is_drawn_within_the_ends_of_its_unit():
    wide = Fit(0.95, sides=(0.5, 0.5), unit="points", together=20)
    for number in range(50):
        drawn = wide.draw(numpy_stream(0, "estimate", number), 1, None)([0], MODELS)
        assert -1 <= drawn.low <= drawn.value <= drawn.high <= 1


def test_an_estimate_over_seeds_is_planned_with_no_fewer_than_give_it():
    """One seed shows no spread between seeds, however far six of them lie apart."""
    case = open_case("reports/seed-spread.qmd")
    planned = plan(case)
    assert (planned.seeds or 0) >= 3
    drawn = Fit(0.1, sides=(0.05, 0.08), together=6, least=3).draw(numpy_stream(0, "least"), 5, None)
    assert drawn([0, 1], MODELS) is None and drawn([0, 1, 2], MODELS) is not None
