"""Errors of ours in IPython and at the end of papermill: the sentence first and last."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from datetime import date
from importlib.metadata import entry_points

import nbformat
import pytest
from papermill.exceptions import PapermillExecutionError, strip_color
from papermill.parameterize import parameterize_notebook
from papermill.translators import translate_parameters

from helpers.base.errors import ParameterError
from helpers.sweeps import papermill_plugin

pytestmark = pytest.mark.unit
SENTENCE = "ParameterError: lr is 9, but must be less than 1."
FRAMES = ["-----", "Cell In[3], line 1", SENTENCE]


def show(ename: str, evalue: str, traceback: list[str]) -> None:
    error = PapermillExecutionError(0, 3, "read()", ename, evalue, traceback)
    papermill_plugin.show(type(error), error, None)


def test_papermill_loads_the_plugin_by_itself():
    assert [one.load() for one in entry_points(group="papermill.engine")] == [papermill_plugin]
    code = "import sys, papermill; sys.exit(sys.excepthook.__module__ != 'helpers.sweeps.papermill_plugin')"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = code.replace("papermill;", "helpers.sweeps.papermill_plugin;")  # the other way round
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_papermill_starts_without_what_sweeps_and_records_need():
    code = "import sys, papermill; print(*{'pandas', 'helpers.records', 'helpers.claims'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"


def test_an_error_of_ours_is_one_line(capsys):
    show("ParameterError", "lr is 9, but must be less than 1.", [SENTENCE, *FRAMES])
    where = "(In [3] of the executed notebook has the traceback)."
    assert capsys.readouterr().err == f"papermill: {SENTENCE.rstrip('.')} {where}\n"


def test_another_error_keeps_its_traceback(capsys):
    show(
        "ZeroDivisionError", "division by zero", ["-----", "Cell In[3], line 1", "ZeroDivisionError: division by zero"]
    )
    assert "Cell In[3], line 1" in capsys.readouterr().err
    papermill_plugin.show(KeyError, KeyError("x"), None)
    assert capsys.readouterr().err == "KeyError: 'x'\n"


def test_only_the_warning_without_a_cause_is_left_out(caplog):
    logger = logging.getLogger("papermill")
    logger.warning("Passed unknown parameter: personas")
    logger.warning("Input notebook does not contain a cell with tag 'parameters'")
    assert [line.getMessage() for line in caplog.records] == [
        "Input notebook does not contain a cell with tag 'parameters'"
    ]


def test_ipython_shows_the_sentence_first_and_last():
    code = f"from helpers.base.errors import *; raise ParameterError({SENTENCE.partition(': ')[2]!r})"
    command = [sys.executable, "-m", "IPython", "--no-banner", "--quick", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    first, *between, last = strip_color(done.stdout).strip().splitlines()
    assert first == last == SENTENCE
    assert any(line.startswith("Cell In[1], line 1") for line in between)


HOSTILE = ["x=1;import os", "x = 1\nimport os", "import", "", "a b", "a.b", "a[0]", "1", 1, None, True, ("a",), "x\0"]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_no_name_is_injected_as_code(name):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 0")])
    notebook.metadata |= {"kernelspec": {"name": "python3", "display_name": "x", "language": "python"}}
    with pytest.raises(ParameterError, match="cannot be the name of a parameter"):
        parameterize_notebook(notebook, {name: 1})


TEXTS = ['"; import os #', "'", "\\", '\\"', "a\nb", "é"]
VALUES = [*TEXTS, b'"; import os; "', {'"; import os #'}, date(2026, 1, 31)]


@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_every_value_is_injected_as_itself_or_its_text(value):
    plain = value if isinstance(value, str) else str(value)
    for given, expected in (
        (value, plain),
        ([value], [plain]),
        ({"k": value}, {"k": plain}),
        ({1: value}, {"1": plain}),
    ):
        source = translate_parameters("python3", "python", {"x": given})
        assert ast.literal_eval(source.partition("x = ")[2]) == expected
    for given in (None, True, 3, 1e-06, [], {}):
        assert ast.literal_eval(translate_parameters("python3", "python", {"x": given}).partition("x = ")[2]) == given


def test_at_a_terminal_the_refusal_is_one_sentence(capsys):
    papermill_plugin.show(ParameterError, ParameterError("'a b' cannot be it."), None)
    assert capsys.readouterr().err == "papermill: 'a b' cannot be it.\n"
