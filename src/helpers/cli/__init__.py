"""The command line: ``claimbook COMMAND``, each command thin over the room that does the work.

What a command needs is imported inside it, so that ``claimbook --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import time
import traceback as tracebacks
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import helpers.show  # noqa: F401 - it says what jsonschema need not import
from helpers.base.errors import ClaimbookError
from helpers.cli import proof, recording
from helpers.cli.check import check
from helpers.cli.exporting import export_app
from helpers.cli.importing import import_app
from helpers.cli.mask import mask
from helpers.cli.new import new, next_, read, schemas
from helpers.cli.publishing import publish

if TYPE_CHECKING:
    from helpers.site.kept import Answer


GROUPS = {
    "Begin": ("new", "next", "import", "record", "schemas"),
    "Run": ("report", "sweep", "notebook", "check", "mask", "bench"),
    "Judge": ("plan", "register", "challenge", "coverage"),
    "Read and share": ("status", "read", "site", "publish", "export"),
    "Prove": ("lint", "verify", "derive", "withdraw", "ledger"),
}
"""The commands by what they are for; a test holds that each of them stands here once."""


class _OneSentence(TyperGroup):
    """Claimbook's own errors end a command with their sentence and exit code 1; a traceback is left to real bugs."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # `--traceback` is typed behind a command that has just failed as well as in front of it.
        return super().parse_args(ctx, sorted(args, key=lambda argument: argument != "--traceback"))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Show the commands in groups, in the order of a study."""
        for title, names in GROUPS.items():
            with formatter.section(title):
                commands = [(name, self.commands[name]) for name in names]
                formatter.write_dl([(name, command.get_short_help_str(80)) for name, command in commands])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ClaimbookError as error:
            first, *more = str(error).splitlines()
            if ctx.params["traceback"]:
                more += ["", *"".join(tracebacks.format_exception(error)).splitlines()]
            if more:
                typer.echo("\n".join([f"claimbook: {first}", *more]), err=True)
            typer.echo(f"claimbook: {first}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_OneSentence,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


@app.callback()
def main(
    traceback: Annotated[bool, typer.Option("--traceback", help="also show where an error was raised")] = False,
) -> None:
    """Experiments as notebooks, runs as complete records, claims as pages computed from records."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # a bar that cannot go back over its line fills a log


@app.command()
def report(
    preset: Annotated[str, typer.Option(help="a file in params/sweep/, without .yaml")] = "smollm2",
) -> None:
    """Run the sweep, render the site, say where the time went.

    Example: claimbook report --preset pocket
    """
    from helpers.sweeps import spent
    from helpers.sweeps.board import clock
    from helpers.sweeps.executing import run_notebook
    from helpers.system.provenance import git_state

    begin = time.monotonic()
    git_state()  # says here, and not only within a kernel, when records will have no commit
    executed = run_notebook("sweep", preset)
    took = time.monotonic() - begin
    typer.echo(f"The executed notebook is {_shown(executed)}.")
    _render(begin)
    typer.echo(f"Where the time went:\n  {clock(took)} the notebook, of it")
    for part, seconds in spent.parts(executed, took).items():
        if seconds >= 1:
            typer.echo(f"    {clock(seconds)} {part}")
    typer.echo(f"  {clock(time.monotonic() - begin - took)} rendering and checking the site")


@app.command()
def sweep(
    grid: Annotated[str, typer.Argument(metavar="GRID", help="params/<notebook>/<grid>.yaml")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="tasks to run at once on this machine; default: all cores")
    ] = None,
    row: Annotated[
        int | None, typer.Option(min=1, help="cells per task; default: as many as keep all workers busy")
    ] = None,
    cpus: Annotated[float, typer.Option(min=0, help="CPUs per task")] = 1,
    gpus: Annotated[
        float | None, typer.Option(min=0, help="GPUs per task, may be a fraction; default: 1 if there are any")
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="how often to retry a task that lost its machine or kernel")] = 3,
    store: Annotated[
        str | None, typer.Option(help="address (s3://...) for records, if the machines share no folder")
    ] = None,
) -> None:
    """Run the cells of a grid that have no record yet.

    They run on this machine, or on the Ray cluster at RAY_ADDRESS. A sweep that was killed goes on where it was.

    Example: claimbook sweep params/sweep/pocket_grid.yaml --workers 2
    """
    from pathlib import Path

    from helpers.sweeps.driver import Options
    from helpers.sweeps.driver import sweep as run
    from helpers.system.provenance import git_state

    git_state()  # says here, and not only within a kernel, when records will have no commit
    command = f"claimbook sweep {_shown(grid)}"
    try:
        done = run(Path(grid), Options(workers, row, cpus, gpus, retries, store), launch=command)
    except KeyboardInterrupt:
        typer.echo("Stopped. Complete cells are kept; run the same command again to finish the rest.", err=True)
        raise typer.Exit(130) from None
    for cell, why in done.failed.items():
        typer.echo(f"failed: {cell}: {why}", err=True)
    for remark in done.remarks:
        typer.echo(f"after its cells were complete: {remark}", err=True)
    whole = done.before + done.done
    typer.echo(f"{whole} of {done.total} cells are complete, {done.before} of them from before.")
    if done.failed:
        raise typer.Exit(1)


@app.command()
def site(
    pages: Annotated[
        list[str] | None, typer.Argument(metavar="PAGE", help="a page by its name; default: all that changed")
    ] = None,
) -> None:
    """Render pages from existing records, without running anything.

    Without PAGE: those whose records, source or code changed since they were rendered.

    Example: claimbook site lr-epochs-band
    """
    _render(time.monotonic(), pages or [])


PROOF = (proof.register, proof.derive, proof.withdraw, proof.verify, proof.challenge, proof.coverage, proof.plan)
for command in (check, mask, new, read, schemas, recording.record, publish, *PROOF):
    app.command()(command)
app.command(name="next")(next_)
app.add_typer(proof.ledger_app, name="ledger")
app.add_typer(import_app, name="import")
app.add_typer(export_app, name="export")


@app.command()
def status(
    notebook: Annotated[
        str | None, typer.Argument(metavar="NOTEBOOK", help="of one notebook only, such as sweep; default: all")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="list every cell, and say why one is stale or failed")] = False,
) -> None:
    """Show the verdict on each claim, and what is missing or stale.

    Example: claimbook status sweep --all
    """
    from helpers.site.kept import recall

    def look() -> Answer:
        from helpers.site.status import answer

        return answer(notebook)

    # At once: each call of its own would flush.
    typer.echo("\n".join(recall(notebook or "", look)["whole" if every else "summary"]))


@app.command()
def lint(
    execute: Annotated[bool, typer.Option(help="also run the cells of every page and check their output")] = False,
) -> None:
    """Check every page before it is shown to others.

    Finds typed numbers, false statements, dead links and more. The exit code is 1 if there are findings.

    Example: claimbook lint --execute
    """
    from helpers.audit.branches import history
    from helpers.site.lint import lint as look

    findings = look(execute=execute)
    for finding in findings:
        typer.echo(str(finding))
    if findings:
        typer.echo(f"{len(findings)} findings", err=True)
        raise typer.Exit(1)
    typer.echo(f"No findings.{history().caveat}")


@app.command()
def notebook(names: Annotated[list[str], typer.Argument(metavar="NOTEBOOK", help="such as sweep")]) -> None:
    """Run notebooks and save the outputs in the paired .ipynb.

    Each runs with the parameters of its own first cell. Git tracks the outputs.

    Example: claimbook notebook sweep
    """
    from helpers.sweeps.executing import refresh_notebook
    from helpers.system.provenance import git_state

    git_state()  # says here, and not only within a kernel, when records will have no commit
    for name in names:
        typer.echo(_shown(refresh_notebook(name)))


@app.command()
def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="COMPARISON", help="such as training, or gpu; default: all")
    ] = None,
    records: Annotated[list[int] | None, typer.Option(min=100, help="for scale: how many records to write")] = None,
    shape: Annotated[
        str | None,
        typer.Option(help="for shape: qwen2.5-7b, qwen2.5-0.5b, smollm2-135m or tiny; default: by device"),
    ] = None,
    cells: Annotated[str | None, typer.Option(help="for sweep25: few, some or all; default: by device")] = None,
    figure: Annotated[
        list[str] | None, typer.Option(help="for figures: one by its name, such as 'make report'; default: all")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="for figures: how often to measure each")] = 1,
    preset: Annotated[str | None, typer.Option(help="for bf16: pocket or smollm2 (the default)")] = None,
    part: Annotated[list[str] | None, typer.Option(help="for gpu: one part, such as ways; default: all")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="for gpu: a toy shape, on any device")] = False,
) -> None:
    """Time our code against plain code, each timing as a record.

    training, evaluation, techniques (each switched off in turn), stacked and stacked-pocket (adapters in one pass),
    shape (a 7B model with random weights), sweep25 (the cells of one tail), gradients, capture, layers, scale (many
    records), figures (each beside its bound; an hour or more). gpu: all that is worth a GPU, within nine minutes. By
    name only, on a CPU that has bf16: bf16 (do six cells stay the same?), bf16-training, bf16-generation.

    Example: claimbook bench training
    """
    from helpers import bench as timing

    timing.main(
        names or (),
        records,
        timing.Options(shape, cells, tuple(figure or ()), runs, preset, tuple(part or ()), dry_run),
    )


def _render(begin: float, pages: Sequence[str] = ()) -> None:
    from helpers.site.render import render_site
    from helpers.sweeps.board import clock

    done = render_site(names=pages)
    rest = f"; the other {done.kept} are as they were" if done.kept else ""
    typer.echo(f"{done.count} page{'' if done.count == 1 else 's'} rendered{rest}.")
    typer.echo(f"Open {_shown(done.first)} (it took {clock(time.monotonic() - begin)}).")


def _shown(path: Any) -> str:
    from helpers.system.provenance import portable

    return portable(str(path)).removeprefix("./")
