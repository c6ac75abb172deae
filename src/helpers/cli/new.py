"""``claimbook new`` and ``claimbook next``: a study or a claim begins, and what remains to be done for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from helpers.base.errors import ClaimError


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="lower case, words joined by hyphens, such as my-study")],
    blank: Annotated[bool, typer.Option("--blank", help="begin with a study in one short module")] = False,
    copied: Annotated[
        str | None, typer.Option("--from", metavar="STUDY", help="begin as a copy of a study, such as sweep")
    ] = None,
    from_import: Annotated[
        bool, typer.Option("--from-import", help="claim something of imported logs, or of recorded commands")
    ] = False,
    study: Annotated[str, typer.Option(help="with --from-import: the --name that they were given")] = "imported",
    metric: Annotated[str | None, typer.Option(help="with --from-import: the score that is judged")] = None,
    at_least: Annotated[float | None, typer.Option(help="with --from-import: the threshold from below")] = None,
    at_most: Annotated[float | None, typer.Option(help="with --from-import: the threshold from above")] = None,
    log: Annotated[
        str | None, typer.Option(help="with --from-import: the label of one log or command; default: all")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="with --from-import: the label that --log is compared with, by sample")
    ] = None,
) -> None:
    """Write a new study, or a claim about logs or commands.

    It begins in one of three ways: --blank, --from STUDY or --from-import.

    Example: claimbook new my-study --blank
    """
    if blank + (copied is not None) + from_import != 1:
        raise ClaimError(
            f"Say how {name} begins: `claimbook new {name} --blank`, `claimbook new {name} --from sweep` for a copy, "
            f"or `claimbook new {name} --from-import` for a claim about imported logs."
        )
    if from_import:
        _claim(name, study, metric, at_least, at_most, log, against)
        return
    from helpers.site.new import create
    from helpers.site.remaining import numbered, remaining
    from helpers.site.schemas import write

    made = create(name, copied)
    _show([*made, *(path for path in write(notebook=name.replace("-", "_")) if path not in made)])
    typer.echo("\n".join(["", *numbered(remaining(name))]))


def next_(name: Annotated[str, typer.Argument(metavar="STUDY", help="such as my-study")]) -> None:
    """List what remains to be done for a study, each step with its command.

    Example: claimbook next my-study
    """
    from helpers.site.remaining import numbered, remaining

    typer.echo("\n".join(numbered(remaining(name)) or [f"Nothing remains to be done for {name}."]))


def read(
    claim: Annotated[str, typer.Argument(metavar="CLAIM", help="by its id or its page, such as lr-epochs-band")],
) -> None:
    """Show a claim in plain text.

    At most 60 lines, 100 wide: the answer with its size, how sure, why, and what the claim does not say.

    Example: claimbook read lr-epochs-band
    """
    from helpers.site.reading import text_of

    typer.echo("\n".join(text_of(claim)))


def schemas() -> None:
    """Write the JSON Schemas by which editors complete and check files.

    One for the params of each study, one for criteria, one for pages. The first line of a params file names its own.

    Example: claimbook schemas
    """
    from helpers.site.schemas import write

    _show(write())


def _claim(
    name: str, study: str, metric: str | None, at_least: float | None, at_most: float | None, log: str | None,
    against: str | None,
) -> None:  # fmt: skip
    from helpers.site.from_import import Comparison, create
    from helpers.site.schemas import write

    if metric is None or (at_least is None) == (at_most is None):
        raise ClaimError("Say what is claimed: --metric NAME with either --at-least or --at-most and a number.")
    threshold = at_most if at_least is None else at_least
    assert threshold is not None  # one of the two was given
    made = create(name, study, Comparison(metric, threshold, at_least is not None, log, against))
    _show([*made, *(path for path in write(notebook=study) if path not in made)])
    typer.echo(f"\nRead the page: claimbook site {name}")


def _show(paths: Sequence[Path]) -> None:
    from helpers.system.provenance import portable

    for path in paths:
        typer.echo(portable(str(path)).removeprefix("./"))
