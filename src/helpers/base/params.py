"""Typed parameters: one pydantic model a notebook, read from its parameters cell or from a YAML file.

papermill only warns about an unknown name and runs on with the default. Here an unknown or misspelt name, a wrong type
and a value out of bounds are each a ``ParameterError`` of one sentence, raised before any work starts.
"""

from __future__ import annotations

import ast
import functools
import itertools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from helpers.base import yaml_text
from helpers.base.errors import ParameterError, nearest

T = TypeVar("T")
M = TypeVar("M", bound="Params")

INJECTED = "# Parameters"


def _distinct(values: list[T]) -> list[T]:
    twice = [value for i, value in enumerate(values) if value in values[:i]]
    if twice:
        raise ValueError(f"must not hold {twice[0]!r} twice")
    return values


def _is_list(value: Any) -> str:
    return "list" if isinstance(value, list | tuple) else "value"


# ``Axis[float]`` takes one value or a non-empty list without duplicates; bounds go inside: ``Axis[PositiveFloat]``.
Axis = Annotated[
    Annotated[T, Tag("value")] | Annotated[list[T], Field(min_length=1), AfterValidator(_distinct), Tag("list")],
    Discriminator(_is_list),
]


def _leaves(annotation: Any) -> Iterator[Any]:
    """Yield the types and literals an annotation is made of: ``float, list, int`` for ``float | list[int]``."""
    parts = get_args(annotation)
    if not parts:
        yield annotation
        return
    yield getattr(annotation, "__origin__", annotation)
    for part in parts:
        yield from _leaves(part)


def _refuse_bool(value: Any) -> None:
    for item in value if isinstance(value, list | tuple) else (value,):
        if isinstance(item, bool):
            raise ValueError("must be a number or text, not a truth value")


class Params(BaseModel):
    """Base of every parameter model. ``AXES`` names the fields of type ``Axis[...]``, outermost first; ``MEANS`` those
    that say how a run is made and not what is asked: they are no part of a record's question.

    Numbers may arrive as text (YAML 1.1 reads ``5e-6`` as a string); ``3.0`` is a whole number, ``3.5`` is not;
    truth values are not numbers; NaN and infinity are refused. Instances are frozen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)
    AXES: ClassVar[tuple[str, ...]] = ()
    MEANS: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name in (*cls.AXES, *cls.MEANS):
            if name not in cls.model_fields:
                raise TypeError(f"{cls.__name__} names {name!r}, no field{nearest(name, cls.model_fields)}")

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        takes_list, takes_bool = _takes(cls, info.field_name)
        if isinstance(value, str) and takes_list and value.strip().startswith("["):
            # `papermill -p lr "[1e-6, 5e-6]"` hands the list over as text.
            value = yaml_text.read(value, f"parameter {info.field_name}", ParameterError)
        if not takes_bool:
            _refuse_bool(value)
        return value

    def axes(self) -> tuple[str, ...]:
        """Names of the axes that hold a list here, in ``AXES`` order."""
        return tuple(name for name in self.AXES if isinstance(getattr(self, name), list))

    def cells(self) -> list[Self]:
        """One model a cell, row-major in ``AXES`` order (the last axis runs fastest); each is validated by itself."""
        lists = self.axes()
        return [
            parse(type(self), self.model_dump() | dict(zip(lists, values, strict=True)), "in one cell of the grid")
            for values in itertools.product(*(getattr(self, name) for name in lists))
        ]

    def cell_params(self) -> dict[str, Any]:
        """The question of one cell as JSON values; raises ``ParameterError`` while an axis still holds a list."""
        if self.axes():
            raise ParameterError(f"Parameter {self.axes()[0]} holds a list: take one of the cells() of the grid.")
        return self.model_dump(mode="json", exclude=set(self.MEANS))

    def cell(self) -> dict[str, Any]:
        """The axes of one cell as JSON values, in ``AXES`` order: what tells it from its neighbours in the grid."""
        values = self.cell_params()
        return {name: values[name] for name in self.AXES}


@functools.cache
def _takes(model: type[Params], name: str) -> tuple[bool, bool]:
    """Whether a field takes lists and truth values; kept, because a grid of ten thousand cells asks for each."""
    leaves = list(_leaves(model.model_fields[name].annotation))
    return list in leaves, bool in leaves or any(isinstance(leaf, bool) for leaf in leaves)


def parse(model: type[M], values: Mapping[str, Any], where: str) -> M:
    """Return ``model(**values)``; what pydantic finds becomes one ``ParameterError`` sentence naming ``where``."""
    check_names(model, values, where)
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ParameterError(_sentence(error, where)) from None


def read(model: type[M], namespace: Mapping[str, Any], cells: Sequence[str] | None = None) -> M:
    """Read ``model`` from the globals of a notebook: ``p = params.read(SweepParams, globals())``.

    ``cells`` are the sources of the cells run so far (IPython's ``In`` by default). Every name that the parameters
    cell or the cell injected by papermill assigns must be a field; fields that nothing assigned take their default.
    """
    executed = namespace.get("In", ()) if cells is None else cells
    for source in _parameter_cells(model, executed):
        check_names(model, _assigned(source), "in the parameters of the notebook")
    values = {name: namespace[name] for name in model.model_fields if name in namespace}
    return parse(model, values, "in the parameters of the notebook")


def load(model: type[M], path: Path) -> M:
    """Read ``model`` from a YAML file; unknown and duplicate keys are errors."""
    path = Path(path)
    if not path.is_file():
        known = [other.name for other in path.parent.glob("*.yaml")]
        raise ParameterError(f"There is no parameter file {path}{nearest(path.name, known) if known else ''}")
    values = yaml_text.read(path.read_text(encoding="utf-8"), path, ParameterError) or {}
    if not isinstance(values, dict):
        raise ParameterError(f"{path} must hold one `name: value` a line, not a {type(values).__name__}.")
    return parse(model, values, f"in {path}")


def check_names(model: type[Params], names: Iterable[Hashable], where: str) -> None:
    """Raise ``ParameterError`` naming the nearest field when one of ``names`` is not a field of ``model``."""
    for name in names:
        if name not in model.model_fields:
            raise ParameterError(f"Unknown parameter {name!r} {where}{nearest(str(name), model.model_fields)}")


def _parameter_cells(model: type[Params], executed: Sequence[str]) -> list[str]:
    """The latest run of the parameters cell and of papermill's injected cell.

    Only the latest, because in JupyterLab a typo corrected and run again stays in ``In`` for ever. The parameters cell
    is the first one run, or a later one that does nothing but assign, mostly fields of the model.
    """
    own, injected = [], []
    for position, source in enumerate(cell for cell in executed if cell.strip()):
        names = _assigned(source)
        known = sum(name in model.model_fields for name in names)
        if source.lstrip().startswith(INJECTED):
            injected.append(source)
        elif position == 0 or (_only_assigns(source) and known > len(names) / 2):
            own.append(source)
    return own[-1:] + injected[-1:]


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError:
        return []  # such a cell did not run, so it assigned nothing


def _only_assigns(source: str) -> bool:
    return all(isinstance(statement, ast.Assign | ast.AnnAssign) for statement in _statements(source))


def _assigned(source: str) -> list[str]:
    """Names that the top level of a cell assigns, in order."""
    targets: list[ast.expr] = []
    for statement in _statements(source):
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def _sentence(error: ValidationError, where: str) -> str:
    fields: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors():
        fields.setdefault(str(detail["loc"][0]) if detail["loc"] else "", []).append(detail)
    return "; ".join(_fault(name, details) for name, details in fields.items()) + f" ({where})."


def _fault(name: str, details: list[ErrorDetails]) -> str:
    # A list may hold several faulty items: the sentence is about the first; a union gives one demand a branch.
    wrong = details[0]["input"]
    demands = list(dict.fromkeys(_demand(detail) for detail in details if detail["input"] is wrong))
    if not name:
        return " and ".join(demands)
    if details[0]["type"] == "missing":
        return f"Parameter {name} has no value and no default"
    return f"Parameter {name} is {wrong!r}, but {' or '.join(demands)}"


def _demand(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ").rstrip(".")
    message = message.replace("Input should be", "must be").replace("List should have", "must have")
    return message.removesuffix(" after validation, not 0")
