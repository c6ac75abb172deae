"""Run a command and write its record, or a record of how it failed."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from helpers.base import files, params
from helpers.base.errors import DataError
from helpers.records import runs
from helpers.records.locks import lock_of
from helpers.records.reading import Record
from helpers.records.run_record import NOT_RECORDED
from helpers.records.study import check_name
from helpers.studies.recorded import kept, running
from helpers.studies.recorded.params import CommandCell
from helpers.studies.recorded.secrets import variables, without_secrets
from helpers.studies.recorded.study import STUDY
from helpers.system import provenance

STUDY_PLACE = "helpers.studies.recorded.study:STUDY"
GRID = "commands.yaml"
NO_MODEL = {
    "name": NOT_RECORDED,
    "sha256": files.sha256_json(["stated", NOT_RECORDED]),
    "source": "no command says",
}


@dataclass(frozen=True)
class Asked:
    """What is to be run and kept: words of the command, patterns of files, the file of metrics, added variables."""

    command: tuple[str, ...]
    keep: tuple[str, ...] = ()
    metrics: str | None = None
    env: tuple[str, ...] = ()
    name: str = "commands"
    label: str | None = None


def record(asked: Asked, root: Path = files.ROOT) -> Record:
    """Run the command of ``asked`` in the folder that we are in, and return its record.

    A command that fails, or does not leave what is to be kept, leaves a failed run, which `claimbook status` shows. The
    same line again tries that run again: a command that had ended well is not run a second time, and what it left
    must be as it was then.

    Raises:
        CommandError: the command ended with another status than 0.
        DataError: there is no such command, or what is to be kept is not there or cannot be kept.
    """
    program = _checked(asked, root)
    environment, folder = dict(os.environ), Path.cwd()
    cell = _next(asked, _words(asked.command, environment), root)
    noted = {"program": program, "folder": str(folder), "variables": variables(environment, asked.env)}
    before = kept.stamp(folder / asked.metrics) if asked.metrics else None
    with _launch(cell, asked), _opened(cell, asked, root) as run:
        is_new = not run.has("command")
        ended = run.step("command", lambda: provenance.portable(noted) | _ran(asked.command, environment))
        found, measured = kept.matches(asked.keep, folder), {}
        if asked.metrics:
            measured = kept.metrics(folder / asked.metrics)
            _refuse_earlier(folder / asked.metrics, before if is_new else None, ended["began_ns"])
        if not is_new:
            _refuse_later([folder / path for path in (*found, *filter(None, [asked.metrics]))], ended["ended_ns"])
        if found:
            run.folder("kept", lambda into: kept.copy(found, folder, into))
        return run.finish(measured=measured)


def _checked(asked: Asked, root: Path) -> str:
    """Return the program of a command; ``DataError`` before anything runs where something asked for cannot be."""
    check_name(asked.name, STUDY_PLACE, root)
    for pattern in (*asked.keep, *([asked.metrics] if asked.metrics else [])):
        kept.check_pattern(pattern)
    program = shutil.which(asked.command[0]) if asked.command else None
    if program is None:
        named = files.shown(asked.command[0]) if asked.command else "No command"
        raise DataError(f"{named} is no program that can be run. Write it behind --, as a shell would find it.")
    variables(os.environ, asked.env)
    return program


def _words(command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the words of a command as a record may hold them: no secret, and no folder of this machine."""
    words = provenance.without_secrets(list(command))
    return [provenance.portable(without_secrets(word, environment)) for word in words]


def _next(asked: Asked, words: list[str], root: Path) -> CommandCell:
    """Return the run that comes next under the label: the last one again where it is not complete."""
    label = asked.label or _label_of(asked.command)
    own = [cell for cell in _declared(asked.name, root) if cell.label == label]
    if any(cell.command != words for cell in own):
        raise DataError(f"The label {label!r} is that of another command ({shlex.join(own[0].command)}). Give --label.")
    whole = {record.cell["run"] for record in runs.records(asked.name) if record.cell.get("label") == label}
    last = max((cell.run for cell in own), default=0)
    run = last if last and last not in whole else last + 1
    return params.parse(CommandCell, {"label": label, "run": run, "command": words}, "on the command line")


def _label_of(command: Sequence[str]) -> str:
    """Return what a command is called: its script where it is run by Python, else its program."""
    words = [Path(word).name for word in command if not word.startswith("-")]
    script = next((word for word in words[1:] if word.endswith((".py", ".ipynb", ".sh"))), words[0])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(script).stem).strip("-._")[:60] or "command"


def _declared(name: str, root: Path) -> list[CommandCell]:
    path = root / "params" / name / GRID
    return list(params.load(CommandCell, path)) if path.is_file() else []


@contextlib.contextmanager
def _opened(cell: CommandCell, asked: Asked, root: Path) -> Iterator[runs.Run]:
    """Open the run of ``cell`` and declare it, so that `claimbook status` shows it however it ends."""
    with runs.open_run(
        STUDY, params=cell.resolved(), cell=cell.coordinates(), prefix=f"{cell.label}-{cell.run}",
        data=_inputs(asked, root), model=NO_MODEL, notebook=asked.name, wait=False,
    ) as run:  # fmt: skip
        if run.complete:
            raise DataError(f"{run.label} is complete already. Run the line again for the next run of this label.")
        with FileLock(lock_of(files.outputs_root() / asked.name, GRID)):
            _declare(cell, asked.name, root)
        yield run


def _declare(cell: CommandCell, name: str, root: Path) -> None:
    known = _declared(name, root)
    if cell not in known:
        blocks = [one.model_dump(mode="json") for one in [*known, cell]]
        files.write_text(root / "params" / name / "experiment.yaml", f"study: {STUDY_PLACE}\n")
        text = yaml.safe_dump({"blocks": blocks}, sort_keys=False, allow_unicode=True)
        files.write_text(root / "params" / name / GRID, text)


def _inputs(asked: Asked, root: Path) -> list[Path]:
    """Return the files of the repository that the command names and does not write: their content is recorded."""
    written = {Path(asked.metrics).resolve()} if asked.metrics else set()
    written |= {path.resolve() for pattern in asked.keep for path in Path.cwd().glob(pattern)}
    named = {Path(os.path.realpath(word.rpartition("=")[2])) for word in asked.command}
    inside = [path for path in sorted(named - written) if path.is_relative_to(root) and files.is_there(path)]
    ignored = provenance.git("check-ignore", "--", *map(str, inside), root=root) if inside else b""
    left_out = {Path(line) for line in (ignored or b"").decode().splitlines()}
    return [path for path in inside if path not in left_out]


def _ran(command: Sequence[str], environment: dict[str, str]) -> dict[str, Any]:
    began = time.time_ns()
    ended = running.run(command, environment)
    tail = [provenance.portable(without_secrets(line, environment)) for line in ended.tail]
    if ended.status:
        last = next((line.strip() for line in reversed(tail) if line.strip()), "it wrote nothing")
        raise running.CommandError(f"The command {ended.how}. Its last line: {last}", ended.status)
    return {"status": ended.status, "began_ns": began, "ended_ns": ended.at_ns, "output": tail}


def _refuse_earlier(path: Path, before: tuple[int, ...] | None, began_ns: int) -> None:
    """Raise ``DataError`` for a file that is as it was ``before`` the command, or older than it."""
    if kept.stamp(path) == before or path.stat().st_mtime_ns < began_ns - files.CLOCK_NS:
        raise DataError(f"--metrics {path.name} is older than the command, which did not write it. Correct its name.")


def _refuse_later(paths: Sequence[Path], ended_ns: int) -> None:
    """Raise ``DataError`` for a file that was written after the command, which is not run again, had ended."""
    for path in paths:
        if path.stat().st_mtime_ns > ended_ns:
            raise DataError(f"{path.name} was changed after the command had ended. Run it under another --label.")


@contextlib.contextmanager
def _launch(cell: CommandCell, asked: Asked) -> Iterator[None]:
    """Let the record, and those that the command itself makes, name our command line without its secrets."""
    said = ["claimbook", "record", "--name", asked.name, "--label", cell.label]
    said += [word for pattern in asked.keep for word in ("--keep", pattern)]
    said += ["--metrics", asked.metrics] if asked.metrics else []
    said += [word for name in asked.env for word in ("--env", name)]
    before = os.environ.get(provenance.LAUNCH)
    os.environ[provenance.LAUNCH] = shlex.join([*said, "--", *cell.command])
    try:
        yield
    finally:
        os.environ.pop(provenance.LAUNCH) if before is None else os.environ.update({provenance.LAUNCH: before})


def lines_about(record: Record) -> list[str]:
    """Return what a terminal says of a recorded command: its record, its files, and its metrics with what they lack."""
    count = sum("/" in name for name in record.files)
    said = [f"{record.ref}: {record.seconds['command']:.1f} s, {count} files kept"]
    return said + [f"  {name}: {metric['value']:g}, measured" for name, metric in record.metrics.items()]
