"""Parameters: what a notebook, papermill and YAML files may hand over, and one sentence for everything else."""

from __future__ import annotations

import itertools
from typing import Annotated, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, PositiveInt, model_validator

from helpers.base import params
from helpers.base.errors import ParameterError
from helpers.base.params import Axis, Params

pytestmark = pytest.mark.unit


class Sweep(Params):
    AXES: ClassVar[tuple[str, ...]] = ("lr", "epochs", "tail")

    lr: Axis[Annotated[float, Field(gt=0)]] = 1e-3
    epochs: Axis[PositiveInt] = 3
    tail: Axis[Literal["newline", "end_of_turn"] | int] = "newline"
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
        ("negatives", "[poet, baker]", ["poet", "baker"]),
        ("marker", "[ABC]", "[ABC]"),
        ("merge", True, True),
    ],
)
def test_values_are_read_as_they_come(name, value, expected):
    got = getattr(params.parse(Sweep, {name: value}, "here"), name)
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
            "Parameter epochs is [1, True], but must be a number or text, not a truth value (in a test).",
        ),
        ({"epochs": 0}, "Parameter epochs is 0, but must be greater than 0 (in a test)."),
        ({"epochs": []}, "Parameter epochs is [], but must have at least 1 item (in a test)."),
        ({"epochs": [2, 2.0]}, "Parameter epochs is [2, 2.0], but must not hold 2 twice (in a test)."),
        ({"lrr": 1}, "Unknown parameter 'lrr' in a test; did you mean 'lr'?"),
        ({"source": "poet"}, "Parameter negatives holds the source persona 'poet': take it out (in a test)."),
    ],
)
def test_bad_values_are_one_sentence(values, sentence):
    with pytest.raises(ParameterError) as caught:
        params.parse(Sweep, values, "in a test")
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "values", [{"epochs": 3.5}, {"tail": "newlin"}, {"lr": "fast"}, {"epochs": "[3"}, {"lr": None}]
)
def test_other_bad_values_name_the_parameter(values):
    [name] = values
    with pytest.raises(ParameterError, match=rf"arameter {name} ") as caught:
        params.parse(Sweep, values, "in a test")
    assert "\n" not in str(caught.value)


def test_several_faults_are_one_sentence():
    with pytest.raises(ParameterError, match=r"^Parameter lr is .*; Parameter epochs is .*\(here\)\.$"):
        params.parse(Sweep, {"lr": -1, "epochs": 0}, "here")


def test_an_axis_that_is_no_field_is_a_mistake_in_the_model():
    with pytest.raises(TypeError, match="did you mean 'rate'"):

        class Wrong(Params):
            AXES: ClassVar[tuple[str, ...]] = ("rat",)
            rate: Axis[float] = 1.0


distinct = {
    "lr": st.lists(st.floats(1e-9, 1), min_size=1, max_size=4, unique=True),
    "epochs": st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True),
    "tail": st.lists(st.sampled_from(["newline", "end_of_turn", 2, 32]), min_size=1, unique=True),
}


@given(st.fixed_dictionaries({}, optional=distinct))
def test_cells_are_the_product_of_the_lists_row_major(lists):
    grid = Sweep(**lists)
    cells = grid.cells()
    assert grid.axes() == tuple(name for name in Sweep.AXES if name in lists)
    columns = [lists.get(name, [getattr(Sweep(), name)]) for name in Sweep.AXES]
    assert [tuple(cell.cell().values()) for cell in cells] == list(itertools.product(*columns))
    assert all(not cell.axes() and cell.source == grid.source for cell in cells)


def test_only_a_cell_has_cell_params():
    with pytest.raises(ParameterError, match="lr holds a list"):
        Sweep(lr=[1e-3, 1e-4]).cell_params()
    assert Sweep().cell_params()["negatives"] == ["poet"]


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
    assert params.read(Sweep, {"lr": "5e-6", "In": cells, "unrelated": 3}).lr == 5e-6


def test_fields_that_nothing_assigned_take_their_default():
    assert params.read(Sweep, {"epochs": [1, 2]}, cells=["epochs = [1, 2]"]) == Sweep(epochs=[1, 2])


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


def test_yaml_files_are_read(tmp_path):
    path = tmp_path / "pocket.yaml"
    path.write_text("lr: [1e-4, 3e-4]\nnegatives: [poet, baker]\n")
    assert params.load(Sweep, path) == Sweep(lr=[1e-4, 3e-4], negatives=["poet", "baker"])
    path.write_text("")
    assert params.load(Sweep, path) == Sweep()
    with pytest.raises(ParameterError, match=r"no parameter file .*did you mean 'pocket.yaml'"):
        params.load(Sweep, tmp_path / "poket.yaml")
