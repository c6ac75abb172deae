from __future__ import annotations

import shutil

import pandas as pd
import pytest

from helpers import bench
from helpers.audit import findings, verify
from helpers.base import files
from helpers.base.errors import ParameterError, RecordError
from helpers.bench import figures, scale, synthetic
from helpers.bench.study import STUDY
from helpers.records import ledger, reading
from helpers.site.status import cells_of

pytestmark = pytest.mark.unit


def test_synthetic_records_are_true_ones(tmp_path, monkeypatch):
    for name in ("params", "outputs/published"):
        shutil.copytree(files.ROOT / name, tmp_path / name)
    for name, value in {"ROOT": tmp_path, "PARAMS": tmp_path / "params"}.items():
        monkeypatch.setattr(files, name, value)
    monkeypatch.setattr(synthetic, "CONFIRMED", 7)
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "outputs/published"))
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    shutil.copytree(verify.__file__.partition("src")[0] + "data/pocket", tmp_path / "data/pocket")
    before = {folder.name for folder in findings.published_folders()}
    assert synthetic.fill(1, lrs=(1e-4, 3e-4, 1e-3), epochs=(1, 3, 10)) == 189
    new = [folder for folder in findings.published_folders() if folder.name not in before]
    assert len(new) == 27 and {folder.parent.name for folder in new} == {"sweep"}
    assert [str(one) for folder in new[::9] for one in verify.verify_folder(folder)] == []
    assert set(ledger.read().standing("record")) == {f"{f.parent.name}/{f.name}" for f in findings.published_folders()}
    states = [cell.state for cell in cells_of("sweep", root=tmp_path) if cell.grid == synthetic.GRID]
    assert states == ["complete"] * 189
    assert reading.read(new[0], published=True).note == synthetic.REASON


def test_a_command_is_measured_in_a_process_of_its_own(tmp_path):
    heavy = scale.run(tmp_path, ("-c", "x = bytearray(600_000_000); raise SystemExit(1)"))
    light = scale.run(tmp_path, ("-c", "pass"))
    assert heavy["peak_mb"] > 570 > light["peak_mb"] and heavy["seconds"] > 0
    with pytest.raises(RecordError, match="ended with 3 in"):
        scale.run(tmp_path, ("-c", "raise SystemExit(3)"))


def test_each_figure_of_scale_has_its_number(monkeypatch, tmp_path):
    (tmp_path / "_site").mkdir()
    (tmp_path / "_site/a.html").write_text("x" * 2_000_000)
    (tmp_path / "_site/0.js").write_text("x" * 500_000)
    assert scale.sizes_of(tmp_path / "_site") == {"largest page": 2.0, "largest data file": 0.5}
    rows = [
        {"operation": name, "records": 9, "seconds": float(at), "cpu_seconds": 1.0, "peak_mb": 100.0 + at}
        for at, name in enumerate(scale.COMMANDS)
    ]
    rows += [
        {"operation": "largest page", "records": 9, "mb": 2.0},
        {"operation": "largest data file", "records": 9, "mb": 0.5},
    ]
    monkeypatch.setattr(scale, "measure", lambda counts: pd.DataFrame(rows))
    [source] = [one for one in figures.SOURCES if one.by.endswith("scale:figures")]
    values = source.measure()
    assert len(values) == len(source.figures) and values[-3:] == [2.0, 0.5, 100.0 + len(scale.COMMANDS) - 1]
    counted = STUDY.metrics({"what": "scale"}, {"scale": pd.DataFrame(rows), "sizes": scale.sizes()}, {})
    assert counted["bytes_of_published_record"]["value"] > 10_000 and counted["bytes_of_row_inside_Ray"]["n"] == 1
    assert scale.metrics(pd.DataFrame(rows))["largest_page_9_mb"]["unit"] == "MB"


def test_the_grids_are_as_large_as_they_say(monkeypatch):
    read = []
    monkeypatch.setattr(scale.synthetic, "copy_project", lambda root: (root / "params/sweep").mkdir(parents=True))
    monkeypatch.setattr(scale, "run", lambda root, arguments: read.append(arguments[1]) or {"seconds": 1.0})
    assert scale.grids() == [1.0, 1.0] and len(read) == 2


def test_an_unknown_measurement_is_refused():
    with pytest.raises(ParameterError, match="did you mean 'scale'"):
        bench.main(["scales"])
