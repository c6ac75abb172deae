"""When two numbers agree: to the last bit on one kind of machine, within rounding on two."""

from __future__ import annotations

import math
from typing import Any

from helpers.records.reading import Record
from helpers.system import provenance

ROUNDING = 1e-9
"""Relative difference that another CPU or other packages may make in a mean over the same stored table."""


def same_kind(record: Record) -> bool:
    """Whether ``record`` was made by the packages and on the kind of CPU at hand; unknown counts as another kind."""
    made, here = record.environment, provenance.environment_of_arithmetic()
    sets = made.get("hardware", {}).get("instruction_sets")
    packages = {name: made.get("packages", {}).get(name) for name in here["packages"]}
    return sets is not None and sets == here["instruction_sets"] and packages == here["packages"]


def agree(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two JSON values are equal, numbers within a relative ``tolerance``."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(agree(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if tolerance and isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    return one == other and isinstance(one, bool) == isinstance(other, bool)
