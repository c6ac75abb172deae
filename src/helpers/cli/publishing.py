"""``claimbook publish``: complete records become those that git tracks."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from helpers.base.errors import ClaimError


def publish(
    name: Annotated[str, typer.Argument(metavar="NOTEBOOK[/ID]", help="all records of a notebook, or a single one")],
    where: Annotated[
        list[str] | None, typer.Option("--where", help="axis=value; all axes must match, with any of their values")
    ] = None,
) -> None:
    """Copy complete records to outputs/published/, which git tracks.

    The records that they used are copied too. A record that cannot be read is left out and named.

    Example: claimbook publish sweep --where lr=1e-4 --where seed=0
    """
    from helpers.audit.publishing import publish as copy
    from helpers.base import files
    from helpers.claims.evidence import agrees, check_constraints, full_key
    from helpers.records.reading import load, records
    from helpers.site.status import cells_of
    from helpers.system.provenance import portable

    notebook = name.partition("/")[0]
    candidates = [load(name)] if "/" in name else records(notebook, status=None)
    for record in candidates:
        if record.status == "unreadable":
            typer.echo(f"left out: {record.ref}: {record.error}", err=True)
    complete = [record for record in candidates if record.status == "complete"]
    if not complete:
        raise ClaimError(f"There is no complete record of {notebook!r}: run its notebook first.")
    wanted = _constraints(where or [])
    check_constraints(wanted, [full_key(record) for record in complete])
    chosen = {record.id for record in complete if agrees(full_key(record), wanted)}
    if not chosen:
        raise ClaimError(
            f"No record of {notebook} has {' and '.join(where or ())}: `claimbook status` lists its cells."
        )
    folders = copy(notebook, lambda record: record.id in chosen)
    for folder in folders:
        typer.echo(portable(str(folder)).removeprefix("./"))
    is_declared = (files.PARAMS / notebook / "experiment.yaml").is_file()  # a part of a study has no grid of its own
    for cell in cells_of(notebook, root=files.ROOT) if is_declared else ():
        if cell.state == "ad hoc" and cell.record in chosen:
            typer.echo(
                f"declared by no params file: {cell.cell} ({'; '.join(cell.why)}; nearest: {cell.grid})", err=True
            )
    typer.echo(f"{len(folders)} records are published; commit them to share them.")


def _constraints(where: list[str]) -> dict[str, list[Any]]:
    """``["lr=1e-4", "seed=0", "seed=1"]`` as ``{"lr": [0.0001], "seed": [0, 1]}``."""
    from helpers.base.files import shown
    from helpers.base.yaml_text import read

    found: dict[str, list[Any]] = {}
    for text in where:
        axis, _, written = text.partition("=")
        value = read(written, f"--where {shown(text)}", ClaimError)
        if not axis or not written or isinstance(value, list | dict):
            raise ClaimError(
                f"--where {shown(text)} is not axis=value with one value: write --where lr=1e-4, once for each value."
            )
        found.setdefault(axis, []).append(value)
    return found
