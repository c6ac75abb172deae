"""Find the smallest number of seeds, questions and samples at which a question is decided with 80 % chance.

Results are drawn (`draws`) and judged as the page judges: by the same outcomes, level, corrections and cells. The
fewest seeds come first, because each is a training; then the fewest questions, then samples.
"""

from __future__ import annotations

import bisect
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats as distributions
from tqdm.auto import tqdm

from helpers.audit.draws import ALIKE, Assumed, Drawn, Fit, fit
from helpers.audit.reach import Fault, faults_of
from helpers.audit.sizes import Shapes
from helpers.base.errors import ClaimError
from helpers.base.rng import numpy_stream
from helpers.cases.case import Case
from helpers.claims.criteria import Question
from helpers.claims.evidence import Cell, Derived, Evidence
from helpers.claims.verdict import Verdict, judge
from helpers.records.reading import Record
from helpers.records.study import Size
from helpers.stats.estimands import Estimand

CHANCE = 0.8
SEEDS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30)
TIMES, MOST_SAMPLES = 8, 16
"""How far a size is tried: so many times the questions of today where the study has no end of them, and so many samples
of each."""
SAMPLED = "completions"
"""The step of a run whose seconds grow with questions and samples."""


@dataclass(frozen=True)
class Plan:
    """What a question needs. ``seeds`` is ``None`` where no number decides, and ``size`` where the study says none.

    ``declared`` is the number of seeds of the grid, ``alone`` whether these decide with more samples; ``chance`` is
    that of a verdict, ``seconds`` the run time of all cells (``None``: no run was timed), ``why`` what stays open.
    ``fresh`` says that as many seeds again confirm what these choose.
    """

    question: str
    seeds: int | None
    size: Size | None
    chance: float
    declared: int
    alone: bool
    seconds: float | None
    why: str
    faults: tuple[Fault, ...]
    fresh: bool

    @property
    def sentence(self) -> str:
        """The plan in a few sentences."""
        said = [f"{self.question}, as declared: {fault.sentence} {fault.remedy}" for fault in self.faults]
        if self.seeds is None:
            tried = f"{SEEDS[-1]} seeds" + (f" x {self.size}" if self.size else "")
            near = "lies on the threshold, or too near it" if " is not decided" in self.why else "stays open"
            what = self.why.replace(" is not decided", "")
            said.append(f"{self.question}: no number of samples: {what} {near} (tried up to {tried}).")
            return " ".join(said)
        if not self.alone:
            said.append(f"Only more seeds help: no number of samples decides with {self.declared}.")
        plan = f"{self.seeds} seed{'s' * (self.seeds > 1)}" + (f" x {self.size}" if self.size else "")
        again = ", and as many seeds again to confirm," if self.fresh else ""
        verb = "decides" if self.seeds == 1 and not self.size and not self.fresh else "decide"
        took = "no run was timed yet" if self.seconds is None else f"about {_duration(self.seconds)} of run time"
        said.append(f"{self.question}: {plan}{again} {verb} with {self.chance:.0%} chance ({took}).")
        return " ".join(said)


def plan(case: Case, question: str | None = None, assumed: Sequence[Assumed] = (), alike: float = ALIKE) -> Plan:
    """Return what decides ``question`` (by default the primary one); ``assumed`` values stand before those recorded."""
    name = question or case.claim.primary
    drawn = Simulation(case, name, tuple(assumed), alike)
    for one in drawn.assumed:
        one.check(drawn.question.metrics, drawn.cells)
    drawn.check()
    sizes = list(_sizes(drawn))
    decides = lambda seeds, size: drawn.chance(seeds, size)[0] >= CHANCE  # noqa: E731
    declared, fresh = _declared(drawn), drawn.question.confirm is not None
    faults = tuple(faults_of(drawn.shapes, name))
    at = bisect.bisect_left(SEEDS, True, key=lambda seeds: decides(seeds, sizes[-1]))
    if at == len(SEEDS):
        chance, open_ = drawn.chance(SEEDS[-1], sizes[-1])
        why = open_.most_common(1)[0][0] if open_ else ""
        return Plan(name, None, sizes[-1], chance, declared, False, None, why, faults, fresh)
    seeds = SEEDS[at]
    size = sizes[bisect.bisect_left(sizes[:-1], True, key=lambda one: decides(seeds, one))]
    chance = drawn.chance(seeds, size)[0]
    runs = seeds * (2 if drawn.question.confirm else 1)
    took = _seconds(drawn, runs, size)
    return Plan(name, seeds, size, chance, declared, declared >= seeds, took, "", faults, fresh)


def _sizes(drawn: Simulation) -> Iterator[Size | None]:
    """Sizes to try, from small to large: more questions as long as the study has them, then more samples of each."""
    now = next((size for cell in drawn.cells if (size := drawn.shapes.size_of(cell.key))), None)
    if now is None:
        yield None
        return
    most = now.most_questions or TIMES * now.questions
    numbers = sorted({most, *(5 * 2**step for step in range(12))})
    yield from (replace(now, questions=number, samples=1) for number in numbers if number <= most)
    samples = (2**step for step in range(1, 12))
    limit = now.most_samples or MOST_SAMPLES
    yield from (replace(now, questions=most, samples=number) for number in samples if number <= limit)


def _declared(drawn: Simulation) -> int:
    """Seeds of a cell, of those that choose where others confirm."""
    fresh = drawn.question.confirm.seeds if drawn.question.confirm else []
    runs = [[*(record.cell for record in cell.records), *cell.absent] for cell in drawn.cells]
    return max((sum(run.get("seed") not in fresh for run in cell) for cell in runs), default=0)


def _seconds(drawn: Simulation, runs: int, size: Size | None) -> float | None:
    """Seconds of all cells by what their runs took; a cell without a run takes the mean of the others."""
    means = []
    for cell in drawn.cells:
        took = []
        for record in cell.records:
            then, sampled = drawn.shapes.size_of(record.params), record.seconds.get(SAMPLED, 0.0)
            grown = size.questions * size.samples / (then.questions * then.samples) if size and then else 1.0
            took.append(record.seconds["total"] + sampled * (grown - 1))
        means += [float(np.mean(took))] if took else []
    return runs * len(drawn.cells) * float(np.mean(means)) if means else None


def _duration(seconds: float) -> str:
    unit, name = next(((size, name) for size, name in ((3600, "h"), (60, "min")) if seconds >= size), (1, "s"))
    return f"{seconds / unit:.3g} {name}"


@dataclass(frozen=True)
class Simulation:
    """Draws of one question of a case, judged as `Case.verdict` does at the last look."""

    case: Case
    name: str
    assumed: tuple[Assumed, ...] = ()
    alike: float = ALIKE
    seed: int = 0
    least: int = 6
    most: int = 60

    @functools.cached_property
    def question(self) -> Question:
        return self.case.criteria.question(self.name)

    @functools.cached_property
    def evidence(self) -> Evidence:
        return self.shapes.case.evidence(self.name)

    @functools.cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The cells that are asked about."""
        return self.evidence.within(self.question.scope).inside

    @functools.cached_property
    def shapes(self) -> Shapes:
        return Shapes(self.case)

    @functools.cached_property
    def whole(self) -> Cell:
        """All records in scope as one cell, for metrics that are computed over many runs."""
        return self.evidence.within(self.question.scope).whole

    @functools.cached_property
    def wide(self) -> frozenset[str]:
        """The metrics that are computed over the whole scope."""
        known = self.evidence.derive
        return frozenset(metric for metric in self.question.metrics if metric in known and known[metric].over_scope)

    @functools.cached_property
    def _fit(self) -> Callable[[Cell, str], Fit | None]:
        known: dict[tuple[str, str], Fit | None] = {}

        def of(cell: Cell, metric: str) -> Fit | None:
            if (cell.name, metric) not in known:
                known[cell.name, metric] = fit(cell, metric, self.shapes, self.assumed, self.alike)
            return known[cell.name, metric]

        return of

    def check(self) -> None:
        """Raise ``ClaimError`` where nothing says how a metric will come out in some cell, naming all of them."""
        unknown: dict[str, str] = {}
        for metric in sorted(self.question.metrics):
            for cell in [self.whole] if metric in self.wide else self.cells:
                told = cell.records or any(one.holds(cell, metric) for one in self.assumed)
                if not told:
                    unknown.setdefault(metric, cell.name)
        if unknown:
            flags = " ".join(f"--assume {metric}=..." for metric in unknown)
            raise ClaimError(
                f"No run shows {', '.join(unknown)} at {next(iter(unknown.values()))}. Say what to expect ({flags}; of "
                "some of the cells --assume metric=value@axis=value), or run the declared cells."
            )

    def verdict(self, seeds: int, size: Size | None, draw: int) -> Verdict:
        """Return the verdict on one draw; with ``confirm``, as many seeds again confirm what the first chose."""
        fresh = range(seeds, 2 * seeds) if self.question.confirm else range(0)
        records = tuple(
            Record(Path("drawn"), {"id": f"drawn-{one}", "cell": {"seed": one}, "metrics": {}}, published=False)
            for one in range(seeds + len(fresh))
        )
        rng = numpy_stream(self.seed, "plan", self.name, seeds, str(size), draw)
        drawn = [self._drawn(cell, records, size, rng) for cell in self.evidence.cells]
        derive = self._drawn(self.whole, records, size, rng).derive
        evidence = replace(self.evidence, cells=tuple(drawn), derive=derive)
        confirm = self.question.confirm and self.question.confirm.model_copy(update={"seeds": list(fresh)})
        asked = self.question.model_copy(update={"confirm": confirm})
        estimand = self.case.criteria.estimand(self.name, self.case.criteria.looks)
        return judge(asked, evidence, None, estimand)

    def _drawn(self, cell: Cell, records: tuple[Record, ...], size: Size | None, rng: np.random.Generator) -> Cell:
        """The cell with drawn records, whose metrics are drawn when they are asked for."""
        kept: dict[str, Drawn | None] = {}
        level = self.question.level

        def compute(metric: str, over: tuple[Record, ...], estimand: Estimand) -> Mapping[str, Any] | None:
            if estimand.of == "recipe" and level == "models":
                return None  # the verdict asks of the recipe too, which decides nothing here
            if metric not in kept:
                known = self._fit(cell, metric)
                kept[metric] = known and known.draw(rng, len(records), size)
            draw = kept[metric]
            if draw is None:
                return None
            found = draw(sorted({record.cell["seed"] for record in over}), estimand)
            return None if found is None else found.metric(str(found.extra.get("unit", "")))

        derive = {name: Derived(functools.partial(compute, name), name in self.wide) for name in self.question.metrics}
        return replace(cell, records=records, absent=(), derive=derive)

    @functools.cached_property
    def _chances(self) -> dict[tuple[int, Size | None], tuple[float, Counter[str]]]:
        return {}

    def chance(self, seeds: int, size: Size | None) -> tuple[float, Counter[str]]:
        """Return how often a verdict is reached, and what stood open where none was; draws end once 80 % is settled."""
        if (seeds, size) not in self._chances:
            number, decided = 0, 0
            open_: Counter[str] = Counter()
            said = f"{seeds} seeds" + (f" x {size}" if size else "")
            for number in tqdm(range(1, self.most + 1), desc=said, leave=False):
                verdict = self.verdict(seeds, size, number)
                decided += verdict.decisive
                if not verdict.decisive:
                    open_.update(reason.partition(", found")[0] for reason in verdict.reasons[:1])
                if number >= self.least and distributions.binomtest(decided, number, CHANCE).pvalue < 0.02:
                    break
            self._chances[seeds, size] = (decided / number, open_)
        return self._chances[seeds, size]
