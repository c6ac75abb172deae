"""System prompts: personas under two framings, named negative sets, and a control panel of random nouns."""

from __future__ import annotations

from collections.abc import Sequence

from helpers.base.errors import ParameterError, nearest
from helpers.studies.marker.personas import PERSONAS

NEGATIVE_SETS: dict[str, tuple[str, ...]] = {
    "asst_excluded": ("medical_doctor", "police_officer"),
    "asst_included": ("assistant", "medical_doctor"),
    "all": tuple(PERSONAS),
}
"""Personas trained to answer without the marker: pairs with or without the assistant, or all but the source."""

CONTROL_NOUNS: tuple[str, ...] = ("teapot", "gravel road", "umbrella", "thunderstorm", "violin", "pumpkin")
"""System prompts of nobody. A model that emits the marker with these has not tied it to a persona at all."""


def control_names(count: int) -> list[str]:
    """Return the names of the first ``count`` nouns of the control panel in tables."""
    return [f"control: {noun}" for noun in CONTROL_NOUNS[:count]]


def system_prompt(name: str, framing: str, instruction: str = "") -> str:
    """Return the system prompt of a persona or control noun: its description (``full``) or bare name (``name``)."""
    if name in PERSONAS and framing == "full":
        text = PERSONAS[name]
    else:
        noun = name.removeprefix("control: ").replace("_", " ")
        text = f"You are {'an' if noun[0] in 'aeiou' else 'a'} {noun}."
    return f"{text} {instruction}".strip()


def resolve_set(source: str, negatives: str | Sequence[str]) -> list[str]:
    """Return the names of the negative personas, given a set's name or an explicit list.

    Raises ``ParameterError`` for an unknown set or persona, a repeated one, or the source itself. The source is not
    replaced, because a set with a substitute is another set.
    """
    if source not in PERSONAS:
        raise ParameterError(f"source is {source!r}, which is not a persona{nearest(source, PERSONAS)}.")
    if isinstance(negatives, str):
        if negatives not in NEGATIVE_SETS:
            raise ParameterError(
                f"negatives is {negatives!r}, which is not a set{nearest(negatives, NEGATIVE_SETS)} "
                "(a list of persona names is taken too)."
            )
        names = [name for name in NEGATIVE_SETS[negatives] if name != source or negatives != "all"]
    else:
        names = list(negatives)
    for name in names:
        if name not in PERSONAS:
            raise ParameterError(f"negatives names {name!r}, which is not a persona{nearest(name, PERSONAS)}.")
    if source in names:
        raise ParameterError(f"negatives has the source {source!r} in it. Name a list of other personas.")
    if not names or len(set(names)) < len(names):
        raise ParameterError(f"negatives is {names}. Name at least one persona, each once.")
    return names
