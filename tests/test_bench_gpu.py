"""All that is worth a GPU in one unattended run: a dry run of the whole, and what is left when a part goes wrong."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import six_packages

from helpers.base import files
from helpers.base.errors import ClaimbookError, ParameterError
from helpers.bench import gpu, machine
from helpers.bench.gpu import OverLimitError, Part
from helpers.bench.measured import Measured, single
from helpers.bench.projection import PUBLISHED
from helpers.records import runs

pytestmark = pytest.mark.unit
MODEL = {"name": "m", "sha256": "0" * 64, "parameters": 1}


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    monkeypatch.setitem(machine.SIZE, "cpu", 64)
    return tmp_path / "outputs"


def contents(path: Path) -> tuple[dict[str, str], set[str]]:
    """The log of an archive, and the records whose ``run.json`` it holds."""
    with tarfile.open(path) as tar:
        log = json.load(tar.extractfile("bench-gpu.json"))
        return log, {str(Path(name).parent) for name in tar.getnames() if name.endswith("run.json")}


def test_a_dry_run_of_the_whole_leaves_the_records_of_all_parts_in_one_archive(outputs, tmp_path, monkeypatch):
    machine.measured_peak.cache_clear()
    log = gpu.run(dry=True)
    machine.measured_peak.cache_clear()
    assert list(log) == [part.name for part in gpu.PARTS if part.measure]
    assert log["vllm"] == "ClaimbookError: vLLM is timed on CUDA only."
    kept = [log[name] for name in ("shape", "ways", "adapters")]
    assert contents(outputs / "bench-gpu.tar") == (log, set(kept))
    home = tmp_path / "home"
    with tarfile.open(outputs / "bench-gpu.tar") as tar:
        tar.extractall(home)
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(home))
    shape, ways, adapters = (runs.load(ref) for ref in kept)
    for name in ("train_tokens_per_s", "mfu", "train_peak_mb", "transformers_tokens_per_s", "projected_hours", "took"):
        assert shape.metrics[name]["value"] > 0, name
    assert shape.table("factors")["published"].iloc[-1] == PUBLISHED["hours"]
    assert ways.table("ways")["way"].tolist() == ["all on", "padding", "beginnings not merged"]
    assert adapters.table("adapters")["way"].tolist() == ["1", "4", "9"]
    for record, side in ((ways, "ways_padding"), (adapters, "adapters_9")):
        for name in ("tokens_per_s", "ratio", "mfu", "peak_mb"):
            assert record.metrics[f"{side}_{name}"]["value"] >= 0, (side, name)
    tokens = adapters.table("adapters").set_index("way")["tokens"]
    assert tokens["9"] == 9 * tokens["1"]


def pretended(monkeypatch, **parts: object) -> None:
    """Parts that return, raise or interrupt without measuring anything."""

    def part(name: str, outcome: object) -> Part:
        def measure(shape: object, plan: object) -> Measured:
            if isinstance(outcome, BaseException):
                raise outcome
            return Measured({}, {"x_seconds": single(1.0, "s")}, MODEL)

        return Part(name, 60, measure=measure)

    monkeypatch.setattr(gpu, "PARTS", tuple(part(name, outcome) for name, outcome in parts.items()))
    monkeypatch.setattr(gpu, "held", lambda name: contextlib.nullcontext("a shape"))


def test_a_part_that_fails_or_takes_too_long_costs_itself_alone(outputs, monkeypatch):
    pretended(monkeypatch, one=None, two=RuntimeError("CUDA out of memory"), three=OverLimitError("it took"), four=None)
    log = gpu.run(dry=True)
    assert log["two"] == "RuntimeError: CUDA out of memory" and log["three"] == "OverLimitError: it took"
    assert contents(outputs / "bench-gpu.tar") == (log, {log["one"], log["four"]})


def test_an_end_in_the_middle_leaves_what_was_finished(outputs, monkeypatch):
    pretended(monkeypatch, one=None, two=KeyboardInterrupt(), three=None)
    with pytest.raises(KeyboardInterrupt):
        gpu.run(dry=True)
    (record,) = (record for record in runs.records("bench"))
    assert contents(outputs / "bench-gpu.tar") == ({"one": record.ref}, {record.ref})
    assert [path.name for path in outputs.iterdir() if path.is_file()] == ["bench-gpu.tar"], "and no half archive"


def test_time_that_is_up_is_said_and_parts_can_be_chosen(outputs, monkeypatch):
    pretended(monkeypatch, one=None, two=None)
    assert gpu.run(dry=True, minutes=0) == dict.fromkeys(["one", "two"], "OverLimitError: no time is left for it")
    assert list(gpu.run(dry=True, names=["two"])) == ["two"]


def test_a_limit_goes_through_code_that_catches_every_error():
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(OverLimitError, match="more than 60 s"), gpu._limit(60):
        try:
            signal.raise_signal(signal.SIGALRM)
        except Exception:
            pytest.fail("swallowed")
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_unknown_part_and_a_machine_without_a_gpu_are_refused(monkeypatch):
    with pytest.raises(ParameterError, match="did you mean 'ways'"):
        gpu.run(names=["way"], dry=True)
    monkeypatch.setattr(machine, "device", lambda: "cpu")
    with pytest.raises(ClaimbookError, match="no GPU here"):
        gpu.run()


def test_the_limits_of_the_parts_that_matter_most_fit_into_the_time():
    needed = [part.seconds for part in gpu.PARTS if part.measure and part.name != "vllm"]
    assert sum(needed) <= 60 * gpu.MINUTES and [part.name for part in gpu.PARTS][:3] == ["shape", "ways", "adapters"]


@pytest.mark.check
def test_it_needs_six_packages_and_a_kill_leaves_the_archive_of_what_was_finished(outputs, tmp_path):
    linked = six_packages.link(tmp_path)
    assert not linked & {"scipy", "statsmodels", "vllm", "papermill", "altair", "gguf", "datasets"}
    start = (
        f"import sys; sys.path[:0] = [{str(files.ROOT / 'src')!r}, {str(tmp_path)!r}]; sys.argv[1:] = ['--dry-run']; "
        "import runpy; runpy.run_module('helpers.bench.gpu', run_name='__main__')"
    )
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", start], stdout=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            if line.startswith("ways:"):
                process.kill()
                break
    log, records = contents(outputs / "bench-gpu.tar")
    assert records == {log["shape"], log["ways"]}, lines
    assert all(ref.startswith("bench/") for ref in log.values())
