"""``claimbook record``: any command becomes a record."""

from __future__ import annotations

from typing import Annotated

import typer


def record(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="the command, behind --")],
    keep: Annotated[
        list[str] | None, typer.Option(help="files to keep, below this folder, such as 'out/*.json'")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="a JSON file of names and numbers that the command writes")
    ] = None,
    name: Annotated[str, typer.Option(help="the study that it belongs to: params/NAME, outputs/NAME")] = "commands",
    label: Annotated[str | None, typer.Option(help="what to call the command; default: its script or program")] = None,
    env: Annotated[list[str] | None, typer.Option(help="a further environment variable to record, by its name")] = None,
) -> None:
    """Run any command and keep what it did as a record.

    It holds the code state, the end of the output, and what is kept. Metrics are measured: nothing can derive them
    again, so a claim on them has LOW confidence. The exit code is that of the command.

    Example: claimbook record --metrics scores.json -- python eval.py
    """
    from helpers.studies.recorded.recording import Asked, lines_about
    from helpers.studies.recorded.recording import record as run
    from helpers.studies.recorded.running import CommandError

    asked = Asked(tuple(command), tuple(keep or ()), metrics, tuple(env or ()), name, label)
    try:
        made = run(asked)
    except CommandError as error:
        typer.echo(f"claimbook: {error}", err=True)
        raise typer.Exit(error.status) from error
    typer.echo("\n".join(lines_about(made)), err=True)
