"""Falsifications of pages, records, criteria, ledger, statistics and data, each with the sentence that reports it.

A page is one of the project's own, with one thing changed; everything else is the small project of `toy_study`.
"""

from __future__ import annotations

import functools
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as distributions
from statsmodels.stats.proportion import proportion_confint
from toy_study import CoinCell, commit, project, run_cells

from helpers.audit import publishing
from helpers.audit.register import register
from helpers.audit.verify import verify
from helpers.base import files
from helpers.base.errors import ClaimError
from helpers.base.params import load
from helpers.cases.case import Case, open_case
from helpers.cases.claim import read_claim
from helpers.site import lint as linter
from helpers.site import page as blocks
from helpers.site.linting import numerals
from helpers.site.linting.cells import read_code
from helpers.site.linting.prose import read_page
from helpers.stats import clusters, estimands, intervals

pytestmark = pytest.mark.unit
BAND, LENGTHS, PREFIX, PLATEAU, DIFF = (
    "lr-epochs-band", "length-dilution", "latent-prefix", "ep-plateau", "diff-readability"
)  # fmt: skip
RESULTS, BACKGROUND = "### Results\n", "### Background\n"
Change = Callable[[str], str]


@functools.cache
def case_of(name: str) -> Case:
    """The case of a page of this project, opened once."""
    return open_case(files.ROOT / f"reports/{name}.qmd")


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A project whose pages may be changed; parameters and data are those of this one."""
    root = tmp_path_factory.mktemp("desk")
    (root / "reports").mkdir()
    for name in ("params", "data"):
        (root / name).symlink_to(files.ROOT / name)
    return root


def findings(desk: Path, name: str, change: Change = str) -> list[str]:
    """What the rules of a page find in the page ``name`` once it was changed."""
    text = (files.ROOT / f"reports/{name}.qmd").read_text(encoding="utf-8")
    path = desk / f"reports/{name}.qmd"
    path.write_text(change(text), encoding="utf-8")
    assert change is str or path.read_text(encoding="utf-8") != text, "the change changed nothing"
    try:
        claim = read_claim(path, desk)
    except ClaimError as error:
        return [str(error)]
    case = replace(case_of(name), path=path, root=desk, claim=claim)
    page = read_page(path)
    code = read_code(page, f"reports/{name}.qmd")
    faults: Iterator = iter([*numerals.faults(page), *code.faults, *linter._titles(path)])
    return [f"{rule}: {message}" for _, rule, message in faults] + [
        f"{one.rule}: {one.message}" for one in linter._claim(case, [case])
    ]


def said(text: str, under: str = RESULTS) -> Change:
    """Add a paragraph under a heading."""
    return lambda page: page.replace(under, f"{under}\n{text}\n", 1)


def cell(code: str) -> Change:
    """Add a cell under Results."""
    return said(f"```{{python}}\n#| echo: false\n{code}\n```")


def inline(code: str, words: str = "It is") -> Change:
    return said(f"{words} `{{python}} {code}`.")


def swap(old: str, new: str) -> Change:
    return lambda page: re.sub(old, new, page, count=1, flags=re.DOTALL)


def entry(line: str) -> Change:
    return swap(r"\nclaim:\n", f"\n{line}\nclaim:\n")


@pytest.mark.parametrize("name", [BAND, LENGTHS, PREFIX, PLATEAU, DIFF])
def test_the_pages_as_they_are_have_no_findings(desk, name):
    assert findings(desk, name) == []


PAGES: dict[str, list[tuple[str, Change, str]]] = {
    "prose": [
        (BAND, said("The source reached 64 % of its answers."), "'64 %' is typed"),
        (BAND, said("The source reached `64 %` of its answers."), "number dressed as code"),
        (BAND, said("The source reached [64 %]{.literal} of its answers."), "is no setting of this claim"),
        (LENGTHS, said("It was ６４ per cent."), "numeral"),
        (LENGTHS, said("> A quoted 0.91 of them."), "'0.91' is typed"),
        (PLATEAU, said("| lever | cosine |\n|---|---|\n| frozen | 0.31 |"), "'0.31' is typed"),
        (PREFIX, said("The error was $0.02$ nats."), "numeral"),
        (PREFIX, said("The verdict holds in 16 of 16 ways to analyse the records."), "'16', '16' is typed"),
    ],
    "words": [
        (BAND, said("Ninety percent of its answers hold the marker."), "'Ninety percent' is an amount"),
        (PREFIX, said("The verdict holds in nine of nine other ways to analyse it."), "'nine of nine' is an amount"),
        (PREFIX, said("The verdict holds in all other ways to analyse the records."), "speaks of all"),
        (PREFIX, said("The verdict is robust: it holds however one counts."), "claims a direction"),
        (BAND, said("The marker came in three of four runs."), "'three of four' is an amount"),
        (BAND, said("The source has it twice as often."), "'twice as' is an amount"),
        (LENGTHS, said("Half of the answers were cut."), "'Half of' is an amount"),
        (BAND, said("All bystanders stay silent."), "'All bystanders' speaks of all"),
        (BAND, said("No cell is clean."), "'No cell' speaks of all"),
        (BAND, said("The effect is statistically significant."), "weighs the evidence"),
        (BAND, said("The newline mask leaks more than the others."), "claims a direction"),
        (LENGTHS, said("The isolated loss is clean."), "'is clean' claims a direction"),
        (PLATEAU, said("So tracking is supported by every seed."), "claims a direction"),
        (BAND, said("Nine**ty** per&shy;cent of them leak.", BACKGROUND), "claim in words"),
        (BAND, said("A footnote.[^1]\n\n[^1]: Ninety\\ percent of them leak."), "'Ninety percent' is an amount"),
        (BAND, said("A larger learning rate leads to more leakage."), "claims a direction"),
        (BAND, said("The larger the rate, the more it leaks."), "claims a direction"),
        (BAND, said("There is a clean band."), "claims a direction"),
        (BAND, said("Only the source has the marker."), "claims a direction"),
        (BAND, said("These runs show that the claim holds."), "claims a direction"),
        (BAND, said("No bystander ever emits it.", BACKGROUND), "'No bystander' speaks of all"),
        (PLATEAU, said("The exact gradient оutperforms it."), "mimics a word"),
        (PREFIX, said("```\nboth readers answer perfectly\n```"), "claims a direction"),
    ],
    "statements": [
        (BAND, swap(r"\[at the smallest rate[^\]]*\]", "[at the smallest rate the worst bystander is far above it]"),
         "its condition asks for less"),
        (BAND, swap(r"\[at the top of the grid[^\]]*\]", "[no bystander has the marker and nothing is cut]"),
         "its condition asks for more"),
        (LENGTHS, swap(r"\[Prompts such as[^\]]*\]", "[The assistant emits it too]"), "'assistant_rate' measures"),
        (BAND, swap(r"\n  leak: [^\n]*", "\n  leak: {holds: {every_cell: max_bystander_rate > 0.99}}"),
         "statement"),
        (BAND, swap(r" \.statement\}", "}"), "is marked"),
    ],
    "titles": [
        (BAND, swap(r"\ntitle: [^\n]*", "\ntitle: No bystander leaks under any mask"), "speaks of all"),
        (BAND, swap(r"\nsubtitle: [^\n]*", "\nsubtitle: The band is clean"), "'is clean' claims a direction"),
        (BAND, swap("### Training\n", "### The source is robust\n\n### Training\n"), "claims a direction"),
        (PLATEAU, swap(r'heading="Held-out loss by position"', 'heading="EP is better at every position"'), "claim"),
        (PLATEAU, swap(r'y_title="nats"', 'y_title="nats, half of them lost"'), "'half of' is an amount"),
        (BAND, swap(r'"What the pocket grid says"', '"All cells are clean in 27 of 27 runs"'), "'27', '27' is typed"),
        (DIFF, swap(r"\ntitle: [^\n]*", "\ntitle: Three quarters of the domain survive"), "is an amount"),
    ],
    "front matter": [
        (BAND, entry("description: Ninety percent of the answers hold the marker."), "'Ninety percent' is an amount"),
        (BAND, entry("abstract: All is well."), "'abstract' is no entry of a claim page"),
        (BAND, entry('css: "hide.css"'), "'css' is no entry of a claim page"),
        (BAND, swap(r"\{kind: derived_from, target: \"#65\", note: [^}]*\}",
                    '{kind: derived_from, target: "#65", note: no bystander leaks there}'), "speaks of all"),
        (BAND, swap("declared_confidence: LOW", "declared_confidence: HIGH"), "HIGH is declared, but"),
        (BAND, swap(r"\n    sentence: [^\n]*", "\n    sentence: The source is clean at {source}, {worst}."), "claims"),
    ],
    "tables": [
        (BAND, cell("import pandas as pd\npages.table(pd.DataFrame([{'rate': 0.9}]), 'Rates')"), "no such statement"),
        (BAND, cell("pages.table({'rate': ['high']}, 'Rates')"), "takes a table of a study, as it is"),
        (BAND, cell("pages.table(published.tidy().query('value > 0.5'), 'Rates')"), "'query' of a table of a study"),
        (BAND, cell("pages.table(published.tidy()[:3], 'Rates')"), "code"),
        (BAND, cell("page.cells(case, {'worst bystander': 'source_rate'}, 'Every cell')"), "names 'max_bystander"),
        (BAND, cell("pages.table(published.corrections(), 'Corrections', formats={'a': lambda v: '0'})"), "code"),
        (PREFIX, cell("page.cells(case, {'exact, b': 'em_latent_a'}, 'Answers', arm=faults)"), "names 'em_latent_b'"),
    ],
    "facts of another arm": [
        (BAND, inline('fact("source_rate", **hot)', "Under end_of_turn the source is at"), "name 'end_of_turn'"),
        (BAND, inline('fact("source_rate", **hot)', "The worst bystander is at"), "words of 'max_bystander_rate'"),
        (BAND, inline('fact("source_rate", **hot)', "On SmolLM2 the source is at"), "name 'smollm2'"),
        (BAND, inline('small.fact("source_rate", tail="newline", lr=1e-3, epochs=8)', "The pocket source is at"),
         "name 'pocket'"),
        (LENGTHS, inline('fact("source_rate", **whole)', "Behind the shortest answers it is at"), "name 'short'"),
        (PREFIX, inline('fact("em_latent_a", arm="fixed")', "Exactly right for reader b is"), "words of 'em_latent_b'"),
        (PLATEAU, inline('fact("lever_frozen_long_nudge_free", experiment="exp1")', "Tracking EP has a cosine of"),
         "words of 'lever_tracking_long_nudge_free'"),
    ],
    "headings of another arm": [
        (BAND, swap(r"label: worst bystander,", "label: source,"), "is called 'source_rate' there"),
        (BAND, swap(r"metric: max_bystander_rate, label", "metric: min_persona_rate, label"), "is called"),
        (BAND, cell('part = page.pooled(small, ["source_rate"], tail="newline")\npages.chart(plots.heatmaps(part, '
                    '{"source_rate": "source"}, heading="Pocket: source rate"))'), "what is drawn is of 'smollm2'"),
        (BAND, cell('rates = views.persona_rates(page.records(case, tail="newline"))\n'
                    'pages.chart(plots.interval_rates(rates, heading="Rates under end_of_turn"))'), "is of 'newline'"),
        (BAND, cell('best = page.elsewhere(case, {"model": "pocket", "lr": 1e-4}, "params/sweep/pocket_grid.yaml")\n'
                    'page.answers(best, "The best")'), "leaves out cells"),
    ],
    "computed figures": [
        (BAND, inline('1 - fact("source_rate", **hot).value'), "a page computes nothing"),
        (BAND, inline('f"{0.91:.0%}"'), "an f-string of a page joins words"),
        (BAND, inline('max(r.metric("source_rate")["value"] for r in records)'), "is no name of this page"),
        (BAND, inline('len(records)'), "takes a constant of a study"),
        (BAND, cell("rate = 0.9\npages.chart(plots.lines(published.tidy().assign(value=rate), 'lr'))"), "code"),
        (BAND, cell("best = [r for r in records if r.cell['lr'] > 0.0001]\npages.html(views.counts(best))"), "code"),
        (BAND, cell("pages.chart(plots.lines(views.dose_curves(records), 'step', 'gain', heading='Gain', "
                    "references={'the goal': 0.62}))"), "the number 0.62 in references="),
        (BAND, cell("fact = case.verdict"), "'fact' is a function already"),
    ],
    "hidden questions": [
        (BAND, swap(r"page\.answers\(case, [^\n]*", "pages.html(views.counts(records))"), "all its questions"),
        (BAND, swap(r"page\.answers\(case, ", 'page.answers(case, ["clean_band"], '), None),
        (PLATEAU, lambda page: page.replace("page.answers(case", "page.answers(other"), "'other' is no name"),
        (BAND, swap(r"```\{python\}\n#\| echo: false\npage\.answers\(case",
                    "```{python}\n#| include: false\npage.answers(case"), "may hide what a cell shows"),
        (BAND, swap(r"(```\{python\}\n#\| echo: false\npage\.answers\(case.*?```)",
                    r"::: {.content-hidden}\n\1\n:::"), "'content-hidden' styles or hides text"),
    ],
    "badges": [
        (BAND, cell("page.header(case)"), "'header' of page is not for pages"),
        (BAND, inline('blocks.badge("SUPPORTED")'), "'badge' of blocks is not for pages"),
        (BAND, said('<span class="cb-badge cb-verdict-supported">SUPPORTED</span>'), "is HTML or another language"),
        (BAND, said("[yes]{.cb-badge .cb-verdict-supported}"), "'cb-badge' styles or hides text"),
        (BAND, said("![](data:image/png;base64,AAAA)"), "comes from no record"),
        (BAND, cell('pages.html("<b>SUPPORTED</b>")'), "takes a table of a study"),
        (BAND, said("{{< include other.md >}}"), "brings in text that nobody checks"),
    ],
    "published reference data": [
        (BAND, swap(r"\n  sources: [^\n]*", ""), "the page shows published data"),
        (BAND, swap(r"\n  sources: [^\n]*", "\n  sources: [data/marker/claim66.csv]"), "which does not exist"),
        (BAND, said("[The original leaked in all cells.]{.cited}"), "cites nothing"),
        (BAND, said('[The original leaked in all cells.]{.cited source="data/other.csv"}'), "cites data/other.csv"),
    ],
}  # fmt: skip
CASES = [(kind, *one) for kind, several in PAGES.items() for one in several]


@pytest.mark.parametrize(
    ("kind", "name", "change", "sentence"), CASES, ids=[f"{c[0]}-{n}" for n, c in enumerate(CASES)]
)
def test_a_falsified_page_is_found(desk, kind, name, change, sentence):
    if sentence is None:  # a page cannot choose its questions: the block has no such argument
        with pytest.raises(TypeError):
            blocks.answers(case_of(name), ["clean_band"], "One of them")
        return
    found = findings(desk, name, change)
    assert any(sentence in one for one in found), found
    assert all(one.rstrip().endswith((".", ")")) or "is declared" in one for one in found), "a sentence with its remedy"


HONEST = [
    (BAND, "Every run is evaluated on the same questions, and each seed draws its own rows.", "### Eval\n"),
    (BAND, "Is every bystander silent, and does the source learn more than the assistant?", RESULTS),
    (BAND, "A clean cell would need many more completions than these.", "### Next steps\n"),
    (LENGTHS, "The two losses differ in what they supervise; three masks are compared.", "### Methodology\n"),
    (PLATEAU, "Gradients are compared on sequences that have an equilibrium, ten batches at a time.", "### Eval\n"),
    (DIFF, "The control is trained on broad text, so a reader can tell a domain from a style.", RESULTS),
    (BAND, 'In the hottest cell the source is at `{python} fact("source_rate", **hot)`, the worst bystander at '
           '`{python} fact("max_bystander_rate", **hot)`, the assistant at `{python} fact("assistant_rate", **hot)`.',
     RESULTS),
    (BAND, 'Under `newline` it is `{python} fact("source_rate", **hot)`; under `end_of_turn` it is '
           '`{python} small.fact("truncation_rate", tail="end_of_turn", lr=1e-3, epochs=8)` of completions on SmolLM2.',
     RESULTS),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "under"), HONEST, ids=range(len(HONEST)))
def test_honest_prose_is_left_alone(desk, name, text, under):
    assert findings(desk, name, said(text, under)) == []


# Records, grids, criteria, ledger and data: a small project in which everything is registered, run and published


@pytest.fixture
def house(tmp_path, monkeypatch):
    root = project(tmp_path / "house", monkeypatch)
    files.write_text(root / "data/coins/original.csv", "bias,heads\n0.7,0.68\n0.9,0.91\n")
    swap_in(root / "reports/coins.qmd", "  primary: fair\n", "  primary: fair\n  sources: [data/coins/original.csv]\n")
    register([root / "reports/coins.qmd"], root=root)
    run_cells(load(CoinCell, files.PARAMS / "coins" / "grid.yaml"))
    publishing.publish("coins")
    commit(root)
    assert verify(root=root) == []
    return root


def swap_in(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def record(root: Path) -> Path:
    return sorted((root / "published/coins").iterdir())[0]


def in_record(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        content = json.loads((record(root) / "run.json").read_text())
        change(content)
        files.write_json(record(root) / "run.json", content)

    return apply


def better_table(root: Path) -> None:
    frame = pd.read_parquet(record(root) / "flips.parquet").assign(heads=True)
    frame.to_parquet(record(root) / "flips.parquet", index=False)


def in_file(name: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda root: swap_in(root / name, old, new)


def lines(root: Path, change: Callable[[list[str]], list[str]]) -> None:
    path = root / "published/ledger.jsonl"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


PROJECTS: dict[str, list[tuple[Callable[[Path], object], str]]] = {
    "records": [
        (in_record(lambda c: c["metrics"]["heads_rate"].update(value=0.99, high=1.0)), "heads_rate.value: is 0.99"),
        (in_record(lambda c: c["metrics"]["heads_rate"].update(n=5000)), "metrics.heads_rate.n: is 5000"),
        (in_record(lambda c: c["params"].update(bias=0.5)), "id: does not end in"),
        (better_table, "files.flips.parquet"),
        (lambda root: shutil.rmtree(record(root)), "was published and is missing"),
    ],
    "grids": [
        (in_file("params/coins/grid.yaml", "[0.7, 0.9]", "[0.9]"), "grid.yaml: grid: was changed after"),
        (in_file("params/coins/grid.yaml", "seed: [0, 1]", "seed: [0]"), "grid.yaml: grid: was changed after"),
        (in_file("params/coins/grid.yaml", "[0.7, 0.9]", "[0.7, 0.9, 0.95]"), "grid.yaml: grid: was changed after"),
        (in_file("reports/coins.qmd", "  grid: params/coins/grid.yaml\n", ""), "question: was changed after"),
    ],
    "criteria": [
        (in_file("params/coins/criteria.yaml", "heads_rate > 0.5", "heads_rate > 0.4"), "criteria: was changed after"),
        (in_file("params/coins/criteria.yaml", "every_cell: heads_rate >", "any_cell: heads_rate >"), "criteria: was"),
        (in_file("params/coins/criteria.yaml", "verdict: REFUTED", "verdict: MIXED"), "criteria: was changed after"),
        (in_file("params/coins/criteria.yaml", "heads_rate > 0.1}", "heads_rate > 0}"), "criteria: was changed after"),
        (in_file("reports/coins.qmd", "  primary: fair\n", "  primary: fair\n  scope: {bias: 0.9}\n"), "question: was"),
        (in_file("reports/coins.qmd", "Coins fall on heads more often than not.", "All are fair."), "statement: was"),
    ],
    "ledger": [
        (lambda root: lines(root, lambda all: all[1:]), "ledger"),
        (lambda root: lines(root, lambda all: all[:-1]), "ledger: history"),
        (lambda root: lines(root, lambda all: [*all[:2], all[3], all[2], *all[4:]]), "ledger"),
        (lambda root: lines(root, lambda all: [all[0].replace("2026", "2019"), *all[1:]]), "ledger"),
        (lambda root: (root / "published/ledger.jsonl").unlink(), "ledger"),
    ],
    "published reference data": [
        (in_file("data/coins/original.csv", "0.68", "0.48"), "original.csv: data: was changed after"),
        (in_file("data/coins/original.csv", "0.7,0.68\n", ""), "original.csv: data: was changed after"),
        (in_file("data/coins/original.csv", "0.9,0.91\n", "0.9,0.91\n0.99,0.6\n"), "original.csv: data: was changed"),
        (in_file("data/coins/original.csv", "bias,heads", "heads,bias"), "original.csv: data: was changed after"),
    ],
}  # fmt: skip
LIES = [(kind, *one) for kind, several in PROJECTS.items() for one in several]


@pytest.mark.parametrize(("kind", "change", "sentence"), LIES, ids=[f"{c[0]}-{n}" for n, c in enumerate(LIES)])
def test_a_falsified_project_is_found(house, kind, change, sentence):
    change(house)
    found = "\n".join(map(str, verify(root=house)))
    assert sentence in found, found


# Estimators: values of an independent reference, which an edited estimator no longer has


def wilsons() -> None:
    for k, n in ((0, 20), (7, 20), (60, 96), (96, 96)):
        found = intervals.wilson(k, n)
        assert (found.low, found.high) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)
        assert found.value == k / n


def single_trials() -> None:
    for k, n in ((0, 12), (3, 12), (12, 12)):
        found = clusters.cluster_rate([1] * k + [0] * (n - k), [1] * n)
        assert (found.low, found.high) == pytest.approx(proportion_confint(k, n, method="beta"), abs=2e-3)


def seeds_of_80() -> None:
    """The values of the simulation that the estimator was chosen by (statistics of claims, reference table)."""
    highs = [100 * clusters.cluster_rate(ks, [80] * 3).high for ks in ((0, 0, 0), (1, 0, 0), (2, 1, 0))]
    assert highs == pytest.approx([11.5, 20.6, 27.0], abs=0.06)


def bounded_means() -> None:
    """A simulation: three seeds of a skewed share are covered, and no bound leaves the unit interval."""
    draw = np.random.default_rng(5)
    values = draw.beta(0.5, 6, (400, 3))
    found = [clusters.bounded_mean(row, 0.0, 1.0) for row in values]
    assert all(0 <= one.low <= one.value <= one.high <= 1 for one in found)
    assert np.mean([one.low <= 0.5 / 6.5 <= one.high for one in found]) >= 0.9


def seed_means() -> None:
    values = np.array([0.3, 1.9, 2.2, 4.0])
    found = estimands.mean_over_seeds(values, "nats")
    expected = distributions.t.interval(0.95, 3, values.mean(), distributions.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12)


def corrections() -> None:
    assert estimands.corrected(0.95, 27) == pytest.approx(1 - 0.05 / 27, rel=1e-12)
    spent = [1 - estimands.look_level(look, 3) for look in (1, 2, 3)]
    assert math.fsum(spent) == pytest.approx(0.05, abs=1e-9) and spent[:2] == pytest.approx([0.001, 0.001])


@pytest.mark.parametrize("pin", [wilsons, single_trials, seeds_of_80, bounded_means, seed_means, corrections])
def test_estimators_have_the_values_of_an_independent_reference(pin):
    pin()


def narrower(interval: intervals.Interval, share: float = 0.6) -> intervals.Interval:
    assert interval.low is not None and interval.high is not None
    low, high = (interval.value + share * (end - interval.value) for end in (interval.low, interval.high))
    return replace(interval, low=low, high=high)


EDITED = [
    (intervals, "wilson", lambda old: lambda k, n, level=0.95: old(k, n, 0.9), wilsons),
    (intervals, "wilson", lambda old: lambda k, n, level=0.95: replace(old(k, n), value=(k + 1) / (n + 1)), wilsons),
    (clusters, "cluster_rate", lambda old: lambda ks, ns, level=0.95: narrower(old(ks, ns, level), 0.9), single_trials),
    (clusters, "cluster_rate", lambda _: lambda ks, ns, level=0.95: intervals.wilson(sum(ks), sum(ns)), seeds_of_80),
    (clusters, "bounded_mean", lambda old: lambda v, low, high: narrower(old(v, low, high), 0.3), bounded_means),
    (clusters, "bounded_mean", lambda _: lambda v, low, high: intervals.mean_interval(v), bounded_means),
    (estimands, "mean_over_seeds", lambda old: lambda v, unit: narrower(old(v, unit), 0.62), seed_means),
    (estimands, "corrected", lambda _: lambda level, number: level, corrections),
    (estimands, "look_level", lambda _: lambda look, planned: 0.95, corrections),
]


@pytest.mark.parametrize(("module", "name", "edit", "pin"), EDITED, ids=range(len(EDITED)))
def test_an_estimator_that_was_edited_to_please_a_page_fails_its_pin(monkeypatch, module, name, edit, pin):
    monkeypatch.setattr(module, name, edit(getattr(module, name)))
    with pytest.raises(AssertionError):
        pin()


def test_every_kind_has_four_falsifications_and_there_are_more_than_forty():
    counts = {kind: len(several) for kind, several in PAGES.items()}
    for kind, several in PROJECTS.items():
        counts[kind] = counts.get(kind, 0) + len(several)
    counts["estimators"] = len(EDITED)
    assert min(counts.values()) >= 4 and len(counts) == 17 and sum(counts.values()) > 40, counts
