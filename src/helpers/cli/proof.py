"""The commands that prove what records say: ``claimbook register | derive | withdraw | verify | challenge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(
    pages: Annotated[
        list[str], typer.Argument(metavar="PAGE", help="pages with a claim, such as reports/lr-epochs-band.qmd")
    ],
    reason: Annotated[str | None, typer.Option(help="why something already registered has changed")] = None,
) -> None:
    """Register how a claim will be judged, before its runs.

    Its criteria, grid and question each get a line in the ledger.

    Example: claimbook register reports/my-study.qmd
    """
    from helpers.audit.register import register as enter

    lines = enter(map(Path, pages), reason)
    for line in lines:
        typer.echo(f"{line.event} {line.kind} {line.name}")
    typer.echo(f"{len(lines)} new lines; commit outputs/published/ledger.jsonl." if lines else "Nothing has changed.")


def derive(notebook: Annotated[str, typer.Argument(metavar="NOTEBOOK", help="whose records, such as sweep")]) -> None:
    """Derive metrics again after raising METRICS_VERSION.

    Example: claimbook derive sweep
    """
    from helpers.audit.publishing import derive_again
    from helpers.records.reading import records

    done = derive_again(records(notebook))
    typer.echo(f"{len(done)} records now have the metrics of this version.")


def withdraw(
    record: Annotated[str, typer.Argument(metavar="NOTEBOOK/ID", help="a published record")],
    reason: Annotated[str, typer.Option(help="why; the ledger keeps the reason")],
) -> None:
    """Delete a published record and say why in the ledger.

    Example: claimbook withdraw sweep/ID --reason "a wrong template"
    """
    from helpers.audit.publishing import withdraw as take_back

    take_back(record, reason)
    typer.echo(f"{record} is withdrawn; commit outputs/published to share that.")


def verify(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="NOTEBOOK/ID|BUNDLE", help="records, or folders; default: every published record"),
    ] = None,
    replay: Annotated[bool, typer.Option("--replay", help="also run each cell again and compare its tables")] = False,
) -> None:
    """Check that published records can be trusted.

    Checks their form, files, metrics, registrations, sources and ledger lines. With --replay, runs each cell again. Of
    the folder of a bundle that somebody else made (`claimbook export bundle`), checks everything that needs no more.

    Example: claimbook verify sweep/ID --replay
    """
    from helpers.audit import branches
    from helpers.audit.verify import measured_only
    from helpers.audit.verify import verify as check
    from helpers.base import files
    from helpers.records import ledger
    from helpers.system import provenance

    if ids and any(files.is_folder(Path(one)) for one in ids):
        _verify_bundles([Path(one) for one in ids], replay)
        return
    findings = check(ids, processes=provenance.cores() or 1)
    for finding in findings:
        typer.echo(str(finding))
    if findings:
        typer.echo(f"{len(findings)} findings", err=True)
        raise typer.Exit(1)
    if replay:
        _replay(ids)
    if measured := measured_only(ids):
        more = f" and {len(measured) - 3} more" if len(measured) > 3 else ""
        typer.echo(f"measured: {', '.join(measured[:3])}{more}: nothing can derive their numbers again.")
    end = f"The ledger ends in {ledger.read().head or 'nothing yet'}."
    typer.echo(f"No findings. {end}{branches.history().caveat}")


def _verify_bundles(folders: list[Path], replay: bool) -> None:
    from helpers.base.errors import ExportError
    from helpers.export.checking import verify_bundle

    if replay:
        raise ExportError("The runs of a bundle cannot be replayed. Verify it without --replay.")
    faults = 0
    for folder in folders:
        report = verify_bundle(folder)
        for line in report.lines():
            typer.echo(line)
        faults += len(report.findings)
    if faults:
        typer.echo(f"{faults} findings", err=True)
        raise typer.Exit(1)


def _replay(ids: list[str] | None) -> None:
    from helpers.audit.replay import enter, replay, replayable

    different = 0
    for result in replay(ids or replayable()):
        typer.echo(f"{result.record.ref}: {result.note} ({result.seconds:.1f} s)")
        enter(result)
        different += result.outcome == "different"
    if different:
        typer.echo(f"{different} replays differ", err=True)
        raise typer.Exit(1)


ledger_app = typer.Typer(help="Join ledgers that diverged, or print the last hash.", no_args_is_help=True)


@ledger_app.command("merge")
def ledger_merge(
    theirs: Annotated[
        str | None,
        typer.Argument(metavar="LEDGER", help="a ledger file or a git revision; default: the two sides of a conflict"),
    ] = None,
) -> None:
    """Join ledgers that diverged on two branches, keeping both chains.

    Example: claimbook ledger merge origin/main
    """
    from helpers.audit.branches import join

    typer.echo(f"{join(theirs)} lines; commit outputs/published/ledger.jsonl.")


@ledger_app.command("head")
def ledger_head() -> None:
    """Print the hash of the last line, to be posted elsewhere.

    Example: claimbook ledger head
    """
    from helpers.records import ledger

    typer.echo(ledger.read().head or "The ledger is empty.")


def challenge(
    page_or_claim: Annotated[
        str, typer.Argument(metavar="CLAIM", help="by its id or its page, such as lr-epochs-band")
    ],
) -> None:
    """Show whether a verdict holds however its records are analysed.

    Leaves out each seed and question, moves thresholds, drops controls, takes other intervals and readings.

    Example: claimbook challenge lr-epochs-band
    """
    from helpers.audit.challenge import find, lines

    for line in lines(find(page_or_claim)):
        typer.echo(line)


def coverage(
    times: Annotated[int, typer.Option(min=100, help="draws per situation")] = 1000,
    every: Annotated[bool, typer.Option("--all", help="print every situation, not only the worst ones")] = False,
) -> None:
    """Simulate how often the intervals cover the true value.

    One line for each kind of interval and number of seeds, with its lowest coverage. 1,000 draws take some minutes.

    Example: claimbook coverage --times 200
    """
    from helpers.audit.coverage import table, worst

    found = table(times)
    shown = found if every else worst(found)
    typer.echo(shown.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


def plan(
    claim: Annotated[str, typer.Argument(metavar="CLAIM", help="by its id or its page, such as lr-epochs-band")],
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="of its criteria; default: the primary one")
    ] = None,
    assume: Annotated[
        list[str] | None,
        typer.Option(help="metric=value, or metric=value@axis=value: expect it, before or instead of records"),
    ] = None,
    spread: Annotated[
        float, typer.Option(min=0, max=0.9, help="intra-class correlation of seeds where records show none")
    ] = 0.1,
) -> None:
    """Say how many seeds, questions and samples a claim needs.

    By simulation from the present records or from assumed rates: the smallest numbers that decide with 80 % chance.

    Example: claimbook plan lr-epochs-band --assume source_rate=0.9
    """
    from helpers.audit.draws import Assumed
    from helpers.audit.plan import plan as find
    from helpers.cases.case import open_case
    from helpers.cases.drafts import find_page

    assumed = [Assumed.read(text) for text in assume or []]
    typer.echo(find(open_case(find_page(claim)), question, assumed, spread).sentence)
