"""How the workers of `make test` share the tests: a file stays together, but every notebook is a task of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_cell import bring, make_once

LONGEST = (
    "test_notebooks", "test_pages", "test_latentwire_cell", "test_lengths", "test_marker_cell", "test_site_fallback",
    "test_compatibility", "test_stacked", "test_hostile_text", "test_actdiff_study", "test_eqprop_experiment",
)  # fmt: skip
"""The files that take longest, which begin first: one of them left for last would keep one worker busy alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for ``--dist loadgroup``, the longest first.

    Tests of one notebook share the records that its first run leaves; tests of one file share its fixtures.
    """
    for item in items:
        asked = item.callspec.params if hasattr(item, "callspec") else {}
        notebook = item.path.stem == "test_notebooks"
        group = f"notebook-{asked.get('name', 'sweep')}" if notebook else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="module")
def made_once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of the module's ``cells()``, made by its ``cell``."""
    module = request.module
    return make_once(lambda: module.cell.run_cells(module.cells()), tmp_path_factory)


@pytest.fixture
def made(made_once: Path, outputs: Path) -> None:
    """Begin with those records in the module's ``outputs``."""
    bring(made_once, outputs)
