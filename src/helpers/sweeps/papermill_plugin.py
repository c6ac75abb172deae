"""What papermill does with our notebooks: parameters are injected as what they are and never as code, an error of ours
is shown as its sentence, and there is no warning without a cause.

papermill imports this module when it starts, by an entry point (pyproject.toml). It lets nobody change how it ends or
what it warns of, so the interpreter's hook and the filter of its logger are used.
"""

from __future__ import annotations

import keyword
import logging
import sys
from types import TracebackType
from typing import Any

from papermill.exceptions import PapermillExecutionError
from papermill.translators import PythonTranslator, papermill_translators

from helpers.base.errors import ClaimbookError, ParameterError
from helpers.base.files import shown

_shown_before = sys.excepthook


def sentence(error: PapermillExecutionError) -> str:
    """Return the error of a notebook on one line, without a full stop."""
    return " ".join(f"{error.ename}: {error.evalue}".split()).rstrip(".")


def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a ``ClaimbookError`` of the notebook as its sentence; whatever else ends the program is shown as before."""
    # Such an error has its sentence in front of the traceback, too, where others have a line of hyphens.
    if isinstance(error, PapermillExecutionError) and error.traceback[:1] == [f"{error.ename}: {error.evalue}"]:
        where = f"In [{error.exec_count}] of the executed notebook"
        print(f"papermill: {sentence(error)} ({where} has the traceback).", file=sys.stderr)
    elif isinstance(error, ClaimbookError):
        print(f"papermill: {error}", file=sys.stderr)
    else:
        _shown_before(kind, error, trace)


class Injected(PythonTranslator):
    """Parameters as Python source. papermill's own writes a name, and a value that JSON has not, as they stand."""

    @classmethod
    def assign(cls, name: Any, str_val: str) -> str:
        """Return ``name = value``; ``ParameterError`` for what cannot be the name of a parameter."""
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise ParameterError(f"{shown(name)} cannot be the name of a parameter: correct it.")
        return super().assign(name, str_val)

    @classmethod
    def translate(cls, val: Any) -> str:
        """Return the source of a value; of one that JSON has not (a date, bytes, a set), that of its text."""
        plain = val is None or isinstance(val, str | int | float | list | dict)
        return super().translate(val if plain else str(val))

    @classmethod
    def translate_str(cls, val: Any) -> str:
        """Return the source of a text, or of the text of a key that is none."""
        return super().translate_str(str(val))


def _has_cause(line: logging.LogRecord) -> bool:
    # papermill knows only the names that it finds in the parameters cell. Ours are checked against the parameter model
    # when the notebook reads them, and an unknown one ends the run.
    return not line.getMessage().startswith("Passed unknown parameter")


papermill_translators.register("python", Injected)
sys.excepthook = show
logging.getLogger("papermill").addFilter(_has_cause)
