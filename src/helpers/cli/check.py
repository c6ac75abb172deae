"""The command ``claimbook check``: what would be used for a model, and what a cell would cost with it."""

from __future__ import annotations

import os
import shutil
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

WIDTH = 18


def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="a folder, a .gguf file, a hub id or a preset")],
    cell: Annotated[
        Path | None,
        typer.Option(
            help="a file in params/sweep/, whose first cell is estimated; default: the preset's own, or smollm2"
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="name=value: a parameter of the cell, such as targets=all-linear or system=user"),
    ] = None,
) -> None:
    """Show what would be used for a model, before any data is made.

    Packed or plain rows, template, end tokens, tails, LoRA targets, vLLM, memory, and an estimate of what a cell costs.
    The exit code is 1 where a study would refuse the model.

    Example: claimbook check smollm2 --set targets=all-linear
    """
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    from helpers.bench.check import look
    from helpers.lm.models import choose_threads

    chosen = _cell(model, cell, values or [])
    choose_threads()
    refused = 0
    for line in look(chosen):
        typer.echo(_wrapped(line.name, f"REFUSED: {line.text}" if line.is_refused else line.text))
        refused += line.is_refused
    if refused:
        raise typer.Exit(1)


def _cell(model: str, path: Path | None, values: list[str]) -> Any:
    from helpers.base import files, yaml_text
    from helpers.base.errors import ParameterError
    from helpers.base.params import load, parse
    from helpers.lm.model_files import PRESETS
    from helpers.studies.marker.params import SweepCell

    path = path or files.PARAMS / "sweep" / f"{model if model in PRESETS else 'smollm2'}.yaml"
    given: dict[str, Any] = {}
    for text in values:
        name, equals, written = text.partition("=")
        if not equals:
            raise ParameterError(f"--set {text} is not name=value. Write --set lr=1e-4, once for each parameter.")
        given[name] = yaml_text.read(written, f"--set {text}", ParameterError)
    first = next(iter(load(SweepCell, path))).model_dump()
    return parse(SweepCell, first | {"revision": None} | given | {"model": model}, f"of {path.name}")


def _wrapped(name: str, text: str) -> str:
    width = max(40, shutil.get_terminal_size((120, 24)).columns)
    lines = textwrap.wrap(text, width - WIDTH, break_on_hyphens=False, break_long_words=True) or [""]
    return "\n".join(f"{head:<{WIDTH}}{line}" for head, line in zip([name, *[""] * len(lines)], lines, strict=False))
