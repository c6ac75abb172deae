"""Parameters: what a notebook, papermill and YAML files may hand over, and one sentence for everything else."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, PositiveInt, model_validator

from helpers.base import params
from helpers.base.errors import ParameterError
from helpers.base.params import Cell, parse_grid

pytestmark = pytest.mark.unit


class Sweep(Cell):
    AXES: ClassVar[tuple[str, ...]] = ("lr", "epochs", "tail")

    ALL: ClassVar[Mapping[str, Sequence[Any]]] = {"tail": ("newline", "end_of_turn")}

    lr: Annotated[float, Field(gt=0)] = 1e-3
    epochs: PositiveInt = 3
    tail: Literal["newline", "end_of_turn"] | int = "newline"
    source: str = "villain"
    negatives: list[str] = Field(default_factory=lambda: ["poet"])
    marker: str = "[ZLT]"
    merge: bool = False

    @model_validator(mode="after")
    def _apart(self) -> Sweep:
        if self.source in self.negatives:
            raise ValueError(f"Parameter negatives holds the source persona {self.source!r}: take it out")
        return self


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lr", "5e-6", 5e-6),
        ("lr", 1, 1.0),
        ("lr", "[1e-6, 5e-6]", [1e-6, 5e-6]),
        ("lr", ["1e-6", 1e-5], [1e-6, 1e-5]),
        ("epochs", 3.0, 3),
        ("epochs", "4", 4),
        ("tail", "[newline, 32]", ["newline", 32]),
        ("tail", "all", ["newline", "end_of_turn"]),
        ("negatives", "[poet, baker]", ["poet", "baker"]),
        ("marker", "[ABC]", "[ABC]"),
        ("merge", True, True),
    ],
)
def test_values_are_read_as_they_come(name, value, expected):
    got = parse_grid(Sweep, {name: value}, "here").values[name]
    assert got == expected and type(got) is type(expected)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"lr": -1}, "Parameter lr is -1, but must be greater than 0 (in a test)."),
        ({"lr": [1e-3, 0, -5]}, "Parameter lr is 0, but must be greater than 0 (in a test)."),
        ({"lr": float("nan")}, "Parameter lr is nan, but must be a finite number (in a test)."),
        ({"lr": "inf"}, "Parameter lr is 'inf', but must be a finite number (in a test)."),
        ({"lr": True}, "Parameter lr is True, but must be a number or text, not a truth value (in a test)."),
        (
            {"epochs": [1, True]},
            "Parameter epochs is True, but must be a number or text, not a truth value (in a test).",
        ),
        ({"epochs": 0}, "Parameter epochs is 0, but must be greater than 0 (in a test)."),
        ({"epochs": []}, "Parameter epochs is [], but must have at least 1 item (in a test)."),
        ({"epochs": [2, 2.0]}, "Parameter epochs is [2, 2.0], but must not hold 2 twice (in a test)."),
        (
            {"lr": [1e-3, 0], "epochs": 0},
            "Parameter epochs is 0, but must be greater than 0; "
            "Parameter lr is 0, but must be greater than 0 (in a test).",
        ),
        ({"lrr": 1}, "Unknown parameter 'lrr' in a test; did you mean 'lr'?"),
        ({"source": "poet"}, "Parameter negatives holds the source persona 'poet': take it out (in a test)."),
    ],
)
def test_bad_values_are_one_sentence(values, sentence):
    with pytest.raises(ParameterError) as caught:
        parse_grid(Sweep, values, "in a test")
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "values", [{"epochs": 3.5}, {"tail": "newlin"}, {"lr": "fast"}, {"epochs": "[3"}, {"lr": None}]
)
def test_other_bad_values_name_the_parameter(values):
    [name] = values
    with pytest.raises(ParameterError, match=rf"arameter {name} ") as caught:
        parse_grid(Sweep, values, "in a test")
    assert "\n" not in str(caught.value)


def test_several_faults_are_one_sentence():
    with pytest.raises(ParameterError, match=r"^Parameter lr is .*; Parameter epochs is .*\(here\)\.$"):
        parse_grid(Sweep, {"lr": -1, "epochs": 0}, "here")


def test_an_axis_that_is_no_field_is_a_mistake_in_the_model():
    with pytest.raises(TypeError, match="did you mean 'rate'"):

        class Wrong(Cell):
            AXES: ClassVar[tuple[str, ...]] = ("rat",)
            rate: float = 1.0


distinct = {
    "lr": st.lists(st.floats(1e-9, 1), min_size=1, max_size=4, unique=True),
    "epochs": st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True),
    "tail": st.lists(st.sampled_from(["newline", "end_of_turn", 2, 32]), min_size=1, unique=True),
}


@given(st.fixed_dictionaries({}, optional=distinct))
def test_cells_are_the_product_of_the_lists_row_major(lists):
    grid = parse_grid(Sweep, lists, "here")
    assert grid.axes == tuple(name for name in Sweep.AXES if name in lists)
    columns = [lists.get(name, [getattr(Sweep(), name)]) for name in Sweep.AXES]
    assert [tuple(cell.coordinates().values()) for cell in grid] == list(itertools.product(*columns))
    assert grid.given == lists and parse_grid(Sweep, grid.values, "here") == grid


def test_only_a_grid_takes_lists():
    with pytest.raises(ParameterError, match=r"Parameter lr is \[0.001, 0.0001\], but must be a valid number"):
        params.parse(Sweep, {"lr": [1e-3, 1e-4]}, "here")
    assert Sweep().resolved()["negatives"] == ["poet"]


OWN = "lr = 1e-3\nepochs = 3\nsource = 'villain'"


@pytest.mark.parametrize(
    ("cells", "unknown"),
    [
        (["", OWN, "# Parameters\nlrr = 5e-06\n"], "lrr"),
        (["", OWN.replace("epochs", "epoch")], "epoch"),
        (["", "import os", OWN.replace("lr ", "lrr ")], "lrr"),
        (["", "lrr = 3"], "lrr"),
        (["", "lrr: float = 3"], "lrr"),
    ],
)
def test_a_misspelt_name_in_a_notebook_is_an_error(cells, unknown):
    with pytest.raises(ParameterError, match=f"Unknown parameter '{unknown}' .*did you mean"):
        params.read(Sweep, {"lr": 1e-3, "In": cells})


@pytest.mark.parametrize(
    "cells",
    [
        ["", OWN, "# Parameters\nlr = 5e-06\n", "total = 3\nfor lrr in (): pass"],
        ["", OWN.replace("lr ", "lrr "), OWN],  # a typo, corrected and run again in JupyterLab
        ["", OWN, "def broken(", "x = 1"],
        [],
    ],
)
def test_other_cells_may_assign_what_they_like(cells):
    assert params.read(Sweep, {"lr": "5e-6", "In": cells, "unrelated": 3})[0].lr == 5e-6


def test_fields_that_nothing_assigned_take_their_default():
    values = {"epochs": [1, 2]}
    assert params.read(Sweep, values, cells=["epochs = [1, 2]"]) == parse_grid(Sweep, values, "here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 1\nlr: 2\n", r"sweep.yaml:2: this cannot be read as YAML: 'lr' is written twice"),
        ("lrr: 1\n", r"Unknown parameter 'lrr' in .*sweep.yaml; did you mean 'lr'"),
        ("3: 1\n", r"Unknown parameter 3"),
        ("- 1\n", "one `name: value` a line, not a list"),
        ("lr: [1\n", "yaml:2: this cannot be read as YAML"),
        ("lr: .nan\n", "finite"),
    ],
)
def test_bad_yaml_files(tmp_path, text, message):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(ParameterError, match=message):
        params.load(Sweep, path)


UNION = {"epochs": [1, 2], "marker": "[A]", "blocks": [{"tail": "newline", "lr": [0.1, 0.2]}, {"tail": 2, "epochs": 3}]}


def test_a_union_is_its_blocks_one_after_the_other(tmp_path):
    grid = parse_grid(Sweep, UNION, "here")
    products = [{"tail": "newline", "lr": [0.1, 0.2], "epochs": [1, 2]}, {"tail": 2, "epochs": 3}]
    blocks = [parse_grid(Sweep, {"marker": "[A]"} | one, "here") for one in products]
    assert list(grid.blocks) == blocks and list(grid) == [*blocks[0], *blocks[1]] and len(grid) == 5
    assert parse_grid(Sweep, grid.values, "here") == grid and parse_grid(Sweep, grid.given, "here") == grid
    assert grid.given["marker"] == "[A]" and "lr" not in grid.given and grid.values["source"] == Sweep().source
    path = tmp_path / "union.yaml"
    path.write_text(
        "epochs: [1, 2]\nmarker: '[A]'\nblocks:\n  - {tail: newline, lr: [0.1, 0.2]}\n  - {tail: 2, epochs: 3}\n"
    )
    assert params.load(Sweep, path) == grid


@given(st.lists(st.fixed_dictionaries({}, optional=distinct).filter(bool), min_size=1, max_size=3))
def test_every_union_is_read_back_as_it_was(blocks):
    blocks = [block | {"marker": f"[{number}]"} for number, block in enumerate(blocks)]
    grid = parse_grid(Sweep, {"blocks": blocks}, "here")
    assert parse_grid(Sweep, grid.values, "here") == grid and parse_grid(Sweep, grid.given, "here") == grid


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": []}, "blocks is .*a list of mappings"),
        ({"blocks": {"lr": 1}}, "blocks is .*a list of mappings"),
        ({"blocks": [{"lr": 1}, 3]}, "blocks is .*a list of mappings"),
        ({"blocks": [{"lr": 0.1}, {"lrr": 1}]}, r"Unknown parameter 'lrr' here, block 2; did you mean 'lr'"),
        ({"blocks": [{"lr": 0.1}, {"lr": "x"}]}, r"Parameter lr is 'x'.*here, block 2"),
        ({"blocks": [{"blocks": [{"lr": 0.1}]}]}, "Unknown parameter 'blocks'"),
        ({"blocks": [{"lr": [0.1, 0.2]}, {"lr": 0.2}]}, r"Blocks 1 and 2 both hold the cell .*'lr': 0.2"),
    ],
)
def test_a_wrong_union_is_refused(change, message):
    with pytest.raises(ParameterError, match=message):
        parse_grid(Sweep, change, "here")


HUGE = {"lr": [n / 1e5 for n in range(1, 1_001)], "epochs": list(range(1, 101)), "tail": list(range(1, 1_001))}


@pytest.mark.parametrize("values", [HUGE, {"blocks": [{"marker": "[A]", "lr": 0.1}, HUGE]}])
def test_a_grid_too_large_to_be_written_out_is_refused_before_a_cell_is_made(values, monkeypatch):
    monkeypatch.setattr(params, "_product", None)  # would be called for its cells
    with pytest.raises(ParameterError, match=r"^The grid has 100,000,00\d cells, and at most 200,000 are read\. Sho"):
        parse_grid(Sweep, values, "here")


def test_the_cells_of_all_products_count_together(monkeypatch):
    monkeypatch.setattr(params, "MOST_CELLS", 5)
    assert len(parse_grid(Sweep, UNION, "here")) == 5
    with pytest.raises(ParameterError, match="The grid has 6 cells, and at most 5"):
        parse_grid(Sweep, UNION | {"blocks": [*UNION["blocks"], {"tail": 3, "epochs": 3}]}, "here")


def test_a_value_too_long_to_be_read_is_cut_in_its_sentence(tmp_path):
    nested = f"epochs: [{'[' * 90}{']' * 90}]\n"
    for text in (f"lr: 0x{'f' * 5000}\n", f"lr: {[0.1] * 500}\n", f"{'x' * 500}: 1\n", nested):
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        with pytest.raises(ParameterError) as caught:
            params.load(Sweep, path)
        assert len(str(caught.value).replace(str(path), "")) < 400


def test_a_notebook_takes_blocks_only_from_its_parameters():
    values = {"lr": 0.1, "blocks": [{"epochs": 2}, {"epochs": 3}]}
    assert len(params.read(Sweep, values, cells=[OWN, "# Parameters\nblocks = [{'epochs': 2}, {'epochs': 3}]"])) == 2
    assert len(params.read(Sweep, values, cells=[OWN, "blocks = [{'epochs': 2}, {'epochs': 3}]\nprint(1)"])) == 1


def test_no_cell_has_a_field_called_blocks():
    with pytest.raises(TypeError, match="blocks"):

        class Wrong(Cell):
            blocks: int = 1


def test_yaml_files_are_read(tmp_path):
    path = tmp_path / "pocket.yaml"
    path.write_text("lr: [1e-4, 3e-4]\nnegatives: [poet, baker]\n")
    values = {"lr": [1e-4, 3e-4], "negatives": ["poet", "baker"]}
    assert params.load(Sweep, path) == parse_grid(Sweep, values, "")
    path.write_text("")
    assert list(params.load(Sweep, path)) == [Sweep()]
    with pytest.raises(ParameterError, match=r"no parameter file .*did you mean 'pocket.yaml'"):
        params.load(Sweep, tmp_path / "poket.yaml")
