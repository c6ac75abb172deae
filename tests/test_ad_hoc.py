"""Records that no params file declares: status lists each with how it differs from the nearest declared run."""

from __future__ import annotations

import pytest
import toy_study

from helpers.site import listing, status

pytestmark = pytest.mark.unit


def test_an_ad_hoc_cell_is_listed_with_the_difference(tmp_path, monkeypatch):
    root = toy_study.project(tmp_path, monkeypatch)
    toy_study.run_cells([toy_study.CoinCell(bias=0.7, seed=0), toy_study.CoinCell(bias=0.7, seed=1, flips=20)])
    cells = status.cells_of("coins", root=root)
    assert sorted(cell.state for cell in cells) == ["ad hoc", "complete", "missing", "missing", "missing"]
    [one] = [cell for cell in cells if cell.state == "ad hoc"]
    assert (one.cell, one.grid, one.why) == ("bias=0.7, seed=1", "params/coins/grid.yaml", ("flips is 20, not 50",))
    assert "  ad hoc: bias=0.7, seed=1  (flips is 20, not 50)" in listing.summary(cells, [])
    assert "  ad hoc     bias=0.7, seed=1  (flips is 20, not 50)" in listing.whole(cells, [])
