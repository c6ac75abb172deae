"""YAML with line numbers, so that every error in a claim block or criteria file names field and line."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from helpers.base import yaml_text
from helpers.base.errors import ClaimError, nearest
from helpers.base.files import shown
from helpers.base.yaml_text import Place

Sentence = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Scalar = bool | int | float | str
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of everything read from YAML: frozen, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Document:
    """A YAML value with the line of each of its parts (``lines[()]`` is the whole)."""

    path: Path
    value: Any
    lines: dict[Place, int] = field(repr=False)

    def line(self, place: Place) -> int:
        """Line of ``place``, or of the nearest enclosing part that is written in the file."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines[place]

    def error(self, place: Place, message: str) -> ClaimError:
        """The error to raise for ``place``: file, line, field, message."""
        return ClaimError(
            f"{self.path}:{self.line(place)}: {f'field {shown(dotted(place))} ' if place else ''}{message}"
        )


def dotted(place: Place) -> str:
    """``("relations", 0, "kind")`` as ``relations[0].kind``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")


@functools.lru_cache(maxsize=256)  # every rule of the lint asks for the front matter of its page
def read_document(text: str, path: Path, first_line: int = 1) -> Document:
    """Parse one YAML document; ``first_line`` is the line of the file on which ``text`` begins.

    It is shared by all who ask for the same text: leave it as it is.
    """
    value, lines = yaml_text.read_with_lines(text, path, ClaimError, first_line)
    return Document(Path(path), value, lines)


def validate(model: type[Model], document: Document, place: Place = ()) -> Model:
    """Read the part of ``document`` at ``place`` into ``model``; raise the first fault with field and line."""
    value = document.value
    for step in place:
        value = value[step]
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # A misspelt field is also a missing one: the line where it is written says more.
        first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        inner = _written(value, first["loc"])
        raise document.error((*place, *inner), _sentence(model, inner, first)) from error


def _written(value: Any, place: Place) -> Place:
    """``place`` without the steps that pydantic adds for unions and dictionary keys (they are not in the file)."""
    kept: list[str | int] = []
    for index, step in enumerate(place):
        if isinstance(value, dict):
            if step not in value:
                return (*kept, step) if index == len(place) - 1 else tuple(kept)
            value = value[step]
        elif isinstance(value, list) and isinstance(step, int):
            value = value[step]
        else:
            break
        kept.append(step)
    return tuple(kept)


def _sentence(model: type[BaseModel], place: Place, fault: ErrorDetails) -> str:
    if fault["type"] == "missing":
        return "is missing: add it."
    if fault["type"] == "extra_forbidden":
        return f"is unknown{nearest(str(place[-1]), _known(model, place[:-1]))}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"is wrong, {message[0].lower()}{message[1:]}, but it is {shown(fault['input'])}."


def _known(model: Any, place: Place) -> list[str]:
    """Names of the fields allowed at ``place`` below ``model`` (steps through lists and dictionaries of models)."""
    is_key = False  # of a dictionary, and not the name of a field
    for step in place:
        if is_key:
            is_key = False
        elif isinstance(model, type) and issubclass(model, BaseModel) and step in model.model_fields:
            annotation = model.model_fields[str(step)].annotation
            model, is_key = _inner_model(annotation), get_origin(annotation) is dict
    return list(model.model_fields)


def _inner_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [_inner_model(argument) for argument in getattr(annotation, "__args__", ())]
    return next((model for model in inner if model is not None), None)
