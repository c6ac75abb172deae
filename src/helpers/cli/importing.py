"""``claimbook import``: results made elsewhere become records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

Name = Annotated[str, typer.Option(help="the study that the logs belong to: params/NAME, outputs/NAME")]
GivenLabel = Annotated[str | None, typer.Option(help="what to call it; default: the name of its file")]
Cluster = Annotated[
    str | None, typer.Option(help="key of what some samples share, such as passage; default: none share anything")
]

TableTool = Literal["csv", "jsonl", "parquet"]

import_app = typer.Typer(no_args_is_help=True, help="Make records of results that were made elsewhere.")


@import_app.command("inspect")
def inspect_logs(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG", help="logs of Inspect, .eval or .json")],
    name: Name = "imported",
    label: GivenLabel = None,
    cluster: Cluster = None,
) -> None:
    """Import logs of Inspect, a record a log.

    Example: claimbook import inspect logs/run.eval --name mmlu
    """
    from helpers.studies.imported.importing import label_of, relative

    _refuse_shared_label(label, logs)
    values = [{"label": label_of(path, label), "file": relative(path), "cluster": cluster} for path in logs]
    _import(name, [{"tool": "inspect"} | one for one in values])


@import_app.command("lm-eval")
def lm_eval_run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="what --output_path named, with --log_samples")],
    name: Name = "imported",
    label: GivenLabel = None,
    cluster: Cluster = None,
) -> None:
    """Import the newest lm-eval run in a folder.

    Each task becomes a record. A sample under several filters is one sample, judged under each.

    Example: claimbook import lm-eval results --name mmlu
    """
    from helpers.studies.imported import lm_eval
    from helpers.studies.imported.importing import label_of, relative

    found = lm_eval.tasks(folder)
    _import(name, [
        {"label": label_of(folder, label, task if len(found) > 1 else None), "tool": "lm-eval", "file": relative(path),
         "cluster": cluster}
        for task, path in found.items()
    ])  # fmt: skip


def _table(tool: TableTool) -> Callable[..., None]:
    def read(
        file: Annotated[Path, typer.Argument(metavar="FILE", help="one row a sample")],
        columns: Annotated[
            list[str],
            typer.Option(
                "--map", help="metric=COLUMN, and id=, epoch=, group=, cluster=, metric.NAME=, joined by commas"
            ),
        ],
        name: Name = "imported",
        label: GivenLabel = None,
        model: Annotated[str | None, typer.Option(help="the model, which a table does not name")] = None,
        task: Annotated[str | None, typer.Option(help="the task, which a table does not name")] = None,
    ) -> None:
        from helpers.records.run_record import NOT_RECORDED
        from helpers.studies.imported.importing import label_of, relative

        entries = [entry.strip() for one in columns for entry in one.split(",")]
        _import(name, [
            {"label": label_of(file, label), "tool": tool, "file": relative(file), "model": model or NOT_RECORDED,
             "task": task or NOT_RECORDED, "columns": entries}
        ])  # fmt: skip

    return read


for kind, spoken in (("csv", "a CSV file"), ("jsonl", "a file of JSON lines"), ("parquet", "a parquet file")):
    example = f"claimbook import {kind} scores.{kind} --map metric=right,id=item"
    import_app.command(kind, help=f"Import {spoken} with one row a sample.\n\nExample: {example}")(
        _table(cast(TableTool, kind))
    )


def _refuse_shared_label(label: str | None, logs: list[Path]) -> None:
    from helpers.base.errors import DataError

    if label is not None and len(logs) > 1:
        raise DataError(f"--label {label} would name {len(logs)} logs. Import them one by one, or leave it out.")


def _import(name: str, logs: list[dict[str, Any]]) -> None:
    from helpers.base import params
    from helpers.studies.imported.importing import import_logs, lines_about
    from helpers.studies.imported.params import LogCell

    for record in import_logs(name, [params.parse(LogCell, log, "on the command line") for log in logs]):
        typer.echo("\n".join(lines_about(record)))
