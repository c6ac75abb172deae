"""Records whose tables are read in another way than as they stand: does a verdict hang on that (`cases.ways`)?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from helpers.records.derive import derive
from helpers.records.reading import Record
from helpers.records.study import Study

Reading = Mapping[str, Callable[[Record, pd.DataFrame], pd.DataFrame]]
"""For a table, what takes the record and the table and returns what is read in its place (`Study.readings`)."""


class Reread(Record):
    """A record whose tables pass through ``reading``; with ``study`` its metrics are derived from them anew."""

    def __init__(self, record: Record, reading: Reading, study: Study | None = None):
        super().__init__(record.path, record.content, published=record.published)
        self.whole, self._reading = record, reading
        if study is not None:
            self.content = record.content | {"metrics": record.metrics | derive(self, study)}

    def table(self, name: str) -> pd.DataFrame:
        table = self.whole.table(name)
        return self._reading[name](self.whole, table) if name in self._reading else table


class WithoutQuestions(Reread):
    """A record without the answers to the evaluation questions ``out``."""

    def __init__(self, record: Record, out: Sequence[Any], asked_in: Mapping[str, str], study: Study | None = None):
        self.out = tuple(out)

        def without(column: str) -> Callable[[Record, pd.DataFrame], pd.DataFrame]:
            return lambda _, table: table[~table[column].isin(self.out)]

        super().__init__(record, {name: without(column) for name, column in asked_in.items()}, study)


def changes(reading: Reading, record: Record) -> bool:
    """Whether a reading changes any table of a record: one that finds nothing to change returns the table itself."""
    tables = {name: record.table(name) for name in reading if name in record.tables}
    return any(reading[name](record, table) is not table for name, table in tables.items())
