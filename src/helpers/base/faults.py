"""What pydantic finds wrong with the parameters of a cell, as one sentence that names each of them once."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic_core import ErrorDetails

from helpers.base.files import shown


def sentence(details: Iterable[ErrorDetails], where: str) -> str:
    """Return ``details`` as one sentence that ends with ``where`` the parameters stand."""
    return "; ".join(_fault(name, some) for name, some in by_field(details).items()) + f" ({where})."


def by_field(details: Iterable[ErrorDetails]) -> dict[str, list[ErrorDetails]]:
    """Sort details by the field that they are about; the name is empty for those about the cell as a whole."""
    fields: dict[str, list[ErrorDetails]] = {}
    for detail in details:
        fields.setdefault(str(detail["loc"][0]) if detail["loc"] else "", []).append(detail)
    return fields


def _fault(name: str, details: list[ErrorDetails]) -> str:
    # A list may hold several faulty items: the sentence is about the first; a union gives one demand a branch.
    wrong = details[0]["input"]
    demands = list(dict.fromkeys(_demand(detail) for detail in details if detail["input"] is wrong))
    if not name:
        return " and ".join(demands)
    if details[0]["type"] == "missing":
        return f"Parameter {name} has no value and no default"
    return f"Parameter {name} is {shown(wrong)}, but {' or '.join(demands)}"


def _demand(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ").rstrip(".")
    message = (
        message.replace("Input should be", "must be").replace("List should", "must").replace("String should", "must")
    )
    return message.removesuffix(" after validation, not 0")
