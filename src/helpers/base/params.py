"""Typed parameters: one pydantic model of a cell for each study, and grids of cells from notebooks and YAML files.

papermill only warns about an unknown name and runs on with the default. Here an unknown or misspelt name, a wrong type
and a value out of bounds are each a ``ParameterError`` of one sentence, raised before any work starts.
"""

from __future__ import annotations

import ast
import functools
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, get_args, overload

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from helpers.base import yaml_text
from helpers.base.errors import ParameterError, nearest
from helpers.base.faults import by_field, sentence
from helpers.base.files import is_there, read_text, shown

C = TypeVar("C", bound="Cell")
C_co = TypeVar("C_co", bound="Cell", covariant=True)

INJECTED = "# Parameters"
BLOCKS = "blocks"
"""The name under which a union of grids lists its products."""
MOST_CELLS = 200_000
"""What a grid may hold: more would take minutes and gigabytes to write out, before anything has run."""


class Cell(BaseModel):
    """Base of the parameters of a study: the plain values of one cell.

    ``AXES`` names the fields that take a list in a `Grid`, outermost first, and ``ALL`` those of them on which the word
    ``all`` stands for several values. ``MEANS`` names the fields that say how a run is made and not what is asked: they
    are no part of a record's question.

    Numbers may arrive as text (YAML 1.1 reads ``5e-6`` as a string); ``3.0`` is a whole number, ``3.5`` is not;
    truth values are not numbers; NaN and infinity are refused. Instances are frozen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)
    AXES: ClassVar[tuple[str, ...]] = ()
    ALL: ClassVar[Mapping[str, Sequence[Any]]] = {}
    MEANS: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name in (*cls.AXES, *cls.MEANS):
            if name not in cls.model_fields:
                raise TypeError(f"{cls.__name__} names {name!r}, no field{nearest(name, cls.model_fields)}")
        if BLOCKS in cls.model_fields:
            raise TypeError(f"{cls.__name__} has a field {BLOCKS!r}, which is what a grid calls the products it joins")

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        takes_list, takes_bool = _takes(cls, name)
        value = _list_of_text(name, value) if takes_list else value
        items = value if isinstance(value, list | tuple) else [value]
        if not takes_bool and any(isinstance(item, bool) for item in items):
            raise ValueError("must be a number or text, not a truth value")
        return value

    def resolved(self) -> dict[str, Any]:
        """Return the question of the cell as JSON values: every parameter as a record keeps it, without ``MEANS``."""
        return self.model_dump(mode="json", exclude=set(self.MEANS))

    def check_inputs(self) -> None:
        """Raise ``ClaimbookError`` where a file or model that the cell names is not there or cannot be read.

        Called for every cell of a grid before any work starts.
        """

    def coordinates(self) -> dict[str, Any]:
        """Return the resolved values on ``AXES``, in their order: what tells the cell from its neighbours in a grid."""
        values = self.resolved()
        return {name: values[name] for name in self.AXES}


@dataclass(frozen=True)
class Grid(Sequence[C_co], Generic[C_co]):
    """Cells of one study, at least one: a product of axes, or the union of several such products.

    The cells of a product are row-major in the order of ``AXES`` (the last axis runs fastest), and ``axes`` names those
    that were given as a list, in the same order. A union has the cells of its ``blocks`` one after the other.
    """

    cells: tuple[C_co, ...]
    axes: tuple[str, ...] = ()
    blocks: tuple[Grid[C_co], ...] = ()

    @overload
    def __getitem__(self, at: int) -> C_co: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[C_co, ...]: ...
    def __getitem__(self, at: int | slice) -> C_co | tuple[C_co, ...]:
        return self.cells[at]

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def values(self) -> dict[str, Any]:
        """Every parameter as JSON values, a list on each of ``axes``; reading it back gives the same grid.

        Of a union: the values that all blocks share, and under ``blocks`` what each has beside them.
        """
        if self.blocks:
            return _joined([block.values for block in self.blocks])
        lists = {name: list(dict.fromkeys(getattr(cell, name) for cell in self.cells)) for name in self.axes}
        return self.cells[0].model_dump(mode="json") | lists

    @property
    def given(self) -> dict[str, Any]:
        """Those of ``values`` that were given; the others have their default."""
        if self.blocks:
            return _joined([block.given for block in self.blocks])
        return {name: value for name, value in self.values.items() if name in self.cells[0].model_fields_set}


def _joined(blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all of ``blocks`` have in common, with the rest of each under ``blocks``."""
    first, *others = blocks
    shared = {k: v for k, v in first.items() if all(k in other and other[k] == v for other in others)}
    return shared | {BLOCKS: [{k: v for k, v in block.items() if k not in shared} for block in blocks]}


def _list_of_text(name: str, value: Any) -> Any:
    """Read a list that arrives as text: ``papermill -p lr "[1e-6, 5e-6]"`` hands it over so."""
    if isinstance(value, str) and value.strip().startswith("["):
        return yaml_text.read(value, f"parameter {name}", ParameterError)
    return value


def _leaves(annotation: Any) -> Iterator[Any]:
    """Yield the types and literals an annotation is made of: ``float, list, int`` for ``float | list[int]``."""
    parts = get_args(annotation)
    if not parts:
        yield annotation
        return
    yield getattr(annotation, "__origin__", annotation)
    for part in parts:
        yield from _leaves(part)


@functools.cache
def _takes(model: type[Cell], name: str) -> tuple[bool, bool]:
    """Whether a field takes lists and truth values; kept, because a grid of ten thousand cells asks for each."""
    leaves = list(_leaves(model.model_fields[name].annotation))
    return list in leaves, bool in leaves or any(isinstance(leaf, bool) for leaf in leaves)


def parse(model: type[C], values: Mapping[str, Any], where: str) -> C:
    """Return the cell ``model(**values)``; what pydantic finds is one ``ParameterError`` sentence naming ``where``."""
    check_names(model, values, where)
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ParameterError(sentence(error.errors(), where)) from None


def parse_grid(model: type[C], values: Mapping[str, Any], where: str) -> Grid[C]:
    """Return the grid of ``values``, in which each of ``AXES`` takes one value or a list of distinct ones.

    Under ``blocks`` there may be several such mappings: each is a product of its own, in which it adds to the other
    ``values`` or overrides them, and the grid is their union. Raises ``ParameterError`` as `parse` does, and for a cell
    that stands in two blocks.
    """
    if BLOCKS not in values:
        _refuse_too_many([_lists(model, values, where)], where)
        return _product(model, values, where)
    blocks = _list_of_text(BLOCKS, values[BLOCKS])
    if not (isinstance(blocks, list | tuple) and blocks and all(isinstance(b, Mapping) for b in blocks)):
        raise ParameterError(f"Parameter {BLOCKS} is {shown(blocks)}, but must be a list of mappings ({where}).")
    shared = {name: value for name, value in values.items() if name != BLOCKS}
    written = {f"{where}, block {number}": shared | dict(block) for number, block in enumerate(blocks, 1)}
    _refuse_too_many([_lists(model, block, place) for place, block in written.items()], where)
    grids = [_product(model, block, place) for place, block in written.items()]
    _refuse_shared_cells(grids, where)
    return Grid(tuple(itertools.chain.from_iterable(grids)), (), tuple(grids))


def _refuse_too_many(products: Sequence[Mapping[str, Sequence[Any]]], where: str) -> None:
    """Raise ``ParameterError`` where the cells of all products, counted before one is made, are more than are read."""
    cells = sum(math.prod(map(len, lists.values())) for lists in products)
    if cells > MOST_CELLS:
        raise ParameterError(
            f"The grid has {cells:,} cells, and at most {MOST_CELLS:,} are read. Shorten its lists, or split it into "
            f"several files ({where})."
        )


def _refuse_shared_cells(grids: Sequence[Grid[C]], where: str) -> None:
    blocks: dict[str, int] = {}
    for number, grid in enumerate(grids, 1):
        for cell in grid:
            other = blocks.setdefault(json.dumps(cell.resolved(), sort_keys=True), number)
            if other != number:
                raise ParameterError(f"Blocks {other} and {number} both hold the cell {cell.coordinates()} ({where}).")


def _product(model: type[C], values: Mapping[str, Any], where: str) -> Grid[C]:
    check_names(model, values, where)
    lists = _lists(model, values, where)
    shared = {name: value for name, value in values.items() if name not in lists}

    def cell(point: Iterable[Any]) -> C:
        return model.model_validate(shared | dict(zip(lists, point, strict=True)))

    try:
        cells = tuple(map(cell, itertools.product(*lists.values())))
    except ValidationError as error:
        raise ParameterError(sentence(_faults(cell, lists) or error.errors(), where)) from None
    _refuse_twins(cells, lists, where)
    return Grid(cells, tuple(lists))


def _lists(model: type[Cell], values: Mapping[str, Any], where: str) -> dict[str, list[Any]]:
    """Return the axes of ``values`` that hold a list, in ``AXES`` order, as they were written."""
    lists: dict[str, list[Any]] = {}
    for name in model.AXES:
        value = _list_of_text(name, values.get(name))
        if value == "all":
            value = model.ALL.get(name, value)
        if isinstance(value, list | tuple):
            lists[name] = list(value)
            if not value:
                raise ParameterError(f"Parameter {name} is [], but must have at least 1 item ({where}).")
    return lists


def _faults(cell: Callable[[Iterable[Any]], Cell], lists: Mapping[str, list[Any]]) -> list[ErrorDetails]:
    """Return the faults of every field: those of the first cell, and of those that differ from it on one axis only."""
    first = {name: items[0] for name, items in lists.items()}
    faults: dict[str, list[ErrorDetails]] = {}
    for name, items in {"": [None], **lists}.items():
        for item in items:
            try:
                cell((first | ({name: item} if name else {})).values())
            except ValidationError as error:
                for field, details in by_field(error.errors()).items():
                    faults.setdefault(field, details)
    return list(itertools.chain.from_iterable(faults.values()))


def _refuse_twins(cells: Sequence[Cell], lists: Mapping[str, list[Any]], where: str) -> None:
    step = len(cells)
    for name, items in lists.items():
        step //= len(items)
        counts = Counter(getattr(cells[at * step], name) for at in range(len(items)))
        twice = [value for value, count in counts.items() if count > 1]
        if twice:
            raise ParameterError(
                f"Parameter {name} is {shown(items)}, but must not hold {shown(twice[0])} twice ({where})."
            )


def read(model: type[C], namespace: Mapping[str, Any], cells: Sequence[str] | None = None) -> Grid[C]:
    """Read a grid of ``model`` from the globals of a notebook: ``p = params.read(SweepCell, globals())``.

    ``cells`` are the sources of the cells run so far (IPython's ``In`` by default). Every name that the parameters
    cell or the cell injected by papermill assigns must be a field, or ``blocks``; fields that nothing assigned take
    their default.
    """
    executed = namespace.get("In", ()) if cells is None else cells
    assigned = [name for source in _parameter_cells(model, executed) for name in _assigned(source)[0]]
    check_names(model, (name for name in assigned if name != BLOCKS), "in the parameters of the notebook")
    # Other cells of a notebook may have a variable of that name: it counts where the parameters assign it.
    names = [*model.model_fields, *([BLOCKS] if BLOCKS in assigned else [])]
    values = {name: namespace[name] for name in names if name in namespace}
    return parse_grid(model, values, "in the parameters of the notebook")


def load(model: type[C], path: Path) -> Grid[C]:
    """Read a grid of ``model`` from a YAML file; unknown and duplicate keys are errors."""
    path = Path(path)
    if not is_there(path):
        known = [other.name for other in path.parent.glob("*.yaml")]
        close = nearest(path.name, known) if known else ""
        raise ParameterError(f"There is no parameter file {shown(str(path))}{close}")
    values = yaml_text.read(read_text(path, ParameterError), path, ParameterError)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ParameterError(f"{path} must hold one `name: value` a line, not a {type(values).__name__}.")
    return parse_grid(model, values, f"in {path}")


def check_names(model: type[Cell], names: Iterable[Hashable], where: str) -> None:
    """Raise ``ParameterError`` naming the nearest field when one of ``names`` is not a field of ``model``."""
    for name in names:
        if name not in model.model_fields:
            raise ParameterError(f"Unknown parameter {shown(name)} {where}{nearest(str(name), model.model_fields)}")


def _parameter_cells(model: type[Cell], executed: Sequence[str]) -> list[str]:
    """The latest run of the parameters cell and of papermill's injected cell.

    Only the latest, because in JupyterLab a typo corrected and run again stays in ``In`` for ever. The parameters cell
    is the first one run, or a later one that does nothing but assign, mostly fields of the model.
    """
    own, injected = [], []
    for position, source in enumerate(cell for cell in executed if cell.strip()):
        names, only_assigns = _assigned(source)
        known = sum(name in model.model_fields for name in names)
        if source.lstrip().startswith(INJECTED):
            injected.append(source)
        elif position == 0 or (only_assigns and known > len(names) / 2):
            own.append(source)
    return own[-1:] + injected[-1:]


def _assigned(source: str) -> tuple[list[str], bool]:
    """Names that the top level of a cell assigns, in order, and whether it does nothing else."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return [], True  # such a cell did not run, so it assigned nothing
    assigning = [statement for statement in statements if isinstance(statement, ast.Assign | ast.AnnAssign)]
    targets = [one.targets if isinstance(one, ast.Assign) else [one.target] for one in assigning]
    nodes = [node for target in itertools.chain.from_iterable(targets) for node in ast.walk(target)]
    return [node.id for node in nodes if isinstance(node, ast.Name)], len(assigning) == len(statements)
