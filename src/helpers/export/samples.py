"""The samples that a record's tables hold, each with the scores that metrics of the record rest on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from helpers.base.errors import ExportError
from helpers.records.reading import Record
from helpers.stats import occurrences
from helpers.studies.marker.metrics import rate_parts

TEXTS, ROWS = "completions", "rows"
COLUMNS = ("sample", "epoch", "input", "target", "output", "finish", "state")


@dataclass(frozen=True)
class Samples:
    """``table`` has a row a sample and epoch (`COLUMNS`); ``scores`` maps a metric to the values that it rests on.

    The values of a score have the index of the rows that it judges, and NaN where a row has none.
    """

    table: pd.DataFrame
    scores: dict[str, pd.Series]


def samples_of(record: Record) -> Samples:
    """Return the samples of a record.

    Raises ``ExportError`` where its tables hold none, or a metric is not what its samples give.
    """
    read = next((read for table, read in READERS.items() if set(table) <= _columns(record)), None)
    if read is None:
        raise ExportError(f"{record.ref} holds no samples: it has no table of completions or of scores.")
    found = read(record)
    for name, values in found.scores.items():
        _check(record, name, values.dropna())
    if found.table.duplicated(["sample", "epoch"]).any():
        raise ExportError(f"{record.ref} has two samples of one name and epoch, which no log can hold.")
    return found


def _columns(record: Record) -> set[str]:
    tables = [name for name in (TEXTS, ROWS) if name in record.tables]
    return {f"{name}.{column}" for name in tables for column in record.table(name).columns}


def _check(record: Record, name: str, values: pd.Series) -> None:
    metric = record.metric(name)
    counts = metric["k"] is None or (int(values.sum()), len(values)) == (metric["k"], metric["n"])
    if not counts or not math.isclose(values.mean(), metric["value"], rel_tol=1e-9, abs_tol=1e-12):
        raise ExportError(f"{name} of {record.ref} is not what its samples give. Run `claimbook verify {record.ref}`.")


def _asked(record: Record) -> Samples:
    """Return completions of personas to numbered questions, and what was counted in them."""
    table = record.table(TEXTS)
    table = table if "role" in table else table.assign(role="base")
    said, persona = table["question"].astype(str), table["persona"].astype(str)
    kept = pd.DataFrame({
        "sample": persona + "/" + said, "epoch": table["index"].astype(int) + 1, "target": "", "output": table["text"],
        "input": "Question " + said + " to the persona " + persona, "finish": table["finish"], "state": "scored",
    })  # fmt: skip
    marker = record.params.get("marker")
    if not marker:
        return Samples(kept, {})
    counted = table.assign(
        k=occurrences.holds(table["text"], marker), n=1, truncated=table["finish"] == "length",
        empty=table["text"].str.strip() == "",
    )  # fmt: skip
    parts = rate_parts(counted) | {"marker_rate": (slice(None), "k")}
    scores = {name: counted[column][rows].astype(float) for name, (rows, column) in parts.items()}
    return Samples(kept, {name: values for name, values in scores.items() if name in record.metrics})


def _with_gold(record: Record) -> Samples:
    """Return answers with their gold, by channel and reader, and each score of them."""
    table = record.table(TEXTS)
    names = table["channel"].astype(str) + "/" + table["side"].astype(str)
    kept = pd.DataFrame({
        "sample": table["id"].astype(str) + "/" + names, "epoch": 1, "input": table["question"],
        "target": table["gold"], "output": table["text"], "finish": table["finish"], "state": "scored",
    })  # fmt: skip
    scores = {}
    for (channel, side), part in table.groupby(["channel", "side"], sort=False):
        numbers = part.select_dtypes(["bool", "float"])
        scores |= {f"{name}_{channel}_{side}": numbers[name].astype(float) for name in numbers}
    return Samples(kept, {name: values for name, values in scores.items() if name in record.metrics})


def _imported(record: Record) -> Samples:
    """Return the samples of an imported log, of which only scores were kept."""
    rows = record.table(ROWS)
    keys = ["sample", "epoch"]
    states = rows.groupby(keys, sort=False)["state"].agg(
        lambda some: "scored" if "scored" in set(some) else some.iloc[0]
    )
    kept = states.reset_index().assign(input="", target="", output="", finish="")
    places = {key: at for at, key in enumerate(kept[keys].itertuples(index=False, name=None))}
    scores = {}
    for name, part in rows.groupby("score", sort=False):
        index = [places[key] for key in part[keys].itertuples(index=False, name=None)]
        scores[str(name)] = pd.Series(part["value"].to_numpy(), index=index)
    return Samples(kept, {name: values for name, values in scores.items() if name in record.metrics})


READERS: dict[tuple[str, ...], Callable[[Record], Samples]] = {
    (f"{TEXTS}.gold", f"{TEXTS}.channel", f"{TEXTS}.side"): _with_gold,
    (f"{TEXTS}.persona", f"{TEXTS}.question", f"{TEXTS}.index"): _asked,
    (f"{ROWS}.sample", f"{ROWS}.score", f"{ROWS}.value"): _imported,
}
"""How samples are read, by the columns that say so."""
