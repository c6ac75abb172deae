"""Time every gradient of the equilibrium transformer: EP, BPTT at three horizons, IFT, backprop."""

from __future__ import annotations

import pandas as pd

from helpers.bench.compare import REPEATS
from helpers.stats import frames
from helpers.studies.eqprop.costs import cost_table
from helpers.studies.eqprop.findings import metric_part
from helpers.studies.eqprop.params import TriangulationCell
from helpers.studies.eqprop.setup import arm


def gradient_costs() -> pd.DataFrame:
    """Return the cost table at the default size: one gradient each, timed in turn in this process."""
    return cost_table(TriangulationCell(), repeats=REPEATS)


def model_facts() -> dict[str, object]:
    """Return the timed model, as run records name it."""
    return arm(TriangulationCell(), "ep").facts()


def ratios(table: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Return each gradient's time over that of the shortest BPTT, as metrics of a record."""
    return {
        f"gradient_{metric_part(row.gradient).replace('+', '_')}": {
            "value": row.ratio, "unit": "x", "n": int(row.runs), "low": row.ratio_low, "high": row.ratio_high,
            "method": "range of paired runs",
        }
        for row in frames.rows(table)
    }  # fmt: skip
