"""``claimbook export``: claims and runs in the forms that other tools and other people read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HOME = Path("_export")
Pages = Annotated[
    list[str] | None, typer.Argument(metavar="PAGE", help="pages with a claim, such as lr-epochs-band; default: all")
]

export_app = typer.Typer(no_args_is_help=True, help="Write claims and runs in forms that other tools read.")


@export_app.command("claims")
def claims(
    pages: Pages = None,
    out: Annotated[Path, typer.Option(help="the file to write")] = HOME / "claims.json",
    schema: Annotated[bool, typer.Option("--schema", help="print the JSON Schema of the file instead")] = False,
) -> None:
    """Write what claims say as JSON.

    Verdict, confidence, numbers with intervals, what is not claimed, records with their hashes.

    Example: claimbook export claims lr-epochs-band
    """
    from helpers.base import files
    from helpers.export import claims as exporting
    from helpers.export import places
    from helpers.records.reading import read_once

    if schema:
        typer.echo(exporting.json_schema(), nl=False)
        return
    with read_once():
        cases, drafts = exporting.chosen(pages or [], files.ROOT)
        text = exporting.claims_of(cases).text()
    places.write_file(out, text, "claimbook/claims")
    for draft in drafts:
        typer.echo(f"left out: {draft.name} is a draft: {draft.why}", err=True)
    typer.echo(f"{out} holds {len(cases)} claims. Its form: `claimbook export claims --schema`.")


@export_app.command("bundle")
def bundle(
    pages: Pages = None,
    out: Annotated[Path, typer.Option(help="the folder to write")] = HOME / "bundle",
    site: Annotated[Path | None, typer.Option(help="pages that are rendered already, such as _site")] = None,
    to: Annotated[
        str | None,
        typer.Option(help="also put it on a host: hf:OWNER/SPACE, or pages (GitHub Pages of this repository)"),
    ] = None,
) -> None:
    """Write pages, claims, records and ledger as a folder to host.

    It opens from a disk and below any address. `claimbook verify FOLDER` checks it wherever it is.

    Example: claimbook export bundle lr-epochs-band --out my-bundle
    """
    from helpers.export import bundle as exporting
    from helpers.export import hosts

    host = None if to is None else hosts.parse(to)
    done = exporting.export(out, pages or [], site)
    for draft in done.drafts:
        typer.echo(f"left out: {draft.name} is a draft: {draft.why}", err=True)
    for notebook, count in done.unpublished.items():
        typer.echo(f"left out: {count} records of {notebook}. `claimbook publish {notebook}` adds them.", err=True)
    typer.echo(f"{out} holds {len(done.pages)} claims and {done.records} records.")
    if host is None:
        typer.echo(
            f"Check it: `claimbook verify {out}`. Host it: the same command with --to hf:OWNER/SPACE or --to pages."
        )
    else:
        typer.echo(f"It is at {host.upload(out)}")


@export_app.command("adapter")
def adapter(
    run: Annotated[str, typer.Argument(metavar="RUN", help="<notebook>/<id> of a run that trained an adapter")],
    out: Annotated[Path | None, typer.Option(help="the folder to write; default: _export/adapter-ID")] = None,
) -> None:
    """Write a run's adapter as a peft folder with its model card.

    Example: claimbook export adapter sweep/ID --out my-adapter
    """
    from helpers.export import adapter as exporting

    target = out or HOME / f"adapter-{run.rpartition('/')[2]}"
    done = exporting.export(run, target)
    said = f", on which {len(done.claims)} claims rest" if done.claims else ""
    base = done.record.model["name"]
    typer.echo(f"{target} holds the adapter of {run}{said}. Load it with PeftModel.from_pretrained on {base}.")


@export_app.command("inspect")
def inspect(
    run: Annotated[str, typer.Argument(metavar="RUN", help="<notebook>/<id> of a run whose tables hold samples")],
    out: Annotated[Path | None, typer.Option(help="the file to write; default: _export/ID.eval")] = None,
) -> None:
    """Write a run as a log of Inspect, which its viewer opens.

    Example: claimbook export inspect sweep/ID --out run.eval
    """
    from helpers.export import inspect_log

    target = out or HOME / f"{run.rpartition('/')[2]}.eval"
    samples, scores = inspect_log.export(run, target)
    typer.echo(f"{target} holds {samples} samples and {scores} scores. Open it: inspect view --log-dir {target.parent}")


@export_app.command("eee")
def eee(
    run: Annotated[str, typer.Argument(metavar="RUN", help="<notebook>/<id> of a run")],
    out: Annotated[Path | None, typer.Option(help="the file to write; default: _export/ID.json")] = None,
) -> None:
    """Write a run in the form of Every Eval Ever, a result a metric.

    Example: claimbook export eee sweep/ID --out run.json
    """
    from helpers.export import eee as exporting

    target = out or HOME / f"{run.rpartition('/')[2]}.json"
    results = exporting.export(run, target)
    typer.echo(f"{target} holds {results} results. Check it with the package every_eval_ever, which wants Python 3.12.")
