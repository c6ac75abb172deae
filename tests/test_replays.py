"""The tiny published cell of each study, run again and compared table by table: a part of `make check`."""

from __future__ import annotations

import pytest

from helpers.audit.replay import replay
from helpers.base.files import PARAMS
from helpers.cases.case import declared_runs
from helpers.records import reading as records
from helpers.records.study import load_study

pytestmark = pytest.mark.check
STUDIES = sorted(path.parent.name for path in PARAMS.glob("*/experiment.yaml"))


@pytest.mark.parametrize("notebook", [name for name in STUDIES if load_study(name).replay])
def test_the_tiny_cell_of_a_study_comes_out_again(notebook):
    (expected,) = declared_runs(notebook, PARAMS / notebook / "replay.yaml")
    (record,) = [one for one in records.published() if one.notebook == notebook and expected.met_by(one)]
    results = list(replay([record.ref]))
    assert {one.record.study for one in results} <= {study.name for study in load_study(notebook).family()}
    assert record.ref in {one.record.ref for one in results}
    assert [f"{one.record.ref}: {one.note}" for one in results if one.outcome == "different"] == []
