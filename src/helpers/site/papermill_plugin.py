"""What papermill says of our notebooks at a terminal: an error of ours as its sentence, and no warning without a cause.

papermill imports this module when it starts, by an entry point (pyproject.toml). It lets nobody change how it ends or
what it warns of, so the interpreter's hook and the filter of its logger are used.
"""

from __future__ import annotations

import logging
import sys
from types import TracebackType

from papermill.exceptions import PapermillExecutionError

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
    else:
        _shown_before(kind, error, trace)


def _has_cause(line: logging.LogRecord) -> bool:
    # papermill knows only the names that it finds in the parameters cell. Ours are checked against the parameter model
    # when the notebook reads them, and an unknown one ends the run.
    return not line.getMessage().startswith("Passed unknown parameter")


sys.excepthook = show
logging.getLogger("papermill").addFilter(_has_cause)
