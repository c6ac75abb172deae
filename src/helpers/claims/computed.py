"""Metrics that a function named in a criteria file computes. Reading the file checks the function and its arguments."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from helpers.base.errors import nearest
from helpers.claims.evidence import Derived
from helpers.claims.marked import Document, Place, Scalar, Sentence, Strict
from helpers.records.reading import Record
from helpers.records.study import import_module, study_place
from helpers.stats.estimands import Estimand


class Metric(Strict):
    """What a metric means, and how to compute it where runs do not record it, or not in a form that pools.

    ``function`` ("module:name", the module relative to the study's package) is called with records, the `Estimand` and
    ``arguments``: the records of a cell, or (``over: scope``) all of the question. It returns a metric, or None where
    the records give none.
    """

    note: Sentence
    function: str | None = Field(None, pattern=r"^[\w.]+:\w+$")
    arguments: dict[str, Scalar] = Field(default_factory=dict)
    over: typing.Literal["cell", "scope"] = "cell"


def derived(document: Document, name: str, metric: Metric) -> Derived | None:
    """Return what computes the metric ``name``, None for one that runs record; ClaimError names the faulty field."""
    place: Place = ("metrics", name)
    if metric.function is None:
        for field in ("arguments", "over"):
            if field in metric.model_fields_set:
                raise document.error((*place, field), "is given without a `function` to use it: name one or drop it.")
        return None
    function = _named(document, (*place, "function"), metric.function)
    _check_arguments(document, (*place, "arguments"), metric, function)

    def compute(records: tuple[Record, ...], estimand: Estimand) -> Mapping[str, Any] | None:
        return function(records, estimand, **metric.arguments)

    return Derived(functools.cache(compute), metric.over == "scope")


def module_of(written: str, criteria: Path) -> str:
    """Return the full name of the module that a ``function`` of the file ``criteria`` names within its study."""
    package = study_place(criteria.parent).partition(":")[0].rpartition(".")[0]
    return f"{package}.{written.partition(':')[0]}".removeprefix(".")


def _named(document: Document, place: Place, written: str) -> Callable[..., Any]:
    path, name = module_of(written, document.path), written.partition(":")[2]
    try:
        module = import_module(path)
    except ImportError as error:
        raise document.error(place, f"is {written}, and there is no module {path} ({error}).") from error
    except Exception as error:  # a module that somebody is writing raises anything
        said = f"{type(error).__name__}: {error}"
        raise document.error(place, f"is {written}, whose module cannot be imported ({said}).") from error
    function = getattr(module, name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == path]
        raise document.error(place, f"is {written}, which is not there{nearest(name, own) if own else '.'}")
    return function


def _check_arguments(document: Document, place: Place, metric: Metric, function: Callable[..., Any]) -> None:
    """Check names, types and completeness of the arguments against the signature behind records and estimand."""
    taken = dict(list(inspect.signature(function).parameters.items())[2:])
    hints = typing.get_type_hints(function)
    for key, value in metric.arguments.items():
        if key not in taken:
            close = nearest(key, taken) if taken else ", which takes no arguments."
            raise document.error((*place, key), f"is no argument of {metric.function}{close}")
        try:
            TypeAdapter(hints.get(key, Any)).validate_python(value, strict=True)
        except ValidationError as error:
            said = error.errors()[0]["msg"]
            raise document.error((*place, key), f"is {value!r}: {said[0].lower()}{said[1:]}.") from error
    lacking = [key for key, one in taken.items() if one.default is one.empty and key not in metric.arguments]
    if lacking:
        raise document.error(place, f"lacks {lacking[0]!r}, which {metric.function} needs. Add it.")
